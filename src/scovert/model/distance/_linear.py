"""Ridge regression from features to principal coordinates: a method, and a start for another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear

from scovert.model.distance._pcoa import pcoa

__all__ = ["LinearMap", "folds_of", "fit_linear"]

PENALTIES = 10.0 ** np.arange(-5, 3.1, 0.5)
"""Of ridge, by the mean squared norm of the features."""
N_FOLDS = 5
"""Of the cross-validation by which a penalty is chosen: four fifths of the samples are fitted."""
N_PAIRS = 100_000
"""Pairs of samples by which axes are weighted."""
SHORT = 0.1
"""Of the largest distance: the squares of shorter ones get no more weight than of this one."""
LEAST_UNIQUENESS = 1e-3
"""Of the mean squared distance: the logarithm needs some."""


class LinearMap(NamedTuple):
    r"""Positions :math:`z = W^\top f + b` of samples, and the uniqueness that all of them have.

    Attributes
    ----------
    weight, bias
        Shapes ``(n_features, n_latent)`` and ``(n_latent,)``.
    uniqueness
        Squared length of the private axis of a sample that was fitted.
    held_out_r2
        R2 of distances between samples of folds that were left out.
    """

    weight: NDArray
    bias: NDArray
    uniqueness: float
    held_out_r2: float


def folds_of(groups: NDArray, n_folds: int, rng: np.random.Generator) -> NDArray:
    """Deal groups of samples to folds of about one size, the largest groups first.

    Parameters
    ----------
    groups
        Number of the group of each sample, shape ``(n_samples,)``.
    n_folds
        Folds, at most as many as there are groups.
    rng
        Decides between groups of one size.

    Returns
    -------
    The fold of each sample.
    """
    sizes = np.bincount(groups)
    order = rng.permutation(np.flatnonzero(sizes))
    fold_of, filled = np.zeros(len(sizes), int), np.zeros(min(n_folds, len(order)))
    for group in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[groups]


def fit_linear(
    features: NDArray,
    distances: NDArray,
    n_latent: int,
    groups: NDArray,
    rng: np.random.Generator,
) -> LinearMap:
    """Fit positions to distances by ridge regression on principal coordinates.

    The penalty of each axis is that with the least error on folds that are left out. Axes are then
    scaled by least squares of the squared distances on those of the held-out positions.

    Parameters
    ----------
    features
        Shape ``(n_samples, n_features)``, centred.
    distances
        Shape ``(n_samples, n_samples)``.
    n_latent
        Number of axes; those beyond the positive eigenvalues are 0.
    groups
        Number of the group of each sample, which stays together in a fold.
    rng
        Generator of the folds and the pairs.
    """
    axes = pcoa(distances, n_latent)
    folds = folds_of(groups, N_FOLDS, rng)
    weight, bias, held_out = _ridge(features, axes, folds)
    pairs = _pairs(len(features), rng)
    scale, r2 = _weigh(held_out, distances, pairs)
    fitted = (features @ weight + bias) * scale
    i, j = pairs
    rest = distances[i, j] ** 2 - np.square(fitted[i] - fitted[j]).sum(1)
    least = LEAST_UNIQUENESS * np.mean(distances[i, j] ** 2)
    added = n_latent - axes.shape[1]
    return LinearMap(
        np.pad(weight * scale, ((0, 0), (0, added))),
        np.pad(bias * scale, (0, added)),
        float(max(rest.mean() / 2, least)),
        r2,
    )


def _ridge(x: NDArray, y: NDArray, folds: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Regress with a penalty for each column of y; also what is predicted of folds left out."""
    held_out = np.empty((len(PENALTIES), *y.shape))
    unit = np.square(x).sum() / len(x)
    for fold in np.unique(folds):
        out = folds == fold
        for k, (weight, bias) in enumerate(_path(x[~out], y[~out], unit)):
            held_out[k, out] = x[out] @ weight + bias
    error = np.square(held_out - y).sum(1)  # (n_penalties, n_axes)
    best, column = error.argmin(0), np.arange(y.shape[1])
    path = list(_path(x, y, unit))
    weight = np.stack([path[k][0][:, j] for j, k in enumerate(best)], axis=1)
    bias = np.array([path[k][1][j] for j, k in enumerate(best)])
    return weight, bias, held_out[best, :, column].T


def _path(x: NDArray, y: NDArray, unit: float) -> list[tuple[NDArray, NDArray]]:
    """Return weights and biases for all penalties."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    left, size, right = np.linalg.svd(x - x_mean, full_matrices=False)
    target = left.T @ (y - y_mean)
    found = []
    for penalty in PENALTIES:
        weight = right.T @ ((size / (size**2 + penalty * unit))[:, None] * target)
        found.append((weight, y_mean - x_mean @ weight))
    return found


def _pairs(n_samples: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Return all pairs of different samples, or random ones."""
    if n_samples * (n_samples - 1) // 2 <= N_PAIRS:
        return np.triu_indices(n_samples, 1)
    i, shift = rng.integers(n_samples, size=N_PAIRS), rng.integers(1, n_samples, size=N_PAIRS)
    return i, (i + shift) % n_samples


def _weigh(
    places: NDArray, distances: NDArray, pairs: tuple[NDArray, NDArray]
) -> tuple[NDArray, float]:
    """Return the scale of each axis, in [0, 1], and R2 of the distances.

    Least squares of squared distances on those of each axis and a constant. Held-out positions are
    as far apart as the features can tell; an axis that is stretched beyond that spreads noise, of
    which small cohorts have much.
    """
    i, j = pairs
    target = distances[i, j]
    unit = np.mean(target**2)
    design = np.column_stack([np.square(places[i] - places[j]) / unit, np.full(len(i), 2.0)])
    weight = 0.5 / np.maximum(target, SHORT * distances.max())
    rows = np.column_stack([design, target**2 / unit]) * weight[:, None]
    triangle = np.linalg.qr(rows, mode="r")  # the same problem with as many rows as columns
    most = np.append(np.ones(places.shape[1]), np.inf)
    found = lsq_linear(triangle[:, :-1], triangle[:, -1], (0, most)).x
    predicted = np.sqrt(unit * np.maximum(design @ found, 0))
    r2 = 1 - np.square(predicted - target).sum() / np.square(target - target.mean()).sum()
    return np.sqrt(found[:-1]), float(r2)
