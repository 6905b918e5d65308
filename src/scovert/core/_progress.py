"""Progress of one stage of a computation: a line on a terminal, a line a minute in a log."""

from __future__ import annotations

import io
import shutil
import sys
from typing import TextIO

from tqdm.auto import tqdm as auto
from tqdm.notebook import tqdm_notebook
from tqdm.std import tqdm

from scovert._settings import settings

__all__ = ["stage"]

MINUTE = 60.0
"""Seconds between the lines of a log, which is read afterwards; shorter stages leave none."""
MOMENT = 0.5
"""Seconds of a stage that is not shown: nobody could read it."""


class _Lines(io.TextIOBase):
    """A stream on which what would be drawn over itself stands in lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        line = text.replace("\r", "").strip()
        return self._stream.write(f"{line}\n") if line else 0

    def flush(self) -> None:
        self._stream.flush()


def stage(
    title: str,
    total: int,
    *,
    unit: str,
    may_end_early: bool = False,
    initial: int = 0,
    is_shown: bool = True,
) -> tqdm:
    """Show how far a stage has come, on stderr, and how long it still takes.

    Parameters
    ----------
    title
        What is done.
    total
        Steps of it.
    unit
        What a step is.
    may_end_early
        Whether `total` is only a bound.
    initial
        Steps that were made before.
    is_shown
        Show it, unless `scovert.settings` says otherwise.

    Returns
    -------
    A bar of tqdm: a context with ``update``.
    """
    most = "at most " if may_end_early else ""
    bar = "" if may_end_early else "{bar:20} "
    options = {
        "desc": title,
        "total": total,
        "unit": unit,
        "initial": initial,
        "disable": not (is_shown and settings.shows_progress),
        "bar_format": f"{{desc}}: {bar}{unit} {{n_fmt}} of {most}{{total_fmt}} "
        f"[{{elapsed}}, {most}{{remaining}} left{{postfix}}]",
    }
    if issubclass(auto, tqdm_notebook):
        return auto(**options)
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        return tqdm(file=sys.stderr, ncols=width, delay=MOMENT, **options)
    options["bar_format"] = options["bar_format"].replace(bar, "")
    slow = {"delay": MINUTE, "mininterval": MINUTE, "maxinterval": MINUTE, "miniters": 1}
    return tqdm(file=_Lines(sys.stderr), **slow, **options)
