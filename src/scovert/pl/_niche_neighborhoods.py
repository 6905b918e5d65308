"""What is around some cells, beside what a model says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.core._checks import some_of
from scovert.pl._bulk_samples import (
    as_fractions,
    draw_legend,
    height_of,
    legend_size,
    shortened,
    type_colours,
)
from scovert.pl._input import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["neighborhoods"]

_HEIGHT, _MARGIN, _PER_CELL = 3.0, 0.6, 0.5  # in inches
_WIDTH, _APART = 0.36, 0.2  # of a bar, and of the centres of two from that of the cell


def neighborhoods(
    observed: pd.DataFrame,
    predicted: pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Draw the neighbours of cells by their labels: left the true ones, right those predicted.

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
    import matplotlib.pyplot as plt

    tables = _same(as_fractions("observed", observed), as_fractions("predicted", predicted))
    names, labels = tables[0].index, tables[0].columns
    legend = legend_size(labels)
    width = _PER_CELL * len(names) + legend[0] + 2 * _MARGIN
    ax = axes_or_new(ax, (width, max(_HEIGHT + height_of(names), legend[1] + _MARGIN)))
    x = np.arange(len(names))
    for place, table in zip((-_APART, _APART), tables, strict=True):
        bottom = np.zeros(len(names))
        for colour, (label, values) in zip(type_colours(labels), table.items(), strict=True):
            name = shortened(label) if place < 0 else None
            style = {"color": colour, "linewidth": 0.4, "edgecolor": "white"}
            ax.bar(x + place, values, _WIDTH, bottom, label=name, **style)
            bottom += values.to_numpy()
    ax.set_xticks(x, [shortened(name) for name in names], rotation=90)
    ax.set(ylabel="share of neighbours", xlabel="left: true, right: predicted", ylim=(0, 1))
    ax.spines[["top", "right"]].set_visible(False)
    draw_legend(ax, len(labels), reverse=True, handlelength=1)  # as in the bars
    if show:
        plt.show()
    return ax


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
