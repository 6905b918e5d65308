"""What models write is read by other packages of scverse as it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

from scovert import simulate
from scovert.model import LatentConfounder, NicheVAE, PairedVAE


@pytest.fixture(scope="module")
def tissue() -> AnnData:
    adata = simulate.niche(150, 1, n_genes=7)
    NicheVAE.setup_anndata(adata, likelihood="nb")
    model = NicheVAE(adata, n_states=4)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    model.annotate(n_niches=3)
    return adata


@pytest.mark.usefixtures("leaves_no_traces")
def test_scanpy_draws_what_is_written(tissue: AnnData) -> None:
    adata = simulate.paired((60, 40), n_genes=30, seed=1)
    PairedVAE.setup_anndata(adata, "batch")
    model = PairedVAE(adata)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    model.annotate()
    sc.pp.neighbors(adata, use_rep="X_paired")
    assert adata.uns["neighbors"]["params"]["use_rep"] == "X_paired"
    axes = sc.pl.embedding(adata, "X_paired", color=["batch", "paired_support"], show=False)
    assert [ax.get_title() for ax in axes] == ["batch", "paired_support"]
    ax = sc.pl.embedding(tissue, "spatial", color="niche", show=False)
    drawn = np.concatenate([points.get_offsets() for points in ax.collections])
    assert np.allclose(np.sort(drawn[:, 0]), np.sort(tissue.obsm["spatial"][:, 0]))


def test_squidpy_reads_niches(tissue: AnnData) -> None:
    squidpy = pytest.importorskip("squidpy")
    squidpy.gr.spatial_neighbors(tissue)
    squidpy.gr.nhood_enrichment(tissue, cluster_key="niche", show_progress_bar=False)
    n_niches = tissue.obs["niche"].nunique()
    assert tissue.uns["niche_nhood_enrichment"]["zscore"].shape == (n_niches, n_niches)


def test_decoupler_reads_effects() -> None:
    decoupler = pytest.importorskip("decoupler")
    adata = simulate.confounder("sparse", n_cells=301, n_genes=97, seed=2)
    LatentConfounder.setup_anndata(adata, "treatment", size_factor_key="size_factor")
    model = LatentConfounder(adata, n_latent=0)
    model.train(accelerator="cpu", enable_progress_bar=False)
    effects = model.get_treatment_effects()
    highest = effects["z"].nlargest(10).index
    net = pd.DataFrame({"source": "up", "target": highest, "weight": 1.0})
    scores, _ = decoupler.mt.ulm(data=effects[["z"]].T, net=net)
    assert scores.loc["z", "up"] > 2
