"""Keeping the best state of a fit."""

from __future__ import annotations

import copy
import math

import lightning.pytorch as pl

__all__ = ["BestState"]


class BestState(pl.Callback):
    """Keep the weights of the best epoch in memory and restore them when training ends.

    Parameters
    ----------
    monitor
        Logged quantity to minimise.
    first_epoch
        Epoch from which states count; earlier ones belong to another objective.
    """

    def __init__(self, monitor: str, first_epoch: int) -> None:
        self.monitor = monitor
        self.first_epoch = first_epoch
        self.best = math.inf
        self.best_epoch: int | None = None
        self._state: dict | None = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the state of this epoch if it is the best so far."""
        value = float(trainer.callback_metrics.get(self.monitor, math.inf))
        if trainer.current_epoch >= self.first_epoch and value < self.best:
            self.best, self.best_epoch = value, trainer.current_epoch
            self._state = copy.deepcopy(pl_module.module.state_dict())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the best state."""
        if self._state is not None:
            pl_module.module.load_state_dict(self._state)
