"""Mutual nearest neighbours between datasets."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.anchors._search import Index
from scovert.core._counts import row_slices

__all__ = ["N_OWN_NEIGHBORS", "Dataset", "match_all"]

N_NEIGHBORS = 5
N_OWN_NEIGHBORS = 15
PAIRS_AT_ONCE = 100_000
MIN_RADIUS = 1e-3
"""Ten times the distance to which `nudged` moves equal cells, which says nothing of the data."""


@dataclass(frozen=True)
class Dataset:
    """Matched cells of one dataset.

    Attributes
    ----------
    rows
        Their rows in all cells, shape ``(n_matched,)``.
    index
        Their positions in the space in which partners are sought.
    near
        Their 15 nearest in `index`, themselves included, shape ``(n_matched, 15)``.
    radius
        Median distance to the nearest 5, at least 0.001, shape ``(n_matched,)``.
    """

    rows: NDArray
    index: Index
    near: NDArray
    radius: NDArray

    @classmethod
    def build(cls, rows: NDArray, index: Index) -> Dataset:
        """Measure the own neighbourhoods of the matched cells."""
        near, distance = index.own(N_OWN_NEIGHBORS)
        radius = np.median(distance[:, :N_NEIGHBORS], axis=1)
        return cls(rows, index, near, np.maximum(radius, MIN_RADIUS))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def neighbourhoods(self) -> sp.csr_matrix:
        """0/1 matrix that marks the 15 own neighbours of each cell, itself included."""
        return _incidence(self.near, len(self))


def match_all(datasets: list[Dataset]) -> tuple[NDArray, NDArray]:
    """Anchors between all datasets, and those found with the same depth on both sides."""
    found = [_match(p, c) for p, c in combinations(datasets, 2) if len(p) and len(c)]
    none = np.zeros((0, 2), np.int64)
    return tuple(np.concatenate([*(pairs[side] for pairs in found), none]) for side in (0, 1))


def _match(p: Dataset, c: Dataset) -> tuple[NDArray, NDArray]:
    """Anchors between two datasets, searched deeper in the larger, and with 5 neighbours each."""
    k_p, k_c = (round(N_NEIGHBORS * max(1.0, r)) for r in (len(c) / len(p), len(p) / len(c)))
    to_c = c.index.nearest(p.index.points, k_p)[0]
    to_p = p.index.nearest(c.index.points, k_c)[0]
    deep = _mutual(p, c, to_c, to_p)
    if k_p == k_c:
        return deep, deep
    return deep, _mutual(p, c, to_c[:, :N_NEIGHBORS], to_p[:, :N_NEIGHBORS])


def _mutual(p: Dataset, c: Dataset, to_c: NDArray, to_p: NDArray) -> NDArray:
    """Pairs of cells that chose each other and pass the cuts, as rows in all cells."""
    mutual = _incidence(to_c, len(c)).multiply(_incidence(to_p, len(p)).T).tocsr()
    i, j = mutual.nonzero()
    if len(i) == 0:
        return np.zeros((0, 2), np.int64)
    kept = _close(p, c, i, j) & _confirmed(p, c, mutual, i, j)
    return np.stack([p.rows[i[kept]], c.rows[j[kept]]], axis=1)


def _close(p: Dataset, c: Dataset, i: NDArray, j: NDArray) -> NDArray:
    distance = np.linalg.norm(p.index.points[i] - c.index.points[j], axis=1)
    distance /= np.sqrt(p.radius[i] * c.radius[j])
    median = np.median(distance)
    return distance <= median + 2 * 1.4826 * np.median(np.abs(distance - median))


def _confirmed(p: Dataset, c: Dataset, mutual: sp.csr_matrix, i: NDArray, j: NDArray) -> NDArray:
    """Whether enough pairs join the surroundings of `i` and `j`, of which `i` ascends."""
    own, score = p.neighbourhoods, np.empty(len(i), np.float32)
    for block in row_slices(len(i), PAIRS_AT_ONCE):
        first, last = i[block][[0, -1]]
        around = own[first : last + 1] @ mutual  # (n_rows, n_c)
        around.sort_indices()  # or each of the next look-ups reads a whole row
        near_j = c.near[j[block]]  # (n_pairs, 15)
        row = np.repeat(i[block] - first, near_j.shape[1])
        joined = np.asarray(around[row, near_j.ravel()])
        score[block] = joined.reshape(near_j.shape).sum(axis=1)
    return score >= np.quantile(score, 0.1)


def _incidence(near: NDArray, n_columns: int) -> sp.csr_matrix:
    """0/1 matrix that marks column ``near[i, j]`` in row ``i``."""
    indptr = np.arange(0, near.size + 1, near.shape[1])
    ones = np.ones(near.size, np.float32)
    return sp.csr_matrix((ones, near.ravel(), indptr), shape=(len(near), n_columns))
