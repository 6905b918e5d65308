"""How well the samples are explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from scovert.core._words import a_kind_of
from scovert.pl._composition import as_table, name_samples
from scovert.pl._input import PANEL, finish, fit_figure, room_for
from scovert.pl._marks import BLUE, RED, draw_caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["residuals"]

_PANELS = {  # column: title, label of the axis
    "residual_sd": ("Residual", "sd of log expression"),
    "disagreement": ("Disagreement", "share of the cells"),
}
_HEIGHT = 1.8  # inches, of a panel: two are as high as one that stands alone and its names
_FAR = 3  # robust standard deviations above the median: 1 of 740 normal values
_FEWEST = 5  # samples among which one can stand out: the spread of fewer is not known


def residuals(quality: pd.DataFrame, *, show: bool = False) -> NDArray:
    """Draw how well each sample is explained, and how far references agree on it (array of Axes).

    The residual is what the mixture and the shift of the genes leave unexplained. Samples more
    than 3 robust standard deviations above the median (of five or more) are red diamonds: look at
    them before trusting their proportions. A small residual does not prove a good reference.

    Parameters
    ----------
    quality
        ``result.quality``: one row for each sample, with the column `residual_sd` and, of several
        references, `disagreement`: the share of the cells that the most deviant reference gives
        to other types than their average does, in [0, 1].
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    Array of one or two :class:`matplotlib.axes.Axes`. The dashed line is the median. What
    ``quality.attrs`` say of all samples together stands below.

    Raises
    ------
    TypeError
        If `quality` is not a DataFrame of numbers.
    KeyError
        If there is no column `residual_sd`.
    ValueError
        If a value is not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> from scovert.pl import residuals
    >>> quality = pd.DataFrame({"residual_sd": [0.2, 0.3]}, index=["s1", "s2"])
    >>> [ax.get_title() for ax in residuals(quality)]
    ['Residual: median 0.25']
    """
    import matplotlib.pyplot as plt

    columns = _columns(quality)
    table = as_table("quality", quality[columns])
    _, grid = plt.subplots(len(columns), 1, squeeze=False, sharex=True, layout="constrained")
    axes = grid[:, 0]
    for ax, column in zip(axes, columns, strict=True):
        _draw(ax, column, table[column].to_numpy())
    name_samples(axes[-1], table.index)
    draw_caption(axes[-1], _caption(quality.attrs))
    fit_figure(axes, max(room_for(len(table)), PANEL[0]), _HEIGHT)
    return finish(axes, show=show)


def _columns(quality: pd.DataFrame) -> list[str]:
    if not isinstance(quality, pd.DataFrame):
        raise TypeError(f"`quality` is {a_kind_of(quality)}. Pass `result.quality`.")
    if "residual_sd" not in quality:
        raise KeyError(
            f"`quality` has no column 'residual_sd' (columns: {list(quality.columns)}). Pass "
            "`result.quality`."
        )
    return [column for column in _PANELS if column in quality]


def _draw(ax: Axes, column: str, values: NDArray) -> None:
    title, label = _PANELS[column]
    x, median = np.arange(len(values)), np.median(values)
    spread = stats.median_abs_deviation(values, scale="normal")
    is_far = (values > median + _FAR * spread) & (len(values) >= _FEWEST)
    ax.axhline(median, color="0.4", linestyle="--", linewidth=1)
    ax.vlines(x, 0, values, color=np.where(is_far, RED, "0.8"), linewidth=1)
    for rows, marker, colour in ((~is_far, "o", BLUE), (is_far, "D", RED)):
        ax.plot(x[rows], values[rows], marker, color=colour, markersize=4)
    top = values.max()
    ax.set(title=f"{title}: median {median:.2g}", ylabel=label, ylim=(0, 1.08 * top or 1))
    ax.spines[["top", "right"]].set_visible(False)


def _caption(attrs: dict) -> str:
    """Say what holds for all samples, as far as it is known."""
    parts = []
    if "n_informative_genes" in attrs:
        numbers = [f"{n:,}" for n in _by_reference(attrs["n_informative_genes"])]
        parts.append(f"{' and '.join(numbers)} informative genes")
    if "shift_sd" in attrs:
        sds = [f"{sd:.2f}" for sd in _by_reference(attrs["shift_sd"])]
        parts.append(f"shift of the genes: sd {' and '.join(sds)}")
    return "\n".join(parts)


def _by_reference(fact: object) -> list:
    """Return a fact of every reference; one that all have is there once."""
    return fact if isinstance(fact, list) else [fact]
