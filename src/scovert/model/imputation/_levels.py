"""Levels of imputed genes, between what is imputed and what the nearest cells of others have."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.anchors._match import nearest
from scovert.anchors._space import log_normalise, nudged, principal_components, sample, unit_rows
from scovert.core.dataloaders._cells import Cells
from scovert.model.imputation._intervals import SD_OF_MAD, log_errors
from scovert.model.imputation._panels import MIN_COUNTS, Panels

__all__ = ["levels", "nearest_totals"]

N_NEIGHBORS, N_COMPONENTS = 30, 30
"""Nearest cells whose counts are added up, and principal components in which they are sought."""
MAX_CELLS = 20_000
"""Cells of all datasets that are drawn for it: totals of genes do not need more."""

FEWEST_MOVED = 9
"""Known genes from which levels are learnt: as many as an interval needs."""
RESPONSE = 3.0
"""Standard deviations from which on a gene is taken to respond: chance reaches them one time in
400."""


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


def levels(true: NDArray, imputed: NDArray, near: NDArray, panels: Panels) -> NDArray:
    r"""Return how far the logarithms of imputed genes move towards the totals of nearest cells.

    A gene that is imputed far from them, for its dataset, is taken to respond and stays:

    .. math:: m_{bg} = \frac{\log(K_{bg} / P_{bg})}{1 + (\log(K_{bg} / P_{bg}) / 3 \tau_b)^4}

    with :math:`\tau_b` the standard deviation of the logarithms, by their median absolute value.
    The others move by :math:`\lambda_b m_{bg}`, where :math:`\lambda_b`, in [0, 1], is the slope
    of the errors :math:`\log(T / P)` of known genes on m by least squares: 0 where responses are
    real, towards 1 where what a chemistry does to the genes that are seen was taken for one.

    Parameters
    ----------
    true, imputed, near
        Totals T, P and K of genes by dataset, shape ``(n_datasets, n_genes)``; K is NaN where
        there is none.
    panels
        Genes of each dataset.

    Returns
    -------
    Array of this shape, float32, natural logarithm; 0 of learnt genes, and everywhere in a dataset
    with fewer than 9 known genes that were imputed as 20 counts or more.
    """
    moves = np.zeros(true.shape)
    for b, known in enumerate(panels.calibration):
        moves[b] = _moves(imputed[b], near[b], panels.learnt[b])
        moves[b] *= _slope(true[b, known], imputed[b, known], moves[b, known])
    return moves.astype(np.float32)


def _moves(imputed: NDArray, near: NDArray, learnt: NDArray) -> NDArray:
    """Return the way of each gene that is not learnt to the nearest cells; none of responses."""
    moves = np.where(learnt, 0, np.nan_to_num(np.log((near + 0.5) / (imputed + 0.5))))
    usual = np.abs(moves[(imputed >= MIN_COUNTS) & (moves != 0)])
    if len(usual) == 0:
        return np.zeros_like(moves)
    return moves / (1 + (moves / (RESPONSE * SD_OF_MAD * np.median(usual))) ** 4)


def _slope(true: NDArray, imputed: NDArray, moves: NDArray) -> float:
    errors, _ = log_errors(true, imputed)
    moves = moves[imputed >= MIN_COUNTS]
    if len(errors) < FEWEST_MOVED or not moves.any():
        return 0.0
    return float(np.clip(errors @ moves / (moves @ moves), 0, 1))
