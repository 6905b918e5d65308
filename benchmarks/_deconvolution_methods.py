"""One run of the benchmark of deconvolution: a set, a method and a seed in, its scores out."""

from __future__ import annotations

from functools import partial

import pandas as pd
from _deconvolution_expression import bayesprism_response, response_scores
from _deconvolution_others import OTHERS, by_package
from _deconvolution_ours import score_average, score_own, score_response
from _deconvolution_peers import PEERS, shared_of
from _deconvolution_sampling import score_sampling
from _deconvolution_scenarios import case_of, part_of
from _deconvolution_scores import after_measured, errors, grouped
from _deconvolution_sets import Case
from _deconvolution_sizes import cells_of
from _deconvolution_speed import measure_speed
from _runs import costs_of

__all__ = ["score"]


def score(scenario: str, method: str, seed: int) -> dict:
    """Run a method and score it."""
    part = part_of(scenario)
    if part == "expression" and method in PEERS:
        case = case_of(scenario, seed)
        return response_scores(bayesprism_response(case), case)
    if method in PEERS or method in OTHERS:
        return score_peer(scenario, method, seed)
    if part == "speed":
        return measure_speed(seed)
    if part == "posteriors":
        return score_sampling(scenario, method, seed)
    if part == "expression":
        return score_response(scenario, seed)
    if part == "averages":
        return score_average(scenario, seed)
    return score_own(scenario, method, seed)


def score_peer(scenario: str, method: str, seed: int) -> dict:
    """Run a peer and score it, also after the correction by measured samples."""
    case = case_of(scenario, seed)
    run = of_peer if method in PEERS else by_package
    cells, costs = costs_of(partial(run, method, case))
    found = errors(grouped(cells, case.groups), case.truth)
    if method in OTHERS:
        return found | {"cpu": costs["cpu"]}  # the memory is that of another process
    if part_of(scenario) == "blood":
        found |= after_measured(cells, None, case.truth, case.groups)
    return found | costs


def of_peer(name: str, case: Case) -> pd.DataFrame:
    return cells_of(PEERS[name](shared_of(case)), case)
