"""Ways to the sampling error of fractions, with the rest of the chain shared: their intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scvi
from numpy.typing import NDArray

from benchmarks.bulk.laplace import laplace, laplace_at_mode
from benchmarks.bulk.ours import trained
from benchmarks.bulk.scenarios import case_of
from benchmarks.bulk.scores import LEVELS, between_samples, interval_scores
from benchmarks.bulk.sets import Case
from benchmarks.bulk.variational import variational
from benchmarks.processes import costs_of
from scovert.model.bulk._bootstrap import (
    COVERAGE,
    FLOOR,
    MIN_LOG_SD,
    QUANTILE,
    add_sample_errors,
    add_shared_errors,
    bootstrap,
    coverage_multiplier,
    simulate_cohort,
    widen,
)
from scovert.model.bulk._budget import BulkBudget
from scovert.model.bulk._cohort import Cohort, JointFit
from scovert.model.bulk._deconvolve import N_DRAWS
from scovert.model.bulk._joint_fit import fit_cohort
from scovert.model.bulk._rna_per_cell import RnaPerCell
from scovert.model.bulk._samples import Samples
from scovert.model.bulk._signature import sum_states

__all__ = ["score_sampling"]

Sampler = Callable[[Cohort, JointFit, np.random.Generator], tuple[NDArray, dict]]


@dataclass(frozen=True)
class Start:
    """A fit, from which all ways begin."""

    cohort: Cohort
    fit: JointFit
    types: list[str]
    state_type: NDArray
    rna_per_cell: RnaPerCell

    def by_type(self, weights: NDArray) -> NDArray:
        return sum_states(weights, self.state_type)


def start_of(case: Case) -> Start:
    """Fit as ``deconvolve`` does."""
    model = trained(case)
    (signature,) = model._signatures.values()
    samples = Samples.read(case.bulk, None, case.kind, model._gene_names)
    profiles, cpm, millions = samples.shared_with(signature, model.n_genes_per_type)
    cohort = Cohort.of_profiles(profiles, cpm, millions)
    rna_per_cell = RnaPerCell.choose(profiles, signature.n_cells, case.cell_size)
    types = list(profiles.types)
    return Start(cohort, fit_cohort(cohort), types, profiles.state_type, rna_per_cell)


def by_bootstrap(cohort: Cohort, fit: JointFit, rng: np.random.Generator) -> tuple[NDArray, dict]:
    draws = bootstrap(cohort, fit, rng)
    return draws[rng.integers(0, len(draws), N_DRAWS)], {}


def by_guide(
    cohort: Cohort, fit: JointFit, rng: np.random.Generator, *, guide: str
) -> tuple[NDArray, dict]:
    return variational(cohort, fit, guide, int(rng.integers(2**31)))


SAMPLERS: dict[str, Sampler] = {
    "bootstrap": by_bootstrap,
    "Laplace": laplace,
    "Laplace at the mode": laplace_at_mode,
    "Pyro mean-field": partial(by_guide, guide="mean-field"),
    "Pyro low rank": partial(by_guide, guide="low rank"),
}


def score_sampling(scenario: str, method: str, seed: int) -> dict:
    """Score the intervals of a way, with and without the errors of samples and of all of them.

    The seconds are those of the draws, without the fit that they begin with.
    """
    case = case_of(scenario, seed)
    scvi.settings.seed = seed
    start, rng = start_of(case), np.random.default_rng(seed)
    name, _, rest = method.partition(" x ")
    (rna, facts), costs = costs_of(partial(draws_of, start, name, bool(rest), rng))
    relative = start.rna_per_cell.to_cells(rna)
    with_own = add_sample_errors(relative, rng)
    absolute = add_shared_errors(with_own, start.rna_per_cell.error_groups, rng)
    found = {f"relative_{k}": v for k, v in scores_of(relative, start, case).items()}
    log_sd = np.log(rna + FLOOR).std(0)
    return {
        **costs,
        **found,
        **scores_of(absolute, start, case),
        **facts,
        "log_sd": float(np.median(log_sd)),
    }


def scores_of(draws: NDArray, start: Start, case: Case) -> dict[str, float]:
    """Scores of the intervals of fractions, and of their log ratios to the mean of the samples."""
    columns = [[start.types.index(t) for t in types] for types in case.groups.values()]
    by_group = np.stack([draws[..., c].sum(-1) for c in columns], -1)
    truth = case.truth.to_numpy()
    found = interval_scores(*np.quantile(by_group, LEVELS, axis=0), truth)
    limits = np.quantile(between_samples(by_group), LEVELS, axis=0)
    ratios = interval_scores(*limits, between_samples(truth))
    return found | {f"ratio_{name}": value for name, value in ratios.items()}


def draws_of(
    start: Start, name: str, is_widened: bool, rng: np.random.Generator
) -> tuple[NDArray, dict]:
    """Draws of fractions of RNA by type, and facts of how they were made."""
    draws, facts = SAMPLERS[name](start.cohort, start.fit, rng)
    rna = start.by_type(draws)
    if not is_widened:
        return rna, facts
    if name == "bootstrap":
        factor = coverage_multiplier(start.cohort, start.fit, start.state_type, rng)
    else:
        factor = multiplier_of(SAMPLERS[name], start, rng)
    centre = start.by_type(start.fit.weights)
    return widen(rna, centre, factor), facts | {"factor": factor}


def multiplier_of(sampler: Sampler, start: Start, rng: np.random.Generator) -> float:
    """Factor by which errors exceed what the draws say, by the rule of `coverage_multiplier`."""
    ratios = []
    for _ in range(BulkBudget.n_cohorts):
        simulated, truth = simulate_cohort(start.cohort, start.fit, start.state_type, rng)
        again = fit_cohort(simulated)
        draws, _ = sampler(simulated, again, rng)
        logs = (np.log(start.by_type(x) + FLOOR) for x in (truth, again.weights, draws))
        truth_log, found_log, draws_log = logs
        ratios.append(np.abs(truth_log - found_log) / np.maximum(draws_log.std(0), MIN_LOG_SD))
    return max(1.0, float(np.quantile(ratios, COVERAGE)) / QUANTILE)
