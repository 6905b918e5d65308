"""What DistanceEmbedding has to reach, and what it reached."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.distance.sets import DISTANCES, SETS
from benchmarks.goals import Goal

__all__ = ["GOALS", "OURS"]

OURS, LINEAR, GOWER = (
    "DistanceEmbedding",
    "DistanceEmbedding, linear",
    "Gower, true distances, constant",
)


def mean(table: pd.DataFrame, scenario: str, method: str, column: str) -> float:
    """Mean over the seeds; raises `KeyError` where it is not measured."""
    rows = table[(table["scenario"] == scenario) & (table["method"] == method)]
    if column not in rows or rows[column].dropna().empty:
        raise KeyError(column)
    return float(rows[column].mean())


def of(column: str, scenario: str, method: str = OURS) -> Callable[[pd.DataFrame], float]:
    """Read one number of a method."""
    return lambda table: mean(table, scenario, method, column)


def less(column: str, scenario: str, peer: str) -> Callable[[pd.DataFrame], float]:
    """Subtract the number of a peer from ours."""
    return lambda table: of(column, scenario)(table) - of(column, scenario, peer)(table)


def worst_against_linear(table: pd.DataFrame) -> float:
    """Least difference of R2 to that of the linear map, over all cohorts and seeds."""
    runs = table.pivot_table(index=["scenario", "seed"], columns="method", values="r2")
    if not {OURS, LINEAR} <= set(runs):
        raise KeyError("r2")
    return float((runs[OURS] - runs[LINEAR]).min())


MUST = {  # unweighted, weighted UniFrac, Bray-Curtis: bound and aim
    "r2": ((0.95, 0.97), (0.985, 0.99), (0.89, 0.92)),
    "new_r2": ((0.92, 0.95), (0.975, 0.985), (0.83, 0.87)),
    "overlap": ((0.65, 0.77), (0.75, 0.80), (0.65, 0.72)),
}
WORDS = {
    "r2": "R2 of new to fitted samples",
    "new_r2": "R2 among new samples",
    "overlap": "overlap of the ten nearest",
}
AGAINST_GOWER = (0.0, -0.01, 0.0)
REAL = (
    ("GlobalPatterns, weighted UniFrac", 0.82, 0.9),
    ("GlobalPatterns, unweighted UniFrac", 0.68, 0.8),
    ("GlobalPatterns, Bray-Curtis", 0.0, 0.3),
)
S1K = [f"s1k, {name}" for name in DISTANCES]
GOALS = [
    *(
        Goal(f"{scenario}: {WORDS[column]}", of(column, scenario), ">=", *bounds)
        for column, of_all in MUST.items()
        for scenario, bounds in zip(S1K, of_all, strict=True)
    ),
    *(
        Goal(f"{scenario}: R2 less that of Gower's formula", less("r2", scenario, GOWER), ">", low)
        for scenario, low in zip(S1K, AGAINST_GOWER, strict=True)
    ),
    *(Goal(f"{name}: R2 of samples left out", of("r2", name), ">=", *b) for name, *b in REAL),
    *(
        Goal(f"{name}: ratio of pseudo-F", of("f_ratio", name), "in", (0.9, 1.1), (0.95, 1.05))
        for name in S1K
    ),
    Goal("all cohorts: R2 less that of the linear map", worst_against_linear, ">=", -0.01),
    *(
        Goal(f"{name}: {words}", of(column, name), relation, bound, aim)
        for name in SETS
        for column, words, relation, bound, aim in (
            ("coverage", "coverage of 90 % intervals", "in", (0.85, 0.95), (0.88, 0.92)),
            ("worst", "the same, tenth of the samples with the least", ">=", 0.6, 0.75),
        )
    ),
    *(Goal(f"{name}: CPU s of training", of("cpu", name), "<=", 30, 15) for name in S1K),
    *(
        Goal(f"{name}: CPU s of 1,000 new samples", of("cpu_new", name), "<=", 1, 0.5)
        for name in S1K
    ),
]
