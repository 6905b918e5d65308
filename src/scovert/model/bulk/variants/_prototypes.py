"""Training of prototypes: cells of an annotated reference to states and their profiles."""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.module.base import LossOutput
from scvi.utils import track
from sklearn.cluster import KMeans
from torch import Tensor

from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.training._finite import FiniteWatch
from scovert.model.bulk.variants._prototype_module import PrototypeModule

__all__ = ["PrototypeFit", "learn_prototypes"]

MIN_CELLS_PER_PROTOTYPE = 25
MAX_EPOCHS, CELL_VISITS = 400, 8_000_000
WARMUP_STEPS = 400
PATIENCE, HELD_OUT = 10, 0.1
BATCH_SIZE, BLOCK = 128, 1024
LEARNING_RATE, PROTOTYPE_RATE, N_STARTS = 2e-3, 1e-2, 5


class PrototypeFit(NamedTuple):
    """States of the cells and profiles of the prototypes.

    Attributes
    ----------
    states
        Nearest prototype of every cell among those of its type, numbered from 0 within the type,
        shape ``(n_cells,)``.
    shares
        Shares of the genes that the prototypes with cells decode to, by type and number, rows sum
        to one, shape ``(n_states, n_genes)``.
    history
        ``elbo``, ``reconstruction_loss``, ``kl_local`` and ``prototype`` per cell by epoch, with
        the endings ``_train`` and ``_validation``.
    """

    states: NDArray
    shares: NDArray
    history: dict[str, pd.DataFrame]


def learn_prototypes(
    counts: sp.csr_matrix,
    labels: pd.Categorical,
    n_states: int,
    *,
    seed: int = 0,
    max_epochs: int | None = None,
    show_progress: bool = True,
) -> PrototypeFit:
    """Train a VAE with prototypes of every type.

    The weight of the divergence rises over the first 400 steps; then the prototypes are placed by
    k-means and join the loss. Training stops when the loss on a tenth of the cells has not
    improved for 10 epochs, and the best state is kept.

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``.
    labels
        Type of every cell; every category has cells.
    n_states
        Most prototypes of a type; one for every 25 cells.
    seed
        Of the networks, the minibatches and the held-out cells.
    max_epochs
        Longest training; `None` means 400, fewer above 20,000 cells.
    show_progress
        Show a bar over the epochs.

    Raises
    ------
    FloatingPointError
        If a term of the loss became NaN or infinite.
    """
    codes = np.asarray(labels.codes, np.int64)
    cells = Cells(counts, {REGISTRY_KEYS.LABELS_KEY: codes[:, None]})
    numbers = [
        np.arange(max(1, min(n_states, n // MIN_CELLS_PER_PROTOTYPE))) for n in np.bincount(codes)
    ]
    kind = np.repeat(np.arange(len(numbers)), [len(own) for own in numbers])
    if max_epochs is None:
        max_epochs = max(1, min(MAX_EPOCHS, CELL_VISITS // len(codes)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = PrototypeModule(_log_mean(counts), torch.from_numpy(kind))
        training = _Training(module, CellTensors(cells), seed, max_epochs)
        training.run(show_progress)
    nearest, shares = training.result()
    return PrototypeFit(
        states=np.concatenate(numbers)[nearest],
        shares=shares[np.unique(nearest)],
        history=training.history(),
    )


class _Training:
    """Epochs, and the best state on held-out cells."""

    def __init__(
        self, module: PrototypeModule, cells: CellTensors, seed: int, max_epochs: int
    ) -> None:
        self.module, self.cells, self.seed = module, cells, seed
        self.rng = np.random.default_rng(seed)
        order = self.rng.permutation(cells.counts.shape[0])
        n_held_out = max(1, round(HELD_OUT * len(order)))
        self.held_out, self.rows = order[:n_held_out], order[n_held_out:]
        self.n_batches = math.ceil(len(self.rows) / BATCH_SIZE)
        self.max_epochs = max_epochs
        self.warmup = min(math.ceil(WARMUP_STEPS / self.n_batches), max_epochs // 2)
        rest = [p for name, p in module.named_parameters() if name != "prototypes"]
        own = {"params": [module.prototypes], "lr": PROTOTYPE_RATE}
        self.optimizer = torch.optim.Adam([{"params": rest}, own], lr=LEARNING_RATE, fused=True)
        self.watch = FiniteWatch()
        self.recorded: dict[str, list[float]] = {}

    def run(self, show_progress: bool) -> None:
        """Train until the loss on the held-out cells does not improve any more."""
        best, waited, state = math.inf, 0, None
        epochs = range(self.max_epochs)
        for epoch in track(epochs, style="tqdm", description="Epochs", disable=not show_progress):
            if epoch == self.warmup:
                self._place_prototypes()
            self._train(epoch)
            loss = self._validate()
            if epoch < self.warmup:
                continue
            waited = 0 if loss < best else waited + 1
            if loss < best:
                best, state = loss, copy.deepcopy(self.module.state_dict())
            if waited == PATIENCE:
                break
        if state is not None:
            self.module.load_state_dict(state)

    def _train(self, epoch: int) -> None:
        self.module.train()
        order, total = self.rng.permutation(self.rows), {}
        for step, rows in enumerate(np.array_split(order, self.n_batches)):
            done = (epoch * self.n_batches + step) / (self.warmup * self.n_batches or 1)
            weights = {"kl_weight": min(1.0, done), "prototype_weight": float(done >= 1)}
            *_, losses = self.module(self.cells.minibatch(rows, len(rows)), loss_kwargs=weights)
            self._check(losses, rows, epoch, step)
            self.optimizer.zero_grad()
            losses.loss.backward()
            self.optimizer.step()
            _add(total, losses, len(rows))
        self._record("train", total, len(order))

    def _check(self, losses: LossOutput, rows: NDArray, epoch: int, step: int) -> None:
        terms = {k: v.mean() for k, v in _terms(losses).items()} | {"loss": losses.loss}
        is_last = step == self.n_batches - 1
        if self.watch.sees(terms, torch.from_numpy(rows), (epoch, step), is_last):
            found = self.watch.found
            raise FloatingPointError(
                f"`{found.term}` of the prototypes became NaN or infinite in epoch "
                f"{found.epoch}, step {found.step}, in a minibatch of the cells in rows "
                f"{found.cells[:3]} and others. Look for cells with extreme counts."
            )

    @torch.no_grad()
    def _validate(self) -> float:
        """Return the whole loss on the held-out cells."""
        self.module.eval()
        total, loss = {}, 0.0
        for rows in self._blocks(self.held_out):
            *_, losses = self.module(self.cells.minibatch(rows, len(rows)))
            loss += float(losses.loss) * len(rows) / len(self.held_out)
            _add(total, losses, len(rows))
        self._record("validation", total, len(self.held_out))
        return loss

    def _record(self, part: str, total: dict[str, float], n: int) -> None:
        total["elbo"] = total["reconstruction_loss"] + total["kl_local"]
        for name, value in total.items():
            self.recorded.setdefault(f"{name}_{part}", []).append(value / n)

    def _blocks(self, rows: NDArray) -> list[NDArray]:
        return np.array_split(rows, -(-len(rows) // BLOCK))

    @torch.no_grad()
    def _place_prototypes(self) -> None:
        """Put the prototypes of every type where its cells are."""
        mean, label = self._means()
        kinds = self.module.prototype_type
        for kind in kinds.unique():
            own = (kinds == kind).nonzero().squeeze(-1)
            means = KMeans(len(own), n_init=N_STARTS, random_state=self.seed)
            means.fit(mean[label.squeeze(-1) == kind].numpy())
            self.module.prototypes[own] = torch.from_numpy(means.cluster_centers_)

    @torch.no_grad()
    def _means(self) -> tuple[Tensor, Tensor]:
        """Return posterior means and labels of all cells."""
        self.module.eval()
        parts = []
        for rows in self._blocks(np.arange(self.cells.counts.shape[0])):
            batch = self.cells[rows]
            parts.append((self.module.posterior_mean(batch), batch[REGISTRY_KEYS.LABELS_KEY]))
        means, labels = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(labels)

    @torch.no_grad()
    def result(self) -> tuple[NDArray, NDArray]:
        """Return the nearest prototype of every cell, and the shares of all prototypes."""
        nearest = self.module.distances(*self._means()).argmin(1)
        shares = self.module.prototype_shares().double()
        return nearest.numpy(), (shares / shares.sum(1, keepdim=True)).numpy()

    def history(self) -> dict[str, pd.DataFrame]:
        """Return every term by epoch."""
        index = pd.RangeIndex(len(self.recorded["elbo_train"]), name="epoch")
        return {name: pd.DataFrame({name: v}, index) for name, v in self.recorded.items()}


def _terms(losses: LossOutput) -> dict[str, Tensor]:
    return {
        "reconstruction_loss": next(iter(losses.reconstruction_loss.values())),
        "kl_local": next(iter(losses.kl_local.values())),
        "prototype": losses.extra_metrics["prototype"],
    }


def _add(total: dict[str, float], losses: LossOutput, n: int) -> None:
    for name, value in _terms(losses).items():
        total[name] = total.get(name, 0.0) + float(value.detach().mean()) * n


def _log_mean(counts: sp.csr_matrix) -> Tensor:
    """Logarithm of the mean share of each gene, half a count added to each."""
    total = np.asarray(counts.sum(0, dtype=np.float64)).ravel() + 0.5
    return torch.from_numpy(np.log(total / total.sum()).astype(np.float32))
