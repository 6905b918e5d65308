"""Predicted against true propensity scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from scovert.pl._input import as_vectors, axes_or_new
from scovert.pl._marks import describe_correlation, draw_points, draw_regression

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["propensity"]

_SIZE = (4.0, 3.9)  # in inches
_CERTAIN = 1e-6  # probabilities closer to 0 or 1 are drawn there


def propensity(
    probability: ArrayLike, truth_logit: ArrayLike, *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw predicted propensity scores against the true ones, on the scale of log odds.

    It needs the truth, so it is for simulated data.

    Parameters
    ----------
    probability
        Predicted propensity scores, the probability of the treatment, shape ``(n_cells,)``, as
        ``model.get_treatment_probability()`` returns it. What is closer than one in a million to
        0 or 1 is drawn at that distance.
    truth_logit
        True log odds of the treatment in the same cells, shape ``(n_cells,)``, such as
        ``obs["truth_logit"]`` of simulated data.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, with the identity as a dashed line, the regression as a dotted one, and Pearson's
    correlation in the title.

    Raises
    ------
    TypeError
        If a value is text.
    ValueError
        If the vectors differ in length or are not finite, probabilities are outside [0, 1], or
        the true log odds are the same in all cells.

    Examples
    --------
    >>> import scovert
    >>> from scipy.special import expit
    >>> logit = scovert.simulate.confounder(n_cells=50).obs["truth_logit"]
    >>> scovert.pl.propensity(expit(logit), logit).get_title()
    'Pearson r = 1.000'
    """
    import matplotlib.pyplot as plt

    probability, truth = as_vectors(probability=probability, truth_logit=truth_logit)
    _check(probability, truth)
    predicted = logit(np.clip(probability, _CERTAIN, 1 - _CERTAIN))
    ax = axes_or_new(ax, _SIZE)
    draw_points(ax, truth, predicted)
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    ax.plot(ends, ends, color="0.5", linestyle="--", linewidth=1, label="identity")
    draw_regression(ax, truth, predicted)
    ax.set(
        xlabel="true log odds of the treatment",
        ylabel="predicted log odds of the treatment",
        title=describe_correlation(truth, predicted),
    )
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(frameon=False, loc="upper left")
    if show:
        plt.show()
    return ax


def _check(probability: NDArray, truth: NDArray) -> None:
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(
            f"`probability` runs from {probability.min():.3g} to {probability.max():.3g}. "
            "Probabilities in [0, 1] are accepted: apply `scipy.special.expit` to log odds."
        )
    if truth.min() == truth.max():
        raise ValueError(
            f"`truth_logit` is {truth[0]:g} in all cells, so nothing can be compared with it. "
            "Draw a treatment that depends on something."
        )
