"""Time and memory of the full-batch solver, each fit in a process of its own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from functools import partialmethod
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData, read_h5ad
from scipy.special import expit

from benchmarks.processes import in_new_process, peak_memory
from scovert.model import LatentConfounder
from scovert.simulate import confounder_large

__all__ = ["SIZES", "measure_size"]

KINDS = ("continuous",) * 3 + ("binary",) * 2
LOADING_SCALE = 0.5
BLOCK = 5_000
SIZES = {  # cells, genes, and whether a converged float64 fit is made to compare with
    "1,000 x 2,000": (1_000, 2_000, False),
    "10,000 x 1,000": (10_000, 1_000, True),
    "10,000 x 2,000": (10_000, 2_000, False),
    "50,000 x 1,000": (50_000, 1_000, False),
    "100,000 x 2,000": (100_000, 2_000, False),
}
CONVERGED = 1e-4


def measure_size(name: str, seed: int) -> dict:
    """Simulate cells, fit five confounders, and return CPU seconds and memory."""
    n_cells, n_genes, compare = SIZES[name]
    with TemporaryDirectory() as folder:
        path = f"{folder}/cells.h5ad"
        in_new_process(_write, path, n_cells, n_genes, seed)
        found = in_new_process(_fit, path)
        if compare:
            found |= in_new_process(_compare, path)
    return {"n_cells": n_cells, "n_genes": n_genes} | found


def _write(path: str, n_cells: int, n_genes: int, seed: int) -> None:
    """Draw as many cells as wanted from the law of `confounder_large`, block by block."""
    few = confounder_large(
        n_cells=2_000, n_genes=n_genes, z_types=KINDS, loading_scale=LOADING_SCALE, seed=seed
    )
    rng = np.random.default_rng(seed)
    blocks, columns = zip(*_blocks(few, n_cells, rng), strict=True)
    columns = np.vstack(columns)
    adata = AnnData(sp.vstack(blocks, format="csr").astype(np.float32))
    adata.obs["size_factor"], adata.obs["treatment"] = columns[:, 0], columns[:, 1] > 0
    for i in range(2, columns.shape[1]):
        adata.obs[f"covariate_{i - 1}"] = columns[:, i]
    adata.write_h5ad(path)


def _blocks(few: AnnData, n_cells: int, rng: np.random.Generator) -> Iterator[tuple]:
    truth, var = few.uns["truth"], few.var
    by_known, loadings = few.varm["truth_covariate_effects"].T, few.varm["truth_loadings"].T
    effect = var["truth_log2_fc"].to_numpy() * np.log(2)
    shape = var["truth_inverse_dispersion"].to_numpy()
    for start in range(0, n_cells, BLOCK):
        n = min(BLOCK, n_cells - start)
        x = np.c_[rng.binomial(1, 0.5, (n, 2)), rng.normal(size=n)]
        z = np.c_[rng.normal(size=(n, 3)), rng.binomial(1, 0.5, (n, 2)) * 2.0 - 1]
        logit = truth["treatment_intercept"] + x @ truth["covariate_weights"]
        treatment = rng.binomial(1, expit(logit + z @ truth["confounder_weights"]))
        size = np.exp(0.4 * rng.normal(size=n))
        log_mean = var["truth_intercept"].to_numpy() + x @ by_known + z @ loadings
        log_mean += treatment[:, None] * effect
        rate = np.exp(log_mean) * size[:, None] * rng.gamma(shape, 1 / shape, log_mean.shape)
        yield sp.csr_matrix(rng.poisson(rate).astype(np.float32)), np.c_[size, treatment, x]


def _model(path: str) -> LatentConfounder:
    warnings.simplefilter("ignore")
    adata = read_h5ad(path)
    known = [c for c in adata.obs if c.startswith("covariate")]
    LatentConfounder.setup_anndata(
        adata, "treatment", size_factor_key="size_factor", continuous_covariate_keys=known
    )
    return LatentConfounder(adata, n_latent=len(KINDS))


def _train(model: LatentConfounder) -> float:
    start = time.process_time()
    model.train(accelerator="cpu", enable_progress_bar=False)
    return time.process_time() - start


def _fit(path: str) -> dict:
    model = _model(path)
    before = peak_memory()
    start, cpu = time.monotonic(), _train(model)
    wall, peak = time.monotonic() - start, peak_memory()
    start = time.process_time()
    model.get_treatment_effects()
    return {
        "cpu": cpu,
        "wall": wall,
        "rounds": len(model.history["deviance"]),
        "cpu_effects": time.process_time() - start,
        "gib_before": before,
        "gib_train": peak,
        "gib_effects": peak_memory(),
    }


def _compare(path: str) -> dict:
    """Distance of the effects to those of a converged float64 fit, in standard errors."""
    from scovert.model.confounder._data import TreatmentData
    from scovert.model.confounder.fit import _full_batch
    from scovert.model.confounder.glm import fit_factors

    default, converged = _model(path), _model(path)
    _train(default)
    identifications = ("randomised", "auto")
    own = {name: default.get_treatment_effects(identification=name) for name in identifications}

    def tight(blocks, design, n_factors, **options):
        return fit_factors(
            blocks, design, n_factors, **options | {"tolerance": CONVERGED, "max_rounds": 1000}
        )

    TreatmentData.blocks = partialmethod(TreatmentData.blocks, dtype=torch.float64)
    _full_batch.fit_factors = tight
    _train(converged)
    found = {"rounds_converged": len(converged.history["deviance"])}
    for name, table in own.items():
        best = converged.get_treatment_effects(identification=name)
        distance = ((table["log2_fc"] - best["log2_fc"]).abs() / best["se"]).dropna()
        found[f"distance_{name}"] = float(distance.median())
        found[f"distance_{name}_worst"] = float(distance.max())
    return found
