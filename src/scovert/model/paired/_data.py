"""Which cells a minibatch holds, in which order, and their partners."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.core._counts import in_parts
from scovert.core.dataloaders._cell_data import CellData
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.dataloaders._windows import random_windows, read_window, rows_of_window

__all__ = ["PairedData"]

MIN_DRAWN = 8
"""Cells of the smallest dataset in a minibatch, when all are drawn: fewer hardly move the rest."""


class _Draws:
    """Minibatches of one epoch: cells of every dataset in shuffled order, partners behind them."""

    def __init__(
        self,
        cells: CellTensors,
        rows: list[NDArray],
        sizes: NDArray,
        n_steps: int,
        partners: sp.csr_matrix | None,
    ) -> None:
        self.cells, self.rows, self.sizes = cells, rows, sizes
        self.n_steps, self.partners = n_steps, partners

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        orders = [
            _shuffled(rng, r, n * self.n_steps) for r, n in zip(self.rows, self.sizes, strict=True)
        ]
        for step in range(self.n_steps):
            drawn = np.concatenate(
                [o[step * n : (step + 1) * n] for o, n in zip(orders, self.sizes, strict=True)]
            )
            yield _with_partners(self.cells, drawn, self.partners, rng)


class _Windows:
    """Minibatches of one epoch of a file: blocks at random, shuffled within a window of them."""

    def __init__(self, data: PairedData) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.n_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        windows = random_windows(len(self.data.cells), rng)
        ends = np.linspace(0, len(self), len(windows) + 1).round().astype(int)
        for starts, n_steps in zip(windows, np.diff(ends), strict=True):
            if n_steps:
                yield from self._window(starts, int(n_steps))

    def _window(self, starts: NDArray, n_steps: int) -> _Draws:
        """Read blocks, and draw from them with the partners that are among them."""
        data = self.data
        rows, cells = rows_of_window(starts, len(data.cells)), read_window(data.cells, starts)
        drawn = np.flatnonzero(data.is_drawn[rows])
        groups, sizes = data.groups(drawn, cells.batch)
        partners = None if data.partners is None else data.partners[rows][:, rows]
        return _Draws(CellTensors(cells, data.device), groups, sizes, n_steps, partners)


class _InOrder:
    """Minibatches of validation cells in their order, with partners drawn once."""

    def __init__(self, data: PairedData, rows: NDArray) -> None:
        self.data = data
        self.spans = [
            (in_parts(rows[at], data.batch_size), start, stop)
            for at, start, stop in data.cells.spans(rows)
        ]

    def __len__(self) -> int:
        return sum(len(chunks) for chunks, _, _ in self.spans)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(0)
        for chunks, start, stop in self.spans:
            cells, partners = self.data.window(start, stop)
            for chunk in chunks:
                yield _with_partners(cells, chunk - start, partners, rng)


def _shuffled(rng: np.random.Generator, rows: NDArray, n: int) -> NDArray:
    """Return the first `n` of endlessly repeated shuffled `rows`."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-n // len(rows)))])[:n]


def _with_partners(
    cells: CellTensors, drawn: NDArray, partners: sp.csr_matrix | None, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Minibatch of `drawn` cells and one random partner of each that has any."""
    if partners is None:
        return cells.minibatch(drawn, len(drawn))
    start, end = partners.indptr[drawn], partners.indptr[drawn + 1]
    anchored = np.flatnonzero(end > start)
    start, degree = start[anchored], (end - start)[anchored]
    pick = start + (rng.random(len(anchored)) * degree).astype(np.int64)
    tensors = cells.minibatch(np.concatenate([drawn, partners.indices[pick]]), len(drawn))
    return tensors | {"anchored": torch.from_numpy(anchored).to(cells.device)}


class PairedData(CellData):
    """Training and validation minibatches of several datasets.

    Parameters
    ----------
    cells, train_idx, val_idx, resident
        For :class:`~scovert.core.dataloaders._cell_data.CellData`.
    batch_size
        Cells in a minibatch, partners not counted.
    equal_draws
        Draw as many cells of each dataset in every minibatch, as many minibatches as one pass over
        the largest takes. Otherwise in proportion to the sizes, but at least 8 of each.
    partners
        Which cells are anchored to which, shape ``(n_cells, n_cells)``.
    """

    def __init__(
        self,
        cells: Cells,
        train_idx: NDArray,
        val_idx: NDArray,
        *,
        batch_size: int,
        equal_draws: bool,
        partners: sp.csr_matrix | None = None,
        resident: bool | None = None,
    ) -> None:
        super().__init__(cells, train_idx, val_idx, resident)
        self.batch_size, self.equal_draws, self.partners = batch_size, equal_draws, partners
        self.n_steps = self._count_steps()
        self.is_drawn: NDArray | None = None

    def _count_steps(self) -> int:
        """Count the steps of an epoch, as many in every process."""
        groups, sizes = self.groups(self.train_idx, self.cells.batch)
        n_cells = np.array([len(g) for g in groups]) / self.n_processes
        longest = np.max(n_cells / sizes) if self.equal_draws else n_cells.sum() / self.batch_size
        return max(1, int(np.ceil(longest)))

    def _own(self, rows: NDArray) -> NDArray:
        """Deal the cells of every dataset to the processes in turn."""
        if self.n_processes == 1:
            return rows
        by_dataset = rows[np.argsort(self.cells.batch[rows], kind="stable")]
        return np.sort(by_dataset[self.trainer.global_rank :: self.n_processes])

    def groups(self, rows: NDArray, batch: NDArray) -> tuple[list[NDArray], NDArray]:
        """Split rows by dataset, and say how many of each a minibatch holds."""
        groups = [rows[batch[rows] == b] for b in np.unique(batch[rows])]
        n_cells = np.array([len(g) for g in groups])
        share = np.full(len(groups), 1 / len(groups)) if self.equal_draws else n_cells / len(rows)
        return groups, np.maximum(MIN_DRAWN, np.round(self.batch_size * share)).astype(int)

    def window(self, start: int, stop: int) -> tuple[CellTensors, sp.csr_matrix | None]:
        """Return consecutive cells as minibatches, and the partners they have among them."""
        tensors = self.tensors(start, stop)
        if self.partners is None or self.cells.is_in_memory:
            return tensors, self.partners
        return tensors, self.partners[start:stop, start:stop]

    def train_dataloader(self) -> _Draws | _Windows:
        """Return the shuffled minibatches of one epoch."""
        self.n_steps = self._count_steps()
        own = self._own(self.train_idx)
        if not self.cells.is_in_memory:
            self.is_drawn = np.zeros(len(self.cells), bool)
            self.is_drawn[own] = True
            return _Windows(self)
        groups, sizes = self.groups(own, self.cells.batch)
        return _Draws(self.tensors(0, len(self.cells)), groups, sizes, self.n_steps, self.partners)

    def val_dataloader(self) -> _InOrder | list:
        """Return the validation minibatches, none when there are no validation cells."""
        return _InOrder(self, self._own(self.val_idx)) if self.n_val else []
