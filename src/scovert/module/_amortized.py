"""Confounders of counts by a guide network, as a Pyro model."""

from __future__ import annotations

from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from scvi.module.base import PyroBaseModuleClass
from torch import Size, Tensor, nn
from torch.distributions import constraints

from scovert._reader._designed import ARMS, COVARIATES, LOG_SIZE
from scovert.losses import SparseCounts, negative_binomial

__all__ = ["AmortizedModule", "CountVector"]

MAX_LOG_MEAN = 15.0
LOG_VARIANCE = (-8.0, 2.0)


class CountVector(TorchDistribution):
    """Counts of all genes of a cell: independent negative binomials, one event.

    Parameters
    ----------
    mean
        Means, shape ``(..., n_genes)``.
    theta
        Inverse dispersion, shape ``(n_genes,)``.
    """

    arg_constraints = {"mean": constraints.positive, "theta": constraints.positive}  # noqa: RUF012
    support = constraints.independent(constraints.nonnegative, 1)

    def __init__(self, mean: Tensor, theta: Tensor) -> None:
        self.mean_, self.theta = mean, theta
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-likelihood, summed over the genes, shape ``(...)``."""
        counts = SparseCounts.of(value)
        means = self.mean_.reshape(-1, *value.shape)
        losses = [negative_binomial(mean, self.theta, counts) for mean in means]
        return -torch.stack(losses).view(self.batch_shape)

    def sample(self, sample_shape: Size = torch.Size()) -> Tensor:
        """Draw counts."""
        shape = sample_shape + self.mean_.shape
        rate = self.theta / self.mean_
        gamma = torch.distributions.Gamma(self.theta.expand(shape), rate.expand(shape))
        return torch.poisson(gamma.sample())


class AmortizedModule(PyroBaseModuleClass):
    def __init__(
        self,
        n_genes: int,
        n_columns: int,
        n_latent: int,
        *,
        z_type: Literal["continuous", "binary"],
        n_hidden: int = 64,
        inp: str = "resid",
        linear=True,
    ) -> None:
        super().__init__()
        self.z_type, self.n_latent, self.inp = z_type, n_latent, inp
        self.coefficients = nn.Parameter(torch.zeros(n_columns, n_genes))
        self.loadings = nn.Parameter(torch.zeros(n_latent, n_genes))
        self.log_theta = nn.Parameter(torch.zeros(n_genes))
        if z_type == "binary":
            self.prior_logits = nn.Parameter(torch.zeros(n_latent))
        n_output = n_latent if z_type == "binary" else 2 * n_latent
        self.linear = nn.Linear(n_genes, n_output) if linear else None
        self.encoder = nn.Sequential(
            nn.Linear(n_genes, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_output),
        )
        if linear:
            nn.init.zeros_(self.encoder[-1].weight)
            nn.init.zeros_(self.linear.weight)
        self.register_buffer("start_coefficients", torch.zeros(n_columns, n_genes))
        self.register_buffer("start_theta", torch.ones(n_genes))
        self.register_buffer("input_mean", torch.zeros(n_genes))
        self.register_buffer("input_sd", torch.ones(n_genes))

    @staticmethod
    def _get_fn_args_from_batch(tensors: dict[str, Tensor]) -> tuple[tuple, dict]:
        x = tensors["X"]
        one = torch.ones_like(tensors[LOG_SIZE])
        design = torch.cat([one, tensors[COVARIATES], tensors[ARMS]], 1)
        return (x, design, tensors[LOG_SIZE]), {}

    def model(self, x: Tensor, design: Tensor, log_size: Tensor) -> None:
        log_mean = design @ self.coefficients + log_size
        theta = self.log_theta.exp()
        with pyro.plate("cells", len(x)):
            if self.z_type == "binary":
                for j in range(self.n_latent):
                    z = pyro.sample(
                        f"z_{j}",
                        dist.Bernoulli(logits=self.prior_logits[j], validate_args=False),
                    )
                    log_mean = log_mean + (z.unsqueeze(-1) - 0.5) * self.loadings[j]
            else:
                zero = torch.zeros(len(x), self.n_latent, device=x.device)
                z = pyro.sample("z", dist.Normal(zero, 1.0, validate_args=False).to_event(1))
                log_mean = log_mean + z @ self.loadings
            mean = log_mean.clamp(max=MAX_LOG_MEAN).exp()
            pyro.sample("x", CountVector(mean, theta), obs=x)

    def guide(self, x: Tensor, design: Tensor, log_size: Tensor) -> None:
        output = self.encode(x, design, log_size)
        with pyro.plate("cells", len(x)):
            if self.z_type == "binary":
                for j in range(self.n_latent):
                    pyro.sample(
                        f"z_{j}",
                        dist.Bernoulli(logits=output[:, j], validate_args=False),
                        infer={"enumerate": "parallel"},
                    )
            else:
                mean, log_variance = output.chunk(2, -1)
                sd = (0.5 * log_variance.clamp(*LOG_VARIANCE)).exp()
                pyro.sample("z", dist.Normal(mean, sd, validate_args=False).to_event(1))

    def encode(self, x: Tensor, design: Tensor, log_size: Tensor) -> Tensor:
        if self.inp == "resid":
            mean = (design @ self.start_coefficients + log_size).clamp(max=MAX_LOG_MEAN).exp()
            e = (x - mean) * (mean + mean.square() / self.start_theta).rsqrt()
            e = e.clamp(-10, 10)
        elif self.inp == "current":
            mean = (design @ self.coefficients.detach() + log_size).clamp(max=MAX_LOG_MEAN).exp()
            e = (x - mean) * (mean + mean.square() / self.log_theta.detach().exp()).rsqrt()
            e = e.clamp(-10, 10)
        elif self.inp == "cscore":
            mean = (design @ self.coefficients.detach() + log_size).clamp(max=MAX_LOG_MEAN).exp()
            e = (x - mean) / (1 + mean / self.log_theta.detach().exp()) / self.input_sd
            e = e.clamp(-10, 10)
        elif self.inp == "score":
            mean = (design @ self.start_coefficients + log_size).clamp(max=MAX_LOG_MEAN).exp()
            e = (x - mean) / (1 + mean / self.start_theta) / self.input_sd
            e = e.clamp(-10, 10)
        elif self.inp == "logresid":
            mean = (design @ self.start_coefficients).clamp(max=MAX_LOG_MEAN).exp()
            e = ((x * (-log_size).exp()).log1p() - mean.log1p()) / self.input_sd
        else:
            e = ((x * (-log_size).exp()).log1p() - self.input_mean) / self.input_sd
        h = self.encoder(e)
        return h + self.linear(e) if self.linear is not None else h
