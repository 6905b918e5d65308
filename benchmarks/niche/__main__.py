"""NicheVAE and its peers on slides with known regions; prints a Markdown table for each.

    python -m benchmarks.niche --quick    # smoke run: the numbers mean nothing
    python -m benchmarks.niche --jobs 2   # an hour; continues where a stopped run ended
    python -m benchmarks.niche --table    # only renders the stored results

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec

import pandas as pd

from benchmarks.data import first_missing, is_missing
from benchmarks.goals import goal_lines
from benchmarks.niche.fits import N_SEEDS, OURS, score
from benchmarks.niche.goals import GOALS
from benchmarks.niche.peers import PACKAGE, PEERS
from benchmarks.niche.sets import SETS
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


def run(args: argparse.Namespace) -> int:
    groups = [
        [Task(scenario, method, seed)]
        for scenario in args.scenarios
        if not is_missing(scenario, SETS[scenario].file)
        for method in args.methods
        for seed in args.seeds[: N_SEEDS.get(method, 1)]
        if not lacks(scenario, method)
    ]
    return run_tasks(
        not_stored(groups, args.results),
        partial(score, max_epochs=2 if args.quick else None),
        args,
        made_with=run_facts() | {"threads per run": str(args.threads)},
        summary=lambda result: in_words(result, COLUMNS),
    )


def lacks(scenario: str, method: str) -> bool:
    """Whether a set has no types, or no counts, or a package is not there that a method needs."""
    if method == PACKAGE and find_spec("nichepca") is None:
        return True
    return scenario == "islet" and method in ("composition of given types", "NicheVAE, counts")


def report(results: list[dict]) -> str:
    """All tables, in Markdown, with versions and machine in the header."""
    table = pd.DataFrame(results)
    if table.empty:
        return "No results are stored.\n"
    said = {
        "means": _by_set(table, "mean"),
        "halves": _by_set(table, "labels_halves"),
    }
    parts = ["# Niches", header(results), LEGEND.format(**said)]
    for name, source in SETS.items():
        rows = table[table["scenario"] == name]
        if len(rows):
            parts.append(f"## {name}: {source.about}\n\n{with_means(rows)}")
        elif reason := first_missing([source.file]):
            parts.append(f"## {name}: not run, {reason}")
    parts.append("## Goals\n\n" + markdown(goal_lines(GOALS, table)))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _by_set(table: pd.DataFrame, column: str) -> str:
    if column not in table:
        return "not measured"
    values = table.dropna(subset=[column]).groupby("scenario", sort=False)[column].mean()
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())


def with_means(rows: pd.DataFrame) -> str:
    """One line for each method, and one for the posterior means of ours."""
    of_z = rows.dropna(subset=["z_ari"]) if "z_ari" in rows else rows[:0]
    kept = ["method", *(c for c in rows if c.startswith(("z_", "unseen_z_")))]
    of_z = of_z[kept].rename(
        columns=lambda c: c.replace("unseen_z_", "unseen_").removeprefix("z_")
    )
    rows = pd.concat([rows, of_z.assign(method=of_z["method"] + ", z")])
    return method_table(rows, COLUMNS, [m for name in METHODS for m in (name, f"{name}, z")])


def main() -> None:
    parser = benchmark_parser(__doc__, "niche", scenarios=SETS, methods=METHODS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4], metavar="SEED")
    parser.add_argument("--quick", action="store_true", help="two epochs of one set, one seed")
    args = parsed(parser, "niche")
    if args.quick:
        args.scenarios, args.seeds = ["simulated"], args.seeds[:1]
    finish(args, report, 0 if args.table else run(args))


if __name__ == "__main__":
    main()
