"""The guard against false anchors: they should join cluster to cluster."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from scovert.anchors._match import Dataset
from scovert.anchors._space import Rows, components_of, log_normalise, nudged

__all__ = ["consistency"]

MIN_CELLS_TO_CLUSTER = 20
MAX_CELLS_TO_CLUSTER = 20_000
NOT_CLUSTERED = -1


def consistency(
    counts: Rows, batch: NDArray, datasets: list[Dataset], pairs: NDArray, seed: int
) -> float:
    """Share of anchors between best-matching clusters, of those that join clustered cells."""
    cluster = np.zeros(len(batch), np.int64)
    for b, data in enumerate(datasets):
        if len(data) >= MIN_CELLS_TO_CLUSTER:
            rows, labels = _cluster(counts, np.flatnonzero(batch == b), data.rows, seed)
            cluster[data.rows] = NOT_CLUSTERED
            cluster[rows] = labels
    pairs = pairs[(cluster[pairs] != NOT_CLUSTERED).all(axis=1)]
    best = 0
    for b, c in combinations(range(len(datasets)), 2):
        between = pairs[(batch[pairs[:, 0]] == b) & (batch[pairs[:, 1]] == c)]
        table = np.zeros((cluster.max() + 1,) * 2, np.int64)
        np.add.at(table, tuple(cluster[between].T), 1)
        best += table.max(axis=0).sum() + table.max(axis=1).sum()
    return float(best / (2 * len(pairs))) if len(pairs) else 0.0


def _cluster(counts: Rows, cells: NDArray, matched: NDArray, seed: int) -> tuple[NDArray, NDArray]:
    """Rows of the matched cells of a dataset, of 20,000 of them if it has more, and clusters."""
    if len(cells) > MAX_CELLS_TO_CLUSTER:
        n_drawn = min(len(matched), MAX_CELLS_TO_CLUSTER)
        drawn = np.random.default_rng(seed).choice(matched, n_drawn, replace=False)
        cells = matched = np.sort(drawn)
    own = components_of(counts[cells], log_normalise, 20, seed=seed)
    return matched, _leiden(own[np.isin(cells, matched)], seed)


def _leiden(components: NDArray, seed: int) -> NDArray:
    import scanpy as sc
    from anndata import AnnData

    cells = AnnData(nudged(components, seed))
    with threadpool_limits():  # numba sets the threads of the whole process, and of torch with it
        sc.pp.neighbors(
            cells, n_neighbors=15, use_rep="X", transformer="sklearn", random_state=seed
        )
    sc.tl.leiden(cells, resolution=1.0, flavor="igraph", n_iterations=2, random_state=seed)
    return cells.obs["leiden"].astype(int).to_numpy()
