from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, special, stats

from scovert.simulate import paired

SIZES = (331, 210, 97)


@pytest.fixture(scope="module")
def simulated() -> ad.AnnData:
    return paired(
        SIZES, n_genes=83, n_latent=3, n_types=5, batch_sd=0.7, inverse_dispersion=1.5, seed=2
    )


def mean_of(adata: ad.AnnData) -> np.ndarray:
    truth, batch = adata.uns["truth"], adata.obs["batch"].cat.codes.to_numpy()
    logits = np.einsum("nd,gd->ng", adata.obsm["truth_latent"], truth["loadings"])
    logits += truth["offset"] + truth["shifts"][batch]
    return special.softmax(logits, axis=1) * adata.obs["truth_library"].to_numpy()[:, None]


def test_shapes_and_types(simulated: ad.AnnData) -> None:
    assert simulated.shape == (638, 83)
    assert isinstance(simulated.X, sparse.csr_matrix)
    assert simulated.X.dtype == np.float32
    assert simulated.obs["batch"].value_counts(sort=False).tolist() == list(SIZES)
    assert simulated.obs["batch"].cat.categories.tolist() == ["batch_0", "batch_1", "batch_2"]
    assert simulated.obsm["truth_latent"].shape == (638, 3)
    shapes = {key: np.shape(value) for key, value in simulated.uns["truth"].items()}
    assert shapes["loadings"] == (83, 3)
    assert shapes["offset"] == (83,)
    assert shapes["shifts"] == (3, 83)
    assert shapes["centres"] == (5, 3)


def test_every_dataset_has_every_type(simulated: ad.AnnData) -> None:
    found = pd.crosstab(simulated.obs["cell_type"], simulated.obs["batch"])
    assert found.shape == (5, 3)
    assert (found.max() - found.min() <= 1).all()


def test_counts_follow_the_formula(simulated: ad.AnnData) -> None:
    # Randomised probability integral transform: uniform if and only if the whole law is right
    mean, theta, x = mean_of(simulated), 1.5, simulated.X.toarray()
    law = stats.nbinom(theta, theta / (theta + mean))
    u = np.random.default_rng(0).random(x.shape)
    pit = law.cdf(x - 1) + u * law.pmf(x)
    assert stats.kstest(pit.ravel(), "uniform").pvalue > 0.01


def test_moments(simulated: ad.AnnData) -> None:
    mean, x = mean_of(simulated), simulated.X.toarray()
    variance = mean + mean**2 / 1.5
    z = (x - mean).sum(0) / np.sqrt(variance.sum(0))  # (n_genes,)
    assert np.abs(z).max() < 4.5
    ratio = ((x - mean) ** 2 / variance)[:, mean.mean(0) > 1].mean()
    assert abs(ratio - 1) < 0.05


def test_library_is_the_mean_total(simulated: ad.AnnData) -> None:
    library = simulated.obs["truth_library"].to_numpy()
    np.testing.assert_allclose(mean_of(simulated).sum(1), library)
    assert abs(library.mean() / 1000 - 1) < 0.05
    assert abs(np.log(library).std() - 0.3) < 0.03


def test_types_are_clusters_around_their_centres(simulated: ad.AnnData) -> None:
    centres = simulated.uns["truth"]["centres"][simulated.obs["cell_type"].cat.codes]
    rest = simulated.obsm["truth_latent"] - centres
    assert stats.kstest(rest.ravel() / 0.5, "norm").pvalue > 0.01


def test_parameters_have_the_stated_scale() -> None:
    truth = paired((7, 6, 8), n_genes=2003, n_latent=5, n_types=2, batch_sd=0.7).uns["truth"]
    np.testing.assert_allclose(truth["shifts"].std(), 0.7, rtol=0.05)
    np.testing.assert_allclose(truth["loadings"].std(), 5**-0.5, rtol=0.05)
    np.testing.assert_allclose(truth["offset"].std(), 1, rtol=0.05)
    assert not paired((7, 6), batch_sd=0).uns["truth"]["shifts"].any()


def test_large_inverse_dispersion_approaches_poisson() -> None:
    adata = paired((150, 70), n_genes=31, inverse_dispersion=1e9)
    x = adata.X.toarray()
    pit = stats.poisson.cdf(x - 1, mean_of(adata))
    pit += np.random.default_rng(0).random(x.shape) * stats.poisson.pmf(x, mean_of(adata))
    assert stats.kstest(pit.ravel(), "uniform").pvalue > 0.01


def test_the_seed_decides() -> None:
    one, same, other = (paired((31, 22), n_genes=11, seed=seed) for seed in [5, 5, 6])
    assert np.array_equal(one.X.toarray(), same.X.toarray())
    assert np.array_equal(one.obsm["truth_latent"], same.obsm["truth_latent"])
    assert not np.array_equal(one.X.toarray(), other.X.toarray())


def test_the_truth_survives_a_file(tmp_path: Path) -> None:
    adata = paired((31, 22), n_genes=11, seed=5)
    adata.write_h5ad(tmp_path / "paired.h5ad")
    read = ad.read_h5ad(tmp_path / "paired.h5ad")
    assert np.array_equal(mean_of(read), mean_of(adata))
    assert read.uns["truth"].keys() == adata.uns["truth"].keys()
    assert read.uns["truth"]["inverse_dispersion"] == 2.0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_cells": (40,)}, "At least two datasets"),
        ({"n_cells": (40, 3)}, "fewer cells than `n_types=4`"),
        ({"n_genes": 1}, "`n_genes=1` is too small. Pass at least 2"),
        ({"n_latent": 0}, "`n_latent=0` is too small"),
        ({"n_types": 0}, "`n_types=0` is too small"),
        ({"batch_sd": -1}, "`batch_sd=-1`"),
        ({"inverse_dispersion": 0}, "`inverse_dispersion=0` is out of range"),
        ({"library_size": np.inf}, "`library_size=inf` is out of range"),
    ],
)
def test_wrong_options_are_refused(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        paired(**options)


def test_one_number_of_cells_is_refused() -> None:
    with pytest.raises(TypeError, match="pass one number of cells for each"):
        paired(200)
