"""Scores of cells without the difference of the arms, to start the search for classes from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

__all__ = ["align"]

WIDTH, ROUNDS = 0.1, 10
"""Softness of the clusters, in squared distance on the sphere, and rounds of regression."""


def align(scores: NDArray, member: NDArray, seed: int) -> NDArray:
    """Remove from scores how the arms differ within neighbourhoods, to start from.

    The idea of Harmony :cite:p:`Korsunsky19`: soft clusters on the sphere that hold all arms, and
    regression on the arms within each. `member` tells the arm of every cell, shape
    ``(n_cells, n_arms)``.
    """
    n = len(scores)
    n_clusters = int(np.clip(n // 30, 5, 60))
    rng = np.random.default_rng(seed)
    centres = KMeans(n_clusters, n_init=1, random_state=seed).fit(_on_sphere(scores))
    centres = _on_sphere(centres.cluster_centers_)
    aligned = scores
    for _ in range(ROUNDS):
        places = _on_sphere(aligned)
        soft = np.exp(2 * (places @ centres.T - 1) / WIDTH)
        soft /= soft.sum(1, keepdims=True)
        for _ in range(5):
            centres = _on_sphere(soft.T @ places)
            closeness = 2 * (places @ centres.T - 1) / WIDTH
            _spread_over_arms(soft, closeness, member, rng)
        before, aligned = aligned, scores - _arm_means(scores, soft, member)
        if np.abs(aligned - before).max() < 1e-3:
            break
    return aligned


def _on_sphere(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _spread_over_arms(
    soft: NDArray, closeness: NDArray, member: NDArray, rng: np.random.Generator
) -> None:
    """Reassign cells, a twentieth at a time, to near clusters that lack their arm."""
    frequency = member.mean(0)
    near = np.exp(closeness - closeness.max(1, keepdims=True))
    observed, expected = soft.T @ member, np.outer(soft.sum(0), frequency)
    for block in np.array_split(rng.permutation(len(soft)), 20):
        observed -= soft[block].T @ member[block]
        expected -= np.outer(soft[block].sum(0), frequency)
        weighted = near[block] * (member[block] @ ((expected + 1) / (observed + 1)).T)
        soft[block] = weighted / weighted.sum(1, keepdims=True)
        observed += soft[block].T @ member[block]
        expected += np.outer(soft[block].sum(0), frequency)


def _arm_means(scores: NDArray, soft: NDArray, member: NDArray) -> NDArray:
    """How the arms differ within the clusters of each cell, by ridge regression."""
    design = np.hstack([np.ones((len(scores), 1)), member])
    ridge = np.diag([1e-9] + [1.0] * member.shape[1])
    weighted = np.concatenate([soft * column[:, None] for column in design.T], 1).T
    sums = weighted @ np.hstack([design, scores])  # (n_columns * n_clusters, n_columns + k)
    sums = sums.reshape(design.shape[1], soft.shape[1], -1).swapaxes(0, 1)
    gram, moments = np.split(sums, [design.shape[1]], axis=2)
    slopes = np.linalg.solve(gram + ridge, moments)  # (n_clusters, n_columns, k)
    return sum(arm[:, None] * (soft @ slopes[:, 1 + i]) for i, arm in enumerate(member.T))
