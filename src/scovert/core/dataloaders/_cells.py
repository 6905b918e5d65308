"""Counts and covariates of cells, and their rows as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from torch import Tensor

from scovert.core._counts import as_rows, get_counts, is_in_memory, row_blocks
from scovert.core._losses import SparseCounts, dense_counts
from scovert.core._registered import codes_of

__all__ = ["CELLS_KEY", "COUNTS_KEY", "WINDOW", "CellTensors", "Cells"]

WINDOW = 32_768
"""Cells of a file that are in memory at once."""

CELLS_KEY = "cells"
"""Key of a minibatch: the rows of its cells in the AnnData."""
COUNTS_KEY = "counts"
"""Key of a minibatch: its non-zero counts."""

TABLE_SIZE = 2**20
"""Largest table of log-gamma of counts, 4 MB; larger counts are computed one by one."""

GATHERED_TYPES = (np.float32, np.float64, np.int64, np.int32, np.int16, np.int8, np.uint8)
"""Types of counts from which torch can pick elements."""


@dataclass(frozen=True)
class Cells:
    """Counts and covariates of cells.

    Attributes
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``: dense, CSR, or a dataset of a file.
    columns
        Covariates under scvi-tools' registry keys, each of shape ``(n_cells, n_covariates)``, and
        under ``"cells"`` the row in the AnnData.
    genes
        Columns of `counts` in the order of the model, where that differs; only for a file.
    names
        Names of the cells in the AnnData, for messages, if they are known.
    """

    counts: object
    columns: dict[str, NDArray]
    genes: NDArray | None = None
    names: pd.Index | None = None

    @classmethod
    def read(cls, adata: AnnData, registry: dict, genes: pd.Index) -> Cells:
        """Read `adata` as a registry describes it, its genes matched by name."""
        found = {
            name: _column(adata.obs, field["state_registry"])
            for name, field in registry["field_registries"].items()
        }
        columns = {name: values for name, values in found.items() if values is not None}
        columns[CELLS_KEY] = np.arange(adata.n_obs)[:, None]
        counts = get_counts(adata, registry["setup_args"]["layer"])
        order, names = None, adata.obs_names
        if not adata.var_names.equals(genes):
            order = adata.var_names.get_indexer(genes)
            if is_in_memory(counts):
                counts, order = counts[:, order], None
        return cls(counts, columns, order, names)

    @classmethod
    def joined(cls, parts: list[Cells]) -> Cells:
        """Join cells in memory."""
        blocks = [part.counts for part in parts]
        is_sparse = sp.issparse(blocks[0])
        counts = sp.vstack(blocks, format="csr") if is_sparse else np.concatenate(blocks)
        columns = {k: np.concatenate([p.columns[k] for p in parts]) for k in parts[0].columns}
        return cls(counts, columns)

    def __len__(self) -> int:
        return self.counts.shape[0]

    @property
    def batch(self) -> NDArray:
        """Dataset of each cell, of a model that knows datasets, shape ``(n_cells,)``."""
        return self.columns[REGISTRY_KEYS.BATCH_KEY].ravel()

    @property
    def n_genes(self) -> int:
        """Number of genes of the model."""
        return self.counts.shape[1] if self.genes is None else len(self.genes)

    @property
    def is_in_memory(self) -> bool:
        """Whether the counts are in memory and not in a file."""
        return is_in_memory(self.counts)

    def blocks(self) -> Iterator[tuple[int, NDArray | sp.csr_matrix]]:
        """Go through the counts: the first row of a block, and the block in memory."""
        for start, block in row_blocks(self.counts):
            yield start, block if self.genes is None else block[:, self.genes]

    def log_mean_shares(self, n_batch: int = 1) -> NDArray:
        """Logarithm of the mean share of each gene in each dataset, half a count added to each.

        Parameters
        ----------
        n_batch
            Number of datasets of the model; all need not occur here. 1 takes all cells as one.

        Returns
        -------
        Array of shape ``(n_batch, n_genes)``, float32.
        """
        counts = np.full((n_batch, self.n_genes), 0.5)
        of_cell = self.batch if n_batch > 1 else np.zeros(len(self), np.int64)
        for start, block in self.blocks():
            batch = of_cell[start : start + block.shape[0]]
            for b in np.unique(batch):
                counts[b] += np.asarray(block[batch == b].sum(axis=0)).ravel()
        return np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)

    def with_columns(self, **columns: NDArray) -> Cells:
        """Return the cells with more that is known of each, first axis ``n_cells``.

        Integers and floats of any further shape, such as a table of neighbours ``(n_cells, k)``.
        """
        for name, values in columns.items():
            if len(values) != len(self):
                raise ValueError(
                    f"`{name}` has {len(values)} rows for {len(self)} cells. Pass one for each."
                )
        return replace(self, columns=self.columns | columns)

    def spans(self, rows: NDArray) -> list[tuple[NDArray, int, int]]:
        """Cut the way through some cells into blocks that fit into memory.

        Parameters
        ----------
        rows
            Cells in any order.

        Returns
        -------
        For each block the places in `rows` of the cells that it holds, and its first and last row
        for `block`. What is in memory is one block.
        """
        if self.is_in_memory:
            return [(np.arange(len(rows)), 0, len(self))]
        order = np.argsort(rows, kind="stable")
        starts = np.arange(0, len(self), WINDOW)
        parts = np.split(order, np.searchsorted(rows[order], starts[1:]))
        return [
            (at, start, min(start + WINDOW, len(self)))
            for at, start in zip(parts, starts.tolist(), strict=True)
            if len(at)
        ]

    def block(self, start: int, stop: int) -> Cells:
        """Return consecutive cells, in memory."""
        if self.is_in_memory and stop - start == len(self):
            return self
        counts = as_rows(self.counts[start:stop])
        if self.genes is not None:
            counts = counts[:, self.genes]
        return Cells(counts, {k: v[start:stop] for k, v in self.columns.items()})


def _column(obs: pd.DataFrame, state: dict) -> NDArray | None:
    """Return what a field of the registry reads of ``obs``, if it reads anything there."""
    if "categorical_mapping" in state:
        return _codes(obs, {state["original_key"]: state["categorical_mapping"]})
    if "mappings" in state:
        return _codes(obs, state["mappings"])
    if "columns" in state:
        return obs[list(state["columns"])].to_numpy(np.float32)
    return None


def _codes(obs: pd.DataFrame, mappings: dict[str, NDArray]) -> NDArray:
    return np.stack([codes_of(obs, key, known) for key, known in mappings.items()], axis=1)


class CellTensors:
    """Cells in memory whose rows become minibatches on a device.

    Parameters
    ----------
    cells
        Cells in memory; CSR counts are shared, not copied.
    device
        Where the minibatches are.
    resident
        Keep the non-zero counts on that device too, so that only row numbers travel; `None` does
        so where they take less than half of its free memory.
    """

    def __init__(
        self, cells: Cells, device: torch.device | str = "cpu", *, resident: bool | None = False
    ) -> None:
        self.device = torch.device(device)
        self.n_genes = cells.counts.shape[1]
        self.counts = cells.counts
        self.columns = {k: _tensor(v) for k, v in cells.columns.items()}
        if sp.issparse(cells.counts):
            is_home = _fit_on(cells, self.device) if resident is None else resident
            home = self.device if is_home else "cpu"
            self.indptr = cells.counts.indptr.astype(np.int64, copy=False)
            self.indices, self.data = (
                _tensor(a).to(home) for a in (cells.counts.indices, cells.counts.data)
            )

    def __getitem__(self, rows: NDArray) -> dict[str, Tensor]:
        """Return the counts of cells as a dense float32 tensor, and their covariates."""
        _, row, col, value = self._nonzero(rows)
        shape = (len(rows), self.n_genes)
        return self._covariates(rows) | {REGISTRY_KEYS.X_KEY: dense_counts(row, col, value, shape)}

    def minibatch(self, rows: NDArray, n_drawn: int) -> dict[str, Tensor | SparseCounts]:
        """Return cells for a step of training; the non-zero counts are those of the first ones.

        Parameters
        ----------
        rows
            The cells: drawn ones, then their partners.
        n_drawn
            Number of drawn ones.

        Returns
        -------
        What ``[rows]`` does, and the non-zero counts of the drawn cells under ``"counts"``.
        """
        length, row, col, value = self._nonzero(rows)
        n = int(length[:n_drawn].sum())
        drawn = SparseCounts(row[:n], col[:n], value[:n], self._log_factorial(value[:n]))
        return self._covariates(rows) | {
            REGISTRY_KEYS.X_KEY: dense_counts(row, col, value, (len(rows), self.n_genes)),
            COUNTS_KEY: drawn,
        }

    def _log_factorial(self, value: Tensor) -> Tensor:
        table = self._log_factorials
        return torch.lgamma(value + 1) if table is None else table.index_select(0, value.long())

    @cached_property
    def _log_factorials(self) -> Tensor | None:
        r""":math:`\log x!` of all counts up to the largest, if these are not too many."""
        values = self.counts.data if sp.issparse(self.counts) else self.counts
        n = int(values.max(initial=0)) + 1
        if n > TABLE_SIZE:
            return None
        return torch.lgamma(torch.arange(1, n + 1).double()).float().to(self.device)

    def _covariates(self, rows: NDArray) -> dict[str, Tensor]:
        at = torch.from_numpy(rows)
        return {k: v.index_select(0, at).to(self.device) for k, v in self.columns.items()}

    def _nonzero(self, rows: NDArray) -> tuple[NDArray, Tensor, Tensor, Tensor]:
        """Return the number of non-zero counts of each cell; and row, column and value of each."""
        if not sp.issparse(self.counts):
            dense = torch.from_numpy(self.counts[rows].astype(np.float32)).to(self.device)
            row, col = dense.nonzero(as_tuple=True)
            length = np.bincount(row.cpu().numpy(), minlength=len(rows))
            return length, row, col, dense[row, col]
        first = self.indptr[rows]
        length = self.indptr[rows + 1] - first
        total = int(length.sum())
        shift = first - np.cumsum(length) + length  # from the place here to the place in the data
        home = self.indices.device
        length_there, shift_there = (torch.from_numpy(v).to(home) for v in (length, shift))
        row = torch.repeat_interleave(length_there, output_size=total)
        at = shift_there.index_select(0, row).add_(torch.arange(total, device=home))
        col = self.indices.index_select(0, at).to(self.device, torch.int64)
        value = self.data.index_select(0, at).to(self.device, torch.float32)
        return length, row.to(self.device), col, value


def _fit_on(cells: Cells, device: torch.device) -> bool:
    """Whether CSR counts take less than half of the free memory of a GPU."""
    if device.type != "cuda" or not sp.issparse(cells.counts):
        return False
    n_bytes = cells.counts.data.nbytes + cells.counts.indices.nbytes
    return n_bytes < torch.cuda.mem_get_info(device)[0] / 2


def _tensor(values: NDArray) -> Tensor:
    """Share an array with torch, as far as torch knows its type."""
    known = values.dtype.type in GATHERED_TYPES and values.dtype.isnative
    values = values if known else values.astype(np.float32)
    return torch.from_numpy(values if values.flags.writeable else values.copy())
