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

        .. math:: \log b_k = \frac{.35^2}{.35^2 + .25^2 / n} \; \mathrm{mean}_i \left(
            \log \frac{\hat p_{ik} + .003}{p_{ik} + .003} - \mathrm{median}_j \right),

        the posterior mean of a bias that all samples share, from :math:`n` measured ones. Types
        that were measured keep their sum in every sample, the others keep their fraction.

        Parameters
        ----------
        proportions
            Estimates, shape ``(..., n_samples, n_types)``.
        rng
            Draws the error of the bias, for draws of proportions; `None` takes none.
        """
        n = len(self.samples)
        shrinkage = BIAS_SD**2 / (BIAS_SD**2 + SAMPLE_SD**2 / n)
        found = proportions[..., self.samples, :] @ self.member.T  # (..., n_measured, n_groups)
        ratio = np.log((found + FLOOR) / (self.fractions + FLOOR))
        bias = (ratio - np.median(ratio, -1, keepdims=True)).mean(-2)  # (..., n_groups)
        if rng is not None:
            bias = bias + rng.normal(0, SAMPLE_SD / np.sqrt(n), bias.shape)
        factor = np.exp(-shrinkage * bias @ self.member)[..., None, :]
        is_measured = self.member.any(0)
        corrected = np.where(is_measured, proportions * factor, 0)
        before = np.where(is_measured, proportions, 0).sum(-1, keepdims=True)
        corrected *= before / np.maximum(corrected.sum(-1, keepdims=True), 1e-12)
        return np.where(is_measured, corrected, proportions)
