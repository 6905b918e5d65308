"""Moments of simulated cohorts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scovert.core.trees import read_branches
from scovert.simulate import distance


def test_shapes_and_truth() -> None:
    adata = distance(41, 29, seed=3)
    assert adata.shape == (41, 29)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.varm["tree"].shape == (29, 2 * 29 - 2)
    assert adata.obsm["truth_gradients"].shape == (41, 2)
    for d in adata.obsp.values():
        assert d.shape == (41, 41)
        assert (d == d.T).all()
        assert not d.diagonal().any()
        assert 0 < d.max() <= 1
    again, other = distance(41, 29, seed=3), distance(41, 29, seed=4)
    assert (again.X != adata.X).nnz == 0
    assert (other.X != adata.X).nnz > 0


def test_the_tree_joins_all_taxa_at_one_height_but_for_short_tips() -> None:
    branches = read_branches(distance(3, 200, distances=[]), "tree")
    depth = branches.above @ branches.length
    assert depth.std() < 0.1 * depth.mean()
    n_below = np.asarray(branches.above.sum(0)).ravel()
    assert (n_below == 1).sum() == 200
    assert n_below.max() < 200


def test_totals_are_log_normal_with_a_least() -> None:
    totals = np.asarray(distance(4000, 11, distances=[]).X.sum(1)).ravel()
    assert totals.min() >= 500
    assert np.median(totals) == pytest.approx(8000, rel=0.05)
    upper = np.log(totals[totals > 8000]) - np.log(8000)
    assert np.sqrt(np.mean(upper**2)) == pytest.approx(0.8, rel=0.06)


def test_clusters_are_apart_by_the_signal() -> None:
    def ratio(signal: float) -> float:
        adata = distance(150, 200, signal=signal, distances=["unweighted_unifrac"])
        d, cluster = adata.obsp["unweighted_unifrac"], adata.obs["truth_cluster"].to_numpy()
        same = cluster[:, None] == cluster
        return d[~same].mean() / d[same & ~np.eye(150, dtype=bool)].mean()

    assert ratio(0.0) == pytest.approx(1, abs=0.01)
    assert ratio(1.5) > 1.05


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"n_samples": 1}, "n_samples=1.*at least 2"),
        ({"n_taxa": 2}, "n_taxa=2.*at least 3"),
        ({"distances": "bray_curtis"}, "distances='bray_curtis'.*a list"),
        ({"distances": ["jaccard"]}, "jaccard"),
        ({"signal": -1}, "signal=-1"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_what_is_refused(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        distance(**wrong)
