"""Cells without a counterpart in the other arm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

__all__ = ["unmatched"]

MIN_SHARE = 0.06
"""Share of the other arm among the neighbours, as if arms were of one size, that is a match."""

MIN_NEIGHBOURS, N_OF_EACH = 30, 15
"""Least neighbours, and how many of them are of the rarer arm if arms mix: that none is, by
chance, happens in one of three million cells."""


def unmatched(scores: NDArray, treated: NDArray) -> NDArray:
    """Return which cells have hardly any neighbour in the other arm.

    Parameters
    ----------
    scores
        Confounders of the cells, with the shift between the arms put back, shape
        ``(n_cells, n_latent)``.
    treated
        Whether a cell is in the arm and not in the reference, shape ``(n_cells,)``.

    Returns
    -------
    Boolean array of shape ``(n_cells,)``. So many neighbours are looked at that 15 would be of the
    rarer arm; a type of cells that is in one arm only may hide beside a relative.
    """
    n = len(scores)
    frequency = np.array([1 - treated.mean(), treated.mean()])
    most = max(MIN_NEIGHBOURS, n // 15)
    n_neighbours = int(np.clip(N_OF_EACH / frequency.min(), MIN_NEIGHBOURS, most))
    search = NearestNeighbors(n_neighbors=min(n_neighbours, n - 1) + 1).fit(scores)
    near = search.kneighbors(scores, return_distance=False)[:, 1:]
    is_other = treated[near] != treated[:, None]
    arm = treated.astype(int)
    other = is_other.sum(1) / frequency[1 - arm]
    own = (~is_other).sum(1) / frequency[arm]
    return other / (other + own) < MIN_SHARE
