"""Samples that a model is fitted to: features, distances and groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._minibatch import cells_of
from scovert.core.dataloaders._cells import CellTensors
from scovert.model.distance._checks import distances_of, groups_of

__all__ = ["Samples", "read_samples"]

READ_AT_ONCE = 256
"""Samples whose features are computed at once."""


class Samples(NamedTuple):
    """Samples that a model is fitted to.

    Attributes
    ----------
    blocks
        Features by kind, each ``(n_samples, n_features)``.
    totals
        Total count of each.
    distances
        Between them, shape ``(n_samples, n_samples)``.
    groups
        Number of the group of each, such as its subject.
    names
        Names of the samples.
    """

    blocks: dict[str, NDArray]
    totals: NDArray
    distances: NDArray
    groups: NDArray
    names: pd.Index

    def part(self, rows: NDArray) -> Samples:
        """Return some of them."""
        return Samples(
            {kind: block[rows] for kind, block in self.blocks.items()},
            self.totals[rows],
            self.distances[np.ix_(rows, rows)],
            self.groups[rows],
            self.names[rows],
        )


def read_samples(
    model: BaseModelClass, kinds: Iterable[tuple[str, ...]], split_key: str | None
) -> Samples:
    """Read the samples of a model.

    Features of all `kinds` are computed; without a `split_key` each sample is a group.
    """
    adata, cells = model.adata, cells_of(model)
    used = list(dict.fromkeys(kind for some in kinds for kind in some))
    groups = groups_of(adata, split_key)
    parts: list[dict[str, NDArray]] = []
    totals = []
    read = model.module.features.cpu()
    for start in range(0, len(cells), READ_AT_ONCE):
        stop = min(start + READ_AT_ONCE, len(cells))
        counts = CellTensors(cells.block(start, stop))[np.arange(stop - start)]["X"]
        with torch.inference_mode():
            parts.append({kind: read.block(counts, kind).numpy() for kind in used})
        totals.append(counts.sum(1, dtype=torch.float64).numpy())
    model.module.to(model.module.unit.device)
    return Samples(
        {kind: np.concatenate([part[kind] for part in parts]) for kind in used},
        np.concatenate(totals),
        distances_of(adata, model.registry["setup_args"]["distances_key"]),
        groups,
        adata.obs_names,
    )
