"""Cells with a treatment and covariates, for solvers that go through minibatches."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.core.dataloaders._cells import CELLS_KEY, Cells

__all__ = [
    "ARMS",
    "COVARIATES",
    "LEVEL",
    "LOG_SIZE",
    "design_of",
    "designed_cells",
]

COVARIATES, ARMS, LEVEL, LOG_SIZE = "covariates", "arms", "level", "log_size"
"""Names of the columns."""


def designed_cells(
    counts: sp.csr_matrix, design: NDArray, n_arms: int, log_size: NDArray
) -> Cells:
    """Join counts with covariates and arms.

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``.
    design
        Intercept, covariates, and an indicator of each arm, shape ``(n_cells, n_columns)``.
    n_arms
        Number of arms, the reference not counted.
    log_size
        Logarithm of the size factors, shape ``(n_cells,)``.

    Returns
    -------
    Cells with the columns ``"covariates"`` (without the intercept), ``"arms"``, ``"level"`` (0 for
    the reference, then the arms), ``"log_size"`` and ``"cells"``.
    """
    arms = design[:, design.shape[1] - n_arms :]
    columns = {
        COVARIATES: design[:, 1 : design.shape[1] - n_arms].astype(np.float32),
        ARMS: arms.astype(np.float32),
        LEVEL: (arms @ np.arange(1, n_arms + 1)).astype(np.int64),
        LOG_SIZE: log_size.astype(np.float32)[:, None],
        CELLS_KEY: np.arange(len(design))[:, None],
    }
    return Cells(counts, columns)


def design_of(cells: Cells) -> NDArray:
    """Return intercept, covariates and indicators of the arms, ``(n_cells, n_columns)``."""
    columns = [cells.columns[COVARIATES], cells.columns[ARMS]]
    return np.hstack([np.ones((len(columns[0]), 1)), *columns])
