"""A goal of a benchmark: the number that decides it, and its line in a table."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["Goal", "goal_lines"]

COMPARE = {"<=": operator.le, ">=": operator.ge, ">": operator.gt, "<": operator.lt}
Bound = float | tuple[float, float]


class Goal(NamedTuple):
    """A number and what it has to be.

    Attributes
    ----------
    about
        In words.
    value
        The number, of results; raises `KeyError` where it is not measured.
    relation, bound
        A comparison, or ``"in"`` a range; without a bound the number is only shown.
    aim
        Where it is heading.
    """

    about: str
    value: Callable[[object], float]
    relation: str
    bound: Bound | None
    aim: Bound | None = None

    @property
    def wanted(self) -> str:
        return "-" if self.bound is None else f"{self.relation} {words(self.bound)}"

    def met(self, value: float) -> str:
        if self.bound is None:
            return "-"
        return "yes" if self.is_met(value) else "**no**"

    def is_met(self, value: float) -> bool:
        if self.relation == "in":
            return self.bound[0] <= value <= self.bound[1]
        return COMPARE[self.relation](value, self.bound)


def words(bound: Bound | None) -> str:
    if bound is None:
        return "-"
    return f"{bound[0]:g} to {bound[1]:g}" if isinstance(bound, tuple) else f"{bound:g}"


def goal_lines(goals: Iterable[Goal], results: object) -> list[list[str]]:
    """One line for each goal: its number, and whether it is met."""
    goals = list(goals)
    has_aims = any(goal.aim is not None for goal in goals)
    lines = [["goal", "wanted", *(["aim"] * has_aims), "value", "met"]]
    for goal in goals:
        aim = [words(goal.aim)] * has_aims
        try:
            value = float(goal.value(results))
        except KeyError:
            value = math.nan
        if math.isnan(value):
            lines.append([goal.about, goal.wanted, *aim, "not measured", "-"])
            continue
        lines.append([goal.about, goal.wanted, *aim, f"{value:.4g}", goal.met(value)])
    return lines
