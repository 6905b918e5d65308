"""Anchors of all cells: the search, the partners and the support."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scovert.anchors._classes import Classes
from scovert.anchors._match import Dataset, match_all, nearest
from scovert.anchors._positions import moves_together
from scovert.anchors._space import (
    TINY,
    by_row,
    components_of,
    harmony,
    log_normalise,
    nudged,
    sample,
    unit_rows,
)
from scovert.core._counts import row_slices

__all__ = ["MIN_CLARITY", "Anchors", "find_anchors"]

Space = Literal["classes", "harmony"] | Callable[[NDArray, NDArray], NDArray]

N_COMPONENTS = 30
"""Principal components, as graphs of cells have; how many of them count, the classes decide."""
FULL_SUPPORT = 0.5
"""Share of anchored cells, by that of the upper quartile of the dataset, of full support."""
MIN_SUPPORT = 0.7
"""Of both cells of an anchor."""
MIN_CLARITY = 0.53
"""Of trusted anchors. With 0.52 and less two thirds at most join the same type (cells of 160
genes, or with a twentieth of their counts), with 0.56 and more eight in ten do."""
MIN_CONSISTENCY = 1 / 3
"""Of positions that are believed: 0.45 or more where classes take the datasets for one, 0.25 or
less where datasets have classes of their own, by which positions tell them apart (four studies of
blood, or a tenth of the depth)."""
MAX_CELLS = 50_000
"""Cells of a dataset that are searched through; the others take support from their class."""
CELLS_AT_ONCE = 50_000
"""Cells that are placed in the classes at once."""


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
        How many cells of the class of each cell found a counterpart in each dataset, in [0, 1],
        shape ``(n_cells, n_datasets)``; NaN in the column of the cell's own dataset.
    balance
        Weight of each cell with which its class counts the same in every dataset, from 0.2 to 5,
        shape ``(n_cells,)``.
    clarity
        How clearly the cells fall into classes, at most 1: mean of the share of the variance of
        the components that lies between classes and datasets, and of how much more often than by
        chance the five nearest cells are of the same class.
    positions
        Components without the shifts of the datasets, and without what then still lies between
        anchored cells, shape ``(n_cells, n_components)``.
    sd
        Standard deviation of `positions` within classes, shape ``(n_components,)``.
    consistency
        Share of the anchors that join cells of classes which both their datasets have, in [0, 1].
    """

    pairs: NDArray
    partners: sp.csr_matrix
    support: NDArray
    balance: NDArray
    clarity: float
    positions: NDArray
    sd: NDArray
    consistency: float

    @property
    def counterparts(self) -> NDArray:
        """Whether each dataset has counterparts of each cell (support of 0.7), or is its own."""
        return np.isnan(self.support) | (self.support >= MIN_SUPPORT)

    @property
    def are_consistent(self) -> bool:
        """Whether a third of the anchors or more join classes that both datasets have."""
        return self.consistency >= MIN_CONSISTENCY

    @property
    def are_trusted(self) -> bool:
        """Whether there are any, and the classes of cells are clear (0.53 or more)."""
        return len(self.pairs) > 0 and self.clarity >= MIN_CLARITY


def find_anchors(
    counts: object,
    batch: NDArray,
    *,
    train: NDArray | None = None,
    space: Space = "classes",
    seed: int = 0,
) -> Anchors:
    r"""Find pairs of cells of different datasets that are mutual nearest neighbours.

    Mutual nearest neighbours :cite:p:`Haghverdi18` are sought between every two datasets in
    `space`, made of 30 principal components. Each cell of the smaller of two datasets with n cells
    looks at :math:`k = \max(5, n / 100)`, at most 60, and the larger is searched deeper, in
    proportion to the sizes. Pairs are dropped that lie much further apart than the others,
    :math:`d > \text{median} + 2 \cdot 1.4826\,\text{MAD}`, or that few other pairs between the
    surroundings of the two cells confirm (the lowest 10 %, in the manner of :cite:t:`Stuart19`),
    or whose cells do not both have a support of 0.7.

    Parameters
    ----------
    counts
        Raw counts, shape ``(n_cells, n_genes)``: dense, sparse, or a backed dataset, read in
        blocks of rows.
    batch
        Dataset of each cell as a code from 0, shape ``(n_cells,)``.
    train
        Which cells are matched, boolean, shape ``(n_cells,)``; the others receive the partners of
        the nearest matched cell of their dataset. `None` matches all.
    space
        Where neighbours are sought: ``"classes"``, components from which a mixture of classes
        that the datasets share has taken the shift of each dataset; ``"harmony"``
        :cite:p:`Korsunsky19`; or a function of components and datasets.
    seed
        Seed of the principal components, of the classes and, with many cells, of the draws.

    Returns
    -------
    The anchors, the support of every cell, and how clear the classes are, which guards against
    false anchors.

    Notes
    -----
    The support in dataset c starts from the share of the 15 nearest cells of the own dataset that
    have an anchor there, divided by half of the upper quartile of this share in the dataset, and
    at most 1. A cell has the mean of the cells of its class: the datasets share all mixtures, but
    a class of one dataset has anchors only where another has such cells too.

    Cells that are equal are told apart by moving all components at random by 1e-5 of their length,
    and not by rounding, which differs between processors.

    Above 50,000 cells only so many training cells are matched: 500 of each dataset, or all if it
    has fewer, and the rest in proportion to the sizes. All others are treated as those not in
    `train`. The components are then those of :func:`principal_components` for many cells. Beside
    the counts, a million cells x 2,000 genes take 1 GB.
    """
    batch = np.asarray(batch).ravel()
    train = np.ones(len(batch), bool) if train is None else np.asarray(train, bool)
    found = components_of(by_row(counts), log_normalise, N_COMPONENTS, seed=seed)
    components = nudged(found.astype(float), seed)  # in single precision equal cells change places
    classes = Classes.fit(components, batch, seed)
    points_of = _places(space, classes, components, batch)
    rows = sample(batch, train, MAX_CELLS, seed)
    datasets = [Dataset.build(r, points_of(r)) for r in rows]
    pairs = match_all(datasets)
    means = classes.means(_own_support(pairs, batch, datasets), rows, components)
    support = classes.spread(means, components, batch)
    pairs = pairs[_least_support(pairs, support, batch) >= MIN_SUPPORT]
    support[np.arange(len(batch)), batch] = 0
    source = _sources(points_of, batch, datasets)
    positions = classes.corrected(components, batch)
    is_supported = support.max(axis=1) >= MIN_SUPPORT
    positions += moves_together(positions, pairs, datasets, is_supported)[source]
    support[np.arange(len(batch)), batch] = np.nan
    balance = classes.spread(classes.balance(), components, batch)[:, 0]
    agreement = classes.agreement([data.near for data in datasets], rows, components)
    clarity = (classes.explained + agreement) / 2
    return Anchors(
        pairs,
        _partners(pairs, source),
        support,
        balance,
        clarity,
        positions,
        classes.sd,
        _consistency(pairs, classes.spread(classes.shared(), components, batch), batch),
    )


def _places(
    space: Space, classes: Classes, components: NDArray, batch: NDArray
) -> Callable[[NDArray], NDArray]:
    """Return what places some of the cells in the space in which partners are sought."""
    if space == "classes":
        return lambda rows: classes.place(components[rows], batch[rows])
    embed = harmony if space == "harmony" else space
    return unit_rows(embed(components, batch)).__getitem__


def _own_support(pairs: NDArray, batch: NDArray, datasets: list[Dataset]) -> list[NDArray]:
    """Support of matched cells by their surroundings, ``(n_matched, n_datasets)`` each."""
    support = [np.zeros((len(data), len(datasets))) for data in datasets]
    for side in (0, 1):
        own, other = batch[pairs[:, side]], batch[pairs[:, 1 - side]]
        for b, data in enumerate(datasets):
            for c in np.unique(other[own == b]):
                anchored = np.isin(data.rows, pairs[(own == b) & (other == c), side])
                share = anchored[data.near].mean(axis=1)
                full = FULL_SUPPORT * np.quantile(share, 0.75)
                support[b][:, c] = np.minimum(1, share / max(full, TINY))
    return support


def _least_support(pairs: NDArray, support: NDArray, batch: NDArray) -> NDArray:
    """Lower one of the supports of the cells of each pair in the dataset of the other."""
    i, j = pairs.T
    return np.minimum(support[i, batch[j]], support[j, batch[i]])


def _consistency(pairs: NDArray, shared: NDArray, batch: NDArray) -> float:
    """Mean over the anchors of how much either's class is there in the dataset of the other."""
    i, j = pairs.T
    both = shared[i, batch[j]] * shared[j, batch[i]]
    return float(both.mean()) if len(both) else 0.0


def _sources(
    points_of: Callable[[NDArray], NDArray], batch: NDArray, datasets: list[Dataset]
) -> NDArray:
    """Find the matched cell that stands for each: itself, or the nearest of its dataset."""
    source = np.arange(len(batch))
    for b, data in enumerate(datasets):
        others = np.setdiff1d(np.flatnonzero(batch == b), data.rows)
        for block in row_slices(len(others) if len(data) else 0, CELLS_AT_ONCE):
            near = nearest(data.points, points_of(others[block]), 1)[0][:, 0]
            source[others[block]] = data.rows[near]
    return source


def _partners(pairs: NDArray, source: NDArray) -> sp.csr_matrix:
    both = np.concatenate([pairs, pairs[:, ::-1]])
    shape = (len(source), len(source))
    return sp.csr_matrix((np.ones(len(both), np.int8), both.T), shape=shape)[source]
