"""Stochastic variational inference of confounders, for more cells than memory can hold."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from torch import Tensor

from scovert.core._counts import in_parts
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.dataloaders._shuffled import ShuffledData
from scovert.core.training._checkpoint import Resumable
from scovert.core.training._plan import Plan
from scovert.core.training._run import Networks, run
from scovert.model.confounder._designed import LOG_SIZE, design_of
from scovert.model.confounder.fit._amortized_module import AmortizedModule
from scovert.model.confounder.glm import (
    CountBlocks,
    Regression,
    fit_regression,
    independent_components,
    start_from_residuals,
)
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["AmortizedFit", "AmortizedPlan", "fit_amortized", "scores_by_network"]

MIN_EPOCHS, MIN_STEPS = 10, 600
"""Of training by default, with any number of cells: the start is a fit already."""

ENCODER_DECAY = 0.1
"""Weight decay of the encoder: otherwise it overfits single cells."""

MAX_START_CELLS = 10_000
"""Cells of the full-batch fit that training starts from, in some seconds."""

BLOCK = 1024
"""Cells that are encoded at once."""


class AmortizedFit(NamedTuple):
    """Result of the fit.

    Attributes
    ----------
    module
        The trained networks.
    scores
        Of continuous confounders scores that are orthogonal to the design and white, of binary
        ones probabilities, shape ``(n_cells, n_latent)``.
    history
        ``train_loss``, the negative evidence bound per cell, and ``gradient_norm_train`` by
        epoch.
    """

    module: AmortizedModule
    scores: NDArray
    history: dict[str, pd.DataFrame]


class AmortizedPlan(Plan):
    """Adam with a rate that falls to 0, so that the coefficients come to rest.

    Weights of the network decay, otherwise it overfits single cells. The parameters are those of
    the module and not of Pyro's global store, in which those of two models would share their
    names.

    Parameters
    ----------
    module
        Module to train.
    n_steps
        Steps of the whole training.
    lr
        Learning rate at the start.
    """

    remedy = (
        "Train with a smaller learning rate, `lr=1e-3`, and look for cells or covariates with "
        "extreme values."
    )

    def __init__(self, module: AmortizedModule, *, n_steps: int, lr: float) -> None:
        super().__init__(module, lr=lr)
        self.n_steps = n_steps

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | int]]:
        """Return the negative evidence bound of a minibatch, which Pyro computes."""
        loss, n_cells = self.module.loss(batch), len(batch[REGISTRY_KEYS.X_KEY])
        return loss, {"loss": loss.detach() * n_cells, "n_cells": n_cells}

    def configure_optimizers(self) -> dict:
        """Return the optimiser and its schedule."""
        named = list(self.module.named_parameters())
        encoder = [p for name, p in named if name.startswith("encoder.")]
        rest = [p for name, p in named if not name.startswith("encoder.")]
        groups = [{"params": encoder, "weight_decay": ENCODER_DECAY}, {"params": rest}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=0.0, fused=True)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.n_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def fit_amortized(
    cells: Cells,
    *,
    n_latent: int,
    z_type: Literal["continuous", "binary"],
    seed: int = 0,
    max_epochs: int | None = None,
    batch_size: int = 128,
    lr: float = 1e-2,
    resumable: Resumable | None = None,
    **trainer_kwargs: object,
) -> AmortizedFit:
    """Fit the confounders in minibatches.

    Starts at the regression of some of the cells on their residuals' singular vectors, of binary
    confounders on the independent components of these: from random loadings one of two binary
    confounders is often lost.

    Parameters
    ----------
    cells
        Counts, covariates on a common scale, and treatment, from
        :func:`~scovert.model.confounder._designed.designed_cells`.
    n_latent
        Number of confounders.
    z_type
        ``"continuous"`` or ``"binary"``.
    seed
        Seed of the start, the networks and the minibatches.
    max_epochs
        Passes over the cells; `None` means 10, or as many as make 600 steps.
    batch_size
        Cells in a minibatch.
    lr
        Learning rate at the start; it falls to 0.
    resumable
        Where to write the state of every epoch, and to go on from.
    **trainer_kwargs
        For :class:`scvi.train.Trainer`.

    Raises
    ------
    FloatingPointError
        If the loss or the gradient became NaN or infinite.
    """
    design = design_of(cells)
    if max_epochs is None:
        max_epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS * batch_size / len(design)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = AmortizedModule(cells.n_genes, design.shape[1], n_latent, z_type=z_type)
        start = _start(cells, design, module, seed)
        module.warm_start(start.coefficients, start.dispersion)
        data = ShuffledData(cells, np.arange(len(cells)), np.empty(0, int), batch_size=batch_size)
        plan = AmortizedPlan(module, n_steps=max_epochs * data.n_steps, lr=lr)
        networks, resumable = Networks(module), resumable or Resumable.none()
        run(networks, plan, data, max_epochs, resumable=resumable, **trainer_kwargs)
    scores = scores_by_network(module, cells)
    if not module.is_binary:
        module.make_orthogonal(scores, design)
        scores = scores_by_network(module, cells)
    return AmortizedFit(module, scores, networks.history_)


def scores_by_network(module: AmortizedModule | AlternatingModule, cells: Cells) -> NDArray:
    """Return the confounders of cells, trained on or new, shape ``(n_cells, n_latent)``."""
    tensors, n_cells = CellTensors(cells, module.device), cells.counts.shape[0]
    blocks = in_parts(np.arange(n_cells), BLOCK)
    return torch.cat([module.scores(tensors[rows]) for rows in blocks]).double().cpu().numpy()


def _start(cells: Cells, design: NDArray, module: AmortizedModule, seed: int) -> Regression:
    """Regress the counts of some cells on their design and first scores."""
    rows = np.random.default_rng(seed).permutation(len(design))[:MAX_START_CELLS]
    blocks = CountBlocks(cells.counts[rows], cells.columns[LOG_SIZE][rows, 0])
    scores = start_from_residuals(blocks, design[rows], module.n_latent, seed).scores
    if module.is_binary:
        scores = np.where(independent_components(scores) > 0, 0.5, -0.5)
    return fit_regression(blocks, np.hstack([design[rows], scores]), tolerance=0.1)
