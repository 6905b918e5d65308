"""Samples that are fitted together, and what is found of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.model.bulk._signature import Profiles

__all__ = ["MILLIONS_OF_READS", "Cohort", "JointFit"]

MILLIONS_OF_READS = 20.0
"""Depth taken for samples whose counts are not known: that of a usual library."""


@dataclass(frozen=True)
class Cohort:
    """Samples to deconvolve, and the profiles they are mixed from.

    Attributes
    ----------
    cpm
        Counts per million of all shared genes, of the informative ones, shape
        ``(n_samples, n_genes)``.
    millions
        Counts of a sample in millions; those of a usual library if only shares are known.
    profiles
        Counts per million of the states, shape ``(n_states, n_genes)``.
    variance
        Variance of their logarithms, shape ``(n_states, n_genes)``.
    """

    cpm: Tensor
    millions: float
    profiles: Tensor
    variance: Tensor

    @classmethod
    def of(
        cls,
        cpm: NDArray,
        shares: NDArray,
        variance: NDArray,
        millions: float | None,
        dtype: torch.dtype = torch.float32,
    ) -> Cohort:
        """Take arrays; `shares` are those of genes in states, and sum to one over all genes."""
        tensors = (torch.as_tensor(x, dtype=dtype) for x in (cpm, shares * 1e6, variance))
        cpm, profiles, variance = tensors
        return cls(cpm, millions or MILLIONS_OF_READS, profiles, variance)

    @classmethod
    def of_profiles(cls, profiles: Profiles, cpm: NDArray, millions: float | None) -> Cohort:
        """Take the informative genes of profiles, and of samples with all genes of these."""
        at = profiles.informative
        return cls.of(cpm[:, at], profiles.shares[:, at], profiles.variance[:, at], millions)

    def with_profile(self, profile: NDArray, sd: float) -> Cohort:
        """Return the cohort with one more state, whose log profile has a standard deviation."""
        row = self.profiles.new_tensor(profile)[None]
        profiles = torch.cat([self.profiles, row])
        variance = torch.cat([self.variance, torch.full_like(row, sd**2)])
        return replace(self, profiles=profiles, variance=variance)


@dataclass(frozen=True)
class JointFit:
    """Most probable mixture of every sample.

    Attributes
    ----------
    weights
        Shares of the states in the RNA of the samples, shape ``(n_samples, n_states)``; with an
        unknown component it is the last column.
    shift
        Log shift of the genes, shape ``(n_genes,)``.
    scale
        Log scale of the samples, shape ``(n_samples,)``.
    shift_sd, residual_sd, spread
        Standard deviations of shifts, residuals and of the samples' logits.
    residuals
        Residuals on the log scale, shape ``(n_samples, n_genes)``.
    unknown
        Profile of the unknown component in counts per million, shape ``(n_genes,)``, or `None`.
    likelihood
        ``"robust"`` or ``"nb"``.
    objective
        Negative log posterior by step.
    """

    weights: NDArray
    shift: NDArray
    scale: NDArray
    shift_sd: float
    residual_sd: float
    spread: float
    residuals: NDArray
    unknown: NDArray | None
    likelihood: str
    objective: list[float]
