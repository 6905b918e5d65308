"""How many factors the data hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scovert.core._words import a_kind_of
from scovert.pl._input import axes_or_new, finish
from scovert.pl._marks import BLUE, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["scree"]

_ROOM = 1.08  # times the highest point, so that it is not cut


def scree(scree: pd.DataFrame, *, ax: Axes | None = None, show: bool = False) -> Axes:
    """Draw the strength of one more factor against what chance reaches (Axes).

    Factors are added as long as the largest singular value of what they leave unexplained is
    above a threshold that comes from permuted data. The number that was chosen is marked.

    Parameters
    ----------
    scree
        One row for each number of factors, in the index, with the columns `singular_value` and
        `threshold`.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes. The dotted line stands at the chosen number.

    Raises
    ------
    TypeError
        If `scree` is not a DataFrame.
    KeyError
        If a column is missing.
    ValueError
        If it has no row.

    Examples
    --------
    >>> import pandas as pd
    >>> from scovert.pl import scree
    >>> table = pd.DataFrame(
    ...     {"singular_value": [90.0, 70.0, 41.0], "threshold": [50.0, 48.0, 47.0]}
    ... )
    >>> scree(table).get_title()
    '2 factors'
    """
    _check(scree)
    is_above = (scree["singular_value"] > scree["threshold"]).to_numpy()
    n_leading = len(is_above) if is_above.all() else int((~is_above).argmax())
    chosen = min(n_leading, scree.index.max())
    ax = axes_or_new(ax)
    ax.axvline(chosen, color=ink(), linestyle=":", linewidth=1.5, label="chosen")
    ax.plot(scree.index, scree["singular_value"], "o-", color=BLUE, label="data")
    ax.plot(scree.index, scree["threshold"], ".--", color="0.5", label="threshold (permuted data)")
    ax.set(
        xlabel="number of factors",
        ylabel="largest singular value",
        title=f"{chosen} factor{'s' * (chosen != 1)}",
        ylim=(0, _ROOM * scree[["singular_value", "threshold"]].max().max()),
    )
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    return finish(ax, show=show)


def _check(scree: pd.DataFrame) -> None:
    if not isinstance(scree, pd.DataFrame):
        raise TypeError(
            f"`scree` is {a_kind_of(scree)}. Pass a DataFrame with the columns "
            "`singular_value` and `threshold`."
        )
    missing = [name for name in ("singular_value", "threshold") if name not in scree]
    if missing:
        raise KeyError(
            f"`scree` has no columns {missing} (columns: {list(scree.columns)}). Pass that of a "
            'model with `n_latent="auto"`.'
        )
    if len(scree) == 0:
        raise ValueError(
            "`scree` has no row. One for each number of factors is drawn: fit with "
            '`n_latent="auto"`.'
        )
