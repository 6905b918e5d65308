"""Counts that pass by in dense blocks of cells, and sums over their tails."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln
from torch import Tensor

__all__ = ["CountBlocks", "TailCounts"]

BLOCK_ENTRIES = 2**18
"""Entries of a dense block: several such blocks fit into the cache of a core."""

TAIL = 64
"""Counts up to here enter the sums over tails exactly."""


class CountBlocks:
    """Raw counts of cells as dense blocks, one after the other; never all of them at once.

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``.
    log_size
        Natural logarithm of the size factors, shape ``(n_cells,)``.
    device
        Where the blocks are computed with.
    dtype
        Type of everything that has an entry for each cell and gene. Sums over cells are float64.
    size
        Cells in a block; `None` takes as many as the cache of a core holds.
    """

    def __init__(
        self,
        counts: sp.csr_matrix,
        log_size: ArrayLike,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        size: int | None = None,
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        kind = np.float64 if dtype == torch.float64 else np.float32
        self.counts = sp.csr_matrix(counts, dtype=kind)
        self.n_cells, self.n_genes = self.counts.shape
        self.offset = self.tensor(log_size)[:, None]
        self.totals = np.asarray(self.counts.sum(axis=0, dtype=float)).ravel()
        self.log_factorials = float(gammaln(self.counts.data.astype(float) + 1).sum())
        self.tails = TailCounts(self.counts, self.device)
        self.size = size or int(np.clip(BLOCK_ENTRIES // max(self.n_genes, 1), 32, 4096))
        self._buffer = np.empty((self.size, self.n_genes), kind)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Go through the cells: their rows, and their counts, which the next step overwrites."""
        for start in range(0, self.n_cells, self.size):
            rows = slice(start, min(start + self.size, self.n_cells))
            yield rows, self._dense(rows)

    def over(self, cells: NDArray) -> Iterator[tuple[NDArray, Tensor]]:
        """Go through some of the cells, in their order: their rows and counts, as above."""
        for start in range(0, len(cells), self.size):
            rows = cells[start : start + self.size]
            yield rows, self._dense(rows)

    def _dense(self, rows: slice | NDArray) -> Tensor:
        chosen = self._slice(rows) if isinstance(rows, slice) else self.counts[rows]
        dense = self._buffer[: chosen.shape[0]]
        chosen.toarray(out=dense)
        return torch.from_numpy(dense).to(self.device)

    def _slice(self, rows: slice) -> sp.csr_matrix:
        """Return consecutive rows without the copy that indexing makes."""
        counts = self.counts
        starts = counts.indptr[rows.start : rows.stop + 1]
        own = slice(starts[0], starts[-1])
        parts = (counts.data[own], counts.indices[own], starts - starts[0])
        return sp.csr_matrix(parts, (rows.stop - rows.start, self.n_genes))

    def tensor(self, values: ArrayLike) -> Tensor:
        """Return values on the device and in the type of the blocks."""
        return torch.as_tensor(np.asarray(values), dtype=self.dtype, device=self.device)

    def double(self, values: ArrayLike | Tensor) -> Tensor:
        """Return values on the device, in double precision."""
        return torch.as_tensor(values, dtype=torch.float64, device=self.device)

    def subset(self, rows: NDArray) -> CountBlocks:
        """Return the blocks of some cells, in the order of `rows`."""
        log_size = self.offset[:, 0].cpu().numpy()[rows]
        like = {"device": self.device, "dtype": self.dtype, "size": self.size}
        return CountBlocks(self.counts[rows], log_size, **like)

    def genes(self, chosen: NDArray) -> CountBlocks:
        """Return the blocks of some genes, given as a mask or in their order."""
        like = {"device": self.device, "dtype": self.dtype, "size": self.size}
        return CountBlocks(self.counts[:, chosen], self.offset[:, 0].cpu().numpy(), **like)


class TailCounts:
    r"""Sums over cells of functions of :math:`\Gamma(y + r)`, from how often each count occurs.

    .. math:: \sum_i \left[\psi(y_i + r) - \psi(r)\right] = \sum_{t \ge 0} \frac{N_t}{r + t},
        \qquad N_t = \#\{i : y_i > t\}

    so that no special function is evaluated for each cell. Counts above 64 take part with the
    asymptotic expansion from 64 on, whose error is below 1e-5.

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``.
    device
        Where the sums are computed.
    """

    def __init__(self, counts: sp.csr_matrix, device: torch.device) -> None:
        n_genes = counts.shape[1]
        value, gene = counts.data, counts.indices.astype(np.int64)
        top = int(min(TAIL, value.max(initial=0)))
        at = np.minimum(value, top).astype(np.int64) * n_genes + gene
        exactly = np.bincount(at, minlength=(top + 1) * n_genes).reshape(top + 1, n_genes)
        more = exactly[::-1].cumsum(axis=0)[::-1][1:].astype(float)  # (top, n_genes): N_t
        self.more = torch.as_tensor(more, device=device)
        self.top = top
        is_large = value > top
        self.gene = torch.as_tensor(gene[is_large], device=device)
        self.value = torch.as_tensor(value[is_large].astype(float), device=device)

    def log_gamma(self, r: Tensor) -> Tensor:
        """Sum of ``lgamma(y + r) - lgamma(r)`` over the cells, per gene."""
        total = (self.more * torch.log(self._steps(r))).sum(0)
        beyond = torch.lgamma(self.value + r[self.gene]) - torch.lgamma(self.top + r[self.gene])
        return total.index_add(0, self.gene, beyond)

    def digamma(self, r: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of ``digamma(y + r) - digamma(r)`` over the cells, and its derivative, per gene."""
        steps = self._steps(r)
        first, second = (self.more / steps).sum(0), -(self.more / steps.square()).sum(0)
        high, low = self.value + r[self.gene] - 0.5, self.top + r[self.gene] - 0.5
        first = first.index_add(0, self.gene, torch.log(high / low))
        return first, second.index_add(0, self.gene, 1 / high - 1 / low)

    def _steps(self, r: Tensor) -> Tensor:
        t = torch.arange(self.top, dtype=torch.float64, device=r.device)
        return t[:, None] + r  # (top, n_genes)
