"""Running a training plan with scovert's defaults."""

from __future__ import annotations

import lightning.pytorch as pl
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner

from scovert._compat import without_host_noise
from scovert.train._aligned import AlignedPlan
from scovert.train._best import BestState

__all__ = ["run"]

MONITOR = "elbo_validation"
PATIENCE = 10


def run(
    model: BaseModelClass,
    plan: AlignedPlan,
    data: pl.LightningDataModule,
    max_epochs: int,
    *,
    early_stopping: bool,
    **trainer_kwargs: object,
) -> None:
    """Train with early stopping and the best state restored, once every weight is at its full.

    Parameters
    ----------
    model
        Model to train; it receives the history.
    plan, data
        Training plan and minibatches, with the numbers of cells as ``n_train`` and ``n_val``.
    max_epochs
        Longest training.
    early_stopping
        Stop when the validation loss has not improved for 10 epochs; off without validation cells.
    **trainer_kwargs
        For :class:`scvi.train.TrainRunner`; they go before the defaults.
    """
    first_epoch = plan.first_full_epoch(max_epochs)
    defaults = {
        "early_stopping": early_stopping and data.n_val > 0,
        "early_stopping_monitor": MONITOR,
        "early_stopping_patience": PATIENCE,
        "early_stopping_warmup_epochs": first_epoch,
        "check_val_every_n_epoch": 1,
        "log_every_n_steps": 1,
    }
    callbacks = [*trainer_kwargs.pop("callbacks", []), BestState(MONITOR, first_epoch)]
    options = defaults | trainer_kwargs
    model.module.train()
    with without_host_noise():
        TrainRunner(model, plan, data, max_epochs, callbacks=callbacks, **options)()
