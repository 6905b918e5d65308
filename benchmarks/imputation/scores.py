"""How close imputed counts are to those that were hidden."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.imputation.sets import Hidden

__all__ = ["inside", "scores", "used"]

THETA = 2.0
"""Inverse dispersion of the deviance, the same for all methods."""
SMALLEST = 1e-8
LEAST_SEEN = 0.02
"""Share of the cells in which a gene is counted that is scored."""


def used(data: Hidden) -> NDArray:
    """Return the numbers of the hidden genes that are scored."""
    asked = data.asked
    return asked[(data.x[data.second][:, asked] > 0).mean(0) > LEAST_SEEN]


def scores(data: Hidden, imputed: NDArray) -> dict[str, float]:
    """Compare counts imputed for the cells of the second dataset, of all genes, with the truth.

    Returns
    -------
    ``d2``, share of the deviance from the mean share of the first dataset that is explained;
    ``r``, median over genes of Pearson's correlation over cells of log-normalised values;
    ``offset``, median distance of the log2 totals of genes; ``bias``, log2 of the total of all.
    """
    genes, own = used(data), data.x[data.second]
    true, found = own[:, genes], imputed[:, genes].clip(SMALLEST)
    library = own[:, data.measured[1]].sum(1, keepdims=True)
    first, shared = data.x[~data.second].sum(0), data.shared
    level = own[:, shared].sum() / library.sum()
    null = library * first[genes] / first[shared].sum() * level
    scale = 1e4 / np.maximum(library, 1)
    logs = [_standardised(np.log1p(v * scale)) for v in (true, found)]
    ratio = (found.sum(0) + 1) / (true.sum(0) + 1)
    return {
        "d2": float(1 - _deviance(true, found) / _deviance(true, null)),
        "r": float(np.median((logs[0] * logs[1]).mean(0))),
        "offset": float(np.median(np.abs(np.log2(ratio)))),
        "bias": float(np.log2(found.sum() / true.sum())),
    }


def _standardised(x: NDArray) -> NDArray:
    return (x - x.mean(0)) / (x.std(0) + 1e-9)


def _deviance(x: NDArray, mean: NDArray) -> float:
    mean = np.maximum(mean, SMALLEST)
    of_x = np.where(x > 0, x * np.log(np.maximum(x, SMALLEST) / mean), 0)
    return float(2 * (of_x - (x + THETA) * np.log((x + THETA) / (mean + THETA))).sum())


def inside(true: NDArray, lower: NDArray, upper: NDArray) -> float:
    """Return the share of values between their bounds, of those that have any."""
    known = np.isfinite(lower)
    return float(((true >= lower) & (true <= upper))[known].mean()) if known.any() else np.nan
