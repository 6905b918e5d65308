"""How well the datasets are mixed within each cell type."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import check_categorical, check_number
from scovert.pl._input import PANEL, PER_ENTRY, axes_or_new, finish, fit_figure
from scovert.pl._marks import MARKERS, OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["batch_mixing"]


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
    """Draw how well the datasets are mixed within each cell type, a row for each (Axes).

    The score is :func:`scovert.metrics.batch_mixing_by_type`, its mean in the legend
    :func:`scovert.metrics.batch_mixing`. It does not see which types the neighbours have: see
    :func:`scovert.metrics.label_transfer`.

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
        Neighbours of each cell, among the cells of all types that are scored.
    ax
        Where to draw; `None` makes a figure.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes. Short lines mark the score of datasets that lie apart. Behind the name of a type
    stands the number of its cells, and which datasets have none of it or too few (under 5): such
    a type has no score, and its row is grey.

    Raises
    ------
    KeyError
        If a key or a representation is missing.
    ValueError
        If a cell has no dataset or no type, there is one dataset only, a representation is not a
        finite matrix, no type has 5 cells in every dataset, or there are too few cells for
        `n_neighbors`.

    Examples
    --------
    >>> import scovert
    >>> adata = scovert.simulate.paired((60, 40))
    >>> ax = scovert.pl.batch_mixing(
    ...     adata, batch_key="batch", labels_key="cell_type", use_rep="truth_latent"
    ... )
    >>> ax.get_xlabel()
    'batch mixing (1: shuffled within the type)'
    """
    from scovert.metrics import batch_mixing_by_type

    slots = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    for key, argument in ((batch_key, "batch_key"), (labels_key, "labels_key")):
        check_categorical(adata, key, argument)
    check_number("n_neighbors", n_neighbors, 1, whole=True)
    batch, labels = (adata.obs[key].astype(str).to_numpy() for key in (batch_key, labels_key))
    sizes = pd.crosstab(labels, batch)  # (n_types, n_datasets)
    score = partial(batch_mixing_by_type, batch=batch, labels=labels, n_neighbors=n_neighbors)
    scores = pd.DataFrame({slot: score(_embedding(adata, slot)) for slot in slots})
    scores = scores.reindex(sizes.index).sort_values(slots[0], kind="stable")  # NaN last
    given, ax = ax, axes_or_new(ax)
    _draw(ax, scores, sizes.loc[scores.index])
    if given is None:
        fit_figure(ax, PANEL[0], PER_ENTRY * len(scores))
    return finish(ax, show=show)


def _row_label(sizes: pd.Series) -> str:
    """Name of a type, the number of its cells, and the datasets that lack it."""
    from scovert.metrics._cells import MIN_CELLS

    notes = [str(sizes.sum())]
    for note, lacking in (
        ("not in", sizes.index[sizes == 0]),
        ("few in", sizes.index[(sizes > 0) & (sizes < MIN_CELLS)]),
    ):
        if len(lacking):
            which = ", ".join(lacking) if len(lacking) < 3 else f"{len(lacking)} datasets"
            notes.append(f"{note} {which}")
    return f"{sizes.name} ({'; '.join(notes)})"


def _draw(ax: Axes, scores: pd.DataFrame, sizes: pd.DataFrame) -> None:
    """Draw the scores, types x representations, of types with so many cells, types x datasets."""
    rows = np.arange(len(scores))
    is_scored = scores.notna().all(axis=1).to_numpy()
    for row in rows[~is_scored]:
        ax.axhspan(row - 0.5, row + 0.5, color="0.93", linewidth=0)
    shares = sizes.div(sizes.sum(axis=1), axis=0)[is_scored]
    apart = shares.pow(2).sum(axis=1)  # exp(-KL) of cells among their own dataset
    ax.plot(apart, rows[is_scored], "|", color="0.4", markersize=14, label="datasets apart")
    for i, (slot, values) in enumerate(scores.items()):
        style = {"color": OKABE_ITO[i % len(OKABE_ITO)], "marker": MARKERS[i % len(MARKERS)]}
        label = f"{slot} (mean {values.mean():.2f})"
        ax.plot(values[is_scored], rows[is_scored], linestyle="", label=label, **style)
    ax.set_yticks(rows, [_row_label(own) for _, own in sizes.iterrows()])
    ax.set_xlabel("batch mixing (1: shuffled within the type)")
    ax.set(xlim=(0, 1.02), ylim=(len(scores) - 0.5, -0.5))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)


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
