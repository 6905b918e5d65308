"""Cells with a treatment and covariates, for solvers that go through minibatches."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl
import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.core.dataloaders._cells import CELLS_KEY, Cells, CellTensors

__all__ = [
    "ARMS",
    "COVARIATES",
    "LEVEL",
    "LOG_SIZE",
    "DesignedData",
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


class DesignedData(pl.LightningDataModule):
    """Minibatches of all cells in random order, for scvi-tools' training.

    Parameters
    ----------
    cells
        Cells in memory.
    batch_size
        Cells in a minibatch, at most.
    **split
        scvi-tools' options of a split, which there is not.
    """

    def __init__(self, cells: Cells, *, batch_size: int, **split: object) -> None:
        super().__init__()
        self.cells, self.batch_size = cells, batch_size
        self.n_train, self.n_val = cells.counts.shape[0], 0

    def train_dataloader(self) -> _Shuffled:
        """Return the minibatches, in another order each time they are gone through."""
        return _Shuffled(CellTensors(self.cells, self.trainer.strategy.root_device), self)

    def transfer_batch_to_device(self, batch: dict, device: torch.device, _: int) -> dict:
        """Return the minibatch as it is: it was made on the device."""
        return batch


class _Shuffled:
    """Minibatches of an epoch, nearly equal in size."""

    def __init__(self, tensors: CellTensors, data: DesignedData) -> None:
        self.tensors, self.n_cells = tensors, data.n_train
        self.n_batches = -(-data.n_train // data.batch_size)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for rows in np.array_split(torch.randperm(self.n_cells).numpy(), self.n_batches):
            yield self.tensors[rows]
