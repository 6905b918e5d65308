"""Niches, or any labels, where they are, one panel for each slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._checks import check_categorical
from scovert.pl._composition import draw_legend, shortened, type_colours
from scovert.pl._input import finish, fit_figure

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["niches"]

_PANEL, _ALONE = 2.6, 4.0  # inches, of the side of a slide, of one alone
_N_COLUMNS = 4  # panels beside each other: as many as fit on a page
_SIZE, _LARGEST = 12_000.0, 25.0  # points squared that all cells of a panel share, and of one
_OTHER = "0.85"  # colour of cells without a label


def niches(
    adata: AnnData,
    color: str = "niche",
    *,
    sample_key: str | None = None,
    spatial_key: str = "spatial",
    show: bool = False,
) -> NDArray:
    """Draw the cells of each slide at their positions, coloured by their niche (array of Axes).

    scanpy draws one slide (``sc.pl.embedding(adata, "spatial", color="niche")``); this draws all,
    with the same colours.

    Parameters
    ----------
    adata
        Cells with positions, such as ``model.annotate`` leaves them.
    color
        Column of ``adata.obs`` with niches, types or regions.
    sample_key
        Column of ``adata.obs`` with the slide; `None` draws all cells in one panel.
    spatial_key
        Slot of ``adata.obsm`` with the positions, of which the first two columns are drawn.
    show
        Show the figure, as :func:`matplotlib.pyplot.show` does.

    Returns
    -------
    The axes, one for each slide. Colours are those of ``adata.uns[f"{color}_colors"]`` if there
    are any.

    Raises
    ------
    KeyError
        If a column or the positions are missing.

    Examples
    --------
    >>> import scovert
    >>> tissue = scovert.simulate.niche(200, 3)
    >>> axes = scovert.pl.niches(tissue, "truth_region", sample_key="sample")
    >>> [ax.get_title() for ax in axes]
    ['section_0', 'section_1', 'section_2']
    """
    import matplotlib.pyplot as plt

    labels = _labels(adata, color)
    positions = _positions(adata, spatial_key)
    sample = _samples(adata, sample_key)
    slides = list(dict.fromkeys(sample.cat.categories))
    n_columns = min(_N_COLUMNS, len(slides))
    n_rows = -(-len(slides) // n_columns)
    _, grid = plt.subplots(n_rows, n_columns, layout="constrained", squeeze=False)
    axes = grid.ravel()
    colours = _colours(adata, color, labels.cat.categories)
    for ax, slide in zip(axes, slides, strict=False):
        own = (sample == slide).to_numpy()
        _draw(ax, positions[own], labels[own], colours)
        ax.set_title("" if sample_key is None else shortened(slide))
    for ax in axes[len(slides) :]:
        ax.remove()
    _draw_key(axes[n_columns - 1], labels.cat.categories, colours)
    side = _PANEL if len(slides) > 1 else _ALONE
    fit_figure(axes[: len(slides)], side, side)
    for ax in axes[: len(slides)]:
        ax.set_aspect("equal")  # of a size that is found: equal axes take none of it
    return finish(axes[: len(slides)], show=show)


def _colours(adata: AnnData, color: str, drawn: pd.Index) -> list:
    """Return the colours of the labels that are there, which do not depend on those missing."""
    every = adata.obs[color].astype("category").cat.categories
    given = adata.uns.get(f"{color}_colors", type_colours(every))
    if len(given) < len(every):  # scanpy has taken away those of labels without cells
        return list(given)
    return [given[i] for i in every.get_indexer(drawn)]


def _draw(ax: object, positions: NDArray, labels: pd.Series, colours: object) -> None:
    size = min(_LARGEST, _SIZE / max(len(positions), 1))
    codes = labels.cat.codes.to_numpy()
    for code in range(-1, len(labels.cat.categories)):  # those without a label lie below
        x, y = positions[codes == code].T
        colour = _OTHER if code < 0 else colours[code]
        ax.scatter(x, y, s=size, color=colour, linewidths=0, rasterized=True)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _draw_key(ax: object, names: pd.Index, colours: object) -> None:
    for name, colour in zip(names, colours, strict=False):
        ax.scatter([], [], s=_LARGEST, color=colour, label=shortened(name))
    draw_legend(ax, len(names))


def _labels(adata: AnnData, color: str) -> pd.Series:
    if color not in adata.obs:
        raise KeyError(
            f"`color={color!r}` is not a column of `adata.obs` (columns: "
            f"{list(adata.obs.columns)}). `model.annotate()` writes the niches."
        )
    return adata.obs[color].astype("category").cat.remove_unused_categories()


def _samples(adata: AnnData, key: str | None) -> pd.Series:
    if key is None:
        return pd.Series("", adata.obs_names).astype("category")
    check_categorical(adata, key, "sample_key")
    return adata.obs[key].astype("category").cat.remove_unused_categories()


def _positions(adata: AnnData, key: str) -> NDArray:
    if key not in adata.obsm:
        raise KeyError(
            f"`spatial_key={key!r}` is not in `adata.obsm` (there are: {list(adata.obsm)}). Name "
            "the positions of the cells."
        )
    return np.asarray(adata.obsm[key], float)[:, :2]
