"""What was inferred against the truth, of simulated data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from scovert.pl._input import as_matrices, as_vectors, axes_or_new, finish
from scovert.pl._marks import (
    BLUE,
    describe_correlation,
    draw_caption,
    draw_points,
    draw_regression,
    ink,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["confounder", "mean_correlation", "propensity"]

_JITTER = 0.14  # to both sides, of the distance of two values: the two clouds stay apart
_CLOSE = 0.02  # to one of two values, of their distance, as saturated probabilities are
_MOST = 0.9  # share of the cells that are close to one of two values, if these are all there are
_CERTAIN = 1e-6  # probabilities closer to 0 or 1 are drawn there, as their log odds are infinite
_BIN = 0.025  # width, in units of the correlation: 40 bins between 0 and 1
_CONSTANT = 1e-10  # standard deviation of a log mean, in nats, that is rounding alone


def confounder(
    z: ArrayLike, truth: ArrayLike, *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw an inferred confounder against the true one, with correlation and regression (Axes).

    It needs the truth, so it is for simulated data, or for a known label of the cells as numbers,
    such as ``adata.obs["cell_type"] == "B"``.

    A confounder with two values, or close to two in nearly all cells as probabilities may be, is
    jittered, so that its cells can be told apart; the correlation and the dotted line are those
    of the values themselves. The sign of an inferred confounder has no meaning, and neither has
    its scale.

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
    z, truth = as_vectors(z=z, truth=truth)
    _refuse_constant("truth", truth)
    rng = np.random.default_rng(0)
    drawn = [_jittered(values, rng) for values in (truth, z)]
    ax = _draw_against_truth(ax, truth, z, *drawn)
    ax.set(xlabel="true confounder", ylabel="inferred confounder")
    if len(np.unique(truth)) == 2:
        ax.set_xticks(np.unique(truth))
    return finish(ax, show=show)


def propensity(
    probability: ArrayLike, truth_logit: ArrayLike, *, ax: Axes | None = None, show: bool = False
) -> Axes:
    """Draw predicted propensity scores against the true ones, on the scale of log odds (Axes).

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
    probability, truth = as_vectors(probability=probability, truth_logit=truth_logit)
    _refuse_constant("truth_logit", truth)
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(
            f"`probability` runs from {probability.min():.3g} to {probability.max():.3g}. "
            "Probabilities in [0, 1] are accepted: apply `scipy.special.expit` to log odds."
        )
    predicted = logit(np.clip(probability, _CERTAIN, 1 - _CERTAIN))
    ax = _draw_against_truth(ax, truth, predicted, truth, predicted)
    both = np.concatenate([truth, predicted])
    ends = [both.min(), both.max()]
    ax.plot(ends, ends, color="0.5", linestyle="--", linewidth=1, label="identity")
    what = "log odds of the treatment"
    ax.set(xlabel=f"true {what}", ylabel=f"predicted {what}")
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(frameon=False, loc="upper left")
    return finish(ax, show=show)


def mean_correlation(
    log_mean: ArrayLike,
    truth_log_mean: ArrayLike,
    *,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    """Draw a histogram of the correlation of estimated and true log means of the genes (Axes).

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
    r = _correlations(*as_matrices(log_mean=log_mean, truth_log_mean=truth_log_mean))
    found = r[np.isfinite(r)]
    if len(found) == 0:
        raise ValueError(
            f"All {len(r)} genes have the same mean in all cells, so nothing correlates. Pass "
            "means that differ between cells."
        )
    ax = axes_or_new(ax)
    lowest = min(0.0, np.floor(found.min() / _BIN) * _BIN)
    bins = np.linspace(lowest, 1, round((1 - lowest) / _BIN) + 1)
    ax.hist(np.clip(found, lowest, 1), bins=bins, color=BLUE, edgecolor="white", linewidth=0.5)
    ax.axvline(np.median(found), color=ink(), linestyle="--", linewidth=1)
    ax.set(xlabel="Pearson r of log means over cells", ylabel="genes", xlim=(lowest, 1))
    ax.set_title(f"median r = {np.median(found):.3f}")
    if len(found) < len(r):
        draw_caption(ax, f"{len(r) - len(found):,} of {len(r):,} genes left out: constant mean")
    return finish(ax, show=show)


def _draw_against_truth(
    ax: Axes | None, truth: NDArray, inferred: NDArray, x: NDArray, y: NDArray
) -> Axes:
    """Draw cells at `x` and `y`, and regression and correlation of the values themselves."""
    ax = axes_or_new(ax)
    draw_points(ax, x, y)
    draw_regression(ax, truth, inferred)
    ax.set_title(describe_correlation(inferred, truth))
    return ax


def _refuse_constant(name: str, truth: NDArray) -> None:
    if truth.min() == truth.max():
        raise ValueError(
            f"`{name}` is {truth[0]:g} in all cells, so nothing can be compared with it. Pass a "
            "truth with two or more values."
        )


def _jittered(values: NDArray, rng: np.random.Generator) -> NDArray:
    """Spread values of which nearly all are one of two."""
    low, high = values.min(), values.max()
    is_close = np.minimum(values - low, high - values) <= _CLOSE * (high - low)
    if is_close.mean() < _MOST:
        return values
    return values + _JITTER * (high - low) * rng.uniform(-1, 1, len(values))


def _correlations(x: NDArray, y: NDArray) -> NDArray:
    """Correlation of each column, shape ``(n_genes,)``; NaN where one is constant."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    sd_x, sd_y = (np.sqrt((a**2).mean(axis=0)) for a in (x, y))
    is_constant = (sd_x < _CONSTANT) | (sd_y < _CONSTANT)
    product = np.where(is_constant, np.nan, sd_x * sd_y)
    return (x * y).mean(axis=0) / product
