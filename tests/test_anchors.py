"""Every step against a dense reimplementation written from the recipe, not from the code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
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
    _guard,
    _match,
    _search,
    _space,
    find_anchors,
    harmony,
    principal_components,
)
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


# A dense reimplementation


def unit_space(counts: np.ndarray, batch: np.ndarray, embed: Callable) -> np.ndarray:
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    space = np.asarray(embed(principal_components(logs, 30), batch), float)
    return _space.nudged(space / np.linalg.norm(space, axis=1, keepdims=True), seed=0)


def dense_nearest(distance: np.ndarray, k: int) -> np.ndarray:
    """Boolean matrix: is the column among the k nearest of the row?"""
    rank = distance.argsort(1, kind="stable").argsort(1, kind="stable")
    return rank < k


def dense_match(h_p: np.ndarray, h_c: np.ndarray, *, deeper: bool = True) -> np.ndarray:
    """Boolean matrix of anchors between two datasets."""
    n_p, n_c = len(h_p), len(h_c)
    k_p = round(5 * max(1, n_c / n_p)) if deeper else 5
    k_c = round(5 * max(1, n_p / n_c)) if deeper else 5
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


def dense_anchors(
    h: np.ndarray, batch: np.ndarray, train: np.ndarray, *, deeper: bool = True
) -> np.ndarray:
    """Symmetric boolean matrix of anchors, all cells x all cells."""
    found = np.zeros((len(h), len(h)), bool)
    rows = [np.flatnonzero((batch == b) & train) for b in range(batch.max() + 1)]
    for p, c in combinations(range(len(rows)), 2):
        pairs = dense_match(h[rows[p]], h[rows[c]], deeper=deeper)
        found[np.ix_(rows[p], rows[c])] = pairs
        found[np.ix_(rows[c], rows[p])] = pairs.T
    return found


def dense_support(
    found: np.ndarray, h: np.ndarray, batch: np.ndarray, train: np.ndarray
) -> np.ndarray:
    n_datasets = batch.max() + 1
    support = np.full((len(h), n_datasets), np.nan)
    for i, c in np.ndindex(len(h), n_datasets):
        own = np.flatnonzero((batch == batch[i]) & train)
        if c != batch[i] and train[i]:
            near = own[np.argsort(cdist(h[[i]], h[own])[0])[:15]]
            share = found[np.ix_(near, np.flatnonzero(batch == c))].any(1).mean()
            support[i, c] = min(1, share / 0.3)
    for i in np.flatnonzero(~train):
        own = np.flatnonzero((batch == batch[i]) & train)
        near = own[np.argsort(cdist(h[[i]], h[own])[0])[:15]]
        support[i] = support[near].mean(0)
    return support


def as_matrix(anchors: Anchors, n_cells: int) -> np.ndarray:
    matrix = np.zeros((n_cells, n_cells), bool)
    matrix[tuple(anchors.pairs.T)] = True
    return matrix | matrix.T


CASES = [
    (sizes, embed, everything)
    for sizes in SIZES.values()
    for embed, everything in [(unchanged, True), (centred, True), (centred, False)]
]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]} {c[1].__name__} {c[2]}")
def case(request: pytest.FixtureRequest) -> tuple:
    sizes, embed, everything = request.param
    counts, batch = make(sizes)
    train = np.random.default_rng(1).random(len(batch)) < 0.8
    train |= everything
    found = find_anchors(counts, batch, train=train, embed=embed)
    return counts, batch, train, unit_space(counts, batch, embed), found


def test_anchors_are_those_of_the_recipe(case: tuple) -> None:
    _, batch, train, h, found = case
    expected = dense_anchors(h, batch, train)
    assert expected.any()
    np.testing.assert_array_equal(as_matrix(found, len(batch)), expected)
    assert len(found.pairs) == expected.sum() / 2, "a pair twice"


def test_support_is_that_of_the_recipe(case: tuple) -> None:
    _, batch, train, h, found = case
    expected = dense_support(dense_anchors(h, batch, train), h, batch, train)
    np.testing.assert_allclose(found.support, expected, atol=1e-6)


def test_partners_are_the_anchored_cells(case: tuple) -> None:
    _, batch, train, h, found = case
    partners = found.partners.toarray()
    assert set(np.unique(partners)) <= {0, 1}
    np.testing.assert_array_equal(partners[train], dense_anchors(h, batch, train)[train])
    for i in np.flatnonzero(~train):
        own = np.flatnonzero((batch == batch[i]) & train)
        nearest = own[cdist(h[[i]], h[own])[0].argmin()]
        np.testing.assert_array_equal(partners[i], partners[nearest])


def test_consistency_is_that_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for sizes in SIZES.values():
        counts, batch = make(sizes)
        train = np.random.default_rng(1).random(len(batch)) < 0.8
        cluster = np.random.default_rng(2).integers(0, 4, len(batch))
        answers = iter([cluster[(batch == b) & train] for b in range(len(sizes))])
        monkeypatch.setattr(_guard, "_leiden", lambda *_, answers=answers: next(answers))
        monkeypatch.setattr(_guard, "MIN_CELLS_TO_CLUSTER", 0)
        found = find_anchors(counts, batch, train=train, embed=centred)
        anchored = dense_anchors(unit_space(counts, batch, centred), batch, train, deeper=False)
        best, total = 0, 0
        for p, c in combinations(range(len(sizes)), 2):
            i, j = np.nonzero(anchored & np.outer(batch == p, batch == c))
            table = np.zeros((4, 4))
            np.add.at(table, (cluster[i], cluster[j]), 1)
            best += table.max(0).sum() + table.max(1).sum()
            total += table.sum()
        assert found.consistency == pytest.approx(best / (2 * total))


def test_guard_trusts_types_and_not_noise() -> None:
    counts, batch = make((150, 110))
    assert find_anchors(counts, batch).are_trusted
    noise = np.random.default_rng(0).poisson(3, counts.shape)
    untrusted = find_anchors(noise, batch)
    assert not untrusted.are_trusted
    assert 0 < untrusted.consistency < 0.72


def test_anchors_join_the_same_type() -> None:
    rng = np.random.default_rng(0)
    counts, batch = make((150, 110))
    types = np.random.default_rng(0)  # the draws of `make`
    types.permutation(len(batch))
    types = types.integers(0, 3, len(batch))
    pairs = find_anchors(counts, batch).pairs
    right = (types[pairs[:, 0]] == types[pairs[:, 1]]).mean()
    chance = (rng.permutation(types)[pairs[:, 0]] == types[pairs[:, 1]]).mean()
    assert right > 0.95
    assert chance < 0.5


def test_a_seed_gives_the_same_anchors() -> None:
    counts, batch = make(SIZES["two"])
    first, second = (find_anchors(counts, batch, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.pairs, second.pairs)
    np.testing.assert_array_equal(first.support, second.support)
    assert first.consistency == second.consistency


FORMS = [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, np.float32, np.float64, np.int8]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_the_storage_does_not_matter(form: Callable) -> None:
    counts, batch = make(SIZES["two"])
    given = form(counts)
    before = given.copy()
    found, expected = (find_anchors(x, batch, embed=centred) for x in (given, counts))
    np.testing.assert_array_equal(found.pairs, expected.pairs)
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


# The edges


@pytest.mark.parametrize("sizes", [(3, 3), (3, 90), (4, 3, 50), (16, 14)])
@pytest.mark.parametrize("embed", [harmony, centred])
def test_tiny_datasets(sizes: tuple[int, ...], embed: Callable) -> None:
    counts, batch = make(sizes)
    found = find_anchors(counts, batch, embed=embed)
    own = np.eye(len(sizes), dtype=bool)[batch]
    assert np.isnan(found.support[own]).all()
    assert ((found.support[~own] >= 0) & (found.support[~own] <= 1)).all()
    assert 0 <= found.consistency <= 1
    assert (batch[found.pairs[:, 0]] != batch[found.pairs[:, 1]]).all()


def test_cells_without_counts() -> None:
    counts, batch = make(SIZES["two"])
    counts[[0, 1, 5, 80]] = 0
    for embed in (harmony, centred):
        found = find_anchors(counts, batch, embed=embed)
        assert np.isfinite(found.support[np.arange(len(batch)), 1 - batch]).all()
        assert np.isfinite(found.consistency)


def test_cells_that_are_all_alike() -> None:
    _, batch = make(SIZES["two"])
    found = find_anchors(np.ones((len(batch), N_GENES), int), batch, embed=unchanged)
    assert np.isfinite(found.support[np.arange(len(batch)), 1 - batch]).all()


@pytest.mark.parametrize("kind", ["copies", "without counts", "all alike"])
def test_rounding_decides_nothing_among_equal_cells(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither which of them are paired nor how the guard clusters them."""
    counts, batch = make((140, 90))
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
        monkeypatch.setattr(_guard, "components_of", rounded)
        found.append(find_anchors(counts, batch, embed=unchanged))
    for other in found[1:]:
        np.testing.assert_array_equal(other.pairs, found[0].pairs)
        assert other.consistency == found[0].consistency
        np.testing.assert_array_equal(other.support, found[0].support)


def test_no_anchor_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_match, "_match", lambda *_: (np.zeros((0, 2), np.int64),) * 2)
    counts, batch = make(SIZES["three"])
    found = find_anchors(counts, batch, train=np.arange(len(batch)) % 5 > 0)
    assert found.pairs.shape == (0, 2)
    assert found.partners.nnz == 0
    assert found.consistency == 0
    assert not found.are_trusted
    own = np.eye(3, dtype=bool)[batch]
    assert (found.support[~own] == 0).all()
    assert np.isnan(found.support[own]).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_missing_type_has_low_support(seed: int) -> None:
    # Dendritic cells have no close relative among the others, as T cell subtypes have
    adata = two_batches(pbmc68k(), missing={"b": ["Dendritic"]}, seed=seed)
    batch = adata.obs["batch"].cat.codes.to_numpy()
    support = find_anchors(adata.X, batch).support[np.arange(len(batch)), 1 - batch]
    missing = (adata.obs["cell_type"] == "Dendritic").to_numpy()
    assert support[missing].mean() < 0.5
    assert support[~missing].mean() > 0.9


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
    monkeypatch.setattr(_find, "MIN_PER_DATASET", 20)
    monkeypatch.setattr(_find, "CELLS_AT_ONCE", 7)
    counts, batch = make((110, 40, 13))
    train = (np.random.default_rng(1).random(len(batch)) < 0.9) | everything
    given = []

    def spy(components: np.ndarray, batch: np.ndarray) -> np.ndarray:
        given.append((components, batch))
        return centred(components, batch)

    found = find_anchors(counts, batch, train=train, embed=spy)
    logs = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    components = principal_components(logs, 30)
    ((drawn, drawn_batch),) = given
    nearest = cdist(drawn, components)
    matched = nearest.argmin(1)
    np.testing.assert_allclose(components[matched], drawn, atol=1e-3)
    np.testing.assert_array_equal(batch[matched], drawn_batch)
    assert len(set(matched)) == len(matched) <= 90
    assert train[matched].all()
    sizes = np.bincount(drawn_batch)
    assert sizes[2] == train[batch == 2].sum()
    assert sizes[0] > sizes[1] >= 20
    is_matched = np.isin(np.arange(len(batch)), matched)
    assert is_matched[found.pairs].all()
    assert (batch[found.pairs[:, 0]] != batch[found.pairs[:, 1]]).all()
    assert_the_others_borrow(found, unit(components), batch, is_matched)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def assert_the_others_borrow(
    found: Anchors, space: np.ndarray, batch: np.ndarray, is_matched: np.ndarray
) -> None:
    """Support and partners of the others are those of the nearest matched of their dataset."""
    partners = found.partners.toarray()
    for i in np.flatnonzero(~is_matched):
        own = np.flatnonzero((batch == batch[i]) & is_matched)
        near = own[np.argsort(cdist(space[[i]], space[own])[0])[:15]]
        np.testing.assert_allclose(found.support[i], found.support[near].mean(0), atol=1e-5)
        np.testing.assert_array_equal(partners[i], partners[near[0]])
        assert not partners[i, batch == batch[i]].any()


@pytest.mark.parametrize("sizes", [(1000, 1000), (5000, 3), (900, 80, 10), (40,) * 50])
def test_the_sample_holds_all_datasets(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]
) -> None:
    monkeypatch.setattr(_find, "MAX_CELLS", 500)
    monkeypatch.setattr(_find, "MIN_PER_DATASET", 60)
    batch = np.repeat(np.arange(len(sizes)), sizes)
    drawn = np.array([len(r) for r in _find._sample(batch, np.ones(len(batch), bool), seed=0)])
    assert 500 - len(sizes) <= drawn.sum() <= 500
    assert (drawn >= np.minimum(sizes, min(60, 500 // len(sizes)))).all()
    assert (np.diff(drawn) * np.diff(sizes) >= 0).all()


def test_a_sample_gives_the_same_picture(
    monkeypatch: pytest.MonkeyPatch, cells: tuple, full: Anchors
) -> None:
    counts, batch, types = cells
    monkeypatch.setattr(_find, "MAX_CELLS", 500)
    monkeypatch.setattr(_find, "MIN_PER_DATASET", 50)
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


def test_the_guard_clusters_a_part(
    monkeypatch: pytest.MonkeyPatch, cells: tuple, full: Anchors
) -> None:
    sizes, leiden = [], _guard._leiden

    def spy(components: np.ndarray, seed: int) -> np.ndarray:
        sizes.append(len(components))
        return leiden(components, seed)

    monkeypatch.setattr(_guard, "_leiden", spy)
    monkeypatch.setattr(_guard, "MAX_CELLS_TO_CLUSTER", 350)
    found = find_anchors(*cells[:2])
    assert sizes == [350, 350]
    np.testing.assert_array_equal(found.pairs, full.pairs)
    assert found.consistency == pytest.approx(full.consistency, abs=0.1)


def test_ten_thousand_cells_can_be_clustered() -> None:
    # From 8,192 cells on scanpy would search approximately, in a sparse format it cannot read
    rng = np.random.default_rng(0)
    types = rng.integers(0, 2, 8_200)
    labels = _guard._leiden(
        rng.normal(0, 1, (8_200, 2)).astype(np.float32) + 20 * types[:, None], 0
    )
    assert all(len(set(types[labels == label])) == 1 for label in set(labels))


@pytest.mark.parametrize("pairs_at_once", [1, 7])
def test_scores_do_not_depend_on_the_block(
    monkeypatch: pytest.MonkeyPatch, pairs_at_once: int
) -> None:
    for sizes in SIZES.values():
        counts, batch = make(sizes)
        expected = find_anchors(counts, batch, embed=centred)
        with monkeypatch.context() as patch:
            patch.setattr(_match, "PAIRS_AT_ONCE", pairs_at_once)
            found = find_anchors(counts, batch, embed=centred)
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
    monkeypatch.setattr(_guard, "log_normalise", spy)
    monkeypatch.setattr(_find, "MAX_CELLS", 500)
    monkeypatch.setattr(_find, "MIN_PER_DATASET", 50)
    monkeypatch.setattr(_space, "MAX_CELLS_TO_FIT", 300)
    monkeypatch.setattr(_space, "BLOCK", 100)
    monkeypatch.setattr(_guard, "MAX_CELLS_TO_CLUSTER", 200)
    monkeypatch.setattr(sparse.csr_matrix, "toarray", refuse)
    monkeypatch.setattr(sparse.csr_matrix, "todense", refuse)
    monkeypatch.setattr(sparse.csc_matrix, "toarray", refuse)
    find_anchors(sparse.csr_matrix(counts), batch)
    assert max(read) == 300
    assert read[1:-2].count(100) >= len(batch) // 100


class Graph:
    """Stand in for the graph of pynndescent, which takes half a minute to compile.

    It is exact, but does not find the last neighbour of every other point.
    """

    def __init__(self, points: np.ndarray, n_neighbors: int, **_: object) -> None:
        self.points = points
        self.neighbor_graph = self.query(points, n_neighbors)

    def query(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        distance = cdist(query, self.points)
        near = distance.argsort(1, kind="stable")[:, :k].astype(np.int32)
        distance = np.take_along_axis(distance, near, 1)
        near[::2, -1], distance[::2, -1] = -1, np.inf
        return near, distance


def test_large_sets_are_searched_in_a_graph(
    monkeypatch: pytest.MonkeyPatch, cells: tuple, full: Anchors
) -> None:
    monkeypatch.setattr(_search, "MAX_EXACT", 100)
    monkeypatch.setattr("pynndescent.NNDescent", Graph)
    found = find_anchors(*cells[:2])
    np.testing.assert_array_equal(found.pairs, full.pairs)
    np.testing.assert_allclose(found.support, full.support, atol=1e-6)
    points = np.random.default_rng(0).normal(size=(300, 4))
    near, _ = _search.Index(points, 0).own(30)
    np.testing.assert_array_equal(near[::2, -1], np.arange(0, 300, 2))


@pytest.mark.parametrize(
    ("n", "n_queries", "exact"), [(100, 999, True), (400, 25, True), (400, 26, False)]
)
def test_few_points_or_few_queries_are_searched_exactly(
    monkeypatch: pytest.MonkeyPatch, n: int, n_queries: int, exact: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("a graph")

    monkeypatch.setattr(_search, "MAX_EXACT", 100)
    monkeypatch.setattr("pynndescent.NNDescent", refuse)
    index = _search.Index(np.random.default_rng(0).random((n, 2)), 0)
    with nullcontext() if exact else pytest.raises(RuntimeError, match="a graph"):
        assert index.nearest(np.zeros((n_queries, 2)), 3)[0].shape == (n_queries, 3)


@pytest.mark.slow
def test_the_graph_agrees_with_the_exact_search(
    monkeypatch: pytest.MonkeyPatch, cells: tuple, full: Anchors
) -> None:
    import torch

    monkeypatch.setattr(_search, "MAX_EXACT", 100)
    n_threads = torch.get_num_threads()
    found, again = (find_anchors(*cells[:2]) for _ in range(2))
    assert torch.get_num_threads() == n_threads
    np.testing.assert_array_equal(found.pairs, again.pairs)
    pairs, expected = ({tuple(p) for p in a.pairs} for a in (found, full))
    assert len(pairs & expected) > 0.95 * max(len(pairs), len(expected))
    assert support_correlation(found, full) > 0.95
