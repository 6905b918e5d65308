"""What DistanceEmbedding refuses, and what it warns about."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from scovert.model import DistanceEmbedding
from scovert.model.distance import _diagnostics
from scovert.simulate import distance

KEY = "unweighted_unifrac"


@pytest.fixture(scope="module")
def cohort() -> AnnData:
    return distance(60, 31, distances=[KEY], seed=5)


def matrix(change: Callable[[np.ndarray], object]) -> Callable[[AnnData], None]:
    """Change the distances: in place, or to what is returned."""

    def changed(adata: AnnData) -> None:
        d = adata.obsp[KEY].copy()
        found = change(d)
        adata.obsp[KEY] = d if found is None else found

    return changed


def put(i: int, j: int, value: float) -> Callable[[np.ndarray], None]:
    def changed(d: np.ndarray) -> None:
        d[i, j] = value

    return changed


def both(i: int, j: int, value: float) -> Callable[[np.ndarray], None]:
    def changed(d: np.ndarray) -> None:
        d[i, j] = d[j, i] = value

    return changed


def no_lengths(adata: AnnData) -> None:
    del adata.uns["tree"]["length"]


def other_lengths(adata: AnnData) -> None:
    adata.uns["tree"]["length"] = adata.uns["tree"]["length"][:-1]


def twice(adata: AnnData) -> None:
    adata.var_names = ["a", "a", *map(str, range(29))]


def halved(adata: AnnData) -> None:
    adata.X[3, 0] = 0.5


def nothing(adata: AnnData) -> None:
    """Change nothing."""


REFUSED = {
    "no matrix": (
        nothing,
        {"distances_key": "d"},
        KeyError,
        "'d'.* is not in `adata.obsp`.*pp.dis",
    ),
    "a matrix": (nothing, {"distances_key": np.eye(3)}, TypeError, "is a ndarray.*pp.distances"),
    "NaN": (
        matrix(put(3, 7, np.nan)),
        {},
        ValueError,
        "nan between 'sample_3' and 'sample_7'.*1 ",
    ),
    "infinite": (matrix(both(3, 7, np.inf)), {}, ValueError, "inf between.*2 such values"),
    "negative": (matrix(both(3, 7, -0.1)), {}, ValueError, "-0.1 between.*not negative"),
    "asymmetric": (
        matrix(put(3, 7, 0.0)),
        {},
        ValueError,
        "not symmetric.*'sample_3'.*'sample_7'",
    ),
    "diagonal": (matrix(put(4, 4, 0.1)), {}, ValueError, "0.1 on its diagonal.*'sample_4'"),
    "similarities": (
        matrix(lambda d: 1 - d),
        {},
        ValueError,
        "diagonal.*similarities.*1 less them",
    ),
    "all equal": (
        matrix(lambda d: 0.5 * (d > 0)),
        {},
        ValueError,
        "all distances are equal",
    ),
    "below": (matrix(np.tril), {}, ValueError, "distances below its diagonal.*d \\+ d.T"),
    "above": (
        matrix(lambda d: np.where(np.tri(len(d), k=-1), np.nan, d)),
        {},
        ValueError,
        "distances above its diagonal.*np.nan_to_num",
    ),
    "zeros": (matrix(np.zeros_like), {}, ValueError, "nothing but zeros"),
    "a graph": (matrix(sparse.csr_matrix), {}, TypeError, "sparse.*sc.pp.neighbors"),
    "no tree": (nothing, {"tree_key": "t"}, KeyError, "'t'.* not in `adata.varm`.*pp.tree"),
    "no lengths": (no_lengths, {"tree_key": "tree"}, KeyError, "no 'length'"),
    "other lengths": (
        other_lengths,
        {"tree_key": "tree"},
        ValueError,
        r"shape \(59,\).*60 branch",
    ),
    "taxa twice": (twice, {}, ValueError, "1 name more than once, .*'a'. Taxa or genes are mat"),
    "no counts": (
        halved,
        {},
        ValueError,
        "sample 'sample_3', taxon or gene 'taxon_0'; 1 such",
    ),
}


@pytest.mark.parametrize(
    ("change", "setup", "error", "match"), REFUSED.values(), ids=REFUSED.keys()
)
def test_what_is_refused(
    cohort: AnnData, change: Callable, setup: dict, error: type, match: str
) -> None:
    adata = cohort.copy()
    change(adata)
    with pytest.raises(error, match=match):
        DistanceEmbedding.setup_anndata(adata, **{"distances_key": KEY} | setup)
    assert not [name for name in adata.uns if name.startswith("_scvi")]


def test_few_samples_are_refused_and_warned_about(cohort: AnnData) -> None:
    with pytest.raises(ValueError, match="9 samples.*at least 10"):
        DistanceEmbedding.setup_anndata(cohort[:9].copy(), KEY)
    with pytest.warns(UserWarning, match=r"Few samples \(30, under 50\).*get_agreement"):
        DistanceEmbedding.setup_anndata(cohort[:30].copy(), KEY)


def far_apart(d: np.ndarray) -> None:
    d[:20, 20:40] = d[20:40, :20] = 5.0


WARNED = {
    "asymmetry": (matrix(put(3, 7, 0.51)), "not quite symmetric.*the mean"),
    "triangles": (matrix(far_apart), "break the triangle inequality"),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_is_warned_about(cohort: AnnData, case: str) -> None:
    change, match = WARNED[case]
    adata = cohort.copy()
    if case == "asymmetry":
        d = adata.obsp[KEY]
        change = matrix(put(3, 7, d[3, 7] + 1e-4 * d.max()))
    change(adata)
    with pytest.warns(UserWarning, match=match):
        DistanceEmbedding.setup_anndata(adata, KEY)


def test_good_distances_are_taken_in_silence(cohort: AnnData, recwarn) -> None:
    adata = cohort.copy()
    adata.obsp[KEY] = adata.obsp[KEY].astype(np.float32)
    DistanceEmbedding.setup_anndata(adata, KEY, tree_key="tree")
    assert not [w for w in recwarn if "scovert" in str(w.filename)]


ARGUMENTS = {
    "n_latent": ({"n_latent": 0}, ValueError, "n_latent=0"),
    "dropout": ({"dropout_rate": 1.0}, ValueError, "dropout_rate"),
    "features": ({"features": ["clr"]}, ValueError, "'clr'.*abundance"),
    "a string": ({"features": "abundance"}, ValueError, "'auto' or a list"),
    "branches": ({"features": ["branch_abundance"]}, ValueError, "need a tree.*`tree_key`"),
}


@pytest.mark.parametrize(("init", "error", "match"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_arguments(cohort: AnnData, init: dict, error: type, match: str) -> None:
    adata = cohort.copy()
    DistanceEmbedding.setup_anndata(adata, KEY)
    with pytest.raises(error, match=match):
        DistanceEmbedding(adata, **init)


TRAINING = {
    "method": ({"method": "pcoa"}, ValueError, "'pcoa'.*'linear'"),
    "train_size": ({"train_size": 1.0}, ValueError, "train_size=1.0"),
    "batch_size": ({"batch_size": 1}, ValueError, "batch_size=1"),
    "split_key": ({"split_key": "subject"}, KeyError, "split_key='subject'"),
    "plan_kwargs": ({"plan_kwargs": {"rate": 1}}, TypeError, "does not take `rate`"),
    "kl": ({"plan_kwargs": {"kl_ramp": 1}}, TypeError, "does not take `kl_ramp`"),
}


@pytest.mark.parametrize(("train", "error", "match"), TRAINING.values(), ids=TRAINING.keys())
def test_arguments_of_train(cohort: AnnData, train: dict, error: type, match: str) -> None:
    adata = cohort.copy()
    DistanceEmbedding.setup_anndata(adata, KEY)
    model = DistanceEmbedding(adata)
    with pytest.raises(error, match=match):
        model.train(max_epochs=1, **{"train_size": 0.8} | train)


def test_distances_that_changed_are_refused(cohort: AnnData) -> None:
    adata = cohort.copy()
    DistanceEmbedding.setup_anndata(adata, KEY)
    model = DistanceEmbedding(adata)
    adata.obsp[KEY] = np.sqrt(adata.obsp[KEY])
    with pytest.raises(ValueError, match="is not as it was set up: it holds other distances"):
        model.train(method="linear")


def test_samples_that_are_all_alike_are_refused(cohort: AnnData) -> None:
    adata = cohort.copy()
    adata.X = sparse.csr_matrix(np.ones(adata.shape, np.float32))
    DistanceEmbedding.setup_anndata(adata, KEY)
    with pytest.raises(ValueError, match="are the same in all samples.*samples that differ"):
        DistanceEmbedding(adata).train(method="linear")


def test_presence_is_warned_about_where_depth_differs(cohort: AnnData) -> None:
    adata = cohort.copy()
    counts = adata.X.toarray()
    counts[0], counts[1] = 300 * counts[0], counts[1] > 0
    adata.X = sparse.csr_matrix(counts)
    DistanceEmbedding.setup_anndata(adata, KEY)
    model = DistanceEmbedding(adata, features=["abundance", "presence"])
    with pytest.warns(UserWarning, match="differ by a factor of .*depends on the depth"):
        model.train(method="linear", train_size=0.8)


def test_noise_is_warned_about_and_seen_by_check(cohort: AnnData) -> None:
    """Distances that have nothing to do with the counts."""
    adata = cohort.copy()
    order = np.random.default_rng(0).permutation(60)
    adata.obsp[KEY] = adata.obsp[KEY][np.ix_(order, order)]
    DistanceEmbedding.setup_anndata(adata, KEY, tree_key="tree")
    model = DistanceEmbedding(adata)
    model.train(method="linear")
    assert model.get_agreement().loc["new-train", "r2"] < 0.2
    assert "in the order of `adata.obs_names`" in model.check().loc["held-out R2", "advice"]
    facts = dict.fromkeys(model.facts_, 1.0)
    rows = _diagnostics.rows_of(facts, {"r2": -0.1, "stress": 1.0}, ["presence"])
    looks = {row.quantity for row in rows if row.verdict == "look"}
    assert looks == set(model.check().index) - {"finite loss terms", "held-out stress"}
    assert all(re.search("[.]$", row.advice) for row in rows if row.advice)
