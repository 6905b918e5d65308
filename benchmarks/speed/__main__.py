"""Speed and memory of PairedVAE against SCVI; prints a Markdown table for each part.

    python -m benchmarks.speed --quick                   # smoke run: the numbers mean nothing
    python -m benchmarks.speed                           # half an hour on one core
    python -m benchmarks.speed --parts training parity   # only these, again
    python -m benchmarks.speed --parts stores            # against annbatch; needs python3.12
    python -m benchmarks.speed --gpu                     # training on a GPU
    python -m benchmarks.speed --table                   # only renders the stored results

Every part runs in a process of its own with one thread; its rows replace those of its last run.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.goals import Bound, Goal
from benchmarks.runs import (
    RESULTS,
    header,
    limit_threads,
    markdown,
    parsed,
    read_results,
    results_parser,
    run_facts,
)
from benchmarks.speed import likelihood, scale, training
from benchmarks.speed.training import quiet

NOTES = RESULTS / "speed_notes.md"

LEGEND = """\
CPU seconds of one thread, in a process for each part; those that are compared take turns, and the
smallest of the rounds counts. Data are negative binomial counts of two datasets, 8 % not zero
(`simulate` of `speed/anchors.py`). SCVI is `SCVI(gene_likelihood="nb")`, *none* is
`PairedVAE(alignment="none")`, which has the same networks and the same ELBO, *default* is
`PairedVAE()`, which pulls anchored cells together. A bold number misses its goal.
"""


class Part(NamedTuple):
    """Title, what yields the rows, what the columns mean, the goal of a row, and what it needs."""

    title: str
    measure: Callable[[bool], Iterator[dict]]
    about: str
    goal: Callable[[dict], Goal | None] = lambda row: None
    needs: str = ""


def goal(column: str, relation: str, bound: Bound, aim: Bound | None = None) -> Goal:
    """Say what a column of a row has to be."""
    return Goal(column, itemgetter(column), relation, bound, aim)


def training_goal(row: dict) -> Goal | None:
    if row["method"] == "default":
        return goal("x SCVI", ">=", 1.7, 2.0)
    if row["method"] == "none" and "4000" in row["data"]:
        return goal("x SCVI", ">=", 2.5, 3.0)
    if row["method"] == "none":
        return goal("x SCVI", ">=", 2.3, 2.7 if row["minibatch"] == 128 else 2.8)
    return None


def parity_goal(row: dict) -> Goal | None:
    return None if row["method"] == "SCVI" else goal("difference from SCVI, %", "<=", 0.5)


def memory_goal(row: dict) -> Goal | None:
    return None if row["method"] == "SCVI" else goal("above the data, GB", "<=", 0.5)


def anchors_goal(row: dict) -> Goal | None:
    return goal("epochs", "<=", 5.0) if row["cells"] >= 100_000 else None


PARTS = {
    "training": Part(
        "Training",
        training.training,
        "A cell counts once for each time it is drawn; partners of anchored cells are encoded but "
        "not drawn. Starting is left out (a call with 4 epochs less one with 1), and so is the "
        "search for anchors, which happens once before training and is shown apart.",
        training_goal,
    ),
    "profiles": Part(
        "Where the time of a step goes",
        training.profiles,
        "Own time by cProfile, which makes Python code look up to twice as dear. 8,000 x 2000.",
    ),
    "ladder": Part(
        "What each optimisation gains",
        training.ladder,
        "*none*, 8,000 x 2000, with one optimisation taken away.",
    ),
    "parity": Part(
        "The same ELBO",
        likelihood.parity,
        "Negative ELBO per cell with KL weight 1 after 60 epochs, with the same minibatches and "
        "the same KL weight in every step: 4,096 cells x 2000 genes to train on, 1,024 others "
        "held out, ten samples of each posterior, the same code for both. A negative difference "
        "(of the held-out cells) means that PairedVAE is better. PairedVAE starts its decoder at "
        "the mean of the data; the third row starts it at the random weights of that SCVI.",
        parity_goal,
    ),
    "inference": Part(
        "Latent space",
        scale.inference,
        "`get_latent_representation`, all of the call.",
        lambda row: goal("x SCVI", ">=", 1.0, 1.2),
    ),
    "memory": Part(
        "Memory",
        scale.memory,
        "Peak memory above that before `setup_anndata`, when the data (2000 genes) are in memory "
        "and the libraries are loaded: the model, an epoch with minibatches of 1,024, the latent "
        "space. A new process for each row; beyond 20,000 the cells repeat.",
        memory_goal,
    ),
    "files": Part(
        "Training from a file",
        training.files,
        "*none*, from an uncompressed `.h5ad` that is opened with `backed='r'`.",
        lambda row: goal("x memory", "<=", 1.15, 1.05),
    ),
    "stores": Part(
        "Reading from a file",
        scale.stores,
        "Nothing but the reading, in shuffled minibatches of 128, of 100,000 cells x 2000 genes "
        "that the system does not hold in memory; `speed/stores.py`. Training on these cells "
        "takes 100 times what *Training* shows for 1,000. All but the h5ad are compressed. "
        "*zarrs* is a faster decoder that zarr can be told to use.",
        needs="python3.12",
    ),
    "processes": Part(
        "Two processes",
        scale.processes,
        "*none*, `strategy='ddp'` with gloo on the CPU; epochs after the first. The minibatch is "
        "that of each process, so two take half the steps.",
        lambda row: goal("x one", "<=", 0.7, 0.55),
    ),
    "anchors": Part(
        "Search for anchors",
        scale.anchors,
        "`measure` of `speed/anchors.py` with 2000 genes and 2 datasets, compilation included. An "
        "epoch is one of *default* with minibatches of 128, at the cost per cell with 20,000.",
        anchors_goal,
    ),
    "kernels": Part(
        "Likelihoods by themselves",
        likelihood.kernels,
        "Forward and backward. The sparse zero-inflated one is a sketch in "
        "`speed/likelihood.py` with plain autograd, no part of scovert.",
    ),
    "gpu": Part(
        "Training on a GPU",
        training.gpu,
        "Seconds of the clock on the wall, as in *Training*.",
        needs="a GPU",
    ),
}


def run(name: str, args: argparse.Namespace) -> None:
    """Measure a part in a new process and store its rows in place of the last ones."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=quiet) as pool:
        rows = pool.submit(measure, name, args.quick).result()
    if not rows:
        print(f"{name} was not run: it needs {PARTS[name].needs}.")
        return
    made_with = setting()
    others = [row for row in read_results(args.results) if row["part"] != name]
    new = [{"part": name, "row": row, "made_with": made_with} for row in rows]
    args.results.write_text("".join(json.dumps(row) + "\n" for row in others + new))


def measure(name: str, quick: bool) -> list[dict]:
    rows = []
    for row in PARTS[name].measure(quick):
        print(name, row, flush=True)
        rows.append(row)
    return rows


def setting() -> dict[str, str]:
    """Versions and machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return run_facts("lightning") | {
        "Python": platform.python_version(),
        "processor": processor(),
        "threads": "1",
        "GPU": gpu,
        "date": date.today().isoformat(),
    }


def processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def report(results: list[dict], notes: str) -> str:
    """All tables, in Markdown, with versions and machine in the header."""
    sections = ["# Speed", header(results), LEGEND]
    for name, part in PARTS.items():
        rows = [result["row"] for result in results if result["part"] == name]
        body = table(rows, part) if rows else "Not run."
        sections.append(f"## {part.title}\n\n{part.about}\n\n{body}")
    if notes:
        sections.append(f"## Notes\n\n{notes}")
    return "\n\n".join(section.strip() for section in sections) + "\n"


def table(rows: list[dict], part: Part) -> str:
    """One line for each row, and its goal where there is one."""
    goals = [part.goal(row) for row in rows]
    columns = list(rows[0])
    lines = [columns + ["goal"] * any(goals)]
    for row, goal in zip(rows, goals, strict=True):
        texts = {column: number(row[column]) for column in columns}
        if goal is not None and not goal.is_met(goal.value(row)):
            texts[goal.about] = f"**{texts[goal.about]}**"
        lines.append([*texts.values(), *([in_words(goal)] * any(goals))])
    return markdown(lines)


def in_words(goal: Goal | None) -> str:
    if goal is None:
        return ""
    return goal.wanted if goal.aim is None else f"{goal.wanted} (aim {goal.aim:g})"


def number(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def arguments() -> argparse.Namespace:
    parser = results_parser(__doc__, "speed")
    usual = [name for name, part in PARTS.items() if not part.needs]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=usual, metavar="NAME")
    parser.add_argument("--gpu", action="store_true", help="only the part that needs a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny data, one round")
    return parsed(parser, "speed")


def main() -> None:
    args = arguments()
    limit_threads(1)
    for part in [] if args.table else ["gpu"] if args.gpu else args.parts:
        run(part, args)
    notes = "" if args.quick else NOTES.read_text()
    text = report(read_results(args.results), notes)
    args.out.write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
