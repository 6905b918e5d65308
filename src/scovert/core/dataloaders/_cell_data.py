"""What the minibatches of all models have in common."""

from __future__ import annotations

import lightning.pytorch as pl
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.core._losses import SparseCounts
from scovert.core.dataloaders._cells import Cells, CellTensors

__all__ = ["CellData", "Minibatch"]

Minibatch = dict[str, Tensor | SparseCounts]


class CellData(pl.LightningDataModule):
    """Cells to train on and to validate on, on the device of the training; to be subclassed.

    A subclass has ``n_steps`` and the loaders, which make minibatches of `tensors`.

    Parameters
    ----------
    cells
        Cells to read from, in memory or in a file, with whatever columns belong to them.
    train_idx, val_idx
        Rows of the training and of the validation cells.
    resident
        Keep the counts on the device; `None` does so where they take less than half of its memory.
    """

    def __init__(
        self, cells: Cells, train_idx: NDArray, val_idx: NDArray, resident: bool | None
    ) -> None:
        super().__init__()
        self.cells, self.train_idx, self.val_idx = cells, train_idx, val_idx
        self.n_train, self.n_val = len(train_idx), len(val_idx)
        self.resident = resident
        self._whole: CellTensors | None = None

    @property
    def names(self) -> pd.Index | None:
        """Names of the cells, if they are known."""
        return self.cells.names

    @property
    def n_processes(self) -> int:
        """Number of processes that share the cells."""
        return 1 if self.trainer is None else self.trainer.world_size

    @property
    def device(self) -> torch.device:
        """Where the minibatches go."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def tensors(self, start: int, stop: int) -> CellTensors:
        """Return consecutive cells of a file as minibatches are made of them; in memory, all."""
        if not self.cells.is_in_memory:
            return CellTensors(self.cells.block(start, stop), self.device)
        if self._whole is None:
            self._whole = CellTensors(self.cells, self.device, resident=self.resident)
        return self._whole

    def transfer_batch_to_device(
        self, batch: Minibatch, device: torch.device, _: int
    ) -> Minibatch:
        """Return the minibatch as it is: it was made on the device."""
        return batch
