"""Training of prototypes: cells of an annotated reference to states and their profiles."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from sklearn.cluster import KMeans
from torch import Tensor

from scovert.core._counts import in_parts
from scovert.core.dataloaders._cells import CELLS_KEY, Cells, CellTensors
from scovert.core.dataloaders._shuffled import ShuffledData, split_rows
from scovert.core.training._checkpoint import Resumable
from scovert.core.training._plan import Plan
from scovert.core.training._run import Networks, run
from scovert.model.bulk._states import MIN_CELLS_PER_STATE, N_STARTS
from scovert.model.bulk.variants._prototype_module import PrototypeModule

__all__ = ["PrototypeFit", "PrototypePlan", "learn_prototypes"]

MAX_EPOCHS, CELL_VISITS = 400, 8_000_000
"""Most epochs, and most times that cells are seen in all: minutes, whatever their number."""
WARMUP_STEPS = 400
"""Steps over which the weight of the divergence rises, before there are prototypes."""
HELD_OUT = 0.1
"""Share of the cells by whose loss training stops."""
BATCH_SIZE, BLOCK = 128, 1024
"""Cells of a step, and cells at once where nothing is learned."""
LEARNING_RATE, PROTOTYPE_RATE = 2e-3, 1e-2
"""Of Adam, for the networks and for the prototypes, which have to cross the latent space."""


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
        ``elbo``, ``reconstruction_loss``, ``kl_local``, ``prototype`` and ``cell`` per cell by
        epoch, with the endings ``_train`` and ``_validation``, and others as of any training.
    """

    states: NDArray
    shares: NDArray
    history: dict[str, pd.DataFrame]


def learn_prototypes(
    counts: sp.csr_matrix,
    labels: pd.Categorical,
    n_states: int,
    *,
    names: pd.Index | None = None,
    seed: int = 0,
    max_epochs: int | None = None,
    resumable: Resumable | None = None,
    **trainer_kwargs: object,
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
    names
        Names of the cells, for messages.
    seed
        Of the networks, the minibatches and the held-out cells.
    max_epochs
        Longest training; `None` means 400, fewer above 20,000 cells.
    resumable
        Where to write the state of every epoch, and to go on from.
    **trainer_kwargs
        For :class:`scvi.train.Trainer`.

    Raises
    ------
    FloatingPointError
        If a term of the loss or the gradient became NaN or infinite.
    """
    codes = np.asarray(labels.codes, np.int64)
    columns = {REGISTRY_KEYS.LABELS_KEY: codes[:, None], CELLS_KEY: np.arange(len(codes))[:, None]}
    cells = Cells(counts, columns, names=names)
    numbers = [
        np.arange(max(1, min(n_states, n // MIN_CELLS_PER_STATE))) for n in np.bincount(codes)
    ]
    kind = np.repeat(np.arange(len(numbers)), [len(own) for own in numbers])
    if max_epochs is None:
        max_epochs = max(1, min(MAX_EPOCHS, CELL_VISITS // len(codes)))
    rng = np.random.default_rng(seed)
    rows = split_rows(len(cells), HELD_OUT, rng)
    data = ShuffledData(cells, *rows, batch_size=BATCH_SIZE, rng=rng)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        log_mean = torch.from_numpy(cells.log_mean_shares()[0])
        networks = Networks(PrototypeModule(log_mean, torch.from_numpy(kind)))
        plan = PrototypePlan(networks.module, cells, seed, data.n_steps, max_epochs)
        options = {"accelerator": "cpu"} | trainer_kwargs
        run(networks, plan, data, max_epochs, resumable=resumable or Resumable.none(), **options)
    nearest, shares = plan.result()
    return PrototypeFit(
        states=np.concatenate(numbers)[nearest],
        shares=shares[np.unique(nearest)],
        history=networks.history_,
    )


class PrototypePlan(Plan):
    """Prototypes are placed once the divergence has its full weight, and then join the loss.

    Parameters
    ----------
    module
        Networks and prototypes.
    cells
        All cells, in memory.
    seed
        Seed of the k-means that place the prototypes.
    n_steps, max_epochs
        Steps of an epoch, and most epochs.
    """

    monitor = "validation_loss"
    remedy = "Look for cells with extreme counts."

    def __init__(
        self, module: PrototypeModule, cells: Cells, seed: int, n_steps: int, max_epochs: int
    ) -> None:
        self.warmup = min(math.ceil(WARMUP_STEPS / n_steps), max_epochs // 2)
        super().__init__(module, kl_ramp=self.warmup / max_epochs)
        self.cells, self.seed = CellTensors(cells), seed

    def first_full_epoch(self, max_epochs: int) -> int:
        """Return the epoch at whose beginning the prototypes are placed."""
        return self.warmup

    def on_train_epoch_start(self) -> None:
        """Place the prototypes, once."""
        if self.current_epoch == self.warmup:
            self._place_prototypes()

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Set the weights of this step."""
        super().on_train_batch_start(batch, batch_idx)
        self.loss_kwargs["prototype_weight"] = float(self.current_epoch >= self.warmup)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Give the prototypes a rate of their own."""
        rest = [p for name, p in self.module.named_parameters() if name != "prototypes"]
        own = {"params": [self.module.prototypes], "lr": PROTOTYPE_RATE}
        return torch.optim.Adam([{"params": rest}, own], lr=LEARNING_RATE, fused=True)

    @torch.no_grad()
    def _place_prototypes(self) -> None:
        """Put the prototypes of every type where its cells are."""
        mean, label = self.means()
        kinds = self.module.prototype_type
        for kind in kinds.unique():
            own = (kinds == kind).nonzero().squeeze(-1)
            means = KMeans(len(own), n_init=N_STARTS, random_state=self.seed)
            means.fit(mean[label.squeeze(-1) == kind].numpy())
            self.module.prototypes[own] = torch.from_numpy(means.cluster_centers_)
        self.module.train()

    @torch.no_grad()
    def means(self) -> tuple[Tensor, Tensor]:
        """Return posterior means and types of all cells, of a module that is not trained on."""
        self.module.eval()
        parts = []
        for rows in in_parts(np.arange(self.cells.counts.shape[0]), BLOCK):
            batch = self.cells[rows]
            parts.append((self.module.posterior_mean(batch), batch[REGISTRY_KEYS.LABELS_KEY]))
        means, labels = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(labels)

    @torch.no_grad()
    def result(self) -> tuple[NDArray, NDArray]:
        """Return the nearest prototype of every cell, and the shares of all prototypes."""
        nearest = self.module.distances(*self.means()).argmin(1)
        shares = self.module.prototype_shares().double()
        return nearest.numpy(), (shares / shares.sum(1, keepdim=True)).numpy()
