"""The training plan of every model that is trained on minibatches."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from inspect import signature

import torch
from scvi.module.base import BaseModuleClass, LossOutput
from scvi.train import TrainingPlan
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from scovert.core.dataloaders._cells import CELLS_KEY
from scovert.core.training._finite import FiniteWatch

__all__ = ["ACCEPTED", "Plan", "rise", "totals"]

NOT_TAKEN = {"module", "loss_kwargs", "n_epochs_kl_warmup", "n_steps_kl_warmup"}
OF_SCVI = tuple(name for name in signature(TrainingPlan).parameters if name not in NOT_TAKEN)
ACCEPTED = (*OF_SCVI, "kl_ramp")
"""Options of a user."""


class Plan(TrainingPlan):
    """One optimiser; the KL divergence gains weight as training goes on.

    Terms of the loss are summed over an epoch and logged once, and training ends when one of them
    is not a number any more.

    Parameters
    ----------
    module
        Module whose ``loss`` returns a :class:`~scvi.module.base.LossOutput`, and takes
        ``kl_weight`` if it has a divergence.
    kl_ramp
        Share of training over which the weight of the KL divergence rises.
    **kwargs
        For :class:`~scvi.train.TrainingPlan`.
    """

    monitor = "elbo_validation"
    """What early stopping and the best state watch; the lower, the better."""
    remedy = (
        "Train with a smaller learning rate, `plan_kwargs={'lr': 1e-4}`, and look for cells or "
        "covariates with extreme values."
    )
    """What to do when numbers break."""

    def __init__(
        self, module: BaseModuleClass, *, kl_ramp: float = 0.25, **kwargs: object
    ) -> None:
        self.progress = 0.0
        self.kl_ramp = kl_ramp
        super().__init__(module, **kwargs)
        self.sums: dict[str, dict] = {"train": {}, "validation": {}}
        self.terms: dict[str, Tensor | int] = {}
        self.gradient_norm = torch.tensor(0.0)
        self.watch = FiniteWatch()
        self.recorded: dict[str, dict[int, float]] = {}

    @property
    def kl_weight(self) -> float:
        """Weight of the KL divergence at this step."""
        return self.min_kl_weight + (self.max_kl_weight - self.min_kl_weight) * rise(
            self.progress, 0.0, self.kl_ramp
        )

    @property
    def last_epoch(self) -> int:
        """The last epoch of which something was recorded."""
        return max(epoch for values in self.recorded.values() for epoch in values)

    def first_full_epoch(self, max_epochs: int) -> int:
        """Return the first epoch in which every weight has its final value."""
        return math.ceil(self.kl_ramp * max_epochs)

    def on_train_start(self) -> None:
        """Let processes exchange gradients in every step, but no batch-norm statistics."""
        if isinstance(self.trainer.strategy.model, DistributedDataParallel):
            self.trainer.strategy.model.broadcast_buffers = False

    def on_validation_start(self) -> None:
        """Validate with the same batch-norm statistics in all processes."""
        self._average_statistics()

    def _average_statistics(self) -> None:
        """Give every process the mean of the batch-norm statistics of all of them."""
        if self.trainer.world_size > 1:
            for buffer in self.module.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer, reduce_op="mean"))

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Set the weights of this step."""
        epoch = self.current_epoch + batch_idx / self.trainer.num_training_batches
        self.progress = epoch / self.trainer.max_epochs
        if "kl_weight" in self._loss_args:
            self.loss_kwargs["kl_weight"] = self.kl_weight

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | int]]:
        """Return the loss of a minibatch, and its terms as `totals` does."""
        output = self.module(batch, loss_kwargs=self.loss_kwargs)[2]
        return output.loss, totals(output)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss of a minibatch and note its terms."""
        loss, self.terms = self.losses(batch)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Compute the loss of a minibatch of validation cells."""
        self._add("validation", self.losses(batch)[1])

    def _add(self, mode: str, totals: dict[str, Tensor | int]) -> None:
        """Add the terms of a minibatch to those of the epoch, as tensors."""
        sums = self.sums[mode]
        for name, value in totals.items():
            sums[name] = sums.get(name, 0) + value

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Note the norm of the gradient of all but a discriminator that has its own optimiser."""
        if optimizer is self.trainer.optimizers[0]:
            groups = [p.grad for group in optimizer.param_groups for p in group["params"]]
            self.gradient_norm = get_total_norm([g for g in groups if g is not None])

    def on_train_batch_end(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor], batch_idx: int
    ) -> None:
        """End training when a term of the loss or the gradient is not a number any more."""
        self._add("train", self.terms)
        self._add("train", {"gradient_norm": self.gradient_norm * self.terms["n_cells"]})
        seen = self.terms | {"gradient_norm": self.gradient_norm}
        is_last = batch_idx + 1 == self.trainer.num_training_batches
        if self.watch.sees(seen, batch.get(CELLS_KEY), (self.current_epoch, batch_idx), is_last):
            self.trainer.should_stop = True

    def _log_epoch(self, mode: str) -> None:
        """Log the mean over cells of every term, once: logging each step is slow."""
        sums, self.sums[mode] = self.sums[mode], {}
        if not sums:
            return
        values = torch.stack([torch.as_tensor(v, device=self.device) for v in sums.values()])
        total = dict(
            zip(sums, self.trainer.strategy.reduce(values, reduce_op="sum").tolist(), strict=True)
        )
        n_cells = total.pop("n_cells")
        means = {f"{name}_{mode}": value / n_cells for name, value in total.items()}
        if "loss" in total:
            self._log({f"{mode}_loss": means.pop(f"loss_{mode}")}, prog_bar=True)
        self._log(means)

    def _log(self, values: dict[str, float], **options: bool) -> None:
        """Log values of this epoch, for any logger and for the history."""
        self.log_dict(values, **options)
        for name, value in values.items():
            self.recorded.setdefault(name, {})[self.current_epoch] = value

    def on_train_epoch_end(self) -> None:
        """Log the terms of the loss and the weight of the KL divergence."""
        self._average_statistics()
        self._log_epoch("train")
        if "kl_weight" in self._loss_args:
            self._log({"kl_weight": self.kl_weight})

    def on_validation_epoch_end(self) -> None:
        """Log the terms of the loss on the validation cells."""
        self._log_epoch("validation")

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Add what the rest of training depends on, besides the networks and the optimisers."""
        checkpoint["recorded"] = self.recorded

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Take it back; JSON has made text of the epochs."""
        self.recorded = {
            name: {int(epoch): value for epoch, value in values.items()}
            for name, values in checkpoint["recorded"].items()
        }

    def _optimizer_creator_fn(self, optimizer_cls: type[torch.optim.Adam]) -> Callable:
        """Take the fused version of scvi-tools' optimiser, one kernel for all parameters."""
        return super()._optimizer_creator_fn(partial(optimizer_cls, fused=True))


def totals(output: LossOutput) -> dict[str, Tensor | int]:
    """Return sums over the cells of a minibatch of all terms, and the number of cells."""
    n_cells = output.n_obs_minibatch
    means = output.extra_metrics | {"loss": output.loss}
    totals = {
        "reconstruction_loss": output.reconstruction_loss_sum,
        "kl_local": output.kl_local_sum,
        "elbo": output.reconstruction_loss_sum + output.kl_local_sum,
        **{name: value * n_cells for name, value in means.items()},
    }
    return {name: value.detach() for name, value in totals.items()} | {"n_cells": n_cells}


def rise(progress: float, start: float, ramp: float) -> float:
    """Rise from 0 at `start` to 1 at ``start + ramp``."""
    past = (progress - start) / ramp if ramp > 0 else math.inf if progress >= start else 0.0
    return min(1.0, max(0.0, past))
