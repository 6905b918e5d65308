"""A Pyro posterior of the shares: a normal distribution fitted to the density of the fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from pyro.infer import SVI, JitTrace_ELBO, Predictive
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal, init_to_value

from benchmarks.bulk.laplace import N_DRAWS, Density, t_loss
from scovert.model.bulk._cohort import Cohort, JointFit
from scovert.model.bulk._joint_fit import MEAN_SD, PRIOR_SD, SCALE_SD, SPREAD_RANGE
from scovert.model.bulk._residual import DF
from scovert.model.bulk._signature import OFFSET

__all__ = ["GUIDES", "variational"]

N_STEPS, N_LAST = 6000, 1000
FIRST_RATE, LAST_RATE = 0.03, 0.003
START_SD, RANK = 0.1, 40
GUIDES = {
    "mean-field": AutoNormal,
    "low rank": lambda *args, **kwargs: AutoLowRankMultivariateNormal(*args, rank=RANK, **kwargs),
}


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
    Shares of the states, shape ``(n_draws, n_samples, n_states)``; the mean loss of the
    last steps, what they gained on those before, and the standard error of that.
    """
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    density = Density.of(cohort, fit)
    sites = {name: getattr(density, name) for name in ("logits", "mean", "scale", "shift")}
    sites |= {f"{name}_sd": torch.tensor(sd).double() for name, sd in density.sds.items()}
    start = init_to_value(values=sites)
    guide = GUIDES[guide](posterior_of(density), init_loc_fn=start, init_scale=START_SD)
    falls = (LAST_RATE / FIRST_RATE) ** (1 / N_STEPS)
    adam = pyro.optim.ClippedAdam({"lr": FIRST_RATE, "lrd": falls, "clip_norm": math.inf})
    facts = descend(SVI(posterior_of(density), guide, adam, JitTrace_ELBO()))
    logits = Predictive(guide, num_samples=N_DRAWS)()["logits"]
    return torch.softmax(logits.detach(), -1).numpy(), facts


def posterior_of(density: Density) -> Callable[[], None]:
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


def descend(descent: SVI) -> dict[str, float]:
    """Step at a falling rate, and see whether the last steps still lowered the mean loss."""
    losses = np.array([descent.step() for _ in range(N_STEPS)])
    before, last = losses[-2 * N_LAST : -N_LAST], losses[-N_LAST:]
    error = math.hypot(before.std(), last.std()) / math.sqrt(N_LAST)
    gain = before.mean() - last.mean()
    return {"loss": float(last.mean()), "last_gain": gain, "error_of_gain": error}
