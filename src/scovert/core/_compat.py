"""Every private name of scvi-tools that scovert uses, and the noise it makes, in one place."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature

from lightning.pytorch import Callback, LightningModule
from lightning.pytorch import Trainer as LightningTrainer
from scvi.data._constants import _SCVI_UUID_KEY as SCVI_UUID_KEY
from scvi.train import Trainer, TrainRunner
from scvi.train._callbacks import LoudEarlyStopping

from scovert._settings import settings

__all__ = ["SCVI_UUID_KEY", "TRAINER_OPTIONS", "QuietEnd", "without_scvi_noise"]

GIVEN = {"self", "model", "training_plan", "data_splitter", "kwargs", "trainer_kwargs"}
TRAINER_OPTIONS = tuple(
    dict.fromkeys(
        name
        for cls in (TrainRunner, Trainer, LightningTrainer)  # each hands on what it does not know
        for name in signature(cls.__init__).parameters
        if name not in GIVEN
    )
)
"""Names of what a user can pass to the trainer."""

NOISE = (
    ".*LeafSpec.*",  # Lightning 2.6 calls what torch 2.13 deprecates
    ".*does not have many workers.*",  # minibatches come from memory
    ".*across ranks is zero.*",  # no validation cells, as asked for
    ".*have no `val_dataloader`.*",
    ".*lr scheduler dict contains the key.*",  # the plan with two optimisers steps it itself
)


class QuietEnd(Callback):
    """Keep scvi-tools from printing why training ended early: the history shows it."""

    def on_fit_end(self, trainer: LightningTrainer, pl_module: LightningModule) -> None:
        """Take the reason away before it is printed."""
        for callback in trainer.callbacks:
            if isinstance(callback, LoudEarlyStopping) and not settings.shows_all:
                callback.early_stopping_reason = None


@contextmanager
def without_scvi_noise() -> Iterator[None]:
    """Silence what Lightning says that is not about the user's data or settings.

    Reports of devices and of the end of training are shown if the verbosity is ``"debug"``.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        is_advertisement = "litlogger" in record.getMessage()
        is_report = record.levelno <= logging.INFO
        return not is_advertisement and (settings.shows_all or not is_report)

    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        logger.addFilter(is_wanted)
        try:
            yield
        finally:
            logger.removeFilter(is_wanted)
