"""What is measured of estimated fractions, and what a few measured samples buy."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.metrics import concordance
from scovert.model.bulk._bootstrap import FLOOR
from scovert.model.bulk._measured import Measured

__all__ = [
    "LEVELS",
    "after_measured",
    "between_samples",
    "correlation",
    "errors",
    "grouped",
    "interval_scores",
]

N_MEASURED, N_REPEATS = (1, 2, 3), 20
LEVELS = (0.05, 0.95)


def grouped(fractions: pd.DataFrame, groups: dict[str, list[str]]) -> pd.DataFrame:
    """Sum the types of each group."""
    return pd.DataFrame({k: fractions[types].sum(axis=1) for k, types in groups.items()})


def errors(estimate: pd.DataFrame, truth: pd.DataFrame) -> dict:
    """Errors over all samples and types, and the correlation of each type over the samples."""
    error = (estimate - truth).to_numpy(float)
    bias = error.mean(0)
    varies = [t for t in truth if truth[t].std() > 0]
    r = {t: correlation(estimate[t], truth[t]) for t in varies}
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "bias": float(np.sqrt(np.mean(bias**2))),
        "within": float(np.sqrt(np.mean((error - bias) ** 2))),
        "ccc": concordance(estimate, truth),
        "r": float(np.mean(list(r.values()))),
        "r_of": r,
        "ratio_of": (estimate.mean() / truth.mean()).to_dict(),
    }


def correlation(x: NDArray | pd.Series, y: NDArray | pd.Series) -> float:
    """Pearson's correlation; 0 if one of them does not vary."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    varies = min(x.std(), y.std()) > 1e-9
    return float(np.corrcoef(x, y)[0, 1]) if varies else 0.0


def interval_scores(lower: NDArray, upper: NDArray, truth: NDArray) -> dict[str, float]:
    """Share of the truth inside, and mean half-width."""
    return {
        "coverage": float(np.mean((truth >= lower) & (truth <= upper))),
        "half_width": float(np.mean(upper - lower) / 2),
    }


def between_samples(fractions: NDArray) -> NDArray:
    """Logarithms less their mean over the samples: what all samples share cancels."""
    log = np.log(fractions + FLOOR)
    return log - log.mean(-2, keepdims=True)


def after_measured(
    cells: pd.DataFrame,
    draws: NDArray | None,
    truth: pd.DataFrame,
    groups: dict[str, list[str]],
) -> dict[str, float]:
    """Scores of the other samples when some are measured, means over random choices.

    Parameters
    ----------
    cells
        Estimated fractions, samples x types.
    draws
        Draws of them, or `None`.
    truth
        Fractions, samples x groups.
    groups
        Types of each group.
    """
    found: dict[str, list[float]] = {}
    rng = np.random.default_rng(0)
    for n in N_MEASURED:
        for _ in range(N_REPEATS):
            chosen = rng.choice(len(truth), n, replace=False)
            member = np.array([[t in m for t in cells] for m in groups.values()])
            measured = Measured(chosen, truth.to_numpy()[chosen], member)
            others = np.setdiff1d(np.arange(len(truth)), chosen)
            scores = _of_others(measured, others, cells.to_numpy(), draws, truth.to_numpy())
            for name, value in scores.items():
                found.setdefault(f"measured_{n}{name}", []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _of_others(
    measured: Measured, rows: NDArray, cells: NDArray, draws: NDArray | None, truth: NDArray
) -> dict[str, float]:
    error = (measured.correct(cells) @ measured.member.T - truth)[rows]
    found = {"": np.sqrt(np.mean(error**2))}
    if draws is not None:
        corrected = measured.correct(draws) @ measured.member.T
        scores = interval_scores(*np.quantile(corrected, LEVELS, axis=0)[:, rows], truth[rows])
        found |= {f"_{name}": value for name, value in scores.items()}
    return found
