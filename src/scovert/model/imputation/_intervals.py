"""How far imputed values may be off, from genes whose counts are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scovert.model.imputation._panels import MIN_COUNTS

__all__ = [
    "SD_OF_MAD",
    "Spread",
    "TotalErrors",
    "count_interval",
    "coverage",
    "log_errors",
    "spread_of",
]

SD_OF_MAD = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation."""


class Spread(NamedTuple):
    """Centre and standard deviation of the errors of genes, natural logarithm."""

    centre: float
    sd: float

    def of_totals(self, imputed: NDArray) -> NDArray:
        """Return the standard deviation of errors of totals, with that of Poisson counts."""
        return np.sqrt(self.sd**2 + 1 / imputed)


def log_errors(true: NDArray, imputed: NDArray) -> tuple[NDArray, NDArray]:
    r"""Errors of totals, :math:`\log\frac{T + 1/2}{P + 1/2}`, of those imputed as 20 or more.

    Which totals are taken depends on what was imputed alone, so that it can be said of genes whose
    true totals are not known.

    Parameters
    ----------
    true, imputed
        Totals of the same genes in groups of cells, same shape.

    Returns
    -------
    Natural logarithms, and the imputed totals, both of shape ``(n_errors,)``.
    """
    enough = imputed >= MIN_COUNTS
    return np.log((true[enough] + 0.5) / (imputed[enough] + 0.5)), imputed[enough]


def spread_of(true: NDArray, imputed: NDArray) -> Spread:
    """Return centre and spread of the errors of genes, less what chance adds to a total.

    Parameters
    ----------
    true, imputed
        Totals of genes whose counts are known, any shape; NaN without any of 20.
    """
    errors, totals = log_errors(true, imputed)
    if len(errors) == 0:
        return Spread(np.nan, np.nan)
    centre = float(np.median(errors))
    robust = SD_OF_MAD * float(np.median(np.abs(errors - centre)))
    return Spread(centre, float(np.sqrt(max(0.0, robust**2 - np.median(1 / totals)))))


class TotalErrors(NamedTuple):
    r"""How far totals of known genes are off, for intervals of others.

    Quantiles of :math:`|e - c|`, and of :math:`|e - c| / \sqrt{\sigma^2 + 1 / P}`, of the level
    that a finite number of exchangeable errors e asks for: split conformal prediction, as it is
    and locally weighted :cite:p:`Lei18`. The wider interval is taken: one of them is too narrow
    where other genes have more counts than the known ones, or fewer.

    Attributes
    ----------
    spread
        Centre c and standard deviation of the errors.
    width, quantile
        NaN where there are too few errors: 9 are needed to hold 90 %, since another one exceeds
        them all once in ten times.
    """

    spread: Spread
    width: float
    quantile: float

    @classmethod
    def of(cls, true: NDArray, imputed: NDArray, level: float) -> TotalErrors:
        """Learn from totals of genes whose counts are known."""
        errors, totals = log_errors(true, imputed)
        spread, n = spread_of(true, imputed), len(errors)
        if level * (n + 1) > n:
            return cls(spread, np.nan, np.nan)
        distances, at = np.abs(errors - spread.centre), level * (n + 1) / n
        weighted = distances / spread.of_totals(totals)
        return cls(spread, float(np.quantile(distances, at)), float(np.quantile(weighted, at)))

    def widths(self, imputed: NDArray) -> NDArray:
        """Return half widths of intervals of totals, natural logarithm."""
        return np.maximum(self.width, self.quantile * self.spread.of_totals(imputed))

    def interval(self, imputed: NDArray) -> tuple[NDArray, NDArray]:
        """Return bounds of totals; NaN of those imputed as fewer than 20."""
        totals = np.where(imputed >= MIN_COUNTS, imputed, np.nan)
        width = self.widths(totals)
        centre = self.spread.centre
        return totals * np.exp(centre - width), totals * np.exp(centre + width)

    def factor(self, imputed: NDArray) -> float:
        """Return how far the ends are from the middle, by the median of the totals that have any.

        NaN where there are too few errors.
        """
        totals = imputed[imputed >= MIN_COUNTS]
        if len(totals) == 0:
            return np.nan
        return float(np.exp(np.median(self.widths(totals))))


def _predictive(
    mean: NDArray, variation: NDArray, theta: NDArray, spread: Spread
) -> tuple[NDArray, NDArray]:
    r"""Size and probability of the negative binomial with the moments of the counts.

    A count has mean :math:`\mu e^\epsilon` and inverse dispersion :math:`\theta`; the mean varies
    over the posterior of the cell by a squared coefficient of variation v, and
    :math:`\epsilon \sim N(c, \sigma^2)` is the error of the gene:

    .. math:: m = \mu e^{c + \sigma^2 / 2}, \qquad
        1 + 1 / \theta' = (1 + 1 / \theta) (1 + v) e^{\sigma^2}.
    """
    mean = np.maximum(mean * np.exp(spread.centre + spread.sd**2 / 2), np.finfo(np.float32).tiny)
    size = 1 / ((1 + 1 / theta) * (1 + variation) * np.exp(spread.sd**2) - 1)
    return size, size / (size + mean)


def count_interval(
    mean: NDArray, variation: NDArray, theta: NDArray, spread: Spread, level: float
) -> tuple[NDArray, NDArray]:
    """Return bounds between which counts lie with a probability of `level` or more.

    Parameters
    ----------
    mean, variation
        Expected counts, and squared coefficient of variation over the posterior of the cell, shape
        ``(n_cells, n_genes)``.
    theta
        Inverse dispersion, shape ``(n_genes,)``.
    spread
        Errors of genes.
    level
        In (0, 1).
    """
    size, probability = _predictive(mean.astype(float), variation, theta, spread)
    tail = (1 - level) / 2
    bounds = (stats.nbinom.ppf(q, size, probability) for q in (tail, 1 - tail))
    lower, upper = (bound.astype(np.float32) for bound in bounds)
    return lower, upper


def coverage(
    counts: NDArray,
    mean: NDArray,
    variation: NDArray,
    theta: NDArray,
    spread: Spread,
    level: float,
) -> NDArray:
    """Return how much of each count lies in the central part of its predictive distribution.

    A count stands for an interval of probabilities, of which the share in the central part is
    taken, so that the mean is `level` for a distribution that is right, discrete as it is.

    Parameters
    ----------
    counts
        Shape ``(n_cells, n_genes)``.
    mean, variation, theta, spread, level
        As for `count_interval`.

    Returns
    -------
    Array in [0, 1] of that shape.
    """
    size, probability = _predictive(mean.astype(float), variation, theta, spread)
    upto = stats.nbinom.cdf(counts, size, probability)
    below = np.where(counts > 0, stats.nbinom.cdf(counts - 1, size, probability), 0.0)
    tail = (1 - level) / 2
    inside = np.minimum(upto, 1 - tail) - np.maximum(below, tail)
    mass = np.maximum(upto - below, np.finfo(float).tiny)
    return np.clip(inside / mass, 0.0, 1.0)
