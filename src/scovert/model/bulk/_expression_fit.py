r"""Expression of every cell type in every condition, given what the samples are mixed of.

.. math::
    \log(y_{bg} + c) &= \log\Big(e^{s_g + a_b} \sum_k w_{bk} \rho_{kg} e^{u_{kg} + d_{ikg}}
    + c\Big) + \epsilon_{bg}, \qquad i = i(b) \text{ the condition}, \\
    d_{ig} &\sim t_4\big(0, 0.5 \cdot \mathbf 1 \mathbf 1^T + 0.15\, I\big), \quad
    s_g \sim t_4(0, \sigma_s^2), \quad u_{kg} \sim N(0, v_{kg}), \quad
    \epsilon_{bg} \sim t_4(0, \sigma_g^2 + n_{bg}).

The shift :math:`s` is that of the platform, for all types and conditions; :math:`u` is what the
reference does not know of its own profiles; the change :math:`d` has a part that all types share
and one of each type. Fractions :math:`w` and scales :math:`a` are held fixed. Each gene is a small
problem of its own, and genes are solved together: Gauss-Newton steps, reweighted for the t
distributions, in which the changes of a condition are eliminated before the part that all
conditions share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches

from scovert.model.bulk._cohort import MILLIONS_OF_READS, JointFit
from scovert.model.bulk._joint_fit import UNKNOWN_SD
from scovert.model.bulk._residual import DF
from scovert.model.bulk._signature import OFFSET, Profiles, sum_states

__all__ = ["CohortProfiles", "ExpressionFit", "fit_expression"]

COMMON, SPECIFIC = 0.5, 0.15
"""Prior variances of the log change of all types together and of a type alone: those with which
the response of blood to interferon is found best, of all cells and of single types."""
EVERYWHERE = 0.05
"""Prior variance of a change that all types show in all conditions: a tenth of `COMMON`, as what
all samples share is mostly a shift between protocols."""
SAMPLES_OF_PRIOR = 20
"""What the cohort's residual variance weighs against that of a gene, in samples: with
8 to 12, as studies of blood have, a third is the gene's own."""
N_STEPS = 10
"""Gauss-Newton steps, the last of which moves one log change of a hundred by more than .01."""
LONGEST_STEP = 1.5
"""Of a log change, natural: a linear approximation says little beyond a factor of 4."""
ELEMENTS_AT_ONCE = 4_000_000
"""Of a matrix of conditions x genes x types x types, 32 MB."""


@dataclass(frozen=True)
class CohortProfiles:
    """Samples, the profiles they are mixed of, and how well this explains them.

    Attributes
    ----------
    cpm
        Counts per million of all shared genes, shape ``(n_samples, n_genes)``.
    millions
        Counts of a sample in millions.
    weights
        Shares of the types in the RNA of the samples, shape ``(n_samples, n_types)``.
    profiles
        Counts per million of the types in the reference, shape ``(n_types, n_genes)``.
    variance
        Variance of their logarithms, shape ``(n_types, n_genes)``.
    scale
        Log scale of the samples, shape ``(n_samples,)``.
    shift_sd, residual_sd
        Standard deviations of gene shifts and residuals.
    """

    cpm: NDArray
    millions: float
    weights: NDArray
    profiles: NDArray
    variance: NDArray
    scale: NDArray
    shift_sd: float
    residual_sd: float

    @classmethod
    def of(
        cls, cpm: NDArray, millions: float | None, profiles: Profiles, fit: JointFit
    ) -> CohortProfiles:
        """Join the states of every type in their mean proportions in the cohort.

        An unknown component becomes a last type, of whose profile little is known.

        Parameters
        ----------
        cpm
            Counts per million of the genes of `profiles`.
        millions
            Counts of a sample in millions, `None` if only shares are known.
        profiles
            States of the reference.
        fit
            Joint fit of the same samples with these states.
        """
        known = fit.weights[:, : len(profiles.state_type)]
        weights, mean = sum_states(known, profiles.state_type), known.mean(0)
        joining = np.eye(len(profiles.types))[:, profiles.state_type] * mean
        joining /= joining.sum(1, keepdims=True)  # (n_types, n_states)
        shares = joining @ profiles.shares
        variance = joining**2 @ (profiles.shares**2 * profiles.variance) / shares**2
        if fit.weights.shape[1] > known.shape[1]:
            weights = np.column_stack([weights, fit.weights[:, -1]])
            unknown = shares.mean(0)
            unknown[profiles.informative] = fit.unknown / 1e6
            shares = np.vstack([shares, unknown])
            variance = np.vstack([variance, np.full_like(variance[0], UNKNOWN_SD**2)])
        return cls(
            cpm=cpm,
            millions=millions or MILLIONS_OF_READS,
            weights=weights,
            profiles=shares * 1e6,
            variance=variance,
            scale=fit.scale,
            shift_sd=fit.shift_sd,
            residual_sd=fit.residual_sd,
        )


@dataclass(frozen=True)
class ExpressionFit:
    """What the types express in every condition.

    Attributes
    ----------
    cpm
        Counts per million of the type's own RNA over these genes, on the scale of the reference
        (without the gene shift), shape ``(n_conditions, n_types, n_genes)``.
    change
        Log change since the reference, without the gene shift, same shape.
    reliability
        1 - posterior / prior variance of how far the type's change is from the mean change of all
        types, same shape, from 0 (the type follows the others) to 1 (the bulk tells it apart).
        It is the squared correlation of estimated and true difference that the model expects.
    shift
        Log shift of the genes, shape ``(n_genes,)``.
    """

    cpm: NDArray
    change: NDArray
    reliability: NDArray
    shift: NDArray


def fit_expression(
    cohort: CohortProfiles, conditions: NDArray, *, genes_at_once: int = 1000
) -> ExpressionFit:
    """Estimate the profile of every type in every condition.

    Parameters
    ----------
    cohort
        Samples and fractions.
    conditions
        Number of the condition of every sample, from 0 without gaps, shape ``(n_samples,)``.
    genes_at_once
        Most genes that are solved together; fewer if there are many conditions and types.

    Notes
    -----
    No data tell a shift from a change that all types show in all conditions. Of the two, the
    larger the estimated shifts, the more is taken as shift: with platforms that differ as usual
    (sd .6) nearly nine tenths, with pseudobulks of the reference's own platform little.
    """
    elements_of_gene = (conditions.max() + 1) * cohort.weights.shape[1] ** 2
    at_once = int(np.clip(ELEMENTS_AT_ONCE // elements_of_gene, 1, genes_at_once))
    blocks = gen_batches(cohort.cpm.shape[1], at_once)
    fits = [_Genes(cohort, conditions, block).run() for block in blocks]
    joined = (np.concatenate(parts, -1) for parts in zip(*fits, strict=True))
    change, reliability, shift, weight = joined
    everywhere = np.average(change.mean(1), 0, weight)
    kept = EVERYWHERE / (EVERYWHERE + cohort.shift_sd**2)
    change += kept * (shift + everywhere) - everywhere
    cpm = cohort.profiles * np.exp(change)
    cpm *= 1e6 / cpm.sum(-1, keepdims=True)
    return ExpressionFit(cpm, change, reliability, (1 - kept) * (shift + everywhere))


class _Genes:
    """A block of genes; arrays are conditions x genes x types."""

    def __init__(self, cohort: CohortProfiles, conditions: NDArray, block: slice) -> None:
        self.cohort = cohort
        self.samples = [conditions == c for c in range(conditions.max() + 1)]
        self.cpm = cohort.cpm[:, block]
        self.scale = np.exp(cohort.scale)[:, None]
        self.profiles = cohort.profiles[:, block].T  # (n_genes, n_types)
        self.certainty = 1 / cohort.variance[:, block].T
        n_genes, n_types = self.profiles.shape
        self.prior = np.linalg.inv(COMMON + SPECIFIC * np.eye(n_types))
        self.log_change = self._start()
        self.residual = np.full(n_genes, cohort.residual_sd**2)
        self.shift_weight = np.ones(n_genes)
        self.change_weight = np.ones((len(self.samples), n_genes))

    def run(self) -> tuple[NDArray, ...]:
        """Return change and reliability (types before genes), shift, and weight of the changes."""
        for _ in range(N_STEPS):
            change, shift, cov = self._step()
        contrast = np.eye(len(self.prior)) - 1 / len(self.prior)
        left = ((contrast @ cov) * contrast).sum(-1)  # (n_conditions, n_genes, n_types)
        prior = SPECIFIC * contrast[0, 0] / self.change_weight[..., None]
        reliability = np.clip(1 - left / prior, 0, 1)
        return change.swapaxes(1, 2), reliability.swapaxes(1, 2), shift, self.change_weight

    def _start(self) -> NDArray:
        """Change all types alike: by the mean of a condition over what is expected."""
        expected = self.cohort.weights @ self.profiles.T
        observed = self.cpm / self.scale
        means = [
            (observed[i].mean(0) + OFFSET, expected[i].mean(0) + OFFSET) for i in self.samples
        ]
        ratio = np.stack([np.log(y / x) for y, x in means])[:, :, None]
        return np.repeat(ratio, len(self.prior), axis=2)

    def _step(self) -> tuple[NDArray, NDArray, NDArray]:
        """Make a Gauss-Newton step; return change, shift and the covariance of the changes."""
        evidence = [self._evidence(c) for c in range(len(self.samples))]
        information, gradient, squares = map(np.stack, zip(*evidence, strict=True))
        target = gradient + _times(information, self.log_change)
        own = np.linalg.inv(self.prior * self.change_weight[..., None, None] + information)
        data_weight = own @ information  # in a change, against its prior: shrinkage
        prior_weight = np.eye(len(self.prior)) - data_weight

        shift_variance = self.cohort.shift_sd**2 / self.shift_weight
        precision, loading = self._shared_prior(shift_variance)
        shared_cov = np.linalg.inv(precision + (information @ prior_weight).sum(0))
        shared = _times(shared_cov, _times(prior_weight.swapaxes(-1, -2), target).sum(0))
        shift = (loading * shared).sum(-1)
        change = _times(own, target - _times(information, shared))

        step = shared + change - self.log_change
        self.log_change += np.clip(step, -LONGEST_STEP, LONGEST_STEP)
        cov = own + data_weight @ shared_cov @ data_weight.swapaxes(-1, -2)
        fitted_cov = own + prior_weight @ shared_cov @ prior_weight.swapaxes(-1, -2)
        self._update_residual(squares.sum(0), (information * fitted_cov).sum((0, -2, -1)))
        self._update_change(change, cov)
        left = shift_variance * (1 - loading.sum(-1)) + (
            loading * _times(shared_cov, loading)
        ).sum(-1)
        self.shift_weight = (DF + 1) / (DF + (shift**2 + left) / self.cohort.shift_sd**2)
        return shared + change - shift[:, None], shift, cov

    def _evidence(self, condition: int) -> tuple[NDArray, NDArray, NDArray]:
        """Return information and gradient of the log changes, and the sum of squared residuals."""
        samples = self.samples[condition]
        weights, scale, cpm = self.cohort.weights[samples], self.scale[samples], self.cpm[samples]
        n_types = weights.shape[1]
        profiles = self.profiles * np.exp(self.log_change[condition])
        mean = scale * (weights @ profiles.T) + OFFSET
        slope = scale / mean
        deviation = np.log((cpm + OFFSET) / mean)  # (n_samples_of_condition, n_genes)

        noise = 1 / (cpm * self.cohort.millions + 1)
        variance = self.residual + noise
        robust = (DF + 1) / (DF + deviation**2 / variance)
        precision = robust / variance
        pairs = (weights[:, :, None] * weights[:, None, :]).reshape(-1, n_types**2)
        products = (precision * slope**2).T @ pairs
        information = products.reshape(-1, n_types, n_types)
        information *= profiles[:, :, None] * profiles[:, None, :]
        gradient = profiles * ((precision * slope * deviation).T @ weights)
        share = self.residual / variance  # of the residual that is not noise of sampling
        squares = share**2 * robust * deviation**2 + share * noise
        return information, gradient, squares.sum(0)

    def _shared_prior(self, shift_variance: NDArray) -> tuple[NDArray, NDArray]:
        """Return the precision of shift plus error of profiles, and the shift's part in it."""
        certainty = self.certainty
        total = 1 / shift_variance + certainty.sum(1)
        loading = certainty / total[:, None]
        precision = certainty[:, :, None] * (np.eye(certainty.shape[1]) - loading[:, None, :])
        return precision, loading

    def _update_residual(self, squares: NDArray, fitted: NDArray) -> None:
        fitted = fitted * self.residual
        prior = SAMPLES_OF_PRIOR * self.cohort.residual_sd**2
        self.residual = (prior + squares + fitted) / (SAMPLES_OF_PRIOR + len(self.cpm))

    def _update_change(self, change: NDArray, cov: NDArray) -> None:
        size = (change * (change @ self.prior)).sum(-1) + (self.prior * cov).sum((-2, -1))
        self.change_weight = (DF + len(self.prior)) / (DF + size)


def _times(matrices: NDArray, vectors: NDArray) -> NDArray:
    return (matrices @ vectors[..., None])[..., 0]
