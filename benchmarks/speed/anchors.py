"""Time and memory of the search for anchors as the data grow; prints Markdown tables.

    python -m benchmarks.speed.anchors                      # the sizes below
    python -m benchmarks.speed.anchors 10000x2 100000x5     # cells x datasets
    python -m benchmarks.speed.anchors --agreement 60000x2  # the short cuts v. none of them

Every line is measured in a process of its own. Set the threads before (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pandas as pd
import scanpy  # noqa: F401  its import is no part of the search
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.processes import PeakMemory, in_new_process
from scovert.anchors import Anchors, _classes, _find, _match, _space, find_anchors

SIZES = ["10000x2", "100000x2", "100000x5", "1000000x2"]
N_GENES = 2_000
N_TYPES = 20
N_PROGRAMS = 5
DENSITY = 0.08
TRAIN_SHARE = 0.9
BLOCK = 5_000
STAGES = {
    "components": (_find, "components_of"),
    "classes": (_classes.Classes, "fit"),
    "positions": (_find, "_points"),
    "own neighbours": (_match.Dataset, "build"),
    "matching": (_find, "match_all"),
    "support": (_classes.Classes, "spread"),
    "other cells": (_find, "_partners"),
}


def simulate(
    n_cells: int, n_datasets: int, n_genes: int = N_GENES, seed: int = 0
) -> tuple[sp.csr_matrix, NDArray, NDArray]:
    """Negative binomial counts of 20 types and 5 continuous programs, 8 % of them not zero.

    Every dataset changes every gene by a factor of its own.

    Returns
    -------
    Counts, dataset and type of each cell.
    """
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, n_datasets, n_cells)
    types = rng.choice(N_TYPES, n_cells, p=rng.dirichlet(np.full(N_TYPES, 3.0)))
    profile = rng.normal(0, 1.6, n_genes) + rng.normal(0, 0.7, (N_TYPES, n_genes))
    programs = rng.normal(0, 0.3, (N_PROGRAMS, n_genes))
    shift = rng.normal(0, 0.5, (n_datasets, n_genes))
    theta = np.exp(rng.normal(0.3, 0.7, n_genes)).astype(np.float32)

    def mean(rows: slice) -> NDArray:
        logs = profile[types[rows]] + shift[batch[rows]]
        logs += rng.normal(size=(len(logs), N_PROGRAMS)) @ programs
        share = np.exp(logs).astype(np.float32)
        share /= share.sum(axis=1, keepdims=True)
        return share * rng.lognormal(0, 0.45, (len(share), 1)).astype(np.float32)

    depth = _depth(mean(slice(0, 400)), theta)
    blocks = []
    for start in range(0, n_cells, BLOCK):
        m = depth * mean(slice(start, start + BLOCK))
        rate = rng.standard_gamma(np.broadcast_to(theta, m.shape), dtype=np.float32) * (m / theta)
        blocks.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    return sp.vstack(blocks, format="csr"), batch, types


def _depth(mean: NDArray, theta: NDArray) -> float:
    """Find by bisection the factor of `mean` at which 8 % of the counts are not zero."""
    low, high = 1.0, 1e6
    for _ in range(50):
        middle = (low * high) ** 0.5
        share = (1 - (theta / (theta + mean * middle)) ** theta).mean()
        low, high = (middle, high) if share < DENSITY else (low, middle)
    return low


def _timed(function: Callable, seconds: dict[str, float], stage: str) -> Callable:
    def run(*args, **kwargs):
        start = time.process_time()
        result = function(*args, **kwargs)
        result = list(result) if isinstance(result, Iterator) else result
        seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - start
        return result

    return run


@contextmanager
def _stages(seconds: dict[str, float]) -> Iterator[None]:
    patches = [
        patch.object(owner, name, _timed(getattr(owner, name), seconds, stage))
        for stage, (owner, name) in STAGES.items()
    ]
    for p in patches:
        p.start()
    yield
    for p in patches:
        p.stop()


def _train(n_cells: int) -> NDArray:
    return np.random.default_rng(1).random(n_cells) < TRAIN_SHARE


def measure(n_cells: int, n_datasets: int) -> dict[str, object]:
    """Return what `_measure` found, in a process that holds nothing but the data."""
    with TemporaryDirectory() as folder:
        in_new_process(_write, folder, n_cells, n_datasets)
        return in_new_process(_measure, folder)


def _write(folder: str, n_cells: int, n_datasets: int) -> None:
    counts, batch, types = simulate(n_cells, n_datasets)
    sp.save_npz(f"{folder}/counts.npz", counts, compressed=False)
    np.savez(f"{folder}/cells.npz", batch=batch, types=types)


def _measure(folder: str) -> dict[str, object]:
    """CPU seconds by stage, peak memory in GB above the data, and how good the anchors are."""
    counts = sp.load_npz(f"{folder}/counts.npz")
    batch, types = np.load(f"{folder}/cells.npz").values()
    n_cells = len(batch)
    seconds: dict[str, float] = {}
    memory = PeakMemory()
    memory.start()
    start = time.process_time()
    with _stages(seconds):
        found = find_anchors(counts, batch, train=_train(n_cells))
    total = time.process_time() - start
    return {
        "cells": f"{n_cells:,}",
        "datasets": batch.max() + 1,
        **{f"{stage}, s": f"{seconds[stage]:.1f}" for stage in STAGES},
        "in all, s": f"{total:.1f}",
        "memory, GB": f"{memory.stop():.2f}",
        "data, GB": f"{(counts.data.nbytes + counts.indices.nbytes) / 1e9:.2f}",
        "anchors": f"{len(found.pairs):,}",
        "same type": f"{(types[found.pairs[:, 0]] == types[found.pairs[:, 1]]).mean():.3f}",
        "clarity": f"{found.clarity:.3f}",
        "mean support": f"{np.nanmean(found.support):.3f}",
    }


def agreement(n_cells: int, n_datasets: int) -> list[dict[str, object]]:
    """How the result changes with each short cut, taken at sizes at which none is needed.

    Each threshold is lowered so that the short cut takes part as it does with a million cells.
    Three types are missing from the first dataset, so that support differs between cells.
    """
    counts, batch, types = simulate(n_cells, n_datasets)
    kept = (batch != 0) | (types >= 3)
    counts, batch, types = counts[kept], batch[kept], types[kept]
    cuts = {
        "none": {},
        "classes of a fifth": {(_classes, "MAX_CELLS_TO_FIT"): n_cells // 5},
        "components of a fifth": {(_space, "MAX_CELLS_TO_FIT"): n_cells // 5},
        "anchors of a fifth": {(_find, "MAX_CELLS"): n_cells // 5},
    }
    cuts["all of them"] = {k: v for cut in cuts.values() for k, v in cut.items()}
    rows, exact = [], None
    for name, values in cuts.items():
        found = _find_with(values, counts, batch)
        exact = found if exact is None else exact
        rows.append({"short cut": name, **_compare(found, exact, batch, types)})
    return rows


def _find_with(values: dict, counts: sp.csr_matrix, batch: NDArray) -> Anchors:
    patches = [patch.object(owner, name, value) for (owner, name), value in values.items()]
    for p in patches:
        p.start()
    found = find_anchors(counts, batch, train=_train(len(batch)))
    for p in patches:
        p.stop()
    return found


def _compare(found: Anchors, exact: Anchors, batch: NDArray, types: NDArray) -> dict[str, str]:
    known = np.isfinite(exact.support)
    both = np.corrcoef(found.support[known], exact.support[known])[0, 1]
    pairs = {tuple(p) for p in exact.pairs.tolist()}
    known_pairs = np.mean([tuple(p) in pairs for p in found.pairs.tolist()])
    i, j = found.pairs.T
    partners = found.partners.tocoo()
    missing = found.support[(types < 3) & (batch != 0), 0].mean()
    return {
        "anchors": f"{len(found.pairs):,}",
        "of them without the short cut": f"{known_pairs:.3f}",
        "same type": f"{(types[i] == types[j]).mean():.3f}",
        "partners of the same type": f"{(types[partners.row] == types[partners.col]).mean():.3f}",
        "correlation of support": f"{both:.3f}",
        "support of missing types": f"{missing:.3f}",
        "clarity": f"{found.clarity:.3f}",
    }


def table(rows: list[dict[str, object]]) -> str:
    """Markdown table with a line for each row."""
    lines = pd.DataFrame(rows).astype(str)
    heads = "| " + " | ".join(lines.columns) + " |"
    body = ["| " + " | ".join(line) + " |" for line in lines.to_numpy()]
    return "\n".join([heads, "|" + " --- |" * lines.shape[1], *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", default=SIZES, help="cells x datasets, as 100000x2")
    parser.add_argument("--agreement", action="store_true", help="what the short cuts change")
    args = parser.parse_args()
    sizes = [tuple(int(n) for n in size.split("x")) for size in args.sizes]
    if args.agreement:
        for size in sizes:
            print(table(agreement(*size)), end="\n\n")
        return
    print(table([measure(*size) for size in sizes]))


if __name__ == "__main__":
    main()
