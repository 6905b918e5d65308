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
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from _deconvolution_goals import GATES, GOALS, Results
from _deconvolution_methods import score
from _deconvolution_others import OTHERS, VERSIONS, interpreter
from _deconvolution_scenarios import (
    COUNTED,
    METHODS,
    PARTS,
    QUICK,
    STUDY,
    Task,
    part_of,
    tasks_of_part,
)
from _deconvolution_sets import DATA, missing_file
from _goals import goal_lines
from _runs import header, markdown, read_results, run_facts

HERE = Path(__file__).resolve().parent

COLUMNS = {  # of the tables: heading and digits
    "rmse": ("RMSE", 3),
    "rmse_single": ("RMSE, single", 3),
    "bias": ("bias", 3),
    "within": ("within", 3),
    "ccc": ("CCC", 3),
    "r": ("r", 2),
    "measured_1": ("1 measured", 3),
    "measured_2": ("2 measured", 3),
    "measured_3": ("3 measured", 3),
    "measured_2_coverage": ("coverage, 2 measured", 2),
    "measured_2_half_width": ("half-width, 2 measured", 3),
    "coverage": ("coverage", 2),
    "half_width": ("half-width", 3),
    "disagreement": ("disagreement", 3),
    "r_response": ("r", 2),
    "r_specific": ("r, specific", 2),
    "cpu": ("CPU s", 1),
    "gib": ("GiB", 2),
}
NAMES = {"CD4 T": "CD4", "CD8 T": "CD8", "Monocyte": "Mono"}  # one name for a type
LEGEND = """\
Errors of cell fractions. *RMSE*: over all samples and types; *bias*: its part that is constant
over the samples, by type; *within*: the rest. *CCC*: Lin's concordance over all entries; *r*: mean
over the types of the correlation over the samples. *1, 2, 3 measured*: RMSE of the other samples
when so many have measured fractions, mean of 20 random choices. *coverage* and *half-width*: of
90 % intervals. *CPU s*, *GiB*: one run on one thread, and the memory that it adds. Means over the
seeds; means over studies are means over the references of a study first.

*joint* is `BulkDeconvolution` as it comes; *network* has `method="network"`, *prototype VAE*
`signature="prototype_vae"`. MuSiC, BayesPrism (fixed point, reference updated), nu-SVR,
dtangle and NNLS (on the genes of ours) are written for the benchmark; fractions of RNA become
fractions of cells by the table and formula of ours, and measured samples correct them by the same
rule. rectangle and Scaden are their packages with their own corrections.
"""
NOTES = {  # of parts
    "genes": "The table of RNA content is fixed, and so is the offset of the logarithm, 10 counts "
    "per million: it is no option of the model.",
    "averages": "*RMSE, single*: mean over the fits with one reference that are averaged.",
    "pseudobulks": "*Kang donors*: controls and stimulated cells of four donors with a gene shift, "
    "three samples of each, reference of four other donors, controls only. *Kang x Hao*: controls "
    "as they were counted. RNA content of the reference.",
    "mixtures": "RNA content of the reference for cells, none for RNA.",
    "simulations": "RNA content of the reference. The truth counts cells of a missing type, the "
    "estimates cannot. *50 genes*: `n_genes_per_type=50`, without intervals.",
    "expression": "Log fold changes of stimulated over control samples of *Kang donors*, against "
    "those of the cells that were mixed, for genes with 50 counts per million; *specific*: without "
    "the mean over the types, for genes that all of them express. Means over the types.",
    "speed": "100 bulks, 30 states of 10 types, about 1,000 informative genes, without intervals; "
    "the memory is that of a process that does nothing else.",
}


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


def report(results: list[dict]) -> str:
    """Goals and tables of all parts, in Markdown, with versions and machine in the header."""
    texts = ["# Deconvolution of bulks", header(results), LEGEND]
    if not results:
        return "\n\n".join(texts)
    rows = pd.DataFrame(results)
    found = Results(rows)
    for part, title in PARTS.items():
        own = rows[rows["part"] == part]
        if len(own):
            goals = [markdown(goal_lines(GOALS[part], found))] if GOALS[part] else []
            note = [NOTES[part]] if part in NOTES else []
            texts += [f"## {title}", *note, *goals, *tables(part, own, found)]
    return "\n\n".join(text.strip() for text in texts) + "\n"


def tables(part: str, rows: pd.DataFrame, found: Results) -> Iterator[str]:
    """RMSE of each set and method; means, and of blood the types and the gate of the variants."""
    methods = [m for m in METHODS if m in set(rows["method"])]
    if part in ("averages", "expression", "speed"):
        yield by_set(rows)
        return
    yield "RMSE:"
    yield wide(rows, methods, "rmse")
    if part == "genes":
        return
    if part == "blood":
        yield "Means over the three studies, of the methods that were run on all sets:"
        yield by_method(rows.assign(study=rows["scenario"].map(STUDY)), methods)
        yield "Correlation of each type, mean over the references:"
        yield by_type(rows)
        yield "What a variant needs to become the default:"
        yield markdown(goal_lines(GATES, found))
        return
    yield "Means over the sets:"
    yield by_method(rows.assign(study=rows["scenario"]), methods)


def wide(rows: pd.DataFrame, methods: list[str], column: str) -> str:
    """One line for each set, one column for each method; the best is bold."""
    table = rows.groupby(["scenario", "method"], sort=False)[column].mean().unstack("method")
    lines = [["set", *methods]]
    for name in dict.fromkeys(rows["scenario"]):
        values = table.loc[name].reindex(methods)
        shown = [f"**{v:.3f}**" if v == values.min() else _shown(v, 3) for v in values]
        lines.append([name.removesuffix(", genes"), *shown])
    return markdown(lines)


def by_method(rows: pd.DataFrame, methods: list[str]) -> str:
    """One line for each method: means over the sets of a study, then over the studies."""
    sets = rows["scenario"].nunique()
    columns = [c for c in COLUMNS if c in rows and rows[c].notna().any()]
    lines = [["method", *(COLUMNS[c][0] for c in columns)]]
    for method in methods:
        own = rows[rows["method"] == method]
        if own["scenario"].nunique() == sets:
            means = own.groupby(["study", "scenario"])[columns].mean().groupby("study").mean()
            lines.append([method, *(_shown(means[c].mean(), COLUMNS[c][1]) for c in columns)])
    return markdown(lines)


def by_set(rows: pd.DataFrame) -> str:
    """One line for each set and method, with all that was measured."""
    columns = [c for c in COLUMNS if c in rows and rows[c].notna().any()]
    lines = [["set", "method", *(COLUMNS[c][0] for c in columns), "seeds"]]
    for (name, method), own in rows.groupby(["scenario", "method"], sort=False):
        shown = [_shown(own[c].mean(), COLUMNS[c][1]) for c in columns]
        lines.append([name, method, *shown, str(len(own))])
    return markdown(lines)


def by_type(rows: pd.DataFrame) -> str:
    """One line for each study and method, one column for each type."""
    rows = rows[rows["method"].isin(("joint", *COUNTED))]
    rows = rows.assign(study=rows["scenario"].map(STUDY))
    r = pd.DataFrame(list(rows["r_of"]), rows.index).rename(columns=NAMES)
    r = r.T.groupby(level=0, sort=False).first().T
    table = r.groupby([rows["study"], rows["method"]], sort=False).mean()
    lines = [["study", "method", *table.columns]]
    for (study, method), values in table.iterrows():
        lines.append([study, method, *(_shown(v, 2) for v in values)])
    return markdown(lines)


def _shown(value: float, digits: int) -> str:
    return "-" if pd.isna(value) else f"{value:.{digits}f}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"nargs": "+", "choices": PARTS, "metavar": "NAME"}
    parser.add_argument("--parts", default=list(PARTS), **parts)
    methods = {"nargs": "+", "choices": METHODS, "metavar": "NAME"}
    parser.add_argument("--methods", default=list(METHODS), **methods)
    parser.add_argument("--n-seeds", type=int, default=5, help="at most so many, from 0")
    parser.add_argument("--jobs", type=int, default=1, help="parallel processes")
    parser.add_argument("--threads", type=int, default=1, help="threads of one run")
    parser.add_argument("--quick", action="store_true", help="one seed, a set of each part")
    parser.add_argument("--table", action="store_true", help="only render the stored results")
    parser.add_argument("--results", type=Path, help="default: results/deconvolution.jsonl")
    parser.add_argument("--out", type=Path, help="default: results/deconvolution.md")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) if args.quick else HERE / "results"
    args.results = args.results or folder / "deconvolution.jsonl"
    args.out = args.out or folder / "deconvolution.md"
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
