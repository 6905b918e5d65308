"""Values of cells as features: transformed, and every gene or channel on one scale."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.core.dataloaders._cells import Cells

__all__ = [
    "TRANSFORMS",
    "Moments",
    "choose_transform",
    "moments_of",
    "standardise",
    "transform_values",
]

TRANSFORMS = ("log1p", "arcsinh", "none")
"""Of counts per median total, of intensities by their cofactor, of values in [0, 1]."""
LARGEST = 10.0
"""Standard deviations at which features are clipped."""
ROUNDING = 1e-10
"""Variance by the mean square that rounding of float32 leaves where all values are the same."""


class Moments(NamedTuple):
    """Mean and scale of the transformed values in every batch.

    Attributes
    ----------
    mean, scale
        Mean, and one over the standard deviation (0 for what is constant), shape
        ``(n_batch, n_genes)``, float32.
    n_cells
        Cells of every batch, shape ``(n_batch,)``.
    """

    mean: NDArray
    scale: NDArray
    n_cells: NDArray


def transform_values(
    x: Tensor, transform: str, cofactor: Tensor | float, median_total: Tensor | float
) -> Tensor:
    """Transform counts or intensities, not yet on one scale.

    Parameters
    ----------
    x
        Values, shape ``(n_cells, n_genes)``.
    transform
        ``"log1p"`` of counts per `median_total`, ``"arcsinh"`` of `x` by `cofactor`, or
        ``"none"``.
    cofactor
        Intensity at which arcsinh goes from linear to logarithmic.
    median_total
        Total count to which cells are brought.
    """
    if transform == "log1p":
        total = x.sum(-1, keepdim=True).clamp(min=1)
        return torch.log1p(x / total * median_total)
    return torch.arcsinh(x / cofactor) if transform == "arcsinh" else x


def choose_transform(cells: Cells) -> tuple[str, float]:
    """Return the transformation that the values ask for, and the median total of the cells.

    Whole numbers of which none is negative are counts; values in [0, 1] are scaled already; all
    others are intensities.
    """
    are_whole, low, high, totals = True, np.inf, -np.inf, []
    for _, block in cells.blocks():
        values = block.data if sp.issparse(block) else block
        if values.size:
            low, high = min(low, values.min()), max(high, values.max())
            are_whole = are_whole and bool((values == np.rint(values)).all())
        totals.append(np.asarray(block.sum(axis=1, dtype=float)).ravel())
    total = np.concatenate(totals)
    median = float(np.median(total[total > 0])) if (total > 0).any() else 1.0
    if are_whole and low >= 0 and high > 1:
        return "log1p", median
    return ("none" if low >= 0 and high <= 1 else "arcsinh"), median


def moments_of(
    cells: Cells, batch: NDArray, n_batch: int, transform: str, cofactor: float, median: float
) -> Moments:
    """Mean and scale of the transformed values in every batch.

    Parameters
    ----------
    cells
        Cells, in memory or in a file.
    batch
        Number of the batch of each cell, shape ``(n_cells,)``; cells with -1 are left out.
    n_batch
        Number of batches.
    transform, cofactor, median
        As in `transform_values`.
    """
    first, second = np.zeros((2, n_batch, cells.n_genes))
    for start, block in cells.blocks():
        dense = block.toarray() if sp.issparse(block) else block
        x = torch.from_numpy(np.ascontiguousarray(dense, np.float32))
        values = transform_values(x, transform, cofactor, median).double().numpy()
        of_row = batch[start : start + len(values)]
        for b in np.unique(of_row[of_row >= 0]):
            first[b] += values[of_row == b].sum(0)
            second[b] += np.square(values[of_row == b]).sum(0)
    n_cells = np.bincount(batch[batch >= 0], minlength=n_batch)
    n = np.maximum(n_cells, 1)[:, None]
    mean = first / n
    variance = second / n - mean**2
    is_constant = variance <= ROUNDING * np.maximum(second / n, np.finfo(float).tiny)
    scale = np.where(is_constant, 0, 1 / np.sqrt(np.where(is_constant, 1, variance)))
    return Moments(mean.astype(np.float32), scale.astype(np.float32), n_cells)


def standardise(values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Bring transformed values to mean 0 and standard deviation 1, clipped at 10."""
    return ((values - mean) * scale).clamp(-LARGEST, LARGEST)
