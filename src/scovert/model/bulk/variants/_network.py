r"""A network that reads shares off a sample, trained on mixtures that it makes itself.

Mixing is linear in the profiles of the types; whatever may differ between a reference and a bulk
is drawn at random before the logarithm is taken:

.. math::
    x_g = \log\Big(e^{s_g + a} \sum_k w_k \rho_{kg} e^{j_{kg}} + c\Big), \qquad
    w \mid x \sim \mathrm{Dirichlet}\big(\epsilon + t(x)\, \mathrm{softmax} f(x)\big),

with shares :math:`w` of the types in the RNA, their profiles :math:`\rho`, deviations :math:`j` of
single types, shifts :math:`s` of genes and a scale :math:`a`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Dirichlet

from scovert.core._losses import dirichlet
from scovert.core.training._checkpoint import Resumable
from scovert.core.training._plan import Plan
from scovert.core.training._run import Networks, run
from scovert.model.bulk._budget import BulkBudget
from scovert.model.bulk._cohort import Cohort
from scovert.model.bulk._signature import OFFSET

__all__ = ["NetworkFit", "ShareNetwork", "fit_network"]

BATCH_SIZE, LEARNING_RATE, DECAY, MAX_NORM = 128, 3e-3, 1e-4, 5.0
"""Mixtures of a step; highest learning rate, weight decay and norm of the gradient of AdamW."""
DROPOUT_RATE = 0.2
"""Share of the hidden units that are left out, so that no few genes decide."""
MIN_CONCENTRATION = 0.05
"""Added to the concentration of every type, so that the likelihood of a type without cells is
finite."""

# Mixtures; standard deviations are on the natural log scale
EVENNESS = (2.0, 60.0)
"""Range of the concentration of shares: from samples of hardly more than one type to even ones."""
LOWEST, ABSENT = 0.02, 0.1
"""Least concentration of a type, and the share of the types that a sample lacks."""
N_POOLS, STEPS_BETWEEN_POOLS = 32, 25
"""Profiles of every type that samples are mixed of, and steps until they are drawn anew."""
JITTER_SD = 0.3
"""Largest standard deviation of a gene in one type: that between studies of the same types."""
SHIFT_SD, SCALE_SD = 1.0, 0.3
"""Largest standard deviation of the shifts of genes, beyond the .7 between two platforms; and that
of the scale of a sample."""
OUTLIERS, OUTLIER_SD = 0.05, 1.5
"""Share of the genes with a large shift, and its standard deviation: genes that a protocol loses,
or has several times over."""
MISSING = 0.1
"""Share of the genes that a sample lacks, so that the network needs no single one."""


@dataclass(frozen=True)
class NetworkFit:
    """Shares that the network reads off the samples.

    Attributes
    ----------
    concentration
        Of the Dirichlet distribution of a sample, shape ``(n_samples, n_types)``.
    objective
        Loss by step, a mean over simulated mixtures.
    """

    concentration: NDArray
    objective: list[float]

    @property
    def weights(self) -> NDArray:
        """Expected shares of the types in the RNA, shape ``(n_samples, n_types)``."""
        return self.concentration / self.concentration.sum(1, keepdims=True)

    def by_state(self, state_type: NDArray) -> NDArray:
        """Return the shares of states, alike within a type, ``(n_samples, n_states)``."""
        return (self.weights / np.bincount(state_type))[:, state_type]

    def draws(self, n_draws: int, rng: np.random.Generator) -> NDArray:
        """Draw shares of the types, shape ``(n_draws, n_samples, n_types)``."""
        gamma = rng.standard_gamma(self.concentration, (n_draws, *self.concentration.shape))
        return gamma / gamma.sum(-1, keepdims=True)


class ShareNetwork(nn.Module):
    """Expression of a sample to a Dirichlet distribution of the shares of types.

    Parameters
    ----------
    n_genes, n_types
        Numbers of genes and types.
    n_hidden
        Nodes in the first hidden layer; the second one has half as many.
    """

    def __init__(self, n_genes: int, n_types: int, n_hidden: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(n_genes, n_hidden),
            nn.LayerNorm(n_hidden),
            nn.SiLU(),
            nn.Dropout(DROPOUT_RATE),
            nn.Linear(n_hidden, n_hidden // 2),
            nn.SiLU(),
        )
        self.logits = nn.Linear(n_hidden // 2, n_types)
        self.log_total = nn.Linear(n_hidden // 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the shares, ``(n_samples, n_types)``, and their log concentration."""
        hidden = self.hidden(x)
        return self.logits(hidden), self.log_total(hidden)

    def loss(self, x: Tensor, shares: Tensor) -> Tensor:
        """Return the negative log-likelihood of the shares of samples, ``(n_samples,)``."""
        return dirichlet(concentration_of(*self(x)), shares)


def concentration_of(logits: Tensor, log_total: Tensor) -> Tensor:
    """Return the concentration of the Dirichlet distribution, ``(n_samples, n_types)``."""
    return MIN_CONCENTRATION + log_total.exp() * logits.softmax(-1)


def fit_network(
    cohort: Cohort,
    state_type: NDArray,
    *,
    seed: int = 0,
    n_steps: int = BulkBudget.n_network_steps,
    on_step: Callable[[], object] = lambda: None,
) -> NetworkFit:
    """Train on simulated mixtures of the profiles, and read the samples.

    Parameters
    ----------
    cohort
        Samples and profiles of states; every sample is read by itself.
    state_type
        Number of the type of every state, shape ``(n_states,)``.
    seed
        Of the network and the mixtures.
    n_steps
        Steps of training, each on new mixtures.
    on_step
        Called after every step, for a progress bar.

    Raises
    ------
    FloatingPointError
        If the loss became NaN or infinite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mixtures = SimulatedMixtures(cohort, state_type)
        network = ShareNetwork(cohort.profiles.shape[1], mixtures.n_types)
        plan, data = NetworkPlan(network, n_steps, on_step), MixtureData(mixtures, n_steps)
        options = {"accelerator": "cpu", "max_steps": n_steps, "gradient_clip_val": MAX_NORM}
        options |= {"enable_progress_bar": False}
        max_epochs = math.ceil(n_steps / data.n_steps)
        run(Networks(network), plan, data, max_epochs, resumable=Resumable.none(), **options)
    with torch.no_grad():
        concentration = concentration_of(*network(mixtures.inputs(cohort.cpm)))
    return NetworkFit(concentration.double().cpu().numpy(), plan.objective)


class NetworkPlan(Plan):
    """Learning rate that rises and falls once, gradients that are clipped.

    Parameters
    ----------
    network
        Network to train.
    n_steps
        Steps of the whole training.
    on_step
        Called after every step.
    """

    remedy = "Look for genes with extreme values in the reference."

    def __init__(self, network: ShareNetwork, n_steps: int, on_step: Callable[[], object]) -> None:
        super().__init__(network)
        self.n_steps, self.on_step = n_steps, on_step
        self.objective: list[float] = []

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | int]]:
        """Return the mean loss of simulated samples."""
        loss, n = self.module.loss(**batch).mean(), len(batch["x"])
        return loss, {"loss": loss.detach() * n, "n_cells": n}

    def on_train_batch_end(self, *arguments: object) -> None:
        """Note the loss of the step."""
        super().on_train_batch_end(*arguments)
        self.objective.append(float(self.terms["loss"]) / BATCH_SIZE)
        self.on_step()

    def configure_optimizers(self) -> dict[str, object]:
        """Return the optimiser and its schedule."""
        parameters = self.module.parameters()
        optimizer = torch.optim.AdamW(parameters, weight_decay=DECAY, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, self.n_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class MixtureData(pl.LightningDataModule):
    """Simulated samples; an epoch is what is mixed of the same profiles.

    Parameters
    ----------
    mixtures
        What to draw from.
    n_steps
        Steps of the whole training.
    """

    names, n_val = None, 0

    def __init__(self, mixtures: SimulatedMixtures, n_steps: int) -> None:
        super().__init__()
        self.mixtures, self.n_steps = mixtures, min(n_steps, STEPS_BETWEEN_POOLS)
        self.n_train = self.n_steps * BATCH_SIZE

    def train_dataloader(self) -> MixtureData:
        """Return itself: each time it is gone through, samples are mixed of new profiles."""
        return self

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        self.mixtures.renew()
        for _ in range(self.n_steps):
            x, shares = self.mixtures.draw(BATCH_SIZE)
            yield {"x": x, "shares": shares}


class SimulatedMixtures:
    """Simulated samples, and how a sample becomes the network's input."""

    def __init__(self, cohort: Cohort, state_type: NDArray) -> None:
        self.profiles, self.variance = cohort.profiles, cohort.variance
        kind = torch.as_tensor(state_type)
        self.n_types = int(kind.max()) + 1
        self.member = nn.functional.one_hot(kind, self.n_types).T.to(self.profiles)
        by_type = self.member @ self.profiles / self.member.sum(1, keepdim=True)
        self.center = (by_type.mean(0) + OFFSET).log()  # (n_genes,)

    def inputs(self, cpm: Tensor) -> Tensor:
        """Return the log expression against the mean of the types, ``(n_samples, n_genes)``."""
        return (cpm + OFFSET).log() - self.center

    def renew(self) -> None:
        """Draw profiles of the types: states in any proportions, and gene by gene deviations."""
        evenness = torch.ones_like(self.member[0]).expand(self.n_types, N_POOLS, -1)
        states = torch._standard_gamma(evenness) * self.member[:, None]
        states = states / states.sum(-1, keepdim=True)  # (n_types, N_POOLS, n_states)
        jitter = JITTER_SD * torch.rand_like(states[..., :1])
        sd = (states @ self.variance + jitter.square()).sqrt()
        self.pools = (states @ self.profiles) * (sd * torch.randn_like(sd)).exp()

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw `n` inputs, and the shares of the types in their RNA."""
        shares = self._shares(n)
        which = torch.randint(N_POOLS, (n, self.n_types, 1))
        weights = shares.new_zeros(n, self.n_types, N_POOLS).scatter_(2, which, shares[..., None])
        mixed = weights.flatten(1) @ self.pools.flatten(0, 1)  # (n, n_genes)
        inputs = self.inputs(mixed * self._shift(mixed).exp())
        return inputs * (torch.rand_like(inputs) > MISSING), shares

    def _shares(self, n: int) -> Tensor:
        """Draw shares, even or not, some of them zero."""
        low, high = np.log(EVENNESS)
        total = torch.empty(n, 1).uniform_(low, high).exp()
        center = Dirichlet(self.profiles.new_ones(self.n_types)).sample((n,))
        shares = Dirichlet(center * total + LOWEST).sample()
        shares = shares.masked_fill(torch.rand_like(shares) < ABSENT, 0) + 1e-9
        return shares / shares.sum(-1, keepdim=True)

    @staticmethod
    def _shift(like: Tensor) -> Tensor:
        """Draw log shifts of the genes, some of them extreme, and of the whole sample."""
        one = torch.ones_like(like[:, :1])
        shift = torch.randn_like(like) * (SHIFT_SD * torch.rand_like(one))
        is_outlier = torch.rand_like(like) < OUTLIERS
        scale = torch.randn_like(one) * SCALE_SD
        return shift + is_outlier * torch.randn_like(like) * OUTLIER_SD + scale
