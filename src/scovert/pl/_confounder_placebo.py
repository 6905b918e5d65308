"""P-values of fake treatments against the uniform law."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._words import a_kind_of
from scovert.pl._confounder_p_values import draw_band, sorted_p_values
from scovert.pl._input import axes_or_new, finish
from scovert.pl._marks import BLUE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["placebo"]

_LEVEL = 0.05  # of a test, as usual


def placebo(found: pd.DataFrame, *, ax: Axes | None = None, show: bool = False) -> Axes:
    """Draw p-values of fake treatments: sorted against what chance gives, a line each (Axes).

    A treatment that did nothing has uniform p-values. Where they are reliable, the lines keep to
    the band around the diagonal, which holds 95 % of each p-value if genes are independent; above
    it, p-values are too small, and so are those of the real treatment.

    Parameters
    ----------
    found
        What :meth:`scovert.model.LatentConfounder.placebo` returned.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes. The title holds the share of all p-values below 0.05.

    Raises
    ------
    TypeError
        If `found` is not a DataFrame.
    ValueError
        If it holds no p-values.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from scovert.pl import placebo
    >>> found = pd.DataFrame({"called": [0, 0]})
    >>> found.attrs["p_values"] = {i: np.linspace(0.001, 0.999, 99).tolist() for i in range(2)}
    >>> placebo(found).get_title()
    '2 fake treatments: 5.1 % of p-values below 0.05'
    """
    each = _p_values(found)
    ax = axes_or_new(ax)
    draw_band(ax, max(map(len, each)))
    for p in each:
        ax.plot(*sorted_p_values(p), color=BLUE, alpha=0.6, linewidth=1)
    share = (np.concatenate(each) < _LEVEL).mean()
    n = f"{len(each)} fake treatment{'s' * (len(each) != 1)}"
    ax.set(
        xlabel="expected $-\\log_{10}$ p-value",
        ylabel="observed $-\\log_{10}$ p-value",
        xlim=(0, None),
        ylim=(0, None),
    )
    title = f"{n}: {100 * share:.1f} % of p-values below {_LEVEL}"
    ax.set_title(title, fontsize="medium")
    ax.legend(frameon=False, loc="upper left")
    return finish(ax, show=show)


def _p_values(found: pd.DataFrame) -> list[NDArray]:
    if not isinstance(found, pd.DataFrame):
        raise TypeError(
            f"`found` is {a_kind_of(found)}. Pass the DataFrame that `model.placebo()` returned."
        )
    each = [np.asarray(p, float) for p in found.attrs.get("p_values", {}).values()]
    each = [p for p in each if len(p)]
    if not each:
        raise ValueError(
            "`found.attrs['p_values']` holds no p-values, which other operations of pandas may "
            "leave out. Pass the DataFrame as `model.placebo()` returned it."
        )
    return each
