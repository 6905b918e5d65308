"""The solvers of ``train``: what each is asked to do, and what it returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._arguments import check_known
from scovert.core._checks import check_choice, check_number
from scovert.core._compat import TRAINER_OPTIONS
from scovert.core._registering import facts_of
from scovert.core.dataloaders._cells import Cells
from scovert.core.training._checkpoint import Resumable
from scovert.model.confounder._checks import MAX_BINARY, check_latents
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._designed import designed_cells
from scovert.model.confounder._fitted import Fitted
from scovert.model.confounder._tables import MIN_COUNTS
from scovert.model.confounder.fit._amortized import AmortizedFit, fit_amortized
from scovert.model.confounder.fit._amortized_module import AmortizedModule
from scovert.model.confounder.fit._full_batch import FullBatchFit, deviance_frame
from scovert.model.confounder.glm import fit_regression
from scovert.model.confounder.variants._alternating import (
    AlternatingFit,
    AlternatingOptions,
    fit_alternating,
)
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["Solution", "Solver", "combinations", "designed"]

OPTIONS = {
    "full_batch": (),
    "amortized": ("lr", "batch_size"),
    "alternating": ("scale", "dbpr_weight", "batch_size"),
}
"""Options of every solver on which the result depends."""

OF_ALL = ("solver", "max_epochs", "accelerator", "enable_progress_bar")
"""Arguments of ``train`` that are no solver's."""

BATCH_SIZES = {"amortized": 128, "alternating": 32}
"""Cells in a minibatch: scvi-tools' default, and that of the first generator."""

MAX_ROUNDS = 100
"""Rounds of the full batch after which it ends; those of the benchmarks converge in 3 to 50."""

ROUNDS = 40
"""Rounds of the generator by default, each an epoch."""


class Solution(NamedTuple):
    """A fit, its history, and the network that was trained, if any."""

    fitted: Fitted
    history: dict[str, pd.DataFrame]
    network: AmortizedModule | AlternatingModule | None = None


class Solver(NamedTuple):
    """How the confounders are inferred.

    Attributes
    ----------
    name
        ``"full_batch"``, ``"amortized"`` or ``"alternating"``.
    max_epochs
        Rounds, or passes over the cells; `None` leaves it to the solver.
    show_progress
        Show progress.
    options
        Options of the solver.
    """

    name: Literal["full_batch", "amortized", "alternating"]
    max_epochs: int | None
    show_progress: bool
    options: dict[str, object]

    def check(self) -> None:
        """Refuse a solver, and options, that there are not."""
        check_choice("solver", self.name, tuple(OPTIONS))
        more = () if self.name == "full_batch" else TRAINER_OPTIONS
        folder = ("checkpoint_dir",) if more else ()
        known = (*OPTIONS[self.name], *folder, *OF_ALL)
        check_known(f"train(solver={self.name!r})", self.options, known, more)
        for name, value in (("max_epochs", self.max_epochs), *self.options.items()):
            if name in ("max_epochs", "batch_size") and value is not None:
                check_number(name, value, 1, whole=True)
            elif name in ("lr", "dbpr_weight"):
                check_number(name, value, 0)
            elif name == "scale":
                check_choice(name, value, ("mean", "joint"))

    def resumable(self, model: BaseModelClass, seed: int) -> Resumable:
        """Look what is in the folder for the state of training, if there is one."""
        own = {k: v for k, v in self.options.items() if k in OPTIONS[self.name]}
        asked = {"solver": self.name, "max_epochs": self.max_epochs} | own
        if "checkpoint_dir" not in self.options:
            return Resumable.none(seed)
        folder = self.options["checkpoint_dir"]
        return Resumable.open(folder, seed, facts_of(model) | asked, self.options)

    def run(
        self,
        cells: TreatmentData,
        n_latent: int | Literal["auto"],
        z_type: Literal["continuous", "binary"],
        *,
        names: pd.Index,
        device: torch.device,
        resumable: Resumable,
    ) -> Solution:
        """Fit the genes that have counts enough.

        Parameters
        ----------
        cells
            The cells.
        n_latent, z_type
            As in the model.
        names
            Names of the cells, for messages.
        device
            Where to compute.
        resumable
            Seed of all that is drawn, and where to write the state of every epoch of a network
            and to go on from.
        """
        is_fitted = cells.totals().sum(0) >= MIN_COUNTS
        if not is_fitted.any():
            raise ValueError(f"No gene has {MIN_COUNTS} counts or more. Pass more cells or genes.")
        check_latents(n_latent, z_type, int(is_fitted.sum()) // 3)
        blocks, max_rounds = cells.blocks(is_fitted, device), self.max_epochs or MAX_ROUNDS
        full_batch = FullBatchFit(blocks, cells, resumable.seed, max_rounds, self.show_progress)
        if self.name == "full_batch":
            return _history_of(*full_batch.run(n_latent, z_type))
        counts = replace(designed(cells, is_fitted), names=names)
        return self._with_network(full_batch, counts, n_latent, z_type, resumable)

    def _with_network(
        self,
        full_batch: FullBatchFit,
        cells: Cells,
        n_latent: int | Literal["auto"],
        z_type: Literal["continuous", "binary"],
        resumable: Resumable,
    ) -> Solution:
        """Let a network infer confounders, as many as the full batch has, and regress on them."""
        n_latent, scree, _ = full_batch.count(n_latent)
        if n_latent == 0:
            fitted, deviance = full_batch.run(0, z_type)
            return _history_of(replace(fitted, scree=scree), deviance)
        n_latent = min(n_latent, MAX_BINARY) if z_type == "binary" else n_latent
        fit = self._train(full_batch, cells, n_latent, z_type, resumable)
        columns = np.hstack([full_batch.cells.design, fit.scores])
        has_states = self.name == "amortized" and z_type == "binary"
        states = combinations(fit.scores) if has_states else None
        regression = fit_regression(full_batch.blocks, columns)
        fitted = full_batch.fitted(regression, fit.scores, states, scree)
        return Solution(fitted, fit.history, fit.module.eval())

    def _train(
        self,
        full_batch: FullBatchFit,
        cells: Cells,
        n_latent: int,
        z_type: Literal["continuous", "binary"],
        resumable: Resumable,
    ) -> AmortizedFit | AlternatingFit:
        options = {
            "n_latent": n_latent,
            "seed": full_batch.seed,
            "resumable": resumable,
            "accelerator": "gpu" if full_batch.blocks.device.type == "cuda" else "cpu",
            "enable_progress_bar": self.show_progress,
        }
        own = {k: v for k, v in self.options.items() if k in OPTIONS[self.name]}
        own["batch_size"] = own.get("batch_size") or BATCH_SIZES[self.name]
        kept_elsewhere = {*OPTIONS[self.name], "checkpoint_dir"}
        options |= {k: v for k, v in self.options.items() if k not in kept_elsewhere}
        if self.name == "amortized":
            return fit_amortized(
                cells, z_type=z_type, max_epochs=self.max_epochs, **own, **options
            )
        judged = AlternatingOptions(z_type, n_rounds=self.max_epochs or ROUNDS, **own)
        start = fit_regression(full_batch.blocks, full_batch.cells.design)
        return fit_alternating(cells, start, options=judged, **options)


def _history_of(fitted: Fitted, deviance: NDArray) -> Solution:
    return Solution(fitted, {"deviance": deviance_frame(deviance)})


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
