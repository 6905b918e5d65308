"""Generative model, inference network and loss of MaskedImputation."""

from __future__ import annotations

import math

import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn
from torch.distributions import Normal

from scovert.core._losses import SparseCounts, kl_standard_normal, negative_binomial
from scovert.core._nn import CellEncoder, CountDecoder
from scovert.core.dataloaders._cells import COUNTS_KEY

__all__ = ["ImputationModule"]


class ImputationModule(BaseModuleClass):
    """Negative binomial VAE of cells of which each dataset shows some genes.

    The decoder does not know the dataset: what differs between datasets in the genes that are seen
    tells of those that are not.

    Parameters
    ----------
    log_mean
        Logarithm of the mean share of each gene, shape ``(n_genes,)``.
    learnt, visible
        Which genes of a dataset enter its likelihood, and which the encoder sees, bool, shape
        ``(n_batch, n_genes)``.
    n_latent, n_hidden, n_layers
        Sizes of the latent space, of a hidden layer, and number of hidden layers.
    dropout_rate
        Dropout in the encoder.
    """

    learnt: Tensor
    visible: Tensor
    log_mean: Tensor
    level: Tensor
    """Logarithm of a factor of what is imputed, 0 while the module is trained."""

    def __init__(
        self,
        log_mean: Tensor,
        learnt: Tensor,
        visible: Tensor,
        *,
        n_latent: int,
        n_hidden: int,
        n_layers: int,
        dropout_rate: float,
    ) -> None:
        super().__init__()
        self.register_buffer("log_mean", log_mean.clone())
        self.register_buffer("learnt", learnt)
        self.register_buffer("visible", visible)
        self.register_buffer("level", torch.zeros(learnt.shape))
        sizes = {"n_layers": n_layers, "n_hidden": n_hidden}
        self.z_encoder = CellEncoder(len(log_mean), n_latent, **sizes, dropout_rate=dropout_rate)
        self.decoder = CountDecoder(n_latent, log_mean, n_cat_list=[], n_cont=0, **sizes)
        self.px_r = nn.Parameter(torch.zeros(len(log_mean)))

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: object) -> dict[str, Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], "batch_index": tensors[REGISTRY_KEYS.BATCH_KEY]}

    @auto_move_data
    def inference(self, x: Tensor, batch_index: Tensor) -> dict[str, Tensor | Normal]:
        """Encode the visible counts; the library is the total of the genes that are learnt.

        While it is trained, a cell shows no more than a dataset drawn at random would, too.

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
        batch = batch_index.squeeze(-1)
        visible = self.visible[batch]  # (n_cells, n_genes)
        if self.training:
            visible = visible & self.visible[torch.randint_like(batch, len(self.visible))]
        mean, variance = self.z_encoder(torch.log1p(x * visible))
        qz = Normal(mean, variance.sqrt(), validate_args=False)
        library = (x * self.learnt[batch]).sum(-1, keepdim=True)
        return {"qz": qz, "z": qz.rsample(), "library": library}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, Tensor], **_: object
    ) -> dict[str, Tensor]:
        given = {name: inference_outputs[name] for name in ("z", "library")}
        return given | {"batch_index": tensors[REGISTRY_KEYS.BATCH_KEY]}

    @auto_move_data
    def generative(
        self, z: Tensor, library: Tensor, batch_index: Tensor
    ) -> dict[str, NegativeBinomial]:
        """Decode latent positions into the distribution of the counts of the learnt genes.

        Parameters
        ----------
        z
            Latent positions, shape ``(n_cells, n_latent)``.
        library
            Total counts of the learnt genes, shape ``(n_cells, 1)``.
        batch_index
            Dataset of each cell, shape ``(n_cells, 1)``.

        Returns
        -------
        ``px``, negative binomial with mean ``library * share``, where the shares of the learnt
        genes sum to one and others have none.
        """
        is_learnt = self.learnt[batch_index.squeeze(-1)]
        share = self._shares(z, torch.where(is_learnt, 0.0, -math.inf))
        theta = self.px_r.exp()
        px = NegativeBinomial(mu=library * share, theta=theta, scale=share, validate_args=False)
        return {"px": px}

    def _shares(self, z: Tensor, offset: Tensor | float = 0.0) -> Tensor:
        """Decode shares that sum to one, shape ``(n_cells, n_genes)``."""
        none = z[:, :0]
        return self.decoder(z, none, none, offset)

    def loss(
        self,
        tensors: dict[str, Tensor | SparseCounts],
        inference_outputs: dict[str, Tensor | Normal],
        generative_outputs: dict[str, NegativeBinomial],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """Negative ELBO of the learnt genes, the mean over cells.

        Where the mean and the count are 0, the likelihood has neither a term nor a gradient.

        Parameters
        ----------
        tensors, inference_outputs, generative_outputs
            Minibatch and what `inference` and `generative` returned for it.
        kl_weight
            Weight of the KL divergence.
        """
        px = generative_outputs["px"]
        counts = self._learnt_counts(tensors)
        reconstruction = negative_binomial(px.mu, px.theta, counts)
        kl = kl_standard_normal(inference_outputs["qz"])
        return LossOutput((reconstruction + kl_weight * kl).mean(), reconstruction, kl)

    def _learnt_counts(self, tensors: dict[str, Tensor | SparseCounts]) -> SparseCounts:
        """Return the counts without those of calibration genes."""
        counts = tensors.get(COUNTS_KEY) or SparseCounts.of(tensors[REGISTRY_KEYS.X_KEY])
        batch = tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)
        is_learnt = self.learnt[batch[counts.row], counts.col]
        return SparseCounts(*(values[is_learnt] for values in counts))

    @property
    def theta(self) -> NDArray:
        """Inverse dispersions, float64, shape ``(n_genes,)``."""
        return self.px_r.detach().exp().cpu().numpy().astype(float)

    def posterior_mean(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the latent positions of cells, shape ``(n_cells, n_latent)``."""
        return self.inference(**self._get_inference_input(tensors))["qz"].mean

    def imputed(self, tensors: dict[str, Tensor], genes: Tensor) -> Tensor:
        r"""Return expected counts at the library of the genes that the dataset of a cell shows.

        .. math:: \hat\mu_{ig} = \ell_i\, e^{f_{b_i g}}
            \frac{e^{a_g(\mu_i)}}{\sum_{h \in M_{b_i}} e^{a_h(\mu_i)}}

        Parameters
        ----------
        tensors
            Minibatch of cells.
        genes
            Columns to return, learnt or not, shape ``(n_returned,)``.

        Returns
        -------
        Counts, shape ``(n_cells, n_returned)``.
        """
        outputs = self.inference(**self._get_inference_input(tensors))
        rates = self._rates(outputs["qz"].mean, tensors)
        return outputs["library"] * rates[:, genes]

    def _rates(self, z: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        """Return expected counts for each learnt count of a cell, shape ``(n_cells, n_genes)``."""
        batch = tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)
        share = self._shares(z)
        return share * self.level[batch].exp() / (share * self.learnt[batch]).sum(-1, keepdim=True)

    def imputed_moments(self, tensors: dict[str, Tensor], genes: Tensor) -> Tensor:
        r"""Return what `imputed` does, and how uncertain it is as the cell's position is.

        The variance over the posterior is that of the 2 d points
        :math:`\mu_i \pm \sqrt d\, \sigma_{ik} e_k` of the spherical cubature rule, which is exact
        for polynomials up to the third degree.

        Parameters
        ----------
        tensors, genes
            As for `imputed`.

        Returns
        -------
        Expected count, and its squared coefficient of variation, shape
        ``(n_cells, n_returned, 2)``.
        """
        outputs = self.inference(**self._get_inference_input(tensors))
        mean, sd = outputs["qz"].mean, outputs["qz"].stddev
        centre = self._rates(mean, tensors)[:, genes]
        n_latent = mean.shape[1]
        total, squares = torch.zeros_like(centre), torch.zeros_like(centre)
        for axis in torch.eye(n_latent, device=mean.device):
            step = math.sqrt(n_latent) * axis * sd
            for z in (mean + step, mean - step):
                ratio = self._rates(z, tensors)[:, genes] / centre
                total, squares = total + ratio, squares + ratio.square()
        n_points = 2 * n_latent
        variance = squares / n_points - (total / n_points).square()
        return torch.stack([outputs["library"] * centre, variance.clamp(min=0.0)], dim=-1)

    @torch.inference_mode()
    def sample(self, tensors: dict[str, Tensor]) -> Tensor:
        """Draw counts from the posterior predictive, shape ``(n_cells, n_genes)``."""
        _, generative_outputs = self.forward(tensors, compute_loss=False)
        return generative_outputs["px"].sample()
