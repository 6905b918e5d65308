"""Cells of a file, read in random blocks that are in memory together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scovert.core._counts import in_parts
from scovert.core.dataloaders._cells import WINDOW, Cells

__all__ = ["random_windows", "read_window", "rows_of_window"]

BLOCK = 256
"""Consecutive rows of a file that are read together and then shuffled with those of others."""


def random_windows(n_cells: int, rng: np.random.Generator) -> list[NDArray]:
    """Deal the blocks of a file to windows: the first rows of the blocks of each, sorted."""
    starts = rng.permutation(np.arange(0, n_cells, BLOCK))
    return [np.sort(some) for some in in_parts(starts, WINDOW // BLOCK)]


def rows_of_window(starts: NDArray, n_cells: int) -> NDArray:
    """Return all rows of the blocks of a window."""
    rows = (starts[:, None] + np.arange(BLOCK)).ravel()
    return rows[rows < n_cells]


def read_window(cells: Cells, starts: NDArray) -> Cells:
    """Read the blocks of a window, joined in the order of their rows."""
    ends = np.minimum(starts + BLOCK, len(cells))
    return Cells.joined([cells.block(*end) for end in zip(starts, ends, strict=True)])
