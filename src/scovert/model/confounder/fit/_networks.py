"""The solvers that train networks: how they are run, and how their networks are found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass
from torch import nn

from scovert.core._arguments import check_known
from scovert.core._checks import check_choice, check_number
from scovert.core._compat import TRAINER_OPTIONS
from scovert.core._registering import facts_of
from scovert.core.dataloaders._cells import Cells
from scovert.core.training._checkpoint import Resumable
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._designed import designed_cells
from scovert.model.confounder._module import ConfounderModule
from scovert.model.confounder.fit._amortized import AmortizedFit, fit_amortized
from scovert.model.confounder.fit._amortized_module import AmortizedModule
from scovert.model.confounder.fit._full_batch import MAX_BITS, FullBatchFit, deviance_frame
from scovert.model.confounder.glm import fit_regression
from scovert.model.confounder.variants._alternating import (
    AlternatingFit,
    AlternatingOptions,
    fit_alternating,
)
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["NetworkTraining", "combinations", "designed", "restored_network"]

OF_ALTERNATING = ("scale", "relaxation", "dbpr_weight")
CHOICES = {"scale": ("mean", "joint"), "relaxation": ("straight_through", "gumbel")}
SIZES = {"amortized": 128, "alternating": 32}
ROUNDS = 40


class NetworkTraining(NamedTuple):
    """What a solver that trains a network is asked to do.

    Attributes
    ----------
    solver
        ``"amortized"`` or ``"alternating"``.
    max_epochs
        Passes over the cells, or rounds of the generator; `None` leaves it to the solver.
    batch_size
        Cells in a minibatch; `None` leaves it to the solver.
    show_progress
        Show progress.
    options
        Options of the solver.
    """

    solver: Literal["amortized", "alternating"]
    max_epochs: int | None
    batch_size: int | None
    show_progress: bool
    options: dict[str, object]

    def check(self, of_all: Sequence[str]) -> None:
        """Refuse options that neither the solver takes nor, as those of all do, ``train``."""
        own = ("lr",) if self.solver == "amortized" else OF_ALTERNATING
        known = (*own, "checkpoint_dir", *of_all)
        check_known(f"train(solver={self.solver!r})", self.options, known, TRAINER_OPTIONS)
        for name in ("lr", "dbpr_weight"):
            check_number(name, self.options.get(name, 1.0), 0)
        for name in CHOICES.keys() & self.options.keys():
            check_choice(name, self.options[name], CHOICES[name])

    def resumable(self, model: BaseModelClass, seed: int) -> Resumable:
        """Look what is in the folder for the state of training, if there is one."""
        own = {k: self.options[k] for k in ("lr", *OF_ALTERNATING) if k in self.options}
        sizes = {"max_epochs": self.max_epochs, "batch_size": self.batch_size}
        asked = facts_of(model) | {"solver": self.solver} | sizes | own
        return Resumable.open(self.options.get("checkpoint_dir"), seed, asked, self.options)

    def run(
        self,
        full_batch: FullBatchFit,
        fitted: NDArray,
        n_latent: int | Literal["auto"],
        z_type: Literal["continuous", "binary"],
        *,
        names: pd.Index,
        resumable: Resumable,
    ) -> tuple[dict[str, NDArray | None], dict[str, pd.DataFrame], nn.Module | None]:
        """Return the tables, the history, and the network.

        Parameters
        ----------
        full_batch
            The full-batch solver, which counts the confounders and regresses on them.
        fitted
            Genes that are fitted, shape ``(n_genes,)``.
        n_latent, z_type
            As in the model.
        names
            Names of the cells, for messages.
        resumable
            Where to write the state of every epoch, and to go on from.
        """
        n_latent, scree, _ = full_batch.count(n_latent)
        if n_latent == 0:
            tables, deviance = full_batch.run(0, z_type)
            history = {"deviance": deviance_frame(deviance)}
            return tables | {"scree": scree}, history, None
        n_latent = min(n_latent, MAX_BITS) if z_type == "binary" else n_latent
        cells = replace(designed(full_batch.cells, fitted), names=names)
        fit = self._fit(full_batch, cells, n_latent, z_type, resumable)
        columns = np.hstack([full_batch.cells.design, fit.scores])
        has_states = self.solver == "amortized" and z_type == "binary"
        states = combinations(fit.scores) if has_states else None
        regression = fit_regression(full_batch.blocks, columns)
        return full_batch.tables(regression, fit.scores, states, scree), fit.history, fit.module

    def _fit(
        self,
        full_batch: FullBatchFit,
        cells: Cells,
        n_latent: int,
        z_type: str,
        resumable: Resumable,
    ) -> AmortizedFit | AlternatingFit:
        batch_size, device = self.batch_size or SIZES[self.solver], full_batch.blocks.device
        options = {k: v for k, v in self.options.items() if k != "checkpoint_dir"} | {
            "n_latent": n_latent,
            "seed": full_batch.seed,
            "resumable": resumable,
            "accelerator": "gpu" if device.type == "cuda" else "cpu",
            "enable_progress_bar": self.show_progress,
        }
        if self.solver == "amortized":
            sizes = {"max_epochs": self.max_epochs, "batch_size": batch_size}
            return fit_amortized(cells, z_type=z_type, **sizes, **options)
        own = {name: options.pop(name) for name in OF_ALTERNATING if name in options}
        n_rounds = self.max_epochs or ROUNDS
        judged = AlternatingOptions(z_type=z_type, n_rounds=n_rounds, batch_size=batch_size, **own)
        start = fit_regression(full_batch.blocks, full_batch.cells.design)
        return fit_alternating(cells, start, options=judged, **options)


def designed(cells: TreatmentData, fitted: NDArray) -> Cells:
    """Return cells as minibatches are made of them, with the genes that are fitted."""
    n_arms = cells.n_levels - 1
    return designed_cells(cells.counts[:, fitted], cells.design, n_arms, np.log(cells.size))


def combinations(probabilities: NDArray) -> NDArray:
    """Return the probability of every combination of independent bits.

    Parameters
    ----------
    probabilities
        Probability of every bit, shape ``(n_cells, n_bits)``.

    Returns
    -------
    Array of shape ``(n_cells, 2**n_bits)``; bit ``m`` of combination ``s`` is ``s >> m & 1``.
    """
    n_bits = probabilities.shape[1]
    is_one = (np.arange(2**n_bits)[:, None] >> np.arange(n_bits) & 1).astype(bool)
    each = np.where(is_one, probabilities[:, None], 1 - probabilities[:, None])
    return each.prod(axis=2)


def restored_network(
    module: ConfounderModule, solver: str | None, z_type: Literal["continuous", "binary"]
) -> AmortizedModule | AlternatingModule | None:
    """Return the network whose weights a module keeps, if any.

    Parameters
    ----------
    module
        The tables of a fit.
    solver
        Solver of the fit.
    z_type
        Kind of confounders.
    """
    state = module.network_state
    if not state:
        return None
    n_latent = module.scores.shape[1]
    if solver == "amortized":
        n_columns, n_genes = state["coefficients"].shape
        with torch.random.fork_rng():
            network = AmortizedModule(n_genes, n_columns, n_latent, z_type=z_type)
    else:
        n_arms, n_inputs = state["treatment_head.weight"].shape
        n_genes = len(state["log_theta"])
        with torch.random.fork_rng():
            network = AlternatingModule(
                n_genes, n_inputs - n_latent, n_arms, n_latent, z_type=z_type
            )
    network.load_state_dict(state)
    return network.to(module.device).eval()
