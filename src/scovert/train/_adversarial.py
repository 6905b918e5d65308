"""The plan with two optimisers, and the choice of a plan."""

from __future__ import annotations

import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from scvi.train import TrainingPlan
from torch import Tensor

from scovert._arguments import check_known
from scovert._validation import check_choice, check_number
from scovert.module import PairedModule
from scovert.train._aligned import (
    ACCEPTED,
    DISCRIMINATOR_SETTINGS,
    AlignedPlan,
    split_parameters,
    totals,
)

__all__ = ["AdversarialPlan", "make_plan"]

ANCHOR_RAMP = 0.2
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


class AdversarialPlan(AlignedPlan):
    """Two optimisers in turn: the discriminator on detached means, then all the rest.

    Parameters
    ----------
    module
        Module with a discriminator, see :class:`AlignedPlan`.
    d_steps
        Steps of the discriminator before each step of the rest.
    gradient_clip_val, gradient_clip_algorithm
        Clip the gradients of both, as the trainer does with one optimiser.
    **kwargs
        For :class:`AlignedPlan`.
    """

    def __init__(
        self,
        module: PairedModule,
        *,
        d_steps: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(module, **kwargs)
        self.automatic_optimization = False
        self.d_steps = d_steps
        self.clipping = {
            "gradient_clip_val": gradient_clip_val,
            "gradient_clip_algorithm": gradient_clip_algorithm,
        }

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Step the discriminator, then the rest with the discriminator frozen."""
        vae, discriminator = self.optimizers()
        inference_outputs, generative_outputs = self.module(batch, compute_loss=False)
        mean = inference_outputs["qz"].mean.detach()
        for _ in range(self.d_steps):
            self._step(discriminator, self.module.discriminator_loss(mean, batch))
        with self.toggled_optimizer(vae):
            output = self.module.loss(
                batch, inference_outputs, generative_outputs, **self.loss_kwargs
            )
            self._step(vae, output.loss)
        self.terms = totals(output)
        return output.loss.detach()

    def _step(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, **self.clipping)
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        """Step the learning-rate schedule too, which Lightning leaves to manual plans."""
        super().on_train_epoch_end()
        scheduler = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step(self.trainer.callback_metrics[self.lr_scheduler_metric])

    def configure_optimizers(self) -> list[dict]:
        """Return one optimiser for the discriminator and one for the rest, in reverse order."""
        config = TrainingPlan.configure_optimizers(self)
        vae, classifier = split_parameters(self.module)
        config["optimizer"].param_groups[0]["params"] = vae
        return [config, {"optimizer": torch.optim.Adam(classifier, **DISCRIMINATOR_SETTINGS)}]


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
