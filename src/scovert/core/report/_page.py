"""Reports as one page of HTML: figures inside, nothing fetched, no script."""

from __future__ import annotations

import base64
import io
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from scovert.core._paths import place_of
from scovert.core._saving import write_whole
from scovert.core.report._parts import Figure, Report, Table

__all__ = ["check_page", "write_reports", "written"]

ENDINGS = (".html", ".htm")
DPI = 160
"""Pixels of an inch of a figure: sharp on a display of twice the usual density, and in print."""
CSS_INCH = 96
"""Pixels of an inch on a page, by the definition of CSS."""
MAX_ROWS, MAX_COLUMNS = 20, 16
"""Of a table on a page: what can be read; a cell has 100 bytes, so 1,000 genes would be 1 MB."""
MAX_CHECKS = 40
"""Checks on a page: those of one arm, twice; of 25 arms there are 500."""
MANY_DIGITS, MOST_DIGITS = 1e3, 1e9
"""Numbers between are written in full: 1,113 and not 1.11e+03."""
MAX_TEXT = 200
"""Characters of the value of a parameter, such as a list of genes."""
PACKAGES = ("scovert", "scvi-tools", "torch", "anndata", "scanpy", "numpy")
CITATION = "scovert developers. scovert {version}: models for single-cell analysis. Software."


class Cells(NamedTuple):
    """A table as text: what a template shows of it."""

    columns: list[str]
    rows: list[list[str]]
    note: str


def write_reports(
    path: str | os.PathLike,
    reports: Sequence[Report],
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write one page with a report after the other.

    Parameters
    ----------
    path
        The file, ending in ``.html``.
    reports
        What it shows.
    title
        Title of the page; `None` takes that of the report.
    overwrite
        Replace a file that is there.
    """
    place = place_of(path, "path", "a file, such as 'report.html'")
    check_page(place, overwrite=overwrite)
    page = _render(reports, title or reports[0].title)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, lambda file: file.write_text(page, encoding="utf-8"))


def written(report: Report, path: str | os.PathLike | None, *, overwrite: bool) -> Report:
    """Return a report, written into a file if there is a place for it."""
    if path is not None:
        write_reports(path, [report], overwrite=overwrite)
    return report


def check_page(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken, and a name that no browser opens."""
    if not path.name.lower().endswith(ENDINGS):
        raise ValueError(
            f"{path} does not end in .html, and a page is written there. Name it "
            f"{path.with_suffix('.html').name}."
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Name a file in it.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Pass another path, or `overwrite=True`.")


def _render(reports: Sequence[Report], title: str) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "brief": _brief,
        "cells": _cells,
        "doubts_first": _doubts_first,
        "picture": _picture,
        "prose": _prose,
    }
    template = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    return environment.from_string(template).render(
        title=title,
        reports=reports,
        most_checks=MAX_CHECKS,
        versions={"Python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        citation=CITATION.format(version=version("scovert")),
        time=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


def _picture(figure: Figure) -> dict[str, object]:
    """Draw a figure, and return its bytes as text and its width on the page in pixels."""
    import matplotlib.pyplot as plt

    with plt.ioff():
        drawn = np.ravel(figure.draw())[0].figure
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(drawn)
    data = buffer.getvalue()
    n_pixels = int.from_bytes(data[16:20], "big")  # where PNG has the width
    return {"data": base64.b64encode(data).decode(), "width": n_pixels * CSS_INCH // DPI}


def _cells(table: Table | pd.DataFrame) -> Cells:
    """Return the first rows and columns of a table as text."""
    values = table.values if isinstance(table, Table) else table
    shown = values.iloc[:MAX_ROWS, :MAX_COLUMNS]
    index = shown.index.to_frame(index=False)
    names = [name if isinstance(name, str) else "" for name in shown.index.names]
    rows = [
        [_text(value) for value in (*label, *row)]
        for label, row in zip(
            index.itertuples(index=False, name=None),
            shown.itertuples(index=False, name=None),
            strict=True,
        )
    ]
    return Cells([*names, *map(str, shown.columns)], rows, _note(table, values.shape))


def _note(table: Table | pd.DataFrame, shape: tuple[int, int]) -> str:
    """Say what of a table is not shown, and where it is."""
    cut = [
        f"the first {most} of {n:,} {what}"
        for n, most, what in zip(shape, (MAX_ROWS, MAX_COLUMNS), ("rows", "columns"), strict=True)
        if n > most
    ]
    if not cut:
        return ""
    whole = f" All of it: {table.whole}" if isinstance(table, Table) else ""
    return f"Shown are {' and '.join(cut)}.{whole}"


def _text(value: object) -> str:
    """Write a cell of a table."""
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return _number(float(value))
    return str(value)


def _number(value: float) -> str:
    """Write three digits, and all of those before the point; zero has no sign."""
    if np.isnan(value):
        return "\N{EN DASH}"
    if MANY_DIGITS <= abs(value) < MOST_DIGITS:
        return f"{value:,.0f}"
    return f"{value + 0.0:.3g}"


def _doubts_first(check: pd.DataFrame) -> pd.DataFrame:
    """Return as many checks as a page shows, with the order kept among doubts and others."""
    if len(check) <= MAX_CHECKS:
        return check
    return check.sort_values("verdict", kind="stable").head(MAX_CHECKS)  # look before ok


def _prose(text: object) -> str:
    """Return a sentence as HTML, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
