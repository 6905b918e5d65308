"""NicheVAE and its peers on slides with known regions; prints a Markdown table for each.

    python -m benchmarks.niche --quick    # smoke run: the numbers mean nothing
    python -m benchmarks.niche --jobs 2   # an hour; continues where a stopped run ended
    python -m benchmarks.niche --table    # only renders the stored results

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

import pandas as pd

from benchmarks.comparison import Comparison
from benchmarks.niche.fits import N_SEEDS, OURS, score
from benchmarks.niche.goals import GOALS
from benchmarks.niche.peers import PACKAGE, PEERS
from benchmarks.niche.sets import SETS
from benchmarks.runs import Group, Task

METHODS = [*OURS, *PEERS]

COLUMNS = {  # heading and digits
    "ari": ("ARI", 3),
    "nmi": ("NMI", 3),
    "f1": ("F1", 3),
    "mixing": ("mixing", 2),
    "unseen_f1": ("F1, unseen section", 3),
    "drawn": ("drawn", 2),
    "drawn_unseen": ("drawn, unseen space", 2),
    "labels": ("labels", 3),
    "cpu": ("CPU s", 1),
    "gib": ("GiB", 2),
}
LEGEND = """\
Mean (standard deviation over the seeds). *ARI*, *NMI*: k-means with the true number of regions,
three starts. *F1*: macro F1 of the region by the 15 nearest cells of other sections, or of three
quarters of space. *mixing*: entropy of the sections among the 30 nearest cells of the same region,
1 where they are mixed. *unseen section*: the same F1 for a section that was not fitted. *drawn*:
unbiased energy distance of drawn to true neighbours, by that of random cells of the section (0 is
perfect; the true mean, repeated, has {means}). *labels*: total variation of predicted to true
shares of the cell types; two halves of the true neighbours have {halves}. The rows *z* take the
posterior means in place of the map. Peers are written in a few lines each from their papers, but
for the *package* of nichepca, which has its own components, scaling and Harmony."""


def groups(args: argparse.Namespace, sets: list[str]) -> list[Group]:
    return [
        [Task(name, method, seed)]
        for name in sets
        for method in args.methods
        for seed in args.seeds[: N_SEEDS.get(method, 1)]
        if not lacks(name, method)
    ]


def lacks(scenario: str, method: str) -> bool:
    """Whether a set has no types, or no counts, or a package is not there that a method needs."""
    if method == PACKAGE and find_spec("nichepca") is None:
        return True
    return scenario == "islet" and method in ("composition of given types", "NicheVAE, counts")


def legend(table: pd.DataFrame) -> str:
    halves = _by_set(table, "labels_halves")
    return LEGEND.format(means=_by_set(table, "mean"), halves=halves)


def _by_set(table: pd.DataFrame, column: str) -> str:
    if column not in table:
        return "not measured"
    values = table.dropna(subset=[column]).groupby("scenario", sort=False)[column].mean()
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def with_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Results, and behind them those of the posterior means of ours."""
    of_z = rows.dropna(subset=["z_ari"]) if "z_ari" in rows else rows[:0]
    kept = ["method", *(c for c in rows if c.startswith(("z_", "unseen_z_")))]
    of_z = of_z[kept].rename(
        columns=lambda c: c.replace("unseen_z_", "unseen_").removeprefix("z_")
    )
    return pd.concat([rows, of_z.assign(method=of_z["method"] + ", z")])


COMPARISON = Comparison(
    name="niche",
    title="Niches",
    sets=SETS,
    methods=METHODS,
    columns=COLUMNS,
    goals=GOALS,
    legend=legend,
    groups=groups,
    score=score,
    seeds=range(5),
    quick_set="simulated",
    rows_of=with_means,
    rows=[row for name in METHODS for row in (name, f"{name}, z")],
)


def main() -> None:
    COMPARISON.main(__doc__)


if __name__ == "__main__":
    main()
