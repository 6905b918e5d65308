"""Autoencoder of the set of cells around a cell."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn
from torch.distributions import Normal

from scovert.core._losses import SparseCounts, kl_standard_normal
from scovert.core.dataloaders._cells import COUNTS_KEY
from scovert.model.niche._features import TRANSFORMS, standardise, transform_values
from scovert.model.niche._likelihood import gaussian_by_state, negative_binomial_by_state
from scovert.model.niche.variants._matching import MatchingDecoder

__all__ = ["BATCH", "CENTERS", "IS_NEIGHBOR", "NEIGHBORS", "NicheModule", "mixture_nll", "pool"]

BATCH, CENTERS, NEIGHBORS, IS_NEIGHBOR = "batch_code", "centers", "neighbors", "is_neighbor"
"""Keys of a minibatch: batch of each cell that is read, which of them are centres, the neighbours
of these, and where there are any."""
N_DETAILS = 20
"""Axes of the part of places that keeps what the mixture drops."""
LOG_VARIANCE = (-8.0, 6.0)
"""Range of the log-variance of a posterior."""
LOG_SD = -0.3
"""Log standard deviation of the features in a state before training."""


class NicheModule(BaseModuleClass):
    r"""Set encoder, and a decoder that predicts neighbours as a mixture of shared cell states.

    .. math:: z_i \sim q\Big(\cdot \,\Big|\, \rho\Big(\tfrac{1}{|S(i)|} \sum_{j \in S(i)}
        \phi(f_j)\Big)\Big), \qquad p(x_j \mid z_i) = \sum_m \pi_m(z_i)\, p(x_j \mid m),

    for the neighbours :math:`j \in N(i)` of cell i, with :math:`S(i) = \{i\} \cup N(i)`.

    Parameters
    ----------
    n_input
        Number of genes or channels.
    n_batch
        Number of batches.
    likelihood
        ``"nb"`` of counts, or ``"gaussian"`` of features.
    decoder
        ``"mixture"``, or ``"matching"`` for slots that are matched to the neighbours.
    n_neighbors, n_states, n_latent, n_hidden
        Slots of the matching decoder, shared states, latent dimensions, nodes of a hidden layer.
    """

    def __init__(
        self,
        n_input: int,
        n_batch: int,
        *,
        likelihood: str,
        decoder: str,
        n_neighbors: int,
        n_states: int,
        n_latent: int,
        n_hidden: int,
    ) -> None:
        super().__init__()
        self.n_batch, self.likelihood = n_batch, likelihood
        # Encoder
        self.cell_encoder = nn.Sequential(
            *_layer(n_input, n_hidden), nn.Linear(n_hidden, n_hidden), nn.ReLU()
        )
        self.niche_encoder = nn.Sequential(*_layer(n_hidden, n_hidden))
        self.mean_encoder = nn.Linear(n_hidden, n_latent)
        self.var_encoder = nn.Linear(n_hidden, n_latent)
        # Decoder
        self.matching = None
        if decoder == "matching":
            self.matching = MatchingDecoder(n_latent, n_input, n_neighbors, n_hidden)
        else:
            self.decoder = nn.Sequential(
                *_layer(n_latent, n_hidden), nn.Linear(n_hidden, n_states)
            )
            self.states = nn.Parameter(0.1 * torch.randn(n_states, n_input))
            if n_batch > 1:
                self.batch_shift = nn.Parameter(torch.zeros(n_batch, n_input))
            spread = torch.full((n_input,), LOG_SD if likelihood == "gaussian" else 0.0)
            self.log_spread = nn.Parameter(spread)  # log tau, or log theta
        # Features
        self.register_buffer("feature_mean", torch.zeros(n_batch, n_input))
        self.register_buffer("feature_scale", torch.ones(n_batch, n_input))
        self.register_buffer("median_total", torch.tensor(1.0))
        self.register_buffer("transform_code", torch.tensor(0))
        self.register_buffer("cofactor", torch.tensor(1.0))
        # Means over neighbours, less their own mean, times axes are the second part of places
        self.register_buffer("detail_mean", torch.zeros(n_input))
        self.register_buffer("detail_axes", torch.zeros(n_input, min(N_DETAILS, n_input)))

    @property
    def transform(self) -> str:
        """How values become features."""
        return TRANSFORMS[int(self.transform_code)]

    def features(self, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Return features of cells, with `mean` and `scale` of the batch of each cell."""
        values = transform_values(x, self.transform, self.cofactor, self.median_total)
        return standardise(values, mean, scale)

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        names = {"x": REGISTRY_KEYS.X_KEY, "batch": BATCH, "centers": CENTERS}
        names |= {"neighbors": NEIGHBORS, "is_neighbor": IS_NEIGHBOR}
        return {name: tensors[key] for name, key in names.items()}

    @auto_move_data
    def inference(
        self, x: Tensor, batch: Tensor, centers: Tensor, neighbors: Tensor, is_neighbor: Tensor
    ) -> dict[str, Tensor | Normal]:
        """Encode what is around the centres; every cell is encoded once.

        Parameters
        ----------
        x
            Values of the centres and of all their neighbours, shape ``(n_cells, n_genes)``.
        batch
            Batch of each cell, shape ``(n_cells,)``.
        centers
            Which cells are centres, shape ``(n_centers,)``.
        neighbors, is_neighbor
            Which cells are their neighbours, and where there are any, shape
            ``(n_centers, n_neighbors)``.

        Returns
        -------
        ``qz`` (posterior) and ``z`` (sample), ``(n_centers, n_latent)``; ``f`` (features),
        ``(n_cells, n_genes)``.
        """
        f = self.features(x, self.feature_mean[batch], self.feature_scale[batch])
        pooled = pool(self.cell_encoder(f), centers, neighbors, is_neighbor)
        mean, log_variance = self.posterior(pooled)
        qz = Normal(mean, (0.5 * log_variance).exp(), validate_args=False)
        return {"qz": qz, "z": qz.rsample(), "f": f}

    def posterior(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of the posterior, ``(n_centers, n_latent)`` each."""
        hidden = self.niche_encoder(pooled)
        return self.mean_encoder(hidden), self.var_encoder(hidden).clamp(*LOG_VARIANCE)

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor], **_: object
    ) -> dict[str, Tensor]:
        return {"z": inference_outputs["z"]}

    @auto_move_data
    def generative(self, z: Tensor) -> dict[str, Tensor]:
        """Decode latent positions, shape ``(n_centers, n_latent)``.

        Returns
        -------
        ``log_pi``, log-probability of each state around a cell, ``(n_centers, n_states)``; of the
        matching decoder ``slots``, features of predicted neighbours,
        ``(n_centers, n_neighbors, n_genes)``.
        """
        if self.matching is not None:
            return {"slots": self.matching(z)}
        return {"log_pi": self.decoder(z).log_softmax(-1)}

    def loss(
        self,
        tensors: dict[str, Tensor | SparseCounts],
        inference_outputs: dict[str, Tensor | Normal],
        generative_outputs: dict[str, Tensor],
        *,
        kl_weight: float = 1.0,
        neighbor_weight: float = 10.0,
        free_bits: float = 0.0,
    ) -> LossOutput:
        """Return the loss of a minibatch and its terms.

        Parameters
        ----------
        tensors
            Minibatch.
        inference_outputs, generative_outputs
            What `inference` and `generative` returned.
        kl_weight
            Weight of the divergence from the prior.
        neighbor_weight
            Number of independent neighbours that a niche is worth.
        free_bits
            Divergence of a latent dimension that costs nothing, in nats.
        """
        neighbors, is_neighbor = tensors[NEIGHBORS], tensors[IS_NEIGHBOR]
        if self.matching is None:
            by_state = self.by_state(tensors, inference_outputs["f"])
            log_pi = generative_outputs["log_pi"]
            distance = mixture_nll(log_pi, by_state, neighbors, is_neighbor)
        else:
            distance = self.matching.distance(
                generative_outputs["slots"], inference_outputs["f"][neighbors], is_neighbor
            )
        kl = kl_standard_normal(inference_outputs["qz"], free_bits=free_bits)
        reconstruction = neighbor_weight * distance
        return LossOutput(
            loss=(reconstruction + kl_weight * kl).mean(),
            reconstruction_loss=reconstruction,
            kl_local=kl,
            extra_metrics={"neighbor_nll": distance.mean()},
        )

    def by_state(self, tensors: dict[str, Tensor | SparseCounts], f: Tensor) -> Tensor:
        """Return how likely cells are in each state, in nats, ``(n_cells, n_states)``."""
        batch = tensors[BATCH]
        if self.likelihood == "gaussian":
            is_used = (self.feature_scale > 0).any(0).float()
            f = f - self._shifts()[batch]
            return gaussian_by_state(f, self.states, self.log_spread, is_used)
        known, code = batch.unique(return_inverse=True)
        log_share = (self.states + self._shifts()[known].unsqueeze(1)).log_softmax(-1)
        total = tensors[REGISTRY_KEYS.X_KEY].sum(-1).clamp(min=1)
        counts = tensors[COUNTS_KEY]
        return negative_binomial_by_state(counts, total, code, log_share, self.log_spread)

    def _shifts(self) -> Tensor:
        """Return the shifts of the batches, and none for batches that were not trained on."""
        none = self.states.new_zeros(1, self.states.shape[1])
        if self.n_batch == 1:
            return torch.cat([none, none])
        return torch.cat([self.batch_shift, none])

    @torch.inference_mode()
    def sample(self, tensors: dict[str, Tensor], n_samples: int = 20) -> Tensor:
        """Draw states of neighbours, shape ``(n_centers, n_samples)``."""
        _, generative_outputs = self.forward(tensors, compute_loss=False)
        return torch.multinomial(generative_outputs["log_pi"].exp(), n_samples, replacement=True)


def pool(hidden: Tensor, centers: Tensor, neighbors: Tensor, is_neighbor: Tensor) -> Tensor:
    """Mean over a cell and its neighbours, shape ``(n_centers, n_hidden)``."""
    members = torch.cat([centers.unsqueeze(1), neighbors], dim=1)
    weight = F.pad(is_neighbor.to(hidden.dtype), (1, 0), value=1.0)
    weight = weight / weight.sum(1, keepdim=True)
    return F.embedding_bag(members, hidden, mode="sum", per_sample_weights=weight)


def mixture_nll(
    log_pi: Tensor, by_state: Tensor, neighbors: Tensor, is_neighbor: Tensor
) -> Tensor:
    r"""Negative log-likelihood of a neighbour, the mean over those of a cell.

    .. math:: -\frac{1}{|N(i)|} \sum_{j \in N(i)} \log \sum_m \pi_{im}\, p(x_j \mid m)

    Parameters
    ----------
    log_pi
        :math:`\log \pi`, shape ``(n_centers, n_states)``.
    by_state
        :math:`\log p(x_j \mid m)`, shape ``(n_cells, n_states)``.
    neighbors, is_neighbor
        Rows of the neighbours in `by_state`, and where there are any, shape
        ``(n_centers, n_neighbors)``.

    Returns
    -------
    One value per centre in nats, shape ``(n_centers,)``; 0 without neighbours.
    """
    of_pair = torch.logsumexp(log_pi.unsqueeze(1) + by_state[neighbors], dim=-1)
    n_neighbors = is_neighbor.sum(1).clamp(min=1)
    return -(of_pair * is_neighbor).sum(1) / n_neighbors


def _layer(n_input: int, n_output: int) -> tuple[nn.Module, ...]:
    return nn.Linear(n_input, n_output), nn.LayerNorm(n_output), nn.ReLU()
