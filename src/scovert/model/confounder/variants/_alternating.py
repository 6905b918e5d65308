"""The original way to find confounders: a generator and its judges, trained in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from scovert.core._counts import in_parts
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.dataloaders._one_step import OneStep
from scovert.core.training._checkpoint import Resumable
from scovert.core.training._plan import Plan
from scovert.core.training._run import Networks, run
from scovert.model.confounder._designed import ARMS, COVARIATES, LEVEL, LOG_SIZE
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["AlternatingFit", "AlternatingOptions", "Start", "fit_alternating"]

GENERATOR_LR, PREDICTOR_LR = 1e-3, 5e-3
"""Learning rates: the predictors have to keep up with the generator."""

MAX_NORM = 5.0
"""Norm at which the gradient of the generator is clipped."""

MAX_EPOCHS, PATIENCE, MIN_GAIN = 20, 2, 1e-4
"""Of a predictor in an odd round; the gain is relative to the loss on the held-out cells."""

ROUNDS = {"treatment_loss": 1, "outcome_loss": 1, "generator_loss": 2}
"""What is recorded, and in which rounds: the odd ones of the predictors or the even ones."""

HELD_OUT = 0.1
"""Share of the cells by which a predictor stops."""

RIDGE = 1e-3
"""Penalty of the treatment's logits, so that arms that are apart have finite ones."""

BLOCK = 1024
"""Cells that are encoded at once."""

MIN_SD = 1e-3
"""Least standard deviation of a gene's input: a constant one is divided by it."""


class Start(Protocol):
    """Regression of the counts on the design, without confounders.

    Attributes
    ----------
    coefficients
        Shape ``(n_columns, n_genes)``.
    dispersion
        Variance is mean + dispersion x mean squared, shape ``(n_genes,)``.
    """

    coefficients: NDArray
    dispersion: NDArray


@dataclass(frozen=True)
class AlternatingOptions:
    r"""How the generator is judged and trained.

    Attributes
    ----------
    z_type
        See :class:`~scovert.model.confounder.variants._alternating_module.AlternatingModule`.
    scale
        Weight of what concerns the treatment against what concerns the counts of a cell, with
        :math:`p` genes. ``"mean"``: the cross-entropy counts as much as the mean over the genes,
        :math:`w = 1`. ``"joint"``: as much as any one gene, :math:`w = 1 / p`, which makes the
        loss the joint likelihood divided by :math:`p`.
    dbpr_weight
        Weight :math:`\lambda` of the reward. The generator minimises :math:`w\,\mathrm{BCE} +
        \frac1p \sum_j \mathrm{NB}_j - \lambda \left(w\,\mathrm{DBPR}_D + \frac1p \sum_j
        \mathrm{DBPR}_j\right)`.
    n_rounds
        Rounds of the generator; before each one the predictors are trained.
    batch_size
        Cells in a minibatch.
    """

    z_type: Literal["continuous", "binary"] = "binary"
    scale: Literal["mean", "joint"] = "mean"
    dbpr_weight: float = 1.0
    n_rounds: int = 40
    batch_size: int = 32


class AlternatingFit(NamedTuple):
    """Result of the fit.

    Attributes
    ----------
    module
        The trained networks.
    scores
        Confounders of the cells, shape ``(n_cells, n_latent)``.
    effects
        Coefficients of the arms on the log mean, shape ``(n_arms, n_genes)``.
    log_odds
        Predicted log-odds of each arm against the reference, shape ``(n_cells, n_arms)``.
    dbpr_treatment, dbpr_outcome
        Share of the deviance that the confounders explain: of the treatment, and of every gene,
        shape ``(n_genes,)``, on the cells that were trained on.
    history
        ``treatment_loss`` and ``outcome_loss`` (on the held-out cells, per cell) and
        ``generator_loss`` by round.
    """

    module: AlternatingModule
    scores: NDArray
    effects: NDArray
    log_odds: NDArray
    dbpr_treatment: float
    dbpr_outcome: NDArray
    history: dict[str, pd.DataFrame]


def fit_alternating(
    cells: Cells,
    start: Start,
    *,
    n_latent: int,
    options: AlternatingOptions,
    seed: int = 0,
    resumable: Resumable | None = None,
    accelerator: Literal["cpu", "gpu"] = "cpu",
    **trainer_kwargs: object,
) -> AlternatingFit:
    """Train the predictors in the odd rounds and the generator in the even ones.

    In an odd round each predictor minimises its own loss with the generator frozen, until it does
    not improve on held-out cells. In an even round the generator minimises the losses of both
    predictors less the reward, see `AlternatingOptions`; the gradient passes through the
    predictors, which stay as they are.

    Parameters
    ----------
    cells
        Counts, covariates on a common scale, and treatment, from
        :func:`~scovert.model.confounder._designed.designed_cells`.
    start
        Regression of the counts without confounders, where the outcome predictor starts.
    n_latent
        Number of confounders.
    options
        How the generator is judged and trained.
    seed
        Seed of the networks, the minibatches and the held-out cells.
    resumable
        Where to write the state of every round, and to go on from.
    accelerator
        Where to train.
    **trainer_kwargs
        For :class:`scvi.train.Trainer`.

    Raises
    ------
    FloatingPointError
        If a loss or the gradient of the generator became NaN or infinite.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        n_covariates, n_arms = (cells.columns[name].shape[1] for name in (COVARIATES, ARMS))
        module = AlternatingModule(
            cells.n_genes,
            n_covariates,
            n_arms,
            n_latent,
            z_type=options.z_type,
        )
        _set_scale(module, cells)
        module.warm_start(start.coefficients, start.dispersion)
        device = torch.device("cuda" if accelerator == "gpu" else accelerator)
        tensors = CellTensors(cells, device)
        _fit_logistic(module.to(device), tensors)
        plan = AlternatingPlan(_Rounds(module, tensors, options, seed))
        data, resumable = OneStep(len(cells)), resumable or Resumable.none()
        kwargs = {"accelerator": accelerator} | trainer_kwargs
        run(Networks(module), plan, data, options.n_rounds + 1, resumable=resumable, **kwargs)
        return plan.rounds.result(plan.recorded)


class AlternatingPlan(Plan):
    """A step is an epoch, in which the predictors learn and then the generator.

    After the last step of the generator the predictors learn once more. No loss says how good the
    generator is, as what judges it changes: the last state is kept.

    Parameters
    ----------
    rounds
        The networks, their optimisers and the minibatches.
    """

    remedy = "Look for cells or covariates with extreme values."

    def __init__(self, rounds: _Rounds) -> None:
        super().__init__(rounds.module)
        self.automatic_optimization = False
        self.rounds = rounds

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers of the generator and the two predictors."""
        return self.rounds.optimizers

    def training_step(self, batch: dict, batch_idx: int) -> None:
        """Train the predictors, then the generator."""
        rounds = self.rounds
        self.terms = {"n_cells": 1, **rounds.train_predictors()}
        if self.current_epoch < rounds.options.n_rounds:
            loss, self.gradient_norm = rounds.train_generator()
            self.terms["generator_loss"] = loss

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add how far the rounds have come, and the generator of their order."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["rng"] = self.rounds.rng.bit_generator.state
        checkpoint["generator_rounds"] = self.rounds.generator_rounds

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.rounds.rng.bit_generator.state = checkpoint["rng"]
        self.rounds.generator_rounds = checkpoint["generator_rounds"]


class _Rounds:
    """The rounds: which network learns, from which loss."""

    def __init__(
        self,
        module: AlternatingModule,
        cells: CellTensors,
        options: AlternatingOptions,
        seed: int,
    ) -> None:
        self.module, self.cells, self.options = module, cells, options
        self.rng = np.random.default_rng(seed)
        order = self.rng.permutation(cells.counts.shape[0])
        n_held_out = round(HELD_OUT * len(order))
        self.held_out, self.rows = np.sort(order[:n_held_out]), np.sort(order[n_held_out:])
        self.outcome_parameters = [*module.outcome_head.parameters(), module.log_theta]
        self.optimizers = [
            torch.optim.Adam(module.generator.parameters(), lr=GENERATOR_LR, fused=True),
            torch.optim.Adam(module.treatment_head.parameters(), lr=PREDICTOR_LR, fused=True),
            torch.optim.Adam(self.outcome_parameters, lr=PREDICTOR_LR, fused=True),
        ]
        self.generator_rounds = 0
        zero = torch.zeros(len(order), module.generator[-1].out_features, device=cells.device)
        self.without = self._deviances(zero)

    def train_predictors(self) -> dict[str, Tensor]:
        """Train each predictor until it does not improve any more; return their last losses."""
        outputs = self._outputs()
        _, treatment, outcome = self.optimizers
        return {
            name: torch.tensor(self._train_predictor(loss_of, optimizer, outputs))
            for name, loss_of, optimizer in (
                ("treatment_loss", self.module.treatment_loss, treatment),
                ("outcome_loss", self.module.outcome_loss, outcome),
            )
        }

    def _train_predictor(
        self, loss_of: Callable, optimizer: torch.optim.Optimizer, outputs: Tensor
    ) -> float:
        """Train a predictor with confounders that stay; return the loss on the held-out cells."""
        best, waited = self._held_out_loss(loss_of, outputs), 0
        for _ in range(MAX_EPOCHS):
            for rows, batch in self._epoch():
                z = self.module.latent(outputs[rows])
                optimizer.zero_grad()
                loss_of(batch, z).mean().backward()
                optimizer.step()
            loss = self._held_out_loss(loss_of, outputs)
            waited = 0 if loss < best - MIN_GAIN * abs(best) else waited + 1
            best = min(best, loss)
            if waited == PATIENCE:
                break
        return loss

    def train_generator(self) -> tuple[Tensor, Tensor]:
        """Train the generator for an epoch through predictors that stay.

        Returns
        -------
        The mean loss, and the norm of the gradient of the last step before it was clipped.
        """
        optimizer = self.optimizers[0]
        predictors = [*self.module.treatment_head.parameters(), *self.outcome_parameters]
        total = 0.0
        with _frozen(predictors):
            for rows, batch in self._epoch():
                z = self.module.latent(self.module.generate(batch))
                loss = self.module.loss(batch, z, **self.judgement)
                optimizer.zero_grad()
                loss.backward()
                norm = clip_grad_norm_(self.module.generator.parameters(), MAX_NORM)
                optimizer.step()
                total += loss.detach() * len(rows)
        self.generator_rounds += 1
        return total / len(self.rows), norm

    @property
    def judgement(self) -> dict[str, object]:
        """How the generator is judged, arguments of ``module.loss``."""
        weight = 1.0 if self.options.scale == "mean" else 1 / self.cells.n_genes
        return {
            "without": self.without,
            "treatment_weight": weight,
            "dbpr_weight": self.options.dbpr_weight,
        }

    def _epoch(self) -> Iterator[tuple[NDArray, dict[str, Tensor]]]:
        """Go through the cells in minibatches, in random order."""
        order = self.rng.permutation(self.rows)
        for rows in in_parts(order, self.options.batch_size):
            yield rows, self.cells.minibatch(rows, len(rows))

    def _blocks(self, rows: NDArray) -> Iterator[tuple[NDArray, dict[str, Tensor]]]:
        for some in in_parts(rows, BLOCK):
            yield some, self.cells.minibatch(some, len(some))

    @torch.no_grad()
    def _outputs(self) -> Tensor:
        """Return the generator's output for all cells."""
        every = np.arange(self.cells.counts.shape[0])
        return torch.cat([self.module.generate(batch) for _, batch in self._blocks(every)])

    @torch.no_grad()
    def _held_out_loss(self, loss_of: Callable, outputs: Tensor) -> float:
        losses = [
            loss_of(batch, self.module.latent(outputs[rows]))
            for rows, batch in self._blocks(self.held_out)
        ]
        return float(torch.cat(losses).mean())

    @torch.no_grad()
    def _deviances(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy, and the mean deviance of every gene, over the cells."""
        treatment, deviance = 0.0, 0.0
        for rows, batch in self._blocks(self.rows):
            share = len(rows) / len(self.rows)
            one, _, other = self.module.losses_and_deviances(batch, z[rows])
            treatment, deviance = treatment + one * share, deviance + other * share
        return treatment, deviance

    @torch.no_grad()
    def result(self, recorded: dict[str, dict[int, float]]) -> AlternatingFit:
        """Return the result of the fit, with what was recorded by epoch."""
        z = self.module.latent(self._outputs())
        treatment, deviance = self._deviances(z)
        every = np.arange(len(z))
        log_odds = [self.module.log_odds(batch, z[rows]) for rows, batch in self._blocks(every)]
        n_arms = self.module.treatment_head.out_features
        first = self.module.treatment_head.in_features - z.shape[1]
        effects = self.module.outcome_head.weight[:, first : first + n_arms].T
        return AlternatingFit(
            module=self.module,
            scores=z.double().cpu().numpy(),
            effects=effects.double().cpu().numpy(),
            log_odds=torch.cat(log_odds).double().cpu().numpy(),
            dbpr_treatment=float(1 - treatment / self.without[0]),
            dbpr_outcome=(1 - deviance / self.without[1]).double().cpu().numpy(),
            history={term: _frame(term, first, recorded) for term, first in ROUNDS.items()},
        )


@contextmanager
def _frozen(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Keep parameters as they are, with gradients passing through them."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@torch.no_grad()
def _set_scale(module: AlternatingModule, cells: Cells) -> None:
    """Standardise the generator's input."""
    counts, size = cells.counts, np.exp(cells.columns[LOG_SIZE].ravel())
    values = np.log1p(counts.data / np.repeat(size, np.diff(counts.indptr)))
    logs = sp.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)
    mean = np.asarray(logs.mean(axis=0)).ravel()
    square = np.asarray(logs.multiply(logs).mean(axis=0)).ravel()
    module.input_mean.copy_(torch.from_numpy(mean))
    module.input_sd.copy_(torch.from_numpy(square - mean**2).clamp(min=MIN_SD**2).sqrt())


def _fit_logistic(module: AlternatingModule, cells: CellTensors) -> None:
    """Start the treatment's predictor at the covariates alone, with a small ridge."""
    x, level = (cells.columns[name].to(cells.device) for name in (COVARIATES, LEVEL))
    n_arms = module.treatment_head.out_features
    weight = x.new_zeros(n_arms, x.shape[1], requires_grad=True)
    bias = x.new_zeros(n_arms, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        log_odds = F.pad(F.linear(x, weight, bias), (1, 0))
        loss = F.cross_entropy(log_odds, level) + RIDGE * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        module.treatment_head.weight[:, : x.shape[1]] = weight
        module.treatment_head.bias.copy_(bias)


def _frame(term: str, first: int, recorded: dict[str, dict[int, float]]) -> pd.DataFrame:
    """Return a term by round: every epoch has an odd one and an even one."""
    values = recorded.get(f"{term}_train", {})
    rounds = pd.Index([2 * epoch + first for epoch in values], name="round")
    return pd.DataFrame({term: list(values.values())}, rounds)
