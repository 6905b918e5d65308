"""Loss terms: pure functions from tensors to one value per cell, shape ``(n_cells,)``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal

__all__ = [
    "balanced_cross_entropy",
    "confusion",
    "kl_standard_normal",
    "squared_distance",
]


def kl_standard_normal(qz: Normal) -> Tensor:
    r"""Divergence of a diagonal Gaussian from the standard normal.

    .. math:: \tfrac12 \sum_k \left(\mu_k^2 + \sigma_k^2 - 1 - \log \sigma_k^2\right)

    Parameters
    ----------
    qz
        Posterior with mean and standard deviation of shape ``(n_cells, n_latent)``.

    Returns
    -------
    One value per cell in nats, shape ``(n_cells,)``, 0 when the posterior is the prior.
    """
    variance = qz.variance
    return 0.5 * (qz.mean.square() + variance - 1 - variance.log()).sum(-1)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""Squared Euclidean distance, the pull between two anchored cells.

    .. math:: \lVert a_i - b_i \rVert^2

    Parameters
    ----------
    a, b
        Positions, shape ``(n_cells, n_latent)``.

    Returns
    -------
    One value per cell, shape ``(n_cells,)``, 0 when the positions agree.
    """
    return (a - b).square().sum(-1)


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy in which every class that occurs has the same weight.

    .. math:: \ell_i = -\frac{n}{K n_{t_i}} \log p_{i t_i},

    with :math:`n` cells, :math:`n_t` of them of class :math:`t` and :math:`K` classes present. The
    mean over the cells is the mean over the classes of their cross-entropy: a guess by the sizes
    of the classes gains nothing, chance is :math:`\log K`.

    Parameters
    ----------
    logits
        Unnormalised log-probabilities, shape ``(n_cells, n_classes)``.
    target
        True class, shape ``(n_cells,)``.

    Returns
    -------
    One value per cell in nats, shape ``(n_cells,)``, 0 for a class predicted with certainty.
    """
    counts = torch.bincount(target, minlength=logits.shape[-1])
    weight = len(target) / ((counts > 0).sum() * counts[target])
    return weight * F.cross_entropy(logits, target, reduction="none")


def confusion(logits: Tensor) -> Tensor:
    r"""Divergence of the uniform distribution over the classes from a classifier's prediction.

    .. math:: \mathrm{KL}(u \,\|\, p_i) = -\log K - \frac1K \sum_{k=1}^K \log p_{ik}

    Bounded below: an encoder that minimises it stops where the classifier cannot tell the classes
    apart, whereas the negative cross-entropy also rewards deceiving it without bound.

    Parameters
    ----------
    logits
        Unnormalised log-probabilities, shape ``(n_cells, n_classes)``.

    Returns
    -------
    One value per cell in nats, shape ``(n_cells,)``, 0 for the uniform prediction.
    """
    return -math.log(logits.shape[-1]) - F.log_softmax(logits, dim=-1).mean(-1)
