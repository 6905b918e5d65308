"""The original decoder: predicted neighbours, matched to the true ones one by one."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

__all__ = ["MatchingDecoder", "match"]

N_QUERY = 32
"""Dimensions of what tells one slot from another."""
COSINE_WEIGHT = 1.0
"""Weight of one less the cosine of a neighbour and its slot, per gene: as much as half a squared
distance of one standard deviation."""


class MatchingDecoder(nn.Module):
    r"""Decode a latent position into as many neighbours as there are, in no order.

    Slot s has the features :math:`y_{is} = g(z_i, q_s)` with a learnt query :math:`q_s`. The loss
    is the mean over the neighbours j of

    .. math:: \sum_g \Big[\frac{(f_{jg} - y_{i s(j) g})^2}{2 \tau_g^2} + \log \tau_g\Big]
        + \frac{G}{2} \big(1 - \cos(f_j, y_{i s(j)})\big)

    with the assignment s of slots to neighbours for which the squared distances are least
    :cite:p:`Kuhn55`. The standard deviation :math:`\tau` of every channel is learnt, so that no
    channel rules by its unit.

    Parameters
    ----------
    n_latent, n_output
        Dimensions of the latent space and of the features.
    n_slots
        Predicted neighbours.
    n_hidden
        Nodes of the hidden layer.
    """

    def __init__(self, n_latent: int, n_output: int, n_slots: int, n_hidden: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(n_slots, N_QUERY))
        self.network = nn.Sequential(
            nn.Linear(n_latent + N_QUERY, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_output),
        )
        self.log_sd = nn.Parameter(torch.zeros(n_output))

    def forward(self, z: Tensor) -> Tensor:
        """Return predicted neighbours, shape ``(n_cells, n_slots, n_output)``."""
        shape = (len(z), len(self.queries))
        inputs = [z.unsqueeze(1).expand(*shape, -1), self.queries.expand(*shape, -1)]
        return self.network(torch.cat(inputs, dim=-1))

    def distance(self, slots: Tensor, f: Tensor, is_neighbor: Tensor) -> Tensor:
        """Return the mean distance of true neighbours to the slots that they are matched to.

        Parameters
        ----------
        slots
            Predicted neighbours, shape ``(n_cells, n_slots, n_output)``.
        f
            Features of the true ones, of the same shape.
        is_neighbor
            Where there are any, shape ``(n_cells, n_slots)``.

        Returns
        -------
        One value per cell, shape ``(n_cells,)``; 0 without neighbours.
        """
        chosen = match(slots.detach(), f, is_neighbor)
        made = slots.gather(1, chosen.unsqueeze(-1).expand_as(slots))  # in the order of f
        squares = 0.5 * ((f - made) * (-self.log_sd).exp()).square().sum(-1) + self.log_sd.sum()
        cosine = 1 - F.cosine_similarity(f, made, dim=-1)
        of_pair = squares + 0.5 * COSINE_WEIGHT * f.shape[-1] * cosine
        return (of_pair * is_neighbor).sum(1) / is_neighbor.sum(1).clamp(min=1)


def match(slots: Tensor, f: Tensor, is_neighbor: Tensor) -> Tensor:
    """Assign a slot to every neighbour so that the sum of squared distances is least.

    Returns
    -------
    Slot of each neighbour, shape ``(n_cells, n_slots)``; a row without a neighbour takes what is
    left.
    """
    cost = torch.cdist(f, slots).square() * is_neighbor.unsqueeze(-1)
    chosen = [linear_sum_assignment(one)[1] for one in cost.cpu().numpy()]
    return torch.from_numpy(np.stack(chosen)).to(slots.device)
