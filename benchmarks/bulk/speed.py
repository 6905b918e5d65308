"""Time and memory of one large deconvolution without intervals, in a process of its own."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from benchmarks.processes import in_new_process, peak_memory
from scovert.model import BulkDeconvolution

__all__ = ["measure_speed"]

N_TYPES, N_STATES, N_MARKERS = 10, 3, 100  # for each type
N_CELLS, N_GENES, N_BULKS = 100, 5_000, 100  # cells of a type
DEPTH_CELL, DEPTH = 5_000, 1e7
MARKER_SD, STATE_SD = 1.5, 0.3  # of log expression; markers are up only


def measure_speed(seed: int) -> dict[str, float]:
    """CPU seconds of ``train`` and ``deconvolve``, and the peak memory of their process."""
    return in_new_process(_measure, seed)


def _measure(seed: int) -> dict[str, float]:
    warnings.simplefilter("ignore")
    reference, bulk = _simulated(np.random.default_rng(seed))
    BulkDeconvolution.setup_anndata(reference, "cell_type")
    model = BulkDeconvolution(reference, n_states=N_STATES, n_genes_per_type=N_MARKERS)
    start = time.process_time()
    model.train()
    cpu_train = time.process_time() - start
    start, wall = time.process_time(), time.monotonic()
    result = model.deconvolve(bulk, kind="counts", cell_size="reference", interval=None)
    return {
        "cpu": time.process_time() - start,
        "wall": time.monotonic() - wall,
        "cpu_train": cpu_train,
        "gib": peak_memory(),
        "n_informative_genes": int(result.quality.attrs["n_informative_genes"]),
    }


def _simulated(rng: np.random.Generator) -> tuple[AnnData, AnnData]:
    """Cells of types with states, and bulks of other proportions of the states."""
    log_mean = np.tile(rng.normal(0, 1.5, N_GENES), (N_TYPES, N_STATES, 1))
    for k in range(N_TYPES):
        markers = slice(k * N_MARKERS, (k + 1) * N_MARKERS)
        log_mean[k, :, markers] += 2 + np.abs(rng.normal(0, MARKER_SD, N_MARKERS))
    log_mean += rng.normal(0, STATE_SD, log_mean.shape)
    share = np.exp(log_mean).reshape(N_TYPES * N_STATES, N_GENES)
    share /= share.sum(1, keepdims=True)
    types = np.repeat(np.arange(N_TYPES), N_CELLS)
    states = types * N_STATES + np.tile(np.arange(N_CELLS) % N_STATES, N_TYPES)
    genes = pd.DataFrame(index=[f"gene_{g}" for g in range(N_GENES)])
    obs = pd.DataFrame({"cell_type": [f"type {k}" for k in types]})
    obs.index = obs.index.astype(str)
    cells = sp.csr_matrix(rng.poisson(DEPTH_CELL * share[states]).astype(np.float32))
    weights = rng.dirichlet(np.ones(len(share)), N_BULKS)
    bulk = AnnData(rng.poisson(DEPTH * weights @ share).astype(np.float32), var=genes)
    return AnnData(cells, obs=obs, var=genes), bulk
