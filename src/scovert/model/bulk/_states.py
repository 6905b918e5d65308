"""States within a cell type: cells that express alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import KMeans

__all__ = ["MIN_CELLS_PER_STATE", "N_STARTS", "find_states"]

MIN_CELLS_PER_STATE = 25
"""A state has one of the type's cells in so many: fewer say too little of its profile."""
N_GENES, N_COMPONENTS = 500, 8
"""Most dispersed genes, and principal components of them, from which k-means tells few states."""
MIN_MEAN, DISPERSION_OFFSET = 0.05, 0.01
"""Least mean log count of such a gene, and what is added to means that variances are divided by:
hardly expressed genes are not the most dispersed."""
N_STARTS = 5
"""Of k-means, of which the best is kept."""
SCALE = 1e4
"""Counts that a cell is scaled to before logarithms, as scanpy's tutorials do."""


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
    State of every cell, shape ``(n_cells,)``, numbered within its type by the first cell of each
    state. Cells that are equal in the genes that are looked at are in one state; cells without
    counts are in state 0.
    """
    states = np.zeros(len(labels), np.int64)
    has_counts = np.asarray(counts.sum(1)).ravel() > 0
    for kind in range(len(labels.categories)):
        own = np.flatnonzero((labels.codes == kind) & has_counts)
        n = min(n_states, len(own) // MIN_CELLS_PER_STATE)
        if n > 1:
            states[own] = _cluster(_expression(counts[own]), n, seed)
    return states


def _cluster(values: NDArray, n_states: int, seed: int) -> NDArray:
    """Split cells by k-means, in which equal cells are one of their number's weight.

    Rounding tells equal cells apart once they are multiplied by a matrix. It also decides which
    of equally good starts wins, so that states are numbered by their first cell.
    """
    first: dict[bytes, int] = {}
    kind = np.array([first.setdefault(row.tobytes(), len(first)) for row in values])
    rows = np.unique(kind, return_index=True)[1]
    if len(rows) <= n_states:
        return kind
    means = KMeans(n_states, n_init=N_STARTS, random_state=seed)
    found = means.fit_predict(_components(values)[rows], sample_weight=np.bincount(kind))
    return pd.factorize(found[kind])[0]


def _expression(counts: sp.csr_matrix) -> NDArray:
    """Centred log counts per 10,000 of the genes with the highest dispersion."""
    scale = SCALE / (np.asarray(counts.sum(1)).ravel() + 1)
    log = sp.diags_array(scale) @ counts.astype(np.float64)
    log.data = np.log1p(log.data)
    mean = np.asarray(log.mean(0)).ravel()
    variance = np.asarray(log.multiply(log).mean(0)).ravel() - mean**2
    dispersion = np.where(mean > MIN_MEAN, variance / (mean + DISPERSION_OFFSET), -np.inf)
    best = np.argsort(-dispersion, kind="stable")[:N_GENES]
    values = log[:, best].toarray()
    return values - values.mean(0)


def _components(values: NDArray) -> NDArray:
    """Principal components of centred values."""
    # Of the small square matrix of the genes: cells may be many.
    _, vectors = np.linalg.eigh(values.T @ values)
    return values @ vectors[:, ::-1][:, :N_COMPONENTS]
