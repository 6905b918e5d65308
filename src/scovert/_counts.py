"""Counts in memory or on disk, read by blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset
from numpy.typing import NDArray

__all__ = ["BLOCK", "as_rows", "get_counts", "is_in_memory", "row_blocks"]

BLOCK = 4096
"""Rows read at once where counts are looked through in their order."""


def get_counts(adata: AnnData, layer: str | None) -> object:
    """Return the counts: an array or CSR matrix in memory, or a dataset with rows on disk."""
    counts = adata.X if layer is None else adata.layers[layer]
    if isinstance(counts, CSCDataset):  # rows cannot be read from it
        counts = counts.to_memory()
    if sp.issparse(counts) or isinstance(counts, np.ndarray):
        return as_rows(counts)
    return counts


def as_rows(counts: NDArray | sp.spmatrix) -> NDArray | sp.csr_matrix:
    """Return a matrix in memory with fast access to rows: dense, or CSR without duplicates."""
    if not sp.issparse(counts):
        return np.asarray(counts)
    rows = sp.csr_matrix(counts)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def is_in_memory(counts: object) -> bool:
    """Whether counts are an array or a matrix, and not a dataset of a file."""
    return sp.issparse(counts) or isinstance(counts, np.ndarray)


def row_blocks(counts: object, size: int = BLOCK) -> Iterator[tuple[int, NDArray | sp.csr_matrix]]:
    """Go through the rows: the first row of a block, and the block in memory."""
    for start in range(0, counts.shape[0], size):
        yield start, as_rows(counts[start : start + size])
