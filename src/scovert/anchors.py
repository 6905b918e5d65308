"""Anchors between datasets: pairs of cells that are each other's nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

__all__ = ["Anchors", "find_anchors", "harmony", "principal_components"]

Embed = Callable[[NDArray, NDArray], NDArray]

N_NEIGHBORS = 5
N_OWN_NEIGHBORS = 15
FULL_SUPPORT = 0.3
MIN_CONSISTENCY = 0.72
MIN_CELLS_TO_CLUSTER = 20


@dataclass(frozen=True)
class Anchors:
    """Anchors of a set of cells.

    Attributes
    ----------
    pairs
        Rows of the two cells of every anchor, shape ``(n_anchors, 2)``.
    partners
        Sparse 0/1 matrix, shape ``(n_cells, n_cells)``: row ``i`` marks the cells anchored to
        ``i``. A cell that was not matched has the partners of the nearest one that was.
    support
        Share of anchored cells around each cell, towards each dataset, in [0, 1], shape
        ``(n_cells, n_datasets)``; NaN in the column of the cell's own dataset.
    consistency
        Share of anchors that join the best-matching clusters of two datasets, in [0, 1]; 0 when
        there is no anchor.
    """

    pairs: NDArray
    partners: sp.csr_matrix
    support: NDArray
    consistency: float

    @property
    def are_trusted(self) -> bool:
        """Whether the anchors agree with the clusters of each dataset (0.72 or more do)."""
        return self.consistency >= MIN_CONSISTENCY


def harmony(components: NDArray, batch: NDArray, *, seed: int = 0) -> NDArray:
    """Remove what differs between datasets from principal components :cite:p:`Korsunsky19`.

    Parameters
    ----------
    components
        Principal components, shape ``(n_cells, n_components)``.
    batch
        Dataset of each cell, shape ``(n_cells,)``.
    seed
        Seed of its clustering.

    Returns
    -------
    Corrected components, shape ``(n_cells, n_components)``.
    """
    import harmonypy
    import pandas as pd

    table = pd.DataFrame({"batch": np.asarray(batch).astype(str)})
    n_clusters = int(np.clip(round(len(components) / 30), 1, 100))  # its default, at least one
    options = {"nclust": n_clusters, "random_state": seed, "verbose": False}
    result = harmonypy.run_harmony(components.astype(np.float64), table, "batch", **options)
    corrected = np.asarray(result.Z_corr)
    return corrected if corrected.shape == components.shape else corrected.T


def principal_components(
    expression: NDArray | sp.spmatrix, n_components: int, *, clip: float = 10.0, seed: int = 0
) -> NDArray:
    """Principal components of genes scaled to unit variance, without a dense scaled matrix.

    Values more than `clip` standard deviations above the mean of their gene are cut there.

    Parameters
    ----------
    expression
        Log-normalised expression, shape ``(n_cells, n_genes)``.
    n_components
        Number of components; fewer are returned when the data have a lower rank.
    clip
        Largest scaled value, in standard deviations.
    seed
        Seed of the solver's start vector.

    Returns
    -------
    Components, shape ``(n_cells, min(n_components, n_cells - 1, n_genes - 1))``, float32.
    """
    from sklearn.decomposition import PCA

    x = sp.csc_matrix(expression, dtype=np.float64, copy=True)
    mean = np.asarray(x.mean(axis=0)).ravel()
    variance = np.asarray(x.multiply(x).mean(axis=0)).ravel() - mean**2
    n_cells = x.shape[0]
    sd = np.sqrt(np.maximum(variance, 0) * n_cells / max(n_cells - 1, 1))
    is_constant = variance <= 1e-10 * mean**2
    sd[is_constant] = 1.0
    n_per_gene = np.diff(x.indptr)
    highest, scale = (np.repeat(v, n_per_gene) for v in (mean + clip * sd, sd))
    x.data = np.minimum(x.data, highest) / scale
    n_components = max(1, min(n_components, min(x.shape) - 1))
    if is_constant.all():
        return np.zeros((n_cells, n_components), np.float32)
    pca = PCA(n_components, svd_solver="arpack", random_state=seed)
    return pca.fit_transform(x.tocsr()).astype(np.float32)


def find_anchors(
    counts: NDArray | sp.spmatrix,
    batch: NDArray,
    *,
    train: NDArray | None = None,
    embed: Embed = harmony,
    seed: int = 0,
) -> Anchors:
    r"""Find pairs of cells of different datasets that are mutual nearest neighbours.

    Mutual nearest neighbours :cite:p:`Haghverdi18` are sought between every two datasets in the
    space that `embed` makes of 30 principal components. The larger of two datasets is searched
    deeper, :math:`k = 5 \max(1, n_\text{searched} / n_\text{searching})`. Pairs are dropped that
    lie much further apart than the others, :math:`d > \text{median} + 2 \cdot 1.4826\,\text{MAD}`,
    or that few other pairs between the surroundings of the two cells confirm (the lowest 10 %, in
    the manner of :cite:t:`Stuart19`).

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``.
    batch
        Dataset of each cell as a code from 0, shape ``(n_cells,)``.
    train
        Which cells are matched, boolean, shape ``(n_cells,)``; the others receive the support of
        their nearest matched cells. `None` matches all.
    embed
        Function from principal components and datasets to the space in which neighbours are
        sought.
    seed
        Seed of the principal components and of the clustering in the guard.

    Returns
    -------
    The anchors, the support of every cell and the consistency that guards against false anchors.

    Notes
    -----
    The consistency clusters each dataset alone (Leiden :cite:p:`Traag19`) and counts the anchors
    :math:`T_{ab}` between clusters: :math:`q = (\sum_a \max_b T_{ab} + \sum_b \max_a T_{ab}) / 2
    \sum T`, summed over the pairs of datasets.
    """
    batch = np.asarray(batch).ravel()
    train = np.ones(len(batch), bool) if train is None else np.asarray(train, bool)
    expression = _log_normalise(counts)
    space = _unit_rows(embed(principal_components(expression, 30, seed=seed), batch))
    rows = [np.flatnonzero((batch == b) & train) for b in range(batch.max() + 1)]
    datasets = [_Dataset.build(space, r) for r in rows]
    pairs = _match_all(datasets, deeper=True)
    return Anchors(
        pairs=pairs,
        partners=_partners(pairs, space, batch, datasets),
        support=_support(pairs, space, batch, datasets),
        consistency=_consistency(expression, batch, datasets, seed),
    )


@dataclass(frozen=True)
class _Dataset:
    """Matched cells of one dataset: rows in all cells, positions, their own neighbourhoods."""

    rows: NDArray
    space: NDArray
    near: NDArray
    radius: NDArray

    @classmethod
    def build(cls, space: NDArray, rows: NDArray) -> _Dataset:
        """Measure the own neighbourhoods of the matched cells."""
        own = space[rows]
        near, _ = _nearest(own, own, N_OWN_NEIGHBORS)
        _, distance = _nearest(own, own, N_NEIGHBORS)
        radius = np.median(distance, axis=1)
        return cls(rows, own, near, np.maximum(radius, np.finfo(np.float32).eps))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def neighbourhoods(self) -> sp.csr_matrix:
        """0/1 matrix that marks the 15 own neighbours of each cell, itself included."""
        return _incidence(self.near, len(self))


def _log_normalise(counts: NDArray | sp.spmatrix) -> sp.csr_matrix:
    x = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    total = np.asarray(x.sum(axis=1)).ravel()
    x.data *= np.repeat(1e4 / np.maximum(total, 1), np.diff(x.indptr)).astype(np.float32)
    return x.log1p()


def _unit_rows(x: NDArray) -> NDArray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _nearest(reference: NDArray, query: NDArray, k: int) -> tuple[NDArray, NDArray]:
    """Rows of the `k` nearest cells of `reference` and their distances."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(k, len(reference))).fit(reference)
    distance, near = index.kneighbors(query)
    return near, distance


def _incidence(near: NDArray, n_columns: int) -> sp.csr_matrix:
    """0/1 matrix that marks column ``near[i, j]`` in row ``i``."""
    indptr = np.arange(0, near.size + 1, near.shape[1])
    ones = np.ones(near.size, np.float32)
    return sp.csr_matrix((ones, near.ravel(), indptr), shape=(len(near), n_columns))


def _match_all(datasets: list[_Dataset], *, deeper: bool) -> NDArray:
    found = [
        _match(p, c, deeper=deeper) for p, c in combinations(datasets, 2) if len(p) and len(c)
    ]
    return np.concatenate([*found, np.zeros((0, 2), np.int64)])


def _match(p: _Dataset, c: _Dataset, *, deeper: bool) -> NDArray:
    """Anchors between two datasets, as rows in all cells."""
    ratio = len(c) / len(p) if deeper else 1.0
    k_p, k_c = (round(N_NEIGHBORS * max(1.0, r)) for r in (ratio, 1 / ratio))
    to_c = _incidence(_nearest(c.space, p.space, k_p)[0], len(c))
    to_p = _incidence(_nearest(p.space, c.space, k_c)[0], len(p))
    mutual = to_c.multiply(to_p.T).tocsr()
    i, j = mutual.nonzero()
    if len(i) == 0:
        return np.zeros((0, 2), np.int64)
    kept = _close(p, c, i, j) & _confirmed(p, c, mutual, i, j)
    return np.stack([p.rows[i[kept]], c.rows[j[kept]]], axis=1)


def _close(p: _Dataset, c: _Dataset, i: NDArray, j: NDArray) -> NDArray:
    distance = np.linalg.norm(p.space[i] - c.space[j], axis=1) / np.sqrt(p.radius[i] * c.radius[j])
    median = np.median(distance)
    return distance <= median + 2 * 1.4826 * np.median(np.abs(distance - median))


def _confirmed(p: _Dataset, c: _Dataset, mutual: sp.csr_matrix, i: NDArray, j: NDArray) -> NDArray:
    around_p = (p.neighbourhoods @ mutual)[i]  # (n_pairs, n_c)
    score = np.asarray(around_p.multiply(c.neighbourhoods[j]).sum(axis=1)).ravel()
    return score >= np.quantile(score, 0.1)


def _matched_neighbours(
    space: NDArray, batch: NDArray, datasets: list[_Dataset], k: int
) -> Iterator[tuple[NDArray, NDArray]]:
    """For each dataset, its cells that were not matched and their nearest cells that were."""
    for b, data in enumerate(datasets):
        others = np.setdiff1d(np.flatnonzero(batch == b), data.rows)
        if len(others) and len(data):
            yield others, data.rows[_nearest(data.space, space[others], k)[0]]


def _partners(
    pairs: NDArray, space: NDArray, batch: NDArray, datasets: list[_Dataset]
) -> sp.csr_matrix:
    n = len(batch)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    graph = sp.csr_matrix((np.ones(len(both), np.int8), both.T), shape=(n, n))
    source = np.arange(n)
    for others, near in _matched_neighbours(space, batch, datasets, 1):
        source[others] = near[:, 0]
    return graph[source]


def _support(pairs: NDArray, space: NDArray, batch: NDArray, datasets: list[_Dataset]) -> NDArray:
    support = np.full((len(batch), len(datasets)), np.nan, np.float32)
    for b, c in combinations(range(len(datasets)), 2):
        between = pairs[(batch[pairs[:, 0]] == b) & (batch[pairs[:, 1]] == c)]
        for own, other, side in ((b, c, 0), (c, b, 1)):
            data = datasets[own]
            anchored = np.isin(data.rows, between[:, side])
            share = anchored[data.near].mean(axis=1)
            support[data.rows, other] = np.minimum(1, share / FULL_SUPPORT)
    for others, near in _matched_neighbours(space, batch, datasets, N_OWN_NEIGHBORS):
        support[others] = support[near].mean(axis=1)
    return support


def _consistency(
    expression: sp.csr_matrix, batch: NDArray, datasets: list[_Dataset], seed: int
) -> float:
    cluster = np.zeros(len(batch), np.int64)
    for b, data in enumerate(datasets):
        cells = np.flatnonzero(batch == b)
        if len(data) >= MIN_CELLS_TO_CLUSTER:
            own = principal_components(expression[cells], 20, seed=seed)
            cluster[data.rows] = _leiden(own[np.isin(cells, data.rows)], seed)
    pairs = _match_all(datasets, deeper=False)
    best = 0
    for b, c in combinations(range(len(datasets)), 2):
        between = pairs[(batch[pairs[:, 0]] == b) & (batch[pairs[:, 1]] == c)]
        table = np.zeros((cluster.max() + 1,) * 2, np.int64)
        np.add.at(table, tuple(cluster[between].T), 1)
        best += table.max(axis=0).sum() + table.max(axis=1).sum()
    return float(best / (2 * len(pairs))) if len(pairs) else 0.0


def _leiden(components: NDArray, seed: int) -> NDArray:
    import scanpy as sc
    from anndata import AnnData
    from threadpoolctl import threadpool_limits

    cells = AnnData(components)
    with threadpool_limits():  # numba sets the threads of the whole process, and of torch with it
        sc.pp.neighbors(cells, n_neighbors=15, use_rep="X", random_state=seed)
    sc.tl.leiden(cells, resolution=1.0, flavor="igraph", n_iterations=2, random_state=seed)
    return cells.obs["leiden"].astype(int).to_numpy()
