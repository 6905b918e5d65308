"""The runs of a benchmark: options, what is run, and what is kept of it, in Markdown."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from numpy.typing import ArrayLike

from benchmarks.processes import limit_threads

HERE = Path(__file__).parent
RESULTS = HERE / "results"


class Task(NamedTuple):
    """One run: a method on the data of a scenario and a seed."""

    scenario: str
    method: str
    seed: int


Score = Callable[[Task], dict]
Group = list[Task]


def run_facts(*packages: str) -> dict[str, str]:
    """Versions of scovert, what it stands on and more packages, the commit and the cores."""
    known = ("scovert", "scvi-tools", "torch", *packages)
    facts = {package: version(package) for package in known}
    return facts | {"commit": commit(), "cores": str(os.cpu_count())}


def commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip()


def read_results(path: Path) -> list[dict]:
    """Results of a file, in their order; none if there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def header(results: list[dict]) -> str:
    """Versions and machine of all results."""
    if not results:
        return "No results are stored."
    found: dict[str, set[str]] = {}
    for result in results:
        for name, value in result["made_with"].items():
            found.setdefault(name, set()).add(value)
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in found.items()) + "."


def markdown(lines: list[list[str]]) -> str:
    """Table with the first line as its head."""
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def method_table(
    rows: pd.DataFrame, columns: Mapping[str, tuple[str, int]], methods: Iterable[str]
) -> str:
    """One line for each method that was run: `columns` have headings and digits."""
    shown = [c for c in columns if c in rows and rows[c].notna().any()]
    lines = [["method", *(columns[c][0] for c in shown), "seeds"]]
    for method in (m for m in methods if m in set(rows["method"])):
        own = rows[rows["method"] == method]
        lines.append([method, *(number(own[c], columns[c][1]) for c in shown), str(len(own))])
    return markdown(lines)


def number(values: ArrayLike, digits: int) -> str:
    """Mean, and standard deviation in brackets, of what is known."""
    values = pd.Series(values, dtype=float).dropna()
    if values.empty:
        return "-"
    spread = f" ({values.std():.{digits}f})" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def results_parser(doc: str, name: str) -> argparse.ArgumentParser:
    """Where results are kept, and whether they are only rendered."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only render the stored results")
    parser.add_argument("--results", type=Path, help=f"default: results/{name}.jsonl")
    parser.add_argument("--out", type=Path, help=f"default: results/{name}.md")
    return parser


def benchmark_parser(doc: str, name: str, **choices: Collection[str]) -> argparse.ArgumentParser:
    """Options of every benchmark that keeps its runs under `name` in the results.

    Parameters
    ----------
    doc
        Of the script; its first line describes it.
    name
        Of the files in the results.
    choices
        What each option chooses from, of which the default takes all.
    """
    parser = results_parser(doc, name)
    for option, known in choices.items():
        parser.add_argument(
            f"--{option}", nargs="+", choices=known, default=list(known), metavar="NAME"
        )
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel processes")
    parser.add_argument("--threads", type=int, default=1, help="threads of one run")
    return parser


def parsed(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """Parse the options; a quick run keeps its results in a folder of its own."""
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) if args.quick else RESULTS
    args.results = args.results or folder / f"{name}.jsonl"
    args.out = args.out or folder / f"{name}.md"
    for path in (args.results, args.out):
        path.parent.mkdir(parents=True, exist_ok=True)
    return args


def stored(path: Path) -> dict[Task, dict]:
    """Results by run; of several for one run the last."""
    return {Task(r["scenario"], r["method"], r["seed"]): r for r in read_results(path)}


def be_quiet() -> None:
    """Prepare a worker: no chatter of libraries."""
    for name in ("lightning.pytorch", "lightning.fabric", "scvi", "scovert"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


def not_stored(groups: Iterable[Group], path: Path) -> list[Group]:
    """Leave out the runs that a file of results has."""
    done = stored(path)
    left = ([task for task in group if task not in done] for group in groups)
    return [group for group in left if group]


def run_tasks(
    groups: list[Group],
    score: Score,
    args: argparse.Namespace,
    *,
    made_with: dict[str, str],
    summary: Callable[[dict], str],
    prepare: Callable[[], None] = be_quiet,
) -> int:
    """Run in processes of their own, and store the results of each group at once.

    Parameters
    ----------
    groups
        Runs on the same data, one after the other in one process.
    score
        What is measured of a run; of a module, as processes import it.
    args
        Options of `benchmark_parser`.
    made_with
        Versions and machine, stored with each result.
    summary
        A result in words.
    prepare
        Called first in every process.

    Returns
    -------
    Number of groups that failed.
    """
    limit_threads(args.threads)
    failures = 0
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), prepare) as pool:
        runs = {pool.submit(_scored, score, group): group for group in groups}
        for n, run in enumerate(as_completed(runs), 1):
            first = runs[run][0]
            name = f"[{n}/{len(runs)}] {first.scenario}, seed {first.seed}"
            if error := run.exception():
                failures += 1
                print(f"{name} failed: {error!r}", flush=True)
                continue
            _store(args.results, [result | {"made_with": made_with} for result in run.result()])
            for result in run.result():
                words = f"{result['method']} {summary(result)}; {result['seconds']:.0f} s"
                print(f"{name}: {words}", flush=True)
    return failures


def _scored(score: Score, group: Group) -> list[dict]:
    results = []
    for task in group:
        start = time.monotonic()
        found = task._asdict() | score(task)
        results.append(found | {"seconds": time.monotonic() - start})
    return results


def _store(path: Path, results: list[dict]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)


def in_words(result: dict, columns: Mapping[str, tuple[str, int]]) -> str:
    """Write the numbers of a result that tables show, after their headings."""
    numbers = {columns[k][0]: result[k] for k in columns if result.get(k) is not None}
    return ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())


def finish(args: argparse.Namespace, report: Callable[[list[dict]], str], failures: int) -> None:
    """Render what is stored, and exit with an error if runs failed."""
    text = report(list(stored(args.results).values()))
    args.out.write_text(text)
    print(f"\n{text}")
    if failures:
        sys.exit(f"{failures} runs failed.")
