"""Uncertainty of shares and fractions.

A bootstrap, widened by what cohorts simulated from the fit need; then the errors that are in real
bulks beyond what can be simulated from a fit, of a sample and of all samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from scovert.model.bulk._joint_fit import (
    OFFSET,
    REFIT_STEPS,
    Cohort,
    JointFit,
    fit_cohort,
    refit_cohort,
)
from scovert.model.bulk._residual import DF

__all__ = [
    "bootstrap",
    "find_multiplier",
    "simulate_cohort",
    "widen",
    "with_own_errors",
    "with_shared_errors",
]

TYPE_JITTER_SD = 0.28
"""Log sd of a gene's expression in a type between four studies of blood, beyond gene shifts."""
WEIGHT_JITTER_SD = 0.3
MAX_T = 5.0
N_BOOTSTRAP = 40
MOST_SIMULATED = 50
"""Samples of a simulated cohort; more would say no more."""
N_COHORTS, N_DRAWS_SIMULATED, STEPS_SIMULATED = 2, 20, 80
COVERAGE, QUANTILE = 0.9, 1.6449
FLOOR = 0.002
"""Added to shares before logarithms: below it, relative errors say little."""
N_FITS = N_BOOTSTRAP + N_COHORTS * N_DRAWS_SIMULATED
"""Fits that intervals take beyond the first."""
OWN_SD, OWN_MOVED_SD = 0.18, 0.005
"""Log sd of what is wrong with a type in one sample, and sd of the fraction of the sample's cells
that it has from other types, or gives to them: so that measured differences between samples of
blood are covered."""
SHARED_SD, SHARED_MOVED_SD = 0.4, 0.01
"""The same in all samples at once, so that measured fractions of blood are covered."""
MOST_ELEMENTS = 2_000_000
"""Of a matrix of fits x samples x genes, so that it stays in a core's cache or nearly so."""


def no_report(n_fits: int) -> None:
    """Say nothing of fits that were made."""


def bootstrap(
    cohort: Cohort,
    fit: JointFit,
    rng: np.random.Generator,
    *,
    n_draws: int = N_BOOTSTRAP,
    n_steps: int = REFIT_STEPS,
    on_fits: Callable[[int], object] = no_report,
) -> NDArray:
    """Fit again with random weights of genes and profiles drawn with their variance.

    Parameters
    ----------
    cohort, fit
        What was fitted, and the fit to start from; its standard deviations are kept.
    rng
        Source of the draws.
    n_draws, n_steps
        How many, and the steps of each.
    on_fits
        Called with the number of fits that were just made, for a progress bar.

    Returns
    -------
    Shares of the states, shape ``(n_draws, n_samples, n_states)``.
    """
    at_once = max(1, MOST_ELEMENTS // cohort.cpm.numel())
    parts = []
    for start in range(0, n_draws, at_once):
        n = min(at_once, n_draws - start)
        weights = rng.exponential(size=(n, 1, cohort.cpm.shape[1]))
        weights /= weights.mean(-1, keepdims=True)
        noise = rng.normal(size=(n, *cohort.profiles.shape))
        profiles = _redrawn(cohort, noise)
        tensor = cohort.cpm.new_tensor(weights)
        parts.append(refit_cohort(cohort, fit, profiles, tensor, n_steps=n_steps))
        on_fits(n)
    return np.concatenate(parts)


def _redrawn(cohort: Cohort, noise: NDArray) -> Tensor:
    """Return profiles with log-normal noise of their variance and their total."""
    sd = cohort.variance.sqrt()
    drawn = cohort.profiles * (cohort.cpm.new_tensor(noise) * sd).exp()
    return drawn * (cohort.profiles.sum(-1, keepdim=True) / drawn.sum(-1, keepdim=True))


def simulate_cohort(
    cohort: Cohort, fit: JointFit, state_type: NDArray, rng: np.random.Generator
) -> tuple[Cohort, NDArray]:
    """Simulate samples like those that were fitted, with known shares.

    Shares near the fitted ones; profiles with their variance and, by type, with the jitter that
    studies of the same types show; shifts and residuals of the fitted size; Poisson counts.

    Parameters
    ----------
    cohort, fit
        What was fitted, and the fit.
    state_type
        Type of every state.
    rng
        Source of everything random.

    Returns
    -------
    The cohort, and the shares of the states, shape ``(n_samples, n_states)``.
    """
    n_genes = cohort.cpm.shape[1]
    profiles, variance = (x.double().numpy() for x in (cohort.profiles, cohort.variance))
    jitter = rng.normal(0, TYPE_JITTER_SD, (state_type.max() + 1, n_genes))[state_type]
    profiles = profiles * np.exp(jitter + rng.normal(size=profiles.shape) * np.sqrt(variance))
    weights = fit.weights * np.exp(rng.normal(0, WEIGHT_JITTER_SD, fit.weights.shape))
    weights /= weights.sum(1, keepdims=True)
    shift = fit.shift_sd * _bounded_t(rng, n_genes)
    residual = fit.residual_sd * _bounded_t(rng, cohort.cpm.shape)
    mean = weights @ profiles * np.exp(shift)
    cpm = np.maximum((mean + OFFSET) * np.exp(residual) - OFFSET, 0)
    cpm = rng.poisson(cpm * cohort.millions) / cohort.millions
    like = cohort.cpm.new_tensor(cpm)
    return replace(cohort, cpm=like), weights


def _bounded_t(rng: np.random.Generator, size: int | tuple[int, ...]) -> NDArray:
    return np.clip(rng.standard_t(DF, size), -MAX_T, MAX_T)


def find_multiplier(
    cohort: Cohort,
    fit: JointFit,
    state_type: NDArray,
    sum_states: Callable[[NDArray], NDArray],
    rng: np.random.Generator,
    on_fits: Callable[[int], object] = no_report,
) -> float:
    """Return the factor by which errors exceed what the bootstrap says, on simulated cohorts.

    So that nine errors of ten, by the bootstrap's standard deviation of the log share, are as
    small as a normal distribution has them; 1 at least.

    Parameters
    ----------
    cohort, fit, state_type, rng
        As in :func:`simulate_cohort`.
    sum_states
        Sums shares of states over types.
    on_fits
        As in :func:`bootstrap`.
    """
    if len(fit.weights) > MOST_SIMULATED:
        some = rng.choice(len(fit.weights), MOST_SIMULATED, replace=False)
        cohort = replace(cohort, cpm=cohort.cpm[some])
        fit = replace(fit, weights=fit.weights[some])
    ratios = []
    for _ in range(N_COHORTS):
        simulated, truth = simulate_cohort(cohort, fit, state_type, rng)
        again = fit_cohort(simulated, likelihood=fit.likelihood)
        draws = bootstrap(
            simulated,
            again,
            rng,
            n_draws=N_DRAWS_SIMULATED,
            n_steps=STEPS_SIMULATED,
            on_fits=on_fits,
        )
        shares = (sum_states(x) for x in (truth, again.weights, draws))
        truth_log, found_log, draws_log = (np.log(x + FLOOR) for x in shares)
        ratios.append(np.abs(truth_log - found_log) / np.maximum(draws_log.std(0), 1e-3))
    return max(1.0, float(np.quantile(ratios, COVERAGE)) / QUANTILE)


def widen(draws: NDArray, centre: NDArray, factor: float) -> NDArray:
    """Spread draws of shares about their centre on the log scale; last axis sums to one."""
    log = np.log(centre + FLOOR)
    spread = log + factor * (np.log(draws + FLOOR) - log)
    shares = np.maximum(np.exp(spread) - FLOOR, 1e-7)
    return shares / shares.sum(-1, keepdims=True)


def with_own_errors(cells: NDArray, rng: np.random.Generator) -> NDArray:
    """Return draws of fractions of cells with the errors of every sample by itself.

    Parameters
    ----------
    cells
        Draws, shape ``(n_draws, n_samples, n_types)``.
    rng
        Source of the errors.
    """
    log_error = rng.normal(0, OWN_SD, cells.shape)
    return _disturbed(cells, log_error, rng.normal(0, OWN_MOVED_SD, cells.shape))


def with_shared_errors(cells: NDArray, groups: NDArray, rng: np.random.Generator) -> NDArray:
    """Return draws of fractions of cells with the errors that all samples share.

    Parameters
    ----------
    cells
        Draws, shape ``(n_draws, n_samples, n_types)``.
    groups
        Number of every type; those with the same number have the same log error.
    rng
        Source of the errors.
    """
    n_draws, _, n_types = cells.shape
    log_error = rng.normal(0, SHARED_SD, (n_draws, groups.max() + 1))[:, groups]
    moved = rng.normal(0, SHARED_MOVED_SD, (n_draws, 1, n_types))
    return _disturbed(cells, log_error[:, None], moved)


def _disturbed(cells: NDArray, log_error: NDArray, moved: NDArray) -> NDArray:
    cells = cells * np.exp(log_error)
    cells = np.maximum(cells / cells.sum(-1, keepdims=True) + moved, 0)
    return cells / cells.sum(-1, keepdims=True)
