"""States within a cell type: cells that express alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import KMeans

__all__ = ["find_states"]

MIN_CELLS_PER_STATE = 25
N_GENES, MIN_MEAN = 500, 0.05
N_COMPONENTS, N_STARTS = 8, 5
SCALE = 1e4


def find_states(
    counts: sp.csr_matrix, labels: pd.Categorical, n_states: int, seed: int
) -> NDArray:
    """Split every type into states by k-means on its principal components.

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``.
    labels
        Type of every cell.
    n_states
        Most states of a type; one for every 25 cells.
    seed
        Of the starts of k-means.

    Returns
    -------
    State of every cell, numbered from 0 within its type, shape ``(n_cells,)``; cells without
    counts are in the first.
    """
    states = np.zeros(len(labels), np.int64)
    has_counts = np.asarray(counts.sum(1)).ravel() > 0
    for kind in range(len(labels.categories)):
        own = np.flatnonzero((labels.codes == kind) & has_counts)
        n = min(n_states, len(own) // MIN_CELLS_PER_STATE)
        if n > 1:
            space = _components(counts[own])
            states[own] = KMeans(n, n_init=N_STARTS, random_state=seed).fit_predict(space)
    return states


def _components(counts: sp.csr_matrix) -> NDArray:
    """Principal components of the genes with the highest dispersion, log counts per 10,000."""
    scale = SCALE / (np.asarray(counts.sum(1)).ravel() + 1)
    log = sp.diags_array(scale) @ counts.astype(np.float64)
    log.data = np.log1p(log.data)
    mean = np.asarray(log.mean(0)).ravel()
    variance = np.asarray(log.multiply(log).mean(0)).ravel() - mean**2
    dispersion = np.where(mean > MIN_MEAN, variance / (mean + 0.01), -np.inf)
    best = np.argsort(-dispersion, kind="stable")[:N_GENES]
    values = log[:, best].toarray()
    values -= values.mean(0)
    # Of the small square matrix of the genes: cells may be many.
    _, vectors = np.linalg.eigh(values.T @ values)
    return values @ vectors[:, ::-1][:, :N_COMPONENTS]
