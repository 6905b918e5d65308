"""The distribution of p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import betaincinv

from scovert.core._checks import check_choice
from scovert.pl._input import axes_or_new, check_effects, describe_left_out, finish
from scovert.pl._marks import BLUE, draw_caption, ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_band", "p_values", "sorted_p_values"]

_N_BINS = 20  # of the histogram, the first up to the level of the title
_LEVEL = 0.05  # of a test, as usual
_SMALLEST = 1e-300  # p-values below are drawn there; doubles end at 2e-308
_BAND = (0.025, 0.975)  # quantiles around the diagonal: it holds 95 %, as is usual


def p_values(
    effects: pd.DataFrame,
    *,
    kind: Literal["histogram", "qq"] = "histogram",
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    r"""Draw the p-values of the treatment effects against the uniform law (Axes).

    Genes without an effect have uniform p-values. A histogram shows these as a flat level below
    which no bin falls, and effects as a peak near 0; any other shape says that the p-values do
    not hold. The quantile plot shows the same in the tail.

    Parameters
    ----------
    effects
        Effects by gene with the column `p_value`, from ``model.get_treatment_effects()``.
    kind
        ``"histogram"``: density of the p-values, 1 for a uniform law. ``"qq"``: sorted
        :math:`-\log_{10} p` against what a uniform law leads to expect, with the band that
        covers each of them with a probability of 95 % if the genes are independent.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes. Genes without a p-value are left out, and counted below the axis with the reasons.

    Raises
    ------
    TypeError
        If `effects` is not a DataFrame.
    KeyError
        If the column is missing.
    ValueError
        If no gene has a p-value, `kind` is not known, or there are several arms.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from scovert.pl import p_values
    >>> effects = pd.DataFrame({"p_value": np.linspace(0.001, 0.999, 99)})
    >>> p_values(effects).get_title()
    '5.1 % of p-values below 0.05'
    """
    check_choice("kind", kind, ("histogram", "qq"))
    check_effects(effects, ["p_value"])
    is_missing = effects["p_value"].isna().to_numpy()
    note = describe_left_out(effects, is_missing)
    if is_missing.all():
        raise ValueError(
            f"No gene has a p-value. At least one is needed to draw. {note}.".replace("\n", " ")
        )
    p = effects["p_value"].to_numpy(float)[~is_missing]
    ax = axes_or_new(ax)
    label = _draw_histogram(ax, p) if kind == "histogram" else _draw_quantiles(ax, p)
    ax.set(
        xlabel=label,
        title=f"{100 * (p < _LEVEL).mean():.1f} % of p-values below {_LEVEL}",
    )
    draw_caption(ax, note)
    return finish(ax, show=show)


def _draw_histogram(ax: Axes, p: NDArray) -> str:
    """Draw the density and return what is on the x-axis."""
    bins = np.linspace(0, 1, _N_BINS + 1)
    ax.hist(p, bins=bins, density=True, color=BLUE, edgecolor="white", linewidth=0.5)
    ax.axhline(1, color=ink(), linestyle="--", linewidth=1, label="uniform")
    ax.set(xlim=(0, 1), ylabel="density")
    ax.legend(frameon=False)
    return "p-value"


def _draw_quantiles(ax: Axes, p: NDArray) -> str:
    """Draw sorted against expected p-values and return what is on the x-axis."""
    draw_band(ax, len(p))
    ax.plot(*sorted_p_values(p), ".", color=BLUE, markersize=5, rasterized=True)
    ax.set(xlim=(0, None), ylim=(0, None), ylabel="observed $-\\log_{10}$ p-value")
    ax.legend(frameon=False, loc="upper left")
    return "expected $-\\log_{10}$ p-value"


def sorted_p_values(p: NDArray) -> tuple[NDArray, NDArray]:
    """Return what uniform p-values are expected to be, and these sorted, as -log10."""
    expected = (np.arange(len(p)) + 0.5) / len(p)
    return -np.log10(expected), -np.log10(np.maximum(np.sort(p), _SMALLEST))


def draw_band(ax: Axes, n: int) -> None:
    """Draw where `n` uniform p-values are, one by one in 95 of 100 cases."""
    rank = np.arange(1, n + 1)
    expected = -np.log10((rank - 0.5) / n)
    high, low = (-np.log10(betaincinv(rank, n + 1 - rank, q)) for q in _BAND)
    ax.fill_between(expected, low, high, color="0.88", linewidth=0, label="95 % band")
    ends = [0, expected[0]]
    ax.plot(ends, ends, color=ink(), linestyle="--", linewidth=1, label="uniform")
