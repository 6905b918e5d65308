"""Speed and memory of PairedVAE against SCVI; prints a Markdown table for each part.

    python benchmarks/speed.py --quick                   # smoke run: the numbers mean nothing
    python benchmarks/speed.py                           # half an hour on one core
    python benchmarks/speed.py --parts training parity   # only these, again
    python benchmarks/speed.py --parts stores            # against annbatch; needs python3.12
    python benchmarks/speed.py --gpu                     # training on a GPU
    python benchmarks/speed.py --table                   # only renders the stored results

Every part runs in a process of its own with one thread; its rows replace those of its last run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import _speed_likelihood
import _speed_scale
import _speed_training
import torch
from _runs import read_results, run_facts
from _speed_training import quiet

HERE = Path(__file__).resolve().parent
NOTES = HERE / "results" / "speed_notes.md"

LEGEND = """\
CPU seconds of one thread, in a process for each part; those that are compared take turns, and the
smallest of the rounds counts. Data are negative binomial counts of two datasets, 8 % not zero
(`simulate` of `_anchors_at_scale.py`). SCVI is `SCVI(gene_likelihood="nb")`, *none* is
`PairedVAE(alignment="none")`, which has the same networks and the same ELBO, *default* is
`PairedVAE()`, which pulls anchored cells together. A bold number misses its goal.
"""


class Goal(NamedTuple):
    """What a number shall reach, and what it was hoped to."""

    column: str
    is_least: bool
    goal: float
    aim: float | None = None

    def __str__(self) -> str:
        sign = ">=" if self.is_least else "<="
        aim = "" if self.aim is None else f" (aim {self.aim:g})"
        return f"{sign} {self.goal:g}{aim}"

    def is_met(self, value: float) -> bool:
        """Whether a number reaches the goal."""
        return value >= self.goal if self.is_least else value <= self.goal


class Part(NamedTuple):
    """Title, what yields the rows, what the columns mean, the goal of a row, and what it needs."""

    title: str
    measure: Callable[[bool], Iterator[dict]]
    about: str
    goal: Callable[[dict], Goal | None] = lambda row: None
    needs: str = ""


def training_goal(row: dict) -> Goal | None:
    if row["method"] == "default":
        return Goal("x SCVI", True, 1.7, 2.0)
    if row["method"] == "none" and "4000" in row["data"]:
        return Goal("x SCVI", True, 2.5, 3.0)
    if row["method"] == "none":
        return Goal("x SCVI", True, 2.3, 2.7 if row["minibatch"] == 128 else 2.8)
    return None


def parity_goal(row: dict) -> Goal | None:
    return None if row["method"] == "SCVI" else Goal("difference from SCVI, %", False, 0.5)


def memory_goal(row: dict) -> Goal | None:
    return None if row["method"] == "SCVI" else Goal("above the data, GB", False, 0.5)


def anchors_goal(row: dict) -> Goal | None:
    return Goal("epochs", False, 5.0) if row["cells"] >= 100_000 else None


PARTS = {
    "training": Part(
        "Training",
        _speed_training.training,
        "A cell counts once for each time it is drawn; partners of anchored cells are encoded but "
        "not drawn. Starting is left out (a call with 4 epochs less one with 1), and so is the "
        "search for anchors, which happens once before training and is shown apart.",
        training_goal,
    ),
    "profiles": Part(
        "Where the time of a step goes",
        _speed_training.profiles,
        "Own time by cProfile, which makes Python code look up to twice as dear. 8,000 x 2000.",
    ),
    "ladder": Part(
        "What each optimisation gains",
        _speed_training.ladder,
        "*none*, 8,000 x 2000, with one optimisation taken away.",
    ),
    "parity": Part(
        "The same ELBO",
        _speed_likelihood.parity,
        "Negative ELBO per cell with KL weight 1 after 60 epochs, with the same minibatches and "
        "the same KL weight in every step: 4,096 cells x 2000 genes to train on, 1,024 others "
        "held out, ten samples of each posterior, the same code for both. A negative difference "
        "(of the held-out cells) means that PairedVAE is better. PairedVAE starts its decoder at "
        "the mean of the data; the third row starts it at the random weights of that SCVI.",
        parity_goal,
    ),
    "inference": Part(
        "Latent space",
        _speed_scale.inference,
        "`get_latent_representation`, all of the call.",
        lambda row: Goal("x SCVI", True, 1.0, 1.2),
    ),
    "memory": Part(
        "Memory",
        _speed_scale.memory,
        "Peak memory above that before `setup_anndata`, when the data (2000 genes) are in memory "
        "and the libraries are loaded: the model, an epoch with minibatches of 1,024, the latent "
        "space. A new process for each row; beyond 20,000 the cells repeat.",
        memory_goal,
    ),
    "files": Part(
        "Training from a file",
        _speed_training.files,
        "*none*, from an uncompressed `.h5ad` that is opened with `backed='r'`.",
        lambda row: Goal("x memory", False, 1.15, 1.05),
    ),
    "stores": Part(
        "Reading from a file",
        _speed_scale.stores,
        "Nothing but the reading, in shuffled minibatches of 128, of 100,000 cells x 2000 genes "
        "that the system does not hold in memory; `_annbatch.py`. Training on these cells takes "
        "100 times what *Training* shows for 1,000. All but the h5ad are compressed. *zarrs* is a "
        "faster decoder that zarr can be told to use.",
        needs="python3.12",
    ),
    "processes": Part(
        "Two processes",
        _speed_scale.processes,
        "*none*, `strategy='ddp'` with gloo on the CPU; epochs after the first. The minibatch is "
        "that of each process, so two take half the steps.",
        lambda row: Goal("x one", False, 0.7, 0.55),
    ),
    "anchors": Part(
        "Search for anchors",
        _speed_scale.anchors,
        "`_anchors_at_scale.measure` with 2000 genes and 2 datasets, compilation included. An "
        "epoch is one of *default* with minibatches of 128, at the cost per cell with 20,000.",
        anchors_goal,
    ),
    "kernels": Part(
        "Likelihoods by themselves",
        _speed_likelihood.kernels,
        "Forward and backward. The sparse zero-inflated one is a sketch in "
        "`_speed_likelihood.py` with plain autograd, no part of scovert.",
    ),
    "gpu": Part(
        "Training on a GPU",
        _speed_training.gpu,
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


def header(results: list[dict]) -> str:
    """Say what the results were made with."""
    found: dict[str, set[str]] = {}
    for result in results:
        for name, value in result["made_with"].items():
            found.setdefault(name, set()).add(value)
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in found.items()) + "."


def table(rows: list[dict], part: Part) -> str:
    """Markdown table with a line for each row, and its goal where there is one."""
    goals = [part.goal(row) for row in rows]
    columns = list(rows[0])
    lines = [columns + ["goal"] * any(goals)]
    lines.append(["---"] * len(lines[0]))
    for row, goal in zip(rows, goals, strict=True):
        texts = {column: number(row[column]) for column in columns}
        if goal is not None and not goal.is_met(row[goal.column]):
            texts[goal.column] = f"**{texts[goal.column]}**"
        lines.append([*texts.values(), *([str(goal or "")] * any(goals))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    usual = [name for name, part in PARTS.items() if not part.needs]
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=usual, metavar="NAME")
    parser.add_argument("--gpu", action="store_true", help="only the part that needs a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny data, one round")
    parser.add_argument("--table", action="store_true", help="only render the stored results")
    parser.add_argument("--results", type=Path, help="default: results/speed.jsonl")
    parser.add_argument("--out", type=Path, help="default: results/speed.md")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) if args.quick else HERE / "results"
    args.results = args.results or folder / "speed.jsonl"
    args.out = args.out or folder / "speed.md"
    return args


def main() -> None:
    args = arguments()
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # read when the process of a part starts
    for part in [] if args.table else ["gpu"] if args.gpu else args.parts:
        run(part, args)
    notes = "" if args.quick else NOTES.read_text()
    args.out.write_text(report(read_results(args.results), notes))
    print(f"\n{args.out.read_text()}")


if __name__ == "__main__":
    main()
