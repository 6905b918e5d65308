"""A generator of confounders and two linear predictors that judge it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from scovert.core._losses import negative_binomial, negative_binomial_deviance
from scovert.model.confounder._designed import ARMS, COVARIATES, LEVEL, LOG_SIZE

__all__ = ["AlternatingModule", "binarise"]

MAX_LOG_MEAN = 15.0
"""Of a count: three million, above which a step was too long."""

LOADING_SD = 0.05
"""Standard deviation of the first, random loadings of the predictors."""


class AlternatingModule(nn.Module):
    r"""Confounders guessed from everything, judged by what they predict.

    .. math:: Z_i = f(X_i, D_i, Y_i), \qquad \operatorname{logit} P(D_i) = b_0 + X_i b + Z_i g,
        \qquad Y_{ij} \sim \mathrm{NB}(s_i e^{B_{0j} + X_i B_j + D_i \beta_j + Z_i G_j}, \theta_j)

    with a network :math:`f` of two hidden layers. With several arms the treatment is multinomial.

    Parameters
    ----------
    n_genes, n_covariates, n_arms, n_latent
        Numbers of columns of :math:`Y`, :math:`X`, :math:`D` and :math:`Z`.
    z_type
        ``"binary"``: the generator's output is cut into 0 and 1. ``"continuous"``: it is taken as
        it is.
    n_hidden
        Nodes in each hidden layer of the generator.
    """

    def __init__(
        self,
        n_genes: int,
        n_covariates: int,
        n_arms: int,
        n_latent: int,
        *,
        z_type: Literal["continuous", "binary"],
        n_hidden: int = 64,
    ) -> None:
        super().__init__()
        self.z_type = z_type
        self.generator = nn.Sequential(
            nn.Linear(n_covariates + n_arms + n_genes, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_latent),
        )
        self.treatment_head = nn.Linear(n_covariates + n_latent, n_arms)
        self.outcome_head = nn.Linear(n_covariates + n_arms + n_latent, n_genes)
        self.log_theta = nn.Parameter(torch.zeros(n_genes))
        for head in (self.treatment_head, self.outcome_head):
            nn.init.zeros_(head.weight)
            nn.init.normal_(head.weight[:, -n_latent:], std=LOADING_SD)
        # Scale of the inputs
        self.register_buffer("first_theta", torch.ones(n_genes))
        self.register_buffer("input_mean", torch.zeros(n_genes))
        self.register_buffer("input_sd", torch.ones(n_genes))

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.log_theta)

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self.log_theta.device

    @torch.no_grad()
    def warm_start(self, coefficients: NDArray, dispersion: NDArray) -> None:
        """Start the outcome's predictor at a regression without confounders.

        Parameters
        ----------
        coefficients
            Of the intercept, the covariates and the arms, shape ``(n_columns, n_genes)``.
        dispersion
            Variance is mean + dispersion x mean squared, shape ``(n_genes,)``.
        """
        intercept, slopes = torch.from_numpy(coefficients).split([1, len(coefficients) - 1])
        self.outcome_head.bias.copy_(intercept[0])
        self.outcome_head.weight[:, : len(slopes)] = slopes.T
        self.log_theta.copy_(-torch.from_numpy(dispersion).log())
        self.first_theta.copy_(self.log_theta.exp())

    def generate(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the generator's output, shape ``(n_cells, n_latent)``; log-odds if binary."""
        log_counts = (batch["X"] * (-batch[LOG_SIZE]).exp()).log1p()
        log_counts = (log_counts - self.input_mean) / self.input_sd
        return self.generator(torch.cat([batch[COVARIATES], batch[ARMS], log_counts], 1))

    def latent(self, output: Tensor) -> Tensor:
        """Turn the generator's output into the confounders that the predictors see."""
        return output if self.z_type == "continuous" else binarise(output)

    @torch.no_grad()
    def scores(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the confounders, shape ``(n_cells, n_latent)``."""
        return self.latent(self.generate(batch))

    def log_odds(self, batch: dict[str, Tensor], z: Tensor) -> Tensor:
        """Return the log-odds of each arm against the reference, shape ``(n_cells, n_arms)``."""
        return self.treatment_head(torch.cat([batch[COVARIATES], z], 1))

    def mean(self, batch: dict[str, Tensor], z: Tensor) -> Tensor:
        """Return the mean counts, shape ``(n_cells, n_genes)``."""
        log_mean = self.outcome_head(torch.cat([batch[COVARIATES], batch[ARMS], z], 1))
        return (log_mean + batch[LOG_SIZE]).clamp(max=MAX_LOG_MEAN).exp()

    def treatment_loss(self, batch: dict[str, Tensor], z: Tensor) -> Tensor:
        """Return the cross-entropy of the treatment, shape ``(n_cells,)``."""
        return self._cross_entropy(batch, self.log_odds(batch, z))

    def outcome_loss(self, batch: dict[str, Tensor], z: Tensor) -> Tensor:
        """Return the negative log-likelihood of the counts over the genes, ``(n_cells,)``."""
        return negative_binomial(self.mean(batch, z), self.log_theta.exp(), batch["counts"])

    def losses_and_deviances(self, batch: dict[str, Tensor], z: Tensor) -> tuple[Tensor, ...]:
        """Return what judges a generator.

        Returns
        -------
        Cross-entropy of the treatment and negative log-likelihood of the counts, means over the
        cells; deviance of every gene, mean over the cells, shape ``(n_genes,)``. Deviances are
        those of the first inverse dispersion: with another one they would not compare.
        """
        mean = self.mean(batch, z)
        return (
            self.treatment_loss(batch, z).mean(),
            negative_binomial(mean, self.log_theta.exp(), batch["counts"]).mean(),
            negative_binomial_deviance(mean, self.first_theta, batch["X"]).mean(0),
        )

    def loss(
        self,
        batch: dict[str, Tensor],
        z: Tensor,
        *,
        without: tuple[Tensor, Tensor],
        treatment_weight: float,
        dbpr_weight: float,
    ) -> Tensor:
        r"""Return what the generator minimises, see `AlternatingOptions`.

        Parameters
        ----------
        batch
            A minibatch.
        z
            Its confounders, shape ``(n_cells, n_latent)``.
        without
            Mean cross-entropy, and mean deviance of every gene, without confounders.
        treatment_weight, dbpr_weight
            Weights :math:`w` and :math:`\lambda`.
        """
        treatment, outcome, deviance = self.losses_and_deviances(batch, z)
        dbpr_treatment = 1 - treatment / without[0]
        dbpr_outcome = 1 - deviance / without[1]
        loss = treatment_weight * treatment + outcome / self.n_genes
        reward = treatment_weight * dbpr_treatment + dbpr_outcome.mean()
        return loss - dbpr_weight * reward

    @staticmethod
    def _cross_entropy(batch: dict[str, Tensor], log_odds: Tensor) -> Tensor:
        with_reference = F.pad(log_odds, (1, 0))
        return F.cross_entropy(with_reference, batch[LEVEL], reduction="none")


class _Binarise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, probability: Tensor) -> Tensor:
        return (probability > 0.5).to(probability.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient


def binarise(logits: Tensor) -> Tensor:
    """Cut log-odds at 0 into 0 and 1, with the gradient of the sigmoid :cite:p:`Bengio13`.

    Parameters
    ----------
    logits
        Log-odds, any shape.

    Returns
    -------
    Zeros and ones of that shape.
    """
    return _Binarise.apply(logits.sigmoid())
