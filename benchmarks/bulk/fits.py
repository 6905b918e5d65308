"""One run of the benchmark of deconvolution, and its scores."""

from __future__ import annotations

from functools import partial

import pandas as pd

from benchmarks.bulk.expression import bayesprism_response, response_scores
from benchmarks.bulk.others import OTHERS, by_package
from benchmarks.bulk.ours import score_average, score_own, score_response
from benchmarks.bulk.peers import PEERS, shared_of
from benchmarks.bulk.sampling import score_sampling
from benchmarks.bulk.scenarios import case_of, part_of
from benchmarks.bulk.scores import after_measured, errors, grouped
from benchmarks.bulk.sets import Case
from benchmarks.bulk.sizes import cells_of
from benchmarks.bulk.speed import measure_speed
from benchmarks.processes import costs_of
from benchmarks.runs import Task

__all__ = ["fit"]


def fit(task: Task) -> dict:
    """Run a method on the data of a scenario and a seed, and score it."""
    part = part_of(task.scenario)
    return {"part": part} | score(part, *task)


def score(part: str, scenario: str, method: str, seed: int) -> dict:
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
