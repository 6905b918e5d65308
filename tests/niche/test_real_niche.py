"""NicheVAE on slides whose regions others have drawn; skipped where the data are not there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scvi
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

from scovert.model import NicheVAE

pytestmark = [pytest.mark.slow, pytest.mark.needs_data]


def fit(adata: AnnData, **setup: object) -> NicheVAE:
    scvi.settings.seed = 0
    NicheVAE.setup_anndata(adata, **setup)
    model = NicheVAE(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = None
    return model


def agreement(model: NicheVAE, regions: np.ndarray) -> float:
    known = regions != ""
    found = model.get_niches(n_niches=len(set(regions[known]))).to_numpy()
    return adjusted_rand_score(regions[known], found[known])


def test_islets_are_found_in_intensities(read_shared: Callable[[str], AnnData]) -> None:
    adata = read_shared("spatial_imc_islet_channels")
    model = fit(adata, likelihood="gaussian")
    assert agreement(model, adata.obs["in_islet"].astype(str).to_numpy()) > 0.7
    assert (model.check()["verdict"] == "ok").all()


def test_regions_of_the_cortex_and_types_around_cells(
    read_shared: Callable[[str], AnnData],
) -> None:
    adata = read_shared("spatial_osmfish_cortex")
    model = fit(adata, likelihood="nb", labels_key="cell_type")
    assert agreement(model, adata.obs["region"].astype(str).to_numpy()) > 0.5
    around = model.get_neighborhood_composition(labels_key="cell_type")
    true = model.get_observed_composition()
    whole = np.abs(true - true.mean()).to_numpy().sum(1).mean()
    assert np.abs(around - true).to_numpy().sum(1).mean() < 0.6 * whole


def test_layers_of_three_sections(read_shared: Callable[[str], AnnData]) -> None:
    adata = read_shared("spatial_starmap_mpfc")
    with pytest.warns(UserWarning, match="whole numbers up to"):
        model = fit(adata, likelihood="gaussian", sample_key="batch", batch_key="batch")
    assert agreement(model, adata.obs["region"].astype(str).to_numpy()) > 0.65
    shares = model.get_sample_composition()
    assert shares.shape == (3, 32)


@pytest.mark.filterwarnings("ignore:.*Fewer than 21 cells")
def test_images_of_one_hot_types_are_refused(read_shared: Callable[[str], AnnData]) -> None:
    adata = read_shared("spatial_imc_t1d_celltypes")
    with pytest.raises(ValueError, match="single 1 in every cell: labels"):
        NicheVAE.setup_anndata(adata, likelihood="gaussian", sample_key="image")


def test_scaled_markers_and_small_images_are_taken(read_shared: Callable[[str], AnnData]) -> None:
    for name in ("spatial_lymphoma_scimap", "spatial_imc_pancreas_3images"):
        adata = read_shared(name)
        model = fit(adata, likelihood="gaussian", sample_key="image")
        assert np.isfinite(model.get_latent_representation()).all()
