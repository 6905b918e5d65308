"""Loss terms: pure functions from tensors to one value per cell, shape ``(n_cells,)``."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from scvi.distributions import NegativeBinomial
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.distributions import Normal

__all__ = [
    "SparseCounts",
    "balanced_cross_entropy",
    "confusion",
    "dense_counts",
    "dirichlet",
    "kl_standard_normal",
    "negative_binomial",
    "negative_binomial_deviance",
    "squared_distance",
]

EPS = 1e-8
"""Added to means and inverse dispersions before a logarithm, as in scvi-tools."""

MIN_SHARE = 1e-4
"""Smallest share in the likelihood of a Dirichlet distribution, which has no logarithm of 0."""


class SparseCounts(NamedTuple):
    r"""Counts of a minibatch, in the order of the cells.

    Attributes
    ----------
    row, col
        Cell and gene of every non-zero count, shape ``(n_nonzero,)``, int64.
    value
        The count, shape ``(n_nonzero,)``.
    log_factorial
        Its :math:`\log x!`, shape ``(n_nonzero,)``.
    """

    row: Tensor
    col: Tensor
    value: Tensor
    log_factorial: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Self:
        """Find the non-zero counts of a dense minibatch, shape ``(n_cells, n_genes)``."""
        row, col = x.nonzero(as_tuple=True)
        value = x[row, col]
        return cls(row, col, value, torch.lgamma(value + 1))

    def dense(self, n_cells: int, n_genes: int) -> Tensor:
        """Return the counts of all genes, shape ``(n_cells, n_genes)``."""
        return dense_counts(self.row, self.col, self.value, (n_cells, n_genes))


def dense_counts(row: Tensor, col: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a dense matrix of `shape` with `value` at `row` and `col`, 0 elsewhere."""
    x = value.new_zeros(shape[0] * shape[1])
    return x.scatter_(0, row * shape[1] + col, value).view(shape)


def negative_binomial(mean: Tensor, theta: Tensor, counts: SparseCounts) -> Tensor:
    r"""Negative log-likelihood of counts, for matrices that are mostly zero.

    .. math:: -\log p(x_i) = \sum_g \theta_g \log\left(1 + \frac{\mu_{ig}}{\theta_g}\right)
        - \sum_{g: x_{ig} > 0} \left[x_{ig} \log\frac{\mu_{ig}}{\theta_g + \mu_{ig}}
        + \log\Gamma(x_{ig} + \theta_g) - \log\Gamma(\theta_g) - \log x_{ig}!\right]

    Equals ``-NegativeBinomial(mu=mean, theta=theta).log_prob(x).sum(-1)`` of scvi-tools. Gamma
    functions are evaluated only where there are counts, once for every gene and once for the whole
    data set, and the gradient is written by hand.

    Parameters
    ----------
    mean
        Mean :math:`\mu`, 0 allowed, shape ``(n_cells, n_genes)``; half precision is computed in
        float32.
    theta
        Inverse dispersion, shape ``(n_genes,)``. With a cell axis, ``(n_cells, n_genes)``, nothing
        can be shared between cells and the distribution of scvi-tools is used.
    counts
        Raw counts.

    Returns
    -------
    One value per cell in nats, shape ``(n_cells,)``.
    """
    with torch.autocast(mean.device.type, enabled=False):
        if mean.dtype in (torch.float16, torch.bfloat16):
            mean = mean.float()
        if theta.ndim == 1:
            return _SparseNB.apply(mean, theta.to(mean.dtype), *counts)
        px = NegativeBinomial(mu=mean, theta=theta, validate_args=False)
        return -px.log_prob(counts.dense(*mean.shape)).sum(-1)


def negative_binomial_deviance(mean: Tensor, theta: Tensor, x: Tensor) -> Tensor:
    r"""Deviance of counts from their mean, of every gene by itself.

    .. math:: 2 \left[x \log\frac{x}{\mu} - (x + \theta) \log\frac{x + \theta}{\mu + \theta}\right]

    Parameters
    ----------
    mean
        Mean :math:`\mu`, shape ``(n_cells, n_genes)``.
    theta
        Inverse dispersion, shape ``(n_genes,)``.
    x
        Raw counts, shape ``(n_cells, n_genes)``.

    Returns
    -------
    One value per cell and gene, shape ``(n_cells, n_genes)``, 0 where the mean is the count.
    """
    mean = mean.clamp(min=torch.finfo(mean.dtype).tiny)
    unexplained = torch.xlogy(x, x) - x * mean.log()
    return 2 * (unexplained - (x + theta) * ((x + theta) / (mean + theta)).log())


class _SparseNB(torch.autograd.Function):
    """See `negative_binomial`."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        mean: Tensor,
        theta: Tensor,
        row: Tensor,
        col: Tensor,
        value: Tensor,
        log_factorial: Tensor,
    ) -> Tensor:
        scale = theta + EPS
        log_ratio = (mean * scale.reciprocal()).log1p_()  # log((theta + mean) / theta)
        flat = row * mean.shape[-1] + col
        # Where there are counts
        log_mean = (mean.view(-1).index_select(0, flat) + EPS).log_()
        log_both = log_ratio.view(-1).index_select(0, flat) + scale.log().index_select(0, col)
        gammas = torch.lgamma(value + theta.index_select(0, col)).sub_(log_factorial)
        gammas -= torch.lgamma(theta).index_select(0, col)
        at_counts = torch.addcmul(gammas, value, log_mean - log_both)
        ctx.save_for_backward(mean, log_ratio, theta, row, col, value, flat)
        return (log_ratio @ theta).index_add_(0, row, at_counts, alpha=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        mean, log_ratio, theta, row, col, value, flat = ctx.saved_tensors
        gradient = -gradient
        scale = theta + EPS
        inverse = (mean + scale).reciprocal_()  # 1 / (theta + mean)
        # Where there are counts
        mean_at = mean.view(-1).index_select(0, flat)
        inverse_at = inverse.view(-1).index_select(0, flat)
        theta_at, gradient_at = theta.index_select(0, col), gradient.index_select(0, row)
        digammas = torch.digamma(value + theta_at) - torch.digamma(theta).index_select(0, col)
        # Inverse dispersion
        d_theta = gradient.sum() * (theta / scale) - gradient @ log_ratio
        d_theta -= theta * (gradient @ inverse)
        d_theta.index_add_(0, col, gradient_at * (digammas - value * inverse_at))
        # Mean
        d_mean = inverse.mul_(-theta).mul_(gradient.unsqueeze(-1))
        d_mean_at = value / (mean_at + EPS) - (value + theta_at) * inverse_at
        d_mean.view(-1).scatter_(0, flat, gradient_at * d_mean_at)
        return d_mean, d_theta, None, None, None, None


def kl_standard_normal(qz: Normal, free_bits: float = 0.0) -> Tensor:
    r"""Divergence of a diagonal Gaussian from the standard normal.

    .. math:: \sum_k \max\left(\lambda,
        \tfrac12 \left(\mu_k^2 + \sigma_k^2 - 1 - \log \sigma_k^2\right)\right)

    Parameters
    ----------
    qz
        Posterior with mean and standard deviation of shape ``(n_cells, n_latent)``.
    free_bits
        What :math:`\lambda` a dimension has for free, in nats: below it there is no gradient that
        would make the dimension tell less :cite:p:`Kingma16`.

    Returns
    -------
    One value per cell in nats, shape ``(n_cells,)``; without free bits 0 when the posterior is the
    prior.
    """
    variance = qz.variance
    divergence = 0.5 * (qz.mean.square() + variance - 1 - variance.log())
    if free_bits > 0:
        divergence = divergence.clamp(min=free_bits)
    return divergence.sum(-1)


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


def confusion(logits: Tensor, allowed: Tensor | None = None) -> Tensor:
    r"""Divergence of the uniform distribution over some classes from a classifier's prediction.

    .. math:: \mathrm{KL}(u_i \,\|\, p_i)
        = -\log |A_i| - \frac{1}{|A_i|} \sum_{k \in A_i} \log p_{ik}

    Bounded below: an encoder that minimises it stops where the classifier cannot tell the classes
    apart, whereas the negative cross-entropy also rewards deceiving it without bound.

    Parameters
    ----------
    logits
        Unnormalised log-probabilities, shape ``(n_cells, n_classes)``.
    allowed
        1 for the classes :math:`A_i` of a cell, at least one, and 0 for others, of that shape;
        `None` allows all.

    Returns
    -------
    One value per cell in nats, shape ``(n_cells,)``, 0 for the uniform prediction.
    """
    log = F.log_softmax(logits, dim=-1)
    if allowed is None:
        return -math.log(logits.shape[-1]) - log.mean(-1)
    n_allowed = allowed.sum(-1)
    return -n_allowed.log() - (allowed * log).sum(-1) / n_allowed


def dirichlet(concentration: Tensor, shares: Tensor) -> Tensor:
    r"""Negative log-likelihood of shares.

    .. math:: -\log p(w_i) = \sum_k \log\Gamma(\alpha_{ik})
        - \log\Gamma\Big(\sum_k \alpha_{ik}\Big) - \sum_k (\alpha_{ik} - 1) \log w_{ik}

    Parameters
    ----------
    concentration
        Positive :math:`\alpha`, shape ``(n_samples, n_types)``.
    shares
        Shares :math:`w` of that shape; they are raised to 0.0001 at least and made to sum to one.

    Returns
    -------
    One value per sample in nats, shape ``(n_samples,)``.
    """
    shares = shares.clamp(min=MIN_SHARE)
    shares = shares / shares.sum(-1, keepdim=True)
    normaliser = torch.lgamma(concentration).sum(-1) - torch.lgamma(concentration.sum(-1))
    return normaliser - torch.xlogy(concentration - 1, shares).sum(-1)
