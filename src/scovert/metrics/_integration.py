"""How well an embedding joins datasets and keeps cell types apart: arrays in, numbers out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.special import rel_entr
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_samples,
    silhouette_score,
)
from sklearn.neighbors import NearestNeighbors

from scovert.core._labelled import by_name

__all__ = ["batch_mixing", "integration_panel", "invaded_share", "label_transfer", "purity"]

_MIN_CELLS = 5  # of a type in every batch, for the type to count as shared
_N_NEIGHBORS = 30  # of label purity, mixing and iLISI in the panel
_N_GRAPH_NEIGHBORS = 15  # of graph connectivity
_BIO_WEIGHT, _BATCH_WEIGHT = 0.6, 0.4  # of the total, as in scIB


class _Cells(NamedTuple):
    embedding: np.ndarray  # (n_cells, n_dims), float32
    batch: np.ndarray  # (n_cells,), strings
    labels: np.ndarray  # (n_cells,), strings
    sizes: pd.DataFrame  # (n_types, n_batches), cells of each type in each batch


def label_transfer(
    embedding: ArrayLike, batch: ArrayLike, labels: ArrayLike, *, n_neighbors: int = 15
) -> float:
    r"""Predict the types of each batch from the other batches, and score the predictions.

    Each cell takes the most frequent type among its nearest neighbours in the *other* batches. The
    score of batch b is the balanced accuracy over the types T_b that also occur elsewhere, and
    the result is the mean over the batches:

    .. math:: \frac{1}{B} \sum_b \frac{1}{|T_b|} \sum_{t \in T_b}
        P(\hat y_i = t \mid y_i = t, b_i = b)

    Only neighbours from other batches count. So the score is low both for an embedding that
    leaves the batches apart in the wrong order and for one that joins different types; mixing
    scores do not see the types of the neighbours.

    Parameters
    ----------
    embedding
        Coordinates of the cells, shape ``(n_cells, n_dims)``.
    batch
        Batch of each cell, shape ``(n_cells,)``; two or more batches.
    labels
        Type of each cell, shape ``(n_cells,)``.
    n_neighbors
        Neighbours that vote. Of types with equal votes the one with the nearest neighbour wins.

    Returns
    -------
    Balanced accuracy in [0, 1]; 1 is best.

    Raises
    ------
    ValueError
        If the arrays do not fit together, no type occurs in two batches, or there are too few
        cells for `n_neighbors`.
    """
    cells = _checked(embedding, batch, labels)
    elsewhere = (cells.sizes > 0).sum(axis=1) > 1
    scores = [
        _balanced_accuracy(cells, b, cells.sizes.index[(n > 0) & elsewhere], n_neighbors)
        for b, n in cells.sizes.items()
        if ((n > 0) & elsewhere).any()
    ]
    if not scores:
        raise ValueError(
            f"No type of {list(cells.sizes.index)} occurs in two batches. Label transfer needs "
            "one. Check that the labels of the batches use the same names."
        )
    return float(np.mean(scores))


def batch_mixing(
    embedding: ArrayLike, batch: ArrayLike, labels: ArrayLike, *, n_neighbors: int = 30
) -> float:
    r"""Compare the batches around each cell with the batches of its type.

    Let :math:`p_i` be the shares of the batches among the nearest neighbours of cell i, and
    :math:`q_t` their shares among all cells of type t. The score of a type is the mean over its
    cells of

    .. math:: \exp\left(-\mathrm{KL}(p_i \,\|\, q_t)\right)
        = \exp\Big(-\sum_b p_{ib} \log \frac{p_{ib}}{q_{tb}}\Big),

    and the result is the mean over the shared types: those with at least five cells in every
    batch. All other cells are left out. Each type is compared with its own mixture, so
    batches of unequal size are no fault.

    Parameters
    ----------
    embedding
        Coordinates of the cells, shape ``(n_cells, n_dims)``.
    batch
        Batch of each cell, shape ``(n_cells,)``; two or more batches.
    labels
        Type of each cell, shape ``(n_cells,)``.
    n_neighbors
        Neighbours of each cell.

    Returns
    -------
    Score in (0, 1], 1 for perfect mixing. Separated batches do not give 0 but
    :math:`\sum_b q_{tb}^2`, which is 0.5 for two batches of equal size. Chance keeps even random
    neighbours a little below 1.

    Raises
    ------
    ValueError
        If the arrays do not fit together, no type is shared, or there are too few cells for
        `n_neighbors`.
    """
    cells = _shared(_checked(embedding, batch, labels))
    return _mixing(cells, _composition(cells, n_neighbors))


def invaded_share(
    embedding: ArrayLike,
    batch: ArrayLike,
    labels: ArrayLike,
    *,
    n_neighbors: int = 15,
    threshold: float = 0.2,
) -> float:
    r"""Share of the cells of unique types that lie among cells they cannot be matched with.

    A type is unique if at least one batch has none of it. A cell of such a type is invaded if
    more than `threshold` of its nearest neighbours come from the batches that lack the type:

    .. math:: \mathrm{mean}_t \ \mathrm{mean}_{i: y_i = t}
        \left[ \frac{|\{j \in N_i: b_j \in L_t\}|}{|N_i|} > \mathrm{threshold} \right]

    with :math:`L_t` the batches without type t. An embedding that aligns nothing scores a perfect
    0, so read it together with :func:`label_transfer`.

    Parameters
    ----------
    embedding
        Coordinates of the cells, shape ``(n_cells, n_dims)``.
    batch
        Batch of each cell, shape ``(n_cells,)``; two or more batches.
    labels
        Type of each cell, shape ``(n_cells,)``.
    n_neighbors
        Neighbours of each cell, from all cells.
    threshold
        Share of the neighbours above which a cell is invaded, in [0, 1).

    Returns
    -------
    Share in [0, 1], each unique type counting the same; 0 is best.

    Raises
    ------
    ValueError
        If the arrays do not fit together, every batch has every type, `threshold` is out of
        range, or there are too few cells for `n_neighbors`.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"`threshold={threshold}` is not in [0, 1). Pass a share of neighbours.")
    cells = _checked(embedding, batch, labels)
    types = _unique_types(cells)
    near = cells.batch[_neighbours(cells.embedding, n_neighbors)]  # (n_cells, n_neighbors)
    invaded = []
    for t in types:
        lacking = cells.sizes.columns[cells.sizes.loc[t] == 0]
        invaded.append((np.isin(near[cells.labels == t], lacking).mean(1) > threshold).mean())
    return float(np.mean(invaded))


def purity(
    embedding: ArrayLike, batch: ArrayLike, labels: ArrayLike, *, n_neighbors: int = 15
) -> float:
    r"""Share of same-type neighbours around the cells of unique types.

    A type is unique if at least one batch has none of it:

    .. math:: \mathrm{mean}_t \ \mathrm{mean}_{i: y_i = t} \ \frac{|\{j \in N_i: y_j = t\}|}{|N_i|}

    Unlike :func:`invaded_share` it also counts wrong neighbours from the own batch. Compare it
    with the same number before integration, because close types are never pure.

    Parameters
    ----------
    embedding
        Coordinates of the cells, shape ``(n_cells, n_dims)``.
    batch
        Batch of each cell, shape ``(n_cells,)``; two or more batches.
    labels
        Type of each cell, shape ``(n_cells,)``.
    n_neighbors
        Neighbours of each cell, from all cells. A type of n cells cannot exceed
        ``(n - 1) / n_neighbors``.

    Returns
    -------
    Share in [0, 1], each unique type counting the same; 1 is best.

    Raises
    ------
    ValueError
        If the arrays do not fit together, every batch has every type, or there are too few
        cells for `n_neighbors`.
    """
    cells = _checked(embedding, batch, labels)
    types = _unique_types(cells)
    near = cells.labels[_neighbours(cells.embedding, n_neighbors)]  # (n_cells, n_neighbors)
    return float(np.mean([(near[cells.labels == t] == t).mean() for t in types]))


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
    cells = _checked(embedding, batch, labels)
    if len(cells.sizes) < 2:
        raise ValueError(
            f"All cells have the label {cells.sizes.index[0]!r}. The panel needs two types. "
            "For one type use `batch_mixing`."
        )
    bio = _bio_scores(cells, n_init, seed)
    mixed = _batch_scores(_shared(cells))
    means = {"bio": np.mean(list(bio.values())), "batch": np.mean(list(mixed.values()))}
    total = _BIO_WEIGHT * means["bio"] + _BATCH_WEIGHT * means["batch"]
    transfer = label_transfer(embedding, batch, labels)
    scores = {**bio, **mixed, **means, "total": total, "label_transfer": transfer}
    return pd.DataFrame({"value": pd.Series(scores, dtype=float)}).rename_axis("metric")


def _bio_scores(cells: _Cells, n_init: int, seed: int) -> dict[str, float]:
    k_means = KMeans(len(cells.sizes), n_init=n_init, random_state=seed)
    clusters = k_means.fit_predict(cells.embedding)
    near = cells.labels[_neighbours(cells.embedding, _N_NEIGHBORS)]  # (n_cells, n_neighbors)
    return {
        "kmeans_nmi": normalized_mutual_info_score(cells.labels, clusters),
        "kmeans_ari": adjusted_rand_score(cells.labels, clusters),
        "label_silhouette": (silhouette_score(cells.embedding, cells.labels) + 1) / 2,
        "label_purity": (near == cells.labels[:, None]).mean(),
    }


def _batch_scores(cells: _Cells) -> dict[str, float]:
    composition = _composition(cells, _N_NEIGHBORS)
    return {
        "batch_silhouette": _batch_silhouette(cells),
        "ilisi": _ilisi(cells, composition),
        "mixing": _mixing(cells, composition),
        "graph_connectivity": _graph_connectivity(cells),
    }


def _batch_silhouette(cells: _Cells) -> float:
    scores = []
    for t in cells.sizes.index:
        own = cells.labels == t
        silhouette = np.abs(silhouette_samples(cells.embedding[own], cells.batch[own]))
        batch = cells.batch[own]
        scores.append(np.mean([1 - silhouette[batch == b].mean() for b in cells.sizes.columns]))
    return float(np.mean(scores))


def _ilisi(cells: _Cells, composition: np.ndarray) -> float:
    scores = []
    for t, expected in _type_composition(cells).items():
        found = composition[cells.labels == t]  # (n_cells_of_type, n_batches)
        gain = (1 / np.square(found).sum(1) - 1).mean() / (1 / np.square(expected).sum() - 1)
        scores.append(min(gain, 1))
    return float(np.mean(scores))


def _mixing(cells: _Cells, composition: np.ndarray) -> float:
    scores = []
    for t, expected in _type_composition(cells).items():
        found = composition[cells.labels == t]  # (n_cells_of_type, n_batches)
        scores.append(np.exp(-rel_entr(found, expected).sum(1)).mean())
    return float(np.mean(scores))


def _graph_connectivity(cells: _Cells) -> float:
    near = _neighbours(cells.embedding, _N_GRAPH_NEIGHBORS)
    n_cells, k = near.shape
    rows = np.repeat(np.arange(n_cells), k)
    graph = sparse.csr_matrix((np.ones(near.size), (rows, near.ravel())), (n_cells, n_cells))
    scores = []
    for t in cells.sizes.index:
        own = np.flatnonzero(cells.labels == t)
        _, part = connected_components(graph[own][:, own], directed=False)
        scores.append(np.bincount(part).max() / len(own))
    return float(np.mean(scores))


def _composition(cells: _Cells, n_neighbors: int) -> np.ndarray:
    """Shares of the batches among the neighbours, shape ``(n_cells, n_batches)``."""
    near = cells.batch[_neighbours(cells.embedding, n_neighbors)]  # (n_cells, n_neighbors)
    return np.stack([(near == b).mean(1) for b in cells.sizes.columns], axis=1)


def _type_composition(cells: _Cells) -> dict[str, np.ndarray]:
    """Shares of the batches among the cells of each type, shape ``(n_batches,)`` each."""
    return {t: sizes.to_numpy() / sizes.sum() for t, sizes in cells.sizes.iterrows()}


def _balanced_accuracy(cells: _Cells, batch: str, types: pd.Index, n_neighbors: int) -> float:
    """Balanced accuracy of the votes of the other batches, for the given types of one batch."""
    own = (cells.batch == batch) & np.isin(cells.labels, types)
    other = cells.batch != batch
    near = _neighbours(cells.embedding[other], n_neighbors, cells.embedding[own])
    predicted = _vote(cells.labels[other][near])
    truth = cells.labels[own]
    return np.mean([(predicted[truth == t] == t).mean() for t in types])


def _vote(near: np.ndarray) -> np.ndarray:
    """Most frequent label of each row, ordered by distance; of equal ones the first to occur."""
    types, codes = np.unique(near, return_inverse=True)
    hits = codes.reshape(near.shape)[:, :, None] == np.arange(len(types))  # (n, k, n_types)
    first = hits.argmax(1) / near.shape[1]  # (n, n_types), below 1
    return types[(hits.sum(1) - first).argmax(1)]


def _neighbours(
    points: np.ndarray, n_neighbors: int, queries: np.ndarray | None = None
) -> np.ndarray:
    """Rows of the nearest points, nearest first; without `queries`, of each point but itself."""
    most = len(points) - (queries is None)
    if not 1 <= n_neighbors <= most:
        raise ValueError(
            f"`n_neighbors={n_neighbors}`, but a cell has {most} others to choose from (only "
            f"shared types or other batches, where a metric looks only there). A number in "
            f"[1, {most}] is accepted. Pass more cells or a smaller `n_neighbors`."
        )
    search = NearestNeighbors(n_neighbors=n_neighbors).fit(points)
    return search.kneighbors(queries, return_distance=False)


def _shared(cells: _Cells) -> _Cells:
    """Only the cells of types with enough cells in every batch."""
    sizes = cells.sizes[(cells.sizes >= _MIN_CELLS).all(axis=1)]
    if sizes.empty:
        raise ValueError(
            f"No type has {_MIN_CELLS} cells in every batch (at most "
            f"{cells.sizes.min(axis=1).max()}). At least one shared type is needed. Check that "
            "the labels of the batches use the same names, or pass more cells."
        )
    keep = np.isin(cells.labels, sizes.index)
    return _Cells(cells.embedding[keep], cells.batch[keep], cells.labels[keep], sizes)


def _unique_types(cells: _Cells) -> pd.Index:
    """Types that at least one batch lacks."""
    types = cells.sizes.index[(cells.sizes == 0).any(axis=1)]
    if types.empty:
        raise ValueError(
            f"Every batch has cells of each of the {len(cells.sizes)} types. At least one type "
            "that a batch lacks is needed. Without one this metric does not apply: use "
            "`integration_panel`."
        )
    return types


def _checked(embedding: ArrayLike, batch: ArrayLike, labels: ArrayLike) -> _Cells:
    embedding, batch, labels = by_name(
        embedding=embedding, batch=batch, labels=labels, columns=False
    )
    points = np.ascontiguousarray(embedding, dtype=np.float32)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(
            f"`embedding` of shape {points.shape} is not a finite matrix. Finite numbers of shape "
            "`(n_cells, n_dims)` are accepted: remove the cells without coordinates."
        )
    batch = _names("batch", batch, len(points))
    labels = _names("labels", labels, len(points))
    if len(np.unique(batch)) < 2:
        raise ValueError(
            f"`batch` holds {np.unique(batch).tolist()}. At least two batches are needed. Pass "
            "the column of `adata.obs` that tells the datasets apart."
        )
    return _Cells(points, batch, labels, pd.crosstab(labels, batch))


def _names(name: str, values: ArrayLike, n_cells: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (n_cells,) or pd.isna(values).any():
        raise ValueError(
            f"`{name}` has shape {values.shape} and {int(pd.isna(values).sum())} missing values; "
            f"`embedding` has {n_cells} rows. One value for each row is accepted, none missing."
        )
    return values.astype(str)
