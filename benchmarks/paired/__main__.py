"""PairedVAE and its peers, fitted to the same data; prints a Markdown table for each scenario.

    python -m benchmarks.paired --quick    # smoke run: the numbers mean nothing
    python -m benchmarks.paired --jobs 2   # hours; continues where a stopped run ended
    python -m benchmarks.paired --table    # only renders the stored results

Each finished fit is a line of the results file, and is not repeated: to fit it again, delete its
line.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import pandas as pd

from benchmarks import runs
from benchmarks.data import is_missing
from benchmarks.paired.fits import fit, warm_up
from benchmarks.paired.methods import (
    METHODS,
    ONE_SEED,
    SCANORAMA_VERSION,
    make_scanorama_environment,
)
from benchmarks.paired.scenarios import SCENARIOS

QUICK_EPOCHS = 2
COLUMNS = {  # of the tables: heading and digits
    "label_transfer": ("label transfer", 3),
    "bio": ("bio", 3),
    "batch": ("batch", 3),
    "total": ("total", 3),
    "total_5": ("total, 5 starts", 3),
    "invaded": ("invaded", 3),
    "purity": ("purity", 3),
    "support_auroc": ("AUROC of support", 3),
    "heldout": ("held-out", 4),
    "cpu": ("CPU, s", 0),
}
TIME = "cpu_per_1000_cells"
LEGEND = """\
Mean (standard deviation) over the seeds. *label transfer*, *bio*, *batch* and *total* are those of
`scovert.metrics.integration_panel`, and *total, 5 starts* the same total with 5 starts of k-means
instead of 50, where luck has a say; *invaded* (lower is better) and *purity* are shown where a
batch lacks a cell type, and so is the *AUROC of support* (of pairs of a cell and another batch,
those that have the cell's type against those that lack it). *held-out*: log-likelihood (negative
binomial) of a gene in a cell of the tenth that was not trained on. *time*: CPU seconds of `train`
for 1,000 training cells drawn, with the search for anchors and the validation, divided by those of
SCVI; medians over the seeds. `encoder/alignment` are variants of PairedVAE; *align* is
`scovert.anchors.align`, *Harmony anchors* are sought in the space of Harmony, and *plain* leaves
support out of the discriminator. All models are trained with their defaults, of which PairedVAE
keeps another tenth of the cells for its early stopping and SCVI none; SCANVI sees the types. PCA,
Harmony, Scanorama and align see all cells; PCA and Scanorama do not depend on the seed.

**shared/anchors, the default, and align are those of today, and so is per_dataset/anchors with two
seeds (kang4k, k_null, two_batches, cellbench5). In *k_depth* and *pbmc4* aligned components have
no weight, and the default is as it was without them. The other variants of PairedVAE were run
before the number of steps was fixed and support weighed the discriminator.**
"""


def tasks_of(args: argparse.Namespace) -> Iterator[list[runs.Task]]:
    """List the fits that were asked for and can be done, each by itself."""
    for scenario in args.scenarios:
        if is_missing(scenario, SCENARIOS[scenario].file):
            continue
        for method in args.methods:
            seeds = args.seeds[:1] if method in ONE_SEED else args.seeds
            yield from ([runs.Task(scenario, method, seed)] for seed in seeds)


def run(args: argparse.Namespace) -> int:
    """Fit what is missing, and return the number of failures."""
    groups = runs.not_stored(tasks_of(args), args.results)
    if any(task.method == "Scanorama" for group in groups for task in group):
        make_scanorama_environment()
    made_with = runs.run_facts("harmonypy") | {"scanorama": SCANORAMA_VERSION}
    return runs.run_tasks(
        groups,
        partial(fit, max_epochs=QUICK_EPOCHS if args.quick else None),
        args,
        made_with=made_with | {"threads per fit": str(args.threads)},
        summary=lambda result: runs.in_words(result, COLUMNS),
        prepare=warm_up,
    )


def report(results: list[dict]) -> str:
    """All tables, in Markdown, with versions and machine in the header."""
    parts = ["# Integration", runs.header([_as_made(r) for r in results]), LEGEND]
    for name in SCENARIOS:
        rows = pd.DataFrame([r for r in results if r["scenario"] == name])
        if len(rows):
            n_cells, n_genes, n_batch = rows[["n_cells", "n_genes", "n_batch"]].iloc[-1]
            size = f"{n_cells} cells x {n_genes} genes, {n_batch} batches"
            parts.append(f"## {name}: {SCENARIOS[name].about} ({size})\n\n{table(rows)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _as_made(result: dict) -> dict:
    """Leave out the commit of a result where it has no say: the peers'."""
    if "/" in result["method"]:
        return result
    return {"made_with": {k: v for k, v in result["made_with"].items() if k != "commit"}}


def table(rows: pd.DataFrame) -> str:
    """One line for each method, means and standard deviations over the seeds."""
    scvi = rows.loc[rows["method"] == "SCVI"].get(TIME, pd.Series(dtype=float)).median()
    shown = [c for c in COLUMNS if c in rows and rows[c].notna().any()]
    lines = [["method", *(COLUMNS[c][0] for c in shown), "time", "epochs", "seeds"]]
    for method in [m for m in METHODS if m in set(rows["method"])]:
        own = rows[rows["method"] == method].reindex(columns=[*shown, TIME, "epochs"])
        ratio = runs.number([own[TIME].dropna().median() / scvi], 2)
        cells = [runs.number(own[c], COLUMNS[c][1]) for c in shown]
        lines.append(
            [method, *cells, ratio, runs.number([own["epochs"].mean()], 0), str(len(own))]
        )
    return runs.markdown(lines)


def arguments() -> argparse.Namespace:
    parser = runs.benchmark_parser(__doc__, "paired", scenarios=SCENARIOS, methods=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--quick", action="store_true", help="two epochs of two_batches, one seed")
    args = runs.parsed(parser, "paired")
    if args.quick:
        args.scenarios, args.seeds = ["two_batches"], args.seeds[:1]
        args.methods = [method for method in args.methods if method != "Scanorama"]
    return args


def main() -> None:
    args = arguments()
    failures = 0 if args.table else run(args)
    runs.finish(args, report, failures)


if __name__ == "__main__":
    main()
