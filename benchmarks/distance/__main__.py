"""DistanceEmbedding and its peers on cohorts with distances; prints a Markdown table for each.

    python -m benchmarks.distance --quick    # smoke run: the numbers mean nothing
    python -m benchmarks.distance            # half an hour on one core
    python -m benchmarks.distance --table    # only renders the stored results

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse
from functools import partial

import pandas as pd

from benchmarks.data import first_missing, is_missing
from benchmarks.distance.fits import OURS, score
from benchmarks.distance.goals import GOALS
from benchmarks.distance.peers import ONLY_SIMULATED, PEERS
from benchmarks.distance.sets import SETS
from benchmarks.goals import goal_lines
from benchmarks.runs import (
    Task,
    benchmark_parser,
    finish,
    header,
    in_words,
    markdown,
    method_table,
    not_stored,
    parsed,
    run_facts,
    run_tasks,
)

METHODS = [*OURS, *PEERS]
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


def run(args: argparse.Namespace) -> int:
    groups = [
        [Task(scenario, method, seed)]
        for scenario in args.scenarios
        if not is_missing(scenario, SETS[scenario].file)
        for method in args.methods
        if not (method in ONLY_SIMULATED and SETS[scenario].n_folds)
        for seed in args.seeds[: 1 if method in ONLY_SIMULATED else SETS[scenario].n_seeds]
    ]
    return run_tasks(
        not_stored(groups, args.results),
        partial(score, max_epochs=2 if args.quick else None),
        args,
        made_with=run_facts("scikit-bio") | {"threads per run": str(args.threads)},
        summary=lambda result: in_words(result, COLUMNS),
    )


def report(results: list[dict]) -> str:
    """All tables, in Markdown, with versions and machine in the header."""
    table = pd.DataFrame(results)
    if table.empty:
        return "No results are stored.\n"
    parts = ["# Distances between samples", header(results), LEGEND]
    for name, source in SETS.items():
        rows = table[table["scenario"] == name]
        if len(rows):
            parts.append(f"## {name}: {source.about}\n\n{method_table(rows, COLUMNS, METHODS)}")
        elif reason := first_missing([source.file]):
            parts.append(f"## {name}: not run, {reason}")
    parts.append("## Goals\n\n" + markdown(goal_lines(GOALS, table)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def main() -> None:
    parser = benchmark_parser(__doc__, "distance", scenarios=SETS, methods=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--quick", action="store_true", help="two epochs of one set, one seed")
    args = parsed(parser, "distance")
    if args.quick:
        args.scenarios, args.seeds = ["s200, weighted UniFrac"], args.seeds[:1]
    finish(args, report, 0 if args.table else run(args))


if __name__ == "__main__":
    main()
