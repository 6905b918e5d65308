"""One fit of the benchmark of hidden confounders, and its scores."""

from __future__ import annotations

from benchmarks.confounder.scaling import SIZES, measure_size
from benchmarks.confounder.scenarios import SCENARIOS
from benchmarks.confounder.scores import score
from benchmarks.runs import Task

__all__ = ["fit"]


def fit(task: Task, *, quick: bool = False) -> dict:
    """Fit one method to the data of a scenario and a seed, and score it."""
    if task.scenario in SIZES:
        return {"part": "scaling"} | measure_size(task.scenario, task.seed, quick=quick)
    return {"part": SCENARIOS[task.scenario].part} | score(*task)
