"""BulkDeconvolution and its peers on the same bulks and references; prints goals and tables.

    python benchmarks/deconvolution.py --quick                   # smoke run: one seed, few sets
    python benchmarks/deconvolution.py --jobs 2                  # continues a run that was stopped
    python benchmarks/deconvolution.py --parts blood averages    # only these; the others stay
    python benchmarks/deconvolution.py --methods joint MuSiC     # only these
    python benchmarks/deconvolution.py --table                   # only renders what is stored

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from _deconvolution_methods import score
from _deconvolution_others import OTHERS, VERSIONS, interpreter
from _deconvolution_scenarios import (
    METHODS,
    PARTS,
    QUICK,
    Task,
    part_of,
    tasks_of_part,
)
from _deconvolution_sets import DATA, missing_file
from _deconvolution_tables import COLUMNS, report
from _runs import benchmark_parser, parsed, read_results, run_facts


def run_one(task: Task) -> dict:
    start = time.monotonic()
    found = task._asdict() | {"part": part_of(task.scenario)} | score(*task)
    return found | {"seconds": time.monotonic() - start}


def be_quiet() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "scvi", "scovert"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def stored(path: Path) -> dict[Task, dict]:
    """Results by run; of several for one run the last."""
    return {Task(r["scenario"], r["method"], r["seed"]): r for r in read_results(path)}


def tasks_of(args: argparse.Namespace) -> list[Task]:
    """Return the runs that were asked for and are not stored yet."""
    done = stored(args.results)
    wanted = [task for part in args.parts for task in tasks_of_part(part)]
    if args.quick:
        wanted = [task for task in wanted if task.scenario in QUICK]
    return [
        task
        for task in wanted
        if task not in done and task.method in args.methods and task.seed < args.n_seeds
    ]


def run(args: argparse.Namespace) -> int:
    """Run what is missing, store each result at once, and return the number of failures."""
    tasks = tasks_of(args)
    for package in {OTHERS[task.method][0] for task in tasks if task.method in OTHERS}:
        interpreter(package)
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(args.threads)  # read when a worker starts
    setting = {"made_with": made_with(args.threads)}
    failures = 0
    workers = {"mp_context": get_context("spawn"), "initializer": be_quiet}
    with ProcessPoolExecutor(args.jobs, **workers) as pool:
        runs = {pool.submit(run_one, task): task for task in tasks}
        for n, done in enumerate(as_completed(runs), 1):
            name = f"[{n}/{len(runs)}] {', '.join(map(str, runs[done]))}"
            if error := done.exception():
                failures += 1
                print(f"{name} failed: {error!r}", flush=True)
                continue
            with args.results.open("a") as file:
                file.write(json.dumps(done.result() | setting) + "\n")
            print(f"{name}: {_numbers(done.result())}", flush=True)
    return failures


def made_with(threads: int) -> dict[str, str]:
    """Versions and machine of this run."""
    return run_facts("scikit-learn", "scipy") | VERSIONS | {"threads per run": str(threads)}


def _numbers(result: dict) -> str:
    numbers = {COLUMNS[k][0]: result[k] for k in COLUMNS if result.get(k) is not None}
    shown = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
    return f"{shown}; {result['seconds']:.0f} s"


def arguments() -> argparse.Namespace:
    parser = benchmark_parser(__doc__, PARTS, METHODS, "deconvolution")
    parser.add_argument("--n-seeds", type=int, default=5, help="at most so many, from 0")
    parser.add_argument("--quick", action="store_true", help="one seed, a set of each part")
    args = parsed(parser, "deconvolution")
    if args.quick:
        args.n_seeds = 1
    return args


def main() -> None:
    args = arguments()
    if not args.table and (path := missing_file()):
        sys.exit(f"There is no {path.name} in {DATA} (see SCOVERT_DATA).")
    for path in (args.results, args.out):
        path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0 if args.table else run(args)
    text = report(list(stored(args.results).values()))
    args.out.write_text(text)
    print(f"\n{text}")
    sys.exit(f"{failures} runs failed." if failures else 0)


if __name__ == "__main__":
    main()
