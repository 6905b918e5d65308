"""Cells for training: each once in an epoch, in random order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from scovert.core._counts import in_parts
from scovert.core.dataloaders._cell_data import CellData, Minibatch
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.dataloaders._windows import random_windows, read_window, rows_of_window

__all__ = ["ShuffledData", "split_cells", "split_rows"]

VALIDATED_AT_ONCE = 1024
"""Cells of a minibatch for validation, which needs no gradients and so less memory."""


def split_rows(n_cells: int, share: float, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Split cells at random: rows to train on, and a share, one at least, to validate on."""
    order = rng.permutation(n_cells)
    n_held_out = max(1, round(share * n_cells))
    return order[n_held_out:], order[:n_held_out]


def split_cells(
    batch: NDArray, train_size: float, validation_size: float | None, seed: int | None
) -> tuple[NDArray, NDArray]:
    """Split the cells of every dataset at random into training and validation.

    Parameters
    ----------
    batch
        Dataset of each cell, shape ``(n_cells,)``.
    train_size, validation_size
        Shares of the cells; `None` validates on all that are not trained on.
    seed
        Seed; `None` draws a new split.

    Returns
    -------
    Sorted rows of the training and of the validation cells. Three cells of a dataset are always
    trained on.
    """
    rng = np.random.default_rng(seed)
    train, validation = [], []
    for b in np.unique(batch):
        rows = rng.permutation(np.flatnonzero(batch == b))
        n_train = min(len(rows), max(3, round(train_size * len(rows))))
        rest = len(rows) - n_train
        share = 1.0 if validation_size is None else validation_size
        train.append(rows[:n_train])
        validation.append(rows[n_train : n_train + min(rest, round(share * len(rows)))])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(validation))


class ShuffledData(CellData):
    """Training cells in random order, in minibatches of nearly equal size, and validation cells.

    Parameters
    ----------
    cells, train_idx, val_idx, resident
        For :class:`~scovert.core.dataloaders._cell_data.CellData`.
    batch_size
        Cells in a minibatch, at most.
    rng
        Generator of the order; `None` takes that of torch.

    Notes
    -----
    A minibatch has the counts (``"X"``, dense), those that are not zero (``"counts"``) and the
    columns of the cells. From a file, cells are shuffled within windows of random blocks.
    """

    def __init__(
        self,
        cells: Cells,
        train_idx: NDArray,
        val_idx: NDArray,
        *,
        batch_size: int,
        rng: np.random.Generator | None = None,
        resident: bool | None = None,
    ) -> None:
        super().__init__(cells, train_idx, val_idx, resident)
        self.batch_size, self.rng = batch_size, rng

    @property
    def n_steps(self) -> int:
        """Number of steps of an epoch, the same in every process."""
        return max(1, -(-self.n_train // (self.batch_size * self.n_processes)))

    def state_dict(self) -> dict[str, object]:
        """Return where the generator of the order is."""
        return {} if self.rng is None else {"rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Put the generator of the order where it was."""
        if self.rng is not None:
            self.rng.bit_generator.state = state["rng"]

    def train_dataloader(self) -> _Epoch:
        """Return the minibatches of an epoch, in another order each time they are gone through."""
        return _Epoch(self, self._own(self.train_idx))

    def val_dataloader(self) -> _InOrder | list:
        """Return the validation minibatches, none when there are no validation cells."""
        return _InOrder(self, self._own(self.val_idx)) if self.n_val else []

    def shuffled(self, rows: NDArray) -> NDArray:
        """Return rows in random order."""
        n = len(rows)
        order = torch.randperm(n).numpy() if self.rng is None else self.rng.permutation(n)
        return rows[order]

    def _own(self, rows: NDArray) -> NDArray:
        """Deal the cells to the processes in turn."""
        if self.n_processes == 1:
            return rows
        return rows[self.trainer.global_rank :: self.n_processes]


class _Epoch:
    """Minibatches of training cells."""

    def __init__(self, data: ShuffledData, rows: NDArray) -> None:
        self.data, self.rows, self.n_steps = data, rows, data.n_steps

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Minibatch]:
        if not self.data.cells.is_in_memory:
            yield from self._of_file()
            return
        tensors = self.data.tensors(0, len(self.data.cells))
        for some in np.array_split(self.data.shuffled(self.rows), self.n_steps):
            yield tensors.minibatch(some, len(some))

    def _of_file(self) -> Iterator[Minibatch]:
        """Read window after window; each makes steps by the training cells that it holds."""
        cells, is_drawn = self.data.cells, np.zeros(len(self.data.cells), bool)
        is_drawn[self.rows] = True
        seed = int(torch.randint(2**62, ())) if self.data.rng is None else self.data.rng
        n_read, done = 0, 0
        for starts in self._windows(is_drawn, np.random.default_rng(seed)):
            drawn = np.flatnonzero(is_drawn[rows_of_window(starts, len(cells))])
            n_read += len(drawn)
            n_steps = n_read * self.n_steps // len(self.rows) - done
            tensors = CellTensors(read_window(cells, starts), self.data.device)
            for some in np.array_split(self.data.shuffled(drawn), n_steps):
                yield tensors.minibatch(some, len(some))
            done += n_steps

    def _windows(self, is_drawn: NDArray, rng: np.random.Generator) -> list[NDArray]:
        """Deal the blocks to windows that make one step at least."""
        windows: list[NDArray] = [np.empty(0, int)]
        n_drawn = 0
        for starts in random_windows(len(is_drawn), rng):
            if n_drawn >= self.data.batch_size:
                windows.append(np.empty(0, int))
                n_drawn = 0
            windows[-1] = np.sort(np.append(windows[-1], starts))
            n_drawn += int(is_drawn[rows_of_window(starts, len(is_drawn))].sum())
        if n_drawn < self.data.batch_size and len(windows) > 1:
            windows[-2:] = [np.sort(np.concatenate(windows[-2:]))]
        return windows


class _InOrder:
    """Minibatches of validation cells in the order in which they are given, of a file by rows."""

    def __init__(self, data: ShuffledData, rows: NDArray) -> None:
        self.data = data
        self.spans = [
            (in_parts(rows[at], VALIDATED_AT_ONCE), start, stop)
            for at, start, stop in data.cells.spans(rows)
        ]

    def __len__(self) -> int:
        return sum(len(parts) for parts, _, _ in self.spans)

    def __iter__(self) -> Iterator[Minibatch]:
        for parts, start, stop in self.spans:
            tensors = self.data.tensors(start, stop)
            for some in parts:
                yield tensors.minibatch(some - start, len(some))
