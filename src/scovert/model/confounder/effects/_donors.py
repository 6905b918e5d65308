"""Errors when the treatment is given to donors and not to single cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma, polygamma

from scovert.model.confounder.effects._classes import Arms
from scovert.model.confounder.glm import CountBlocks, Regression, cluster_variance

__all__ = ["Donors", "squeeze"]

MIN_SHARED = 4
"""Donors in an arm from which genes lend each other strength."""


class Compared(NamedTuple):
    """Clusters that an arm and the reference are compared by.

    Attributes
    ----------
    fewest
        Number of those of the arm or of the reference, whichever is smaller; of blocks, those
        that hold both.
    df
        Degrees of freedom of what differs between them.
    """

    fewest: int
    df: int


@dataclass(frozen=True)
class Donors:
    """Clusters of cells that are not independent.

    Attributes
    ----------
    codes
        Cluster of each cell, from 0 without gaps.
    n_covariates
        Covariates that do not vary within the clusters; not of blocks, which hold these.
    are_blocks
        Whether they are in the design, so that arms are compared within them.
    """

    codes: NDArray
    n_covariates: int = 0
    are_blocks: bool = False

    def compared(self, arms: Arms, arm: int) -> Compared:
        """Return the clusters that an arm (from 1) and the reference are compared by."""
        ours, others = (np.unique(self.codes[arms.level == level]) for level in (arm, 0))
        if self.are_blocks:
            n_blocks = len(np.intersect1d(ours, others))
            return Compared(n_blocks, n_blocks - 1)
        df = len(np.union1d(ours, others)) - 2 - self.n_covariates
        return Compared(min(len(ours), len(others)), max(1, df))

    def errors(
        self,
        blocks: CountBlocks,
        design: NDArray,
        fit: Regression,
        contrast: NDArray,
        *,
        extra: NDArray,
        compared: Compared,
    ) -> tuple[NDArray, float]:
        """Return standard errors of a contrast, and the degrees of freedom of their t-statistics.

        The ratio of the variance between clusters to that of the model is squeezed towards its
        value in all genes :cite:p:`Smyth04` if every arm has four clusters.

        Parameters
        ----------
        blocks, design, fit, contrast
            As in `cluster_variance`.
        extra
            Variance to add, shape ``(n_genes,)``.
        compared
            Clusters of the arms that are compared.
        """
        variance = cluster_variance(blocks, design, fit, contrast, self.codes)
        if compared.fewest < MIN_SHARED:
            return np.sqrt(variance.robust + extra), compared.df
        ratio, df_squeezed = squeeze(variance.robust / variance.model, compared.df)
        return np.sqrt(ratio * variance.model + extra), df_squeezed


def squeeze(variance: NDArray, df: float) -> tuple[NDArray, float]:
    r"""Shrink variances towards a common one, as limma does :cite:p:`Smyth04`.

    .. math:: s_j^2 \sim s_0^2 F(d, d_0)

    Parameters
    ----------
    variance
        Variances :math:`s^2`, shape ``(n_genes,)``.
    df
        Their degrees of freedom :math:`d`.

    Returns
    -------
    Shrunken variances, and their degrees of freedom :math:`d + d_0`, possibly infinite.
    """
    variance = np.maximum(variance, 1e-5 * np.median(variance))
    log = np.log(variance) - digamma(df / 2) + np.log(df / 2)
    centre = log.mean()
    excess = log.var(ddof=1) - polygamma(1, df / 2)
    if excess <= 0:
        return np.full_like(variance, np.exp(centre)), np.inf
    df_prior = 2 * _inverse_trigamma(excess)
    prior = np.exp(centre + digamma(df_prior / 2) - np.log(df_prior / 2))
    return (df_prior * prior + df * variance) / (df_prior + df), df + df_prior


def _inverse_trigamma(value: float) -> float:
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / polygamma(2, x)
        x += step
        if abs(step) < 1e-8 * x:
            break
    return float(x)
