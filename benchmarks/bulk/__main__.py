"""BulkDeconvolution and its peers on the same bulks and references; prints goals and tables.

    python -m benchmarks.bulk --quick                   # smoke run: one seed, few sets
    python -m benchmarks.bulk --jobs 2                  # continues a run that was stopped
    python -m benchmarks.bulk --parts blood averages    # only these; the others stay
    python -m benchmarks.bulk --methods joint MuSiC     # only these
    python -m benchmarks.bulk --table                   # only renders what is stored

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from benchmarks import runs
from benchmarks.bulk.fits import fit
from benchmarks.bulk.others import OTHERS, VERSIONS, interpreter
from benchmarks.bulk.scenarios import METHODS, PARTS, QUICK, tasks_of_part
from benchmarks.bulk.sets import FILES
from benchmarks.bulk.tables import COLUMNS, report
from benchmarks.data import first_missing


def tasks_of(args: argparse.Namespace) -> Iterator[list[runs.Task]]:
    """List the runs that were asked for, each by itself."""
    for task in (task for part in args.parts for task in tasks_of_part(part)):
        is_wanted = task.method in args.methods and task.seed < args.n_seeds
        if is_wanted and (task.scenario in QUICK or not args.quick):
            yield [task]


def run(args: argparse.Namespace) -> int:
    """Run what is missing, and return the number of failures."""
    groups = runs.not_stored(tasks_of(args), args.results)
    for package in {OTHERS[task.method][0] for (task,) in groups if task.method in OTHERS}:
        interpreter(package)
    made_with = runs.run_facts("scikit-learn", "scipy") | VERSIONS
    return runs.run_tasks(
        groups,
        fit,
        args,
        made_with=made_with | {"threads per run": str(args.threads)},
        summary=lambda result: runs.in_words(result, COLUMNS),
    )


def arguments() -> argparse.Namespace:
    parser = runs.benchmark_parser(__doc__, "bulk", parts=PARTS, methods=METHODS)
    parser.add_argument("--n-seeds", type=int, default=5, help="at most so many, from 0")
    parser.add_argument("--quick", action="store_true", help="one seed, a set of each part")
    args = runs.parsed(parser, "bulk")
    if args.quick:
        args.n_seeds = 1
    return args


def main() -> None:
    args = arguments()
    if not args.table and (reason := first_missing(FILES)):
        sys.exit(f"Nothing was run: {reason}.")
    failures = 0 if args.table else run(args)
    runs.finish(args, report, failures)


if __name__ == "__main__":
    main()
