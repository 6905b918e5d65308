"""Search for hidden classes of cells: how many there are, and the best of many starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy
from sklearn.cluster import KMeans

from scovert.model.confounder.effects._align import align
from scovert.model.confounder.effects._classes import Arms, CellProducts, Classes, fit_classes

__all__ = ["find_classes"]

N_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15)
"""Numbers of classes that are tried: as many as there are types that a treatment may follow;
beyond ten one more matters little."""

MAX_WORSE = 3
"""Numbers of classes in a row without improvement after which the search ends."""

N_STARTS = 4
"""Starts from scores whose arms are aligned, beside one from the scores as they are. With two the
search missed a better optimum in two of ten draws of a strong hidden type; eight find none."""

PURITY = 0.3
"""Information about the arm that a class may hold freely, in nats: odds of seven to one."""

MIN_CELLS_TO_SPLIT = 20
"""Cells of a class that may be two: ten of each tell a mean."""

MAX_CELLS = 10_000
"""Cells of the final fit, 100 of a class of 1 %; the others are placed in its classes."""

MAX_SEARCH_CELLS = 3_000
"""Cells that the number and the start are sought by: 30 of a class of 1 %."""

FIRST_STEPS, N_FINALISTS = 10, 3
"""Steps of every start, and starts that go on: the best after ten steps need not be the best."""

MAX_STEPS = 150
"""Most steps of a fit, should its gains not end it."""

SEARCH_TOLERANCE, TOLERANCE = 5e-5, 1e-6
"""Gains by a step, in nats for each cell, at which a start and the final fit end."""


def find_classes(scores: NDArray, arms: Arms, seed: int = 0) -> Classes:
    """Find classes of cells by their scores, as many as the data ask for.

    The number of classes has the lowest Bayesian information criterion, to which classes add that
    are nearly of one arm: solutions that split a type of cells by arm pay for it. Starts from
    scores with and without the difference of the arms, as aligned types may look like one, and
    from the best solution with one class less, each of its classes split in turn. Sought by 3,000
    cells and fitted to 10,000 at most, by which the others are assigned.

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
    found, seen = None, 0
    for most in (MAX_SEARCH_CELLS, MAX_CELLS):
        rows = _some_cells(arms, most, seed)
        if len(rows) == seen:
            continue
        few, few_arms, seen = scores[rows], arms.take(rows), len(rows)
        cells = CellProducts.of(few, few_arms)
        if found is None:
            found = _search(few, few_arms, cells, seed)
        else:
            found = found.with_probabilities(found.assign(few, few_arms), few_arms.level)
        found = fit_classes(cells, found, max_steps=MAX_STEPS, tolerance=TOLERANCE)
    if seen < len(scores):
        found = found.with_probabilities(found.assign(scores, arms), arms.level)
    return found.take(np.argsort(-found.overall, kind="stable"))


def _search(scores: NDArray, arms: Arms, cells: CellProducts, seed: int) -> Classes:
    """Return the mixture with the lowest criterion of all numbers of classes and starts."""
    member = np.eye(arms.n_levels)[arms.level]
    starts = [scores]
    if scores.shape[1] > 2:
        starts = [*(align(scores, member, seed + i) for i in range(N_STARTS)), scores]
    best, lowest, before, n_worse = None, np.inf, None, 0
    for n_classes in N_CLASSES:
        labels = _first_labels(scores, arms, starts, n_classes, before, seed)
        before, criterion = _best_of(cells, labels, arms)
        n_worse += 1
        if criterion < lowest:
            best, lowest, n_worse = before, criterion, 0
        if n_worse == MAX_WORSE:
            break
    return best


def _best_of(cells: CellProducts, labels: Iterator[NDArray], arms: Arms) -> tuple[Classes, float]:
    """Fit from many starts, of which those ahead after some steps go on."""
    options = {"tolerance": SEARCH_TOLERANCE}
    fits = [fit_classes(cells, each, max_steps=FIRST_STEPS, **options) for each in labels]
    order = np.argsort([_criterion(fit, arms) for fit in fits], kind="stable")[:N_FINALISTS]
    fits = [fit_classes(cells, fits[i], max_steps=MAX_STEPS, **options) for i in order]
    criteria = [_criterion(fit, arms) for fit in fits]
    best = int(np.argmin(criteria))
    return fits[best], criteria[best]


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
        yield KMeans(n_classes, n_init=1, random_state=seed + i).fit_predict(start)
    if before is None or before.n_classes != n_classes - 1:
        return
    labels = before.probabilities.argmax(1)
    for split in range(before.n_classes):
        own = np.flatnonzero(labels == split)
        if len(own) >= MIN_CELLS_TO_SPLIT:
            without_arms = scores[own] + arms.residual[own] @ before.class_shift[split]
            halves = KMeans(2, n_init=1, random_state=seed).fit_predict(without_arms)
            divided = labels.copy()
            divided[own[halves == 1]] = before.n_classes
            yield divided


def _some_cells(arms: Arms, most: int, seed: int) -> NDArray:
    """Rows of all cells, or as many of each arm as fit, in order."""
    n_cells = len(arms.level)
    if n_cells <= most:
        return np.arange(n_cells)
    order = np.random.default_rng(seed).permutation(n_cells)
    place = np.empty(n_cells, int)
    for level in range(arms.n_levels):
        own = order[arms.level[order] == level]
        place[own] = np.arange(len(own))  # the first cells of every arm come first
    return np.sort(order[np.argsort(place[order], kind="stable")[:most]])


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
