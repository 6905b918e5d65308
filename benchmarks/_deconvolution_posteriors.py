"""Two more ways to the sampling error of shares: a Laplace approximation, and a Pyro posterior.

Both are of the density that `scovert.mixing` maximises, in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from pyro.infer import SVI, JitTrace_ELBO, Predictive
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal, init_to_value
from torch import Tensor
from torch.func import grad, hessian, jacfwd, vmap

from scovert.mixing import Cohort, JointFit
from scovert.mixing._joint import MEAN_SD, OFFSET, PRIOR_SD, SCALE_SD, SPREAD_RANGE
from scovert.mixing._residual import DF

__all__ = ["GUIDES", "laplace", "variational"]

N_DRAWS = 600
N_ITERATIONS = 200  # of L-BFGS, towards the mode
LEAST_CURVATURE = 0.01  # of a direction: a standard deviation of 10 logits
LEAST_OF_SHIFT = 0.2  # of what a normal prior of a gene's shift has
STEPS_IN_BLOCK, MOST_BLOCKS = 2000, 6
RATE, START_SD, RANK = 0.01, 0.1, 40
GUIDES = {
    "mean-field": AutoNormal,
    "low rank": lambda *args, **kwargs: AutoLowRankMultivariateNormal(*args, rank=RANK, **kwargs),
}


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


def laplace(
    cohort: Cohort, fit: JointFit, rng: np.random.Generator, *, at_mode: bool = False
) -> tuple[NDArray, dict]:
    """Draw shares from the normal approximation of the logits, shifts integrated out.

    Parameters
    ----------
    cohort, fit
        What was fitted, and the fit; its standard deviations are kept.
    rng
        Source of the draws.
    at_mode
        Go on from the fit to the mode, where logits of states with next to no cells have run off
        to where the density is flat.

    Returns
    -------
    Shares of the states, shape ``(n_draws, n_samples, n_states)``; the number of parameters, and
    the least curvature.
    """
    density = Density.of(cohort, fit)
    position, shift = torch.cat([density.logits, density.scale], 1), density.shift
    if at_mode:
        position, shift = to_mode(density)
    curvature, axes = torch.linalg.eigh(marginal_curvature(density, position, shift))
    noise = torch.as_tensor(rng.normal(size=(N_DRAWS, len(curvature))))
    moved = (noise / curvature.clamp(min=LEAST_CURVATURE).sqrt()) @ axes.T
    moved = moved[:, : position.numel()].reshape(N_DRAWS, *position.shape)
    shares = torch.softmax((position + moved)[..., :-1], -1)
    return shares.numpy(), {"n_parameters": len(curvature), "least": float(curvature[0])}


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
    (n_samples, n_own), n_states = position.shape, len(density.profiles)
    size = n_samples * n_own
    each = (position, shift, density.log_y, density.noise)
    axes = (0, None, 0, 0)
    own = vmap(hessian(density.of_sample), axes)(*each)  # (n_samples, n_own, n_own)
    by_shift = grad(density.of_sample, 1)
    cross = vmap(jacfwd(by_shift), axes)(*each)  # (n_samples, n_genes, n_own)
    cross = cross.movedim(1, 2).reshape(size, -1)
    # A gene's shift meets no other gene's, so the row sums are the diagonal.
    shifts = grad(lambda s: vmap(by_shift, axes)(position, s, *each[2:]).sum())(shift)
    variance = density.shift_variance
    shifts = shifts + grad(lambda s: grad(lambda t: t_loss(t, variance).sum())(s).sum())(shift)
    shifts = torch.maximum(shifts, LEAST_OF_SHIFT * (DF + 1) / DF / variance)
    total = position.new_zeros(size + n_states, size + n_states)
    total[:size, :size] = torch.block_diag(*own) - (cross / shifts) @ cross.T
    return total + prior_curvature(density.sds["spread"], n_samples, n_states).to(total)


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


def variational(
    cohort: Cohort, fit: JointFit, guide: str, seed: int
) -> tuple[NDArray, dict[str, float]]:
    """Draw shares from a normal distribution fitted to the posterior of everything.

    Parameters
    ----------
    cohort, fit
        What was fitted, and the fit, where the means begin.
    guide
        Name in `GUIDES`.
    seed
        Of steps and draws.

    Returns
    -------
    Shares of the states, shape ``(n_draws, n_samples, n_states)``; the number of steps, and what
    the last block gained.
    """
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    density = Density.of(cohort, fit)
    sites = {name: getattr(density, name) for name in ("logits", "mean", "scale", "shift")}
    sites |= {f"{name}_sd": torch.tensor(sd).double() for name, sd in density.sds.items()}
    start = init_to_value(values=sites)
    guide = GUIDES[guide](posterior_of(density), init_loc_fn=start, init_scale=START_SD)
    descent = SVI(posterior_of(density), guide, pyro.optim.Adam({"lr": RATE}), JitTrace_ELBO())
    facts = until_level(descent)
    logits = Predictive(guide, num_samples=N_DRAWS)()["logits"]
    return torch.softmax(logits.detach(), -1).numpy(), facts


def posterior_of(density: Density):
    """Model of Pyro with the density of the fit, its standard deviations being free."""

    def model() -> None:
        sd = {
            name: pyro.sample(f"{name}_sd", dist.LogNormal(torch.tensor(math.log(a)).double(), b))
            for name, (a, b) in PRIOR_SD.items()
        }
        zeros = torch.zeros_like
        mean = pyro.sample("mean", dist.Normal(zeros(density.mean), MEAN_SD).to_event(1))
        spread = sd["spread"].clamp(*SPREAD_RANGE)
        logits = dist.Normal(mean.expand_as(density.logits), spread)
        logits = pyro.sample("logits", logits.to_event(2))
        scale = pyro.sample("scale", dist.Normal(zeros(density.scale), SCALE_SD).to_event(2))
        shift_sd = (sd["shift"].square() + density.profile_variance).sqrt()
        shift = dist.StudentT(DF, zeros(density.shift), shift_sd).to_event(1)
        shift = pyro.sample("shift", shift)
        mixed = torch.softmax(logits, -1) @ density.profiles
        centre = (mixed * (shift + scale).exp() + OFFSET).log()
        variance = sd["residual"].square() + density.noise
        # As StudentT, which computes a gamma function of every entry at every step.
        pyro.factor("y", -t_loss(density.log_y - centre, variance).sum())

    return model


def until_level(descent: SVI) -> dict[str, float]:
    """Step until the mean loss of a block is that of the one before, by its standard error."""
    n_steps, before = 0, np.inf
    for _ in range(MOST_BLOCKS):
        losses = np.array([descent.step() for _ in range(STEPS_IN_BLOCK)])
        n_steps += len(losses)
        gain, before = before - losses.mean(), losses.mean()
        if gain < 2 * losses.std() / math.sqrt(STEPS_IN_BLOCK / 2):
            break
    return {"n_steps": n_steps, "last_gain": float(gain)}
