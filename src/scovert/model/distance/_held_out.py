"""What held-out samples tell of a fit: its error, its agreement, and the spread of errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

__all__ = [
    "N_NEAR",
    "Prediction",
    "Spread",
    "agreement",
    "excess_of",
    "fit_spread",
    "r2_of",
    "squared_between",
    "traits_of",
]

N_NEAR = 10
"""Nearest training samples, of a neighbourhood and of what tells how wrong a sample is."""
PENALTIES = np.logspace(-2, 3, 16)
"""Of the ridge regression of errors on standardised traits of samples, by which they are scaled;
chosen by leaving each sample out."""
FOR_THE_WORST = 0.2
"""Coverage that the tenth of the samples with the least may lack: errors belong to samples, and an
interval that holds 0.9 of all distances could hold hardly any of some samples."""
BISECTIONS = 40
"""Halvings of the range of a factor, to the last digits that matter."""
GRID = np.linspace(0, 1, 101)
"""Levels at which quantiles of errors are kept."""


class Prediction(NamedTuple):
    """Squared distances of held-out samples as a fit without them predicts them.

    Attributes
    ----------
    rows, others
        Rows of the held-out samples, and of those that were fitted.
    squared, squared_among
        To the fitted samples ``(n_rows, n_others)``, and among themselves ``(n_rows, n_rows)``.
    traits
        What is known of the held-out samples, see `traits_of`.
    """

    rows: NDArray
    others: NDArray
    squared: NDArray
    squared_among: NDArray
    traits: NDArray


class Spread(NamedTuple):
    """How wrong distances of a new sample are.

    Attributes
    ----------
    coefficients
        Of the logarithm of the error on an intercept and the traits.
    quantiles
        Absolute errors of each held-out sample by its expected error, shape ``(n_samples, 101)``.
    """

    coefficients: NDArray
    quantiles: NDArray

    def expected(self, traits: NDArray) -> NDArray:
        """Return the expected root mean square error of samples, shape ``(n_samples,)``."""
        return np.exp(self.coefficients[0] + traits @ self.coefficients[1:])

    def factor(self, level: float) -> float:
        """Return the multiple of the expected error that holds a share of the distances.

        The least that holds the share `level` of all distances of held-out samples, and of those
        of the tenth of the samples with the least of them a share that is 0.2 lower.
        """
        low, high = 0.0, float(self.quantiles.max())
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            held = np.sort([np.interp(middle, own, GRID) for own in self.quantiles])
            lowest = held[: max(1, len(held) // 10)].mean()
            is_enough = held.mean() >= level and lowest >= level - FOR_THE_WORST
            low, high = (low, middle) if is_enough else (middle, high)
        return high


def traits_of(u: NDArray, totals: NDArray, novelty: NDArray, squared: NDArray) -> NDArray:
    """Return what tells how wrong the distances of a sample are, shape ``(n_samples, 4)``.

    Parameters
    ----------
    u, totals, novelty
        Uniqueness, total count, and share of the features that the components do not show, shape
        ``(n_samples,)``.
    squared
        Predicted squared distances to the training samples, shape ``(n_samples, n_train)``.
    """
    n_near = min(N_NEAR, squared.shape[1])
    near = np.sqrt(np.partition(squared, n_near - 1, axis=1)[:, :n_near]).mean(1)
    tiny = np.finfo(float).tiny
    return np.column_stack([np.log(u + tiny), np.log1p(totals), novelty, np.log(near + tiny)])


def squared_between(first: tuple[NDArray, NDArray], second: tuple[NDArray, NDArray]) -> NDArray:
    r"""Return :math:`\lVert z_i - z_j \rVert^2 + u_i + u_j`, in double precision.

    Parameters
    ----------
    first, second
        Positions ``(n_samples, n_latent)`` and uniqueness ``(n_samples,)``.

    Returns
    -------
    Shape ``(n_first, n_second)``.
    """
    (z, u), (other_z, other_u) = first, second
    return cdist(z, other_z, "sqeuclidean") + u[:, None] + other_u


def excess_of(predictions: Sequence[Prediction], distances: NDArray) -> float:
    """Return by how much squared distances of new samples are longer than predicted, 0 or more."""
    rest = [(distances[np.ix_(p.rows, p.others)] ** 2 - p.squared).ravel() for p in predictions]
    return max(0.0, float(np.concatenate(rest).mean()))


def r2_of(predictions: Sequence[Prediction], distances: NDArray) -> float:
    """Return R2 of the distances of held-out samples to those that were fitted."""
    true, predicted = _pairs(predictions, distances)
    return agreement(true, predicted)["r2"]


def _pairs(
    predictions: Sequence[Prediction], distances: NDArray
) -> tuple[list[NDArray], list[NDArray]]:
    added = excess_of(predictions, distances)
    true = [distances[np.ix_(p.rows, p.others)] for p in predictions]
    return true, [np.sqrt(p.squared + added) for p in predictions]


def agreement(true: Sequence[NDArray], predicted: Sequence[NDArray]) -> dict[str, float]:
    """Compare distances.

    Parameters
    ----------
    true, predicted
        Parts of the same shapes; NaN is left out.

    Returns
    -------
    Pearson's ``r``; ``r2`` = 1 - SSE / SST of the distances as they are, 0 for their mean;
    ``stress``, the root of SSE by the sum of the squared distances :cite:p:`Kruskal64`; and
    ``neighbor_overlap``, the share of the ten nearest of each row that are so in both.
    """
    x, y = (np.concatenate([part.ravel() for part in parts]) for parts in (true, predicted))
    x, y = x[np.isfinite(x)], y[np.isfinite(x)]
    error = np.square(x - y).sum()
    shared = [_overlap(a, b) for a, b in zip(true, predicted, strict=True) if a.shape[1] > N_NEAR]
    return {
        "r": float(np.corrcoef(x, y)[0, 1]) if np.ptp(y) > 0 else 0.0,
        "r2": float(1 - error / np.square(x - x.mean()).sum()),
        "stress": float(np.sqrt(error / np.square(x).sum())),
        "neighbor_overlap": float(np.mean(np.concatenate(shared))) if shared else np.nan,
    }


def _overlap(true: NDArray, predicted: NDArray) -> NDArray:
    """Return the share of the ten nearest that are so in both, shape ``(n_rows,)``."""
    near = [np.argsort(d, axis=1, kind="stable")[:, :N_NEAR] for d in (true, predicted)]
    return (near[0][:, :, None] == near[1][:, None, :]).any(2).mean(1)


def fit_spread(predictions: Sequence[Prediction], distances: NDArray) -> Spread:
    """Learn the errors of samples from those that were held out."""
    true, predicted = _pairs(predictions, distances)
    errors = [np.abs(a - b) for a, b in zip(true, predicted, strict=True)]
    traits = np.concatenate([p.traits for p in predictions])
    size = np.concatenate([np.sqrt(np.square(error).mean(1)) for error in errors])
    scaler = StandardScaler().fit(traits)
    ridge = RidgeCV(PENALTIES).fit(scaler.transform(traits), np.log(size + np.finfo(float).tiny))
    slope = ridge.coef_ / scaler.scale_
    coefficients = np.array([ridge.intercept_ - slope @ scaler.mean_, *slope])
    expected = Spread(coefficients, np.empty(0)).expected(traits)
    parts = np.split(expected, np.cumsum([len(error) for error in errors])[:-1])
    quantiles = [
        np.quantile(error / own[:, None], GRID, axis=1).T
        for error, own in zip(errors, parts, strict=True)
    ]
    return Spread(coefficients, np.concatenate(quantiles))
