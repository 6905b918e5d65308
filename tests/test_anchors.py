"""Every step against a dense reimplementation written from the page, not from the code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from scipy.spatial.distance import cdist

from scovert.anchors import (
    Anchors,
    _find,
    _match,
    _space,
    find_anchors,
    harmony,
    principal_components,
)
from scovert.anchors._classes import Classes
from scovert.data import pbmc68k, two_batches

N_GENES = 37
SIZES = {"two": (83, 51), "unlike": (140, 23), "three": (47, 61, 29)}


def unchanged(components: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Stand in for Harmony: leave the components as they are."""
    return components


def centred(components: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Stand in for Harmony: every dataset has its mean at the origin."""
    means = np.stack([components[batch == b].mean(0) for b in range(batch.max() + 1)])
    return components - means[batch]


def make(sizes: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts of three cell types with a batch effect, cells of all datasets shuffled."""
    rng = np.random.default_rng(seed)
    batch = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    types = rng.integers(0, 3, len(batch))
    logs = rng.normal(0, 1, (3, N_GENES))[types] + rng.normal(0, 0.5, (len(sizes), N_GENES))[batch]
    return rng.poisson(3 * np.exp(logs)), batch


@cache
def found_of(
    sizes: tuple[int, ...], space: str | Callable = "classes", everything: bool = True
) -> Anchors:
    """Find the anchors of such cells once for all tests; of all or of most of them."""
    counts, batch = make(sizes)
    return find_anchors(counts, batch, train=training(sizes, everything), space=space)


def training(sizes: tuple[int, ...], everything: bool) -> np.ndarray:
    return (np.random.default_rng(1).random(sum(sizes)) < 0.8) | everything


@cache
def classes_of(sizes: tuple[int, ...]) -> Classes:
    counts, batch = make(sizes)
    return Classes.fit(components(counts), batch, seed=0)


# A dense reimplementation


def components(counts: np.ndarray) -> np.ndarray:
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    return _space.nudged(principal_components(logs, 30), seed=0)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def dense_nearest(distance: np.ndarray, k: int) -> np.ndarray:
    """Boolean matrix: is the column among the k nearest of the row?"""
    rank = distance.argsort(1, kind="stable").argsort(1, kind="stable")
    return rank < k


def dense_match(h_p: np.ndarray, h_c: np.ndarray) -> np.ndarray:
    """Boolean matrix of pairs between two datasets."""
    n_p, n_c = len(h_p), len(h_c)
    k = min(60, max(5, round(min(n_p, n_c) / 100)))
    k_p, k_c = round(k * max(1, n_c / n_p)), round(k * max(1, n_p / n_c))
    between = cdist(h_p, h_c)
    mutual = dense_nearest(between, k_p) & dense_nearest(between.T, k_c).T
    own_p, own_c = cdist(h_p, h_p), cdist(h_c, h_c)
    r_p = np.median(np.sort(own_p, 1)[:, :5], 1)
    r_c = np.median(np.sort(own_c, 1)[:, :5], 1)
    d = between / np.sqrt(np.outer(r_p, r_c))
    score = dense_nearest(own_p, 15) @ mutual.astype(int) @ dense_nearest(own_c, 15).T
    median = np.median(d[mutual])
    mad = np.median(np.abs(d[mutual] - median))
    quantile = np.quantile(score[mutual], 0.1)
    return mutual & (d <= median + 2 * 1.4826 * mad) & (score >= quantile)


def dense_pairs(h: np.ndarray, batch: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Symmetric boolean matrix of pairs, all cells x all cells."""
    found = np.zeros((len(h), len(h)), bool)
    rows = [np.flatnonzero((batch == b) & train) for b in range(batch.max() + 1)]
    for p, c in combinations(range(len(rows)), 2):
        pairs = dense_match(h[rows[p]], h[rows[c]])
        found[np.ix_(rows[p], rows[c])] = pairs
        found[np.ix_(rows[c], rows[p])] = pairs.T
    return found


def dense_support(
    pairs: np.ndarray,
    h: np.ndarray,
    x: np.ndarray,
    batch: np.ndarray,
    train: np.ndarray,
    classes: Classes,
) -> np.ndarray:
    """Mean over a cell's class of the share of anchored neighbours, by the dataset's own level."""
    n_datasets = batch.max() + 1
    support = np.zeros((len(h), n_datasets))
    for b, c in np.ndindex(n_datasets, n_datasets):
        if b == c:
            support[batch == b, c] = np.nan
            continue
        own = np.flatnonzero((batch == b) & train)
        anchored = pairs[np.ix_(own, batch == c)].any(1)
        near = cdist(h[own], h[own]).argsort(1)[:, :15]
        share = anchored[near].mean(1)
        value = np.minimum(1, share / (0.5 * np.quantile(share, 0.75)))
        for mixture in classes.mixtures:
            weight = mixture.classes(x[:, : classes.n_components], b)
            means = (weight[own] * value[:, None]).sum(0) / weight[own].sum(0)
            support[batch == b, c] += (weight[batch == b] * means).sum(1) / 3
    return support


def dense_anchors(pairs: np.ndarray, support: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Pairs of cells with a support of 0.7 both."""
    there = support[:, batch]  # (n_cells, n_cells): of the row in the dataset of the column
    return pairs & (np.minimum(there, there.T) >= 0.7)


def as_matrix(anchors: Anchors, n_cells: int) -> np.ndarray:
    matrix = np.zeros((n_cells, n_cells), bool)
    matrix[tuple(anchors.pairs.T)] = True
    return matrix | matrix.T


SPACES = {
    "classes": lambda classes, x, batch: classes.place(x, batch),
    "harmony": lambda classes, x, batch: unit(harmony(x, batch)).astype(np.float32),
    "centred": lambda classes, x, batch: unit(centred(x, batch)).astype(np.float32),
}
CASES = [
    (sizes, space, everything)
    for sizes in SIZES.values()
    for space, everything in [("classes", True), ("classes", False), ("centred", True)]
] + [(SIZES["two"], "harmony", False)]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]} {c[1]} {c[2]}")
def case(request: pytest.FixtureRequest) -> tuple:
    """Datasets, training cells, positions, pairs, support, anchors; and what was found."""
    sizes, space, everything = request.param
    counts, batch = make(sizes)
    train = training(sizes, everything)
    found = found_of(sizes, centred if space == "centred" else space, everything)
    x, classes = components(counts), classes_of(sizes)
    h = SPACES[space](classes, x, batch)
    pairs = dense_pairs(h, batch, train)
    support = dense_support(pairs, h, x, batch, train, classes)
    return batch, train, h, support, dense_anchors(pairs, support, batch), found


def test_anchors_are_those_of_the_page(case: tuple) -> None:
    batch, _, _, _, expected, found = case
    assert expected.any()
    np.testing.assert_array_equal(as_matrix(found, len(batch)), expected)
    assert len(found.pairs) == expected.sum() / 2, "a pair twice"


def test_support_is_that_of_the_page(case: tuple) -> None:
    _, _, _, expected, _, found = case
    np.testing.assert_allclose(found.support, expected, atol=1e-5)


def test_partners_are_the_anchored_cells(case: tuple) -> None:
    batch, train, h, _, expected, found = case
    partners = found.partners.toarray()
    assert set(np.unique(partners)) <= {0, 1}
    np.testing.assert_array_equal(partners[train], expected[train])
    for i in np.flatnonzero(~train):
        own = np.flatnonzero((batch == batch[i]) & train)
        nearest = own[cdist(h[[i]], h[own])[0].argmin()]
        np.testing.assert_array_equal(partners[i], partners[nearest])


def test_more_cells_are_searched_deeper(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    nearest = _match.nearest
    monkeypatch.setattr(_match, "nearest", lambda p, q, k: asked.append(k) or nearest(p, q, k))
    rng = np.random.default_rng(0)
    for n_p, n_c, expected in ((900, 800, (8, 9)), (400, 8000, (100, 5)), (6500, 7000, (65, 60))):
        data = [
            _match.Dataset(np.arange(n), rng.random((n, 2)), np.zeros((n, 1), int), np.ones(n))
            for n in (n_p, n_c)
        ]
        asked.clear()
        _match.match_all(data)
        assert tuple(asked) == expected


def test_guard_trusts_types_and_not_noise() -> None:
    counts, batch = make((150, 110))
    found = found_of((150, 110))
    assert found.are_trusted
    noise = np.random.default_rng(0).poisson(3, counts.shape)
    untrusted = find_anchors(noise, batch)
    assert not untrusted.are_trusted
    assert len(untrusted.pairs) > 0
    assert untrusted.clarity < 0.4 < found.clarity - 0.1


def test_anchors_join_the_same_type() -> None:
    rng = np.random.default_rng(0)
    _, batch = make((150, 110))
    types = np.random.default_rng(0)  # the draws of `make`
    types.permutation(len(batch))
    types = types.integers(0, 3, len(batch))
    pairs = found_of((150, 110)).pairs
    right = (types[pairs[:, 0]] == types[pairs[:, 1]]).mean()
    chance = (rng.permutation(types)[pairs[:, 0]] == types[pairs[:, 1]]).mean()
    assert right > 0.95
    assert chance < 0.5


def test_a_seed_gives_the_same_anchors() -> None:
    counts, batch = make(SIZES["two"])
    first, second = (find_anchors(counts, batch, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.pairs, second.pairs)
    np.testing.assert_array_equal(first.support, second.support)
    assert first.clarity == second.clarity


FORMS = [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, np.float32, np.float64, np.int8]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_the_storage_does_not_matter(form: Callable) -> None:
    counts, batch = make(SIZES["two"])
    given = form(counts)
    before = given.copy()
    found = find_anchors(given, batch, space=centred)
    np.testing.assert_array_equal(found.pairs, found_of(SIZES["two"], centred).pairs)
    assert abs(given - before).max() == 0


# Principal components and Harmony


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_components_are_those_of_scanpy(form: Callable) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1, 1, (163, N_GENES)))
    counts[:, 3] = 0
    counts[:, 4] = np.arange(163) == 7  # 12 standard deviations: cut to 10
    logs = np.log1p(counts)
    adata = AnnData(logs)
    sc.pp.scale(adata, max_value=10)
    assert adata.X.max() == 10
    sc.pp.pca(adata, n_comps=8)
    found, expected = principal_components(form(logs), 8), adata.obsm["X_pca"]
    assert found.shape == expected.shape
    sign = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * sign, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "n"), [((5, 37), 4), ((67, 11), 10), ((2, 2), 1), ((67, 40), 30)]
)
def test_there_are_as_many_components_as_the_data_have(shape: tuple, n: int) -> None:
    x = np.random.default_rng(0).random(shape)
    assert principal_components(x, 30).shape == (shape[0], n)


@pytest.mark.parametrize("n_components", [5, 67])
def test_harmony_keeps_the_shape_and_brings_datasets_together(n_components: int) -> None:
    rng = np.random.default_rng(0)
    batch = rng.permutation(np.repeat([0, 1], [40, 27]))
    components = rng.normal(0, 1, (67, n_components)) + 2 * batch[:, None]
    found = harmony(components, batch)
    assert found.shape == components.shape
    before, after = (
        np.linalg.norm(x[batch == 0].mean(0) - x[batch == 1].mean(0)) for x in (components, found)
    )
    assert after < 0.6 * before


# Positions


@pytest.mark.parametrize("sizes", SIZES.values())
def test_positions_move_with_the_anchors_around_them(sizes: tuple[int, ...]) -> None:
    counts, batch = make(sizes)
    train = np.arange(len(batch)) % 5 > 0
    found = find_anchors(counts, batch, train=train)
    y = components(counts).astype(float)
    classes = Classes.fit(y, batch, seed=0)
    start, places = classes.corrected(y, batch).astype(float), classes.place(y, batch)
    n = len(batch)
    partner = np.zeros((n, n))
    partner[found.pairs[:, 0], found.pairs[:, 1]] = partner[
        found.pairs[:, 1], found.pairs[:, 0]
    ] = 1
    anchored, moved = partner.any(1), start.copy()
    partner /= np.maximum(partner.sum(1, keepdims=True), 1)
    is_supported = np.nanmax(found.support, axis=1) >= 0.7
    for _ in range(5):
        step = (partner @ moved - moved) / 2
        last = moved.copy()
        for b in range(len(sizes)):
            own = np.flatnonzero((batch == b) & train)
            near = dense_nearest(cdist(places[own], places[own]), 15)
            for row, i in zip(near, own, strict=True):
                around = own[row & anchored[own]]
                if is_supported[i] and len(around):
                    moved[i] = last[i] + step[around].mean(0)
    for i in np.flatnonzero(~train):
        own = np.flatnonzero((batch == batch[i]) & train)
        source = own[np.linalg.norm(places[own] - places[i], axis=1).argmin()]
        moved[i] = start[i] + moved[source] - start[source]
    assert np.abs(moved - start).max() > 0.1
    np.testing.assert_allclose(found.positions, moved, atol=1e-3)


@pytest.mark.parametrize("sizes", SIZES.values())
def test_consistency_is_how_much_classes_of_anchored_cells_are_shared(
    sizes: tuple[int, ...],
) -> None:
    counts, batch = make(sizes)
    found = find_anchors(counts, batch)
    y = components(counts).astype(float)
    fitted = Classes.fit(y, batch, seed=0)

    def shared(i: int, c: int) -> float:
        """Part of the class of cell i for which dataset c has as large a share as its own."""
        parts = []
        for mixture in fitted.mixtures:
            own, there = mixture.weights[:, batch[i]], mixture.weights[:, c]
            parts.append(
                mixture.classes(y[[i], : fitted.n_components], batch[i])[0]
                @ np.minimum(1, there / own)
            )
        return np.mean(parts)

    expected = np.mean([shared(i, batch[j]) * shared(j, batch[i]) for i, j in found.pairs])
    assert found.consistency == pytest.approx(expected, abs=1e-5)
    assert 0 < expected < 1


# The edges


@pytest.mark.parametrize("sizes", [(3, 3), (3, 90), (4, 3, 50), (16, 14)])
@pytest.mark.parametrize("space", ["classes", "harmony", centred])
def test_tiny_datasets(sizes: tuple[int, ...], space: str | Callable) -> None:
    counts, batch = make(sizes)
    found = find_anchors(counts, batch, space=space)
    own = np.eye(len(sizes), dtype=bool)[batch]
    assert np.isnan(found.support[own]).all()
    assert ((found.support[~own] >= 0) & (found.support[~own] <= 1 + 1e-6)).all()
    assert 0 <= found.clarity <= 1
    assert (batch[found.pairs[:, 0]] != batch[found.pairs[:, 1]]).all()


def test_cells_without_counts() -> None:
    counts, batch = make(SIZES["two"])
    counts[[0, 1, 5, 80]] = 0
    for space in ("classes", "harmony"):
        found = find_anchors(counts, batch, space=space)
        assert np.isfinite(found.support[np.arange(len(batch)), 1 - batch]).all()
        assert np.isfinite(found.clarity)


def test_cells_that_are_all_alike() -> None:
    _, batch = make(SIZES["two"])
    found = find_anchors(np.ones((len(batch), N_GENES), int), batch)
    assert np.isfinite(found.support[np.arange(len(batch)), 1 - batch]).all()
    assert not found.are_trusted


@pytest.mark.parametrize("kind", ["copies", "without counts", "all alike"])
def test_rounding_decides_nothing_among_equal_cells(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, batch = make((70, 45))
    if kind == "copies":
        rows = np.repeat(np.arange(len(batch)), np.where(np.arange(len(batch)) % 3, 1, 20))
        counts, batch = counts[rows], batch[rows]
    elif kind == "without counts":
        counts[::4] = 0
    else:
        counts[:] = 1
    components_of, found = _space.components_of, []
    for seed in range(4):
        rng = np.random.default_rng(seed)

        def rounded(*args: object, rng: object = rng, **kwargs: object) -> np.ndarray:
            components = components_of(*args, **kwargs).astype(float)
            axes = 1 + 1e-7 * rng.normal(size=components.shape[1])
            return components * axes * (1 + 1e-11 * rng.normal(size=components.shape))

        monkeypatch.setattr(_find, "components_of", rounded)
        found.append(find_anchors(counts, batch))
    for other in found[1:]:
        np.testing.assert_array_equal(other.pairs, found[0].pairs)
        np.testing.assert_allclose(other.clarity, found[0].clarity, atol=1e-6)
        np.testing.assert_allclose(other.support, found[0].support, atol=1e-4)


def test_no_anchor_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_match, "_match", lambda *_: np.zeros((0, 2), np.int64))
    counts, batch = make(SIZES["three"])
    found = find_anchors(counts, batch, train=np.arange(len(batch)) % 5 > 0)
    assert found.pairs.shape == (0, 2)
    assert found.partners.nnz == 0
    assert not found.are_trusted
    own = np.eye(3, dtype=bool)[batch]
    assert (found.support[~own] == 0).all()
    assert np.isnan(found.support[own]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_missing_type_has_low_support(seed: int) -> None:
    # Dendritic cells have no close relative among the others, as T cell subtypes have
    adata = two_batches(pbmc68k(), missing={"b": ["Dendritic"]}, seed=seed)
    batch = adata.obs["batch"].cat.codes.to_numpy()
    found = find_anchors(adata.X, batch, seed=seed)
    support = found.support[np.arange(len(batch)), 1 - batch]
    missing = (adata.obs["cell_type"] == "Dendritic").to_numpy()
    assert support[missing].mean() < 0.3
    assert support[~missing].mean() > 0.9
    assert np.isin(np.flatnonzero(missing), found.pairs).mean() < 0.25


# Many cells: every threshold is lowered, and the result compared with that of the full search


@pytest.fixture(scope="module")
def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, datasets and five types, of which the first dataset lacks one."""
    rng = np.random.default_rng(0)
    batch = rng.permutation(np.repeat([0, 1], [900, 600]))
    types = rng.integers(0, 5, len(batch))
    logs = rng.normal(0, 1, (5, N_GENES))[types] + rng.normal(0, 0.3, (2, N_GENES))[batch]
    kept = (batch == 1) | (types > 0)
    return rng.poisson(3 * np.exp(logs))[kept], batch[kept], types[kept]


@pytest.fixture(scope="module")
def full(cells: tuple) -> Anchors:
    counts, batch, _ = cells
    return find_anchors(counts, batch)


def support_correlation(first: Anchors, second: Anchors) -> float:
    known = np.isfinite(first.support)
    return np.corrcoef(first.support[known], second.support[known])[0, 1]


@pytest.mark.parametrize("everything", [True, False])
def test_above_the_limit_a_sample_is_matched(
    monkeypatch: pytest.MonkeyPatch, everything: bool
) -> None:
    monkeypatch.setattr(_find, "MAX_CELLS", 90)
    monkeypatch.setattr(_space, "MIN_PER_DATASET", 20)
    monkeypatch.setattr(_find, "CELLS_AT_ONCE", 7)
    counts, batch = make((110, 40, 13))
    train = (np.random.default_rng(1).random(len(batch)) < 0.9) | everything
    matched = []

    def spy(pairs: np.ndarray, batch: np.ndarray, datasets: list) -> list:
        matched.extend(np.concatenate([data.rows for data in datasets]))
        return own_support(pairs, batch, datasets)

    own_support = _find._own_support
    monkeypatch.setattr(_find, "_own_support", spy)
    found = find_anchors(counts, batch, train=train, space=centred)
    assert len(set(matched)) == len(matched) <= 90
    assert train[matched].all()
    sizes = np.bincount(batch[matched])
    assert sizes[2] == train[batch == 2].sum()
    assert sizes[0] > sizes[1] >= 20
    is_matched = np.isin(np.arange(len(batch)), matched)
    assert is_matched[found.pairs].all()
    partners, space = found.partners.toarray(), unit(centred(components(counts), batch))
    for i in np.flatnonzero(~is_matched):
        own = np.flatnonzero((batch == batch[i]) & is_matched)
        near = own[cdist(space[[i]], space[own])[0].argmin()]
        np.testing.assert_array_equal(partners[i], partners[near])
        assert not partners[i, batch == batch[i]].any()


@pytest.mark.parametrize("sizes", [(1000, 1000), (5000, 3), (900, 80, 10), (40,) * 50])
def test_a_sample_holds_all_datasets(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    monkeypatch.setattr(_space, "MIN_PER_DATASET", 60)
    batch = np.repeat(np.arange(len(sizes)), sizes)
    rows = _space.sample(batch, np.ones(len(batch), bool), 500, seed=0)
    drawn = np.array([len(r) for r in rows])
    assert 500 - len(sizes) <= drawn.sum() <= 500
    assert (drawn >= np.minimum(sizes, min(60, 500 // len(sizes)))).all()
    assert (np.diff(drawn) * np.diff(sizes) >= 0).all()


def test_a_sample_gives_the_same_picture(
    monkeypatch: pytest.MonkeyPatch, cells: tuple, full: Anchors
) -> None:
    counts, batch, types = cells
    monkeypatch.setattr(_find, "MAX_CELLS", 500)
    monkeypatch.setattr(_space, "MIN_PER_DATASET", 50)
    monkeypatch.setattr("scovert.anchors._classes.MAX_CELLS_TO_FIT", 500)
    found = find_anchors(counts, batch)
    assert len(found.pairs) < 0.6 * len(full.pairs)
    assert support_correlation(found, full) > 0.95
    assert found.are_trusted
    partners = found.partners.tocoo()
    assert (types[partners.row] == types[partners.col]).mean() > 0.95
    share, full_share = ((np.diff(a.partners.indptr) > 0).mean() for a in (found, full))
    assert share > 0.8 * full_share


def test_components_fitted_to_a_part_are_those_of_all(
    monkeypatch: pytest.MonkeyPatch, cells: tuple
) -> None:
    logs = np.log1p(cells[0])
    expected = principal_components(logs, 3)
    for n_fitted, least in ((len(expected) - 1, 0.9999), (400, 0.95)):
        monkeypatch.setattr(_space, "MAX_CELLS_TO_FIT", n_fitted)
        monkeypatch.setattr(_space, "BLOCK", 101)
        found = principal_components(logs, 3)
        assert found.shape == expected.shape
        assert found.dtype == np.float32
        both = np.abs(np.corrcoef(found.T, expected.T)[:3, 3:]).diagonal()
        assert (both > least).all(), both
    monkeypatch.setattr(_space, "BLOCK", 10_000)
    np.testing.assert_allclose(principal_components(logs, 3), found, atol=1e-4)
    constant = principal_components(np.ones(logs.shape), 3)
    np.testing.assert_array_equal(constant, np.zeros((len(logs), 3)))


@pytest.mark.parametrize("pairs_at_once", [1, 7])
def test_scores_do_not_depend_on_the_block(
    monkeypatch: pytest.MonkeyPatch, pairs_at_once: int
) -> None:
    for sizes in SIZES.values():
        counts, batch = make(sizes)
        expected = found_of(sizes, centred)
        with monkeypatch.context() as patch:
            patch.setattr(_match, "PAIRS_AT_ONCE", pairs_at_once)
            found = find_anchors(counts, batch, space=centred)
        np.testing.assert_array_equal(found.pairs, expected.pairs)


def test_only_a_few_cells_are_read_at_a_time(
    monkeypatch: pytest.MonkeyPatch, cells: tuple
) -> None:
    counts, batch, _ = cells
    read, normalise = [], _space.log_normalise

    def spy(x: object) -> sparse.csr_matrix:
        read.append(x.shape[0])
        return normalise(x)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a dense matrix of cells x genes")

    monkeypatch.setattr(_find, "log_normalise", spy)
    monkeypatch.setattr(_find, "MAX_CELLS", 500)
    monkeypatch.setattr(_space, "MIN_PER_DATASET", 50)
    monkeypatch.setattr(_space, "MAX_CELLS_TO_FIT", 300)
    monkeypatch.setattr(_space, "BLOCK", 100)
    monkeypatch.setattr(sparse.csr_matrix, "toarray", refuse)
    monkeypatch.setattr(sparse.csr_matrix, "todense", refuse)
    monkeypatch.setattr(sparse.csc_matrix, "toarray", refuse)
    find_anchors(sparse.csr_matrix(counts), batch)
    assert max(read) == 300
    assert read.count(100) >= len(batch) // 100
