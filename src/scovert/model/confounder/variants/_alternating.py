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
from scvi.utils import track
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.model.confounder._designed import ARMS, COVARIATES, LEVEL, LOG_SIZE
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["AlternatingFit", "AlternatingOptions", "Start", "fit_alternating"]

GENERATOR_LR, PREDICTOR_LR = 1e-3, 5e-3
MAX_NORM = 5.0
MAX_EPOCHS, PATIENCE, MIN_GAIN = 20, 2, 1e-4
"""Of a predictor in an odd round; the gain is relative to the loss on the held-out cells."""

HELD_OUT = 0.1
LOWEST_TEMPERATURE = 0.3
RIDGE = 1e-3
BLOCK = 1024
MIN_SD = 1e-3


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
    z_type, relaxation
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
    relaxation: Literal["straight_through", "gumbel"] = "straight_through"
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
    device: torch.device | str = "cpu",
    seed: int = 0,
    show_progress: bool = True,
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
    device
        Where to train.
    seed
        Seed of the networks, the minibatches and the held-out cells.
    show_progress
        Show a bar over the rounds.
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
            relaxation=options.relaxation,
        )
        _set_scale(module, cells)
        module.warm_start(start.coefficients, start.dispersion)
        tensors = CellTensors(cells, device)
        _fit_logistic(module.to(device), tensors)
        rounds = _Rounds(module, tensors, options, seed)
        for _ in track(
            range(options.n_rounds),
            style="tqdm",
            description="Rounds",
            disable=not show_progress,
        ):
            rounds.train_predictors()
            rounds.train_generator()
        rounds.train_predictors()
        return rounds.result()


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
        self.treatment_weight = 1.0 if options.scale == "mean" else 1 / cells.n_genes
        self.outcome_parameters = [*module.outcome_head.parameters(), module.log_theta]
        self.optimizers = [
            torch.optim.Adam(module.generator.parameters(), lr=GENERATOR_LR, fused=True),
            torch.optim.Adam(module.treatment_head.parameters(), lr=PREDICTOR_LR, fused=True),
            torch.optim.Adam(self.outcome_parameters, lr=PREDICTOR_LR, fused=True),
        ]
        self.generator_rounds = 0
        self.recorded: dict[str, dict[int, float]] = {
            "treatment_loss": {},
            "outcome_loss": {},
            "generator_loss": {},
        }
        zero = torch.zeros(len(order), module.generator[-1].out_features, device=cells.device)
        self.without = self._deviances(zero)

    @property
    def temperature(self) -> float:
        """Temperature of the Gumbel-sigmoid, falling from 1."""
        return max(LOWEST_TEMPERATURE, 1 - self.generator_rounds / self.options.n_rounds)

    def train_predictors(self) -> None:
        """Train each predictor on its own loss until it does not improve any more."""
        outputs = self._outputs()
        number = 2 * self.generator_rounds + 1
        _, treatment, outcome = self.optimizers
        for name, loss, optimizer in (
            ("treatment_loss", self.module.treatment_loss, treatment),
            ("outcome_loss", self.module.outcome_loss, outcome),
        ):
            self.recorded[name][number] = self._train_predictor(loss, optimizer, outputs)

    def _train_predictor(
        self, loss_of: Callable, optimizer: torch.optim.Optimizer, outputs: Tensor
    ) -> float:
        """Train a predictor with confounders that stay; return the loss on the held-out cells."""
        best, waited = self._held_out_loss(loss_of, outputs), 0
        for _ in range(MAX_EPOCHS):
            for rows, batch in self._epoch():
                z = self.module.latent(outputs[rows], self.temperature)
                optimizer.zero_grad()
                loss_of(batch, z).mean().backward()
                optimizer.step()
            loss = self._held_out_loss(loss_of, outputs)
            waited = 0 if loss < best - MIN_GAIN * abs(best) else waited + 1
            best = min(best, loss)
            if waited == PATIENCE:
                break
        return loss

    def train_generator(self) -> None:
        """Train the generator for an epoch through predictors that stay."""
        optimizer = self.optimizers[0]
        predictors = [*self.module.treatment_head.parameters(), *self.outcome_parameters]
        total = 0.0
        with _frozen(predictors):
            for rows, batch in self._epoch():
                z = self.module.latent(self.module.generate(batch), self.temperature)
                loss = self._generator_loss(*self.module.losses_and_deviances(batch, z))
                optimizer.zero_grad()
                loss.backward()
                clip_grad_norm_(self.module.generator.parameters(), MAX_NORM)
                optimizer.step()
                total += loss.detach() * len(rows)
        self.generator_rounds += 1
        self.recorded["generator_loss"][2 * self.generator_rounds] = float(total / len(self.rows))

    def _generator_loss(self, treatment: Tensor, outcome: Tensor, deviance: Tensor) -> Tensor:
        """See `AlternatingOptions`."""
        treatment_without, deviance_without = self.without
        dbpr_treatment = 1 - treatment / treatment_without
        dbpr_outcome = 1 - deviance / deviance_without
        loss = self.treatment_weight * treatment + outcome / self.cells.n_genes
        reward = self.treatment_weight * dbpr_treatment + dbpr_outcome.mean()
        return loss - self.options.dbpr_weight * reward

    def _epoch(self) -> Iterator[tuple[NDArray, dict[str, Tensor]]]:
        """Go through the cells in minibatches, in random order."""
        order = self.rng.permutation(self.rows)
        for rows in np.array_split(order, -(-len(order) // self.options.batch_size)):
            yield rows, self.cells.minibatch(rows, len(rows))

    def _blocks(self, rows: NDArray) -> Iterator[tuple[NDArray, dict[str, Tensor]]]:
        for some in np.array_split(rows, -(-len(rows) // BLOCK)):
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
    def result(self) -> AlternatingFit:
        """Return what came out."""
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
            history={name: _frame(name, values) for name, values in self.recorded.items()},
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


def _frame(name: str, values: dict[int, float]) -> pd.DataFrame:
    return pd.DataFrame({name: list(values.values())}, index=pd.Index(values, name="round"))
