"""Training and validation of a loss term in one chart of TensorBoard."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from scovert.core.training._plan import Plan

__all__ = ["Charts"]


class Charts(pl.Callback):
    """Write each term to a TensorBoard logger, if there is one, as two curves in one chart."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Plan) -> None:
        """Write the epoch before this one."""
        self._write(trainer, pl_module.recorded, trainer.current_epoch - 1)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Plan) -> None:
        """Write the last epoch."""
        self._write(trainer, pl_module.recorded, pl_module.last_epoch)

    def _write(
        self, trainer: pl.Trainer, recorded: dict[str, dict[int, float]], epoch: int
    ) -> None:
        writers = [x.experiment for x in trainer.loggers if isinstance(x, TensorBoardLogger)]
        for name, values in recorded.items():
            term = name.removesuffix("_validation")
            if term == name or epoch not in values:
                continue
            curves = {"validation": values[epoch], "train": recorded[f"{term}_train"][epoch]}
            for writer in writers:
                writer.add_scalars(term, curves, epoch)
