"""Generative model, inference network and loss of PairedVAE."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F
from torch.nn.utils import skip_init

from scovert.core._losses import (
    SparseCounts,
    balanced_cross_entropy,
    confusion,
    kl_standard_normal,
    negative_binomial,
    squared_distance,
)
from scovert.core._nn import CellEncoder, CountDecoder, Discriminator, PerDataset, reverse_gradient

__all__ = [
    "ANCHORED_KEY",
    "BALANCE_KEY",
    "COUNTERPARTS_KEY",
    "COUNTS_KEY",
    "FOOLED",
    "POSITIONS_KEY",
    "PairedModule",
]

FOOLED = 0.95
"""Share of the cross-entropy of chance from which a discriminator counts as fooled."""

SEEN = 0.8
"""Share of the counts that is encoded where the rest is predicted."""

ANCHORED_KEY = "anchored"
"""Key of a minibatch: which drawn cells the last rows of the minibatch are partners of."""

COUNTS_KEY = "counts"
"""Key of a minibatch: the non-zero counts of the drawn cells."""


COUNTERPARTS_KEY = "counterparts"
"""Key of a minibatch: 1 for the datasets with counterparts of a cell and for its own, or 0."""

BALANCE_KEY = "balance"
"""Key of a minibatch: weight of a cell with which its class counts the same in every dataset."""

POSITIONS_KEY = "positions"
"""Key of a minibatch: aligned components, in standard deviations within classes."""


class PairedModule(BaseModuleClass):
    """Negative binomial VAE of cells from several datasets in one latent space.

    The first rows of a minibatch are drawn cells; the rows behind them, one for each entry of
    ``tensors["anchored"]``, are partners, encoded but not decoded.

    Parameters
    ----------
    log_mean
        Logarithm of the mean share of each gene in each dataset, shape ``(n_batch, n_genes)``.
    n_cats_per_cov
        Number of categories of each categorical covariate (seen by the decoder only).
    n_continuous_cov
        Number of continuous covariates (seen by the decoder only).
    n_latent, n_hidden, n_layers
        Sizes of the latent space, of a hidden layer, and number of hidden layers.
    encoder
        ``"shared"``: one encoder that does not see the dataset and one decoder that does.
        ``"per_dataset"``: an encoder and a decoder for each dataset.
    alignment
        ``"anchors"``, ``"adversarial"``, ``"grl"`` or ``"none"``.
    dispersion
        One inverse dispersion per ``"gene"`` or per ``"gene-batch"``.
    dropout_rate
        Dropout in the encoder.
    n_components
        Number of aligned components that are predicted; 0 predicts none.
    n_query
        How many of the datasets, the last ones, were added to a trained module. Each has a factor
        for each gene, and else begins as the mean of the others.
    """

    def __init__(  # noqa: PLR0913
        self,
        log_mean: Tensor,
        *,
        n_cats_per_cov: list[int],
        n_continuous_cov: int,
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        encoder: Literal["shared", "per_dataset"],
        alignment: Literal["anchors", "adversarial", "grl", "none"],
        dispersion: Literal["gene", "gene-batch"],
        dropout_rate: float,
        n_components: int = 0,
        n_query: int = 0,
    ) -> None:
        super().__init__()
        self.n_batch, n_input = log_mean.shape
        self.n_latent = n_latent
        self.alignment = alignment
        self.is_shared = encoder == "shared"
        self.n_query = n_query

        # Networks
        sizes = {"n_layers": n_layers, "n_hidden": n_hidden}
        encode = partial(CellEncoder, n_input, n_latent, **sizes, dropout_rate=dropout_rate)
        decode = partial(CountDecoder, n_latent, n_cont=n_continuous_cov, **sizes)
        if self.is_shared:
            self.z_encoder = encode()
            cats = [self.n_batch, *n_cats_per_cov]
            self.decoder = decode(log_mean.exp().mean(0).log(), n_cat_list=cats)
        else:
            self.z_encoder = PerDataset(encode() for _ in log_mean)
            self.decoder = PerDataset(decode(m, n_cat_list=n_cats_per_cov) for m in log_mean)
        self.px_r = nn.Parameter(
            torch.zeros(self.n_batch if "batch" in dispersion else 1, n_input)
        )
        if n_query:
            self.query_offset = nn.Parameter(torch.zeros(n_query, n_input))
        if alignment in ("adversarial", "grl"):
            self.classifier = Discriminator(n_latent, self.n_batch)
        self.component_decoder = _zero_linear(n_latent, n_components) if n_components else None

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY]}

    @auto_move_data
    def inference(self, x: Tensor, batch_index: Tensor) -> dict[str, Tensor | Normal]:
        """Encode counts; the library size is the observed total.

        Parameters
        ----------
        x
            Raw counts, shape ``(n_cells, n_genes)``.
        batch_index
            Dataset of each cell, shape ``(n_cells, 1)``.

        Returns
        -------
        ``qz`` (posterior), ``z`` (sample), both ``(n_cells, n_latent)``, ``library``
        ``(n_cells, 1)``.
        """
        mean, variance = self._posterior(torch.log1p(x), batch_index)
        qz = Normal(mean, variance.sqrt(), validate_args=False)
        return {"qz": qz, "z": qz.rsample(), "library": x.sum(-1, keepdim=True)}

    def _posterior(self, inputs: Tensor, batch_index: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and variance from logarithms of counts, shape ``(n_cells, n_latent)``."""
        if self.is_shared:
            return self.z_encoder(inputs)
        return self.z_encoder(batch_index.squeeze(-1), inputs)

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor], **_: object
    ) -> dict[str, Tensor]:
        rows = self._decoded_as(tensors)
        batch_index = tensors[REGISTRY_KEYS.BATCH_KEY]
        none = batch_index[:, :0]
        return {
            "z": inference_outputs["z"][: len(rows)],
            "library": inference_outputs["library"][rows],
            "batch_index": batch_index[rows],
            "categories": tensors.get(REGISTRY_KEYS.CAT_COVS_KEY, none)[rows],
            "continuous": tensors.get(REGISTRY_KEYS.CONT_COVS_KEY, none)[rows],
        }

    def _decoded_as(self, tensors: dict[str, Tensor]) -> Tensor:
        """Row of the cell that each latent position is decoded as, drawn cells first.

        Cross-reconstruction decodes a partner's position as the cell it is anchored to.
        """
        batch_index = tensors[REGISTRY_KEYS.BATCH_KEY]
        drawn = torch.arange(_n_drawn(tensors), device=batch_index.device)
        if ANCHORED_KEY in tensors and self.alignment == "anchors" and not self.is_shared:
            return torch.cat([drawn, tensors[ANCHORED_KEY]])
        return drawn

    @auto_move_data
    def generative(
        self,
        z: Tensor,
        library: Tensor,
        batch_index: Tensor,
        categories: Tensor,
        continuous: Tensor,
    ) -> dict[str, NegativeBinomial | Tensor]:
        """Decode latent positions into the distribution of the counts.

        Parameters
        ----------
        z
            Latent positions, shape ``(n_cells, n_latent)``.
        library
            Total counts, shape ``(n_cells, 1)``.
        batch_index
            Dataset to decode as, shape ``(n_cells, 1)``.
        categories, continuous
            Covariates, shape ``(n_cells, n_covariates)``, possibly of width 0.

        Returns
        -------
        ``px``, negative binomial with mean ``library * share``; ``theta``, its inverse dispersion,
        shape ``(n_genes,)``, or ``(n_cells, n_genes)`` where it depends on the dataset.
        """
        batch = batch_index.squeeze(-1)
        if self.is_shared:
            seen = torch.cat([batch_index, categories], dim=1)
            share = self.decoder(z, seen, continuous, self._offset(batch))
        else:
            (share,) = self.decoder(batch, z, categories, continuous)
        theta = self.px_r.exp()
        theta = theta[batch] if len(theta) > 1 else theta[0]  # (n_cells, n_genes) or (n_genes,)
        px = NegativeBinomial(mu=library * share, theta=theta, scale=share, validate_args=False)
        return {"px": px, "theta": theta}

    def _offset(self, batch: Tensor) -> Tensor | float:
        """Logarithms of the factors of genes in datasets, 0 but in those that were added."""
        if self.n_query == 0:
            return 0.0
        n_known = self.n_batch - self.n_query
        return nn.functional.pad(self.query_offset, (0, 0, n_known, 0))[batch]

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, Tensor | Normal],
        generative_outputs: dict[str, NegativeBinomial | Tensor],
        *,
        kl_weight: float = 1.0,
        alignment_weight: float = 0.0,
        component_weight: float = 0.0,
        cross_weight: float = 0.0,
    ) -> LossOutput:
        """Negative ELBO plus the weighted alignment, means over the drawn cells.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            Minibatch and what `inference` and `generative` returned for it.
        kl_weight
            Weight of the KL divergence.
        alignment_weight
            Weight of the pull, of the confusion of the discriminator, or of the reversed gradient.
        component_weight
            Weight with which positions feel the prediction of aligned components (with anchors
            only).
        cross_weight
            Weight of the cross-reconstruction (``"per_dataset"`` with anchors only).

        Returns
        -------
        The loss with every term, unweighted, in ``extra_metrics``.
        """
        n = _n_drawn(tensors)
        qz = inference_outputs["qz"]
        nll = self._reconstruction(tensors, generative_outputs)
        reconstruction, crossed = nll[:n], nll[n:]
        kl = kl_standard_normal(Normal(qz.mean[:n], qz.stddev[:n], validate_args=False))
        aligned, terms = self._alignment(tensors, qz.mean, alignment_weight)
        if self.component_decoder is not None:
            # The map learns at any weight; how much positions feel of it is the weight
            mean = reverse_gradient(qz.mean[:n], -component_weight)
            error = squared_distance(self.component_decoder(mean), tensors[POSITIONS_KEY][:n]) / 2
            terms["components"] = error.mean()
            aligned = aligned + terms["components"]
        if len(crossed):
            terms["cross_reconstruction"] = crossed.sum() / n
            aligned = aligned + cross_weight * terms["cross_reconstruction"]
        return LossOutput(
            loss=(reconstruction + kl_weight * kl).mean() + aligned,
            reconstruction_loss=reconstruction,
            kl_local=kl,
            extra_metrics=terms,
        )

    def _reconstruction(
        self, tensors: dict[str, Tensor], generative_outputs: dict[str, NegativeBinomial | Tensor]
    ) -> Tensor:
        """Negative log-likelihood of the drawn cells, then of those decoded in their place."""
        rows = self._decoded_as(tensors)
        if COUNTS_KEY in tensors and len(rows) == _n_drawn(tensors):
            counts = tensors[COUNTS_KEY]
        else:
            counts = SparseCounts.of(tensors[REGISTRY_KEYS.X_KEY][rows])
        return negative_binomial(generative_outputs["px"].mu, generative_outputs["theta"], counts)

    def _alignment(
        self, tensors: dict[str, Tensor], mean: Tensor, weight: float
    ) -> tuple[Tensor | float, dict[str, Tensor]]:
        """Weighted alignment of the posterior means, and its unweighted terms."""
        if self.alignment == "anchors":
            n = _n_drawn(tensors)
            anchored = tensors[ANCHORED_KEY] if n < len(mean) else slice(0, 0)
            pull = squared_distance(mean[n:], mean[anchored]).sum() / n
            return weight * pull, {"pull": pull}
        if self.alignment == "adversarial":
            guess = self.discriminator_loss(mean.detach(), tensors)
            confused = self._confusion(mean, tensors)
            terms = self._discriminator_terms(guess, tensors)
            return weight * confused, {"confusion": confused} | terms
        if self.alignment == "grl":
            with torch.no_grad():
                chance = self._chance(tensors)
                is_telling = self.discriminator_loss(mean, tensors) < FOOLED * chance
            guess = self.discriminator_loss(reverse_gradient(mean, weight * is_telling), tensors)
            return guess, self._discriminator_terms(guess, tensors)
        return 0.0, {}

    def discriminator_loss(self, mean: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of the guessed dataset, a scalar in nats.

        Every dataset has the same weight, or every class in every dataset that has it.
        """
        batch = tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)
        guess = self.classifier(mean)
        if BALANCE_KEY not in tensors:
            return balanced_cross_entropy(guess, batch).mean()
        return _weighted_mean(F.cross_entropy(guess, batch, reduction="none"), tensors)

    def _confusion(self, mean: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Mean confusion of the discriminator, of cells that have counterparts if these count."""
        if COUNTERPARTS_KEY not in tensors:
            return confusion(self.classifier(mean)).mean()
        allowed = tensors[COUNTERPARTS_KEY]
        return (confusion(self.classifier(mean), allowed) * (allowed.sum(-1) > 1)).mean()

    def _chance(self, tensors: dict[str, Tensor]) -> Tensor:
        """Cross-entropy of a discriminator that cannot tell the datasets apart."""
        if COUNTERPARTS_KEY not in tensors:
            return torch.tensor(math.log(self.n_batch), device=self.px_r.device)
        return _weighted_mean(tensors[COUNTERPARTS_KEY].sum(-1).log(), tensors)

    def _discriminator_terms(self, guess: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"discriminator": guess.detach(), "discriminator_chance": self._chance(tensors)}

    def posterior_mean(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the latent positions of cells, shape ``(n_cells, n_latent)``.

        The counts of the minibatch are overwritten: a second array as large takes time.
        """
        inputs = tensors[REGISTRY_KEYS.X_KEY].log1p_()
        return self._posterior(inputs, tensors.get(REGISTRY_KEYS.BATCH_KEY))[0]

    def corrected_counts(
        self,
        tensors: dict[str, Tensor],
        datasets: list[int],
        genes: Tensor,
        library_size: float | None,
    ) -> Tensor:
        """Decode the latent positions of cells as each of some datasets, and average.

        Parameters
        ----------
        tensors
            Minibatch of cells, which need no dataset where the networks are shared.
        datasets
            Codes of the datasets to decode as.
        genes
            Columns to return, shape ``(n_returned,)``.
        library_size
            Total count of a decoded cell; `None` keeps its own.

        Returns
        -------
        Counts, shape ``(n_cells, n_returned)``.
        """
        x = tensors[REGISTRY_KEYS.X_KEY]
        any_dataset = torch.zeros(len(x), 1, dtype=torch.int64, device=x.device)
        tensors = {REGISTRY_KEYS.BATCH_KEY: any_dataset} | tensors
        outputs = self.inference(**self._get_inference_input(tensors))
        outputs["z"] = outputs["qz"].mean
        inputs = self._get_generative_input(tensors, outputs)
        total = outputs["library"] if library_size is None else library_size
        counts = torch.zeros(len(outputs["z"]), len(genes), device=genes.device)
        for code in datasets:
            inputs["batch_index"] = torch.full_like(inputs["batch_index"], code)
            counts += self.generative(**inputs)["px"].scale[:, genes] * total / len(datasets)
        return counts

    def deviance(self, tensors: dict[str, Tensor], log_mean_shares: Tensor) -> Tensor:
        r"""Measure how well a part of each cell's counts tells the rest.

        Four fifths of the counts, drawn at random, are encoded, and the others are compared with
        what is decoded: the noise of a cell helps nothing there, since thinned parts of a negative
        binomial count share only its mean and overdispersion. The deviance is
        :math:`2 (\log p(x \mid \mu = x) - \log p(x \mid \mu))`, summed over genes.

        Parameters
        ----------
        tensors
            Minibatch of cells.
        log_mean_shares
            Logarithm of the mean share of each gene in each dataset, ``(n_batch, n_genes)``.

        Returns
        -------
        Deviance of the model, deviance of the mean of the cell's dataset, and the largest share of
        a gene, shape ``(n_cells, 3)``.
        """
        counts = tensors[REGISTRY_KEYS.X_KEY]
        generator = torch.Generator(counts.device).manual_seed(0)
        seen = torch.binomial(counts, torch.full_like(counts, SEEN), generator=generator)
        x = counts - seen
        outputs = self.inference(seen, tensors[REGISTRY_KEYS.BATCH_KEY])
        outputs |= {"z": outputs["qz"].mean, "library": x.sum(-1, keepdim=True)}
        px = self.generative(**self._get_generative_input(tensors, outputs))["px"]
        batch = tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)
        means = (x, px.mu, outputs["library"] * log_mean_shares.exp()[batch])
        saturated, own, null = (
            NegativeBinomial(mu=mean, theta=px.theta, validate_args=False).log_prob(x).sum(-1)
            for mean in means
        )
        deviances = [2 * (saturated - fit) for fit in (own, null)]
        return torch.stack([*deviances, px.scale.amax(-1)], dim=1)

    @torch.inference_mode()
    def sample(self, tensors: dict[str, Tensor]) -> Tensor:
        """Draw counts from the posterior predictive, shape ``(n_cells, n_genes)``."""
        _, generative_outputs = self.forward(tensors, compute_loss=False)
        return generative_outputs["px"].sample()


def _zero_linear(n_input: int, n_output: int) -> nn.Linear:
    """Return a map to the mean, made without a draw, so that the rest trains as without it."""
    linear = skip_init(nn.Linear, n_input, n_output)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _weighted_mean(values: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    weight = tensors[BALANCE_KEY].squeeze(-1)
    return (weight * values).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def _n_drawn(tensors: dict[str, Tensor]) -> int:
    n_partners = len(tensors[ANCHORED_KEY]) if ANCHORED_KEY in tensors else 0
    return len(tensors[REGISTRY_KEYS.X_KEY]) - n_partners
