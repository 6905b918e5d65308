"""A model and its peers on several sets of data: options, runs, and a table for each set."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from benchmarks.data import first_missing, is_missing
from benchmarks.goals import Goal, goal_lines
from benchmarks.runs import (
    Group,
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

__all__ = ["Comparison"]


@dataclass(frozen=True)
class Comparison:
    """What a benchmark compares, and how it is told.

    Attributes
    ----------
    name, title
        Stem of its files, and heading of the page.
    sets
        Data by name, each with its `file` and what it is `about`.
    methods, columns
        Rows and columns of the tables; of these heading and digits.
    goals
        What is to hold.
    legend
        From all results to what is said of the columns.
    groups
        From the options and the names of the sets that are there to the runs.
    score
        What is measured of a run; takes `max_epochs`.
    seeds, quick_set
        Default seeds, and the set of a smoke run.
    packages
        Whose versions are stored, besides the usual.
    rows_of, rows
        From the results of a set to those of its table, and the methods that these then have.
    """

    name: str
    title: str
    sets: Mapping[str, Any]
    methods: Sequence[str]
    columns: Mapping[str, tuple[str, int]]
    goals: Sequence[Goal]
    legend: Callable[[pd.DataFrame], str]
    groups: Callable[[argparse.Namespace, list[str]], Iterable[Group]]
    score: Callable[..., dict]
    seeds: Sequence[int]
    quick_set: str
    packages: Sequence[str] = ()
    rows_of: Callable[[pd.DataFrame], pd.DataFrame] = lambda found: found
    rows: Sequence[str] = ()

    def main(self, doc: str) -> None:
        """Run what the command line asks for, and render what is stored."""
        known = {"scenarios": self.sets, "methods": self.methods}
        parser = benchmark_parser(doc, self.name, **known)
        seeds = list(self.seeds)
        parser.add_argument("--seeds", nargs="+", type=int, default=seeds, metavar="SEED")
        parser.add_argument("--quick", action="store_true", help="two epochs of one set, one seed")
        args = parsed(parser, self.name)
        if args.quick:
            args.scenarios, args.seeds = [self.quick_set], args.seeds[:1]
        finish(args, self.report, 0 if args.table else self._run(args))

    def _run(self, args: argparse.Namespace) -> int:
        there = [name for name in args.scenarios if not is_missing(name, self.sets[name].file)]
        return run_tasks(
            not_stored(self.groups(args, there), args.results),
            partial(self.score, max_epochs=2 if args.quick else None),
            args,
            made_with=run_facts(*self.packages) | {"threads per run": str(args.threads)},
            summary=lambda result: in_words(result, self.columns),
        )

    def report(self, results: list[dict]) -> str:
        """All tables, in Markdown, with versions and machine in the header."""
        table = pd.DataFrame(results)
        if table.empty:
            return "No results are stored.\n"
        parts = [f"# {self.title}", header(results), self.legend(table)]
        for name, source in self.sets.items():
            rows = table[table["scenario"] == name]
            if len(rows):
                found = self.rows_of(rows), self.columns, self.rows or self.methods
                parts.append(f"## {name}: {source.about}\n\n{method_table(*found)}")
            elif reason := first_missing([source.file]):
                parts.append(f"## {name}: not run, {reason}")
        parts.append("## Goals\n\n" + markdown(goal_lines(self.goals, table)))
        return "\n\n".join(part.strip() for part in parts) + "\n"
