"""MaskedImputation and its peers on genes that were hidden; prints a Markdown table for each set.

    python -m benchmarks.imputation --quick    # smoke run: the numbers mean nothing
    python -m benchmarks.imputation --jobs 2   # half an hour; continues where a run was stopped
    python -m benchmarks.imputation --table    # only renders the stored results

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse
from functools import partial

import pandas as pd

from benchmarks.data import is_missing
from benchmarks.goals import goal_lines
from benchmarks.imputation.fits import ALL_SEEDS, FEW, score
from benchmarks.imputation.goals import GOALS
from benchmarks.imputation.sets import SETS
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

METHODS = [*ALL_SEEDS, *FEW]
COLUMNS = {  # heading and digits
    "d2": ("deviance explained", 3),
    "r": ("r", 3),
    "offset": ("offset", 2),
    "bias": ("bias", 2),
    "inside_totals": ("totals inside", 2),
    "inside_types": ("by type", 2),
    "inside_counts": ("counts inside", 2),
    "factor": ("factor", 1),
    "known_deviance_explained": ("known genes", 3),
    "cpu": ("CPU s", 1),
}
LEGEND = """\
Hidden genes of the second dataset, mean (standard deviation over the seeds of cells, hidden genes
and training). *deviance explained*: share of the negative binomial deviance from the mean share of
the first dataset; *r*: median over genes of the correlation over cells, which counting noise
bounds: compare with the oracle; *offset*: median distance of the log2 totals of genes; *bias*:
log2 of the total of all. *inside*: share of hidden totals of genes, of totals by type and of
single counts in their intervals of 90 %, whose ends are a *factor* from the middle. *known genes*:
deviance explained of the genes that were held back to calibrate. *levels not moved*: without what
these genes say of the levels of others. Ridge predicts logarithms, whose mean is no mean of
counts. gimVI and SCVI on the zero-filled union take minutes: 100 epochs, two sets, one seed;
without rows of theirs they were not run."""


def run(args: argparse.Namespace) -> int:
    groups = [
        [
            Task(scenario, method, seed)
            for method in args.methods
            if method not in FEW or (seed == 0 and scenario in FEW[method])
        ]
        for seed in args.seeds
        for scenario in args.scenarios
        if not is_missing(scenario, SETS[scenario].file)
    ]
    return run_tasks(
        not_stored(groups, args.results),
        partial(score, max_epochs=2 if args.quick else None),
        args,
        made_with=run_facts() | {"threads per run": str(args.threads)},
        summary=lambda result: in_words(result, COLUMNS),
    )


def report(results: list[dict]) -> str:
    """All tables, in Markdown, with versions and machine in the header."""
    table = pd.DataFrame(results)
    if table.empty:
        return "No results are stored.\n"
    parts = ["# Imputation of genes that were not measured", header(results), LEGEND]
    for name, source in SETS.items():
        rows = table[table["scenario"] == name]
        if len(rows):
            parts.append(f"## {name}: {source.about}\n\n{method_table(rows, COLUMNS, METHODS)}")
    parts.append("## Goals\n\n" + markdown(goal_lines(GOALS, table)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def main() -> None:
    parser = benchmark_parser(__doc__, "imputation", scenarios=SETS, methods=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--quick", action="store_true", help="two epochs of one set, one seed")
    args = parsed(parser, "imputation")
    if args.quick:
        args.scenarios, args.seeds = ["osmfish"], args.seeds[:1]
    finish(args, report, 0 if args.table else run(args))


if __name__ == "__main__":
    main()
