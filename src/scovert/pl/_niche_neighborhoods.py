"""What is around some cells, beside what a model says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.core._checks import some_of
from scovert.pl._composition import as_fractions, bar_styles, draw_legend, shortened
from scovert.pl._input import PANEL, PER_ENTRY, axes_or_new, finish, fit_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["neighborhoods"]

_WIDTH, _APART = 0.36, 0.2  # of a bar, and of the centres of two from that of the cell


def neighborhoods(
    observed: pd.DataFrame,
    predicted: pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Draw the neighbours of cells by label: left the true ones, right those predicted (Axes).

    Parameters
    ----------
    observed, predicted
        Shares of labels, cells x labels, such as ``model.get_observed_composition(indices=rows)``
        and ``model.get_neighborhood_composition(indices=rows, labels_key="cell_type")``, matched
        by name. Draw a dozen cells at most.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If a table is empty, holds what is no fraction, or the names differ.

    Examples
    --------
    >>> import pandas as pd
    >>> from scovert.pl import neighborhoods
    >>> true = pd.DataFrame({"B": [0.5, 0.0], "T": [0.5, 1.0]}, ["cell_1", "cell_2"])
    >>> ax = neighborhoods(true, true)
    >>> ax.get_ylabel()
    'share of neighbours'
    """
    tables = _same(as_fractions("observed", observed), as_fractions("predicted", predicted))
    names, labels = tables[0].index, tables[0].columns
    given, ax = ax, axes_or_new(ax)
    x = np.arange(len(names))
    for place, table in zip((-_APART, _APART), tables, strict=True):
        bottom = np.zeros(len(names))
        for own, (label, values) in zip(bar_styles(labels), table.items(), strict=True):
            name = shortened(label) if place < 0 else None
            style = own | {"linewidth": 0.4, "edgecolor": "white"}
            ax.bar(x + place, values, _WIDTH, bottom, label=name, **style)
            bottom += values.to_numpy()
    ax.set_xticks(x, [shortened(name) for name in names], rotation=90)
    ax.set(ylabel="share of neighbours", xlabel="left: true, right: predicted", ylim=(0, 1))
    ax.spines[["top", "right"]].set_visible(False)
    draw_legend(ax, len(labels), reverse=True, handlelength=1)  # as in the bars
    if given is None:
        fit_figure(ax, max(PANEL[0], 2 * PER_ENTRY * len(names)), PANEL[1])
    return finish(ax, show=show)


def _same(observed: pd.DataFrame, predicted: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    for what, a, b in (
        ("cells", observed.index, predicted.index),
        ("labels", observed.columns, predicted.columns),
    ):
        unlike = a.symmetric_difference(b)
        if len(unlike):
            raise ValueError(
                f"`observed` and `predicted` have different {what}, such as {some_of(unlike)}. "
                "Pass the same cells with the same `labels_key`."
            )
    return observed, predicted.loc[observed.index, observed.columns]
