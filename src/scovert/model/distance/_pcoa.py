"""Principal coordinates, the start of an embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

__all__ = ["leading", "negative_share", "pcoa"]

LARGEST_DENSE = 3000
"""Rows of a matrix whose eigenvectors are computed in full (5 s); of a larger one by Lanczos."""
POSITIVE = 1e-8
"""Of the largest eigenvalue, above which another is not rounding."""
N_LOOKED_AT = 2000
"""Samples by which the share of negative eigenvalues is told, at most."""


def leading(matrix: NDArray, n: int) -> tuple[NDArray, NDArray]:
    """Return the largest positive eigenvalues, at most `n` of them, in descending order.

    Parameters
    ----------
    matrix
        Symmetric matrix.
    n
        How many.

    Returns
    -------
    Eigenvalues ``(k,)`` and eigenvectors ``(n_rows, k)``, each of which has its largest entry
    positive.
    """
    size = len(matrix)
    n = min(n, size - 1)
    if size <= LARGEST_DENSE:
        values, vectors = eigh(matrix, subset_by_index=[size - n, size - 1])
    else:
        start = np.random.default_rng(0).normal(size=size)
        values, vectors = eigsh(matrix, n, which="LA", v0=start)
    order = np.argsort(values)[::-1]
    order = order[values[order] > POSITIVE * max(values.max(), 0)]
    vectors = vectors[:, order]
    at = np.abs(vectors).argmax(0)
    return values[order], vectors * np.sign(vectors[at, np.arange(len(at))])


def _centred(distances: NDArray) -> NDArray:
    r""":math:`-\frac12 J D^2 J`: inner products, if the distances are Euclidean."""
    inner = -0.5 * np.square(distances, dtype=float)
    inner -= inner.mean(0)
    return inner - inner.mean(1, keepdims=True)


def pcoa(distances: NDArray, n_axes: int) -> NDArray:
    """Return principal coordinates :cite:p:`Gower66`, shape ``(n_samples, n_axes)``.

    Fewer where there are fewer positive eigenvalues.
    """
    values, vectors = leading(_centred(distances), n_axes)
    return vectors * np.sqrt(values)


def negative_share(distances: NDArray) -> float:
    """Return the share of the eigenvalues' absolute sum that is negative.

    0 for Euclidean distances. By 2,000 samples, evenly spaced, where there are more.
    """
    some = np.unique(np.linspace(0, len(distances) - 1, N_LOOKED_AT).astype(int))
    values = eigh(_centred(distances[np.ix_(some, some)]), eigvals_only=True)
    return float(np.abs(values[values < 0]).sum() / np.abs(values).sum())
