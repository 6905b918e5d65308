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
from datetime import date
from pathlib import Path

import torch

from benchmarks.goals import Goal
from benchmarks.processes import in_new_process, limit_threads
from benchmarks.runs import (
    RESULTS,
    header,
    markdown,
    parsed,
    read_results,
    results_parser,
    run_facts,
)
from benchmarks.speed.parts import PARTS, Part, measure
from benchmarks.speed.training import quiet

NOTES = RESULTS / "speed_notes.md"

LEGEND = """\
CPU seconds of one thread, in a process for each part; those that are compared take turns, and the
smallest of the rounds counts. Data are negative binomial counts of two datasets, 8 % not zero
(`simulate` of `speed/anchors.py`). SCVI is `SCVI(gene_likelihood="nb")`, *none* is
`PairedVAE(alignment="none")`, which has the same networks and the same ELBO, *default* is
`PairedVAE()`, which pulls anchored cells together. A bold number misses its goal.
"""


def run(name: str, args: argparse.Namespace) -> None:
    """Measure a part in a new process and store its rows in place of the last ones."""
    rows = in_new_process(measure, name, args.quick, prepare=quiet)
    if not rows:
        print(f"{name} was not run: it needs {PARTS[name].needs}.")
        return
    made_with = setting()
    others = [row for row in read_results(args.results) if row["part"] != name]
    new = [{"part": name, "row": row, "made_with": made_with} for row in rows]
    args.results.write_text("".join(json.dumps(row) + "\n" for row in others + new))


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
