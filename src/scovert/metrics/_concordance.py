"""How close estimates are to measurements."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from scovert.core._labelled import by_name

__all__ = ["concordance"]


def concordance(estimated: ArrayLike, measured: ArrayLike) -> float:
    r"""Lin's coefficient of concordance: how close points are to the identity :cite:p:`Lin89`.

    .. math:: \frac{2\, \mathrm{cov}(x, y)}
        {\mathrm{var}(x) + \mathrm{var}(y) + (\bar x - \bar y)^2},

    with divisors n. It is at most Pearson's correlation, and lower by as much as the estimates
    have another mean or another spread than the measurements.

    Parameters
    ----------
    estimated, measured
        Numbers of the same shape, two or more; a table counts as all of its entries. Series and
        DataFrames are matched by the names of their rows and columns, arrays by position.

    Returns
    -------
    Coefficient in [-1, 1]; 1 if all estimates are equal to the measurements. NaN if both are
    one and the same constant, which says nothing.

    Raises
    ------
    ValueError
        If shapes or names differ, or there are fewer than two numbers or some that are not finite.

    Examples
    --------
    >>> from scovert.metrics import concordance
    >>> concordance([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    1.0
    >>> round(concordance([0.2, 0.4, 0.6], [0.1, 0.2, 0.3]), 3)  # correlated, but twice too large
    0.364
    """
    estimated, measured = by_name(estimated=estimated, measured=measured)
    x, y = np.asarray(estimated, float), np.asarray(measured, float)
    if x.shape != y.shape or x.size < 2:
        raise ValueError(
            f"`estimated` has the shape {x.shape} and `measured` {y.shape}. Pass the same two or "
            "more quantities in the same order."
        )
    n_bad = int((~np.isfinite(x) | ~np.isfinite(y)).sum())
    if n_bad:
        raise ValueError(
            f"{n_bad} of {x.size} pairs are not finite. Pass finite numbers: leave out what was "
            "not measured."
        )
    if (x == y.flat[0]).all() and (y == y.flat[0]).all():
        return np.nan
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / spread)
