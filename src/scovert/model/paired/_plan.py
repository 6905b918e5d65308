"""The training plan for each way to align."""

from __future__ import annotations

import numpy as np

from scovert.core._arguments import check_known
from scovert.core._checks import check_choice, check_number
from scovert.core.training._plan import ACCEPTED
from scovert.model.paired._alignment import AlignedPlan
from scovert.model.paired._module import PairedModule
from scovert.model.paired.variants._adversarial import AdversarialPlan

__all__ = ["make_plan"]

ANCHOR_RAMP = 0.2
"""Share of training over which the pull of anchors rises: positions have to settle first."""
OF_ADVERSARY = ("adversarial_weight", "adversarial_start", "adversarial_ramp")
RANGES = {
    "lr": (0, np.inf),
    "weight_decay": (0, np.inf),
    "kl_ramp": (0, 1),
    "max_kl_weight": (0, np.inf),
    "min_kl_weight": (0, np.inf),
    "adversarial_weight": (0, np.inf),
    "adversarial_start": (0, 1),
    "adversarial_ramp": (0, 1),
}
"""Least and largest values of options of a plan."""
FROM = {"gradient_clip_val": 0, "early_stopping_patience": 1, "early_stopping_min_delta": 0}
"""Least values of options of the trainer."""


def make_plan(
    module: PairedModule,
    anchor_weights: dict[str, float],
    plan_kwargs: dict,
    trainer_kwargs: dict,
) -> AlignedPlan:
    """Make the plan for a module's alignment.

    Parameters
    ----------
    module
        Module to train.
    anchor_weights
        Full weights of what anchors add to the loss.
    plan_kwargs
        Options of a user; those for the adversary are taken out.
    trainer_kwargs
        Options of the trainer; clipping is taken out where the plan does it.

    Returns
    -------
    The plan.

    Raises
    ------
    TypeError
        For options that are not known, such as scvi-tools' warm-up in epochs, which `kl_ramp`
        replaces.
    """
    _check_options(plan_kwargs, module.alignment)
    for name, low in FROM.items():
        if trainer_kwargs.get(name) is not None:
            check_number(name, trainer_kwargs[name], low)
    if module.alignment == "anchors":
        return AlignedPlan(
            module, weights=anchor_weights, start=0.0, ramp=ANCHOR_RAMP, **plan_kwargs
        )
    if module.alignment == "none":
        return AlignedPlan(module, weights={}, start=0.0, ramp=0.0, **plan_kwargs)
    schedule = {
        "weights": {"alignment_weight": plan_kwargs.pop("adversarial_weight", 30.0)},
        "start": plan_kwargs.pop("adversarial_start", 0.3),
        "ramp": plan_kwargs.pop("adversarial_ramp", 0.3),
    }
    if module.alignment == "grl":
        return AlignedPlan(module, **schedule, **plan_kwargs)
    clipping = ("gradient_clip_val", "gradient_clip_algorithm")
    plan_kwargs |= {name: trainer_kwargs.pop(name, None) for name in clipping}
    return AdversarialPlan(module, **schedule, **plan_kwargs)


def _check_options(options: dict, alignment: str) -> None:
    known = [*ACCEPTED, *(OF_ADVERSARY if alignment in ("adversarial", "grl") else ())]
    check_known("plan_kwargs", options, known + ["d_steps"] * (alignment == "adversarial"))
    check_choice("optimizer", options.get("optimizer", "Adam"), ("Adam", "AdamW", "Custom"))
    if "d_steps" in options:
        check_number("d_steps", options["d_steps"], 1, whole=True)
    for name, (low, high) in RANGES.items():
        if name in options:
            check_number(name, options[name], low, high)
