"""How well an embedding joins datasets and keeps cell types apart: arrays in, numbers out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from scovert.metrics._cells import (
    Cells,
    batches_around,
    batches_of_types,
    check_cells,
    neighbours,
    of_shared_types,
)

__all__ = [
    "batch_mixing",
    "batch_mixing_by_type",
    "invaded_share",
    "label_transfer",
    "mixing_of_types",
    "purity",
]


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
    cells = check_cells(embedding, batch, labels)
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
    return float(batch_mixing_by_type(embedding, batch, labels, n_neighbors=n_neighbors).mean())


def batch_mixing_by_type(
    embedding: ArrayLike, batch: ArrayLike, labels: ArrayLike, *, n_neighbors: int = 30
) -> pd.Series:
    """Score the mixing of each shared type; :func:`batch_mixing` is the mean.

    Parameters
    ----------
    embedding, batch, labels, n_neighbors
        As in :func:`batch_mixing`.

    Returns
    -------
    Score in (0, 1] of each type with at least five cells in every batch, by its name, in the order
    of the alphabet.

    Raises
    ------
    ValueError
        As :func:`batch_mixing`.
    """
    cells = of_shared_types(check_cells(embedding, batch, labels))
    return mixing_of_types(cells, batches_around(cells, n_neighbors))


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
    cells = check_cells(embedding, batch, labels)
    types = _unique_types(cells)
    near = cells.batch[neighbours(cells.embedding, n_neighbors)]  # (n_cells, n_neighbors)
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
    cells = check_cells(embedding, batch, labels)
    types = _unique_types(cells)
    near = cells.labels[neighbours(cells.embedding, n_neighbors)]  # (n_cells, n_neighbors)
    return float(np.mean([(near[cells.labels == t] == t).mean() for t in types]))


def mixing_of_types(cells: Cells, composition: np.ndarray) -> pd.Series:
    """Mean of exp(-KL) of each type; `composition` as :func:`batches_around` returns it."""
    scores = {}
    for t, expected in batches_of_types(cells).items():
        found = composition[cells.labels == t]  # (n_cells_of_type, n_batches)
        scores[t] = np.exp(-rel_entr(found, expected).sum(1)).mean()
    return pd.Series(scores, dtype=float)


def _balanced_accuracy(cells: Cells, batch: str, types: pd.Index, n_neighbors: int) -> float:
    """Balanced accuracy of the votes of the other batches, for the given types of one batch."""
    own = (cells.batch == batch) & np.isin(cells.labels, types)
    other = cells.batch != batch
    near = neighbours(cells.embedding[other], n_neighbors, cells.embedding[own])
    predicted = _vote(cells.labels[other][near])
    truth = cells.labels[own]
    return np.mean([(predicted[truth == t] == t).mean() for t in types])


def _vote(near: np.ndarray) -> np.ndarray:
    """Most frequent label of each row, ordered by distance; of equal ones the first to occur."""
    types, codes = np.unique(near, return_inverse=True)
    hits = codes.reshape(near.shape)[:, :, None] == np.arange(len(types))  # (n, k, n_types)
    first = hits.argmax(1) / near.shape[1]  # (n, n_types), below 1
    return types[(hits.sum(1) - first).argmax(1)]


def _unique_types(cells: Cells) -> pd.Index:
    """Types that at least one batch lacks."""
    types = cells.sizes.index[(cells.sizes == 0).any(axis=1)]
    if types.empty:
        raise ValueError(
            f"Every batch has cells of each of the {len(cells.sizes)} types. At least one type "
            "that a batch lacks is needed. Without one this metric does not apply: use "
            "`integration_panel`."
        )
    return types
