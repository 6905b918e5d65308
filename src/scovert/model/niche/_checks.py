"""What NicheVAE refuses and warns about."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from scovert.core._checks import (
    FEW_CELLS,
    caller_level,
    check_categorical,
    check_genes,
    check_layer,
    some_of,
    warn_about_cells,
    warn_about_file,
)
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts, row_blocks
from scovert.core._value_checks import check_values
from scovert.core._words import a_kind_of, counted
from scovert.model.niche._slides import warn_about_slides

__all__ = [
    "check_measured",
    "check_positions",
    "check_samples",
    "check_states",
    "positions_of",
    "samples_of",
    "warn_about_own_niches",
    "warn_about_positions",
    "warn_about_samples",
]

DUPLICATED = 0.01
"""Share of cells on the spot of another one that is worth a word."""
LATTICE = 0.9
"""Share of cells whose nearest neighbour is equally far, from which on they are spots."""
ALIKE = 1e-3
"""Relative difference of distances that are equal but for the precision of the positions."""
LARGE_COUNT = 50
"""Whole intensities above it look like raw counts of ions or molecules."""
CELLS_PER_STATE = 10
"""Cells for each state at least, so that its mean is known to a third of a standard deviation."""
N_LOOKED_AT = 4096
"""Cells by which the kind of values is told."""


def check_positions(adata: AnnData, key: str) -> None:
    """Refuse positions that are missing, not finite, or of other than two or three dimensions."""
    if not isinstance(key, str):
        raise TypeError(
            f"`spatial_key` is {a_kind_of(key)}. Pass the name of a slot of `adata.obsm`."
        )
    if key not in adata.obsm:
        raise KeyError(
            f"`spatial_key={key!r}` is not in `adata.obsm` (there are: {list(adata.obsm)}). Name "
            "the positions of the cells, or put them there: `adata.obsm['spatial'] = "
            "adata.obs[['x', 'y']].to_numpy()`."
        )
    values = positions_of(adata, key)
    if values.ndim != 2 or values.shape[1] not in (2, 3):
        raise ValueError(
            f"`adata.obsm[{key!r}]` has shape {values.shape}. Positions have two or three columns."
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise ValueError(
            f"`adata.obsm[{key!r}]` is {values[bad[0]].tolist()} in cell "
            f"{adata.obs_names[bad[0]]!r} (and not finite in {counted(len(bad), 'cell')}). "
            "Leave out cells "
            "without a position."
        )


def positions_of(adata: AnnData, key: str) -> NDArray:
    """Return the positions of the cells, shape ``(n_cells, 2)`` or ``(n_cells, 3)``."""
    try:
        return np.asarray(adata.obsm[key], float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`adata.obsm[{key!r}]` does not hold numbers. Convert them.") from error


def samples_of(adata: AnnData, key: str | None) -> NDArray:
    """Return the number of the sample of each cell, shape ``(n_cells,)``."""
    if key is None:
        return np.zeros(adata.n_obs, np.int64)
    check_categorical(adata, key, "sample_key")
    return pd.factorize(adata.obs[key].astype(str))[0]


def check_samples(adata: AnnData, key: str | None) -> None:
    """Refuse samples that all have one cell."""
    if np.bincount(samples_of(adata, key)).max() < 2:
        raise ValueError(
            "No sample has two cells, so that no cell has a neighbour. Name in `sample_key` the "
            "column of the slides or images."
        )


def warn_about_samples(adata: AnnData, key: str | None, n_neighbors: int) -> None:
    """Warn about samples in which cells have fewer neighbours than asked for."""
    sizes = pd.Series({"all cells": adata.n_obs})
    if key is not None:
        sizes = adata.obs[key].astype(str).value_counts()
    few = sizes[sizes <= n_neighbors]
    if len(few):
        _warn(
            f"Fewer than {n_neighbors + 1} cells in {counted(len(few), 'sample')} ("
            f"{some_of([*few.index])}; {counted(few.sum(), 'cell')}): these cells have fewer "
            "neighbours "
            f"than `n_neighbors={n_neighbors}`."
        )


def warn_about_own_niches() -> None:
    """Warn that niches of these cells are numbered for themselves."""
    _warn(
        "The model was loaded without its cells, so niches are found among the cells of `adata` "
        "alone: niche '0' here is not niche '0' of another slide. To compare slides, load the "
        "model with its cells, `NicheVAE.load(path, adata)`."
    )


def warn_about_positions(adata: AnnData, spatial_key: str, sample_key: str | None) -> None:
    """Warn about cells on one spot, and about spots on a lattice."""
    positions, sample = positions_of(adata, spatial_key), samples_of(adata, sample_key)
    _, first = np.unique(np.column_stack([positions, sample]), axis=0, return_index=True)
    share = 1 - len(first) / adata.n_obs
    if share > DUPLICATED:
        hint = _what_separates(adata, positions) if sample_key is None else ""
        _warn(
            f"{share:.0%} of the cells lie on the spot of another one. {hint}Cells are neighbours "
            "by their distance: look whether several slides share coordinates."
        )
    else:
        warn_about_slides(adata, positions, sample, sample_key)
    rows = np.flatnonzero(sample == np.bincount(sample).argmax())[:N_LOOKED_AT]
    if len(rows) > FEW_CELLS and _is_lattice(positions[rows]):
        _warn(
            "Most positions are equally far from the nearest: these are spots rather than cells. "
            "What is around a spot is then said in spots, each a mixture of cells."
        )


def _is_lattice(positions: NDArray) -> bool:
    nearest = cKDTree(positions).query(positions, 2)[0][:, 1]
    middle = np.median(nearest)
    return bool(middle > 0 and np.mean(np.abs(nearest - middle) < ALIKE * middle) > LATTICE)


def _what_separates(adata: AnnData, positions: NDArray) -> str:
    """Name columns within whose groups no two cells lie on one spot."""
    found = []
    for name in adata.obs:
        column = adata.obs[name]
        if not 1 < column.nunique() < len(column) / CELLS_PER_STATE:
            continue
        codes = pd.factorize(column)[0]
        n_spots = len(np.unique(np.column_stack([positions, codes]), axis=0))
        if n_spots > (1 - DUPLICATED) * len(column):
            found.append(name)
    return f"`sample_key` may be {some_of(found)}. " if found else ""


def check_measured(adata: AnnData, layer: str | None, likelihood: str, *, is_new: bool) -> None:
    """Refuse values that are not what the likelihood is of, and warn about odd ones.

    Parameters
    ----------
    adata
        What is set up.
    layer
        Layer with the values.
    likelihood
        ``"nb"`` or ``"gaussian"``.
    is_new
        Whether it is set up for the first time, and not for a saved model.
    """
    where, values = check_layer(adata, layer), get_counts(adata, layer)
    check_genes(adata)
    totals = None
    if likelihood == "nb":
        totals = _totals(values, where, adata)
    else:
        check_values({"likelihood": likelihood}, values, where, adata)
    _warn_about_channels(adata, values, where, likelihood, is_new=is_new)
    if totals is not None:
        warn_about_cells(adata, totals)
    warn_about_file(adata, layer)


def _totals(values: object, where: str, adata: AnnData) -> NDArray:
    """Return the total counts of the cells; refuse intensities with the way out."""
    try:
        return check_counts(values, where, adata)
    except ValueError as error:
        raise ValueError(f"{error} For intensities pass `likelihood='gaussian'`.") from error


def _warn_about_channels(
    adata: AnnData, values: object, where: str, likelihood: str, *, is_new: bool
) -> None:
    """Refuse one-hot labels, and warn about constant channels and whole intensities."""
    low, high = np.full(adata.n_vars, np.inf), np.full(adata.n_vars, -np.inf)
    for _, block in row_blocks(values):
        low, high = np.minimum(low, _edge(block, "min")), np.maximum(high, _edge(block, "max"))
    head = values[: min(N_LOOKED_AT, adata.n_obs)]
    head = head.toarray() if sp.issparse(head) else np.asarray(head)
    if adata.n_vars > 1 and ((head == 0) | (head == 1)).all() and (head.sum(1) == 1).all():
        raise ValueError(
            f"{where} has a single 1 in every cell: labels, and no measurement. Put what was "
            "measured there, and name the column of the labels in `labels_key`."
        )
    constant = adata.var_names[low == high]
    if len(constant) and is_new:
        _warn(
            "The same in all cells: "
            f"{counted(len(constant), 'gene or channel', 'genes or channels')}, such as "
            f"{some_of(constant)}. They tell nothing and are left out of the features."
        )
    is_whole = likelihood == "gaussian" and (head == np.rint(head)).all()
    if is_whole and high.max() > LARGE_COUNT and is_new:
        _warn(
            f"{where} holds whole numbers up to {high.max():.6g}. They are taken as counts: log1p "
            "of counts per median total. Counts have `likelihood='nb'`; for whole intensities "
            "pass `transform='arcsinh'` to the model."
        )


def _edge(block: object, which: str) -> NDArray:
    found = getattr(block, which)(axis=0)
    return np.asarray(found.todense() if sp.issparse(found) else found, float).ravel()


def check_states(n_states: int, n_cells: int) -> None:
    """Refuse more states than there are cells to learn them from."""
    if n_states > n_cells / CELLS_PER_STATE:
        most = n_cells // CELLS_PER_STATE
        raise ValueError(
            f"`n_states={n_states}` is more than a tenth of the {n_cells} cells. Pass at most "
            f"{most}, or more cells."
        )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=caller_level())
