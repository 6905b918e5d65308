"""Counts in memory or on disk, read by blocks of rows, and thinned."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from anndata.compat import DaskArray
from numpy.typing import NDArray

__all__ = [
    "BLOCK",
    "RAW",
    "LazyRows",
    "StoredRows",
    "as_csr",
    "as_rows",
    "find_matrix",
    "get_counts",
    "in_parts",
    "is_in_memory",
    "row_blocks",
    "row_slices",
    "some_blocks",
    "thin",
]

BLOCK = 4096
"""Rows read at once where counts are looked through in their order."""
MAX_BLOCKS = 256
"""Blocks in memory that stand for all: those of a million cells, of more evenly spaced ones."""
BLOCKS_OF_FILE, ROWS_OF_FILE = 16, 64
"""Blocks of a file, and rows of each: it is slower to read than to compute from."""
RAW = "raw"
"""Name of a layer that means ``adata.raw`` where no layer is called so."""


def find_matrix(adata: AnnData, layer: str | None) -> object:
    """Return ``X``, a layer, or for ``"raw"`` the genes of `adata` in ``adata.raw``."""
    if layer is None:
        return adata.X
    if layer != RAW or layer in adata.layers:
        return adata.layers[layer]
    raw = adata.raw
    return raw.X if raw.var_names.equals(adata.var_names) else raw[:, adata.var_names].X


def get_counts(adata: AnnData, layer: str | None) -> object:
    """Return the counts: an array or CSR matrix in memory, or a dataset with rows on disk."""
    counts = find_matrix(adata, layer)
    if isinstance(counts, CSCDataset):  # rows cannot be read from it
        counts = counts.to_memory()
    if is_in_memory(counts):
        return as_rows(counts)
    if isinstance(counts, DaskArray):
        return LazyRows(counts)
    return StoredRows(counts) if isinstance(counts, CSRDataset) else counts


class StoredRows:
    """CSR matrix of a file, read by consecutive rows.

    anndata 0.12 looks up the version of scipy at every slice, which takes longer than the reading.

    Parameters
    ----------
    dataset
        Sparse dataset of an h5ad file or a zarr store.
    """

    def __init__(self, dataset: CSRDataset) -> None:
        self.shape: tuple[int, int] = tuple(dataset.shape)
        self.indptr = np.asarray(dataset.group["indptr"][...])
        self.indices, self.data = dataset.group["indices"], dataset.group["data"]
        self.dtype: np.dtype = self.data.dtype

    def __getitem__(self, rows: slice | NDArray) -> sp.csr_matrix:
        """Read consecutive rows, or rows in ascending order out of the blocks that hold them."""
        n_rows, n_columns = self.shape
        if not isinstance(rows, slice):
            starts = np.arange(0, n_rows, BLOCK)
            parts = np.split(rows, np.searchsorted(rows, starts[1:]))
            found = zip(starts, parts, strict=True)
            return sp.vstack([self[s : s + BLOCK][p - s] for s, p in found if len(p)], "csr")
        start, stop, _ = rows.indices(n_rows)
        indptr = self.indptr[start : stop + 1]
        first, last = indptr[0], indptr[-1]
        stored = (self.data[first:last], self.indices[first:last], indptr - first)
        return sp.csr_matrix(stored, shape=(stop - start, n_columns))


class LazyRows:
    """Dask array of dense or sparse chunks, of which some rows are computed at a time.

    Parameters
    ----------
    array
        What anndata makes of a matrix that it opens lazily, or any other.
    """

    def __init__(self, array: DaskArray) -> None:
        self.array, self.dtype = array, array.dtype
        self.shape: tuple[int, int] = tuple(array.shape)

    def __getitem__(self, rows: slice | NDArray) -> NDArray | sp.csr_matrix:
        """Compute some rows."""
        return as_rows(self.array[rows].compute())


def as_rows(counts: NDArray | sp.spmatrix) -> NDArray | sp.csr_matrix:
    """Return a matrix in memory with fast access to rows: dense, or CSR without duplicates."""
    if not sp.issparse(counts):
        return np.asarray(counts)
    rows = sp.csr_matrix(counts)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


def as_csr(counts: object) -> sp.csr_matrix:
    """Return counts as a CSR matrix in memory, whether they are there, dense or sparse, or not."""
    if not is_in_memory(counts):
        return sp.vstack([as_csr(block) for _, block in row_blocks(counts)], format="csr")
    rows = as_rows(counts)
    return sp.csr_matrix(rows.astype(np.float32) if rows.dtype == np.float16 else rows)


def is_in_memory(counts: object) -> bool:
    """Whether counts are an array or a matrix, and not a dataset of a file."""
    return sp.issparse(counts) or isinstance(counts, np.ndarray)


def row_blocks(
    counts: object, size: int | None = None
) -> Iterator[tuple[int, NDArray | sp.csr_matrix]]:
    """Go through the rows: the first row of a block, and the block in memory."""
    for rows in row_slices(counts.shape[0], size or BLOCK):
        yield rows.start, as_rows(counts[rows])


def some_blocks(counts: object) -> Iterator[tuple[int, NDArray | sp.csr_matrix]]:
    """Read blocks of rows from one end to the other: all, if there are few in memory."""
    n_rows = counts.shape[0]
    in_memory = is_in_memory(counts)
    size, most = (BLOCK, MAX_BLOCKS) if in_memory else (ROWS_OF_FILE, BLOCKS_OF_FILE)
    starts = np.arange(0, n_rows, size)
    if len(starts) > most:
        starts = np.linspace(0, n_rows - size, most).astype(int)
    for start in starts.tolist():
        yield start, as_rows(counts[start : start + size])


def row_slices(n_rows: int, size: int) -> Iterator[slice]:
    """Cut rows into slices of `size`, the last one shorter; of no rows there are none."""
    return (slice(start, min(n_rows, start + size)) for start in range(0, n_rows, size))


def in_parts(rows: NDArray, size: int) -> list[NDArray]:
    """Cut rows, in their order, into parts of nearly equal size, at most `size`."""
    return np.array_split(rows, max(1, math.ceil(len(rows) / size)))


def thin(
    counts: sp.csr_matrix, kept: NDArray, group: NDArray, rng: np.random.Generator
) -> sp.csr_matrix:
    """Keep each count of gene g of a cell in group b with the probability ``kept[g, b]``.

    `kept` has shape ``(n_genes, n_groups)``, `group` shape ``(n_cells,)``. Returns new counts in
    float32 without stored zeros.
    """
    stored_group = np.repeat(group, np.diff(counts.indptr))  # (n_stored,)
    values = rng.binomial(counts.data.astype(np.int64), kept[counts.indices, stored_group])
    entries = (values, counts.indices, counts.indptr)
    thinned = sp.csr_matrix(entries, counts.shape, np.float32, copy=True)
    thinned.eliminate_zeros()
    return thinned
