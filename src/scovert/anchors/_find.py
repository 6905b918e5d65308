"""Anchors of all cells: the search, the partners and the support."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.anchors._guard import consistency
from scovert.anchors._match import N_OWN_NEIGHBORS, Dataset, match_all
from scovert.anchors._search import Index
from scovert.anchors._space import (
    by_row,
    components_of,
    harmony,
    log_normalise,
    nudged,
    unit_rows,
)
from scovert.core._counts import row_slices

__all__ = ["MIN_CONSISTENCY", "Anchors", "find_anchors"]

Embed = Callable[[NDArray, NDArray], NDArray]

FULL_SUPPORT = 0.3
MIN_CONSISTENCY = 0.72
MAX_CELLS = 200_000
MIN_PER_DATASET = 2_000
CELLS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Anchors:
    """Anchors of a set of cells.

    Attributes
    ----------
    pairs
        Rows of the two cells of every anchor, shape ``(n_anchors, 2)``.
    partners
        Sparse 0/1 matrix, shape ``(n_cells, n_cells)``: row ``i`` marks the cells anchored to
        ``i``. A cell that was not matched has the partners of the nearest one that was.
    support
        Share of anchored cells around each cell, towards each dataset, in [0, 1], shape
        ``(n_cells, n_datasets)``; NaN in the column of the cell's own dataset.
    consistency
        Share of anchors that join the best-matching clusters of two datasets, in [0, 1]; 0 when
        there is no anchor.
    """

    pairs: NDArray
    partners: sp.csr_matrix
    support: NDArray
    consistency: float

    @property
    def are_trusted(self) -> bool:
        """Whether the anchors agree with the clusters of each dataset (0.72 or more do)."""
        return self.consistency >= MIN_CONSISTENCY


def find_anchors(
    counts: object,
    batch: NDArray,
    *,
    train: NDArray | None = None,
    embed: Embed = harmony,
    seed: int = 0,
) -> Anchors:
    r"""Find pairs of cells of different datasets that are mutual nearest neighbours.

    Mutual nearest neighbours :cite:p:`Haghverdi18` are sought between every two datasets in the
    space that `embed` makes of 30 principal components. The larger of two datasets is searched
    deeper, :math:`k = 5 \max(1, n_\text{searched} / n_\text{searching})`. Pairs are dropped that
    lie much further apart than the others, :math:`d > \text{median} + 2 \cdot 1.4826\,\text{MAD}`,
    or that few other pairs between the surroundings of the two cells confirm (the lowest 10 %, in
    the manner of :cite:t:`Stuart19`).

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``: dense, sparse, or a backed dataset, read in
        blocks of rows.
    batch
        Dataset of each cell as a code from 0, shape ``(n_cells,)``.
    train
        Which cells are matched, boolean, shape ``(n_cells,)``; the others receive the partners of
        the nearest matched cell of their dataset and the mean support of the 15 nearest. `None`
        matches all.
    embed
        Function from principal components and datasets to the space in which neighbours are
        sought.
    seed
        Seed of the principal components, of the clustering in the guard and, with many cells, of
        the draws and of the approximate search.

    Returns
    -------
    The anchors, the support of every cell and the consistency that guards against false anchors.

    Notes
    -----
    The consistency clusters each dataset alone (Leiden :cite:p:`Traag19`) and counts the anchors
    :math:`T_{ab}` between clusters: :math:`q = (\sum_a \max_b T_{ab} + \sum_b \max_a T_{ab}) / 2
    \sum T`, summed over the pairs of datasets.

    Cells that are equal are told apart by moving all positions at random by 1e-5 of their length,
    and not by rounding, which differs between processors.

    Above 200,000 cells only so many training cells are embedded and matched: 2,000 of each
    dataset, or all if it has fewer, and the rest in proportion to the sizes. All other cells are
    treated as those not in `train`, and the nearest matched cells of their dataset are those with
    the most similar principal components (cosine), since `embed` does not place them. Above 50,000
    cells the components are those of :func:`principal_components` for many cells; above 50,000
    matched cells of a dataset the search in it is approximate :cite:p:`Dong11`; above 20,000 cells
    of a dataset the guard clusters as many of them. Beside the counts, a million cells x 2,000
    genes take 1 GB.
    """
    batch = np.asarray(batch).ravel()
    train = np.ones(len(batch), bool) if train is None else np.asarray(train, bool)
    counts = by_row(counts)
    datasets, space = _place(
        components_of(counts, log_normalise, 30, seed=seed), batch, train, embed, seed
    )
    pairs, even = match_all(datasets)
    share = consistency(counts, batch, datasets, even, seed)
    lent = list(_lent(space, batch, datasets, seed))
    return Anchors(
        pairs=pairs,
        partners=_partners(pairs, lent, len(batch)),
        support=_support(pairs, lent, batch, datasets),
        consistency=share,
    )


def _place(
    components: NDArray, batch: NDArray, train: NDArray, embed: Embed, seed: int
) -> tuple[list[Dataset], NDArray]:
    """Datasets of matched cells, and the space in which the other cells look for them."""
    if len(batch) <= MAX_CELLS:
        space = nudged(unit_rows(embed(components, batch)), seed)
        rows = [np.flatnonzero((batch == b) & train) for b in range(batch.max() + 1)]
        return [Dataset.build(r, Index(space[r], seed)) for r in rows], space
    rows = _sample(batch, train, seed)
    matched = np.concatenate(rows)
    corrected = nudged(unit_rows(embed(components[matched], batch[matched])), seed)
    parts = np.split(corrected, np.cumsum([len(r) for r in rows])[:-1])
    space = components
    for block in row_slices(len(space), CELLS_AT_ONCE):  # in place, since it is large
        space[block] = unit_rows(space[block])
    found = zip(rows, parts, strict=True)
    return [Dataset.build(r, Index(p, seed)) for r, p in found], space


def _sample(batch: NDArray, train: NDArray, seed: int) -> list[NDArray]:
    """Rows of 200,000 training cells, by dataset: small ones whole, large ones in proportion."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero((batch == b) & train) for b in range(batch.max() + 1)]
    size = np.array([len(r) for r in rows])
    least = np.minimum(size, min(MIN_PER_DATASET, MAX_CELLS // len(rows)))
    share = (MAX_CELLS - least.sum()) / max(1, (size - least).sum())
    drawn = least + np.floor((size - least) * min(1.0, share)).astype(int)
    return [np.sort(rng.choice(r, n, replace=False)) for r, n in zip(rows, drawn, strict=True)]


def _lent(
    space: NDArray, batch: NDArray, datasets: list[Dataset], seed: int
) -> Iterator[tuple[NDArray, NDArray]]:
    """Cells that were not matched and the nearest cells of their dataset that were, in blocks."""
    for b, data in enumerate(datasets):
        index = Index(space[data.rows], seed)
        others = np.setdiff1d(np.flatnonzero(batch == b), data.rows)
        for block in row_slices(len(others) if len(data) else 0, CELLS_AT_ONCE):
            near = index.nearest(space[others[block]], N_OWN_NEIGHBORS)[0]
            yield others[block], data.rows[near].astype(np.int32)


def _partners(pairs: NDArray, lent: list[tuple[NDArray, NDArray]], n_cells: int) -> sp.csr_matrix:
    both = np.concatenate([pairs, pairs[:, ::-1]])
    graph = sp.csr_matrix((np.ones(len(both), np.int8), both.T), shape=(n_cells, n_cells))
    source = np.arange(n_cells)
    for others, near in lent:
        source[others] = near[:, 0]
    return graph[source]


def _support(
    pairs: NDArray, lent: list[tuple[NDArray, NDArray]], batch: NDArray, datasets: list[Dataset]
) -> NDArray:
    support = np.full((len(batch), len(datasets)), np.nan, np.float32)
    for b, c in combinations(range(len(datasets)), 2):
        between = pairs[(batch[pairs[:, 0]] == b) & (batch[pairs[:, 1]] == c)]
        for own, other, side in ((b, c, 0), (c, b, 1)):
            data = datasets[own]
            anchored = np.isin(data.rows, between[:, side])
            share = anchored[data.near].mean(axis=1)
            support[data.rows, other] = np.minimum(1, share / FULL_SUPPORT)
    for others, near in lent:
        support[others] = support[near].mean(axis=1)
    return support
