"""Parts of the benchmark that train: models, minibatches, and what an epoch costs."""

from __future__ import annotations

import cProfile
import logging
import math
import pstats
import re
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import PropertyMock, patch

import anndata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi.distributions import NegativeBinomial
from scvi.model import SCVI
from scvi.model.base import BaseModelClass
from scvi.module.base import LossOutput
from scvi.train import TrainingPlan

from benchmarks.speed.anchors import simulate
from scovert.core._losses import SparseCounts
from scovert.core.dataloaders._cells import CellTensors
from scovert.core.training import _plan
from scovert.model import PairedVAE
from scovert.model.paired import _model as _paired
from scovert.model.paired import _module as _paired_module
from scovert.model.paired._alignment import AlignedPlan

METHODS = {"SCVI": None, "none": "none", "default": "anchors"}
"""What is compared, and the alignment of PairedVAE in it."""

OWN_CODE = {
    "/scovert/": "scovert",
    "/scvi/": "scvi-tools",
    "/lightning/": "Lightning",
    "/torch/optim/": "torch: optimiser",
    "/torch/": "torch: its Python code",
    "/numpy/": "numpy",
}


def quiet() -> None:
    """Prepare a process: one thread, and no chatter."""
    torch.set_num_threads(1)
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")


class Sizes(NamedTuple):
    """Cells, genes and datasets."""

    n_cells: int
    n_genes: int
    n_datasets: int = 2

    def __str__(self) -> str:
        datasets = "" if self.n_datasets == 2 else f", {self.n_datasets} datasets"
        return f"{self.n_cells:,} x {self.n_genes}{datasets}"


def make_adata(sizes: Sizes, seed: int = 0) -> AnnData:
    """Negative binomial counts, 8 % of them not zero (`anchors.simulate`)."""
    counts, batch, _ = simulate(*sizes_for_simulate(sizes), seed=seed)
    return as_adata(counts, batch)


def sizes_for_simulate(sizes: Sizes) -> tuple[int, int, int]:
    return sizes.n_cells, sizes.n_datasets, sizes.n_genes


def as_adata(counts: object, batch: Sequence[int]) -> AnnData:
    names = pd.RangeIndex(len(batch)).astype(str)
    obs = pd.DataFrame({"batch": pd.Categorical([str(b) for b in batch])}, index=names)
    return AnnData(
        counts, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(counts.shape[1])])
    )


def make_model(method: str, adata: AnnData) -> BaseModelClass:
    """Return the model of a method, both with 128 hidden nodes, 10 latent, 1 layer."""
    adata = AnnData(adata.X, obs=adata.obs[["batch"]].copy(), var=adata.var)  # counts are shared
    if method == "SCVI":
        SCVI.setup_anndata(adata, batch_key="batch")
        return SCVI(adata, n_hidden=128, n_latent=10, n_layers=1, gene_likelihood="nb")
    PairedVAE.setup_anndata(adata, batch_key="batch")
    return PairedVAE(adata, alignment=METHODS[method], n_hidden=128, n_latent=10, n_layers=1)


def train(
    model: BaseModelClass, max_epochs: int, *, batch_size: int, accelerator: str = "cpu", **options
) -> None:
    """Train on all cells."""
    model.train(
        max_epochs=max_epochs,
        batch_size=batch_size,
        train_size=1.0,
        accelerator=accelerator,
        enable_progress_bar=False,
        **options,
    )


def best_seconds(
    functions: dict[str, Callable], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Smallest time of each function over rounds in which they take turns."""
    best = dict.fromkeys(functions, math.inf)
    for _ in range(rounds):
        for name, function in functions.items():
            start = clock()
            function()
            best[name] = min(best[name], clock() - start)
    return best


def epoch_seconds(
    trainers: dict[str, Callable[[int], None]],
    quick: bool,
    *,
    rounds: int = 3,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Seconds of an epoch: a long call less a short one, so that starting is not counted.

    Each is called once before, so that nothing is charged for loading and compiling.
    """
    short, long = (1, 2) if quick else (1, 4)
    for trainer in trainers.values():
        trainer(1)
    calls = {(n, e): partial(f, e) for n, f in trainers.items() for e in (short, long)}
    best = best_seconds(calls, 1 if quick else rounds, clock)
    return {n: (best[n, long] - best[n, short]) / (long - short) for n in trainers}


@contextmanager
def counted_cells() -> Iterator[Counter]:
    """Count the drawn cells, and all that are encoded, of PairedVAE."""
    seen: Counter = Counter()
    original = CellTensors.minibatch

    def minibatch(self: CellTensors, rows: np.ndarray, n_drawn: int) -> dict:
        seen.update(drawn=n_drawn, encoded=len(rows))
        return original(self, rows, n_drawn)

    with patch.object(CellTensors, "minibatch", minibatch):
        yield seen


@contextmanager
def anchors_found_once() -> Iterator[list[float]]:
    """Look for anchors in the first training only, and note its CPU seconds."""
    found, seconds = [], []
    search = _paired.find_anchors

    def find(*args, **kwargs):
        if not found:
            start = time.process_time()
            found.append(search(*args, **kwargs))
            seconds.append(time.process_time() - start)
        return found[0]

    with patch.object(_paired, "find_anchors", find):
        yield seconds


def cells_of_an_epoch(trainer: Callable[[int], None]) -> Counter:
    with counted_cells() as seen:
        trainer(1)
    return seen


# Parts


def training(quick: bool) -> Iterator[dict]:
    """Cost of training, with the search for anchors apart."""
    shapes = [Sizes(20_000, 2000), Sizes(8_000, 4000), Sizes(20_000, 2000, 5)]
    warm_up_anchors()
    for sizes in [Sizes(1000, 200)] if quick else shapes:
        yield from _costs(sizes, [128] if sizes.n_datasets > 2 else [128, 1024], quick)


def warm_up_anchors() -> None:
    """Compile what the search for anchors compiles."""
    model = make_model("default", make_adata(Sizes(500, 200)))
    train(model, 1, batch_size=128)


def _costs(
    sizes: Sizes,
    batch_sizes: list[int],
    quick: bool,
    *,
    accelerator: str = "cpu",
    clock: Callable[[], float] = time.process_time,
) -> Iterator[dict]:
    adata = make_adata(sizes)
    models = {method: make_model(method, adata) for method in METHODS}
    with anchors_found_once() as search:
        for size in batch_sizes:
            options = {"batch_size": size, "accelerator": accelerator}
            trainers = {m: partial(train, models[m], **options) for m in METHODS}
            seconds = epoch_seconds(trainers, quick, clock=clock)
            per_cell = {}
            for method, trainer in trainers.items():
                same = {"drawn": sizes.n_cells, "encoded": sizes.n_cells}
                cells = same if method == "SCVI" else cells_of_an_epoch(trainer)
                cost = {k: 1000 * seconds[method] / n for k, n in cells.items()}
                per_cell[method] = cost["drawn"]
                yield {
                    "data": str(sizes),
                    "minibatch": size,
                    "method": method,
                    "s per 1,000 cells": cost["drawn"],
                    "x SCVI": per_cell["SCVI"] / cost["drawn"],
                    "x SCVI, per encoded cell": per_cell["SCVI"] / cost["encoded"],
                    "search for anchors, s": search[0] if method == "default" else None,
                    "search, epochs": search[0] / seconds[method] if method == "default" else None,
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


def files(quick: bool) -> Iterator[dict]:
    """Training from an uncompressed file, against training from memory."""
    sizes = Sizes(1000, 200) if quick else Sizes(50_000, 2000)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        adata = make_adata(sizes)
        adata.write_h5ad(path)
        backed = anndata.read_h5ad(path, backed="r")
        PairedVAE.setup_anndata(backed, batch_key="batch")
        models = {
            "memory": make_model("none", adata),
            "file": PairedVAE(backed, alignment="none"),
        }
        for size in (128, 1024):
            trainers = {k: partial(train, m, batch_size=size) for k, m in models.items()}
            seconds = epoch_seconds(trainers, quick, rounds=2)
            yield {
                "data": str(sizes),
                "minibatch": size,
                "memory, s per epoch": seconds["memory"],
                "file, s per epoch": seconds["file"],
                "x memory": seconds["file"] / seconds["memory"],
            }


def gpu(quick: bool) -> Iterator[dict]:
    """Training on a GPU, in seconds of the clock on the wall."""
    if not torch.cuda.is_available():
        return
    sizes = Sizes(1000, 200) if quick else Sizes(200_000, 2000)
    torch.cuda.reset_peak_memory_stats()
    for row in _costs(sizes, [128, 1024, 8192], quick, accelerator="gpu", clock=_gpu_clock):
        speed = {"cells per s": 1000 / row.pop("s per 1,000 cells")}
        memory = {"GPU memory so far, GB": torch.cuda.max_memory_allocated() / 1e9}
        yield row | speed | memory


def _gpu_clock() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()
