"""DistanceEmbedding and its peers on cohorts with distances; prints a Markdown table for each.

    python -m benchmarks.distance --quick    # smoke run: the numbers mean nothing
    python -m benchmarks.distance            # half an hour on one core
    python -m benchmarks.distance --table    # only renders the stored results

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse

from benchmarks.comparison import Comparison
from benchmarks.distance.fits import OURS, score
from benchmarks.distance.goals import GOALS
from benchmarks.distance.peers import ONLY_SIMULATED, PEERS
from benchmarks.distance.sets import SETS
from benchmarks.runs import Group, Task

COLUMNS = {  # heading and digits
    "r2": ("R2", 3),
    "r": ("r", 3),
    "new_r2": ("R2, new-new", 3),
    "overlap": ("nearest", 2),
    "f_ratio": ("F ratio", 2),
    "coverage": ("coverage", 3),
    "worst": ("worst tenth", 2),
    "kept": ("network kept", 2),
    "cpu": ("CPU s", 1),
    "cpu_new": ("CPU s per 1,000 new", 2),
    "cpu_direct": ("CPU s, all exact", 1),
}
LEGEND = """\
Mean over the seeds (standard deviation). *R2*, *r*: of distances from new to fitted samples,
1 - SSE / SST of the distances as they are, and Pearson's. *new-new*: among new samples. *nearest*:
share of the ten nearest fitted samples that are so in both. *F ratio*: PERMANOVA's F of the
clusters among new samples, predicted by true. *coverage*: of 90 % intervals of distances from new
to fitted samples, and in the tenth of the new samples with the least. *network kept*: share of the
fits in which the network was better than the linear map. *all exact*: computing all distances of
the cohort. Gower's formula needs the true distances of the new samples. Peers are written in a few
lines each."""


def groups(args: argparse.Namespace, sets: list[str]) -> list[Group]:
    return [
        [Task(name, method, seed)]
        for name in sets
        for method in args.methods
        if not (method in ONLY_SIMULATED and SETS[name].n_folds)
        for seed in args.seeds[: 1 if method in ONLY_SIMULATED else SETS[name].n_seeds]
    ]


COMPARISON = Comparison(
    name="distance",
    title="Distances between samples",
    sets=SETS,
    methods=[*OURS, *PEERS],
    columns=COLUMNS,
    goals=GOALS,
    legend=lambda _: LEGEND,
    groups=groups,
    score=score,
    seeds=range(3),
    quick_set="s200, weighted UniFrac",
    packages=["scikit-bio"],
)


def main() -> None:
    COMPARISON.main(__doc__)


if __name__ == "__main__":
    main()
