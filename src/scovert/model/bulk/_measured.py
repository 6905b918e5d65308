"""Correction of a cohort by the measured fractions of a few of its samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measured"]

FLOOR = 0.003
"""Added to fractions before logarithms: flow cytometry does not tell less from none."""
BIAS_SD, SAMPLE_SD = 0.35, 0.25
"""Log sd of what is wrong with a type in a whole cohort, and in one sample of it: the size of both
in three studies of blood."""
PRIOR_DF = 8
"""Degrees of freedom that the second is worth, beside the measured samples of a type: those few
alone would say that it is zero or huge."""
N_ROUNDS = 3
"""Rounds between levels of samples with gaps and biases of groups, each of which rests on the
other."""


@dataclass(frozen=True)
class Measured:
    """Measured fractions of some samples.

    Attributes
    ----------
    samples
        Positions of the samples.
    fractions
        Fractions of all cells by measured group, shape ``(n_measured, n_groups)``; NaN where a
        group was not measured in a sample. Every sample has two numbers or more, every group one.
    member
        Whether a type belongs to a group, shape ``(n_groups, n_types)``; a type belongs to one at
        most.
    """

    samples: NDArray
    fractions: NDArray
    member: NDArray

    @classmethod
    def of(cls, samples: NDArray, fractions: NDArray, member: NDArray) -> Self | None:
        """Take the samples in which two groups were measured; `None` if there are none.

        One group alone says nothing: what it is too large by is seen against others.
        """
        fractions = np.where(member.any(1), fractions, np.nan)
        rows = (~np.isnan(fractions)).sum(1) > 1
        columns = ~np.isnan(fractions[rows]).all(0)
        if not rows.any():
            return None
        return cls(samples[rows], fractions[rows][:, columns], member[columns])

    def correct(self, proportions: NDArray) -> NDArray:
        r"""Divide every type by what the measured samples say it is too large by.

        .. math::
            r_{ik} &= \log \frac{\hat p_{ik} + .003}{p_{ik} + .003}
                - \mathrm{median}_j \left( \ldots \right), \qquad
            \log b_k = \frac{.35^2}{.35^2 + s_k^2 / n_k} \bar r_k, \\
            s_k^2 &= \frac{8 \times .25^2 + \sum_i (r_{ik} - \bar r_k)^2}{8 + n_k - 1},

        the posterior mean of a bias that all samples share, from the :math:`n_k` samples in which
        the group was measured. Types that were measured keep their sum in every sample, the others
        keep their fraction. In a sample in which groups are missing, the median is that of the
        differences from :math:`\bar r_k`, so that it does not matter which ones.

        Parameters
        ----------
        proportions
            Estimates, or draws of them with the errors of samples, shape ``(..., n_samples,
            n_types)``.
        """
        n = (~np.isnan(self.fractions)).sum(0)  # (n_groups,)
        found = proportions[..., self.samples, :] @ self.member.T  # (..., n_measured, n_groups)
        ratio = self._centred(np.log((found + FLOOR) / (self.fractions + FLOOR)))
        bias = np.nanmean(ratio, -2)  # (..., n_groups)
        squares = np.nansum((ratio - bias[..., None, :]) ** 2, -2)
        variance = (PRIOR_DF * SAMPLE_SD**2 + squares) / (PRIOR_DF + n - 1)
        shrinkage = BIAS_SD**2 / (BIAS_SD**2 + variance / n)
        change = -(shrinkage * bias)[..., None, :]  # (..., 1, n_groups)
        return self._scaled(proportions, np.exp(change @ self.member))

    def _centred(self, ratio: NDArray) -> NDArray:
        """Take a sample's own level from its ratios, NaN where there is none."""
        has_gap = np.isnan(self.fractions).any(1)
        ratio = ratio - np.nanmedian(ratio, -1, keepdims=True)
        for _ in range(N_ROUNDS if has_gap.any() else 0):
            bias = np.nanmean(ratio, -2, keepdims=True)
            level = np.nanmedian(ratio - bias, -1, keepdims=True)
            ratio = ratio - np.where(has_gap[:, None], level, 0)
        return ratio

    def _scaled(self, proportions: NDArray, factor: NDArray) -> NDArray:
        """Multiply measured types by a factor, and keep their sum in every sample."""
        is_measured = self.member.any(0)
        scaled = np.where(is_measured, proportions * factor, 0)
        before = np.where(is_measured, proportions, 0).sum(-1, keepdims=True)
        scaled *= before / np.maximum(scaled.sum(-1, keepdims=True), np.finfo(float).tiny)
        return np.where(is_measured, scaled, proportions)
