"""Mean expression of groups of cells, with intervals from genes that were held back."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._words import counted
from scovert.model.imputation._intervals import TotalErrors
from scovert.model.imputation._panels import MIN_COUNTS, Panels

__all__ = ["group_table"]

PER = 1e4
"""Counts to which a mean refers, as usual."""
UNEXPLAINED = 0.02
"""Share of the deviance of a gene where it was measured, below which nothing predicts it."""


def group_table(
    totals: tuple[NDArray, NDArray],
    batch: NDArray,
    names: pd.MultiIndex,
    panels: Panels,
    explained: NDArray,
    level: float,
) -> pd.DataFrame:
    """Return a row for each group and gene, which is given as a number.

    Parameters
    ----------
    totals
        Counts, and what is imputed, shape ``(n_groups, n_genes)``.
    batch
        Number of the dataset of each group.
    names
        Dataset and name of each group.
    panels
        What was measured, and what was learnt.
    explained
        Share of the deviance of a gene that is explained in a dataset, NaN where it is not known,
        shape ``(n_datasets, n_genes)``.
    level
        Of the intervals.
    """
    true, imputed = totals
    measured, learnt = panels.measured[batch], panels.learnt[batch]
    scale = PER / np.maximum((true * learnt).sum(1, keepdims=True), 1)
    lower, upper = _bounds(true, imputed, batch, panels.calibration, level)
    mean = np.where(measured, true, imputed) * scale
    unknown = np.where(measured, np.nan, 1.0) * scale
    n_groups, n_genes = mean.shape
    codes, n_learnt = pd.factorize(learnt.sum(1), sort=True)
    units = [f"per {PER:,.0f} counts of {counted(n, 'gene')}" for n in n_learnt]
    return pd.DataFrame(
        {
            "dataset": np.repeat(names.get_level_values(0), n_genes),
            "group": np.repeat(names.get_level_values(1), n_genes),
            "gene": np.tile(np.arange(n_genes), n_groups),
            "measured": measured.ravel(),
            "mean": mean.ravel(),
            "unit": pd.Categorical.from_codes(np.repeat(codes, n_genes), units),
            "lower": (lower * unknown).ravel(),
            "upper": (upper * unknown).ravel(),
            "reason": np.where(measured, "", _reasons(imputed, lower, explained)).ravel(),
        }
    )


def _bounds(
    true: NDArray, imputed: NDArray, batch: NDArray, calibration: NDArray, level: float
) -> tuple[NDArray, NDArray]:
    """Return bounds of totals; NaN of what is imputed as few counts, or without known genes."""
    lower, upper = (np.full(true.shape, np.nan) for _ in range(2))
    for b in np.unique(batch):
        groups, genes = batch == b, calibration[b]
        known = (totals[groups][:, genes] for totals in (true, imputed))
        errors = TotalErrors.of(*known, level)
        lower[groups], upper[groups] = errors.interval(imputed[groups])
    return lower, upper


def _reasons(imputed: NDArray, lower: NDArray, explained: NDArray) -> NDArray:
    """Say why an imputed value is uncertain."""
    best = np.max(np.nan_to_num(explained, nan=-np.inf), axis=0)  # (n_genes,)
    reasons = np.where(best < UNEXPLAINED, "hardly predicted where it was measured", "")
    reasons = np.broadcast_to(reasons, imputed.shape)
    reasons = np.where(np.isnan(lower), "too few known genes", reasons)
    return np.where(imputed < MIN_COUNTS, f"fewer than {MIN_COUNTS} imputed counts", reasons)
