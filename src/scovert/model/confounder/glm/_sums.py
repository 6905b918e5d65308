"""Sums over blocks of cells: of symmetric matrices by their triangles, and of many products."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LongSum", "Triangle"]

TOGETHER = 16
"""Blocks that are summed in their own type: a rounding error of 6e-8, so many times."""


class Triangle:
    """Upper triangles of symmetric matrices, laid out along one axis.

    Parameters
    ----------
    n
        Rows of a matrix.
    device
        Where they are.
    """

    def __init__(self, n: int, device: torch.device) -> None:
        self.n = n
        self.rows, self.columns = torch.triu_indices(n, n, device=device)
        place = torch.empty(n, n, dtype=torch.long, device=device)
        place[self.rows, self.columns] = torch.arange(len(self), device=device)
        place[self.columns, self.rows] = place[self.rows, self.columns]
        self._place = place.ravel()

    def __len__(self) -> int:
        """Return the number of entries of a triangle."""
        return len(self.rows)

    def products(self, values: Tensor) -> Tensor:
        """Multiply all pairs of columns: ``(n_rows, n)`` to ``(n_rows, n_pairs)``."""
        return values.index_select(1, self.rows) * values.index_select(1, self.columns)

    def matrices(self, triangles: Tensor) -> Tensor:
        """Return the symmetric matrices, ``(n_matrices, n_pairs)`` to ``(n_matrices, n, n)``."""
        return triangles.index_select(1, self._place).view(len(triangles), self.n, self.n)


class LongSum:
    """Sum of products of matrices, one for each block of cells.

    A few are summed in the type of the blocks and all of them in double precision, which takes as
    long as the products themselves.

    Parameters
    ----------
    zeros
        Zeros in double precision, of the shape of the sum.
    dtype
        Type of the blocks.
    """

    def __init__(self, zeros: Tensor, dtype: torch.dtype) -> None:
        self._sum, self._part, self._n = zeros, torch.zeros_like(zeros, dtype=dtype), 0

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add the product of two matrices."""
        self._part.addmm_(left, right)
        self._n += 1
        if self._n == TOGETHER:
            self._carry()

    @property
    def value(self) -> Tensor:
        """The sum so far."""
        self._carry()
        return self._sum

    def _carry(self) -> None:
        if self._n:
            self._sum += self._part
            self._part.zero_()
            self._n = 0
