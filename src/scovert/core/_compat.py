"""Every private name of scvi-tools that scovert uses, and the noise it makes, in one place."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature

from lightning.pytorch import Trainer as LightningTrainer
from scvi.data._constants import _SCVI_UUID_KEY as SCVI_UUID_KEY
from scvi.train import Trainer, TrainRunner

__all__ = ["SCVI_UUID_KEY", "TRAINER_OPTIONS", "without_scvi_noise"]

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


@contextmanager
def without_scvi_noise(*, is_quiet: bool = False) -> Iterator[None]:
    """Silence what Lightning says that is not about the user's data or settings.

    Parameters
    ----------
    is_quiet
        Leave only warnings: who wants no progress bar wants no reports of devices either.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        is_advertisement = "litlogger" in record.getMessage()
        return not is_advertisement and not (is_quiet and record.levelno <= logging.INFO)

    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with warnings.catch_warnings():
        for message in NOISE:
            warnings.filterwarnings("ignore", message=message)
        logger.addFilter(is_wanted)
        try:
            yield
        finally:
            logger.removeFilter(is_wanted)
