"""Composition of each sample, stacked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.pl._composition import (
    as_fractions,
    bar_styles,
    draw_legend,
    name_samples,
    shortened,
)
from scovert.pl._input import PANEL, axes_or_new, finish, fit_figure, room_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["proportions"]

_GAP, _EDGE = 0.15, 0.4  # between bars (in bars), and between types (points, 1/72 inch)
_MANY = 60  # samples, of which the bars stand without a gap: it would be finer than a pixel


def proportions(proportions: pd.DataFrame, *, ax: Axes | None = None, show: bool = False) -> Axes:
    """Draw the composition of each sample as a stacked bar (Axes).

    Parameters
    ----------
    proportions
        Fractions of cells, or of mRNA, samples x types, such as ``result.proportions`` or
        ``bulk.obsm["bulk_proportions"]``. Bars stand in the order of the rows, types from the
        bottom in the order of the columns; a column ``"unknown"`` is grey.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes. Of more than 60 samples the number stands below the axis in place of the names.

    Raises
    ------
    TypeError
        If `proportions` is not a DataFrame of numbers.
    ValueError
        If it is empty, or holds what is not a fraction.

    Examples
    --------
    >>> import scovert
    >>> samples = scovert.simulate.bulk(scovert.data.pbmc68k(), "cell_type", n_samples=6)
    >>> ax = scovert.pl.proportions(samples.obsm["truth_proportions"])
    >>> ax.get_ylabel()
    'proportion'
    """
    table = as_fractions("proportions", proportions)
    given, ax = ax, axes_or_new(ax)
    x, bottom = np.arange(len(table)), np.zeros(len(table))
    width, edge = (1, 0) if len(table) > _MANY else (1 - _GAP, _EDGE)
    style = {"linewidth": edge, "edgecolor": "white"}
    for own, (label, values) in zip(bar_styles(table.columns), table.items(), strict=True):
        ax.bar(x, values, width, bottom, label=shortened(label), **own, **style)
        bottom += values.to_numpy()
    name_samples(ax, table.index)
    ax.set(ylabel="proportion", ylim=(0, max(1.0, bottom.max())))
    ax.spines[["top", "right"]].set_visible(False)
    draw_legend(ax, table.shape[1], reverse=True, handlelength=1)  # as in the bars
    if given is None:
        fit_figure(ax, room_for(len(table)), PANEL[1])
    return finish(ax, show=show)
