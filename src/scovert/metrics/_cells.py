"""Cells of several batches as scores of an embedding take them, and their neighbours."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.neighbors import NearestNeighbors

from scovert.core._labelled import by_name

__all__ = [
    "MIN_CELLS",
    "Cells",
    "batches_around",
    "batches_of_types",
    "check_cells",
    "neighbours",
    "of_shared_types",
]

MIN_CELLS = 5  # of a type in every batch, to count as shared: a share among fewer is all noise


class Cells(NamedTuple):
    """Coordinates, batches and types of cells that were checked."""

    embedding: np.ndarray  # (n_cells, n_dims), float32
    batch: np.ndarray  # (n_cells,), strings
    labels: np.ndarray  # (n_cells,), strings
    sizes: pd.DataFrame  # (n_types, n_batches), cells of each type in each batch


def check_cells(embedding: ArrayLike, batch: ArrayLike, labels: ArrayLike) -> Cells:
    """Match the arrays by the names of their rows, and refuse what cannot be scored."""
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
    return Cells(points, batch, labels, pd.crosstab(labels, batch))


def _names(name: str, values: ArrayLike, n_cells: int) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != (n_cells,) or pd.isna(values).any():
        raise ValueError(
            f"`{name}` has shape {values.shape} and {int(pd.isna(values).sum())} missing values; "
            f"`embedding` has {n_cells} rows. One value for each row is accepted, none missing."
        )
    return values.astype(str)


def of_shared_types(cells: Cells) -> Cells:
    """Only the cells of types with enough cells in every batch."""
    sizes = cells.sizes[(cells.sizes >= MIN_CELLS).all(axis=1)]
    if sizes.empty:
        raise ValueError(
            f"No type has {MIN_CELLS} cells in every batch (at most "
            f"{cells.sizes.min(axis=1).max()}). At least one shared type is needed. Check that "
            "the labels of the batches use the same names, or pass more cells."
        )
    keep = np.isin(cells.labels, sizes.index)
    return Cells(cells.embedding[keep], cells.batch[keep], cells.labels[keep], sizes)


def neighbours(
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


def batches_around(cells: Cells, n_neighbors: int) -> np.ndarray:
    """Shares of the batches among the neighbours, shape ``(n_cells, n_batches)``."""
    near = cells.batch[neighbours(cells.embedding, n_neighbors)]  # (n_cells, n_neighbors)
    return np.stack([(near == b).mean(1) for b in cells.sizes.columns], axis=1)


def batches_of_types(cells: Cells) -> dict[str, np.ndarray]:
    """Shares of the batches among the cells of each type, shape ``(n_batches,)`` each."""
    return {t: sizes.to_numpy() / sizes.sum() for t, sizes in cells.sizes.iterrows()}
