"""Progress of a training by epochs."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.callbacks.early_stopping import EarlyStopping
from tqdm.std import tqdm

from scovert.core._progress import stage

__all__ = ["EpochBar"]


class EpochBar(ProgressBar):
    """Show the epochs of a training, in place of the bar of scvi-tools, which goes to stdout."""

    def __init__(self) -> None:
        super().__init__()
        self._is_shown = True
        self._bar: tqdm | None = None

    def disable(self) -> None:
        """Show nothing: Lightning asks for it in all processes but the first."""
        self._is_shown = False

    def enable(self) -> None:
        """Show progress."""
        self._is_shown = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, where training that goes on begins at the epoch that it has reached."""
        super().on_train_start(trainer, pl_module)
        may_end_early = any(isinstance(c, EarlyStopping) for c in trainer.callbacks)
        self._bar = stage(
            "Training",
            trainer.max_epochs,
            unit="epoch",
            may_end_early=may_end_early,
            initial=trainer.current_epoch,
            is_shown=self._is_shown,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the epoch."""
        losses = [k for k in ("validation_loss", "train_loss") if k in trainer.callback_metrics]
        for name in losses[:1]:
            value = float(trainer.callback_metrics[name])
            self._bar.set_postfix({name.replace("_", " "): f"{value:.4g}"}, refresh=False)
        self._bar.update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        self._bar.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End all the same, so that the message stands on a line of its own."""
        if self._bar is not None:
            self._bar.close()
