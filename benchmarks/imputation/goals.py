"""What MaskedImputation has to reach, and what it reached."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from benchmarks.goals import Goal
from benchmarks.imputation.fits import OURS
from benchmarks.imputation.sets import SETS

__all__ = ["GOALS"]

NEIGHBOURS, ORACLE = "30 nearest neighbours", "oracle: hidden mean of the type"
MAIN = ("donors", "treatment", "studies", "chemistry", "panel", "markers", "technologies")
"""Sets with a source that measured all genes, of several hundred genes."""
OF_ORACLE = {
    "donors": (0.95, 1.0),
    "treatment": (0.75, 0.9),
    "panel": (0.9, 0.95),
    "markers": (0.94, 1.0),
}
Number = Callable[[pd.DataFrame], float]


def of(column: str, scenario: str, method: str = OURS) -> Number:
    """Read the mean over the seeds of a number of a method."""

    def read(table: pd.DataFrame) -> float:
        rows = table[(table["scenario"] == scenario) & (table["method"] == method)]
        if column not in rows or rows[column].dropna().empty:
            raise KeyError(column)
        return float(rows[column].mean())

    return read


def less(scenario: str, peer: str) -> Number:
    """Subtract the deviance explained of a peer from ours, over the seeds that both have."""

    def read(table: pd.DataFrame) -> float:
        wide = table[table["scenario"] == scenario].pivot_table("d2", "seed", "method")
        if not {OURS, peer} <= set(wide) or (both := wide[[OURS, peer]].dropna()).empty:
            raise KeyError(peer)
        return float((both[OURS] - both[peer]).mean())

    return read


def of_oracle(scenario: str) -> Number:
    ours, theirs = of("d2", scenario), of("d2", scenario, ORACLE)
    return lambda table: ours(table) / theirs(table)


def distance(scenario: str) -> Number:
    """Return how far the deviance explained of known genes is from that of the hidden ones."""
    known, true = of("known_deviance_explained", scenario), of("d2", scenario)
    return lambda table: abs(known(table) - true(table))


def size(column: str, scenario: str) -> Number:
    read = of(column, scenario)
    return lambda table: abs(read(table))


GOALS = [
    *(
        Goal(f"{s}: deviance explained less that of {NEIGHBOURS}", less(s, NEIGHBOURS), ">=", b, a)
        for s, b, a in [*((s, -0.01, 0.04) for s in MAIN), ("mosaic", 0.05, 0.15)]
    ),
    *(
        Goal(f"{s}: the same, less that of {peer}", less(s, peer), ">=", 0.1, 0.25)
        for s in ("treatment", "studies")
        for peer in ("gimVI", "SCVI, zero-filled")
    ),
    *(
        Goal(f"{s}: deviance explained by that of the oracle", of_oracle(s), ">=", *bounds)
        for s, bounds in OF_ORACLE.items()
    ),
    *(
        Goal(f"{s}: {what} inside intervals of 90 %", of(c, s), "in", (0.8, 0.98), (0.86, 0.95))
        for c, what in (("inside_totals", "totals"), ("inside_types", "totals by type"))
        for s in MAIN
    ),
    *(
        Goal(f"{s}: counts inside intervals of 90 %", of("inside_counts", s), "in", b, a)
        for s in MAIN
        for b, a in [((0.85, 0.94), (0.88, 0.92))]
    ),
    *(
        Goal(f"{s}: log2 bias of all hidden counts", size("bias", s), "<=", 0.3, 0.15)
        for s in MAIN
    ),
    *(
        Goal(
            f"{s}: deviance explained of genes held back, distance from that of hidden genes",
            distance(s),
            "<=",
            0.15,
            0.08,
        )
        for s in SETS
        if s in MAIN and s != "markers"
    ),
]
