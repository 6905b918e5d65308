"""Paragraphs that docstrings of several models share."""

from __future__ import annotations

import inspect
import re
from textwrap import dedent, indent
from typing import TypeVar

__all__ = ["shares_paragraphs"]

Class = TypeVar("Class", bound=type)

PLACE = re.compile(r"^(?P<margin> +)\{(?P<name>\w+)\}$", re.MULTILINE)
"""A line that holds nothing but the name of a paragraph."""
PARAGRAPHS = {
    "checkpoint_dir": """\
        Folder for the state of training, written at the beginning of every epoch, and for the
        best model so far (:meth:`load` reads it). Training that was cut off goes on from there
        when the same call is made again, to the same result.""",
    "trainer_kwargs": """\
        For :class:`scvi.train.Trainer`, such as ``accelerator``, ``devices``,
        ``early_stopping_patience``, ``logger`` or ``enable_progress_bar``.""",
    "not_finite": """\
        If a term of the loss or the gradient became NaN or infinite. It names the term, the
        step and the cells or samples; the model has its best state, or that of the beginning of
        the epoch.""",
    "rows": """\
        Rows of `adata` in the order of the result, or a mask.""",
    "write_layer": """\
        Write the layer, a dense matrix of cells x genes.""",
    "overwrite": """\
        Replace slots that something else wrote.""",
    "check": """\
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``.""",
    "page": """\
        The file, ending in ``.html``; `None` writes none. It holds its figures, needs no
        network, and runs no script.""",
    "overwrite_page": """\
        Replace a file that is there.""",
    "report": """\
        :class:`Report`, which prints as a summary of a few lines.

        Raises
        ------
        FileExistsError
            If there is a file and `overwrite` is not set.""",
}


def shares_paragraphs(cls: Class) -> Class:
    """Write out the paragraphs that docstrings of the methods of a class name in braces."""
    for member in vars(cls).values():
        method = getattr(member, "__func__", member)
        if inspect.isfunction(method) and method.__doc__:
            method.__doc__ = PLACE.sub(_paragraph, method.__doc__)
    return cls


def _paragraph(place: re.Match) -> str:
    return indent(dedent(PARAGRAPHS[place["name"]]), place["margin"])
