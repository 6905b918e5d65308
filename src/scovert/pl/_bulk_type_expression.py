"""Expression of genes by cell type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.core._checks import check_number
from scovert.pl._composition import as_table, shortened
from scovert.pl._input import PER_ENTRY, axes_or_new, finish, fit_figure, room_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["type_expression"]

_MOST_NAMED = 90  # genes; the small names of more touch each other
_OFFSET = 50  # CPM, so that genes that hardly any type has are not specific
_COVERED = 98  # percentile of the values that the colours cover, or one gene would take them all


def type_expression(
    expression: pd.DataFrame,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 5,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    r"""Draw the expression of genes by cell type as a heatmap (Axes).

    Without `genes` those are drawn that are most specific to each type: the ones with the largest
    :math:`\log_2 (x_k + 50) - \max_{j \neq k} \log_2 (x_j + 50)`.

    Parameters
    ----------
    expression
        Counts per million of two or more types, types x genes or (condition, type) x genes, such
        as ``model.get_cell_type_expression(bulk).expression``. The conditions of a type are drawn
        below each other.
    genes
        Genes to draw, in this order; `None` for the most specific.
    n_genes
        How many of each type are drawn without `genes`, at least 1.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, genes in columns and types in rows; those of the colour bar are the last of the
    figure. Lines part the genes of different types.

    Raises
    ------
    TypeError
        If `expression` is not a DataFrame of numbers, or `genes` is one name.
    KeyError
        If a gene is not a column.
    ValueError
        If a value is negative or not finite, or there is one type or no specific gene.

    Examples
    --------
    >>> import pandas as pd
    >>> from scovert.pl import type_expression
    >>> table = pd.DataFrame({"CD79A": [900.0, 8.0], "CD3E": [5.0, 700.0]}, index=["B", "T"])
    >>> [label.get_text() for label in type_expression(table, n_genes=1).get_xticklabels()]
    ['CD79A', 'CD3E']
    """
    table, names = _check(expression)
    check_number("n_genes", n_genes, 1, whole=True)
    if genes is None:
        chosen, ends = _top(table.groupby(level=-1, sort=False).mean(), n_genes)
    else:
        chosen, ends = _named(genes, table.columns), []
    values = np.log2(table[chosen].to_numpy() + 1)  # (n_rows, n_genes)
    top = max(np.percentile(values, _COVERED), 1)
    given, ax = ax, axes_or_new(ax)
    image = ax.imshow(
        values, aspect="auto", cmap="Reds", vmin=0, vmax=top, interpolation="nearest"
    )
    for end in ends:
        ax.axvline(end - 0.5, color="0.3", linewidth=0.8)
    ax.set_yticks(range(len(values)), names)
    if len(chosen) > _MOST_NAMED:
        ax.set_xticks([])
        ax.set_xlabel(f"{len(chosen):,} genes")
    else:
        ax.set_xticks(range(len(chosen)), chosen, rotation=90, fontsize="small")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, label="$\\log_2$ (CPM + 1)", pad=0.02, extend="max")
    bar.outline.set_visible(False)
    if given is None:
        fit_figure(ax, room_for(len(chosen)), PER_ENTRY * len(values))
    return finish(ax, show=show)


def _top(table: pd.DataFrame, n_genes: int) -> tuple[list[str], list[int]]:
    """Return the genes most specific to each type, and where the genes of a type end."""
    logs = np.log2(table.to_numpy() + _OFFSET)  # (n_types, n_genes)
    two = np.sort(logs, axis=0)[-2:]
    gain = logs - np.where(logs == two[1], two[0], two[1])  # over the largest of the others
    best = gain.argmax(axis=0)
    chosen: list[int] = []
    ends = []
    for k, own_gain in enumerate(gain):
        own = np.flatnonzero((best == k) & (own_gain > 0))
        chosen += own[np.argsort(-own_gain[own], kind="stable")][:n_genes].tolist()
        ends.append(len(chosen))
    if not chosen:
        raise ValueError(
            "No gene of `expression` differs between the types, so none is specific to one. Name "
            "`genes` to draw."
        )
    return list(table.columns[chosen]), sorted(set(ends) - {0, len(chosen)})


def _named(genes: Sequence[str], there: pd.Index) -> list[str]:
    if isinstance(genes, str):
        raise TypeError(f"`genes={genes!r}` is a string. Pass a list: `[{genes!r}]`.")
    missing = [gene for gene in genes if gene not in there]
    if missing:
        raise KeyError(
            f"`genes` holds {missing[:3]}, which are no columns of `expression` ({len(there)} "
            f"genes, such as {list(there[:3])}). Types are rows and genes are columns."
        )
    return list(genes)


def _check(expression: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the table with the rows of a type together, and what to call the rows."""
    table = as_table("expression", expression)
    types = table.index.unique(-1)
    lowest = table.to_numpy().min()
    if len(types) < 2 or lowest < 0:
        raise ValueError(
            f"`expression` has {len(types)} types and values from {lowest:.3g} on. Two or more "
            "types in rows, genes in columns and counts per million of at least 0 are accepted."
        )
    if table.index.nlevels == 1:
        return table, [shortened(label) for label in types]
    is_single = len(table.index.unique(0)) == 1
    rows = sorted(range(len(table)), key=lambda i: types.get_loc(table.index[i][-1]))
    table = table.iloc[rows]
    names = [
        shortened(label) if is_single else f"{shortened(label)}, {condition}"
        for condition, label in table.index
    ]
    return table, names
