"""Errors of a regression when the cells of a cluster (a donor, a sample) are not independent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.model.confounder.glm._blocks import CountBlocks
from scovert.model.confounder.glm._regression import ETA, GeneSums, Regression

__all__ = ["ClusterVariance", "cluster_variance"]

MIN_REST = 0.02
"""Lower bound of 1 - leverage of a cluster."""


class ClusterVariance(NamedTuple):
    """Variance of a contrast of the coefficients of every gene.

    Attributes
    ----------
    model
        By the model, for independent cells, shape ``(n_genes,)``.
    robust
        By the clusters, unbiased if the model holds (CR2).
    """

    model: NDArray
    robust: NDArray


def cluster_variance(
    blocks: CountBlocks,
    design: NDArray,
    fit: Regression,
    contrast: NDArray,
    clusters: NDArray,
) -> ClusterVariance:
    r"""Variance of a contrast by the bias-reduced cluster sandwich :cite:p:`Bell02,Pustejovsky18`.

    Scores are summed over each cluster :math:`g` and divided by :math:`(I - H_{gg})^{1/2}`, where
    :math:`H` is the hat matrix of the working model.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Design of the fit, shape ``(n_cells, n_columns)``.
    fit
        The regression.
    contrast
        Weights of the coefficients, shape ``(n_columns,)``.
    clusters
        Cluster of each cell, from 0 without gaps.

    Returns
    -------
    Both variances.
    """
    covariance = blocks.double(fit.covariance)
    root = torch.linalg.cholesky(covariance)  # covariance = root root'
    weights = blocks.double(contrast)
    aim = root.mT @ weights  # (n_genes, n_columns)
    contributions = []
    for rows in _rows_by_cluster(clusters):
        information, score = _cluster_sums(blocks, design, fit, rows)
        hat = root.mT @ information @ root
        share, axes = torch.linalg.eigh(hat)
        widened = (1 - share).clamp(min=MIN_REST).rsqrt()
        adjusted = (axes * widened[:, None]) @ (axes.mT @ aim[..., None])  # (n_genes, n, 1)
        contributions.append((score * (root @ adjusted)[..., 0]).sum(1))
    robust = torch.stack(contributions).square().sum(0)
    model = aim.square().sum(1)
    return ClusterVariance(*(v.cpu().numpy() for v in (model, robust)))


def _rows_by_cluster(clusters: NDArray) -> list[NDArray]:
    order = np.argsort(clusters, kind="stable")
    return np.split(order, np.cumsum(np.bincount(clusters))[:-1])


def _cluster_sums(
    blocks: CountBlocks, design: NDArray, fit: Regression, rows: NDArray
) -> tuple[Tensor, Tensor]:
    """Information, shape ``(n_genes, n, n)``, and score, ``(n_genes, n)``, of some cells."""
    b, alpha = blocks.tensor(fit.coefficients), blocks.tensor(fit.dispersion)
    sums = GeneSums(design.shape[1], blocks, expected=True)
    for part, y in blocks.over(rows):
        x = blocks.tensor(design[part])
        sums.add(x, y, torch.addmm(blocks.offset[part], x, b).clamp_(*ETA), alpha)
    return sums.information, sums.score.T
