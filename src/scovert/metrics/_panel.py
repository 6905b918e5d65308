"""Scores of biology and batch in one table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_samples,
    silhouette_score,
)

from scovert.metrics._cells import (
    Cells,
    batches_around,
    batches_of_types,
    check_cells,
    neighbours,
    of_shared_types,
)
from scovert.metrics._integration import label_transfer, mixing_of_types

__all__ = ["integration_panel"]

_N_NEIGHBORS = 30  # of label purity, mixing and iLISI: the perplexity of LISI in Korsunsky19
_N_GRAPH_NEIGHBORS = 15  # of graph connectivity: the default of scanpy's graph
_BIO_WEIGHT, _BATCH_WEIGHT = 0.6, 0.4  # of the total, as in scIB


def integration_panel(
    embedding: ArrayLike,
    batch: ArrayLike,
    labels: ArrayLike,
    *,
    n_init: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score biology and batch like scIB :cite:p:`Luecken22`, light enough for every run.

    All scores lie in [0, 1], and 1 is best; only kmeans_ari can fall a little below 0.

    ================== =======================================================================
    kmeans_nmi         Normalised mutual information of the types and KMeans (one cluster a type)
    kmeans_ari         Adjusted Rand index of the same two; 0 for chance
    label_silhouette   :math:`(s + 1) / 2`, s the mean silhouette of the types
    label_purity       Share of same-type cells among the 30 nearest
    batch_silhouette   Mean over types and batches of :math:`1 - \mathrm{mean}|s_i|`, s_i the
                       silhouette of the batches within a type
    ilisi              Mean over types of :math:`(\bar{d} - 1) / (d_t - 1)`, at most 1;
                       :math:`\bar{d}` the mean of the effective number of batches
                       :math:`1 / \sum_b p_{ib}^2` among the 30 nearest :cite:p:`Korsunsky19`,
                       :math:`d_t` the same number for all cells of the type together
    mixing             :func:`batch_mixing` with 30 neighbours
    graph_connectivity Mean over types of the share of cells in the largest connected part of
                       the graph of the type's cells (15 nearest among all)
    bio                Mean of the first four
    batch              Mean of batch_silhouette, ilisi, mixing and graph_connectivity
    total              :math:`0.6 \, \mathrm{bio} + 0.4 \, \mathrm{batch}`
    label_transfer     :func:`label_transfer` with 15 neighbours; no part of the total
    ================== =======================================================================

    The first four and the last use all cells. The batch scores use the cells of shared types:
    those with at least five cells in every batch. This is not the panel of the package
    scib-metrics, which has other neighbourhoods and scores: compare numbers within one panel only.

    Parameters
    ----------
    embedding
        Coordinates of the cells, shape ``(n_cells, n_dims)``.
    batch
        Batch of each cell, shape ``(n_cells,)``; two or more batches.
    labels
        Type of each cell, shape ``(n_cells,)``; two or more types.
    n_init
        Starts of KMeans, of which the best counts. With few starts two runs on the same embedding
        can end in different solutions, and the score is that of luck.
    seed
        Seed of KMeans.

    Returns
    -------
    DataFrame with the metrics above as index `metric`, in this order, and the column ``value``.

    Raises
    ------
    ValueError
        If the arrays do not fit together, no type is shared, there is one type only, or 30
        neighbours are more than there are cells.

    Notes
    -----
    The time of the silhouettes grows with the square of the number of cells. The panel rewards
    compact clusters and hardly punishes mixing of types that only one batch has: see
    :func:`invaded_share` and :func:`purity`.
    """
    cells = check_cells(embedding, batch, labels)
    if len(cells.sizes) < 2:
        raise ValueError(
            f"All cells have the label {cells.sizes.index[0]!r}. The panel needs two types. "
            "For one type use `batch_mixing`."
        )
    bio = _bio_scores(cells, n_init, seed)
    mixed = _batch_scores(of_shared_types(cells))
    means = {"bio": np.mean(list(bio.values())), "batch": np.mean(list(mixed.values()))}
    total = _BIO_WEIGHT * means["bio"] + _BATCH_WEIGHT * means["batch"]
    transfer = label_transfer(embedding, batch, labels)
    scores = {**bio, **mixed, **means, "total": total, "label_transfer": transfer}
    return pd.DataFrame({"value": pd.Series(scores, dtype=float)}).rename_axis("metric")


def _bio_scores(cells: Cells, n_init: int, seed: int) -> dict[str, float]:
    k_means = KMeans(len(cells.sizes), n_init=n_init, random_state=seed)
    clusters = k_means.fit_predict(cells.embedding)
    near = cells.labels[neighbours(cells.embedding, _N_NEIGHBORS)]  # (n_cells, n_neighbors)
    return {
        "kmeans_nmi": normalized_mutual_info_score(cells.labels, clusters),
        "kmeans_ari": adjusted_rand_score(cells.labels, clusters),
        "label_silhouette": (silhouette_score(cells.embedding, cells.labels) + 1) / 2,
        "label_purity": (near == cells.labels[:, None]).mean(),
    }


def _batch_scores(cells: Cells) -> dict[str, float]:
    composition = batches_around(cells, _N_NEIGHBORS)
    return {
        "batch_silhouette": _batch_silhouette(cells),
        "ilisi": _ilisi(cells, composition),
        "mixing": float(mixing_of_types(cells, composition).mean()),
        "graph_connectivity": _graph_connectivity(cells),
    }


def _batch_silhouette(cells: Cells) -> float:
    scores = []
    for t in cells.sizes.index:
        own = cells.labels == t
        silhouette = np.abs(silhouette_samples(cells.embedding[own], cells.batch[own]))
        batch = cells.batch[own]
        scores.append(np.mean([1 - silhouette[batch == b].mean() for b in cells.sizes.columns]))
    return float(np.mean(scores))


def _ilisi(cells: Cells, composition: np.ndarray) -> float:
    scores = []
    for t, expected in batches_of_types(cells).items():
        found = composition[cells.labels == t]  # (n_cells_of_type, n_batches)
        gain = (1 / np.square(found).sum(1) - 1).mean() / (1 / np.square(expected).sum() - 1)
        scores.append(min(gain, 1))
    return float(np.mean(scores))


def _graph_connectivity(cells: Cells) -> float:
    near = neighbours(cells.embedding, _N_GRAPH_NEIGHBORS)
    n_cells, k = near.shape
    rows = np.repeat(np.arange(n_cells), k)
    graph = sparse.csr_matrix((np.ones(near.size), (rows, near.ravel())), (n_cells, n_cells))
    scores = []
    for t in cells.sizes.index:
        own = np.flatnonzero(cells.labels == t)
        _, part = connected_components(graph[own][:, own], directed=False)
        scores.append(np.bincount(part).max() / len(own))
    return float(np.mean(scores))
