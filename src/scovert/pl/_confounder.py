"""An inferred confounder against the true one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scovert.pl._input import as_vectors, axes_or_new
from scovert.pl._marks import describe_correlation, draw_points, draw_regression

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confounder"]

_SIZE = (3.8, 3.6)  # in inches
_JITTER = 0.14  # to both sides, of the distance of the two values
_CLOSE = 0.02  # to one of the two values, of their distance
_MOST = 0.9  # share of the cells that are close to one of them


def confounder(
    z: ArrayLike, truth: ArrayLike, *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw an inferred confounder against the true one, with their correlation and regression.

    It needs the truth, so it is for simulated data, or for a known label of the cells as numbers,
    such as ``adata.obs["cell_type"] == "B"``.

    A confounder with two values, or close to two in nearly all cells as probabilities may be, is
    jittered, so that its cells can be told apart; the correlation and the dotted line are those
    of the values themselves. The sign of an inferred confounder has
    no meaning, and neither has its scale.

    Parameters
    ----------
    z
        Inferred confounder, shape ``(n_cells,)``.
    truth
        True confounder of the same cells, shape ``(n_cells,)``.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, with Pearson's correlation in the title.

    Raises
    ------
    TypeError
        If a value is text.
    ValueError
        If the vectors differ in length, are not finite, or the truth is the same in all cells.

    Examples
    --------
    >>> import scovert
    >>> adata = scovert.simulate.confounder(n_cells=50)
    >>> truth = adata.obsm["truth_confounder"][:, 0]
    >>> scovert.pl.confounder(0.9 * truth + 0.05, truth).get_title()
    'Pearson r = 1.000'
    """
    import matplotlib.pyplot as plt

    z, truth = as_vectors(z=z, truth=truth)
    if truth.min() == truth.max():
        raise ValueError(
            f"`truth` is {truth[0]:g} in all cells, so nothing can be compared with it. Pass a "
            "confounder with two or more values."
        )
    ax = axes_or_new(ax, _SIZE)
    rng = np.random.default_rng(0)
    draw_points(ax, _jittered(truth, rng), _jittered(z, rng))
    draw_regression(ax, truth, z)
    title = describe_correlation(z, truth)
    ax.set(xlabel="true confounder", ylabel="inferred confounder", title=title)
    if len(np.unique(truth)) == 2:
        ax.set_xticks(np.unique(truth))
    if show:
        plt.show()
    return ax


def _jittered(values: NDArray, rng: np.random.Generator) -> NDArray:
    """Spread values of which nearly all are one of two."""
    low, high = values.min(), values.max()
    is_close = np.minimum(values - low, high - values) <= _CLOSE * (high - low)
    if is_close.mean() < _MOST:
        return values
    return values + _JITTER * (high - low) * rng.uniform(-1, 1, len(values))
