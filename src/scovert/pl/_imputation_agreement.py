"""Imputed against counted totals of genes that were held back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.core._words import a_kind_of
from scovert.pl._input import PANEL, axes_or_new, finish, fit_figure
from scovert.pl._marks import MARKERS, OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["imputation_agreement"]

_DECADES = 2.0  # of totals, below which 2 and 5 are marked, too
_COLUMNS = ("dataset", "kind", "total", "imputed_total", "lower", "upper")


def imputation_agreement(
    genes: pd.DataFrame, *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw imputed against counted totals of genes that were held back (Axes).

    Parameters
    ----------
    genes
        What :meth:`scovert.model.MaskedImputation.get_gene_agreement` returns; of its rows those
        of the kind ``"imputed"`` are drawn.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, both in counts on a logarithmic scale, with the identity as a dashed line, a colour
    for each dataset and, in the title, the median distance of the totals and the share of genes
    inside their intervals.

    Raises
    ------
    TypeError
        If `genes` is no DataFrame.
    KeyError
        If it lacks a column.
    ValueError
        If no gene was held back.

    Examples
    --------
    >>> import pandas as pd, scovert
    >>> table = pd.DataFrame({"dataset": "panel", "kind": "imputed", "total": [30.0, 200.0]})
    >>> table = table.assign(imputed_total=[60.0, 200.0], lower=[20.0, 90.0], upper=[90.0, 400.0])
    >>> scovert.pl.imputation_agreement(table).get_title()
    'median factor 1.41, 2 of 2 genes inside'
    """
    drawn = _held_back(genes)
    given, ax = ax, axes_or_new(ax)
    for i, (name, own) in enumerate(drawn.groupby("dataset", sort=True, observed=True)):
        known = own.dropna(subset=["lower", "upper"])
        style = {"color": OKABE_ITO[i % len(OKABE_ITO)]}
        ax.vlines(known["total"], known["lower"], known["upper"], alpha=0.5, linewidth=1, **style)
        marker = MARKERS[i % len(MARKERS)]
        ax.scatter(own["total"], own["imputed_total"], s=14, marker=marker, label=name, **style)
    ends = [drawn[["total", "imputed_total"]].min().min(), drawn["total"].max()]
    ax.plot(ends, ends, color="0.5", linestyle="--", linewidth=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="counted total",
        ylabel="imputed total",
    )
    ax.set_title(_describe(drawn), fontsize="medium")
    for axis in (ax.xaxis, ax.yaxis):
        _mark(axis)
    ax.spines[["top", "right"]].set_visible(False)
    if drawn["dataset"].nunique() > 1:
        ax.legend(frameon=False, title="dataset")
    if given is None:
        fit_figure(ax, PANEL[0], PANEL[0])
    return finish(ax, show=show)


def _mark(axis: Axis) -> None:
    """Write powers of ten as numbers, and some between if there are few, that none touch."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axis.get_view_interval()
    is_narrow = low > 0 and np.log10(high / low) < _DECADES
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_narrow else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    axis.set_minor_formatter(NullFormatter())


def _held_back(genes: pd.DataFrame) -> pd.DataFrame:
    """Return the rows to draw, once the table was checked."""
    if not isinstance(genes, pd.DataFrame):
        raise TypeError(
            f"`genes` is {a_kind_of(genes)}. Pass the DataFrame that "
            "`model.get_gene_agreement()` returns."
        )
    missing = [column for column in _COLUMNS if column not in genes]
    if missing:
        raise KeyError(
            f"`genes` has no columns {missing} (columns: {list(genes.columns)}). Pass the "
            "DataFrame that `model.get_gene_agreement()` returns."
        )
    drawn = genes[genes["kind"] == "imputed"]
    if len(drawn) == 0:
        raise ValueError(
            f"`genes` has {len(genes)} rows, and none of the kind 'imputed': no genes were held "
            "back. Fit a model with `calibration=0.1`."
        )
    return drawn


def _describe(drawn: pd.DataFrame) -> str:
    off = np.log2((drawn["imputed_total"] + 0.5) / (drawn["total"] + 0.5)).abs()
    known = drawn.dropna(subset=["lower", "upper"])
    inside = known["total"].between(known["lower"], known["upper"]).sum()
    return f"median factor {2 ** off.median():.2f}, {inside} of {len(known)} genes inside"
