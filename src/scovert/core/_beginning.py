"""What comes before the training of any model."""

from __future__ import annotations

import os

from scvi import settings
from scvi.model.base import BaseModelClass

from scovert.core._arguments import arguments_of
from scovert.core._checks import check_distributed
from scovert.core._registering import check_unchanged, facts_of
from scovert.core.training._checkpoint import Resumable
from scovert.core.training._options import check_options

__all__ = ["begin_training"]


def begin_training(
    model: BaseModelClass,
    checkpoint_dir: str | os.PathLike | None,
    trainer_kwargs: dict,
    plan_kwargs: dict | None,
    **asked: object,
) -> Resumable:
    """Check options and data of a training, and return where its state is kept.

    Parameters
    ----------
    model
        Model to train.
    checkpoint_dir, trainer_kwargs, plan_kwargs
        Arguments of its ``train``.
    **asked
        What else the result depends on: training that was cut off goes on if all agrees.
    """
    own = arguments_of(type(model).train)
    check_options(type(model).__name__, own, trainer_kwargs, plan_kwargs)
    check_unchanged(model, every_value=True)
    check_distributed(trainer_kwargs, settings.seed, checkpoint_dir)
    asked = facts_of(model) | asked | {"plan_kwargs": plan_kwargs}
    return Resumable.open(checkpoint_dir, settings.seed, asked, trainer_kwargs)
