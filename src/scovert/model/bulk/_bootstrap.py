"""Uncertainty of shares and fractions.

A bootstrap, widened by what cohorts simulated from the fit need; then the errors that are in real
bulks beyond what can be simulated from a fit, of a sample and of all samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from torch import Tensor

from scovert.model.bulk._budget import BulkBudget
from scovert.model.bulk._cohort import Cohort, JointFit
from scovert.model.bulk._joint_fit import fit_cohort, refit_cohort
from scovert.model.bulk._residual import DF
from scovert.model.bulk._signature import OFFSET, sum_states

__all__ = [
    "add_sample_errors",
    "add_shared_errors",
    "bootstrap",
    "coverage_multiplier",
    "draw_rna_fractions",
    "simulate_cohort",
    "widen",
]

FLOOR = 0.002
"""Added to shares before logarithms: below it, relative errors say little."""
MIN_LOG_SD = 1e-3
"""Least standard deviation of a log share that errors are compared with: less is rounding."""
MAX_ELEMENTS = 2_000_000
"""Of a matrix of fits x samples x genes, so that it stays in a core's cache or nearly so."""

# Simulated cohorts
TYPE_JITTER_SD = 0.28
"""Log sd of a gene's expression in a type between four studies of blood, beyond gene shifts."""
WEIGHT_JITTER_SD = 0.3
"""Log sd of the shares of states about the fitted ones: other samples, of the same kind."""
MAX_T = 5.0
"""Largest value of the t distributions that are drawn from, of which .7 % lie beyond."""
COVERAGE, QUANTILE = 0.9, 1.6449
"""Share of the simulated errors that widened draws cover, that of the usual intervals; and the
size below which as many standard normal errors are."""

# Errors of fractions of cells, with which measured fractions of blood are covered
SAMPLE_ERROR_SD, SAMPLE_TRANSFER_SD = 0.18, 0.005
"""Log sd of what is wrong with a type in one sample, and sd of the fraction of the sample's cells
that it has from other types, or gives to them."""
SHARED_ERROR_SD, SHARED_TRANSFER_SD = 0.4, 0.01
"""The same in all samples at once."""


def report_nothing(n_fits: int) -> None:
    """Say nothing of fits that were made."""


def draw_rna_fractions(
    cohort: Cohort,
    fit: JointFit,
    state_type: NDArray,
    rng: np.random.Generator,
    *,
    n_draws: int,
    budget: BulkBudget,
    on_fits: Callable[[int], object] = report_nothing,
) -> tuple[NDArray, float]:
    """Draw fractions of RNA by type, as uncertain as simulated cohorts say.

    Parameters
    ----------
    cohort, fit, state_type, rng
        As in :func:`simulate_cohort`.
    n_draws
        Draws, with replacement from those of the bootstrap.
    budget
        Numbers of fits and steps.
    on_fits
        As in :func:`bootstrap`.

    Returns
    -------
    Draws of shape ``(n_draws, n_samples, n_types)``, and their multiplier.
    """
    sizes = {"n_draws": budget.n_bootstrap, "n_steps": budget.n_bootstrap_steps}
    draws = sum_states(bootstrap(cohort, fit, rng, **sizes, on_fits=on_fits), state_type)
    multiplier = coverage_multiplier(cohort, fit, state_type, rng, budget=budget, on_fits=on_fits)
    chosen = draws[rng.integers(0, len(draws), n_draws)]
    return widen(chosen, sum_states(fit.weights, state_type), multiplier), multiplier


def bootstrap(
    cohort: Cohort,
    fit: JointFit,
    rng: np.random.Generator,
    *,
    n_draws: int = BulkBudget.n_bootstrap,
    n_steps: int = BulkBudget.n_bootstrap_steps,
    max_elements: int = MAX_ELEMENTS,
    on_fits: Callable[[int], object] = report_nothing,
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
    max_elements
        Most numbers of a matrix of fits x samples x genes: how many fits are made at once.
    on_fits
        Called with the number of fits that were just made, for a progress bar.

    Returns
    -------
    Shares of the states, shape ``(n_draws, n_samples, n_states)``.
    """
    parts = []
    for block in gen_batches(n_draws, max(1, max_elements // cohort.cpm.numel())):
        n = block.stop - block.start
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
    cohort: Cohort,
    fit: JointFit,
    state_type: NDArray,
    rng: np.random.Generator,
    *,
    type_jitter_sd: float = TYPE_JITTER_SD,
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
    type_jitter_sd
        Log sd of a gene's expression in a type.

    Returns
    -------
    The cohort, and the shares of the states, shape ``(n_samples, n_states)``.
    """
    n_genes = cohort.cpm.shape[1]
    profiles, variance = (x.double().numpy() for x in (cohort.profiles, cohort.variance))
    jitter = rng.normal(0, type_jitter_sd, (state_type.max() + 1, n_genes))[state_type]
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


def coverage_multiplier(
    cohort: Cohort,
    fit: JointFit,
    state_type: NDArray,
    rng: np.random.Generator,
    *,
    budget: BulkBudget | None = None,
    type_jitter_sd: float = TYPE_JITTER_SD,
    on_fits: Callable[[int], object] = report_nothing,
) -> float:
    """Return the factor by which errors exceed what the bootstrap says, on simulated cohorts.

    So that nine errors of ten, by the bootstrap's standard deviation of the log share, are as
    small as a normal distribution has them; 1 at least.

    Parameters
    ----------
    cohort, fit, state_type, rng, type_jitter_sd
        As in :func:`simulate_cohort`.
    budget
        Numbers of cohorts, samples, fits and steps.
    on_fits
        As in :func:`bootstrap`.
    """
    budget = budget or BulkBudget()
    if len(fit.weights) > budget.n_cohort_samples:
        some = rng.choice(len(fit.weights), budget.n_cohort_samples, replace=False)
        cohort = replace(cohort, cpm=cohort.cpm[some])
        fit = replace(fit, weights=fit.weights[some])
    sizes = {"n_draws": budget.n_cohort_bootstrap, "n_steps": budget.n_cohort_bootstrap_steps}
    ratios = []
    for _ in range(budget.n_cohorts):
        simulated, truth = simulate_cohort(
            cohort, fit, state_type, rng, type_jitter_sd=type_jitter_sd
        )
        again = fit_cohort(simulated, likelihood=fit.likelihood, n_steps=budget.n_steps)
        draws = bootstrap(simulated, again, rng, **sizes, on_fits=on_fits)
        shares = (sum_states(x, state_type) for x in (truth, again.weights, draws))
        truth_log, found_log, draws_log = (np.log(x + FLOOR) for x in shares)
        ratios.append(np.abs(truth_log - found_log) / np.maximum(draws_log.std(0), MIN_LOG_SD))
    return max(1.0, float(np.quantile(ratios, COVERAGE)) / QUANTILE)


def widen(draws: NDArray, centre: NDArray, factor: float) -> NDArray:
    """Spread draws of shares about their centre on the log scale; last axis sums to one."""
    log = np.log(centre + FLOOR)
    spread = log + factor * (np.log(draws + FLOOR) - log)
    shares = np.maximum(np.exp(spread) - FLOOR, 1e-7)  # none is zero: it is divided by their sum
    return shares / shares.sum(-1, keepdims=True)


def add_sample_errors(cells: NDArray, rng: np.random.Generator) -> NDArray:
    """Return draws of fractions of cells with the errors of every sample by itself.

    Parameters
    ----------
    cells
        Draws, shape ``(n_draws, n_samples, n_types)``.
    rng
        Source of the errors.
    """
    log_error = rng.normal(0, SAMPLE_ERROR_SD, cells.shape)
    return _with_errors(cells, log_error, rng.normal(0, SAMPLE_TRANSFER_SD, cells.shape))


def add_shared_errors(cells: NDArray, groups: NDArray, rng: np.random.Generator) -> NDArray:
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
    log_error = rng.normal(0, SHARED_ERROR_SD, (n_draws, groups.max() + 1))[:, groups]
    transfer = rng.normal(0, SHARED_TRANSFER_SD, (n_draws, 1, n_types))
    return _with_errors(cells, log_error[:, None], transfer)


def _with_errors(cells: NDArray, log_error: NDArray, transfer: NDArray) -> NDArray:
    cells = cells * np.exp(log_error)
    cells = np.maximum(cells / cells.sum(-1, keepdims=True) + transfer, 0)
    return cells / cells.sum(-1, keepdims=True)
