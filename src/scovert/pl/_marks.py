"""What several figures draw."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "BLUE",
    "GREEN",
    "MARKERS",
    "MORE_COLOURS",
    "OKABE_ITO",
    "ORANGE",
    "PURPLE",
    "RED",
    "describe_correlation",
    "draw_caption",
    "draw_points",
    "draw_regression",
    "ink",
]

OKABE_ITO = (  # told apart by the colour-blind: Okabe and Ito 2008, jfly.uni-koeln.de/color
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # green
    "#CC79A7",  # purple
    "#D55E00",  # red
    "#56B4E9",
    "#F0E442",
    "#000000",
)
MORE_COLOURS = (  # each is as far as can be, in CIELAB, from those before it, white and grey
    "#784BC3",
    "#5A5A00",
    "#C3003C",
    "#87E169",
    "#FFB487",
    "#692D1E",
    "#A50F87",
    "#C3D287",
    "#1E87FF",
    "#C3B4FF",
    "#00E1F0",
    "#0F6900",
    "#004B3C",
    "#5A3C78",
    "#FF96FF",
    "#965A0F",
    "#00F0A5",
    "#780F3C",
    "#FF5AA5",
    "#FF8787",
    "#789600",
    "#870F00",
    "#A5E1C3",
    "#008796",
)
BLUE, ORANGE, GREEN, PURPLE, RED = OKABE_ITO[:5]
MARKERS = "osD^vP"  # so that kinds are told apart without colours

_LINE = 46  # characters of a line of a caption: what small text fits into a panel
_FEW = 300  # points that are drawn large and nearly opaque, as they hardly overlap
_LARGE, _SMALL = (22, 0.7), (3, 0.15)  # area in 1/72 inch squared, and opacity, of few and of many


def ink() -> str:
    """Return the colour that the style sheet of the user has for text."""
    import matplotlib as mpl

    return mpl.rcParams["text.color"]


def draw_points(ax: Axes, x: NDArray, y: NDArray) -> None:
    """Draw points, the more the smaller and the more transparent."""
    crowd = np.sqrt(_FEW / max(len(x), _FEW))  # 1 for few, towards 0 for many
    size, alpha = np.maximum(_SMALL, np.multiply(crowd, _LARGE))
    ax.scatter(x, y, s=size, alpha=alpha, color=BLUE, linewidths=0, rasterized=True)


def draw_regression(ax: Axes, x: NDArray, y: NDArray) -> None:
    """Draw the least squares line of `y` on `x` over the range of `x`, dotted."""
    slope, intercept = np.polyfit(x, y, 1)
    ends = np.array([x.min(), x.max()])
    line = intercept + slope * ends
    ax.plot(ends, line, color=ink(), linestyle=":", linewidth=2, label="regression")


def describe_correlation(x: NDArray, y: NDArray) -> str:
    """Pearson's correlation of two vectors in words."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return "no correlation with a constant"
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    return f"Pearson r = {x @ y / norm:.3f}".replace("-", "\N{MINUS SIGN}")


def draw_caption(ax: Axes, text: str) -> None:
    """Write below the label of the x-axis, small; nothing if the text is empty."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, _LINE)]
    if lines:
        ax.annotate(
            "\n".join(lines),
            (0.5, 0),
            (0, -4),
            xycoords=ax.xaxis.label,
            textcoords="offset points",
            horizontalalignment="center",
            verticalalignment="top",
            fontsize="small",
            color="0.4",
        )
