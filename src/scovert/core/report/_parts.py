"""The parts of a report: plain data that a model fills in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from scvi.model.base import BaseModelClass

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["Figure", "Report", "Table", "parameters_of"]

MOST_LINES = 12
"""Rows of the overview in a terminal, and doubts: what stands on a screen with the rest."""


@dataclass(frozen=True)
class Figure:
    """A figure that is drawn when a page is written.

    Attributes
    ----------
    title, caption
        What it shows, and how to read it.
    draw
        Returns the axes, or an array of them, of a new figure.
    """

    title: str
    caption: str
    draw: Callable[[], Axes | NDArray]


@dataclass(frozen=True)
class Table:
    """A table, of which a page shows the first rows.

    Attributes
    ----------
    title
        What it shows.
    values
        The whole table, the most important rows first.
    whole
        Where the rest of a long one is: what to call.
    """

    title: str
    values: pd.DataFrame
    whole: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was done, what came out, and whether it can be trusted.

    Attributes
    ----------
    model, title
        Class of the model, and what it did in a few words.
    summary
        What was done and found, a sentence each.
    check
        What ``model.check()`` returns.
    overview
        The numbers that come first, a row for each dataset, arm, type or niche.
    assumptions
        What the results rest on, a sentence each.
    parameters
        What the model was set up and made with.
    references
        What to cite besides scovert.
    figures, tables
        In the order of the page.
    """

    model: str
    title: str
    summary: tuple[str, ...]
    check: pd.DataFrame
    overview: pd.DataFrame
    assumptions: tuple[str, ...]
    parameters: dict[str, object]
    references: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()

    def __str__(self) -> str:
        """Return the text of the report: what was done and found, and what deserves a look."""
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return the text as a terminal shows it, a sentence a line; the overview is one entry."""
        shown = self.overview.head(MOST_LINES).to_string()
        n_more = len(self.overview) - MOST_LINES
        if n_more > 0:
            shown += f"\n... and {n_more} more"
        overview = [shown] if len(self.overview) else []
        return [*self.summary, *overview, self.verdict, *self.advice()]

    def advice(self) -> list[str]:
        """Return what to do about each doubt, of many about the first."""
        doubts = self.doubts
        said = [
            f"{quantity} = {row['value']:.3g}: {row['advice']}"
            for quantity, row in doubts.head(MOST_LINES).iterrows()
        ]
        n_more = len(doubts) - MOST_LINES
        return [*said, f"{n_more} more are in `model.check()`."] if n_more > 0 else said

    @property
    def doubts(self) -> pd.DataFrame:
        """The rows of `check` that deserve a look."""
        return self.check[self.check["verdict"] != "ok"]

    @property
    def verdict(self) -> str:
        """Whether the result can be trusted, as far as the checks know."""
        n, n_doubts = len(self.check), len(self.doubts)
        if n_doubts == 0:
            return f"Nothing in the {n} checks speaks against the result."
        deserve = "deserves" if n_doubts == 1 else "deserve"
        return f"{n_doubts} of {n} checks {deserve} a look before the result is used:"


def parameters_of(model: BaseModelClass) -> dict[str, object]:
    """Return what a model was set up and made with, but for what was left open."""
    given = model.registry["setup_args"] | model.init_params_["non_kwargs"]
    return {name: value for name, value in given.items() if value is not None}
