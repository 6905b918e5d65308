"""Samples for training: minibatches with the distances between their samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.core.dataloaders._cells import CELLS_KEY, Cells
from scovert.core.dataloaders._shuffled import ShuffledData
from scovert.model.distance._checks import is_small
from scovert.model.distance._linear import folds_of
from scovert.model.distance._module import COMPONENTS, DISTANCES

__all__ = ["SampleData", "split_samples"]

STEPS_OF_EPOCH = 50
"""Steps of an epoch at least: it goes through a small cohort many times."""
TRAIN_SIZE = 0.9
"""Share of the samples that are trained on, of cohorts that are not small."""
N_REFERENCES = 1024
"""Training samples to which those for validation are compared, at most."""


def split_samples(
    groups: NDArray, train_size: float | None, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Split samples, the samples of a group together: rows to train on and to validate on.

    Parameters
    ----------
    groups
        Number of the group of each sample.
    train_size
        Share of the samples to train on, below 1; `None` takes 0.9, and all of a small cohort.
    rng
        Generator of the split.
    """
    if train_size is None and is_small(len(groups)):
        return np.arange(len(groups)), np.arange(0)
    train_size = TRAIN_SIZE if train_size is None else train_size
    n_parts = max(2, round(1 / (1 - train_size))) if train_size >= 0.5 else len(np.unique(groups))
    folds = folds_of(groups, n_parts, rng)
    n_held_out = max(2, round((1 - train_size) * len(groups)))
    first = np.cumsum(np.bincount(folds)) <= n_held_out
    first[0] = True
    held_out = first[folds]
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


class SampleData(ShuffledData):
    """Training samples in random order, and validation samples beside training samples.

    Parameters
    ----------
    components
        Features of all samples, shape ``(n_samples, n_components)``.
    distances
        In the unit of the loss, shape ``(n_samples, n_samples)``, an array or a map of a file.
    train_idx, val_idx
        Rows of the training and of the validation samples.
    names
        Names of the samples, for messages.
    batch_size
        Samples in a minibatch, about; there are never fewer than two.

    Notes
    -----
    A minibatch has the rows of its samples (``"cells"``), their ``"components"`` and their
    ``"distances"``: among themselves, or for validation to the training samples behind them.
    """

    def __init__(
        self,
        components: NDArray,
        distances: NDArray,
        train_idx: NDArray,
        val_idx: NDArray,
        *,
        names: pd.Index,
        batch_size: int,
    ) -> None:
        no_counts = np.zeros((len(components), 0), np.float32)
        super().__init__(
            Cells(no_counts, {}, names=names), train_idx, val_idx, batch_size=batch_size
        )
        self.components = torch.from_numpy(components.astype(np.float32))
        self.distances = distances

    @property
    def steps_of_pass(self) -> int:
        """Number of minibatches that hold each training sample once."""
        n_own = len(self._own(self.train_idx))
        return max(1, min(-(-n_own // self.batch_size), n_own // 2))

    @property
    def n_passes(self) -> int:
        """Number of passes over the training samples that an epoch has."""
        return -(-STEPS_OF_EPOCH // self.steps_of_pass)

    @property
    def n_steps(self) -> int:
        """Number of steps of an epoch."""
        return self.n_passes * self.steps_of_pass

    def train_dataloader(self) -> _Passes:
        """Return the minibatches of an epoch, in another order each time."""
        return _Passes(self)

    def val_dataloader(self) -> _HeldOut | list:
        """Return the validation samples as one minibatch, or nothing."""
        return _HeldOut(self) if self.n_val else []

    def minibatch(self, rows: NDArray, others: NDArray | None = None) -> dict[str, Tensor]:
        """Return samples with their distances among themselves, or to the others behind them."""
        behind = rows if others is None else others
        found = torch.from_numpy(self.distances[np.ix_(rows, behind)].astype(np.float32))
        at = torch.from_numpy(rows if others is None else np.concatenate([rows, others]))
        return {
            CELLS_KEY: torch.from_numpy(rows),
            COMPONENTS: self.components[at].to(self.device),
            DISTANCES: found.to(self.device),
        }


class _Passes:
    """Minibatches of training samples."""

    def __init__(self, data: SampleData) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.n_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rows = self.data._own(self.data.train_idx)
        for _ in range(self.data.n_passes):
            for some in np.array_split(self.data.shuffled(rows), self.data.steps_of_pass):
                yield self.data.minibatch(some)


class _HeldOut:
    """The validation samples and training samples, evenly spaced, as one minibatch."""

    def __init__(self, data: SampleData) -> None:
        at = np.unique(np.linspace(0, data.n_train - 1, N_REFERENCES).astype(int))
        self.batch = data.minibatch(data._own(data.val_idx), data.train_idx[at])

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield self.batch
