"""Correction of a cohort by the measured fractions of a few of its samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measured"]

FLOOR = 0.003
"""Added to fractions before logarithms: flow cytometry does not see less."""
BIAS_SD, SAMPLE_SD = 0.35, 0.25
"""Log sd of what is wrong with a type in a whole cohort, and in one sample of it."""
SAMPLE_SHARE = 0.5
"""Part of a sample's error that draws of proportions do not hold already."""
PRIOR_DF = 8
"""Degrees of freedom that the second is worth, beside the measured samples."""


@dataclass(frozen=True)
class Measured:
    """Measured fractions of some samples.

    Attributes
    ----------
    samples
        Positions of the samples.
    fractions
        Fractions of all cells by measured group, shape ``(n_measured, n_groups)``.
    member
        Whether a type belongs to a group, shape ``(n_groups, n_types)``; a type belongs to one at
        most.
    """

    samples: NDArray
    fractions: NDArray
    member: NDArray

    def correct(self, proportions: NDArray, rng: np.random.Generator | None = None) -> NDArray:
        r"""Divide every type by what the measured samples say it is too large by.

        .. math::
            r_{ik} &= \log \frac{\hat p_{ik} + .003}{p_{ik} + .003}
                - \mathrm{median}_j \left( \ldots \right), \qquad
            \log b_k = \frac{.35^2}{.35^2 + s^2 / n} \bar r_k, \\
            s^2 &= \frac{8 \times .25^2 + \sum_{ik} (r_{ik} - \bar r_k)^2}{8 + (n - 1)(K - 1)},

        the posterior mean of a bias that all samples share, from :math:`n` measured ones and
        :math:`K` measured groups. Types that were measured keep their sum in every sample, the
        others keep their fraction.

        Parameters
        ----------
        proportions
            Estimates, shape ``(..., n_samples, n_types)``.
        rng
            For draws of proportions: adds the error of the bias, :math:`s / \sqrt n`, and half
            the variance of a sample's, :math:`s^2 / 2`. `None` adds none.
        """
        n, n_groups = self.fractions.shape
        found = proportions[..., self.samples, :] @ self.member.T  # (..., n_measured, n_groups)
        ratio = np.log((found + FLOOR) / (self.fractions + FLOOR))
        ratio -= np.median(ratio, -1, keepdims=True)
        bias = ratio.mean(-2)  # (..., n_groups)
        squares = ((ratio - bias[..., None, :]) ** 2).sum((-1, -2))[..., None]
        variance = (PRIOR_DF * SAMPLE_SD**2 + squares) / (PRIOR_DF + (n - 1) * (n_groups - 1))
        shrinkage = BIAS_SD**2 / (BIAS_SD**2 + variance / n)
        if rng is not None:
            bias = bias + rng.normal(size=bias.shape) * np.sqrt(variance / n)
        change = -(shrinkage * bias)[..., None, :]  # (..., 1, n_groups)
        if rng is not None:
            shape = (*proportions.shape[:-1], n_groups)
            change = change + rng.normal(size=shape) * np.sqrt(SAMPLE_SHARE * variance)[..., None]
        return self._scaled(proportions, np.exp(change @ self.member))

    def _scaled(self, proportions: NDArray, factor: NDArray) -> NDArray:
        """Multiply measured types by a factor, and keep their sum in every sample."""
        is_measured = self.member.any(0)
        scaled = np.where(is_measured, proportions * factor, 0)
        before = np.where(is_measured, proportions, 0).sum(-1, keepdims=True)
        scaled *= before / np.maximum(scaled.sum(-1, keepdims=True), 1e-12)
        return np.where(is_measured, scaled, proportions)
