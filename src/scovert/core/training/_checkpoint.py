"""Going on with training that was cut off, to the same result."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

from scovert.core._paths import place_of
from scovert.core._saving import MODEL_FILE, read_archive, write_archive
from scovert.core.training._best import BestState
from scovert.core.training._plan import Plan

__all__ = ["Checkpoint", "Resumable"]

TRAINING_FILE = "training.scovert"
CHANGES_RESULT = ("early_stopping", "gradient_clip", "max_epochs", "precision")
"""How options of the trainer begin on which the result depends."""
STOPPING = ("wait_count", "stopped_epoch", "_current_step")  # of scvi-tools' early stopping


@dataclass(frozen=True)
class Resumable:
    """Where the state of training is kept, for whom, and the seed of its split.

    Attributes
    ----------
    folder
        Folder for the state; `None` keeps none.
    seed
        Seed of what is drawn before training: the split, anchors.
    settings
        What the training was asked to do, as text.
    name
        Name of the file of the state.
    """

    folder: Path | None
    seed: int
    settings: dict[str, str]
    name: str = TRAINING_FILE

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike | None,
        seed: int | None,
        settings: dict[str, object],
        trainer_kwargs: dict[str, object],
    ) -> Resumable:
        """Look what is in a folder, and refuse one with other training or a finished model."""
        options = {k: v for k, v in trainer_kwargs.items() if k.startswith(CHANGES_RESULT)}
        settings = {name: repr(v) for name, v in (settings | options | {"seed": seed}).items()}
        drawn = int(torch.randint(2**31, ())) if seed is None else seed
        place = None if folder is None else place_of(folder, "checkpoint_dir", "a folder")
        resumable = cls(place, drawn, settings)._continued()
        if folder is None or any(resumable.folder.glob(f"*{TRAINING_FILE}")):
            return resumable
        if (resumable.folder / MODEL_FILE).exists():
            raise FileExistsError(
                f"`checkpoint_dir={str(folder)!r}` holds a model that has been trained. Load it "
                "with `load`, or pass another folder."
            )
        return resumable

    @classmethod
    def none(cls, seed: int = 0) -> Resumable:
        """Keep no state."""
        return cls(None, seed, {})

    def part(self, name: str) -> Resumable:
        """Return where the state of one of several trainings of a model is kept."""
        return replace(
            self, name=f"{name}.{TRAINING_FILE}" if name else TRAINING_FILE
        )._continued()

    def _continued(self) -> Resumable:
        """Take the seed of the state that is there already; refuse that of other training."""
        if self.folder is None or not self.file.exists():
            return self
        facts = read_archive(self.file)[0]
        _check_same(self.file, facts["settings"], self.settings)
        return replace(self, seed=facts["seed"])

    @property
    def file(self) -> Path:
        """Where the state is."""
        return self.folder / self.name

    def end(self) -> None:
        """Remove the state, also of all parts: training has ended."""
        if self.folder is not None:
            for file in self.folder.glob(f"*{TRAINING_FILE}"):
                file.unlink()


def _check_same(file: Path, then: dict[str, str], now: dict[str, str]) -> None:
    unlike = [name for name in now if then.get(name) != now[name]]
    if unlike:
        listed = "; ".join(f"{name}: {then.get(name)} then, {now[name]} now" for name in unlike)
        raise ValueError(
            f"{file} is the state of training that was asked for otherwise ({listed}). Repeat the "
            "call of then to go on with it, or pass another `checkpoint_dir`."
        )


class Checkpoint(pl.Callback):
    """Write at the beginning of every epoch all that the rest of training depends on.

    Parameters
    ----------
    resumable
        Where, and for which training. What is there already is where training starts.
    best
        Keeper of the best state, which is written too.
    """

    def __init__(self, resumable: Resumable, best: BestState) -> None:
        self.resumable, self.best = resumable, best

    def on_train_start(self, trainer: pl.Trainer, pl_module: Plan) -> None:
        """Go to where training was cut off."""
        if not self.resumable.file.exists():
            return
        facts, tensors = read_archive(self.resumable.file)
        pl_module.module.load_state_dict(_under("module.", tensors))
        self.best.state = _under("best.", tensors) or None
        self.best.best, self.best.best_epoch = facts["best"], facts["best_epoch"]
        for i, optimizer in enumerate(trainer.optimizers):
            _restore_optimizer(optimizer, _under(f"optimizer.{i}.", tensors), facts["lr"][i])
        for config, state in zip(trainer.lr_scheduler_configs, facts["schedulers"], strict=True):
            config.scheduler.load_state_dict(state)
        if trainer.early_stopping_callback is not None:
            vars(trainer.early_stopping_callback).update(facts["stopping"])
            trainer.early_stopping_callback.best_score = tensors["stopping.best_score"]
        pl_module.on_load_checkpoint(facts["plan"])
        trainer.datamodule.load_state_dict(facts["data"])
        _go_to_epoch(trainer, facts["epoch"])
        _set_random_states(_under("random.", tensors))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Plan) -> None:
        """Write the state in which this epoch begins."""
        tensors = _named("module.", pl_module.module.state_dict())
        tensors |= _named("best.", self.best.state or {})
        for i, optimizer in enumerate(trainer.optimizers):
            tensors |= _named(f"optimizer.{i}.", _optimizer_tensors(optimizer))
        tensors |= _named("random.", _random_states())
        stopping = trainer.early_stopping_callback
        if stopping is not None:
            tensors["stopping.best_score"] = stopping.best_score
        facts = {
            "settings": self.resumable.settings,
            "seed": self.resumable.seed,
            "epoch": trainer.current_epoch,
            "best": self.best.best,
            "best_epoch": self.best.best_epoch,
            "lr": [[group["lr"] for group in o.param_groups] for o in trainer.optimizers],
            "schedulers": [c.scheduler.state_dict() for c in trainer.lr_scheduler_configs],
            "stopping": {} if stopping is None else {k: vars(stopping)[k] for k in STOPPING},
            "plan": {},
            "data": trainer.datamodule.state_dict(),
        }
        pl_module.on_save_checkpoint(facts["plan"])
        self.resumable.folder.mkdir(parents=True, exist_ok=True)
        write_archive(self.resumable.file, facts, tensors)


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{i}.{name}": value
        for i, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rates: list[float]
) -> None:
    packed = optimizer.state_dict()
    for name, value in tensors.items():
        i, key = name.split(".")
        packed["state"].setdefault(int(i), {})[key] = value
    for group, rate in zip(packed["param_groups"], rates, strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(packed)


def _go_to_epoch(trainer: pl.Trainer, epoch: int) -> None:
    """Make the trainer count from `epoch`; its own way reads files with code."""
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch
    trainer.fit_loop.epoch_loop._batches_that_stepped = epoch * trainer.num_training_batches


def _random_states() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _set_random_states(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states.pop("cpu"))
    if states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([states[f"cuda{i}"] for i in range(len(states))])
