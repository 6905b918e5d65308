"""Effects and their q-values, before and after adjustment."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._checks import check_number
from scovert.pl._input import PANEL, check_effects, describe_left_out, finish, fit_figure
from scovert.pl._labels import draw_labels
from scovert.pl._marks import BLUE, GREEN, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["volcano"]

_PANELS = {  # title: columns
    "Unadjusted": ("log2_fc_naive", "q_value_naive"),
    "Adjusted": ("log2_fc", "q_value"),
}
_GROUPS = {  # colour and marker, in the order of drawing
    "neither": ("0.75", "o"),
    "unadjusted only": (ORANGE, "s"),
    "adjusted only": (GREEN, "D"),
    "both": (BLUE, "o"),
}
_SMALLEST = 1e-300  # q-values below count as this; doubles end at 2e-308
_COVERED = 98  # percentile of the called genes that a panel covers, whatever the few others are
_BEYOND = 1.3  # times that height is covered too, if it shows all of them
_MARGIN = 1.08  # of the height, above the highest point, for the names
_LINE = 100  # characters of a line of the caption: what small text fits below two panels


def volcano(
    effects: pd.DataFrame, *, fdr: float = 0.05, n_labels: int = 10, show: bool = False
) -> NDArray:
    """Draw effects against q-values, unadjusted left and adjusted right (array of Axes).

    A gene has the same colour and shape in both panels: they say which analysis calls it.
    Triangles at the upper edge are genes with a still smaller q-value.

    Parameters
    ----------
    effects
        Effects by gene with the columns `log2_fc`, `q_value`, `log2_fc_naive` and
        `q_value_naive`, from ``model.get_treatment_effects()``.
    fdr
        False discovery rate: genes with a q-value below are called.
    n_labels
        Names to write next to genes, in both panels: those that the adjusted analysis calls with
        the smallest q-values. One for which there is no room is left out.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    Array of two :class:`matplotlib.axes.Axes`. Genes without an effect or a q-value are left out
    of a panel, and counted in the caption of the figure with the reasons.

    Raises
    ------
    TypeError
        If `effects` is not a DataFrame.
    KeyError
        If a column is missing.
    ValueError
        If there are several arms, or `fdr` or `n_labels` is out of range.

    Examples
    --------
    >>> import pandas as pd
    >>> from scovert.pl import volcano
    >>> effects = pd.DataFrame(
    ...     {
    ...         "log2_fc": [0.1, 1.0],
    ...         "q_value": [0.9, 0.001],
    ...         "log2_fc_naive": [0.6, 1.1],
    ...         "q_value_naive": [0.01, 0.001],
    ...     }
    ... )
    >>> [ax.get_title() for ax in volcano(effects)]
    ['Unadjusted: 2 called', 'Adjusted: 1 called']
    """
    import matplotlib.pyplot as plt

    check_effects(effects, [column for columns in _PANELS.values() for column in columns])
    check_number("fdr", fdr, 0, 1)
    check_number("n_labels", n_labels, 0, whole=True)
    groups = _groups(effects, fdr)
    top = _top(effects, fdr)
    figure, axes = plt.subplots(1, 2, sharex=True, sharey=True, layout="constrained")
    for ax, (name, columns) in zip(axes, _PANELS.items(), strict=True):
        _draw(ax, effects[list(columns)], groups, top)
        q = effects[columns[1]]
        ax.axhline(-np.log10(fdr), color="0.4", linestyle="--", linewidth=1)
        ax.axvline(0, color="0.4", linewidth=0.5)
        n_called = f"{(q < fdr).sum():,} called"
        title = f"{name}: {'no q-values' if _is_missing(effects, name).all() else n_called}"
        ax.set(title=title, xlabel="$\\log_2$ fold change")
    axes[0].set(ylabel="$-\\log_{10}$ q-value", ylim=(-0.02 * top, _MARGIN * top))
    is_drawn = ~np.all([_is_missing(effects, name) for name in _PANELS], axis=0)
    _draw_legend(axes[1], groups[is_drawn])
    figure.supxlabel(_caption(effects, top), fontsize="small", color="0.4")
    fit_figure(axes, *PANEL)
    labelled = _most_significant(effects, fdr, n_labels)
    for ax, columns in zip(axes, _PANELS.values(), strict=True):
        _label(ax, effects[list(columns)], labelled, top)
    return finish(axes, show=show)


def _is_missing(effects: pd.DataFrame, panel: str) -> NDArray:
    return effects[list(_PANELS[panel])].isna().any(axis=1).to_numpy()


def _caption(effects: pd.DataFrame, top: float) -> str:
    """Say what triangles are, if there are any, and which genes are left out of which panel."""
    lines = []
    if any((_height(effects[q]) > top).any() for _, q in _PANELS.values()):
        lines.append(f"Triangles: genes with a q-value below {10**-top:.0e}, drawn at the edge.")
    notes = {name: describe_left_out(effects, _is_missing(effects, name)) for name in _PANELS}
    if len(set(notes.values())) == 1:
        notes = {"": notes["Unadjusted"]}
    for name, note in notes.items():
        if note:
            count, *reasons = note.splitlines()
            panel = f"{name}: " if name else ""
            lines.append(f"{panel}{' '.join([count, '; '.join(reasons)]).strip()}.")
    return "\n".join(part for line in lines for part in textwrap.wrap(line, _LINE))


def _most_significant(effects: pd.DataFrame, fdr: float, n_labels: int) -> NDArray:
    """Rows of the called genes with the smallest q-values, of equal ones the larger effects."""
    q, effect = effects["q_value"].to_numpy(float), effects["log2_fc"].abs().to_numpy(float)
    order = np.lexsort((-effect, q))
    return order[q[order] < fdr][:n_labels]


def _label(ax: Axes, table: pd.DataFrame, rows: NDArray, top: float) -> None:
    """Write the names of these genes; the columns of `table` are effect and q-value."""
    effect, height = table.iloc[:, 0].to_numpy(float), _height(table.iloc[:, 1])
    xy = np.column_stack([effect, np.minimum(height, top)])
    is_drawn = np.isfinite(xy).all(axis=1)
    rows = rows[is_drawn[rows]]
    draw_labels(ax, table.index[rows].astype(str), xy[rows], xy[is_drawn])


def _groups(effects: pd.DataFrame, fdr: float) -> NDArray:
    """Which analysis calls each gene, shape ``(n_genes,)``."""
    unadjusted, adjusted = (
        effects[columns[1]].to_numpy(float) < fdr for columns in _PANELS.values()
    )
    names = np.array(["neither", "unadjusted only", "adjusted only", "both"])
    return names[unadjusted + 2 * adjusted]


def _height(q: pd.Series) -> NDArray:
    return -np.log10(np.maximum(q.to_numpy(float), _SMALLEST))


def _top(effects: pd.DataFrame, fdr: float) -> float:
    """Upper limit of the y-axis: the 98th percentile of the called genes, or all if it is near."""
    tops = [-np.log10(fdr) + 1]
    for _, q_column in _PANELS.values():
        called = _height(effects[q_column][effects[q_column] < fdr])
        if len(called):
            most = np.percentile(called, _COVERED, method="lower")
            tops.append(min(called.max(), _BEYOND * most))
    return max(tops)


def _draw(ax: Axes, table: pd.DataFrame, groups: NDArray, top: float) -> None:
    """Draw one panel; the columns of `table` are effect and q-value."""
    effect, height = table.iloc[:, 0].to_numpy(float), _height(table.iloc[:, 1])
    is_drawn = np.isfinite(effect) & np.isfinite(height)
    for name, (colour, own) in _GROUPS.items():
        is_own = is_drawn & (groups == name)
        for marker, size, rows in (
            (own, 9, is_own & (height <= top)),
            ("^", 16, is_own & (height > top)),
        ):
            y = np.minimum(height[rows], top)
            style = {"marker": marker, "linewidths": 0, "alpha": 0.8, "rasterized": True}
            ax.scatter(effect[rows], y, size, colour, **style)


def _draw_legend(ax: Axes, groups: NDArray) -> None:
    for name in reversed(_GROUPS):
        label = f"{name} ({(groups == name).sum():,})"
        colour, marker = _GROUPS[name]
        ax.scatter([], [], 20, colour, marker=marker, label=label, linewidths=0)
    ax.legend(title="called by", loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
