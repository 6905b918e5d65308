"""Minibatches of cells with all cells around them."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.core._counts import in_parts
from scovert.core._losses import SparseCounts
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.model.niche._module import BATCH, CENTERS, IS_NEIGHBOR, NEIGHBORS

__all__ = ["NicheData", "around", "split_patches"]

Minibatch = dict[str, Tensor | SparseCounts]

PATCH = 16
"""Centres of a patch, a cell and those nearest to it: the sets around them overlap, so that of 21
members of each only about three are read and encoded."""
MOST_STEPS = 25
"""Steps of an epoch at most, so that early stopping looks often at many cells too."""
MOST_HELD_OUT = 2000
"""Validation cells at most: enough for a mean, and quick to look at after every epoch."""
VALIDATED_AT_ONCE = 1024
"""Validation cells of a minibatch: with their neighbours some 10,000 cells are encoded."""


def split_patches(graph: NDArray, share: float, rng: np.random.Generator) -> NDArray:
    """Choose patches of cells to validate on.

    Parameters
    ----------
    graph
        Rows of the neighbours of each cell, -1 for none, shape ``(n_cells, n_neighbors)``.
    share
        Share of the cells, of which at most 2,000 are taken.
    rng
        Generator.

    Returns
    -------
    Whether each cell is one of them, shape ``(n_cells,)``.
    """
    n_held_out = min(MOST_HELD_OUT, round(share * len(graph)))
    seeds = rng.permutation(len(graph))[: -(-n_held_out // PATCH)]
    held_out = np.zeros(len(graph), bool)
    held_out[patches(graph, seeds)] = True
    return held_out


def patches(graph: NDArray, seeds: NDArray) -> NDArray:
    """Return some cells and those nearest to each, once and sorted."""
    near = graph[seeds, : PATCH - 1]
    return np.union1d(seeds, near[near >= 0])


class NicheData(pl.LightningDataModule):
    """Minibatches of patches of cells, with the neighbours of each.

    Parameters
    ----------
    cells
        Cells in memory.
    graph
        Rows of the neighbours of each cell, -1 for none, shape ``(n_cells, n_neighbors)``.
    batch
        Number of the batch of each cell, shape ``(n_cells,)``.
    held_out
        Whether each cell is validated on, shape ``(n_cells,)``.
    batch_size
        Centres of a minibatch, about.
    counted
        Whether minibatches need the counts that are not zero.
    """

    def __init__(
        self,
        cells: Cells,
        graph: NDArray,
        batch: NDArray,
        held_out: NDArray,
        *,
        batch_size: int,
        counted: bool,
    ) -> None:
        super().__init__()
        self.cells, self.graph, self.batch_size = cells, graph, batch_size
        self.batch, self.counted = torch.from_numpy(batch), counted
        self.train_idx, self.val_idx = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        self.is_trained_on = ~held_out
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        self._tensors: CellTensors | None = None

    @property
    def names(self) -> pd.Index | None:
        """Names of the cells."""
        return self.cells.names

    @property
    def n_steps(self) -> int:
        """Number of steps of an epoch, the same in every process."""
        n_processes = 1 if self.trainer is None else self.trainer.world_size
        return min(MOST_STEPS, max(1, -(-self.n_train // (self.batch_size * n_processes))))

    def train_dataloader(self) -> _Patches:
        """Return the minibatches of an epoch."""
        return _Patches(self, self._own(self.train_idx))

    def val_dataloader(self) -> _InOrder | list:
        """Return the validation minibatches, none when there are no validation cells."""
        return _InOrder(self, self._own(self.val_idx)) if self.n_val else []

    def transfer_batch_to_device(
        self, batch: Minibatch, device: torch.device, _: int
    ) -> Minibatch:
        """Return the minibatch as it is: it was made on the device."""
        return batch

    def _own(self, rows: NDArray) -> NDArray:
        """Deal the cells to the processes in turn."""
        if self.trainer is None or self.trainer.world_size == 1:
            return rows
        return rows[self.trainer.global_rank :: self.trainer.world_size]

    def minibatch(self, centers: NDArray) -> Minibatch:
        """Return some centres, and their neighbours, each cell once.

        Parameters
        ----------
        centers
            Rows of the centres.
        """
        if self._tensors is None:
            device = "cpu" if self.trainer is None else self.trainer.strategy.root_device
            self._tensors = CellTensors(self.cells, device)
        members, own, near, is_neighbor = around(self.graph, centers)
        tensors, device = self._tensors, self._tensors.device
        read = tensors.minibatch(members, len(members)) if self.counted else tensors[members]
        places = {CENTERS: own, NEIGHBORS: near, IS_NEIGHBOR: is_neighbor}
        places = {name: torch.from_numpy(value).to(device) for name, value in places.items()}
        return read | places | {BATCH: self.batch[torch.from_numpy(members)].to(device)}


def around(graph: NDArray, centers: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Collect centres and their neighbours.

    Returns
    -------
    Rows of all of them, each once; places among these of the centres, ``(n_centers,)``, and of the
    neighbours, ``(n_centers, n_neighbors)``; and where there are neighbours. Where there is none,
    the place is that of the centre.
    """
    near = graph[centers]
    is_neighbor = near >= 0
    near = np.where(is_neighbor, near, centers[:, None])
    members, place = np.unique(np.concatenate([centers, near.ravel()]), return_inverse=True)
    place = place.astype(np.int64).ravel()
    n = len(centers)
    return members, place[:n], place[n:].reshape(near.shape), is_neighbor


class _Patches:
    """Minibatches of an epoch: patches at random places."""

    def __init__(self, data: NicheData, rows: NDArray) -> None:
        self.data, self.rows, self.n_steps = data, rows, data.n_steps

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[Minibatch]:
        data, n_seeds = self.data, -(-self.data.batch_size // PATCH)
        n_orders = -(-self.n_steps * n_seeds // len(self.rows))
        order = np.concatenate([torch.randperm(len(self.rows)).numpy() for _ in range(n_orders)])
        for some in order[: self.n_steps * n_seeds].reshape(self.n_steps, n_seeds):
            centers = patches(data.graph, self.rows[some])
            yield data.minibatch(centers[data.is_trained_on[centers]])


class _InOrder:
    """Minibatches of validation cells."""

    def __init__(self, data: NicheData, rows: NDArray) -> None:
        self.data, self.parts = data, in_parts(rows, VALIDATED_AT_ONCE)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Minibatch]:
        for rows in self.parts:
            yield self.data.minibatch(rows)
