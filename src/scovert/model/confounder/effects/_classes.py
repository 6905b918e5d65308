"""Mixture of hidden classes of cells, each of which may be shifted differently by an arm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

__all__ = ["Arms", "CellProducts", "Classes", "fit_classes"]

CLASS_SD = 0.25
"""Prior standard deviation of the shift of a class around the common one."""

HARD = 0.98
"""Probability of the class that a label names, to start from."""

NUGGET = 0.01
"""Variance added to that of every class."""


class Arms(NamedTuple):
    """Treatment of cells.

    Attributes
    ----------
    level
        0 for the reference, then the arms, shape ``(n_cells,)``.
    residual
        Indicators of the arms less their linear prediction by the covariates, shape
        ``(n_cells, n_arms)``.
    """

    level: NDArray
    residual: NDArray

    def take(self, rows: NDArray) -> Arms:
        """Return the arms of some cells."""
        return Arms(self.level[rows], self.residual[rows])

    @property
    def n_levels(self) -> int:
        """Number of arms, the reference included."""
        return self.residual.shape[1] + 1


@dataclass(frozen=True)
class Classes:
    r"""Mixture of classes :math:`U_i \mid c \sim N(\mu_c - d_i (\delta + \epsilon_c), S_c)`.

    Attributes
    ----------
    probabilities
        Probability of every class, shape ``(n_cells, n_classes)``.
    means, covariances
        :math:`\mu_c` and :math:`S_c`, first axis ``n_classes``.
    shift
        :math:`\delta` of every arm, shape ``(n_arms, n_factors)``.
    class_shift
        :math:`\delta + \epsilon_c`, shape ``(n_classes, n_arms, n_factors)``.
    precision
        Inverse covariance of the shift of every arm, shape ``(n_arms, n_factors, n_factors)``.
    spread
        Sum of squares of an arm's indicator within a class, given the other arms, shape
        ``(n_classes, n_arms)``.
    proportions
        Class proportions in every arm, shape ``(n_levels, n_classes)``.
    log_likelihood
        Of the cells that it was fitted to.
    frequency
        Mean probability of every class in every arm, as `proportions`.
    overall
        Mean probability of every class.
    """

    probabilities: NDArray
    means: NDArray
    covariances: NDArray
    shift: NDArray
    class_shift: NDArray
    precision: NDArray
    spread: NDArray
    proportions: NDArray
    log_likelihood: float
    frequency: NDArray
    overall: NDArray

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.means)

    @property
    def to_residual(self) -> NDArray:
        """Matrices that take (1, treatment, scores) to the residual, ``(n_classes, k, m)``."""
        n_classes, k = self.means.shape
        identity = np.broadcast_to(np.eye(k), (n_classes, k, k))
        shift = self.class_shift.transpose(0, 2, 1)
        return np.concatenate([-self.means[:, :, None], shift, identity], 2)

    def with_probabilities(self, probabilities: NDArray, level: NDArray) -> Classes:
        """Return the classes with the probabilities of other cells, given their arms."""
        return replace(
            self,
            probabilities=probabilities,
            frequency=_means_by_level(probabilities, level, len(self.proportions)),
            overall=probabilities.mean(0),
        )

    def take(self, order: NDArray) -> Classes:
        """Return the classes in another order."""
        first = {
            name: getattr(self, name)[order]
            for name in ("means", "covariances", "class_shift", "spread", "overall")
        }
        last = {
            name: getattr(self, name)[:, order]
            for name in ("probabilities", "proportions", "frequency")
        }
        return replace(self, **first, **last)

    def assign(self, scores: NDArray, arms: Arms) -> NDArray:
        """Return class probabilities of cells, shape ``(n_cells, n_classes)``."""
        return softmax(CellProducts.of(scores, arms).log_joint(self), axis=1)

    def equal_in_arms(self, probabilities: NDArray, level: NDArray) -> NDArray:
        """Return class probabilities as if all classes were equally frequent in all arms."""
        weighted = probabilities / (self.frequency + 1e-9)[level] * self.overall
        return weighted / weighted.sum(1, keepdims=True)

    def put_back(self, scores: NDArray, arms: Arms, probabilities: NDArray) -> NDArray:
        """Return scores with the expected shift of every cell put back, of the same shape."""
        expected = np.tensordot(probabilities, self.class_shift, 1)  # (n_cells, n_arms, k)
        return scores + np.einsum("na,nak->nk", arms.residual, expected)

    def share(self, arm: int) -> NDArray:
        """Return how much of every class is in an arm (from 1) and not in the reference."""
        frequency = self.frequency
        return frequency[arm] / (frequency[arm] + frequency[0] + 1e-12)

    def shift_covariance(self, arm: int) -> NDArray:
        """Return the covariance of the shift that adjusting for classes amounts to."""
        spread = self.spread[:, arm]
        weight = spread / spread.sum()
        return np.einsum("c,cab->ab", weight**2 / spread, self.covariances)


class CellProducts(NamedTuple):
    """All products of two of (1, treatment, scores) of the cells.

    They are all that expectation-maximisation needs of the cells: the log density of a cell in a
    class is linear in its products, and so are the moments of a class, so that a step is two
    products of matrices.

    Attributes
    ----------
    products
        Shape ``(n_cells, m (m + 1) / 2)`` with ``m = 1 + n_arms + n_factors``.
    rows, columns
        What the products are of, places among the ``m``.
    level
        Arm of each cell, 0 for the reference.
    n_factors
        Number of scores.
    """

    products: NDArray
    rows: NDArray
    columns: NDArray
    level: NDArray
    n_factors: int

    @classmethod
    def of(cls, scores: NDArray, arms: Arms) -> CellProducts:
        """Multiply out scores of shape ``(n_cells, n_factors)`` and the treatment."""
        values = np.hstack([np.ones((len(scores), 1)), arms.residual, scores])
        rows, columns = np.triu_indices(values.shape[1])
        products = values[:, rows] * values[:, columns]
        return cls(products, rows, columns, arms.level, scores.shape[1])

    @property
    def n_arms(self) -> int:
        """Number of arms, the reference not counted."""
        return int(self.columns[-1]) - self.n_factors

    def sums(self, probabilities: NDArray) -> NDArray:
        """Sum the products over every class, shape ``(n_classes, m, m)``."""
        m = 1 + self.n_arms + self.n_factors
        full = np.empty((probabilities.shape[1], m, m))
        full[:, self.rows, self.columns] = probabilities.T @ self.products
        full[:, self.columns, self.rows] = full[:, self.rows, self.columns]
        return full

    def log_joint(self, classes: Classes) -> NDArray:
        """Log of the joint density of scores and classes, but for a constant."""
        maps = classes.to_residual
        forms = maps.transpose(0, 2, 1) @ np.linalg.inv(classes.covariances) @ maps
        weight = np.where(self.rows == self.columns, -0.5, -1.0)
        joint = self.products @ (forms[:, self.rows, self.columns] * weight).T
        joint -= np.linalg.slogdet(classes.covariances)[1] / 2
        return joint + np.log(classes.proportions)[self.level]


def fit_classes(
    cells: CellProducts, start: NDArray | Classes, *, max_steps: int, tolerance: float
) -> Classes:
    """Fit classes by expectation-maximisation.

    Parameters
    ----------
    cells
        The cells.
    start
        Label of every cell, from 0 without gaps, or classes of these cells to go on from.
    max_steps
        Most steps.
    tolerance
        Gain in the log-likelihood of a cell by a step, in nats, at which the fit ends.
    """
    if isinstance(start, Classes):
        probabilities, covariances = start.probabilities, start.covariances
    else:
        probabilities, covariances = _first_guess(cells, start)
    before = -np.inf
    for _ in range(max_steps):
        classes = _maximise(cells, probabilities, covariances)
        log_joint = cells.log_joint(classes)
        largest = log_joint.max(1, keepdims=True)
        weight = np.exp(log_joint - largest)
        total = weight.sum(1, keepdims=True)
        probabilities, covariances = weight / total, classes.covariances
        evidence = float((largest + np.log(total)).sum())
        if abs(evidence - before) < tolerance * len(log_joint):
            break
        before = evidence
    fitted = replace(classes, log_likelihood=evidence)
    return fitted.with_probabilities(probabilities, cells.level)


def _first_guess(cells: CellProducts, labels: NDArray) -> tuple[NDArray, NDArray]:
    """Probabilities by labels, and for every class the covariance of all cells."""
    n, n_classes, k = len(labels), labels.max() + 1, cells.n_factors
    probabilities = np.full((n, n_classes), (1 - HARD) / n_classes)
    probabilities[np.arange(n), labels] += HARD
    sums = cells.sums(np.ones((n, 1)))[0]
    mean = sums[0, -k:] / n
    covariance = (sums[-k:, -k:] - n * np.outer(mean, mean)) / (n - 1)
    return probabilities, np.stack([covariance] * n_classes)


def _maximise(cells: CellProducts, probabilities: NDArray, covariances: NDArray) -> Classes:
    """Fit the classes to their cells: regressions on the arms, their shrinkage, covariances."""
    sums, k, n_arms = cells.sums(probabilities), cells.n_factors, cells.n_arms
    d, u = slice(1, 1 + n_arms), slice(1 + n_arms, None)
    sizes = sums[:, 0, 0] + 1e-9
    d_means, u_means = (sums[:, 0, at] / sizes[:, None] for at in (d, u))
    squares, cross = (
        sums[:, d, at] - sizes[:, None, None] * d_means[:, :, None] * means[:, None]
        for at, means in ((d, d_means), (u, u_means))
    )
    inverse = np.linalg.inv(squares + 1e-6 * np.eye(n_arms))
    slopes = -inverse @ cross  # (n_classes, n_arms, k)
    spread = 1 / np.einsum("caa->ca", inverse)
    shift, class_shift, precision = _shrunken(slopes, covariances, spread)
    level_sizes = np.bincount(cells.level, minlength=1 + n_arms)
    frequency = _means_by_level(probabilities, cells.level, 1 + n_arms)
    fitted = Classes(
        probabilities=probabilities,
        means=u_means + np.einsum("ca,cak->ck", d_means, class_shift),
        covariances=covariances,
        shift=shift,
        class_shift=class_shift,
        precision=precision,
        spread=spread,
        proportions=(frequency * level_sizes[:, None] + 1) / (level_sizes + len(sizes))[:, None],
        log_likelihood=0.0,
        frequency=frequency,
        overall=probabilities.mean(0),
    )
    maps = fitted.to_residual
    squares = maps @ sums @ maps.transpose(0, 2, 1)
    return replace(fitted, covariances=_covariances(squares, sizes, len(probabilities), k))


def _shrunken(
    slopes: NDArray, covariances: NDArray, spread: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Return the shift of every arm, that of each class drawn towards it, and its precision."""
    identity = np.eye(slopes.shape[2])
    noise = covariances[:, None] / spread[:, :, None, None]
    weights = np.linalg.inv(noise + (CLASS_SD**2 + 1e-9) * identity)
    precision = weights.sum(0)
    weighted = np.einsum("caij,caj->cai", weights, slopes)
    shift = np.linalg.solve(precision, weighted.sum(0)[..., None])[..., 0]
    drawn = np.einsum("caij,caj->cai", weights, slopes - shift)
    return shift, shift + CLASS_SD**2 * drawn, precision


def _covariances(squares: NDArray, sizes: NDArray, n_cells: int, k: int) -> NDArray:
    """Covariances of the classes, shrunken by 2k cells towards that of all."""
    pooled = squares.sum(0) / n_cells
    target = 0.7 * np.diag(np.diag(pooled)) + 0.3 * pooled
    return (squares + 2 * k * target) / (sizes[:, None, None] + 2 * k) + NUGGET * np.eye(k)


def _means_by_level(values: NDArray, level: NDArray, n_levels: int) -> NDArray:
    """Means over the cells of each arm, shape ``(n_levels, n_columns)``."""
    member = np.eye(n_levels)[level]
    return member.T @ values / member.sum(0)[:, None]
