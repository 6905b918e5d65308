"""Composition of each sample as a heatmap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from numpy.typing import NDArray

from scovert.pl._composition import as_fractions, name_samples, shortened
from scovert.pl._input import PER_ENTRY, axes_or_new, finish, fit_figure, room_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["proportions_heatmap"]

_MOST_WRITTEN = 12  # samples, so that the figure with numbers is no wider than a page
_PER_NUMBER = 0.5  # inches, of four characters and some room
_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)  # proportions, apart on the root scale
_DARK = 0.6  # of the colour scale, from where white is read more easily than grey


def proportions_heatmap(
    proportions: pd.DataFrame, *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw the proportion of each type in each sample as a colour: rare types are seen (Axes).

    Colours follow the square root of the proportion. Of up to 12 samples the percentages are
    written as well.

    Parameters
    ----------
    proportions
        Fractions of cells, or of mRNA, samples x types, such as ``result.proportions``. Samples
        are columns of the figure and types rows, both in the order of the table.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes; those of the colour bar are the last of the figure.

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
    >>> ax = scovert.pl.proportions_heatmap(samples.obsm["truth_proportions"])
    >>> len(ax.get_yticks())
    10
    """
    from matplotlib.colors import PowerNorm

    table = as_fractions("proportions", proportions)
    values = table.T.to_numpy()  # (n_types, n_samples)
    is_written = len(table) <= _MOST_WRITTEN
    given, ax = ax, axes_or_new(ax)
    norm = PowerNorm(0.5, 0, values.max() or 1)
    image = ax.imshow(values, aspect="auto", cmap="Blues", norm=norm, interpolation="nearest")
    name_samples(ax, table.index)
    ax.set_xlim(-0.5, len(table) - 0.5)
    ax.set_yticks(range(len(values)), [shortened(label) for label in table.columns])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, label="proportion", ticks=_TICKS, pad=0.02)
    bar.outline.set_visible(False)
    if is_written:
        _write_numbers(ax, values, norm(values) > _DARK)
    if given is None:
        width = max(room_for(len(table)), is_written * _PER_NUMBER * len(table))
        fit_figure(ax, width, PER_ENTRY * len(values))
    return finish(ax, show=show)


def _write_numbers(ax: Axes, values: NDArray, is_dark: NDArray) -> None:
    for row, column in [(i, j) for i in range(len(values)) for j in range(values.shape[1])]:
        ax.text(
            column,
            row,
            f"{100 * values[row, column]:.1f}",
            horizontalalignment="center",
            verticalalignment="center",
            fontsize="x-small",
            color="white" if is_dark[row, column] else "0.2",
        )
