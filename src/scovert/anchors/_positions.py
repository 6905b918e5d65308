"""Positions in which anchored cells lie together."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.anchors._match import Dataset

__all__ = ["moves_together"]

N_ROUNDS = 5
"""Each halves what is left between a cell and its partners."""


def moves_together(
    points: NDArray, pairs: NDArray, datasets: list[Dataset], is_supported: NDArray
) -> NDArray:
    """Bring anchored cells together, and their neighbours with them.

    What classes leave between datasets is taken out as by :cite:t:`Haghverdi18`: in each round a
    cell takes the mean step of the anchored ones among its 15 nearest cells, half of the way to
    their partners. Cells without counterparts stay, since the anchors there are are false.

    Parameters
    ----------
    points
        Positions of all cells, shape ``(n_cells, n_components)``.
    pairs
        Anchors, shape ``(n_anchors, 2)``.
    datasets
        The matched cells.
    is_supported
        Whether a cell has counterparts in another dataset, shape ``(n_cells,)``.

    Returns
    -------
    Array of shape ``(n_cells, n_components)``, float32, 0 for cells that were not matched.
    """
    rows = np.concatenate([data.rows for data in datasets])
    place = np.zeros(len(points), np.int64)
    place[rows] = np.arange(len(rows))
    i, j = place[pairs].T
    graph = sp.coo_matrix((np.ones(len(i)), (i, j)), shape=(len(rows), len(rows))).tocsr()
    partners = _means(graph + graph.T)
    is_anchored = np.diff(partners.indptr) > 0
    near = sp.block_diag([data.neighbourhoods for data in datasets], "csr")
    near = _means(near @ sp.diags(is_anchored.astype(float)))
    near = sp.diags(is_supported[rows].astype(float)) @ near
    start = points[rows].astype(float)
    moved = start.copy()
    for _ in range(N_ROUNDS):
        moved -= near @ (moved - partners @ moved) / 2
    moves = np.zeros(points.shape, np.float32)
    moves[rows] = moved - start
    return moves


def _means(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Divide rows by their sums; empty ones stay."""
    graph = sp.csr_matrix(graph)
    graph.eliminate_zeros()
    total = np.asarray(graph.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(1 / np.where(total > 0, total, 1)) @ graph)
