"""How likely cells are in each of the shared states."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from scovert.core._losses import SparseCounts

__all__ = ["gaussian_by_state", "negative_binomial_by_state"]

N_NODES = 64
"""Totals at which the part of a state that counts do not enter is computed. Between them a cubic
is taken, which is off by a millionth of a cell's total at most where totals span four decades."""
LEAST_STEP = 1e-3
"""Distance of the nodes, on the log scale, where all totals are alike."""


def gaussian_by_state(f: Tensor, centers: Tensor, log_sd: Tensor, is_used: Tensor) -> Tensor:
    r"""Log-density of features in each state.

    .. math:: \log p(f_j \mid m) = -\tfrac12 \sum_g \Big[ \frac{(f_{jg} - W_{mg})^2}{\tau_g^2}
        + 2 \log \tau_g + \log 2 \pi \Big]

    Parameters
    ----------
    f
        Features less the shift of the batch, shape ``(n_cells, n_genes)``.
    centers
        Centres :math:`W` of the states, shape ``(n_states, n_genes)``.
    log_sd
        :math:`\log \tau`, shape ``(n_genes,)``.
    is_used
        1 for channels that vary, 0 for others, shape ``(n_genes,)``.

    Returns
    -------
    Tensor of shape ``(n_cells, n_states)``, in nats.
    """
    precision = is_used * torch.exp(-log_sd)
    f, centers = f * precision, centers * precision
    squares = f.square().sum(1, keepdim=True) - 2 * f @ centers.T + centers.square().sum(1)
    constant = (is_used * (log_sd + 0.5 * math.log(2 * math.pi))).sum()
    return -0.5 * squares - constant


def negative_binomial_by_state(
    counts: SparseCounts, total: Tensor, batch: Tensor, log_share: Tensor, log_theta: Tensor
) -> Tensor:
    r"""Log-probability of the counts of cells in each state.

    .. math:: \log p(x_j \mid m) = \sum_{g: x_{jg} > 0} \Big[ \log \frac{\Gamma(x_{jg} + \theta_g)}
        {\Gamma(\theta_g)\, x_{jg}!} - x_{jg} \log\Big(1 + \frac{\theta_g}{\mu_{jmg}}\Big) \Big]
        - \sum_g \theta_g \log\Big(1 + \frac{\mu_{jmg}}{\theta_g}\Big), \qquad
        \mu_{jmg} = \ell_j p_{mg}

    The last sum depends on the cell by its total :math:`\ell_j` alone: it is computed at 64 totals
    and interpolated.

    Parameters
    ----------
    counts
        Counts that are not zero.
    total
        Total counts, shape ``(n_cells,)``; at least 1.
    batch
        Row of `log_share` for each cell, shape ``(n_cells,)``.
    log_share
        :math:`\log p` in every batch, shape ``(n_batch, n_states, n_genes)``.
    log_theta
        Log inverse dispersion, shape ``(n_genes,)``.

    Returns
    -------
    Tensor of shape ``(n_cells, n_states)``, in nats.
    """
    row, col, value, log_factorial = counts
    theta = log_theta.exp()
    log_mean = log_share[batch[row], :, col] + total.log()[row].unsqueeze(1)  # (n_nonzero, M)
    at_counts = -value.unsqueeze(1) * F.softplus(log_theta[col].unsqueeze(1) - log_mean)
    gammas = torch.lgamma(value + theta[col]) - torch.lgamma(theta)[col] - log_factorial
    at_counts = at_counts + gammas.unsqueeze(1)
    return (-_of_totals(total.log(), batch, log_share.exp(), theta)).index_add(0, row, at_counts)


def _of_totals(log_total: Tensor, batch: Tensor, share: Tensor, theta: Tensor) -> Tensor:
    r""":math:`\sum_g \theta_g \log(1 + \ell_j p_{mg} / \theta_g)`, ``(n_cells, n_states)``."""
    first = log_total.min()
    step = ((log_total.max() - first) / (N_NODES - 1)).clamp(min=LEAST_STEP)
    nodes = first + step * torch.arange(N_NODES, dtype=step.dtype, device=step.device)
    ratio = nodes.exp().view(-1, 1, 1, 1) * (share / theta)  # (n_nodes, n_batch, n_states, G)
    value, slope = torch.log1p(ratio) @ theta, (ratio / (1 + ratio)) @ theta * step
    place = (log_total - first) / step
    at = place.long().clamp(0, N_NODES - 2)
    t = (place - at).unsqueeze(1)
    left, right = value[at, batch], value[at + 1, batch]  # (n_cells, n_states)
    rise = right - left
    from_left, from_right = slope[at, batch] - rise, rise - slope[at + 1, batch]
    return left + t * rise + t * (1 - t) * ((1 - t) * from_left + t * from_right)
