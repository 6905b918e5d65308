"""Training plans for a loss with an alignment that grows during training."""

from __future__ import annotations

import math

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan
from torch import Tensor

from scovert.module import PairedModule

__all__ = ["AdversarialPlan", "AlignedPlan"]

FOOLED = 0.95
DISCRIMINATOR_SETTINGS = {"lr": 1e-3, "betas": (0.5, 0.9), "eps": 1e-8, "weight_decay": 0.0}


class AlignedPlan(TrainingPlan):
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
    kl_ramp
        Share of training over which the weight of the KL divergence rises.
    **kwargs
        For :class:`~scvi.train.TrainingPlan`.

    Raises
    ------
    TypeError
        For the host's warm-up in epochs or steps, which `kl_ramp` replaces.
    """

    def __init__(
        self,
        module: PairedModule,
        *,
        weights: dict[str, float],
        start: float,
        ramp: float,
        kl_ramp: float = 0.25,
        **kwargs: object,
    ) -> None:
        replaced = {"n_epochs_kl_warmup", "n_steps_kl_warmup"} & set(kwargs)
        if replaced:
            raise TypeError(
                f"`plan_kwargs` holds {sorted(replaced)}. The KL weight rises over a share of "
                "training here: pass `kl_ramp`, a number in [0, 1]."
            )
        self.progress = 0.0
        self.kl_ramp = kl_ramp
        super().__init__(module, **kwargs)
        self.weights, self.start, self.ramp = weights, start, ramp
        self.strength = 0.0
        self.is_fooled = False

    @property
    def kl_weight(self) -> float:
        """Weight of the KL divergence at this step."""
        return self.min_kl_weight + (self.max_kl_weight - self.min_kl_weight) * _rise(
            self.progress, 0.0, self.kl_ramp
        )

    def first_full_epoch(self, max_epochs: int) -> int:
        """Return the first epoch in which every weight has its final value."""
        return math.ceil(max(self.kl_ramp, self.start + self.ramp) * max_epochs)

    def on_train_epoch_start(self) -> None:
        """Note whether the discriminator was fooled in the last epoch."""
        metrics = self.trainer.callback_metrics
        if "discriminator_train" in metrics:
            chance = metrics["discriminator_chance_train"]
            self.is_fooled = bool(metrics["discriminator_train"] >= FOOLED * chance)

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Set the weights of this step."""
        epoch = self.current_epoch + batch_idx / self.trainer.num_training_batches
        self.progress = epoch / self.trainer.max_epochs
        if not self.is_fooled:
            self.strength = max(self.strength, _rise(self.progress, self.start, self.ramp))
        self.loss_kwargs |= {k: w * self.strength for k, w in self.weights.items()}
        self.loss_kwargs["kl_weight"] = self.kl_weight
        weights = {"kl_weight": self.kl_weight, "alignment_strength": self.strength}
        self.log_dict(weights, on_step=False, on_epoch=True, batch_size=1)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss of a minibatch and log its terms."""
        output = self.module(batch, loss_kwargs=self.loss_kwargs)[2]
        self._log(output, "train", self.train_metrics)
        return output.loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the terms of the loss of a minibatch of validation cells."""
        output = self.module(batch, loss_kwargs=self.loss_kwargs)[2]
        self._log(output, "validation", self.val_metrics)

    def _log(self, output: LossOutput, mode: str, metrics: dict) -> None:
        name = "train_loss" if mode == "train" else "validation_loss"
        self.log(
            name,
            output.loss,
            on_step=False,
            on_epoch=True,
            prog_bar=mode == "train",
            batch_size=output.n_obs_minibatch,
            sync_dist=self.use_sync_dist,
        )
        self.compute_and_log_metrics(output, metrics, mode)

    def on_train_batch_end(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """Stop when the loss is not a number any more (looked at on the CPU only)."""
        loss = outputs["loss"]
        if loss.device.type == "cpu" and not loss.isfinite():
            raise FloatingPointError(
                f"The training loss became {float(loss)} in epoch {self.current_epoch}, step "
                f"{batch_idx}. Train with a smaller learning rate, `plan_kwargs={{'lr': ...}}`."
            )

    def configure_optimizers(self) -> dict:
        """Give the discriminator, if there is one, its own settings within the one optimiser."""
        config = super().configure_optimizers()
        vae, classifier = _split_parameters(self.module)
        if classifier:
            config["optimizer"].param_groups[0]["params"] = vae
            config["optimizer"].add_param_group({"params": classifier, **DISCRIMINATOR_SETTINGS})
        return config


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
        self._log(output, "train", self.train_metrics)
        return output.loss.detach()

    def _step(self, optimizer: LightningOptimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, **self.clipping)
        optimizer.step()

    def on_train_epoch_end(self) -> None:
        """Step the learning-rate schedule, which Lightning leaves to plans with two optimisers."""
        scheduler = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step(self.trainer.callback_metrics[self.lr_scheduler_metric])

    def configure_optimizers(self) -> list[dict]:
        """Return one optimiser for the discriminator and one for the rest, in reverse order."""
        config = TrainingPlan.configure_optimizers(self)
        vae, classifier = _split_parameters(self.module)
        config["optimizer"].param_groups[0]["params"] = vae
        return [config, {"optimizer": torch.optim.Adam(classifier, **DISCRIMINATOR_SETTINGS)}]


def _rise(progress: float, start: float, ramp: float) -> float:
    """Rise from 0 at `start` to 1 at ``start + ramp``."""
    past = (progress - start) / ramp if ramp > 0 else math.inf if progress >= start else 0.0
    return min(1.0, max(0.0, past))


def _split_parameters(module: PairedModule) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters of the networks without, and of, the discriminator."""
    named = list(module.named_parameters())
    classifier = [p for name, p in named if name.startswith("classifier.")]
    return [p for name, p in named if not name.startswith("classifier.")], classifier
