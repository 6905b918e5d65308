"""Variational autoencoder of cells whose types are held by prototypes."""

from __future__ import annotations

import torch
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn
from torch.distributions import Normal

from scovert.core._losses import SparseCounts, kl_standard_normal, negative_binomial
from scovert.core._nn import CellEncoder, CountDecoder
from scovert.core.dataloaders._cells import COUNTS_KEY

__all__ = ["PrototypeModule"]

FREE_BITS = 0.05
"""Divergence of a latent dimension, in nats, below which it is not pressed further."""


class PrototypeModule(BaseModuleClass):
    r"""Negative binomial VAE in which every cell is near a prototype of its type.

    .. math:: x_{ig} \sim \mathrm{NB}\big(n_i f_g(z_i), \theta_g\big), \qquad
        \mathcal{L}_i = -\log p(x_i \mid z_i) + w \sum_k \max(\mathrm{KL}_{ik}, \lambda)
        + v \min_m \lVert \mu_i - c_{t_i m} \rVert^2,

    with total counts :math:`n_i`, shares :math:`f` that sum to one over the genes, posterior means
    :math:`\mu_i` and prototypes :math:`c_{tm}` of the type :math:`t_i` of the cell. Every
    prototype of a type in the minibatch is also pulled to the nearest cell of its type, so that
    none is left without cells.

    Parameters
    ----------
    log_mean
        Logarithm of the mean share of each gene, shape ``(n_genes,)``.
    prototype_type
        Number of the type of every prototype, shape ``(n_prototypes,)``.
    n_latent, n_hidden, n_layers
        Sizes of the latent space, of a hidden layer, and number of hidden layers.
    dropout_rate
        Dropout in the encoder.
    """

    def __init__(
        self,
        log_mean: Tensor,
        prototype_type: Tensor,
        *,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        sizes = {"n_layers": n_layers, "n_hidden": n_hidden}
        self.z_encoder = CellEncoder(len(log_mean), n_latent, **sizes, dropout_rate=dropout_rate)
        self.decoder = CountDecoder(n_latent, log_mean, n_cat_list=[], n_cont=0, **sizes)
        self.px_r = nn.Parameter(torch.zeros(len(log_mean)))
        self.prototypes = nn.Parameter(torch.randn(len(prototype_type), n_latent))
        self.register_buffer("prototype_type", prototype_type)

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    @auto_move_data
    def inference(self, x: Tensor) -> dict[str, Tensor | Normal]:
        """Encode counts; the library size is the observed total.

        Parameters
        ----------
        x
            Raw counts, shape ``(n_cells, n_genes)``.

        Returns
        -------
        ``qz`` (posterior), ``z`` (sample), both ``(n_cells, n_latent)``, ``library``
        ``(n_cells, 1)``.
        """
        mean, variance = self.z_encoder(torch.log1p(x))
        qz = Normal(mean, variance.sqrt(), validate_args=False)
        return {"qz": qz, "z": qz.rsample(), "library": x.sum(-1, keepdim=True)}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor], **_: object
    ) -> dict[str, Tensor]:
        return {name: inference_outputs[name] for name in ("z", "library")}

    @auto_move_data
    def generative(self, z: Tensor, library: Tensor) -> dict[str, NegativeBinomial | Tensor]:
        """Decode latent positions into the distribution of the counts.

        Parameters
        ----------
        z
            Latent positions, shape ``(n_cells, n_latent)``.
        library
            Total counts, shape ``(n_cells, 1)``.

        Returns
        -------
        ``px``, negative binomial with mean ``library * share``; ``theta``, its inverse dispersion,
        shape ``(n_genes,)``.
        """
        share, theta = self._shares(z), self.px_r.exp()
        px = NegativeBinomial(mu=library * share, theta=theta, scale=share, validate_args=False)
        return {"px": px, "theta": theta}

    def _shares(self, z: Tensor) -> Tensor:
        return self.decoder(z, z.new_zeros(len(z), 0, dtype=torch.long), z.new_zeros(len(z), 0))

    def loss(
        self,
        tensors: dict[str, Tensor | SparseCounts],
        inference_outputs: dict[str, Tensor | Normal],
        generative_outputs: dict[str, NegativeBinomial | Tensor],
        *,
        kl_weight: float = 1.0,
        prototype_weight: float = 1.0,
    ) -> LossOutput:
        """Return the loss of a minibatch and its terms.

        Parameters
        ----------
        tensors
            Minibatch; its non-zero counts under ``"counts"``.
        inference_outputs, generative_outputs
            What `inference` and `generative` returned.
        kl_weight
            Weight of the divergence from the prior.
        prototype_weight
            Weight of the distances between cells and prototypes.
        """
        counts, qz = tensors[COUNTS_KEY], inference_outputs["qz"]
        mean, theta = generative_outputs["px"].mu, generative_outputs["theta"]
        reconstruction = negative_binomial(mean, theta, counts)
        kl = kl_standard_normal(qz, free_bits=FREE_BITS)
        to_prototype, to_cell = self._to_nearest(qz.mean, tensors[REGISTRY_KEYS.LABELS_KEY])
        near = to_prototype.mean() + to_cell.mean()
        return LossOutput(
            loss=(reconstruction + kl_weight * kl).mean() + prototype_weight * near,
            reconstruction_loss=reconstruction,
            kl_local=kl,
            extra_metrics={"prototype": to_prototype.mean(), "cell": to_cell.mean()},
        )

    def _to_nearest(self, mean: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances of cells to the nearest prototype of their type, and the reverse."""
        distance = self.distances(mean, label)
        is_present = distance.isfinite().any(0)
        return distance.min(1).values, distance[:, is_present].min(0).values

    def distances(self, mean: Tensor, label: Tensor) -> Tensor:
        """Return squared distances to prototypes, infinite to those of other types.

        Parameters
        ----------
        mean
            Posterior means, shape ``(n_cells, n_latent)``.
        label
            Number of the type of each cell, shape ``(n_cells, 1)``.

        Returns
        -------
        Tensor of shape ``(n_cells, n_prototypes)``.
        """
        distance = (mean.unsqueeze(1) - self.prototypes).square().sum(-1)
        return distance.masked_fill(label != self.prototype_type, torch.inf)

    def posterior_mean(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the latent positions of cells, shape ``(n_cells, n_latent)``."""
        return self.z_encoder(tensors[REGISTRY_KEYS.X_KEY].log1p())[0]

    def prototype_shares(self) -> Tensor:
        """Decode the prototypes into shares of the genes, ``(n_prototypes, n_genes)``."""
        return self._shares(self.prototypes)

    @torch.inference_mode()
    def sample(self, tensors: dict[str, Tensor]) -> Tensor:
        """Draw counts from the posterior predictive, shape ``(n_cells, n_genes)``."""
        _, generative_outputs = self.forward(tensors, compute_loss=False)
        return generative_outputs["px"].sample()
