"""What is measured of estimated fractions, and what a few measured samples buy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["after_measured", "concordance", "correlation", "errors", "grouped", "interval_scores"]

N_REPEATS = 20
SPREAD, NOISE, OFFSET = 0.35, 0.25, 3e-3  # of the log bias of a type; of a sample; of fractions
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
        "ccc": concordance(estimate.to_numpy().ravel(), truth.to_numpy().ravel()),
        "r": float(np.mean(list(r.values()))),
        "r_of": r,
        "ratio_of": (estimate.mean() / truth.mean()).to_dict(),
    }


def correlation(x: NDArray | pd.Series, y: NDArray | pd.Series) -> float:
    """Pearson's correlation; 0 if one of them does not vary."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    varies = min(x.std(), y.std()) > 1e-9
    return float(np.corrcoef(x, y)[0, 1]) if varies else 0.0


def concordance(x: NDArray, y: NDArray) -> float:
    """Lin's concordance correlation coefficient."""
    covariance = np.mean((x - x.mean()) * (y - y.mean()))
    return float(2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def interval_scores(lower: NDArray, upper: NDArray, truth: NDArray) -> dict[str, float]:
    """Share of the truth inside, and mean half-width."""
    return {
        "coverage": float(np.mean((truth >= lower) & (truth <= upper))),
        "half_width": float(np.mean(upper - lower) / 2),
    }


def after_measured(
    truth: pd.DataFrame, corrected: Callable[[pd.DataFrame], pd.DataFrame], n: int
) -> float:
    """RMSE of the other samples when n are measured, mean over random choices.

    Parameters
    ----------
    truth
        Fractions, samples x groups.
    corrected
        Estimates of all samples, given the fractions of some.
    n
        Number of measured samples.
    """
    found, rng = [], np.random.default_rng(0)
    for _ in range(N_REPEATS):
        chosen = rng.choice(len(truth), n, replace=False)
        estimate = corrected(truth.iloc[chosen])
        error = (estimate - truth).drop(index=truth.index[chosen]).to_numpy()
        found.append(np.sqrt(np.mean(error**2)))
    return float(np.mean(found))


def correct(estimate: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """Divide out the bias of each type in the measured samples, shrunk by their number."""
    own = estimate.loc[measured.index]
    ratio = np.log((own + OFFSET) / (measured + OFFSET))
    ratio = ratio.sub(ratio.median(axis=1), axis=0)
    shrinkage = SPREAD**2 / (SPREAD**2 + NOISE**2 / len(measured))
    found = estimate / np.exp(ratio.mean() * shrinkage)
    return found.mul(estimate.sum(axis=1) / found.sum(axis=1), axis=0)
