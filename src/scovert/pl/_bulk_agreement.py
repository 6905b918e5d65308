"""Estimated against measured proportions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.pl._composition import (
    as_fractions,
    draw_legend,
    same_entries,
    shortened,
    type_colours,
)
from scovert.pl._input import PANEL, axes_or_new, finish, fit_figure
from scovert.pl._marks import MARKERS, OKABE_ITO, describe_correlation, draw_caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["agreement"]

_MARGIN = 0.05  # of the largest proportion, beyond it, so that no point is cut
_LEAST = 0.01  # proportion that the axes hold at least


def agreement(
    estimated: pd.DataFrame, measured: pd.DataFrame, *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw estimated against measured proportions, with concordance and correlation (Axes).

    Samples and types are matched by name. What only one table has is left out, and so is what was
    not measured (NaN).

    Parameters
    ----------
    estimated
        Estimated fractions of cells, samples x types, such as ``result.proportions``. Types that
        were measured together are to be added up before.
    measured
        Measured fractions of the same cells, samples x types, such as flow cytometry.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, with the identity as a dashed line and, in the title,
    :func:`scovert.metrics.concordance` and Pearson's correlation of all points. Types that are
    left out are named below the axis.

    Raises
    ------
    TypeError
        If a table is not a DataFrame of numbers.
    ValueError
        If the tables have no sample or no type in common, hold what is not a fraction, or fewer
        than two proportions were measured.

    Examples
    --------
    >>> import scovert
    >>> samples = scovert.simulate.bulk(scovert.data.pbmc68k(), "cell_type", n_samples=6)
    >>> truth = samples.obsm["truth_proportions"]
    >>> scovert.pl.agreement(truth, truth).get_title()
    'CCC = 1.000, Pearson r = 1.000'
    """
    pairs = _match(estimated, measured)
    given, ax = ax, axes_or_new(ax)
    values = np.concatenate([*pairs.values()])  # (n_points, 2)
    ends = [0, (1 + _MARGIN) * max(values.max(), _LEAST)]
    ax.plot(ends, ends, color="0.5", linestyle="--", linewidth=1)
    for i, (colour, (label, points)) in enumerate(
        zip(type_colours(pairs), pairs.items(), strict=True)
    ):
        marker = MARKERS[i // len(OKABE_ITO) % len(MARKERS)]
        style = {"s": 26, "marker": marker, "linewidths": 0.4, "edgecolors": "white"}
        ax.scatter(*points.T, color=colour, label=shortened(label), alpha=0.85, **style)
    limits = (-_MARGIN / 2 * ends[1], ends[1])
    ax.set(
        xlabel="measured proportion",
        ylabel="estimated proportion",
        title=_describe(values),
        xlim=limits,
        ylim=limits,
    )
    ax.spines[["top", "right"]].set_visible(False)
    draw_legend(ax, len(pairs), handlelength=1)
    draw_caption(ax, _left_out(estimated, measured, pairs))
    if given is None:
        fit_figure(ax, PANEL[0], PANEL[0])
    ax.set(aspect="equal", anchor="W")  # of a size that is found: equal axes take none of it
    return finish(ax, show=show)


def _match(estimated: pd.DataFrame, measured: pd.DataFrame) -> dict[str, NDArray]:
    """Return points of each type, measured and estimated, shape ``(n_points, 2)``."""
    x = as_fractions("measured", measured, allow_missing=True)
    y = as_fractions("estimated", estimated)
    samples, types = same_entries("estimated", y, "measured", x)
    pairs = {t: np.column_stack([x.loc[samples, t], y.loc[samples, t]]) for t in types}
    pairs = {t: points[np.isfinite(points).all(axis=1)] for t, points in pairs.items()}
    pairs = {t: points for t, points in pairs.items() if len(points)}
    n_points = sum(map(len, pairs.values()))
    if n_points < 2:
        raise ValueError(
            f"`measured` has {n_points} proportions of samples and types in `estimated`. Two or "
            "more can be compared."
        )
    return pairs


def _describe(points: NDArray) -> str:
    from scovert.metrics import concordance

    x, y = points.T
    ccc = round(concordance(y, x), 3) + 0.0  # no minus zero
    return f"CCC = {ccc:.3f}, {describe_correlation(x, y)}".replace("-", "\N{MINUS SIGN}")


def _left_out(estimated: pd.DataFrame, measured: pd.DataFrame, pairs: dict[str, NDArray]) -> str:
    lines = []
    for table, words in ((measured, "measured only"), (estimated, "estimated only")):
        labels = [shortened(label) for label in table.columns if label not in pairs]
        if labels:
            lines.append(f"{words}: {', '.join(labels)}")
    return "\n".join(lines)
