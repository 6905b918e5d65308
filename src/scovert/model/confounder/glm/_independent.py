"""Rotation of scores towards binary confounders, without a start that could be a bad one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["independent_components", "oriented"]

N_ANGLES = 48
"""Angles from 0 to 90 degrees that are tried for a pair of axes; a peak is about 30 wide."""

N_REFINEMENTS = 4
"""Each looks around the best angle, a fifth as far apart as the last: to 0.003 degrees."""

MIN_GAIN = 1e-4
"""What a pair has to gain; a balanced binary variable has 0.34, a normal one 0."""

MAX_SWEEPS = 10
"""Most rounds over all pairs of axes, should gains not end them."""

MAX_CELLS = 5_000
"""Angles are sought by so many cells at most, evenly spaced."""

ODD = 36 / (8 * 3**0.5 - 9) / 5
"""Weight of the odd moment: a fifth of that in negentropy, as the noise of counts is skewed."""

EVEN = 24 / (16 * 3**0.5 - 27)
"""Weight of the even moment, that in negentropy."""


def independent_components(scores: NDArray) -> NDArray:
    """Rotate white scores so that each follows one binary confounder.

    Rotates two axes at a time by the best of all angles, until no pair gains. The fixed-point
    iteration of FastICA ends at any stationary point, the worst included: two balanced binary
    variables turned by 45 degrees are one.

    Parameters
    ----------
    scores
        White scores, shape ``(n_cells, n_factors)``.

    Returns
    -------
    The rotated scores, with signs as of :func:`oriented`.
    """
    some = scores[:: -(-len(scores) // MAX_CELLS)]
    n_factors = scores.shape[1]
    turn = np.eye(n_factors)
    for _ in range(MAX_SWEEPS):
        gains = [_turn_pair(some, turn, list(pair)) for pair in combinations(range(n_factors), 2)]
        if max(gains, default=0.0) < MIN_GAIN:
            break
    return oriented(scores @ turn)


def oriented(vectors: NDArray) -> NDArray:
    """Return columns with the sign that makes their entry of the largest size positive."""
    largest = np.abs(vectors).argmax(0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)


def _turn_pair(scores: NDArray, turn: NDArray, pair: list[int]) -> float:
    """Turn two axes by the best of all angles, in place; return the gain."""
    x, y = (scores @ turn[:, pair]).T

    def gain(angle: float) -> float:
        c, s = np.cos(angle), np.sin(angle)
        return _binariness(c * x + s * y) + _binariness(c * y - s * x)

    step, best = np.pi / 2 / N_ANGLES, 0.0
    before = gain(0.0)
    angles = np.arange(N_ANGLES) * step
    for _ in range(N_REFINEMENTS + 1):
        best = max(angles, key=gain)
        angles, step = best + np.linspace(-0.8, 0.8, 9) * step, step / 5
    value = gain(best) - before
    if value >= MIN_GAIN:
        c, s = np.cos(best), np.sin(best)
        turn[:, pair] = turn[:, pair] @ np.array([[c, -s], [s, c]])
    return value


def _binariness(x: NDArray) -> float:
    """Distance from the normal distribution towards a binary one, a form of negentropy.

    By the moments of :cite:t:`Hyvarinen98`. The even one counts only where tails are short: heavy
    ones are those of the noise.
    """
    bell = np.exp(-(x**2) / 2)
    return ODD * np.mean(x * bell) ** 2 + EVEN * max(0.5**0.5 - np.mean(bell), 0.0) ** 2
