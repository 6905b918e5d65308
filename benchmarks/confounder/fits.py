"""One fit of the benchmark of hidden confounders, and its scores."""

from __future__ import annotations

from benchmarks.confounder.scaling import measure_size
from benchmarks.confounder.scenarios import SCENARIOS
from benchmarks.confounder.scores import score
from benchmarks.runs import Task

__all__ = ["fit"]


def fit(task: Task) -> dict:
    """Fit one method to the data of a scenario and a seed, and score it."""
    part = SCENARIOS[task.scenario].part
    if part == "scaling":
        return {"part": part} | measure_size(task.scenario, task.seed)
    return {"part": part} | score(*task)
