"""Where the shared cell states begin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

__all__ = ["initial_states", "means_of"]

N_COMPONENTS = 20
"""Principal components that cells are clustered in."""
N_STARTS = 3
"""Starts of k-means."""


def initial_states(features: NDArray, n_states: int, seed: int) -> NDArray:
    """Cluster cells by k-means on their principal components.

    Parameters
    ----------
    features
        Features less the mean of the batch, or states of one batch would be of no other, shape
        ``(n_cells, n_genes)``.
    n_states
        Number of clusters.
    seed
        Seed of k-means.

    Returns
    -------
    Number of the cluster of each cell, shape ``(n_cells,)``.
    """
    n_components = min(N_COMPONENTS, *features.shape)
    # On the covariance: exact, and as fast as a random projection of few channels
    space = PCA(n_components, svd_solver="full").fit_transform(features.astype(float))
    return KMeans(n_states, n_init=N_STARTS, random_state=seed).fit_predict(space)


def means_of(values: NDArray, cluster: NDArray, n_clusters: int) -> NDArray:
    """Mean of each cluster, and of all cells for one without any, ``(n_clusters, n_columns)``."""
    members = np.eye(n_clusters)[cluster]  # (n_cells, n_clusters)
    size = members.sum(0)[:, None]
    means = members.T @ values / np.maximum(size, 1)
    return np.where(size > 0, means, values.mean(0))
