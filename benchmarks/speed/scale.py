"""Parts of the benchmark beside training: inference, memory, files, processes, anchors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata
import numpy as np
import scipy.sparse as sp

from benchmarks.processes import PeakMemory, in_new_process
from benchmarks.speed.anchors import measure as measure_anchors
from benchmarks.speed.training import (
    Sizes,
    anchors_found_once,
    as_adata,
    best_seconds,
    cells_of_an_epoch,
    epoch_seconds,
    make_adata,
    make_model,
    quiet,
    train,
)
from scovert.core.dataloaders._cells import WINDOW
from scovert.core.dataloaders._windows import BLOCK

HERE = Path(__file__).resolve().parent
TILE = 20_000
"""Cells that are simulated; more are repetitions of them."""


def inference(quick: bool) -> Iterator[dict]:
    """CPU microseconds per cell of `get_latent_representation`."""
    shapes = [Sizes(1000, 200)] if quick else [Sizes(20_000, 2000), Sizes(8_000, 4000)]
    for sizes in shapes:
        adata = make_adata(sizes)
        models = {method: make_model(method, adata) for method in ("SCVI", "none")}
        for model in models.values():
            train(model, 1, batch_size=1024)
        for size in (128, 1024):
            calls = {
                name: partial(model.get_latent_representation, batch_size=size)
                for name, model in models.items()
            }
            best_seconds(calls, 1)
            seconds = best_seconds(calls, 1 if quick else 7)
            yield {
                "data": str(sizes),
                "minibatch": size,
                "SCVI, us per cell": 1e6 * seconds["SCVI"] / sizes.n_cells,
                "PairedVAE, us per cell": 1e6 * seconds["none"] / sizes.n_cells,
                "x SCVI": seconds["SCVI"] / seconds["none"],
            }


def memory(quick: bool) -> Iterator[dict]:
    """Peak memory above the data: model, one epoch at 1024, then the latent space."""
    n_genes = 200 if quick else 2000
    cases = [(10_000, "SCVI"), (10_000, "none"), (100_000, "SCVI"), (100_000, "none")]
    cases = cases[:2] if quick else [*cases, (1_000_000, "none")]
    for n_cells, method in cases:
        with TemporaryDirectory() as folder:
            path = f"{folder}/cells.h5ad"
            in_new_process(_write, path, n_cells, n_genes, prepare=quiet)
            yield in_new_process(_peak, path, method, prepare=quiet)


def _write(path: str, n_cells: int, n_genes: int) -> None:
    adata = make_adata(Sizes(min(TILE, n_cells), n_genes))
    repeats = -(-n_cells // adata.n_obs)
    counts = sp.vstack([adata.X] * repeats, format="csr")
    as_adata(counts, adata.obs["batch"].to_list() * repeats).write_h5ad(path)


def _peak(path: str, method: str) -> dict[str, object]:
    warm_up = make_model(method, make_adata(Sizes(300, 50)))
    train(warm_up, 1, batch_size=128)  # code that is loaded late is neither data nor training
    adata = anndata.read_h5ad(path)
    above = PeakMemory()
    above.start()
    model = make_model(method, adata)
    train(model, 1, batch_size=1024)
    model.get_latent_representation(batch_size=1024)
    n_bytes = sum(a.nbytes for a in (adata.X.data, adata.X.indices, adata.X.indptr))
    return {
        "cells": adata.n_obs,
        "method": method,
        "data, GB": n_bytes / 1e9,
        "above the data, GB": above.stop(),
    }


def processes(quick: bool) -> Iterator[dict]:
    """CPU seconds of an epoch in each of two processes (DDP, gloo), against one process."""
    sizes = (1000, 200, 3) if quick else (10_000, 2000, 5)
    for batch_size in (128, 1024):
        rounds = range(1 if quick else 4)
        seconds = [
            [max(_epochs_of_processes(n, batch_size, *sizes)) for n in (1, 2)] for _ in rounds
        ]
        one, two = np.min(seconds, axis=0).tolist()
        yield {
            "data": str(Sizes(*sizes[:2])),
            "minibatch": batch_size,
            "one process, s per epoch": one,
            "each of two, s per epoch": two,
            "x one": two / one,
        }


def _epochs_of_processes(n_processes: int, *sizes: int) -> list[float]:
    """CPU seconds of an epoch in each process."""
    with TemporaryDirectory() as folder:
        arguments = [str(a) for a in (folder, n_processes, *sizes)]
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.ddp", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]


def stores(quick: bool) -> Iterator[dict]:
    """Read a file by scovert and by annbatch, in an environment that is made for it."""
    python = shutil.which("python3.12")
    if python is None:
        return
    sizes = Sizes(1000, 200) if quick else Sizes(100_000, 2000)
    with TemporaryDirectory() as folder:
        make_adata(sizes).write_h5ad(f"{folder}/cells.h5ad")
        subprocess.run([python, "-m", "venv", f"{folder}/venv"], check=True)
        python = f"{folder}/venv/bin/python"
        install = [python, "-m", "pip", "install", "--quiet", "annbatch[zarrs]>=0.2,<0.3"]
        subprocess.run(install, check=True, capture_output=True)
        numbers = (128, WINDOW, BLOCK, 1 if quick else 5)
        script = [python, HERE / "stores.py", folder, *map(str, numbers)]
        subprocess.run(script, check=True, capture_output=True)
        yield from json.loads(Path(f"{folder}/rows.json").read_text())


def anchors(quick: bool) -> Iterator[dict]:
    """Search for anchors, against five epochs of the default with minibatches of 128."""
    sizes = Sizes(1000, 200) if quick else Sizes(20_000, 2000)
    model = make_model("default", make_adata(sizes))
    trainer = partial(train, model, batch_size=128)
    with anchors_found_once():
        epoch = epoch_seconds({"default": trainer}, quick)["default"]
        per_cell = epoch / cells_of_an_epoch(trainer)["drawn"]
    for n_cells in (1000,) if quick else (10_000, 100_000):
        measured = measure_anchors(n_cells, 2)
        seconds = float(measured["in all, s"])
        yield {
            "cells": n_cells,
            "search, s": seconds,
            "five epochs, s": 5 * per_cell * n_cells,
            "epochs": seconds / (per_cell * n_cells),
            "memory, GB": float(measured["memory, GB"]),
            "same type": float(measured["same type"]),
        }
