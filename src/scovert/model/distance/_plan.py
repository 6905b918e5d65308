"""Training plan of the network."""

from __future__ import annotations

import math

from torch import Tensor

from scovert.core._arguments import check_known
from scovert.core._checks import check_number
from scovert.core.training._plan import ACCEPTED, Plan
from scovert.model.distance._data import SampleData
from scovert.model.distance._module import DistanceModule

__all__ = ["GRADIENT_NORM", "StressPlan", "default_epochs", "make_plan", "one_cycle"]

LEARNING_RATE, EPS, WEIGHT_DECAY = 1e-3, 1e-8, 1e-4
"""Of AdamW; scvi-tools takes 0.01 for `eps`, which slows parameters with small gradients."""
RISE, FIRST_RATE, LAST_RATE = 0.1, 0.04, 4e-6
"""Of the learning rate: share of training over which it rises, and the parts of it at the start
and at the end, as in torch's one-cycle policy."""
GRADIENT_NORM = 1.0
"""Norm at which the gradient is clipped."""
STEPS = {100: 300, 300: 800, math.inf: 1500}
"""Steps of training for cohorts with fewer samples than this."""


class StressPlan(Plan):
    """AdamW with a learning rate that rises and falls once.

    Parameters
    ----------
    module
        Module to train.
    **kwargs
        For :class:`~scovert.core.training._plan.Plan`.
    """

    remedy = (
        "Train with a smaller learning rate, `plan_kwargs={'lr': 1e-4}`, and look for samples "
        "with extreme counts."
    )

    def __init__(self, module: DistanceModule, **kwargs: object) -> None:
        own = {"optimizer": "AdamW", "lr": LEARNING_RATE, "eps": EPS, "weight_decay": WEIGHT_DECAY}
        super().__init__(module, **own | {"kl_ramp": 0.0} | kwargs)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Set the learning rate of this step."""
        super().on_train_batch_start(batch, batch_idx)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.lr * one_cycle(self.progress)


def one_cycle(progress: float) -> float:
    """Return the factor of the learning rate: a rise and a longer fall along cosines."""
    if progress < RISE:
        start, end, part = FIRST_RATE, 1.0, progress / RISE
    else:
        start, end, part = 1.0, LAST_RATE, (progress - RISE) / (1 - RISE)
    return end + (start - end) * (1 + math.cos(math.pi * min(part, 1.0))) / 2


def make_plan(module: DistanceModule, plan_kwargs: dict) -> StressPlan:
    """Make the plan from the options of a user.

    Raises
    ------
    TypeError
        For options that are not known.
    """
    known = [name for name in ACCEPTED if "kl" not in name]
    check_known("plan_kwargs", plan_kwargs, known)
    for name in ("lr", "weight_decay"):
        if name in plan_kwargs:
            check_number(name, plan_kwargs[name], 0)
    return StressPlan(module, **plan_kwargs)


def default_epochs(data: SampleData) -> int:
    """Return the epochs that the steps take."""
    steps = next(steps for size, steps in STEPS.items() if data.n_train < size)
    return math.ceil(steps / data.n_steps)
