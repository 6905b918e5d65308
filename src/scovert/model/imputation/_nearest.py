"""What genes would add up to in a dataset whose cells were like the nearest ones of the others."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.anchors._match import nearest
from scovert.anchors._space import log_normalise, nudged, principal_components, sample, unit_rows
from scovert.core.dataloaders._cells import Cells
from scovert.model.imputation._panels import Panels

__all__ = ["nearest_totals"]

N_NEIGHBORS, N_COMPONENTS = 30, 30
"""Nearest cells whose counts are added up, and principal components in which they are sought."""
MAX_CELLS = 20_000
"""Cells of all datasets that are drawn for it: totals of genes do not need more."""


def nearest_totals(cells: Cells, panels: Panels) -> NDArray:
    r"""Totals of genes if each cell had the shares of its nearest cells in the other datasets.

    Neighbours are sought in the principal components of the genes that all datasets learn, S, of
    length one; N are those of them whose dataset learns the gene, x counts and l their total in S:

    .. math:: K_g = \sum_i \ell_i \frac{\sum_{j \in N_{ig}} x_{jg}}{\sum_{j \in N_{ig}} \ell_j}

    Parameters
    ----------
    cells
        Cells of the model, of which 20,000 are drawn where there are more.
    panels
        Genes of each dataset.

    Returns
    -------
    Array of shape ``(n_datasets, n_genes)``, on the scale of the counts of all cells; NaN where no
    neighbour learns the gene, and for datasets that lack none.
    """
    rows = np.sort(np.concatenate(sample(cells.batch, np.full(len(cells), True), MAX_CELLS, 0)))
    counts, batch = _read(cells, rows), cells.batch[rows]
    of_shared = counts[:, panels.learnt.all(0)]
    library = np.asarray(of_shared.sum(1), dtype=float).ravel()
    axes = principal_components(log_normalise(of_shared), N_COMPONENTS)
    points = nudged(unit_rows(axes), 0)
    patterns, of_gene = np.unique(panels.learnt, axis=1, return_inverse=True)
    found = np.full(panels.learnt.shape, np.nan)
    for b in np.flatnonzero(~panels.learnt.all(1)):
        own, others = batch == b, np.flatnonzero(batch != b)
        near = others[nearest(points[others], points[own], N_NEIGHBORS)[0]]  # (n_own, k)
        n_drawn = own.sum() / (cells.batch == b).sum()
        for i, knows in enumerate(patterns.T):
            genes = np.flatnonzero(of_gene.ravel() == i)
            weight = _weights(near, library, knows[batch], library[own])
            if weight is not None:
                found[b, genes] = (weight @ counts[:, genes]) / n_drawn
    return found


def _read(cells: Cells, rows: NDArray) -> sp.csr_matrix:
    """Read the counts of some cells, in the order of the rows."""
    parts = []
    for start, block in cells.blocks():
        inside = rows[(rows >= start) & (rows < start + block.shape[0])] - start
        parts.append(sp.csr_matrix(block[inside].astype(np.float32)))
    return sp.vstack(parts, format="csr")


def _weights(
    near: NDArray, library: NDArray, knows: NDArray, own_library: NDArray
) -> NDArray | None:
    """Weight of each cell in the totals of genes that some cells know; `None` if none is near."""
    of_near = library[near] * knows[near]  # (n_own, k)
    sums = of_near.sum(1)
    has_any = sums > 0
    if not has_any.any():
        return None
    scale = own_library.sum() / own_library[has_any].sum()
    rate = scale * own_library[has_any] / sums[has_any]
    is_known = knows[near[has_any]]
    shares = np.where(is_known, rate[:, None], 0).ravel()
    return np.bincount(near[has_any].ravel(), shares, minlength=len(library))
