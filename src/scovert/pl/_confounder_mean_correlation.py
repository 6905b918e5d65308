"""How well the means of each gene are recovered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scovert.core._labelled import by_name
from scovert.pl._input import as_numbers, axes_or_new
from scovert.pl._marks import draw_caption

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["mean_correlation"]

_SIZE = (4.4, 3.3)  # in inches
_WIDTH = 0.025  # of a bin
_CONSTANT = 1e-10  # standard deviation of a log mean that is the same in all cells


def mean_correlation(
    log_mean: ArrayLike,
    truth_log_mean: ArrayLike,
    *,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Draw a histogram of the correlation of estimated and true log means, one for each gene.

    It needs the truth, so it is for simulated data.

    Parameters
    ----------
    log_mean
        Estimated log means of the counts, shape ``(n_cells, n_genes)``.
    truth_log_mean
        True log means of the same cells and genes, shape ``(n_cells, n_genes)``, such as
        ``layers["truth_log_mean"]`` of simulated data.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, with a dashed line at the median of Pearson's correlations over the cells. Genes
    that have the same mean in all cells are left out, and counted below the axis.

    Raises
    ------
    TypeError
        If a value is text.
    ValueError
        If the matrices differ in shape or are not finite, or no gene is left.

    Examples
    --------
    >>> import scovert
    >>> truth = scovert.simulate.confounder(n_cells=50).layers["truth_log_mean"]
    >>> scovert.pl.mean_correlation(2 * truth, truth).get_title()
    'median r = 1.000'
    """
    import matplotlib.pyplot as plt

    r = _correlations(*_as_matrices(log_mean=log_mean, truth_log_mean=truth_log_mean))
    found = r[np.isfinite(r)]
    if len(found) == 0:
        raise ValueError(
            f"All {len(r)} genes have the same mean in all cells, so nothing correlates. Pass "
            "means that differ between cells."
        )
    ax = axes_or_new(ax, _SIZE)
    lowest = min(0.0, np.floor(found.min() / _WIDTH) * _WIDTH)
    bins = np.linspace(lowest, 1, round((1 - lowest) / _WIDTH) + 1)
    ax.hist(np.clip(found, lowest, 1), bins=bins, color="C0", edgecolor="white", linewidth=0.5)
    ax.axvline(np.median(found), color="0.1", linestyle="--", linewidth=1)
    n_constant = len(r) - len(found)
    ax.set(
        xlabel="Pearson r of log means over cells",
        ylabel="genes",
        title=f"median r = {np.median(found):.3f}",
        xlim=(lowest, 1),
    )
    if n_constant:
        draw_caption(ax, f"{n_constant:,} of {len(r):,} genes left out: constant mean")
    if show:
        plt.show()
    return ax


def _correlations(x: NDArray, y: NDArray) -> NDArray:
    """Correlation of each column, shape ``(n_genes,)``; NaN where one is constant."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    sd_x, sd_y = (np.sqrt((a**2).mean(axis=0)) for a in (x, y))
    is_constant = (sd_x < _CONSTANT) | (sd_y < _CONSTANT)
    product = np.where(is_constant, np.nan, sd_x * sd_y)
    return (x * y).mean(axis=0) / product


def _as_matrices(**arrays: ArrayLike) -> list[NDArray]:
    ordered = zip(arrays, by_name(**arrays), strict=True)
    matrices = {name: as_numbers(name, values) for name, values in ordered}
    shapes = {name: values.shape for name, values in matrices.items()}
    if len(set(shapes.values())) > 1 or {len(shape) for shape in shapes.values()} != {2}:
        raise ValueError(
            f"The shapes are {shapes}. Pass matrices of the same cells and genes, in the same "
            "order."
        )
    for name, values in matrices.items():
        if not np.isfinite(values).all():
            raise ValueError(
                f"`{name}` has {(~np.isfinite(values)).sum()} values that are not finite. Pass "
                "logarithms of positive means."
            )
    return list(matrices.values())
