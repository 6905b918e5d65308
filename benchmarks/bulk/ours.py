"""BulkDeconvolution in its variants, one fit or the average of several references."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import scvi
from numpy.typing import NDArray

from benchmarks.bulk.expression import ARMS, response_scores
from benchmarks.bulk.scenarios import AVERAGES, OURS, SCENARIOS, case_of
from benchmarks.bulk.scores import (
    LEVELS,
    after_measured,
    between_samples,
    errors,
    grouped,
    interval_scores,
)
from benchmarks.bulk.sets import Case
from benchmarks.processes import costs_of
from scovert.model import BulkDeconvolution, BulkResult

__all__ = ["score_average", "score_own", "score_response"]

KEPT = ("n_informative_genes", "shift_sd", "residual_sd", "multiplier")
MIN_CELLS = 5  # of a type: the rarest has 7 in a half of the cells
OTHER = "other"  # types that are in no group


class Fit(NamedTuple):
    """A result, and CPU seconds and memory of the model and of it."""

    result: BulkResult
    costs: dict[str, float]


def options_of(method: str) -> tuple[dict, dict]:
    """Arguments of the model and of ``deconvolve``."""
    of_model, of_bulk = {}, {}
    for word in method.split(", ")[1:]:  # after "joint"
        if word == "unknown":
            of_bulk["unknown"] = True
        else:
            of_model["n_genes_per_type"] = int(word.split()[0])
            of_bulk["interval"] = None
    if method == "network":
        of_bulk["method"] = "network"
    if method == "prototype VAE":
        of_model["signature"] = "prototype_vae"
    return of_model, of_bulk


@lru_cache(maxsize=128)
def fitted(scenario: str, method: str, seed: int) -> Fit:
    """Train and deconvolve once for all that look at it."""
    case, (of_model, of_bulk) = case_of(scenario, seed), options_of(method)
    scvi.settings.seed = seed
    return Fit(*costs_of(lambda: deconvolved(trained(case, **of_model), case, **of_bulk)))


def trained(case: Case, **options: object) -> BulkDeconvolution:
    reference = case.reference.copy()
    subject_key = "subject" if case.has_subjects else None
    BulkDeconvolution.setup_anndata(reference, "cell_type", subject_key=subject_key)
    model = BulkDeconvolution(reference, min_cells_per_type=MIN_CELLS, **options)
    model.train()
    return model


def deconvolved(model: BulkDeconvolution, case: Case, **options: object) -> BulkResult:
    return model.deconvolve(case.bulk, kind=case.kind, cell_size=case.cell_size, **options)


def score_own(scenario: str, method: str, seed: int) -> dict:
    """Fit and score a variant."""
    case, (result, costs) = case_of(scenario, seed), fitted(scenario, method, seed)
    found = costs | errors(grouped(result.proportions, case.groups), case.truth)
    if result.draws is not None:
        draws = by_group(result.draws, result, case.groups)
        truth = case.truth.to_numpy()
        found |= interval_scores(*np.quantile(draws, LEVELS, axis=0), truth)
        relative = between_samples(by_group(result.relative_draws, result, case.groups))
        limits = np.quantile(relative, LEVELS, axis=0)
        found["between"] = interval_scores(*limits, between_samples(truth))["coverage"]
    if SCENARIOS[scenario].part == "blood":
        found |= after_measured(result.proportions, result.draws, case.truth, case.groups)
    quality = result.quality.attrs
    return found | {k: float(quality[k]) for k in KEPT if quality.get(k) is not None}


def by_group(
    draws: NDArray | None, result: BulkResult, groups: dict[str, list[str]]
) -> NDArray | None:
    """Sum the draws of the types of each group: draws x samples x groups."""
    if draws is None:
        return None
    columns = [result.proportions.columns.get_indexer(types) for types in groups.values()]
    return np.stack([draws[..., c].sum(-1) for c in columns], -1)


def score_average(name: str, seed: int) -> dict:
    """Average the fits of several references, each with its own names of the types."""
    members = AVERAGES[name]
    cases = [case_of(member, seed) for member in members]
    truth = max((case.truth for case in cases), key=lambda table: table.shape[1])
    fits = [fitted(member, OURS[0], seed) for member in members]
    results = [in_groups(f.result, c, list(truth)) for f, c in zip(fits, cases, strict=True)]
    single = [
        errors(grouped(f.result.proportions, c.groups), c.truth)["rmse"]
        for f, c in zip(fits, cases, strict=True)
    ]
    average = BulkResult.average(results)
    found = errors(average.proportions[list(truth)], truth) | {"rmse_single": np.mean(single)}
    if average.draws is not None:
        rows = [list(average.proportions).index(t) for t in truth]
        limits = np.quantile(average.draws[..., rows], LEVELS, axis=0)
        found |= interval_scores(*limits, truth.to_numpy())
    disagreement = average.quality["disagreement"]
    return found | {"disagreement": float(disagreement.mean())}


def in_groups(result: BulkResult, case: Case, order: list[str]) -> BulkResult:
    """Sum the types of each group, and the others, so that results can be averaged by name."""
    groups = {k: case.groups[k] for k in order if k in case.groups}
    rest = [t for t in result.proportions if t not in sum(groups.values(), [])]
    groups |= {OTHER: rest} if rest else {}
    sizes = {k: result.cell_sizes[types].mean() for k, types in groups.items()}
    return replace(
        result,
        proportions=grouped(result.proportions, groups),
        mrna_fractions=grouped(result.mrna_fractions, groups),
        cell_sizes=pd.Series(sizes),
        draws=by_group(result.draws, result, groups),
        relative_draws=by_group(result.relative_draws, result, groups),
    )


def score_response(scenario: str, seed: int) -> dict:
    """Expression of each type by condition, against the cells that were mixed."""
    case = case_of(scenario, seed)
    scvi.settings.seed = seed
    options = {"kind": case.kind, "cell_size": case.cell_size}
    found, costs = costs_of(
        lambda: trained(case).get_cell_type_expression(case.bulk, "condition", **options)
    )
    profiles = {arm: found.expression.loc[arm].T for arm in ARMS}
    return costs | response_scores(profiles, case)
