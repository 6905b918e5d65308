"""Nearest neighbours in space, within samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

__all__ = ["nearest_neighbors"]

MORE = 64
"""Further cells that are looked at where several are as far as the last neighbour: on a square or
hexagonal grid at most 12 are, in space 24."""
SAME = 1e-6
"""Relative difference up to which distances are the same: what rounding leaves of a motion."""


def nearest_neighbors(positions: NDArray, sample: NDArray, n_neighbors: int) -> NDArray:
    """Find the nearest other cells of the same sample.

    Of cells that are equally far as the last neighbour, those in the first rows are taken.

    Parameters
    ----------
    positions
        Coordinates in any unit, shape ``(n_cells, 2)`` or ``(n_cells, 3)``.
    sample
        Number of the sample of each cell, shape ``(n_cells,)``.
    n_neighbors
        Neighbours of a cell, at most.

    Returns
    -------
    Rows of the neighbours, the nearest first, int32 of shape ``(n_cells, n_neighbors)``; -1 where
    a sample has too few cells.
    """
    found = np.full((len(positions), n_neighbors), -1, np.int32)
    order = np.argsort(sample, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(sample[order])) + 1):
        k = min(n_neighbors, len(rows) - 1)
        if k > 0:
            found[rows, :k] = rows[_within(np.asarray(positions[rows], float), k)]
    return found


def _within(positions: NDArray, k: int) -> NDArray:
    """Find the neighbours in one sample with more than `k` cells, shape ``(n_cells, k)``."""
    tree, n_cells = cKDTree(positions), len(positions)
    distance, near = tree.query(positions, min(k + 2, n_cells))
    distance, near = _without_self(distance, near, np.arange(n_cells))
    if near.shape[1] == k:
        return near
    tied = np.flatnonzero(distance[:, k] - distance[:, k - 1] <= SAME * distance[:, k])
    near = near[:, :k]
    if len(tied):
        more = tree.query(positions[tied], min(k + 1 + MORE, n_cells))
        near[tied] = _first_rows(*_without_self(*more, tied), k)
    return near


def _without_self(distance: NDArray, near: NDArray, rows: NDArray) -> tuple[NDArray, NDArray]:
    """Leave out the cell itself; where as many lie on one spot that it was not found, the last."""
    is_self = near == rows[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    shape = (len(rows), near.shape[1] - 1)
    return distance[~is_self].reshape(shape), near[~is_self].reshape(shape)


def _first_rows(distance: NDArray, near: NDArray, k: int) -> NDArray:
    """Take the `k` nearest, by their rows where they are equally far."""
    is_next = np.diff(distance, axis=1) > SAME * distance[:, 1:]
    step = np.pad(is_next.cumsum(axis=1), ((0, 0), (1, 0)))  # equal where distances are
    chosen = np.lexsort((near, step), axis=1)[:, :k]
    return np.take_along_axis(near, chosen, axis=1)
