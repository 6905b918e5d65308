"""Laplace approximations of the posterior of the shares, in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, hessian, jacfwd, vmap

from scovert.model.bulk._bootstrap import FLOOR
from scovert.model.bulk._cohort import Cohort, JointFit
from scovert.model.bulk._joint_fit import MEAN_SD, SCALE_SD
from scovert.model.bulk._residual import DF
from scovert.model.bulk._signature import OFFSET

__all__ = ["Density", "laplace", "laplace_at_mode", "t_loss"]

N_DRAWS = 600
N_ITERATIONS = 200  # of L-BFGS, towards the mode
LEAST_CURVATURE = 0.01  # of a direction: a standard deviation of 10 logits
LEAST_OF_SHIFT = 0.2  # of what a normal prior of a gene's shift has


@dataclass(frozen=True)
class Density:
    """What the density of a cohort's mixture is made of, in double precision.

    Attributes
    ----------
    log_y, noise
        Logarithms with the offset and their sampling variance, shape ``(n_samples, n_genes)``.
    profiles
        Shape ``(n_states, n_genes)``.
    profile_variance
        That of the mean mixture's logarithm, as fitted, shape ``(n_genes,)``.
    logits, mean, scale, shift
        Where the fit ended.
    sds
        Standard deviations of shifts, residuals and logits, as fitted.
    """

    log_y: Tensor
    noise: Tensor
    profiles: Tensor
    profile_variance: Tensor
    logits: Tensor
    mean: Tensor
    scale: Tensor
    shift: Tensor
    sds: dict[str, float]

    @classmethod
    def of(cls, cohort: Cohort, fit: JointFit) -> Density:
        cpm, profiles, variance = (
            x.double() for x in (cohort.cpm, cohort.profiles, cohort.variance)
        )
        weights, scale, shift = map(torch.as_tensor, (fit.weights, fit.scale, fit.shift))
        parts = weights.mean(0)[:, None] * profiles
        parts = parts / (parts.sum(0) + OFFSET)
        logits = (weights + 1e-5).log()
        logits = logits - logits.mean(1, keepdim=True)
        # The mean of the logits is not kept; this is its most probable value.
        mean = logits.sum(0) / (len(logits) + (fit.spread / MEAN_SD) ** 2)
        return cls(
            log_y=(cpm + OFFSET).log(),
            noise=1 / (cpm * cohort.millions + 1),
            profiles=profiles,
            profile_variance=(parts.square() * variance).sum(0),
            logits=logits,
            mean=mean,
            scale=scale[:, None],
            shift=shift,
            sds={"shift": fit.shift_sd, "residual": fit.residual_sd, "spread": fit.spread},
        )

    @property
    def shift_variance(self) -> Tensor:
        return self.sds["shift"] ** 2 + self.profile_variance

    def of_sample(self, position: Tensor, shift: Tensor, log_y: Tensor, noise: Tensor) -> Tensor:
        """Negative log-likelihood of one sample, its logits and last its scale being given."""
        mixed = torch.softmax(position[:-1], 0) @ self.profiles
        residual = log_y - (mixed * (shift + position[-1]).exp() + OFFSET).log()
        return t_loss(residual, self.sds["residual"] ** 2 + noise).sum()

    def loss(self, position: Tensor, mean: Tensor, shift: Tensor) -> Tensor:
        """Negative log posterior, standard deviations being given."""
        samples = vmap(self.of_sample, (0, None, 0, 0))
        total = samples(position, shift, self.log_y, self.noise).sum()
        deviation = (position[:, :-1] - mean) / self.sds["spread"]
        total = total + t_loss(shift, self.shift_variance).sum() + deviation.square().sum() / 2
        total = total + (mean / MEAN_SD).square().sum() / 2
        return total + (position[:, -1] / SCALE_SD).square().sum() / 2


def t_loss(x: Tensor, variance: Tensor) -> Tensor:
    return (DF + 1) / 2 * torch.log1p(x.square() / (DF * variance)) + variance.log() / 2


def laplace(cohort: Cohort, fit: JointFit, rng: np.random.Generator) -> tuple[NDArray, dict]:
    """Draw shares from the normal approximation with the expected information at the fit.

    To first order, on the scale of `widen`: a share near zero with a logit of which little is
    known stays small.

    Parameters
    ----------
    cohort, fit
        What was fitted, and the fit; its standard deviations are kept.
    rng
        Source of the draws.

    Returns
    -------
    Shares of the states, shape ``(n_draws, n_samples, n_states)``; the number of parameters, and
    the least curvature.
    """
    density = Density.of(cohort, fit)
    moved, facts = moves(information(density), len(density.scale), rng)
    shares = torch.softmax(density.logits, -1)
    change = shares * (moved - (shares * moved).sum(-1, keepdim=True))
    log = (shares + FLOOR).log() + change / (shares + FLOOR)
    shares = (log.exp() - FLOOR).clamp(min=1e-7)
    return (shares / shares.sum(-1, keepdim=True)).numpy(), facts


def laplace_at_mode(
    cohort: Cohort, fit: JointFit, rng: np.random.Generator
) -> tuple[NDArray, dict]:
    """Draw shares as `laplace`, of logits, with the Hessian at the mode, where it is flatter."""
    density = Density.of(cohort, fit)
    position, shift = to_mode(density)
    moved, facts = moves(marginal_curvature(density, position, shift), len(position), rng)
    return torch.softmax(position[:, :-1] + moved, -1).numpy(), facts


def moves(precision: Tensor, n_samples: int, rng: np.random.Generator) -> tuple[Tensor, dict]:
    """Draw deviations of the logits, shape ``(n_draws, n_samples, n_states)``."""
    curvature, axes = torch.linalg.eigh(precision)
    noise = torch.as_tensor(rng.normal(size=(N_DRAWS, len(curvature))))
    moved = (noise / curvature.clamp(min=LEAST_CURVATURE).sqrt()) @ axes.T
    n_states = (len(curvature) - n_samples) // (n_samples + 1)
    moved = moved[:, :-n_states].reshape(N_DRAWS, n_samples, n_states + 1)
    return moved[..., :-1], {"n_parameters": len(curvature), "least": float(curvature[0])}


def information(density: Density) -> Tensor:
    """Return the expected information on logits, scales and mean logits, shifts integrated out.

    A t distribution of `DF` degrees of freedom tells (DF + 1) / (DF + 3) of what a normal one
    does of its centre.
    """
    shares = torch.softmax(density.logits, -1)
    mixed = shares @ density.profiles
    parts = shares[:, None] * (density.profiles.T / mixed[..., None] - 1)
    slopes = torch.cat([parts, torch.ones_like(parts[..., :1])], -1)  # of the log of the mixture
    mean = mixed * (density.shift + density.scale).exp()
    told = (DF + 1) / (DF + 3)
    weights = told * (mean / (mean + OFFSET)).square()
    weights = weights / (density.sds["residual"] ** 2 + density.noise)
    weighted = slopes * weights[..., None]
    shifts = weights.sum(0) + told / density.shift_variance
    return without_shifts(weighted.mT @ slopes, weighted, shifts, density)


def without_shifts(own: Tensor, cross: Tensor, shifts: Tensor, density: Density) -> Tensor:
    """Join the curvature of samples, less what the shifts can take up, with that of the priors.

    Parameters
    ----------
    own
        Of each sample's logits and scale, shape ``(n_samples, n_own, n_own)``.
    cross
        With the shifts, shape ``(n_samples, n_genes, n_own)``.
    shifts
        Of the shifts, shape ``(n_genes,)``.
    density
        With the priors.
    """
    n_samples, n_states = density.logits.shape
    cross = cross.mT.reshape(-1, len(shifts))
    total = prior_curvature(density.sds["spread"], n_samples, n_states).to(own)
    size = len(cross)
    total[:size, :size] += torch.block_diag(*own) - (cross / shifts) @ cross.T
    return total


def to_mode(density: Density) -> tuple[Tensor, Tensor]:
    """Logits and scale of every sample, and shifts, at the mode."""
    start = torch.cat([density.logits, density.scale], 1), density.mean, density.shift
    free = [x.clone().requires_grad_() for x in start]
    descent = torch.optim.LBFGS(free, max_iter=N_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        loss = density.loss(*free)
        loss.backward()
        return loss

    descent.step(closure)
    return free[0].detach(), free[2].detach()


def marginal_curvature(density: Density, position: Tensor, shift: Tensor) -> Tensor:
    """Hessian over logits, scales and mean of the logits, less what the shifts can take up."""
    each, axes = (position, shift, density.log_y, density.noise), (0, None, 0, 0)
    own = vmap(hessian(density.of_sample), axes)(*each)
    by_shift = grad(density.of_sample, 1)
    cross = vmap(jacfwd(by_shift), axes)(*each)
    # A gene's shift meets no other gene's, so the row sums are the diagonal.
    shifts = grad(lambda s: vmap(by_shift, axes)(position, s, *each[2:]).sum())(shift)
    variance = density.shift_variance
    shifts = shifts + grad(lambda s: grad(lambda t: t_loss(t, variance).sum())(s).sum())(shift)
    least = LEAST_OF_SHIFT * (DF + 1) / DF / variance
    return without_shifts(own, cross, torch.maximum(shifts, least), density)


def prior_curvature(spread: float, n_samples: int, n_states: int) -> Tensor:
    n_own = n_states + 1
    precision = torch.cat([torch.full((n_states,), spread**-2), torch.tensor([SCALE_SD**-2])])
    ends = torch.full((n_states,), n_samples / spread**2 + MEAN_SD**-2)
    total = torch.diag(torch.cat([precision.repeat(n_samples), ends]))
    across = torch.cat([torch.eye(n_states), torch.zeros(1, n_states)]) / spread**2
    size = n_samples * n_own
    total[:size, size:] = -across.repeat(n_samples, 1)
    total[size:, :size] = total[:size, size:].T
    return total
