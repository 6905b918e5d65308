"""Parts of the benchmark on one step of training: where its time goes, and what is gained."""

from __future__ import annotations

import cProfile
import pstats
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import PropertyMock, patch

import torch
from scvi.distributions import NegativeBinomial
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan

from benchmarks.speed.training import (
    Sizes,
    anchors_found_once,
    epoch_seconds,
    make_adata,
    make_model,
    train,
)
from scovert.core._losses import SparseCounts
from scovert.core.dataloaders._cells import CellTensors
from scovert.core.training import _plan
from scovert.model.paired import _module as _paired_module
from scovert.model.paired._alignment import AlignedPlan

OWN_CODE = {
    "/scovert/": "scovert",
    "/scvi/": "scvi-tools",
    "/lightning/": "Lightning",
    "/torch/optim/": "torch: optimiser",
    "/torch/": "torch: its Python code",
    "/numpy/": "numpy",
}


def profiles(quick: bool) -> Iterator[dict]:
    """Where the CPU time of a training step of PairedVAE goes, by own time (cProfile)."""
    adata = make_adata(Sizes(1000, 200) if quick else Sizes(8_000, 2000))
    for method in ("none", "default"):
        model = make_model(method, adata)
        with anchors_found_once():
            train(model, 1, batch_size=128)
            for size in (128, 1024):
                yield from _profile(method, size, partial(train, model, 6, batch_size=size))


def _profile(method: str, size: int, function: Callable) -> Iterator[dict]:
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(function)
    own: dict[str, Counter] = defaultdict(Counter)
    for (file, _, name), (_, _, seconds, _, _) in pstats.Stats(profiler).stats.items():
        own[_group(file, name)][_short(file, name)] += seconds
    total = sum(group.total() for group in own.values())
    for group in sorted(own, key=lambda group: -own[group].total()):
        largest = [f"{n} {100 * s / total:.1f}" for n, s in own[group].most_common(4)]
        yield {
            "method": method,
            "minibatch": size,
            "where": group,
            "share, %": 100 * own[group].total() / total,
            "largest, %": ", ".join(largest),
        }


def _group(file: str, name: str) -> str:
    """Say whose code it is."""
    if file != "~":
        return next((group for part, group in OWN_CODE.items() if part in file), "other Python")
    if "run_backward" in name:
        return "torch: backward, but for the gradient of the likelihood"
    if "adam" in name:
        return "torch: optimiser"
    return "torch: operators" if "torch" in name else "other Python"


def _short(file: str, name: str) -> str:
    """Return the name of a function, with its file if it is not in C."""
    if file != "~":
        return f"{Path(file).stem}.{name}"
    return re.sub(r"^<(built-in )?method |> *$| of .*$|'", "", name)


def ladder(quick: bool) -> Iterator[dict]:
    """Measure what each optimisation gains: training without it."""
    adata = make_adata(Sizes(1000, 200) if quick else Sizes(8_000, 2000))
    model = make_model("none", adata)
    for size in (128, 1024):
        plain = partial(train, model, batch_size=size)
        trainers = {name: _without(patches, plain) for name, patches in _optimisations().items()}
        seconds = epoch_seconds(trainers, quick)
        n_steps = -(-adata.n_obs // size)
        for name, value in seconds.items():
            yield {
                "minibatch": size,
                "training": name,
                "ms per step": 1000 * value / n_steps,
                "x as it is": value / seconds["as it is"],
            }


def _optimisations() -> dict[str, list]:
    """Patches that take one optimisation away."""
    no_table = PropertyMock(return_value=None)
    dense = [patch.object(_paired_module, "negative_binomial", dense_negative_binomial)]
    plain_adam = [patch.object(AlignedPlan, "_optimizer_creator_fn", _plain_optimizer)]
    logged = [patch.object(AlignedPlan, "training_step", _step_logged_by_scvi)]
    return {
        "as it is": [],
        "dense likelihood of scvi-tools": dense,
        "Adam that is not fused": plain_adam,
        "metrics logged by scvi-tools every step": logged,
        "log-factorials not from a table": [
            patch.object(CellTensors, "_log_factorials", no_table)
        ],
        "the first three together": dense + plain_adam + logged,
        "without the watch for NaN (a cost)": [
            patch.object(_plan.FiniteWatch, "sees", lambda *_: False),
            patch.object(AlignedPlan, "on_before_optimizer_step", lambda *_: None),
        ],
    }


def _without(patches: list, trainer: Callable[[int], None]) -> Callable[[int], None]:
    def run(max_epochs: int) -> None:
        with ExitStack() as stack:
            for p in patches:
                stack.enter_context(p)
            trainer(max_epochs)

    return run


def dense_negative_binomial(
    mean: torch.Tensor, theta: torch.Tensor, counts: SparseCounts
) -> torch.Tensor:
    px = NegativeBinomial(mu=mean, theta=theta, validate_args=False)
    return -px.log_prob(counts.dense(*mean.shape)).sum(-1)


def _plain_optimizer(plan: AlignedPlan, optimizer_cls: type[torch.optim.Adam]) -> Callable:
    return TrainingPlan._optimizer_creator_fn(plan, optimizer_cls)


def _step_logged_by_scvi(
    plan: AlignedPlan, batch: dict[str, torch.Tensor], batch_idx: int
) -> torch.Tensor:
    output: LossOutput = plan.module(batch, loss_kwargs=plan.loss_kwargs)[2]
    plan.terms = _plan.totals(output)
    plan.log("kl_weight", plan.kl_weight, on_step=True, on_epoch=False)
    plan.log("train_loss", output.loss, on_step=False, on_epoch=True, prog_bar=True)
    plan.compute_and_log_metrics(output, plan.train_metrics, "train")
    return output.loss
