"""The training plan with two optimisers."""

from __future__ import annotations

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from scvi.train import TrainingPlan
from torch import Tensor

from scovert.core.training._plan import totals
from scovert.model.paired._alignment import DISCRIMINATOR_SETTINGS, AlignedPlan, split_parameters
from scovert.model.paired._module import PairedModule

__all__ = ["AdversarialPlan"]


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
