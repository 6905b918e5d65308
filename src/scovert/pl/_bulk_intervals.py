"""Proportions with their intervals, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._labelled import by_name
from scovert.pl._composition import (
    as_fractions,
    name_samples,
    same_entries,
    shortened,
)
from scovert.pl._input import finish, fit_figure, room_for
from scovert.pl._marks import BLUE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["intervals"]

_MAX_COLUMNS, _WIDEST = 4, 11.0  # panels beside each other, and inches for them, as on a slide
_HEIGHT = 1.4  # inches, of a panel: half of one that stands alone
_MANY = 60  # samples; the large points of more touch each other
_ROOM = 1.06  # times the highest interval, so that its end is seen


def intervals(
    proportions: pd.DataFrame,
    lower: pd.DataFrame,
    upper: pd.DataFrame,
    *,
    measured: pd.DataFrame | None = None,
    types: Sequence[str] | None = None,
    show: bool = False,
) -> NDArray:
    """Draw the proportions of each type in all samples with their intervals (array of Axes).

    Parameters
    ----------
    proportions
        Estimated fractions of cells, samples x types, such as ``result.proportions``.
    lower, upper
        Ends of the intervals, tables like `proportions`, such as ``result.lower`` and
        ``result.upper``, or ``result.relative_lower`` and ``result.relative_upper``.
    measured
        Measured fractions to mark, samples x types, for some of the samples and types; NaN where
        nothing was measured.
    types
        Types to draw; `None` for all.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    Array of :class:`matplotlib.axes.Axes`, one for each type, shape ``(n_types,)``. With
    `measured`, the title says how many of the measured values are within their intervals.

    Raises
    ------
    TypeError
        If a table is not a DataFrame of numbers, or `types` is one name.
    KeyError
        If a type is not a column.
    ValueError
        If the tables differ in the names of their samples or types, hold what is not a fraction,
        or an upper end is below the lower one.

    Examples
    --------
    >>> import scovert
    >>> samples = scovert.simulate.bulk(scovert.data.pbmc68k(), "cell_type", n_samples=6)
    >>> truth = samples.obsm["truth_proportions"]
    >>> axes = scovert.pl.intervals(truth, 0.8 * truth, (1.2 * truth).clip(upper=1))
    >>> len(axes)
    10
    """
    tables = _check(proportions, lower, upper)
    chosen = _choose(types, tables[0].columns)
    marks = None
    if measured is not None:
        marks = as_fractions("measured", measured, allow_missing=True)
        same_entries("proportions", proportions, "measured", marks)
        marks = marks.reindex(index=proportions.index, columns=chosen)
    axes = _panels(len(chosen), proportions.index)
    for ax, label in zip(axes, chosen, strict=True):
        own = [table[label].to_numpy() for table in tables]
        _draw(ax, label, own, None if marks is None else marks[label].to_numpy())
    _draw_legend(axes)
    fit_figure(axes, room_for(len(proportions)), _HEIGHT)
    return finish(axes, show=show)


def _panels(n_panels: int, samples: pd.Index) -> NDArray:
    """Return axes, of which the lowest of each column have the names of the samples."""
    import matplotlib.pyplot as plt

    width = room_for(len(samples))
    n_columns = max(1, min(_MAX_COLUMNS, n_panels, int(_WIDEST // width)))
    n_rows = -(-n_panels // n_columns)
    figure, grid = plt.subplots(n_rows, n_columns, squeeze=False, layout="constrained")
    for i, ax in enumerate(grid.flat):
        if i >= n_panels:
            ax.remove()
        elif i + n_columns >= n_panels:
            name_samples(ax, samples)
        else:
            name_samples(ax, [""] * len(samples))
            ax.set(xticks=[], xlabel="")
    figure.supylabel("proportion", fontsize="medium")
    return grid.flat[:n_panels]


def _draw(ax: Axes, label: str, own: list[NDArray], measured: NDArray | None) -> None:
    """Draw one panel; `own` holds the proportion of each sample and the ends of its interval."""
    x, (estimate, low, high) = np.arange(len(own[0])), own
    size = 2 if len(x) > _MANY else 4
    ax.vlines(x, low, high, color=BLUE, alpha=0.45, linewidth=size, label="interval")
    ax.plot(x, estimate, "o", color=BLUE, markersize=size, label="estimated")
    title, top = shortened(label), high.max()
    if measured is not None and np.isfinite(measured).any():
        is_there = np.isfinite(measured)
        is_within = (low <= measured) & (measured <= high)
        style = {"color": ORANGE, "markersize": size + 1, "markeredgewidth": 1.5}
        ax.plot(x[is_there], measured[is_there], "x", label="measured", **style)
        title += f": {is_within.sum()} of {is_there.sum()} within"
        top = max(top, measured[is_there].max())
    ax.set_title(title, fontsize="medium")
    ax.set_ylim(0, _ROOM * top if top > 0 else 1)
    ax.spines[["top", "right"]].set_visible(False)


def _draw_legend(axes: NDArray) -> None:
    handles = {}
    for ax in axes:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    axes[0].figure.legend(
        handles.values(), handles.keys(), loc="outside right upper", frameon=False
    )


def _check(*tables: pd.DataFrame) -> list[pd.DataFrame]:
    """Return proportions, lower and upper ends as tables of the same samples and types."""
    names = ("proportions", "lower", "upper")
    checked = [as_fractions(name, table) for name, table in zip(names, tables, strict=True)]
    first, low, high = checked = by_name(**dict(zip(names, checked, strict=True)))
    crossed = (low > high).to_numpy()
    if crossed.any():
        row, column = np.argwhere(crossed)[0]
        raise ValueError(
            f"`lower` is above `upper` for {first.index[row]!r}, {first.columns[column]!r}. Pass "
            "the lower ends first."
        )
    return checked


def _choose(types: Sequence[str] | None, there: pd.Index) -> list[str]:
    if isinstance(types, str):
        raise TypeError(f"`types={types!r}` is a string. Pass a list: `[{types!r}]`.")
    missing = [label for label in types or [] if label not in there]
    if missing:
        raise KeyError(
            f"`types` holds {missing}, which are no columns of `proportions` (columns: "
            f"{list(there)}). Name some of these."
        )
    return list(there if types is None else types)
