"""Whole analyses as a user runs them: every model with its defaults, from counts to results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory

import anndata
import numpy as np
from anndata import AnnData

from benchmarks.processes import PeakMemory, in_new_process
from benchmarks.speed.anchors import simulate
from benchmarks.speed.training import quiet
from scovert import simulate as simulated
from scovert.data import concat_measured
from scovert.model import (
    BulkDeconvolution,
    DistanceEmbedding,
    LatentConfounder,
    MaskedImputation,
    NicheVAE,
    PairedVAE,
)

N_CELLS = (1_000, 10_000, 100_000)
N_GENES = {
    "PairedVAE": 2000,
    "LatentConfounder": 2000,
    "NicheVAE": 100,
    "BulkDeconvolution": 2000,
    "DistanceEmbedding": 2000,
    "MaskedImputation": 2000,
}
MOST = {"DistanceEmbedding": 10_000}
"""Cells (samples) at most: a matrix of the distances of 100,000 takes 80 GB."""
MEASURED = 2 / 3
"""Share of the genes that the second dataset measured."""
N_SAMPLES = 20
"""Bulk samples of a deconvolution."""
WARM_UP = 400
"""Cells of a first fit, that loads what is loaded late: neither data nor analysis."""


def whole(quick: bool) -> Iterator[dict]:
    """CPU seconds and memory of each model, from an AnnData in memory to annotated results."""
    for model, n_genes in N_GENES.items():
        sizes = [n for n in N_CELLS if n <= MOST.get(model, n)]
        for n_cells in sizes[: 1 if quick else None]:
            with TemporaryDirectory() as folder:
                path = f"{folder}/cells.h5ad"
                in_new_process(_write, path, model, n_cells, n_genes, prepare=quiet)
                yield in_new_process(_measure, path, model, prepare=quiet)


def _write(path: str, model: str, n_cells: int, n_genes: int) -> None:
    make(model, n_cells, n_genes).write_h5ad(path)


def make(model: str, n_cells: int, n_genes: int) -> AnnData:
    """Cells of 20 types in two batches, of which a third is treated; a tissue; or a cohort."""
    if model == "NicheVAE":
        return simulated.niche(n_cells, 1, n_genes=n_genes)
    if model == "DistanceEmbedding":
        return simulated.distance(n_cells, n_genes, distances=["weighted_unifrac"])
    counts, batch, types = simulate(n_cells, 2, n_genes)
    adata = AnnData(counts)
    adata.var_names = [f"gene_{i}" for i in range(n_genes)]
    adata.obs["batch"] = batch.astype(str)
    adata.obs["type"] = types.astype(str)
    adata.obs["treatment"] = np.random.default_rng(0).random(n_cells) < 1 / 3
    if model != "MaskedImputation":
        return adata
    del adata.obs["batch"]  # the datasets are named anew
    panel = adata[batch == 1, : round(MEASURED * n_genes)]
    return concat_measured({"atlas": adata[batch == 0].copy(), "panel": panel.copy()})


def _measure(path: str, model: str) -> dict[str, object]:
    n_genes = N_GENES[model]
    for _ in ANALYSES[model](make(model, WARM_UP, min(n_genes, 300))):
        pass
    adata = anndata.read_h5ad(path)
    above = PeakMemory()
    above.start()
    fit, results = np.diff([time.process_time() for _ in ANALYSES[model](adata)]).tolist()
    return {
        "model": model,
        "cells": adata.n_obs,
        "genes": n_genes,
        "fit, CPU s": fit,
        "results, CPU s": results,
        "above the data, GB": above.stop(),
    }


def paired(adata: AnnData) -> Iterator[None]:
    """Yield before the fit, after it, and after the results, as the other analyses do."""
    yield
    PairedVAE.setup_anndata(adata, "batch")
    model = PairedVAE(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    yield
    model.annotate(write_layer=False)
    yield


def confounder(adata: AnnData) -> Iterator[None]:
    yield
    LatentConfounder.setup_anndata(adata, "treatment", categorical_covariate_keys=["batch"])
    model = LatentConfounder(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    yield
    model.annotate(write_layer=False)
    yield


def niche(adata: AnnData) -> Iterator[None]:
    yield
    NicheVAE.setup_anndata(adata, likelihood="nb")
    model = NicheVAE(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    yield
    model.annotate(write_layer=False)
    yield


def bulk(reference: AnnData) -> Iterator[None]:
    counts = reference.obs["type"].value_counts()
    kept = reference[reference.obs["type"].isin(counts.index[counts >= 10])].copy()
    samples = simulated.bulk(kept, "type", n_samples=N_SAMPLES)
    yield
    BulkDeconvolution.setup_anndata(kept, labels_key="type")
    model = BulkDeconvolution(kept)
    model.train(enable_progress_bar=False)
    yield
    model.annotate(samples, kind="counts", cell_size="reference")
    yield


def distance(adata: AnnData) -> Iterator[None]:
    yield
    DistanceEmbedding.setup_anndata(adata, "weighted_unifrac", tree_key="tree")
    model = DistanceEmbedding(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    yield
    model.annotate()
    yield


def imputation(adata: AnnData) -> Iterator[None]:
    yield
    MaskedImputation.setup_anndata(adata, "batch", measured_key="measured")
    model = MaskedImputation(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    yield
    model.annotate(write_layer=False)
    yield


ANALYSES: dict[str, Callable[[AnnData], Iterator[None]]] = {
    "PairedVAE": paired,
    "LatentConfounder": confounder,
    "NicheVAE": niche,
    "BulkDeconvolution": bulk,
    "DistanceEmbedding": distance,
    "MaskedImputation": imputation,
}
