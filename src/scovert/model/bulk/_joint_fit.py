r"""Joint fit of all samples: linear mixing, gene shifts that the cohort shares, robust residuals.

.. math::
    \log(y_{bg} + c) &= \log\Big(e^{s_g + a_b} \sum_k w_{bk} \rho_{kg} + c\Big) + \epsilon_{bg},
    \qquad w_b = \mathrm{softmax}(\theta_b), \\
    \epsilon_{bg} &\sim t_4(0, \sigma_e^2 + n_{bg}), \quad
    s_g \sim t_4(0, \sigma_s^2 + u_g), \quad
    \theta_b \sim N(m, \tau^2), \quad a_b \sim N(0, 1/4),

where :math:`y` are counts per million of the shared genes, :math:`n_{bg}` the variance of sampling
and :math:`u_g` that of the profiles, propagated to the cohort's mean mixture.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scvi.distributions import NegativeBinomial
from torch import Tensor, nn

from scovert.model.bulk._budget import BulkBudget
from scovert.model.bulk._cohort import Cohort, JointFit
from scovert.model.bulk._residual import DF, robust_residual
from scovert.model.bulk._signature import OFFSET

__all__ = ["fit_cohort", "refit_cohort"]

# Priors; standard deviations are on the natural log scale
PRIOR_SD = {"shift": (0.6, 1.0), "residual": (0.3, 1.0), "spread": (1.0, 0.5)}
"""Median and log sd of the log-normal priors of the three standard deviations: shifts between two
protocols are about .6, residuals of blood about .3, and either may be three times that or a third;
logits of the samples of a cohort spread by about 1."""
MEAN_SD = 3.0
"""Of the cohort's mean logits: shares from a thousandth up are as good as even."""
SCALE_SD = 0.5
"""Of the scale of samples, which are normalised already."""
UNKNOWN_SD = 1.5
"""Of the unknown component's profile about the mean of the states, as types differ."""
SPREAD_RANGE = (0.1, 3.0)
"""Of the spread of logits: below, samples would be one; above, types vanish from samples."""

# Descent
RATE, REFIT_RATE = 0.05, 0.03
"""First learning rates of Adam, of a fit and of one that begins at its end."""
START_SD = {"shift": 0.5, "residual": 0.3, "spread": 1.0}
"""First standard deviations; any of this size lead to the same fit."""
UNKNOWN_START = -1.0
"""First logit of the unknown component, against 0 of the states: it has to be asked for."""
STEPS_BETWEEN_VARIANCES = 25
"""Steps for which the variance of the mixed profile is kept: it changes slowly."""
SHARE_FLOOR = 1e-5
"""Added to shares whose logarithm begins a fit."""
COUNT_FLOOR = 0.1
"""Counts added to negative binomial means, so that no gene of a type has none at all."""


class Mixture(nn.Module):
    """Parameters of one or several fits: shares of the states, shifts, scales and priors."""

    def __init__(self, logits: Tensor, n_genes: int, *, n_fits: int, has_unknown: bool) -> None:
        super().__init__()
        zeros = logits.new_zeros
        self.logits = nn.Parameter(logits.expand(n_fits, -1, -1).clone())
        self.mean = nn.Parameter(self.logits.detach().mean(1, keepdim=True))
        self.shift = nn.Parameter(zeros(n_fits, 1, n_genes))
        self.scale = nn.Parameter(zeros(n_fits, len(logits), 1))
        self.unknown = nn.Parameter(zeros(n_fits, 1, n_genes)) if has_unknown else None
        self.log_sd = nn.ParameterDict(
            {k: nn.Parameter(zeros(n_fits, 1, 1) + math.log(v)) for k, v in START_SD.items()}
        )

    @property
    def spread(self) -> Tensor:
        """Standard deviation of the samples' logits."""
        return self.log_sd["spread"].exp().clamp(*SPREAD_RANGE)

    def weights(self) -> Tensor:
        """Return the shares of the states, shape ``(n_fits, n_samples, n_states)``."""
        return torch.softmax(self.logits, -1)

    def mixed(self, profiles: Tensor) -> Tensor:
        """Return the mixed profiles, shape ``(n_fits, n_samples, n_genes)``."""
        if self.unknown is not None:
            profiles = torch.cat([profiles[None], self.unknown_profile(profiles)], 1)
        return self.weights() @ profiles

    def unknown_profile(self, profiles: Tensor) -> Tensor:
        """Return that of the unknown component, shape ``(1, 1, n_genes)``."""
        return (profiles.mean(0) + OFFSET) * self.unknown.exp()

    def log_prior(self, profile_variance: Tensor, gene_weights: Tensor) -> Tensor:
        """Return the negative log prior of everything, up to a constant."""
        variance = (2 * self.log_sd["shift"]).exp() + profile_variance
        shift = (DF + 1) / 2 * torch.log1p(self.shift.square() / (DF * variance))
        total = (gene_weights * (shift + variance.log() / 2)).sum()
        deviation = (self.logits - self.mean) / self.spread
        total = total + (deviation.square() / 2 + self.spread.log()).sum()
        total = total + _normal(self.mean, MEAN_SD) + _normal(self.scale, SCALE_SD)
        for name, (median, sd) in PRIOR_SD.items():
            total = total + _normal(self.log_sd[name] - math.log(median), sd)
        if self.unknown is not None:
            total = total + _normal(gene_weights.sqrt() * self.unknown, UNKNOWN_SD)
        return total


def _normal(x: Tensor, sd: float) -> Tensor:
    return x.square().sum() / (2 * sd**2)


def fit_cohort(
    cohort: Cohort,
    *,
    likelihood: str = "robust",
    has_unknown: bool = False,
    weights: NDArray | None = None,
    n_steps: int = BulkBudget.n_steps,
) -> JointFit:
    """Fit all samples together, from equal shares.

    Parameters
    ----------
    cohort
        Samples and profiles.
    likelihood
        ``"robust"`` or ``"nb"``, negative binomial counts.
    has_unknown
        Add a component with a profile of its own.
    weights
        Shares of the states that are kept, shape ``(n_samples, n_states)``: only shifts, scales
        and standard deviations are then fitted.
    n_steps
        Steps of Adam.
    """
    n_states, n_genes = cohort.profiles.shape
    logits = cohort.cpm.new_zeros(len(cohort.cpm), n_states + has_unknown)
    if has_unknown:
        logits[:, -1] = UNKNOWN_START
    if weights is not None:
        logits = cohort.cpm.new_tensor(np.log(weights + SHARE_FLOOR))
    mixture = Mixture(logits, n_genes, n_fits=1, has_unknown=has_unknown)
    mixture.logits.requires_grad_(weights is None)
    gene_weights = cohort.cpm.new_ones(1, 1, n_genes)
    optimiser = _Descent(mixture, cohort, TERMS[likelihood], gene_weights)
    objective = optimiser.run(cohort.profiles, n_steps, RATE)
    with torch.no_grad():
        mean = mixture.mixed(cohort.profiles) * (mixture.shift + mixture.scale).exp()
        residuals = (cohort.cpm + OFFSET).log() - (mean[0] + OFFSET).log()
        unknown = mixture.unknown_profile(cohort.profiles) if has_unknown else None
        return JointFit(
            weights=_array(mixture.weights()[0]),
            shift=_array(mixture.shift[0, 0]),
            scale=_array(mixture.scale[0, :, 0]),
            shift_sd=float(mixture.log_sd["shift"].exp()),
            residual_sd=float(mixture.log_sd["residual"].exp()),
            spread=float(mixture.spread),
            residuals=_array(residuals),
            unknown=None if unknown is None else _array(unknown[0, 0]),
            likelihood=likelihood,
            objective=objective,
        )


def refit_cohort(
    cohort: Cohort,
    start: JointFit,
    profiles: Tensor,
    gene_weights: Tensor,
    *,
    n_steps: int = BulkBudget.n_bootstrap_steps,
) -> NDArray:
    """Fit again with other profiles and weights of genes, from a fit whose sds are kept.

    Parameters
    ----------
    cohort
        The samples.
    start
        The fit to begin with.
    profiles
        Profiles of every fit, shape ``(n_fits, n_states, n_genes)``.
    gene_weights
        Weights of the genes, shape ``(n_fits, 1, n_genes)``.
    n_steps
        Steps of Adam.

    Returns
    -------
    Shares of the states, shape ``(n_fits, n_samples, n_states)``.
    """
    tensor = cohort.cpm.new_tensor
    logits = tensor(np.log(start.weights + SHARE_FLOOR))
    logits = logits - logits.mean(-1, keepdim=True)
    mixture = Mixture(logits, len(start.shift), n_fits=len(profiles), has_unknown=False)
    sds = {"shift": start.shift_sd, "residual": start.residual_sd, "spread": start.spread}
    with torch.no_grad():
        mixture.shift += tensor(start.shift)
        mixture.scale += tensor(start.scale)[:, None]
        for name, sd in sds.items():
            mixture.log_sd[name].fill_(math.log(sd)).requires_grad_(False)
    term = TERMS[start.likelihood]
    _Descent(mixture, cohort, term, gene_weights).run(profiles, n_steps, REFIT_RATE)
    return _array(mixture.weights())


class _Descent:
    """Adam on the negative log posterior, at a rate that falls to a tenth in the last steps."""

    def __init__(
        self,
        mixture: Mixture,
        cohort: Cohort,
        term: Callable[..., Tensor],
        gene_weights: Tensor,
    ) -> None:
        self.mixture, self.cohort, self.gene_weights = mixture, cohort, gene_weights
        self.term = term(cohort, gene_weights)

    def run(self, profiles: Tensor, n_steps: int, rate: float) -> list[float]:
        """Return the objective by step."""
        mixture, objective = self.mixture, []
        free = [p for p in mixture.parameters() if p.requires_grad]
        adam = torch.optim.Adam(free, lr=rate)
        for step in range(n_steps):
            if step % STEPS_BETWEEN_VARIANCES == 0:
                variance = self._profile_variance(profiles)
            adam.param_groups[0]["lr"] = rate * min(1.0, 0.1 + 2.25 * (1 - step / n_steps))
            adam.zero_grad()
            loss = self.term(mixture, mixture.mixed(profiles))
            loss = loss + mixture.log_prior(variance, self.gene_weights)
            loss.backward()
            adam.step()
            objective.append(float(loss.detach()))
        return objective

    def _profile_variance(self, profiles: Tensor) -> Tensor:
        """Variance of the log of the cohort's mean mixture, shape ``(n_fits, 1, n_genes)``."""
        n_states = profiles.shape[-2]
        with torch.no_grad():
            mean = self.mixture.weights().mean(1)[..., :n_states, None]  # (n_fits, n_states, 1)
            parts = mean * profiles
            parts = parts / (parts.sum(1, keepdim=True) + OFFSET)
            return (parts.square() * self.cohort.variance).sum(1, keepdim=True)


def _robust_term(cohort: Cohort, gene_weights: Tensor) -> Callable[[Mixture, Tensor], Tensor]:
    noise = 1 / (cohort.cpm * cohort.millions + 1)
    observed = ((cohort.cpm + OFFSET).log(), noise, gene_weights, cohort.cpm.new_tensor(OFFSET))

    def term(mixture: Mixture, mixed: Tensor) -> Tensor:
        sd = mixture.log_sd["residual"]
        return robust_residual(mixed, mixture.shift, mixture.scale, sd, observed)

    return term


def _count_term(cohort: Cohort, gene_weights: Tensor) -> Callable[[Mixture, Tensor], Tensor]:
    counts = cohort.cpm * cohort.millions

    def term(mixture: Mixture, mixed: Tensor) -> Tensor:
        factor = (mixture.shift + mixture.scale).exp() * cohort.millions
        theta = (-2 * mixture.log_sd["residual"]).exp().expand_as(mixed)
        nb = NegativeBinomial(mu=mixed * factor + COUNT_FLOOR, theta=theta, validate_args=False)
        return -(gene_weights * nb.log_prob(counts)).sum()

    return term


TERMS = {"robust": _robust_term, "nb": _count_term}


def _array(tensor: Tensor) -> NDArray:
    return tensor.detach().double().cpu().numpy()
