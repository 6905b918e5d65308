"""The shift of the confounders between arms if few genes respond; and calibration to the rest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

__all__ = ["Calibration", "Shift", "calibrate", "robust_shift"]

FLOOR = 0.02
"""Effect, natural log scale, below which genes do not differ in weight."""

N_L1_STEPS, MAX_STEPS = 15, 60
"""Steps of least absolute deviations, whose minimum is one, before those of Tukey's weights; and
all steps. Both end early by the change."""

TUKEY = 4.685
"""Cut-off in standard deviations at which normal residuals lose 5 % of efficiency
(Beaton and Tukey 1974)."""

MIN_SLOPE = 0.25
"""Lower bound of the sensitivity, 0.8 for normal residuals, against a division by nothing."""

MAX_NOISE_SHARE = 0.5
"""Largest share of the spread of the loadings that may be taken for their noise."""

TRUNCATION = 1.5
"""Standard deviations within which z-scores are taken for those of genes without effect; 87 % of
normal ones are."""

STARTS, FEW = (0.02, 0.1), -2.0
"""Spreads, natural log scale, and log odds of a response (one gene in eight) that the search for
the spread starts from."""

TOLERANCE = 1e-12
"""Of the likelihood and its gradient, so that the spread is known to six digits."""

LEAST_SPREAD, NO_SPREAD = 1e-3, 2e-3
"""Smallest spread that is tried, natural log scale, and the one up to which there is none: a fold
change of 0.2 %."""

LEAST_RESPONSE, LARGEST = 0.1, 10.0
"""Standard deviation of the effects of genes that respond, natural log scale: at least a fold
change of 10 %, and at most more than any gene shows."""

RAREST = -8.0
"""Lowest log odds of a response: one gene in 3,000."""


class Shift(NamedTuple):
    """Difference of the mean score between an arm and the reference.

    Attributes
    ----------
    mean
        The shift, shape ``(n_factors,)``.
    covariance
        Its covariance, shape ``(n_factors, n_factors)``.
    """

    mean: NDArray
    covariance: NDArray


def robust_shift(
    effect: NDArray, se: NDArray, loadings: NDArray, noise: NDArray | None = None
) -> Shift:
    r"""Regress effects on loadings, robustly and without intercept.

    .. math:: b_j = \beta_j + g_j^\top \delta

    where most :math:`\beta_j` are zero: an M-estimate with Tukey's weights that starts from least
    absolute deviations, corrected for the noise of the loadings. As in CATE
    :cite:p:`Wang17`, with weights by precision.

    Parameters
    ----------
    effect
        :math:`b`, effects of the treatment with the scores orthogonal to it, shape ``(n_genes,)``.
    se
        Their standard errors.
    loadings
        :math:`g`, shape ``(n_genes, n_factors)``.
    noise
        Covariances of the loadings, shape ``(n_genes, n_factors, n_factors)``.

    Returns
    -------
    :math:`\delta` and its covariance, robust to unequal variances.
    """
    k = loadings.shape[1]
    if k == 0:
        return Shift(np.zeros(0), np.zeros((0, 0)))
    base = 1 / (se**2 + FLOOR**2)
    shift = np.zeros(k)
    for step in range(MAX_STEPS):
        residual = effect - loadings @ shift
        weight = base * _weights(residual * np.sqrt(base), tukey=step >= N_L1_STEPS)
        gram = _gram(loadings, weight, noise)
        before, shift = shift, np.linalg.solve(gram, (loadings * weight[:, None]).T @ effect)
        if step > N_L1_STEPS and np.abs(shift - before).max() < 1e-6:
            break
    residual = effect - loadings @ shift
    inverse = np.linalg.inv(gram) * _flattening(residual * np.sqrt(base), base)
    influence = loadings * (weight * residual)[:, None]
    few = len(effect) / max(len(effect) - k, 1)
    return Shift(shift, inverse @ (influence.T @ influence) @ inverse * few)


def _flattening(z: NDArray, base: NDArray) -> float:
    r"""Sensitivity correction of the M-estimator's covariance.

    The mean of :math:`\psi(z) / z` over the mean of :math:`\psi'(z)`.
    """
    u2 = _in_tukeys(z) ** 2
    weight, slope = (1 - u2) ** 2, (1 - u2) * (1 - 5 * u2)
    inside = base * (u2 < 1)
    return float(1 / max(inside @ slope / (inside @ weight), MIN_SLOPE))


def _weights(z: NDArray, *, tukey: bool) -> NDArray:
    """Weights of residuals in standard errors: of least absolute deviations, or Tukey's."""
    if not tukey:
        return 1 / np.maximum(np.abs(z), 0.05)
    u = _in_tukeys(z)
    return np.where(u < 1, (1 - u**2) ** 2, 0.0)


def _in_tukeys(z: NDArray) -> NDArray:
    """Residuals in units of Tukey's cut-off (4.685 robust SDs); from 1 on the weight is 0."""
    size = np.abs(z)
    return size / max(np.median(size) / norm.ppf(0.75), 1e-12) / TUKEY


def _gram(loadings: NDArray, weight: NDArray, noise: NDArray | None) -> NDArray:
    """Weighted second moment of the loadings, less that of their noise."""
    gram = (loadings * weight[:, None]).T @ loadings + 1e-9 * np.eye(loadings.shape[1])
    if noise is None:
        return gram
    excess = np.einsum("p,pij->ij", weight, noise)
    share = np.linalg.eigvals(np.linalg.solve(gram, excess)).real.max()
    return gram - excess * min(1.0, MAX_NOISE_SHARE / max(share, 1e-9))


class Calibration(NamedTuple):
    r"""Empirical null: the standard error becomes :math:`\lambda \sqrt{se^2 + \tau^2}`.

    Attributes
    ----------
    se
        Calibrated standard errors.
    factor
        :math:`\lambda`, at least 1.
    spread
        :math:`\tau`, the standard deviation of small effects everywhere, natural log scale.
    """

    se: NDArray
    factor: float
    spread: float


def calibrate(effect: NDArray, se: NDArray) -> Calibration:
    """Widen standard errors until the bulk of the effects looks like chance.

    Parameters
    ----------
    effect, se
        Effects and standard errors, shape ``(n_genes,)``.

    Returns
    -------
    The widened errors: the spread is that of most genes, the factor what is left to explain of
    genes that do not respond.
    """
    spread = _spread(effect, se)
    wider = np.hypot(se, spread)
    factor = _null_scale(effect / wider)
    return Calibration(wider * factor, factor, spread)


def _null_scale(z: NDArray) -> float:
    """Return the standard deviation of z-scores without effect, by truncated likelihood."""
    scale = max(np.median(np.abs(z)) / norm.ppf(0.75), 1e-3)
    c = TRUNCATION
    kept_variance = 1 - 2 * c * norm.pdf(c) / (2 * norm.cdf(c) - 1)
    for _ in range(50):
        inside = z[np.abs(z) < c * scale]
        if len(inside) < 20:
            break
        found = np.sqrt(np.mean(inside**2) / kept_variance)
        if abs(found - scale) < 1e-4:
            break
        scale = (scale + found) / 2
    return float(max(1.0, scale))


def _spread(effect: NDArray, se: NDArray) -> float:
    r"""Return the likeliest standard deviation of small effects everywhere.

    .. math:: b_j \sim (1 - \pi) N(0, s_j^2 + \tau^2) + \pi N(0, s_j^2 + \tau^2 + \sigma^2)

    where genes with a response are the second part, of half of all genes at most.
    """
    largest = np.log(LARGEST)
    bounds = [(np.log(LEAST_SPREAD), largest), (np.log(LEAST_RESPONSE), largest), (RAREST, 0)]
    options = {"method": "L-BFGS-B", "jac": True, "bounds": bounds, "tol": TOLERANCE}
    starts = [(np.log(spread), np.log(5 * LEAST_RESPONSE), FEW) for spread in STARTS]
    fits = [minimize(_loss, start, (effect, se), **options) for start in starts]
    found = float(np.exp(min(fits, key=lambda fit: fit.fun).x[0]))
    return found if found > NO_SPREAD else 0.0


def _loss(values: NDArray, effect: NDArray, se: NDArray) -> tuple[float, NDArray]:
    r"""Return the negative log-likelihood of the mixture, and its gradient.

    `values` are :math:`\log \tau`, :math:`\log \sigma` and the log odds of :math:`\pi`.
    """
    spread, response = np.exp(2 * values[:2])
    variances = np.stack([se**2 + spread, se**2 + spread + response])
    odds = np.array([values[2], -values[2]])[:, None]
    log = -0.5 * (np.log(variances) + effect**2 / variances) - np.logaddexp(0, odds)
    total = np.logaddexp(*log)
    share = np.exp(log - total)
    slope = share * (effect**2 / variances - 1) / variances  # by a variance, twice
    of_odds = share[1].mean() - expit(values[2])
    gradient = np.array([spread * slope.sum(0).mean(), response * slope[1].mean(), of_odds])
    return -float(total.mean()), -gradient
