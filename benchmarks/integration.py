"""PairedVAE and its peers, fitted to the same data; prints a Markdown table for each scenario.

    python benchmarks/integration.py --quick    # smoke run: the numbers mean nothing
    python benchmarks/integration.py --jobs 2   # hours; continues where a stopped run ended
    python benchmarks/integration.py --table    # only renders the stored results

Each finished fit is a line of the results file, and is not repeated: to fit it again, delete its
line.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from _methods import METHODS, ONE_SEED, SCANORAMA_VERSION, make_scanorama_environment
from _runs import read_results, run_facts
from _scenarios import DATA, SCENARIOS, missing_file, prepared
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scovert.metrics import integration_panel, invaded_share, purity

HERE = Path(__file__).resolve().parent

QUICK_EPOCHS = 2
DEFAULT_SCENARIOS = ["kang4k", "k_null", "two_batches", "cellbench2", "cellbench5", "kang"]
DIGITS = {  # of the columns of the table
    "label transfer": 3,
    "bio": 3,
    "batch": 3,
    "total": 3,
    "total, 5 starts": 3,
    "invaded": 3,
    "purity": 3,
    "held-out": 4,
}
HEADINGS = {
    "label_transfer": "label transfer",
    "heldout": "held-out",
    "total_5": "total, 5 starts",
}
LEGEND = """\
Mean (standard deviation) over the seeds. *label transfer*, *bio*, *batch* and *total* are those of
`scovert.metrics.integration_panel`, and *total, 5 starts* the same total with 5 starts of k-means
instead of 50, where luck has a say; *invaded* (lower is better) and *purity* are shown where a
batch lacks a cell type. *held-out*: log-likelihood (negative binomial) of a gene in a cell of the
tenth that was not trained on. *time*: CPU seconds of `train` for 1,000 training cells drawn, with
the search for anchors and the validation, divided by those of SCVI; medians over the seeds.
`encoder/alignment` are variants of PairedVAE. All models are trained with their defaults, of which
PairedVAE keeps another tenth of the cells for its early stopping and SCVI none. PCA, Harmony and
Scanorama see all cells; PCA and Scanorama do not depend on the seed.
"""


class Task(NamedTuple):
    """One fit."""

    scenario: str
    method: str
    seed: int


def fit(task: Task, max_epochs: int | None) -> dict:
    """Fit one method to one scenario and score its embedding."""
    start = time.monotonic()
    adata = prepared(task.scenario)
    embedding, costs = METHODS[task.method](adata, task.seed, max_epochs)
    size = {
        "n_cells": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_batch": adata.obs["batch"].nunique(),
    }
    result = task._asdict() | size | costs | scores(embedding, adata)
    return result | {"wall": time.monotonic() - start}


def warm_up() -> None:
    """Prepare a worker: quiet libraries, loaded and compiled, so that no fit is charged for it."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="`encoder='per_dataset'` with")
    METHODS["shared/anchors"](prepared("two_batches"), seed=0, max_epochs=1)


def scores(embedding: NDArray, adata: AnnData) -> dict[str, float]:
    batch, labels = adata.obs["batch"], adata.obs["cell_type"]
    panel = integration_panel(embedding, batch, labels)["value"].to_dict()
    few_starts = integration_panel(embedding, batch, labels, n_init=5)["value"]
    panel["total_5"] = few_starts["total"]
    if (pd.crosstab(labels, batch) > 0).all(axis=None):
        return panel
    invaded = invaded_share(embedding, batch, labels)
    return panel | {"invaded": invaded, "purity": purity(embedding, batch, labels)}


def made_with(threads: int) -> dict[str, str]:
    """Versions and machine of this run."""
    return run_facts("harmonypy") | {
        "scanorama": SCANORAMA_VERSION,
        "threads per fit": str(threads),
    }


def stored(path: Path) -> dict[Task, dict]:
    """Results by fit; of several for one fit the last."""
    return {Task(r["scenario"], r["method"], r["seed"]): r for r in read_results(path)}


def tasks_of(args: argparse.Namespace) -> list[Task]:
    """Fits that were asked for, that can be done and are not stored yet."""
    tasks = []
    for scenario in args.scenarios:
        if path := missing_file(scenario):
            print(f"{scenario} is skipped: there is no {path.name} in {DATA} (see SCOVERT_DATA).")
            continue
        for method in args.methods:
            seeds = args.seeds[:1] if method in ONE_SEED else args.seeds
            tasks += [Task(scenario, method, seed) for seed in seeds]
    done = stored(args.results)
    return [task for task in tasks if task not in done]


def run(args: argparse.Namespace) -> int:
    """Fit what is missing, store each result at once, and return the number of failures."""
    tasks = tasks_of(args)
    if any(task.method == "Scanorama" for task in tasks):
        make_scanorama_environment()
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(args.threads)  # read when a worker starts
    setting = {"made_with": made_with(args.threads)}
    failures = 0
    workers = {"mp_context": get_context("spawn"), "initializer": warm_up}
    with ProcessPoolExecutor(args.jobs, **workers) as pool:
        fits = {
            pool.submit(fit, task, QUICK_EPOCHS if args.quick else None): task for task in tasks
        }
        for n, done in enumerate(as_completed(fits), 1):
            name = f"[{n}/{len(fits)}] {' '.join(map(str, fits[done]))}"
            if error := done.exception():
                failures += 1
                print(f"{name} failed: {error!r}", flush=True)
                continue
            result = done.result()
            with args.results.open("a") as file:
                file.write(json.dumps(result | setting) + "\n")
            summary = f"total {result['total']:.3f}, label transfer {result['label_transfer']:.3f}"
            print(f"{name}: {summary}, {result['wall']:.0f} s", flush=True)
    return failures


def report(scenarios: list[str], results: list[dict]) -> str:
    """All tables, in Markdown, with versions and machine in the header."""
    results = [r for r in results if r["scenario"] in scenarios]
    parts = ["# Integration", header(results), LEGEND]
    for name in scenarios:
        rows = pd.DataFrame([r for r in results if r["scenario"] == name])
        if len(rows):
            n_cells, n_genes, n_batch = rows[["n_cells", "n_genes", "n_batch"]].iloc[-1]
            size = f"{n_cells} cells x {n_genes} genes, {n_batch} batches"
            parts.append(f"## {name}: {SCENARIOS[name].about} ({size})\n\n{table(rows)}")
        elif path := missing_file(name):
            parts.append(f"## {name}: not run, {path.name} is missing")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def header(results: list[dict]) -> str:
    """Say what the results were made with; the commit is that of the fits of PairedVAE."""
    if not results:
        return "No results are stored."
    found: dict[str, set[str]] = {}
    for result in results:
        for name, value in result["made_with"].items():
            if name != "commit" or "/" in result["method"]:
                found.setdefault(name, set()).add(value)
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in found.items()) + "."


def table(rows: pd.DataFrame) -> str:
    """One line for each method, means and standard deviations over the seeds."""
    rows = rows.rename(columns=HEADINGS)
    time_column = "cpu_per_1000_cells"
    scvi = rows.loc[rows["method"] == "SCVI"].get(time_column, pd.Series(dtype=float)).median()
    shown = [c for c in DIGITS if c in rows and rows[c].notna().any()]
    lines = [["method", *shown, "time", "epochs", "seeds"]]
    for method in [m for m in METHODS if m in set(rows["method"])]:
        own = rows[rows["method"] == method].reindex(columns=[*shown, time_column, "epochs"])
        ratio = _number([own[time_column].dropna().median() / scvi], 2)
        cells = [_number(own[c], DIGITS[c]) for c in shown]
        lines.append([method, *cells, ratio, _number([own["epochs"].mean()], 0), str(len(own))])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(values: ArrayLike, digits: int) -> str:
    values = pd.Series(values, dtype=float).dropna()
    if values.empty:
        return "-"
    spread = f" ({values.std():.{digits}f})" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--scenarios", nargs="+", choices=SCENARIOS, default=DEFAULT_SCENARIOS, metavar="NAME"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--jobs", type=int, default=1, help="fits in parallel processes")
    parser.add_argument("--threads", type=int, default=1, help="threads of one fit")
    parser.add_argument("--quick", action="store_true", help="two epochs of two_batches, one seed")
    parser.add_argument("--table", action="store_true", help="only render the stored results")
    parser.add_argument("--results", type=Path, help="default: results/integration.jsonl")
    parser.add_argument("--out", type=Path, help="default: results/integration.md")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) if args.quick else HERE / "results"
    args.results = args.results or folder / "integration.jsonl"
    args.out = args.out or folder / "integration.md"
    if args.quick:
        args.scenarios, args.seeds = ["two_batches"], args.seeds[:1]
    return args


def main() -> None:
    args = arguments()
    for path in (args.results, args.out):
        path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0 if args.table else run(args)
    text = report(args.scenarios, list(stored(args.results).values()))
    args.out.write_text(text)
    print(f"\n{text}")
    sys.exit(f"{failures} fits failed." if failures else 0)


if __name__ == "__main__":
    main()
