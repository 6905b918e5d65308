"""Running a training plan with scovert's defaults."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import lightning.pytorch as pl
import pandas as pd
import torch
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner
from torch import nn

from scovert.core._checks import caller_level
from scovert.core._compat import QuietEnd, without_scvi_noise
from scovert.core.training._bar import EpochBar
from scovert.core.training._best import BestState
from scovert.core.training._charts import Charts
from scovert.core.training._checkpoint import Checkpoint, Resumable
from scovert.core.training._plan import Plan

__all__ = ["Networks", "run"]

PATIENCE = 10
"""Epochs without an improvement after which training ends."""


class Networks:
    """What `run` needs of a model, for networks that are a part of one.

    Parameters
    ----------
    module
        The networks.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.history_: dict[str, pd.DataFrame] = {}
        self.is_trained_ = False

    def to_device(self, device: torch.device) -> None:
        """Move the networks."""
        self.module.to(device)


def run(
    model: BaseModelClass | Networks,
    plan: Plan,
    data: pl.LightningDataModule,
    max_epochs: int,
    *,
    resumable: Resumable,
    early_stopping: bool = True,
    on_best: Callable[[dict[str, pd.DataFrame]], None] = lambda _: None,
    **trainer_kwargs: object,
) -> None:
    """Train with early stopping and the best state restored, once every weight is at its full.

    Parameters
    ----------
    model
        Model to train; it receives the history.
    plan, data
        Training plan and minibatches, with the numbers of cells as ``n_train`` and ``n_val``, and
        their names as ``names``, if they have any.
    max_epochs
        Longest training.
    resumable
        Where to write the state of every epoch, and to go on from.
    early_stopping
        Stop when what the plan watches of the validation cells has not improved for 10 epochs; off
        without validation cells.
    on_best
        Called with the history after each epoch that is the best so far.
    **trainer_kwargs
        For :class:`scvi.train.TrainRunner`; they go before the defaults.

    Raises
    ------
    FloatingPointError
        If a term of the loss or the gradient became NaN or infinite. The model then has the best
        state, or that of the beginning of the epoch.
    """
    first_epoch = plan.first_full_epoch(max_epochs)
    defaults = {
        "early_stopping": early_stopping and data.n_val > 0,
        "early_stopping_monitor": plan.monitor,
        "early_stopping_patience": PATIENCE,
        "early_stopping_warmup_epochs": first_epoch,
        "check_val_every_n_epoch": 1,
        "log_every_n_steps": 1,
        "simple_progress_bar": False,  # scvi-tools' own, on stdout
    }
    before = dict(model.history_) if model.is_trained_ else {}
    best = BestState(plan.monitor, first_epoch, partial(_tell, on_best, before, plan))
    callbacks = [*trainer_kwargs.pop("callbacks", []), best, Charts(), QuietEnd()]
    if _needs_bar(callbacks, trainer_kwargs):
        callbacks.append(EpochBar())
    if resumable.folder is not None:
        callbacks.append(Checkpoint(resumable, best))
    was_trained = model.is_trained_
    model.module.train()
    options = defaults | trainer_kwargs
    with without_scvi_noise():
        runner = TrainRunner(model, plan, data, max_epochs, callbacks=callbacks, **options)
        with _stopping_on_interrupt(runner.trainer, plan, best):
            runner()
    model.history_ = _history(before, plan.recorded) if runner.trainer.is_global_zero else {}
    if plan.watch.found is not None:
        model.is_trained_ = was_trained or best.state is not None or plan.watch.found.epoch > 0
        raise _error(plan, best, data.names)


def _tell(
    on_best: Callable[[dict[str, pd.DataFrame]], None], before: dict[str, pd.DataFrame], plan: Plan
) -> None:
    on_best(_history(before, plan.recorded))


def _needs_bar(callbacks: list[pl.Callback], trainer_kwargs: dict[str, object]) -> bool:
    """Whether progress is to be shown, and not by a bar that was chosen."""
    is_chosen = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks)
    is_wanted = trainer_kwargs.get("enable_progress_bar", True)
    return bool(is_wanted) and not is_chosen and "simple_progress_bar" not in trainer_kwargs


def _history(
    before: dict[str, pd.DataFrame], recorded: dict[str, dict[int, float]]
) -> dict[str, pd.DataFrame]:
    """Frames by epoch, counted on from those of training before."""
    start = max((len(frame) for frame in before.values()), default=0)
    history = dict(before)
    for name, values in recorded.items():
        index = pd.Index([start + epoch for epoch in values], name="epoch")
        frame = pd.DataFrame({name: list(values.values())}, index=index)
        history[name] = pd.concat([before[name], frame]) if name in before else frame
    return history


@contextmanager
def _stopping_on_interrupt(trainer: pl.Trainer, plan: Plan, best: BestState) -> Iterator[None]:
    """Let the first Ctrl-C end training after the step; a second one breaks it off."""
    is_alone = trainer.world_size == 1
    if threading.current_thread() is not threading.main_thread() or not is_alone:
        yield
        return
    was_interrupted = False

    def stop(*_: object) -> None:
        nonlocal was_interrupted
        was_interrupted = True
        trainer.should_stop = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if was_interrupted:
        warnings.warn(
            f"Training was interrupted in epoch {plan.last_epoch}, and the model "
            f"has {_state(best)}.",
            UserWarning,
            stacklevel=caller_level(),
        )


def _state(best: BestState) -> str:
    if best.best_epoch is None:
        return "the state in which it stopped: no epoch counted as the best yet"
    return f"the best state, of epoch {best.best_epoch}"


def _error(plan: Plan, best: BestState, names: pd.Index | None) -> FloatingPointError:
    found = plan.watch.found
    kept = f"the beginning of epoch {found.epoch}" if best.state is None else "its best epoch"
    cells = [str(i if names is None else names[i]) for i in found.cells]
    of_cells = ""
    if cells:
        of_cells = (
            f", in a minibatch of {len(cells)} cells such as {', '.join(map(repr, cells[:3]))} "
            "(all of them: `error.cells`)"
        )
    error = FloatingPointError(
        f"`{found.term}` became NaN or infinite in epoch {found.epoch}, step {found.step}"
        f"{of_cells}. Training has stopped, and the model has its state of {kept}. {plan.remedy}"
    )
    error.cells = cells
    return error
