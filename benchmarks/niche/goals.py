"""What NicheVAE has to reach, and what it reached."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from benchmarks.goals import Goal

__all__ = ["GOALS"]

PEER = "nichepca, by section, Harmony"
"""The strongest simple peer."""
BEST = ("nichepca", "nichepca, by section", PEER)


def mean(table: pd.DataFrame, scenario: str, method: str, column: str) -> float:
    """Mean over the seeds; raises `KeyError` where it is not measured."""
    rows = table[(table["scenario"] == scenario) & (table["method"] == method)]
    if column not in rows or rows[column].dropna().empty:
        raise KeyError(column)
    return float(rows[column].mean())


def f1_less_best(scenario: str, table: pd.DataFrame) -> float:
    ours = mean(table, scenario, "NicheVAE", "f1")
    return ours - max(mean(table, scenario, peer, "f1") for peer in BEST)


def of(column: str, scenario: str, method: str = "NicheVAE") -> Callable[[pd.DataFrame], float]:
    """Read one number of a method."""
    return lambda table: mean(table, scenario, method, column)


def less(column: str, scenario: str, peer: str) -> Callable[[pd.DataFrame], float]:
    """Subtract the number of a peer from ours."""
    ours, theirs = of(column, scenario), of(column, scenario, peer)
    return lambda table: ours(table) - theirs(table)


def ratio(ours: Callable, theirs: Callable) -> Callable[[pd.DataFrame], float]:
    return lambda table: ours(table) / theirs(table)


REAL = ("islet", "osmfish", "starmap")
GOALS = [
    *(
        Goal(f"{s}: ARI of the map less that of {PEER}", less("ari", s, PEER), ">=", -0.02, 0.02)
        for s in REAL
    ),
    Goal("osmfish: ARI", of("ari", "osmfish"), ">=", 0.6, 0.68),
    *(
        Goal(
            f"{s}: F1 less that of the best nichepca", partial(f1_less_best, s), ">=", -0.04, -0.01
        )
        for s in (*REAL, "simulated")
    ),
    Goal("starmap: mixing of the sections", of("mixing", "starmap"), ">=", 0.78, 0.83),
    Goal("simulated: mixing of the sections", of("mixing", "simulated"), ">=", 0.9, 0.94),
    Goal("simulated: ARI", of("ari", "simulated"), ">=", 0.7, 0.8),
    Goal(f"simulated: ARI less that of {PEER}", less("ari", "simulated", PEER), ">=", 0.3),
    *(
        Goal(f"{s}: energy distance of drawn neighbours", of("drawn", s), "<=", 0.25, 0.15)
        for s in (*REAL, "simulated")
    ),
    *(
        Goal(f"{s}: the same in space not fitted", of("drawn_unseen", s), "<=", 0.3, 0.15)
        for s in (*REAL, "simulated")
    ),
    *(
        Goal(
            f"{s}: error of labels around a cell, by that of half the neighbours",
            ratio(of("labels", s), of("labels_halves", s)),
            "<=",
            1,
        )
        for s in ("osmfish", "starmap")
    ),
    *(
        Goal(
            f"{s}: F1 of unseen sections less that of nichepca, by section",
            less("unseen_f1", s, "nichepca, by section"),
            ">=",
            -0.06,
            -0.01,
        )
        for s in ("starmap", "simulated")
    ),
    *(
        Goal(f"{s}: active dimensions, positions shuffled", of("shuffled_active", s), "<=", 0)
        for s in (*REAL, "simulated")
    ),
    *(
        Goal(f"{s}: KL in nats, positions shuffled", of("shuffled_kl", s), "<=", 0.05)
        for s in (*REAL, "simulated")
    ),
    Goal(
        "starmap: time with counts, by that with a Gaussian",
        ratio(of("cpu", "starmap", "NicheVAE, counts"), of("cpu", "starmap")),
        "<=",
        4,
        2,
    ),
]
