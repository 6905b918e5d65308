"""The training plan of an alignment that grows during training."""

from __future__ import annotations

import math

from torch import Tensor

from scovert.core.training._plan import Plan, rise
from scovert.model.paired._module import FOOLED, PairedModule

__all__ = ["DISCRIMINATOR_SETTINGS", "AlignedPlan", "split_parameters"]

DISCRIMINATOR_SETTINGS = {
    "lr": 1e-3,
    "betas": (0.5, 0.9),
    "eps": 1e-8,
    "weight_decay": 0.0,
    "fused": True,
}
"""Adam for adversaries: little memory of gradients, since what is told apart keeps moving."""


class AlignedPlan(Plan):
    """One optimiser; the KL divergence and the alignment gain weight as training goes on.

    A discriminator, where the module has one, learns in the same backward pass with settings of
    its own. When its cross-entropy reaches 0.95 of chance the alignment is not raised further.

    Parameters
    ----------
    module
        Module whose ``loss`` takes ``kl_weight`` and the names in `weights`.
    weights
        Full weights of the alignment, arguments of ``module.loss``.
    start, ramp
        Share of training after which the weights rise, and share over which they do.
    **kwargs
        For :class:`~scovert.core.training._plan.Plan`.
    """

    def __init__(
        self,
        module: PairedModule,
        *,
        weights: dict[str, float],
        start: float,
        ramp: float,
        **kwargs: object,
    ) -> None:
        super().__init__(module, **kwargs)
        self.weights, self.start, self.ramp = weights, start, ramp
        self.strength = 0.0
        self.is_fooled = False

    def first_full_epoch(self, max_epochs: int) -> int:
        """Return the first epoch in which every weight has its final value."""
        is_aligned = math.ceil((self.start + self.ramp) * max_epochs)
        return max(super().first_full_epoch(max_epochs), is_aligned)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Set the weights of this step."""
        super().on_train_batch_start(batch, batch_idx)
        if self.weights and not self.is_fooled:
            self.strength = max(self.strength, rise(self.progress, self.start, self.ramp))
        self.loss_kwargs |= {k: w * self.strength for k, w in self.weights.items()}

    def on_train_epoch_end(self) -> None:
        """Log the weight of the alignment too, and note if the discriminator is fooled."""
        super().on_train_epoch_end()
        self._log({"alignment_strength": self.strength})
        if "discriminator_train" in self.recorded:
            guess, chance = (
                self.recorded[name][self.current_epoch]
                for name in ("discriminator_train", "discriminator_chance_train")
            )
            self.is_fooled = guess >= FOOLED * chance

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add how far the alignment was raised."""
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {"strength": self.strength, "is_fooled": self.is_fooled}

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Take it back."""
        super().on_load_checkpoint(checkpoint)
        self.strength, self.is_fooled = checkpoint["strength"], checkpoint["is_fooled"]

    def configure_optimizers(self) -> dict:
        """Give the discriminator, if there is one, its own settings within the one optimiser."""
        config = super().configure_optimizers()
        vae, classifier = split_parameters(self.module)
        if classifier:
            config["optimizer"].param_groups[0]["params"] = vae
            config["optimizer"].add_param_group({"params": classifier, **DISCRIMINATOR_SETTINGS})
        return config


def split_parameters(module: PairedModule) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters of the networks without, and of, the discriminator."""
    named = list(module.named_parameters())
    classifier = [p for name, p in named if name.startswith("classifier.")]
    return [p for name, p in named if not name.startswith("classifier.")], classifier
