"""The space in which neighbours are sought: principal components, and Harmony on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.core._counts import as_rows, is_in_memory, row_slices

__all__ = [
    "TINY",
    "Rows",
    "by_row",
    "components_of",
    "harmony",
    "log_normalise",
    "nudged",
    "principal_components",
    "sample",
    "unit_rows",
]

Rows = NDArray | sp.csr_matrix

CLIP = 10.0
"""Standard deviations at which scaled genes are cut, as usual: one cell does not make an axis."""
MAX_CELLS_TO_FIT = 50_000
"""Cells that give the axes; the others are placed on them."""
NUDGE = 1e-5
"""Of the length of a point: a hundred times what rounding in single precision moves it."""
BLOCK = 5_000
"""Cells that are made dense at once."""
TINY = float(np.finfo(np.float32).tiny)
"""Divides what may be 0, where the result is 0 then."""
MIN_PER_DATASET = 500
"""Cells of a dataset that a sample holds at least, if it has them and there are not many."""


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
    options = {"nclust": n_clusters, "ncores": 1, "random_state": seed, "verbose": False}
    result = harmonypy.run_harmony(components.astype(np.float64), table, "batch", **options)
    corrected = np.asarray(result.Z_corr)
    return corrected if corrected.shape == components.shape else corrected.T


def principal_components(
    expression: NDArray | sp.spmatrix, n_components: int, *, clip: float = CLIP, seed: int = 0
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
        Seed of the solver's start vector and of the draw of cells.

    Returns
    -------
    Components, shape ``(n_cells, min(n_components, n_cells - 1, n_genes - 1))``, float32.

    Notes
    -----
    Above 50,000 cells the means, the variances and the directions are those of 50,000 cells drawn
    at random, onto which all cells are projected in blocks: memory does not grow with the cells.
    """
    return components_of(by_row(expression), sp.csr_matrix, n_components, clip=clip, seed=seed)


def components_of(
    x: Rows,
    prepare: Callable[[Rows], sp.csr_matrix],
    n_components: int,
    *,
    clip: float = CLIP,
    seed: int = 0,
) -> NDArray:
    """Principal components of ``prepare(x)``, which is only made for some cells at a time."""
    if x.shape[0] <= MAX_CELLS_TO_FIT:
        return _fit(prepare(x), n_components, clip, seed)[0]
    drawn = np.random.default_rng(seed).choice(x.shape[0], MAX_CELLS_TO_FIT, replace=False)
    _, axes = _fit(prepare(x[np.sort(drawn)]), n_components, clip, seed)
    components = np.empty((x.shape[0], axes.loadings.shape[1]), np.float32)
    for block in row_slices(x.shape[0], BLOCK):
        components[block] = axes.project(prepare(x[block]))
    return components


def log_normalise(counts: Rows) -> sp.csr_matrix:
    """Divide by the total of the cell, multiply by 10,000, take ``log(1 + x)``."""
    x = sp.csr_matrix(counts, dtype=np.float32, copy=True)
    total = np.asarray(x.sum(axis=1)).ravel()
    x.data *= np.repeat(1e4 / np.maximum(total, 1), np.diff(x.indptr)).astype(np.float32)
    return x.log1p()


def by_row(x: object) -> Rows:
    """`x` with fast access to rows; of a file only in memory if it is not large."""
    if is_in_memory(x):
        return as_rows(x)
    return as_rows(x[:]) if x.shape[0] <= MAX_CELLS_TO_FIT else x


def unit_rows(x: NDArray) -> NDArray:
    """Rows of `x` scaled to length 1."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), TINY)


def nudged(points: NDArray, seed: int) -> NDArray:
    """Points moved by a little, so that equal ones are near each other in a certain order.

    Else rounding chooses the nearest of them, which is another one on another processor.
    """
    noise = np.random.default_rng(seed).standard_normal(points.shape, np.float32)
    length = np.sqrt(np.square(points).sum(axis=1).mean())
    return points + points.dtype.type(NUDGE * length) * noise


def sample(batch: NDArray, among: NDArray, n_cells: int, seed: int) -> list[NDArray]:
    """Rows of at most `n_cells` cells, by dataset: small ones whole, large ones in proportion."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero((batch == b) & among) for b in range(batch.max() + 1)]
    size = np.array([len(r) for r in rows])
    least = np.minimum(size, min(MIN_PER_DATASET, n_cells // len(rows)))
    share = (n_cells - least.sum()) / max(1, (size - least).sum())
    drawn = least + np.floor((size - least) * min(1.0, share)).astype(int)
    return [np.sort(rng.choice(r, n, replace=False)) for r, n in zip(rows, drawn, strict=True)]


@dataclass(frozen=True)
class _Axes:
    """What turns expression into components: cut at `highest`, divide by `sd`, rotate, centre."""

    highest: NDArray
    sd: NDArray
    loadings: NDArray
    origin: NDArray

    def project(self, x: sp.csr_matrix) -> NDArray:
        """Components of cells, float32."""
        data = np.minimum(x.data, self.highest[x.indices]) / self.sd[x.indices]
        scaled = sp.csr_matrix((data, x.indices, x.indptr), shape=x.shape, dtype=np.float32)
        return scaled @ self.loadings - self.origin


def _fit(
    expression: sp.csr_matrix, n_components: int, clip: float, seed: int
) -> tuple[NDArray, _Axes]:
    """Components of these cells, and the axes to find those of others."""
    from sklearn.decomposition import PCA

    x = sp.csc_matrix(expression, dtype=np.float64, copy=True)
    highest, sd, varies = _scaling(x, clip)
    gene = np.repeat(np.arange(x.shape[1], dtype=np.int32), np.diff(x.indptr))
    np.minimum(x.data, highest[gene], out=x.data)
    x.data /= sd[gene]
    n_components = max(1, min(n_components, min(x.shape) - 1))
    if not varies:
        components = np.zeros((x.shape[0], n_components), np.float32)
        loadings, origin = np.zeros((x.shape[1], n_components)), np.zeros(n_components)
    else:
        pca = PCA(n_components, svd_solver="arpack", random_state=seed)
        components = pca.fit_transform(x.tocsr()).astype(np.float32)
        loadings, origin = pca.components_.T, pca.components_ @ pca.mean_
    return components, _Axes(*(v.astype(np.float32) for v in (highest, sd, loadings, origin)))


def _scaling(x: sp.csc_matrix, clip: float) -> tuple[NDArray, NDArray, bool]:
    """Highest value and standard deviation of each gene, and whether any gene varies."""
    n_cells = x.shape[0]
    mean = np.asarray(x.mean(axis=0)).ravel()
    squares = sp.csc_matrix((x.data**2, x.indices, x.indptr), shape=x.shape)
    variance = np.asarray(squares.mean(axis=0)).ravel() - mean**2
    sd = np.sqrt(np.maximum(variance, 0) * n_cells / max(n_cells - 1, 1))
    is_constant = variance <= 1e-10 * mean**2
    sd[is_constant] = 1.0
    return mean + clip * sd, sd, not is_constant.all()
