"""How well the datasets are mixed within each cell type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import check_categorical, check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["batch_mixing"]

_MIN_CELLS = 5  # of a type in a dataset, to count there
_WIDTH, _ROW_HEIGHT = 7.5, 0.3  # in inches


def batch_mixing(
    adata: AnnData,
    *,
    batch_key: str,
    labels_key: str,
    use_rep: str | Sequence[str] = "X_paired",
    n_neighbors: int = 30,
    ax: Axes | None = None,
    show: bool = False,
) -> Axes:
    r"""Draw how well the datasets are mixed within each cell type, one row for each type.

    Neighbours are sought among the cells of the same type. Let :math:`f_i` be the share of the
    neighbours of cell i that come from another dataset than its own, and :math:`n_{tb}` the number
    of cells of type t in dataset b. The score of type t is

    .. math:: \mathrm{mean}_b \ \frac{\mathrm{mean}_{i: y_i = t,\, b_i = b}\, f_i}
        {(n_t - n_{tb}) / (n_t - 1)}, \qquad n_t = \sum_b n_{tb}.

    It is 0 when the datasets are separated and 1 on average when the datasets are shuffled within
    the type, whatever their sizes. A mixture that differs from place to place lowers it. Unlike
    :func:`scovert.metrics.batch_mixing` it is also low when a type lies among the wrong cells.

    Parameters
    ----------
    adata
        Cells of two or more datasets with embeddings in ``adata.obsm``.
    batch_key
        Column of ``adata.obs`` with the dataset of each cell.
    labels_key
        Column of ``adata.obs`` with the type of each cell.
    use_rep
        Slot of ``adata.obsm``, or several to compare. Rows are ordered by the first, the
        worst mixed type on top.
    n_neighbors
        Neighbours of each cell. A type with fewer cells in one of its datasets takes as many as
        there are others, so that separated datasets score 0.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes. Behind the name of a type stands the number of its cells, and which datasets have
    none of it or too few (under 5). These are left out of its score; a type with fewer than two
    datasets left has no score, and its row is grey.

    Raises
    ------
    KeyError
        If a key or a representation is missing.
    ValueError
        If a cell has no dataset or no type, there is one dataset only, a representation is not a
        finite matrix, or no type has 5 cells in two datasets.

    Examples
    --------
    >>> import scovert
    >>> adata = scovert.simulate.paired((60, 40))
    >>> ax = scovert.pl.batch_mixing(
    ...     adata, batch_key="batch", labels_key="cell_type", use_rep="truth_latent"
    ... )
    >>> ax.get_xlabel()
    'neighbours from other datasets\n(observed / expected)'
    """
    import matplotlib.pyplot as plt

    slots = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    for key, argument in ((batch_key, "batch_key"), (labels_key, "labels_key")):
        check_categorical(adata, key, argument)
    check_number("n_neighbors", n_neighbors, 1, whole=True)
    batch, labels = (adata.obs[key].astype(str).to_numpy() for key in (batch_key, labels_key))
    sizes = pd.crosstab(labels, batch)  # (n_types, n_datasets)
    _check_sizes(sizes, batch_key)
    scores = pd.DataFrame(
        {slot: _scores(_embedding(adata, slot), batch, labels, n_neighbors) for slot in slots}
    ).sort_values(slots[0])  # types without a score last
    if ax is None:
        size = (_WIDTH, 1.2 + _ROW_HEIGHT * len(scores))
        _, ax = plt.subplots(figsize=size, layout="constrained")
    _draw(ax, scores, [_row_label(t, sizes.loc[t]) for t in scores.index])
    if show:
        plt.show()
    return ax


def _scores(embedding: NDArray, batch: NDArray, labels: NDArray, n_neighbors: int) -> pd.Series:
    """Score of each type; NaN for types with enough cells in fewer than two datasets.

    `embedding` has shape ``(n_cells, n_dims)``, `batch` and `labels` ``(n_cells,)``.
    """
    scores = {}
    for label in np.unique(labels):
        own = labels == label
        scores[label] = _score(embedding[own], batch[own], n_neighbors)
    return pd.Series(scores, dtype=float)


def _score(embedding: NDArray, batch: NDArray, n_neighbors: int) -> float:
    """Share of neighbours from other datasets relative to chance, for the cells of one type."""
    from sklearn.neighbors import NearestNeighbors

    names, codes, sizes = np.unique(batch, return_inverse=True, return_counts=True)
    counts = sizes >= _MIN_CELLS
    if counts.sum() < 2:
        return np.nan
    kept = counts[codes]
    codes, points, sizes = codes[kept], embedding[kept], sizes[counts]
    search = NearestNeighbors(n_neighbors=min(n_neighbors, sizes.min() - 1)).fit(points)
    near = search.kneighbors(return_distance=False)  # (n_cells, n_neighbors)
    foreign = (codes[near] != codes[:, None]).mean(axis=1)  # (n_cells,)
    found = np.array([foreign[codes == b].mean() for b in np.flatnonzero(counts)])
    return float(np.mean(found * (sizes.sum() - 1) / (sizes.sum() - sizes)))


def _row_label(name: str, sizes: pd.Series) -> str:
    """Name of a type, the number of its cells, and the datasets that lack it."""
    notes = [str(sizes.sum())]
    for note, lacking in (
        ("not in", sizes.index[sizes == 0]),
        ("few in", sizes.index[(sizes > 0) & (sizes < _MIN_CELLS)]),
    ):
        if len(lacking):
            which = ", ".join(lacking) if len(lacking) < 3 else f"{len(lacking)} datasets"
            notes.append(f"{note} {which}")
    return f"{name} ({'; '.join(notes)})"


def _draw(ax: Axes, scores: pd.DataFrame, row_labels: list[str]) -> None:
    rows = np.arange(len(scores))
    scored = scores.notna().any(axis=1).to_numpy()
    for row in rows[~scored]:
        ax.axhspan(row - 0.5, row + 0.5, color="0.93", linewidth=0)
    ax.axvline(1, color="0.4", linestyle="--", linewidth=1, label="perfectly mixed")
    ax.hlines(rows[scored], *scores[scored].agg(["min", "max"], axis=1).to_numpy().T, color="0.7")
    for slot, values in scores.items():
        ax.plot(values[scored], rows[scored], "o", label=slot)
    ax.set_yticks(rows, row_labels)
    ax.set(
        xlabel="neighbours from other datasets\n(observed / expected)",
        xlim=(-0.05, max(1.15, 1.05 * np.nanmax(scores.to_numpy()))),
        ylim=(len(scores) - 0.5, -0.5),
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


def _check_sizes(sizes: pd.DataFrame, batch_key: str) -> None:
    if sizes.shape[1] < 2:
        raise ValueError(
            f"`adata.obs[{batch_key!r}]` holds one dataset only, {sizes.columns[0]!r}. Two or "
            "more can be mixed. Name the column that tells the datasets apart."
        )
    if not ((sizes >= _MIN_CELLS).sum(axis=1) > 1).any():
        raise ValueError(
            f"None of the {len(sizes)} types has {_MIN_CELLS} cells in two datasets. At least one "
            "such type is needed. Check that the labels of the datasets use the same names."
        )


def _embedding(adata: AnnData, slot: str) -> NDArray:
    if slot not in adata.obsm:
        raise KeyError(
            f"`use_rep={slot!r}` is not in `adata.obsm` (slots: {list(adata.obsm)}). Name one of "
            "these, or write it first, for example with `model.annotate()`."
        )
    values = np.asarray(adata.obsm[slot])
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(
            f"`adata.obsm[{slot!r}]` of shape {values.shape} is not a finite matrix. One row of "
            "finite numbers for each cell is accepted: leave out the cells without coordinates."
        )
    return values
