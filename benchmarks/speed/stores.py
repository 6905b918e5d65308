"""Reading of `stores` in scale.py: a script, since annbatch needs a Python of its own.

    python3.12 stores.py FOLDER BATCH_SIZE WINDOW BLOCK N_ROUNDS

Reads all cells of FOLDER/cells.h5ad in shuffled minibatches, from that file and from copies in
other formats, with the reader of scovert and with annbatch; writes FOLDER/rows.json. Both read
blocks at random, as many as fill a window, and shuffle their rows.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import scipy.sparse as sp
import zarr
from annbatch import DatasetCollection, Loader

COUNTS = Path(__file__).resolve().parents[2] / "src" / "scovert" / "core" / "_counts.py"
DECODERS = {
    "zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline",
    "zarrs": "zarrs.ZarrsCodecPipeline",
}


class Sizes(NamedTuple):
    """Cells in a minibatch, in memory at once, and in a block that is read."""

    batch: int
    window: int
    block: int


def stored_rows() -> type:
    """Return StoredRows of scovert without the rest, which needs torch."""
    spec = importlib.util.spec_from_file_location("_counts", COUNTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.StoredRows


StoredRows = stored_rows()


def shuffled(dataset: object, sizes: Sizes) -> Iterator[sp.csr_matrix]:
    """Minibatches as those of `_Windows` in `scovert.model.paired._data`, as sparse matrices."""
    rows = StoredRows(anndata.io.sparse_dataset(dataset))
    rng = np.random.default_rng()
    starts = rng.permutation(np.arange(0, rows.shape[0], sizes.block))
    for blocks in np.array_split(starts, -(-rows.shape[0] // sizes.window)):
        window = sp.vstack([rows[s : s + sizes.block] for s in np.sort(blocks)], format="csr")
        order = rng.permutation(window.shape[0])
        for start in range(0, len(order), sizes.batch):
            yield window[order[start : start + sizes.batch]]


def from_h5ad(path: Path, sizes: Sizes) -> Iterator[sp.csr_matrix]:
    with h5py.File(path) as file:
        yield from shuffled(file["X"], sizes)


def from_zarr(path: Path, name: str, sizes: Sizes) -> Iterator[sp.csr_matrix]:
    yield from shuffled(zarr.open(path, mode="r")[name], sizes)


def from_collection(path: Path, sizes: Sizes) -> Iterator[sp.csr_matrix]:
    loader = Loader(
        batch_size=sizes.batch,
        chunk_size=sizes.block,
        preload_nchunks=sizes.window // sizes.block,
        shuffle=True,
        preload_to_gpu=False,
        to=None,
    )
    loader.use_collection(DatasetCollection(path), load_adata=counts_only)
    for minibatch in loader:
        yield minibatch["X"]


def counts_only(group: zarr.Group) -> anndata.AnnData:
    return anndata.AnnData(X=anndata.io.sparse_dataset(group["X"]))


def forget(path: Path) -> None:
    """Drop a file, or the files of a folder, from the memory of the system."""
    os.sync()
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open() as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size_of(path: Path) -> float:
    """Return the size of a file or of a folder in GB."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files) / 1e9


def seconds(path: Path, read: Callable[[], Iterator[sp.csr_matrix]]) -> tuple[float, float]:
    """CPU time, and time on the wall, of one epoch."""
    forget(path)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in read():
        pass
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    warnings.filterwarnings("ignore")
    folder = Path(sys.argv[1])
    *sizes, n_rounds = map(int, sys.argv[2:])
    sizes = Sizes(*sizes)
    h5ad, plain, collection = (folder / n for n in ("cells.h5ad", "cells.zarr", "annbatch.zarr"))
    anndata.read_h5ad(h5ad).write_zarr(plain)
    DatasetCollection(collection).add_adatas([h5ad])
    annbatch = f"annbatch {version('annbatch')}"
    of_anndata = partial(from_zarr, plain, "X", sizes)
    of_annbatch = partial(from_zarr, collection, "dataset_0/X", sizes)
    by_annbatch = partial(from_collection, collection, sizes)
    readers = {
        ("h5ad", "scovert", "-"): (h5ad, partial(from_h5ad, h5ad, sizes)),
        ("zarr of anndata", "scovert", "zarr"): (plain, of_anndata),
        ("zarr of anndata", "scovert", "zarrs"): (plain, of_anndata),
        ("collection of annbatch", "scovert", "zarr"): (collection, of_annbatch),
        ("collection of annbatch", "scovert", "zarrs"): (collection, of_annbatch),
        ("collection of annbatch", annbatch, "zarr"): (collection, by_annbatch),
        ("collection of annbatch", annbatch, "zarrs"): (collection, by_annbatch),
    }
    best = dict.fromkeys(readers, (math.inf, math.inf))
    for _ in range(n_rounds):
        for name, (path, read) in readers.items():
            zarr.config.set({"codec_pipeline.path": DECODERS.get(name[2], DECODERS["zarr"])})
            best[name] = tuple(map(min, best[name], seconds(path, read)))
    rows = [
        {
            "file": name[0],
            "file, GB": size_of(readers[name][0]),
            "reader": name[1],
            "decoder": name[2],
            "CPU s per epoch": cpu,
            "s per epoch": wall,
        }
        for name, (cpu, wall) in best.items()
    ]
    (folder / "rows.json").write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
