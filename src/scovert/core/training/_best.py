"""Keeping the best state of a fit, and the last one that was good."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import lightning.pytorch as pl
from torch import Tensor

__all__ = ["BestState"]


class BestState(pl.Callback):
    """Keep the weights of the best epoch in memory and restore them when training ends.

    Training that breaks off before there is a best epoch ends with the weights of the beginning of
    that epoch.

    Parameters
    ----------
    monitor
        Logged quantity to minimise.
    first_epoch
        Epoch from which states count; earlier ones belong to another objective.
    on_best
        Called after each epoch that is the best so far.
    """

    def __init__(self, monitor: str, first_epoch: int, on_best: Callable[[], None]) -> None:
        self.monitor = monitor
        self.first_epoch = first_epoch
        self.on_best = on_best
        self.best = math.inf
        self.best_epoch: int | None = None
        self.state: dict[str, Tensor] | None = None
        self.epoch_start: dict[str, Tensor] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the state at the beginning of the epoch."""
        self.epoch_start = copy.deepcopy(pl_module.module.state_dict())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the state of this epoch if it is the best so far."""
        value = float(trainer.callback_metrics.get(self.monitor, math.inf))
        if trainer.current_epoch >= self.first_epoch and value < self.best:
            self.best, self.best_epoch = value, trainer.current_epoch
            self.state = copy.deepcopy(pl_module.module.state_dict())
            self.on_best()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the best state, or where training broke off the last good one."""
        is_broken = pl_module.watch.found is not None
        state = self.epoch_start if self.state is None and is_broken else self.state
        if state is not None:
            pl_module.module.load_state_dict(state)
