"""Predicted against true distances between samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scovert.pl._input import PANEL, as_matrices, axes_or_new, finish, fit_figure
from scovert.pl._marks import BLUE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["distance_agreement"]

_MOST = 20_000  # pairs that are drawn of each kind: more only hide each other
_MARGIN = 1.03  # of the largest distance, so that no point is cut
_FEW = 500  # pairs, below which points are large and solid
_STYLE = {"linewidths": 0, "rasterized": True}


def distance_agreement(
    predicted: ArrayLike,
    true: ArrayLike,
    split: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Draw predicted against true distances between samples (Axes).

    Parameters
    ----------
    predicted, true
        Distances of samples x samples in one order, such as ``model.get_distances()`` and
        ``adata.obsp["unweighted_unifrac"]``; two DataFrames are matched by name.
    split
        ``"train"`` or something else for each sample, such as ``model.get_split()``; `None` takes
        all as fitted.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, with the identity as a dashed line and R2 of each kind (1 - SSE / SST of the
    distances as they are) in the legend. Of more than 20,000 pairs of a kind some are drawn.

    Raises
    ------
    ValueError
        If the matrices are not of one square shape, or `split` has another length.

    Examples
    --------
    >>> import numpy as np
    >>> from scovert.pl import distance_agreement
    >>> d = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    >>> ax = distance_agreement(d, d, ["train", "train", "train", "train", "new"])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['fitted: R2 = 1.000', 'new to fitted: R2 = 1.000']
    """
    predicted, true = as_matrices(predicted=predicted, true=true)
    is_new = _is_new(split, predicted.shape)
    given, ax = ax, axes_or_new(ax)
    largest = _MARGIN * max(predicted.max(), true.max())
    ax.plot([0, largest], [0, largest], color="0.5", linestyle="--", linewidth=1)
    upper = np.triu(np.ones(true.shape, bool), 1)
    kinds = {
        "fitted": (BLUE, upper & ~is_new[:, None] & ~is_new),
        "new to fitted": (ORANGE, is_new[:, None] & ~is_new),
    }
    for label, (colour, which) in kinds.items():
        x, y = true[which], predicted[which]
        if len(x) > 1:
            some = np.random.default_rng(0).permutation(len(x))[:_MOST]
            words = f"{label}: R2 = {_r2(x, y):.3f}".replace("-", "\N{MINUS SIGN}")
            size, alpha = (14, 0.7) if len(x) < _FEW else (4, 0.3)
            style = {"s": size, "alpha": alpha, "label": words, "color": colour}
            ax.scatter(x[some], y[some], **style, **_STYLE)
    ax.set(
        xlabel="true distance",
        ylabel="predicted distance",
        xlim=(0, largest),
        ylim=(0, largest),
    )
    ax.spines[["top", "right"]].set_visible(False)
    legend = ax.legend(loc="upper left", frameon=False, handletextpad=0.2)
    for handle in legend.legend_handles:
        handle.set(alpha=1, sizes=[36])
    if given is None:
        fit_figure(ax, PANEL[0], PANEL[0])
    return finish(ax, show=show)


def _is_new(split: ArrayLike | None, shape: tuple[int, ...]) -> NDArray:
    """Return which samples are not fitted, once the shapes fit together."""
    if shape[0] != shape[1]:
        raise ValueError(
            f"`predicted` has shape {shape}, and distances of samples among themselves are drawn. "
            "Pass a square matrix."
        )
    values = np.full(shape[0], "train") if split is None else np.asarray(pd.Series(split), str)
    if values.shape != shape[:1]:
        raise ValueError(
            f"`split` has {len(values)} values for {shape[0]} samples. Pass one for each."
        )
    return values != "train"


def _r2(true: NDArray, predicted: NDArray) -> float:
    whole = np.square(true - true.mean()).sum()
    return float(1 - np.square(predicted - true).sum() / whole) if whole > 0 else np.nan
