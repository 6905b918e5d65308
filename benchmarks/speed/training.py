"""Parts of the benchmark that train: models, minibatches, and what an epoch costs."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import patch

import anndata
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from scvi.model import SCVI
from scvi.model.base import BaseModelClass

from benchmarks.speed.anchors import simulate
from scovert.core.dataloaders._cells import CellTensors
from scovert.model import PairedVAE
from scovert.model.paired import _model as _paired

METHODS = {"SCVI": None, "none": "none", "default": "anchors"}
"""What is compared, and the alignment of PairedVAE in it."""


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
