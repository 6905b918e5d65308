"""Classes of cells whose centres move from dataset to dataset, fitted to principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassMixture", "climb", "log_likelihood"]

OWN_SD = 0.05
"""Standard deviation of what a class adds to the shift, in standard deviations within classes."""
JITTER = 1e-4
"""Variance of the shift of a class, of that within classes, so that systems can be solved."""
RIDGE_MEAN, RIDGE_SHIFT = 1e-6, 1e-2
"""Against the one direction that the data leave open: all means up, all shifts down."""
WITHIN_SHARE = 0.3
"""Part of the variance that is taken to lie within classes at the start."""
N_PRIOR = 20.0
"""Cells whose worth the common variance has in that of a class."""
MIN_VARIANCE = 0.05**2
"""Part of the variance of a component that is added to that within a class."""
MIN_CELLS = 2.0
"""A class with fewer cells in a dataset says nothing of its shift there."""
HOTTEST, COOLING = 5.0, 0.9
"""Temperature that probabilities start from, and its factor after each step, down to 1."""
MAX_ITERATIONS = 200
"""Most steps of a fit, should its gain not end it."""
EPSILON = float(np.finfo(np.float32).eps)
"""Least variance of a component, by the largest, and within classes, by that of all cells."""
TOLERANCE = 1e-5
"""Gain of the mean log-likelihood of a cell, in nats, below which the fit has settled."""


@dataclass(frozen=True)
class ClassMixture:
    r"""Gaussian classes that every dataset shifts in its own way.

    .. math:: x_i \mid k, b \sim N(\mu_k + \delta_b + \epsilon_{kb},\ \mathrm{diag}\, S_k), \qquad
        P(k \mid b) = \pi_{kb}

    Attributes
    ----------
    means
        Centres of the classes, shape ``(n_classes, n_components)``.
    shifts
        Of all classes of a dataset, shape ``(n_datasets, n_components)``.
    own_shifts
        Of one class in one dataset, shape ``(n_classes, n_datasets, n_components)``.
    variances
        Within the classes, shape ``(n_classes, n_components)``.
    within
        Common variance within the classes, shape ``(n_components,)``.
    weights
        Share of each class in each dataset, shape ``(n_classes, n_datasets)``.
    """

    means: NDArray
    shifts: NDArray
    own_shifts: NDArray
    variances: NDArray
    within: NDArray
    weights: NDArray

    @property
    def centres(self) -> NDArray:
        """Of each class in each dataset, shape ``(n_classes, n_datasets, n_components)``."""
        return self.means[:, None] + self.shifts + self.own_shifts

    def log_joint(self, x: NDArray, b: int) -> NDArray:
        """Log density of cells of dataset `b` with each class, up to a constant."""
        precision, centre = 1 / self.variances, self.centres[:, b]
        distance = np.square(x) @ precision.T - 2 * x @ (centre * precision).T
        distance += (centre**2 * precision + np.log(self.variances)).sum(axis=1)
        return np.log(self.weights[:, b]) - distance / 2  # (n_cells, n_classes)

    def classes(self, x: NDArray, b: int) -> NDArray:
        """Probabilities of the classes for cells of dataset `b`, ``(n_cells, n_classes)``."""
        return _normalised(self.log_joint(x, b))[0]

    def place(self, x: NDArray, b: int) -> NDArray:
        """Take the shifts out of the components of cells of dataset `b`."""
        return x - self.shifts[b] - self.classes(x, b) @ self.own_shifts[:, b]


def climb(
    parts: list[NDArray], classes: list[NDArray], slope: float
) -> tuple[ClassMixture, list[NDArray]]:
    r"""Fit the mixture by expectation-maximisation.

    The own shifts of a dataset have a Gaussian prior with covariance :math:`W_j C` in component j,
    :math:`C = s^2 U U^T + (t^2 + 10^{-4}) I`, with W the variances within classes and U the class
    means in units of their roots: shifts are nearly an affine function of the position.

    Parameters
    ----------
    parts
        Components of the cells of each dataset, ``(n_cells, n_components)`` each.
    classes
        Probabilities of the classes of these cells, from which the fit starts.
    slope
        The slope s; with 0 it is annealed, and all classes of a dataset move alike.

    Returns
    -------
    The mixture and the probabilities of the classes.
    """
    n_cells = sum(len(part) for part in parts)
    total = np.concatenate(parts).var(axis=0)
    total = np.maximum(total, EPSILON * total.max() or 1.0)
    mixture, last = None, -np.inf
    for iteration in range(MAX_ITERATIONS):
        mixture = _maximise(_Moments.of(parts, classes), mixture, total, slope)
        heat = max(1.0, HOTTEST * COOLING**iteration) if slope == 0 else 1.0
        logs = [mixture.log_joint(part, b) for b, part in enumerate(parts)]
        found = [_normalised(log) for log in logs]
        likelihood = sum(evidence.sum() for _, evidence in found) / n_cells
        classes = [share for share, _ in found]
        if heat > 1:
            classes = [_normalised(log / heat)[0] for log in logs]
        if heat == 1 and abs(likelihood - last) < TOLERANCE:
            break
        last = likelihood
    return mixture, classes


def log_likelihood(mixture: ClassMixture, parts: list[NDArray]) -> float:
    """Mean over cells of the log density, up to a constant."""
    logs = [_normalised(mixture.log_joint(part, b))[1] for b, part in enumerate(parts)]
    return float(np.concatenate(logs).mean())


def _normalised(log: NDArray) -> tuple[NDArray, NDArray]:
    """Softmax and log of the sum of exponentials of every row; scipy's two take thrice as long."""
    top = log.max(axis=1, keepdims=True)
    share = np.exp(log - top)
    total = share.sum(axis=1, keepdims=True)
    share /= total
    return share, (top + np.log(total))[:, 0]


@dataclass(frozen=True)
class _Moments:
    """Number of cells, sum and sum of squares of every class in every dataset."""

    n: NDArray  # (n_classes, n_datasets)
    sums: NDArray  # (n_classes, n_datasets, n_components)
    squares: NDArray  # (n_classes, n_datasets, n_components)

    @classmethod
    def of(cls, parts: list[NDArray], classes: list[NDArray]) -> _Moments:
        both = list(zip(parts, classes, strict=True))
        n = np.stack([r.sum(axis=0) for r in classes], axis=1) + 1e-9
        sums = np.stack([r.T @ x for x, r in both], axis=1)
        return cls(n, sums, np.stack([r.T @ np.square(x) for x, r in both], axis=1))


def _maximise(
    moments: _Moments, before: ClassMixture | None, total: NDArray, slope: float
) -> ClassMixture:
    """Mixture of the moments, with the variances of the mixture `before` in the weights."""
    n = moments.n.sum(axis=1)
    means, within = moments.sums.sum(axis=1) / n[:, None], WITHIN_SHARE * total
    variances = np.tile(total, (len(n), 1))
    if before is not None:
        means, within, variances = before.means, before.within, before.variances
    centres = _centres(moments, means, within, variances, slope)
    centre = centres[0][:, None] + centres[1] + centres[2]
    square = moments.squares - 2 * centre * moments.sums + centre**2 * moments.n[:, :, None]
    square = np.maximum(square.sum(axis=1), 0)  # (n_classes, n_components)
    within = np.maximum(square.sum(axis=0) / n.sum(), EPSILON * total)
    variances = (square + N_PRIOR * within) / (n + N_PRIOR)[:, None] + MIN_VARIANCE * total
    weights = (moments.n + 0.5) / (moments.n + 0.5).sum(axis=0)
    return ClassMixture(*centres, variances, within, weights)


def _centres(
    moments: _Moments, means: NDArray, within: NDArray, variances: NDArray, slope: float
) -> tuple[NDArray, NDArray, NDArray]:
    r"""Means and shifts that minimise the squares, all components at once.

    With the own shifts of a dataset integrated out, the class means y of a dataset scatter around
    :math:`\mu + \delta_b` with the inverse covariance :math:`Q_b = (P_b^{-1} + C)^{-1}`, P_b the
    precision of the class means.
    """
    sd, n = np.sqrt(within), moments.n[:, :, None]
    scaled = means / sd
    scaled = scaled - (moments.n.sum(axis=1) @ scaled) / moments.n.sum()
    own = JITTER + (OWN_SD**2 if slope else 0.0)
    covariance = slope**2 * scaled @ scaled.T + own * np.eye(len(means))
    precision = np.where(n < MIN_CELLS, 0.0, n * within / variances[:, None])
    y = np.moveaxis(moments.sums / n / sd, 0, 2)  # (n_datasets, n_components, n_classes)
    root = np.sqrt(np.moveaxis(precision, 0, 2))
    inner = np.eye(len(means)) + root[..., None] * covariance * root[..., None, :]
    q = root[..., None] * np.linalg.inv(inner) * root[..., None, :]
    mu, delta = _means_and_shifts(q, y)
    residual = (q @ (y - mu - delta[..., None])[..., None])[..., 0]
    epsilon = residual @ covariance
    mean = delta.mean(axis=0)
    mu, delta = mu + mean[:, None], delta - mean
    return mu.T * sd, delta * sd, np.moveaxis(epsilon, 2, 0) * sd


def _means_and_shifts(q: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Solve for the means, and for the shifts of datasets, of each component."""
    n_datasets, n_components, n_classes = y.shape
    size = n_classes + n_datasets
    a = np.zeros((n_components, size, size))
    rows, qy = q.sum(axis=-1), (q @ y[..., None])[..., 0]
    k, b = np.arange(n_classes), n_classes + np.arange(n_datasets)
    a[:, :n_classes, :n_classes] = q.sum(axis=0)
    a[:, k, k] += RIDGE_MEAN
    a[:, :n_classes, n_classes:] = np.moveaxis(rows, 0, 2)
    a[:, n_classes:, :n_classes] = np.moveaxis(rows, 0, 1)
    a[:, b, b] = rows.sum(axis=-1).T + RIDGE_SHIFT
    right = np.concatenate([qy.sum(axis=0), qy.sum(axis=-1).T], axis=1)
    solution = np.linalg.solve(a, right[..., None])[..., 0]
    return solution[:, :n_classes], solution[:, n_classes:].T
