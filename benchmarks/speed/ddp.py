"""Training of `processes` in scale.py: a script, since every process of DDP runs it.

    python -m benchmarks.speed.ddp FOLDER N_PROCESSES BATCH_SIZE N_CELLS N_GENES N_EPOCHS

Each process writes its CPU seconds per epoch, without the first epoch, into the folder.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import lightning.pytorch as pl
import scvi
import torch

from benchmarks.speed.training import Sizes, make_adata, make_model, train


class EpochClock(pl.Callback):
    """Note the CPU time at the end of every epoch."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time."""
        self.ends.append(time.process_time())


def main() -> None:
    folder = Path(sys.argv[1])
    n_processes, batch_size, n_cells, n_genes, n_epochs = map(int, sys.argv[2:])
    torch.set_num_threads(1)
    scvi.settings.seed = 0
    model = make_model("none", make_adata(Sizes(n_cells, n_genes)))
    clock = EpochClock()
    options = {"strategy": "ddp", "devices": n_processes} if n_processes > 1 else {}
    train(model, n_epochs, batch_size=batch_size, callbacks=[clock], **options)
    rank = os.environ.get("LOCAL_RANK", "0")
    seconds = (clock.ends[-1] - clock.ends[0]) / (n_epochs - 1)
    (folder / f"{rank}.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
