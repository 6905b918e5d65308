"""Hidden classes of cells, found in all arms although each class may be shifted differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax, xlogy
from sklearn.cluster import KMeans

from scovert.model.confounder.effects._align import align

__all__ = ["Classes", "find_classes"]

CLASS_SD = 0.25
"""Prior standard deviation of the shift of a class around the common one."""

N_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15)
N_STARTS = 2
PURITY = 0.3
"""Information about the arm that a class may hold freely, in nats: odds of seven to one."""

MIN_CELLS_TO_SPLIT = 20
MAX_CELLS = 10_000
MAX_STEPS = 150
TOLERANCE = 1e-5
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
        return softmax(_log_joint(self, _residuals(self, scores, arms), arms), axis=1)

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


def find_classes(scores: NDArray, arms: Arms, seed: int = 0) -> Classes:
    """Find classes of cells by their scores, as many as the data ask for.

    The number of classes has the lowest Bayesian information criterion, to which classes add that
    are nearly of one arm: solutions that split a type of cells by arm pay for it. Starts from
    scores with and without the difference of the arms, as aligned types may look like one, and
    from the best solution with one class less, each of its classes split in turn. Fitted to
    10,000 cells at most, by which the others are assigned.

    Parameters
    ----------
    scores
        Scores orthogonal to covariates and treatment, shape ``(n_cells, n_factors)``.
    arms
        Treatment of the cells.
    seed
        Seed of the starts and of the cells.

    Returns
    -------
    The best mixture, the most frequent class first.
    """
    rows = _some_cells(arms, seed)
    few, few_arms = scores[rows], arms.take(rows)
    member = np.eye(arms.n_levels)[few_arms.level]
    starts = [few]
    if scores.shape[1] > 2:
        starts = [*(align(few, member, seed + i) for i in range(N_STARTS)), few]
    best, lowest, before = None, np.inf, None
    for n_classes in N_CLASSES:
        labels = _first_labels(few, few_arms, starts, n_classes, before, seed)
        fits = [_fit(few, few_arms, each) for each in labels]
        criteria = [_criterion(classes, few_arms) for classes in fits]
        before = fits[int(np.argmin(criteria))]
        if min(criteria) < lowest:
            best, lowest = before, min(criteria)
    if len(rows) < len(scores):
        best = _with_probabilities(best, best.assign(scores, arms), arms)
    return best.take(np.argsort(-best.overall, kind="stable"))


def _first_labels(
    scores: NDArray,
    arms: Arms,
    starts: Sequence[NDArray],
    n_classes: int,
    before: Classes | None,
    seed: int,
) -> Iterator[NDArray]:
    """Labels to start from: k-means of every start, and the classes before with one of them split.

    With k-means alone the fit ends in one of many optima, and rounding can decide in which.
    """
    for i, start in enumerate(starts if n_classes > 1 else starts[:1]):
        yield KMeans(n_classes, n_init=3, random_state=seed + i).fit_predict(start)
    if before is None or before.n_classes != n_classes - 1:
        return
    labels = before.probabilities.argmax(1)
    for split in range(before.n_classes):
        own = np.flatnonzero(labels == split)
        if len(own) >= MIN_CELLS_TO_SPLIT:
            without_arms = scores[own] + arms.residual[own] @ before.class_shift[split]
            halves = KMeans(2, n_init=3, random_state=seed).fit_predict(without_arms)
            divided = labels.copy()
            divided[own[halves == 1]] = before.n_classes
            yield divided


def _with_probabilities(classes: Classes, probabilities: NDArray, arms: Arms) -> Classes:
    """Return a mixture with other probabilities of the cells."""
    frequency, overall = _means_by_level(probabilities, arms), probabilities.mean(0)
    return replace(classes, probabilities=probabilities, frequency=frequency, overall=overall)


def _some_cells(arms: Arms, seed: int) -> NDArray:
    """Rows of all cells, or as many of each arm as fit, in order."""
    n_cells = len(arms.level)
    if n_cells <= MAX_CELLS:
        return np.arange(n_cells)
    order = np.random.default_rng(seed).permutation(n_cells)
    place = np.empty(n_cells, int)
    for level in range(arms.n_levels):
        own = order[arms.level[order] == level]
        place[own] = np.arange(len(own))  # the first cells of every arm come first
    return np.sort(order[np.argsort(place[order], kind="stable")[:MAX_CELLS]])


def _means_by_level(values: NDArray, arms: Arms) -> NDArray:
    return np.stack([values[arms.level == level].mean(0) for level in range(arms.n_levels)])


def _fit(scores: NDArray, arms: Arms, labels: NDArray) -> Classes:
    """Expectation-maximisation from hard labels."""
    n, n_classes = len(scores), labels.max() + 1
    probabilities = np.full((n, n_classes), 0.02 / n_classes)
    probabilities[np.arange(n), labels] += 0.98
    covariances = np.stack([np.atleast_2d(np.cov(scores.T))] * n_classes)
    d = arms.residual
    products = [(d[:, :, None] * v[:, None]).reshape(n, -1) for v in (d, scores)]
    before = -np.inf
    for _ in range(MAX_STEPS):
        classes, residuals = _maximise(scores, arms, products, probabilities, covariances)
        log_joint = _log_joint(classes, residuals, arms)
        evidence = logsumexp(log_joint, axis=1)
        probabilities, covariances = np.exp(log_joint - evidence[:, None]), classes.covariances
        total = float(evidence.sum())
        if abs(total - before) < TOLERANCE * n:
            break
        before = total
    return _with_probabilities(replace(classes, log_likelihood=total), probabilities, arms)


def _maximise(
    scores: NDArray,
    arms: Arms,
    products: Sequence[NDArray],
    probabilities: NDArray,
    covariances: NDArray,
) -> tuple[Classes, list[NDArray]]:
    """Fit the classes to their cells: regressions on the arms, their shrinkage, covariances.

    Parameters
    ----------
    scores, arms
        The cells.
    products
        Every arm's residual times every arm's, and times every score, one row for each cell.
    probabilities, covariances
        Of the classes, from the step before.

    Returns
    -------
    The classes, and the scores less what each of them expects.
    """
    k, n_arms = scores.shape[1], arms.residual.shape[1]
    sizes = probabilities.sum(0) + 1e-9
    d_means, u_means = (probabilities.T @ v / sizes[:, None] for v in (arms.residual, scores))
    squares, cross = (
        (probabilities.T @ product).reshape(len(sizes), n_arms, -1)
        - sizes[:, None, None] * d_means[:, :, None] * means[:, None]
        for product, means in zip(products, (d_means, u_means), strict=True)
    )
    inverse = np.linalg.inv(squares + 1e-6 * np.eye(n_arms))
    slopes = -inverse @ cross  # (n_classes, n_arms, k)
    spread = 1 / np.einsum("caa->ca", inverse)
    noise = covariances[:, None] / spread[:, :, None, None]
    weights = np.linalg.inv(noise + (CLASS_SD**2 + 1e-9) * np.eye(k))
    precision = weights.sum(0)
    weighted = np.einsum("caij,caj->cai", weights, slopes)
    shift = np.linalg.solve(precision, weighted.sum(0)[..., None])[..., 0]
    deviation = np.einsum("caij,caj->cai", weights, slopes - shift)
    class_shift = shift + CLASS_SD**2 * deviation
    means = u_means + np.einsum("ca,cak->ck", d_means, class_shift)
    level_sizes = np.bincount(arms.level, minlength=arms.n_levels)
    frequency = _means_by_level(probabilities, arms)
    counts = frequency * level_sizes[:, None]
    proportions = (counts + 1) / (level_sizes + len(sizes))[:, None]
    fitted = Classes(
        probabilities=probabilities,
        means=means,
        covariances=covariances,
        shift=shift,
        class_shift=class_shift,
        precision=precision,
        spread=spread,
        proportions=proportions,
        log_likelihood=0.0,
        frequency=frequency,
        overall=probabilities.mean(0),
    )
    residuals = _residuals(fitted, scores, arms)
    return replace(fitted, covariances=_covariances(fitted, residuals)), residuals


def _covariances(classes: Classes, residuals: list[NDArray]) -> NDArray:
    """Covariances of the classes, shrunken by 2k cells towards that of all."""
    n, k = residuals[0].shape
    products = np.empty((classes.n_classes, k, k))
    for c, residual in enumerate(residuals):
        products[c] = (residual * classes.probabilities[:, [c]]).T @ residual
    pooled = products.sum(0) / n
    target = 0.7 * np.diag(np.diag(pooled)) + 0.3 * pooled
    sizes = classes.probabilities.sum(0)[:, None, None] + 1e-9
    return (products + 2 * k * target) / (sizes + 2 * k) + NUGGET * np.eye(k)


def _residuals(classes: Classes, scores: NDArray, arms: Arms) -> list[NDArray]:
    """Scores less what each class expects of them."""
    return [
        scores + arms.residual @ class_shift - mean
        for class_shift, mean in zip(classes.class_shift, classes.means, strict=True)
    ]


def _log_joint(classes: Classes, residuals: list[NDArray], arms: Arms) -> NDArray:
    """Log of the joint density of scores and classes, but for a constant."""
    joint = np.log(classes.proportions)[arms.level]
    roots = np.linalg.cholesky(classes.covariances)
    for c, residual in enumerate(residuals):
        white = residual @ np.linalg.inv(roots[c]).T
        joint[:, c] -= (white**2).sum(1) / 2 + np.log(np.diag(roots[c])).sum()
    return joint


def _criterion(classes: Classes, arms: Arms) -> float:
    """Bayesian information criterion, and what it costs to split a class by arm."""
    n, n_classes = classes.probabilities.shape
    n_arms, k = classes.shift.shape
    per_class = k * (k + 1) / 4 + k  # shrinkage leaves about half of a covariance free
    shared = (n_arms + 1) * (n_classes - 1) + n_arms * k
    bic = -2 * classes.log_likelihood + np.log(n) * (n_classes * per_class + shared)
    sizes = np.bincount(arms.level, minlength=arms.n_levels)
    reference, *others = classes.frequency
    purity = 0.0
    for size, frequency in zip(sizes[1:], others, strict=True):
        share = frequency / np.maximum(frequency + reference, 1e-12)
        information = np.log(2) + xlogy(share, share) + xlogy(1 - share, 1 - share)
        cells = size * frequency + sizes[0] * size / sizes[1:].sum() * reference
        purity += (cells * np.maximum(information - PURITY, 0)).sum()
    return float(bic + 2 * purity)
