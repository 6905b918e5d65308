"""Moments of the simulated tissue."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from scovert.simulate import niche


def test_shapes_and_truth() -> None:
    adata = niche(211, 2, n_genes=17, seed=3)
    assert adata.shape == (422, 17)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert adata.obsm["spatial"].shape == (422, 2)
    assert ((adata.obsm["spatial"] >= 0) & (adata.obsm["spatial"] <= 1000)).all()
    assert adata.obs["sample"].value_counts().tolist() == [211, 211]
    again = niche(211, 2, n_genes=17, seed=3)
    assert (again.X != adata.X).nnz == 0
    assert (niche(211, 2, n_genes=17, seed=4).X != adata.X).nnz > 0


@pytest.mark.parametrize("mixing", [0.0, 0.15, 1.0])
def test_regions_hold_their_types(mixing: float) -> None:
    adata = niche(20_000, 1, n_genes=1, mixing=mixing)
    regions = adata.obs["truth_region"].cat.codes.to_numpy()
    shares = np.stack(
        [
            np.bincount(adata.obs["cell_type"].cat.codes[regions == r], minlength=6)
            / (regions == r).sum()
            for r in range(4)
        ]
    )
    np.testing.assert_allclose(shares, adata.uns["truth"]["shares"], atol=0.025)
    assert np.ptp(np.bincount(regions) / 20_000) < 0.15
    if mixing == 0:
        assert shares[0, 2] == shares[1, 0] == 0


def test_regions_agree_in_the_mean_in_pairs() -> None:
    truth = niche(50, 1).uns["truth"]
    means = truth["shares"] @ truth["profiles"]
    np.testing.assert_allclose(means[0], means[1], rtol=1e-9)
    np.testing.assert_allclose(means[2], means[3], rtol=1e-9)
    assert np.abs(means[0] / means[2] - 1).max() > 0.1


def test_counts_have_the_mean_and_variance_of_the_formula() -> None:
    adata = niche(60_000, 1, n_genes=5, batch_sd=0.3, inverse_dispersion=3.0, seed=1)
    truth = adata.uns["truth"]
    x, types = adata.X.toarray(), adata.obs["cell_type"].cat.codes.to_numpy()
    library = np.exp([0.045, 0.18])  # first and second moment of exp(N(0, 0.3^2))
    for k in range(6):
        mean = truth["profiles"][k] * np.exp(truth["shifts"][0])
        first = library[0] * mean
        second = first + (1 + 1 / 3) * library[1] * mean**2
        own = x[types == k].astype(float)
        np.testing.assert_allclose(own.mean(0), first, rtol=0.05)
        np.testing.assert_allclose((own**2).mean(0), second, rtol=0.12)


def test_intensities_are_log_normal() -> None:
    adata = niche(20_000, 1, n_genes=3, likelihood="gaussian", seed=2)
    truth, types = adata.uns["truth"], adata.obs["cell_type"].cat.codes.to_numpy()
    residual = np.log(adata.X) - np.log(truth["profiles"])[types] - truth["shifts"][0]
    np.testing.assert_allclose(residual.mean(0), 0, atol=0.01)
    np.testing.assert_allclose(residual.std(0), 0.25, atol=0.01)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"n_cells": 0}, "n_cells=0.*at least 1"),
        ({"likelihood": "poisson"}, "'poisson'.*'nb' or 'gaussian'"),
        ({"mixing": 1.1}, "mixing=1.1.*in \\[0, 1\\]"),
        ({"batch_sd": -1}, "batch_sd=-1"),
        ({"inverse_dispersion": 0}, "inverse_dispersion=0"),
    ],
)
def test_what_is_refused(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        niche(**wrong)
