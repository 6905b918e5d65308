"""Confounders of counts with a guide network, as a Pyro model."""

from __future__ import annotations

from typing import Literal

import pyro
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.infer import TraceEnum_ELBO, TraceMeanField_ELBO
from scvi.module.base import PyroBaseModuleClass
from torch import Tensor, nn

from scovert.core._losses import SparseCounts, negative_binomial
from scovert.model.confounder._designed import ARMS, COVARIATES, LOG_SIZE

__all__ = ["AmortizedModule", "CountVector"]

MAX_LOG_MEAN = 15.0
"""Of a count: three million, above which a step was too long."""

MAX_RESIDUAL = 10.0
"""Largest Pearson residual that the encoder sees: a gene of few counts says no more beyond."""

LOG_VARIANCE = (-8.0, 2.0)
"""Range of the posterior's, which is 0 without any counts."""


class CountVector(TorchDistribution):
    """Counts of all genes of a cell: negative binomials, summed over as one event.

    Parameters
    ----------
    mean
        Means, shape ``(..., n_cells, n_genes)``.
    theta
        Inverse dispersion, shape ``(n_genes,)``.
    """

    arg_constraints: dict[str, object] = {}

    def __init__(self, mean: Tensor, theta: Tensor) -> None:
        self.means, self.theta = mean, theta
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-likelihood of counts ``(n_cells, n_genes)``, ``(..., n_cells)``."""
        counts = SparseCounts.of(value)
        means = self.means.reshape(-1, *value.shape)
        losses = [negative_binomial(mean, self.theta, counts) for mean in means]
        return -torch.stack(losses).view(self.batch_shape)


class AmortizedModule(PyroBaseModuleClass):
    r"""Negative binomial factor model whose posterior is a network's output.

    .. math:: Y_{ij} \sim \mathrm{NB}\left(s_i e^{C_i b_j + Z_i g_j}, \theta_j\right), \qquad
        q(Z_i) = f\left(\frac{Y_i - \mu_i}{\sqrt{\mu_i + \mu_i^2 / \theta}}\right), \qquad
        \mu_i = s_i e^{C_i b}

    with covariates and treatment :math:`C`, and :math:`Z` standard normal, or binary (less one
    half in the formula). The network sees how the counts differ from what is expected of the cell
    without :math:`Z`, and never the treatment: as no term of the loss predicts the treatment,
    :math:`Z` gains nothing from being a copy of it. Its input follows the coefficients as they
    are learnt, without a gradient.

    Parameters
    ----------
    n_genes, n_columns, n_latent
        Numbers of columns of :math:`Y`, :math:`C` and :math:`Z`.
    z_type
        ``"continuous"`` or ``"binary"``.
    n_hidden
        Nodes in each of the two hidden layers.
    """

    def __init__(
        self,
        n_genes: int,
        n_columns: int,
        n_latent: int,
        *,
        z_type: Literal["continuous", "binary"],
        n_hidden: int = 64,
    ) -> None:
        super().__init__()
        self.is_binary, self.n_latent = z_type == "binary", n_latent
        self.coefficients = nn.Parameter(torch.zeros(n_columns, n_genes))
        self.loadings = nn.Parameter(torch.zeros(n_latent, n_genes))
        self.log_theta = nn.Parameter(torch.zeros(n_genes))
        if self.is_binary:
            self.prior_logits = nn.Parameter(torch.zeros(n_latent))
        self.encoder = nn.Sequential(
            nn.Linear(n_genes, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.ReLU(),
            nn.Linear(n_hidden, n_latent if self.is_binary else 2 * n_latent),
        )
        exact = TraceEnum_ELBO(max_plate_nesting=1)
        self.bound = exact if self.is_binary else TraceMeanField_ELBO()
        self.register_buffer("by_design", torch.zeros(n_columns, n_latent))
        self.register_buffer("rotation", torch.eye(n_latent))

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self.rotation.device

    @torch.no_grad()
    def warm_start(self, coefficients: NDArray, dispersion: NDArray) -> None:
        """Start at a regression on covariates, treatment and first scores.

        Parameters
        ----------
        coefficients
            Shape ``(n_columns + n_latent, n_genes)``; binary scores were -0.5 and 0.5.
        dispersion
            Variance is mean + dispersion x mean squared, shape ``(n_genes,)``.
        """
        slopes, loadings = torch.from_numpy(coefficients).split(
            [len(self.coefficients), self.n_latent]
        )
        self.coefficients.copy_(slopes)
        self.loadings.copy_(loadings)
        self.log_theta.copy_(-torch.from_numpy(dispersion).log())

    @staticmethod
    def _get_fn_args_from_batch(tensors: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], dict]:
        log_size = tensors[LOG_SIZE]
        design = [torch.ones_like(log_size), tensors[COVARIATES], tensors[ARMS]]
        return (tensors["X"], torch.cat(design, 1), log_size), {}

    def loss(self, tensors: dict[str, Tensor]) -> Tensor:
        """Return the negative evidence bound, a mean over the cells of a minibatch.

        Binary confounders are summed over exactly; the divergence of continuous ones from their
        prior is in closed form.
        """
        inputs = self._get_fn_args_from_batch(tensors)[0]
        return self.bound.differentiable_loss(self.model, self.guide, *inputs)

    def model(self, x: Tensor, design: Tensor, log_size: Tensor) -> None:
        """Draw confounders and counts; the loss is a mean over cells, a sum over genes."""
        with pyro.plate("cells", len(x)), pyro.poutine.scale(scale=1 / len(x)):
            log_mean = design @ self.coefficients + log_size + self._draw(x) @ self.loadings
            mean = log_mean.clamp(max=MAX_LOG_MEAN).exp()
            pyro.sample("x", CountVector(mean, self.log_theta.exp()), obs=x)

    def _draw(self, x: Tensor) -> Tensor:
        """Draw confounders from the prior, shape ``(..., n_cells, n_latent)``."""
        if not self.is_binary:
            prior = dist.Normal(x.new_zeros(len(x), self.n_latent), 1.0, validate_args=False)
            return pyro.sample("z", prior.to_event(1))
        bits = [
            pyro.sample(f"z_{j}", dist.Bernoulli(logits=logit, validate_args=False))
            for j, logit in enumerate(self.prior_logits)
        ]
        every = torch.broadcast_tensors(*bits)  # one axis for each that is enumerated
        return torch.stack(every, -1) - 0.5

    def guide(self, x: Tensor, design: Tensor, log_size: Tensor) -> None:
        """Draw confounders from the posterior; of binary ones, all."""
        output = self.encode(x, design, log_size)
        with pyro.plate("cells", len(x)), pyro.poutine.scale(scale=1 / len(x)):
            if self.is_binary:
                for j, logit in enumerate(output.unbind(-1)):
                    posterior = dist.Bernoulli(logits=logit, validate_args=False)
                    pyro.sample(f"z_{j}", posterior, infer={"enumerate": "parallel"})
                return
            mean, log_variance = output.chunk(2, -1)
            sd = (log_variance.clamp(*LOG_VARIANCE) / 2).exp()
            pyro.sample("z", dist.Normal(mean, sd, validate_args=False).to_event(1))

    def encode(self, x: Tensor, design: Tensor, log_size: Tensor) -> Tensor:
        """Return means and log-variances, or log-odds, of the posterior."""
        with torch.no_grad():
            log_mean = design @ self.coefficients + log_size
            mean = log_mean.clamp(max=MAX_LOG_MEAN).exp()
            residuals = (x - mean) * (mean + mean.square() / self.log_theta.exp()).rsqrt()
        return self.encoder(residuals.clamp(-MAX_RESIDUAL, MAX_RESIDUAL))

    @torch.no_grad()
    def scores(self, batch: dict[str, Tensor]) -> Tensor:
        """Return probabilities, or scores orthogonal to the design, ``(n_cells, n_latent)``."""
        x, design, log_size = self._get_fn_args_from_batch(batch)[0]
        output = self.encode(x, design, log_size)
        if self.is_binary:
            return output.sigmoid()
        return (output[:, : self.n_latent] - design @ self.by_design) @ self.rotation

    def make_orthogonal(self, scores: NDArray, design: NDArray) -> None:
        """Make the scores of some cells orthogonal to their design and white, from now on.

        Parameters
        ----------
        scores
            What `scores` returned for the cells.
        design
            Their covariates and treatment.
        """
        raw, c = torch.from_numpy(scores).double(), torch.from_numpy(design).double()
        by_design = torch.linalg.lstsq(c, raw, driver="gelsd").solution
        rest = raw - c @ by_design
        covariance = rest.T @ rest / len(rest)
        root = torch.linalg.cholesky(torch.linalg.inv(covariance))
        self.by_design.copy_(by_design)
        self.rotation.copy_(root)
