"""Which types have counterparts in other datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scovert.core._checks import check_number
from scovert.pl._input import PER_ENTRY, axes_or_new, finish, fit_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["support"]

_FIELD = (4 * PER_ENTRY, 2 * PER_ENTRY)  # inches, of a number of cells below a share
_DARK = 0.5  # of the shares, from which the text is white


def support(
    support: pd.DataFrame,
    labels: ArrayLike,
    *,
    min_support: float = 0.7,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    r"""Draw the share of cells with a counterpart in another dataset, by type and dataset (Axes).

    A cell has a counterpart if its support in any other dataset is `min_support` or more. A type
    that the other datasets lack stands out as a pale field.

    Parameters
    ----------
    support
        What :meth:`scovert.model.PairedVAE.get_support` returns: cells x datasets, NaN in the
        column of the cell's own dataset.
    labels
        Type or cluster of each cell, shape ``(n_cells,)``.
    min_support
        Support from which a cell counts, in [0, 1]; the model takes 0.7 for its anchors.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, with a row for each type and a column for each dataset. Each field says the share and
    the number of cells; it is grey where there are none.

    Raises
    ------
    ValueError
        If there is not one label for each cell, or not every cell has one dataset of its own.

    Examples
    --------
    >>> import numpy as np, pandas as pd, scovert
    >>> table = pd.DataFrame({"a": [np.nan, 0.9, 0.8], "b": [0.1, np.nan, np.nan]})
    >>> ax = scovert.pl.support(table, ["T", "T", "B"])
    >>> [text.get_text() for text in ax.texts]
    ['1.00\n(1)', '0.00\n(1)', '1.00\n(1)']
    """
    check_number("min_support", min_support, 0, 1)
    labels = np.asarray(labels).astype(str)
    own = _own_datasets(support, labels)
    has_counterpart = support.max(axis=1).to_numpy() >= min_support
    by = [pd.Series(labels), pd.Series(own)]
    shares = pd.Series(has_counterpart).groupby(by).mean().unstack()
    sizes = pd.crosstab(*by).reindex_like(shares)
    given, ax = ax, axes_or_new(ax)
    _draw(ax, shares, sizes)
    if given is None:
        fit_figure(ax, _FIELD[0] * shares.shape[1], _FIELD[1] * len(shares))
    return finish(ax, show=show)


def _draw(ax: Axes, shares: pd.DataFrame, sizes: pd.DataFrame) -> None:
    image = ax.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="share with a counterpart")
    for row, column in np.argwhere(shares.notna().to_numpy()):
        share = shares.iat[row, column]
        text = f"{share:.2f}\n({sizes.iat[row, column]})"
        color = "white" if share > _DARK else "black"
        ax.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
    ax.set_facecolor("0.9")  # of types that a dataset lacks
    ax.set_xticks(range(shares.shape[1]), shares.columns)
    ax.set_yticks(range(len(shares)), shares.index)
    ax.set(xlabel="dataset", ylabel="type")


def _own_datasets(support: pd.DataFrame, labels: NDArray) -> NDArray:
    """Name of the one column of each cell that is NaN."""
    own = support.isna().to_numpy()
    if len(labels) != len(support) or (own.sum(axis=1) != 1).any():
        raise ValueError(
            f"`support` has {len(support)} rows, of which {(own.sum(axis=1) == 1).sum()} have NaN "
            f"in one column, and `labels` has {len(labels)} values. Pass the table that "
            "`model.get_support()` returns, and one label for each of its cells."
        )
    return support.columns.astype(str).to_numpy()[own.argmax(axis=1)]
