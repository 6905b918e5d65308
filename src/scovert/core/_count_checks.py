"""Checks of counts, with a guess at what the values are if they are none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._counts import RAW, find_matrix, get_counts, row_blocks
from scovert.core._words import CELLS, Words, counted

__all__ = ["NUMBERS", "SAME_TOTAL", "check_counts", "counts_elsewhere"]

NUMBERS = "biuf"
"""Kinds of dtypes, as numpy calls them, that counts may have: bool, integers and floats."""
LARGEST = 2**31
"""No gene of a cell is counted more often."""
N_LOOKED_AT = 100
"""Cells, evenly spaced, by which the kind of the values is guessed."""
FEWEST_VALUES = 10
"""Values of a cell whose kind shows in how many of them are the same."""
SAME_TOTAL = 0.005
"""Coefficient of variation of totals below which cells were scaled to the same total."""
HIGHEST_LOG = 30.0
"""Logarithms of counts are below it."""
NOISE = 1e-3
"""Distance from whole numbers that arithmetic with floats leaves."""
MIN_PART = 0.05
"""Share of cells that is worth a word."""
MOSTLY = 0.5
"""Share of values, or of cells, that most of them are."""
NEAR_A_COUNT = 0.15
"""Median distance from 1, 2, ... of counts less some ambient RNA; .25 by chance."""


def check_counts(
    counts: object,
    where: str,
    adata: AnnData,
    *,
    may_be_zero: bool = False,
    words: Words = CELLS,
) -> NDArray:
    """Refuse values that are not counts, with the first cell and gene.

    Parameters
    ----------
    counts
        Rows to read, shape ``(n_cells, n_genes)``.
    where
        Name of the matrix, for messages.
    adata
        What it belongs to.
    may_be_zero
        Accept a matrix without any count.
    words
        What rows and columns are called.

    Returns
    -------
    The total of every cell.
    """
    _check_dtype(counts, where)
    totals, n_bad, first = np.zeros(counts.shape[0]), 0, None
    has_bad = np.zeros(counts.shape[0], bool)
    for start, block in row_blocks(counts):
        values = block.data if sp.issparse(block) else block.ravel()
        is_bad = _is_no_count(values)
        n_bad += int(is_bad.sum())
        has_bad[start + np.unique(_rows_of(block, np.flatnonzero(is_bad)))] = True
        if first is None and is_bad.any():
            at = int(np.argmax(is_bad))
            row, gene = _place(block, at)
            first = start + row, gene, values[at]
        totals[start : start + block.shape[0]] = np.asarray(block.sum(axis=1, dtype=float)).ravel()
    if first is not None:
        cell, gene, value = first
        cause = _likely_cause(value, counts[_spaced(has_bad)], where, adata)
        raise ValueError(
            f"{where} holds {value:.6g} ({words.row} {adata.obs_names[cell]!r}, {words.column} "
            f"{adata.var_names[gene]!r}; {counted(n_bad, 'such value')}). scovert models raw "
            f"counts, non-negative whole numbers. {cause}{_others(has_bad, totals, words)}"
        )
    if not may_be_zero and not totals.any():
        found = counts_elsewhere(where, adata)
        raise ValueError(f"{where} holds nothing but zeros.{found} Pass the raw counts.")
    return totals


def _check_dtype(counts: object, where: str) -> None:
    """Refuse text, complex numbers and Python objects."""
    if counts.dtype.kind in NUMBERS:
        return
    kinds = {"c": "complex numbers", "U": "text", "S": "text", "T": "text"}
    kind = kinds.get(counts.dtype.kind, "Python objects")
    raise TypeError(
        f"{where} holds {kind} (dtype {counts.dtype}). Counts are real numbers: convert them, for "
        "example `adata.X = adata.X.astype(float)`, and look at what cannot be converted."
    )


def _is_no_count(values: NDArray) -> NDArray:
    if values.dtype.kind != "f":
        return (values < 0) | (values > LARGEST)
    largest = min(LARGEST, float(np.finfo(values.dtype).max))
    is_in_range = (values >= 0) & (values <= largest)  # NaN is not
    return ~is_in_range | (values != np.rint(values))


def _rows_of(block: NDArray | sp.csr_matrix, at: NDArray) -> NDArray:
    """Rows of stored values."""
    if sp.issparse(block):
        return np.searchsorted(block.indptr, at, side="right") - 1
    return at // block.shape[1]


def _others(has_bad: NDArray, totals: NDArray, words: Words) -> str:
    """Say how many cells hold counts, if a good part of them does."""
    n = int((~has_bad & (totals > 0)).sum())
    if n < MIN_PART * len(has_bad):
        return ""
    return (
        f" {n} of {len(has_bad)} {words.rows} hold counts and the others do not, as after joining "
        "data of two kinds: look at each."
    )


def _place(block: NDArray | sp.csr_matrix, at: int) -> tuple[int, int]:
    """Row and column of a stored value."""
    if sp.issparse(block):
        return int(np.searchsorted(block.indptr, at, side="right")) - 1, int(block.indices[at])
    return divmod(at, block.shape[1])


def _likely_cause(value: float, counts: object, where: str, adata: AnnData) -> str:
    """Say what the values look like, and where the counts are."""
    if not np.isfinite(value):
        joined = (
            " `anndata.concat(join='outer')` leaves NaN where cells lack a gene, and `join='inner'"
            "` keeps the genes that all have."
        )
        start = "Find out where NaN or Inf came from, and start again from the raw counts."
        return start + joined if np.isnan(value) else start
    kind = _kind_of_values(counts, adata)
    found = counts_elsewhere(where, adata)
    if kind == "corrected" and not found:
        return (
            "They look like corrected or expected counts (SoupX, DecontX, RSEM, kallisto), which "
            "are fractional: if they are, round them, `adata.layers['counts'] = np.rint("
            f"{where.strip('`')})`, and pass `layer='counts'`."
        )
    looks = f"The values look {kind}"
    return (
        f"{looks}.{found}" if found else f"{looks}: name the layer with raw counts, `layer=...`."
    )


def _kind_of_values(counts: object, adata: AnnData) -> str:
    """Return ``"corrected"`` for counts less some of them, or what else was done to counts."""
    cells = [row for row in _some_cells(counts) if len(row)]
    values = np.concatenate(cells)
    if values.min() < 0:
        return "scaled"
    if values.max() > LARGEST:
        return "damaged"
    if _are_alike([np.expm1(np.minimum(row, HIGHEST_LOG)).sum() for row in cells]):
        return "log-normalised"
    if _are_alike([row.sum() for row in cells]):
        return "normalised"
    if "log1p" in adata.uns:
        return "log-normalised"
    is_whole = np.abs(values - np.rint(values)).max() < NOISE
    are_roots = np.allclose(values**2, np.rint(values**2))
    if is_whole or (not are_roots and _are_corrected(values, cells)):
        return "corrected"
    if are_roots:
        return "like square roots"
    return "log-normalised" if values.max() < HIGHEST_LOG else "normalised"


def _are_corrected(values: NDArray, cells: list[NDArray]) -> bool:
    """Tell counts less some of them: near whole numbers, and not just a few values in a cell."""
    shares = [len(np.unique(row)) / len(row) for row in cells if len(row) >= FEWEST_VALUES]
    are_distinct = bool(shares) and np.median(shares) > MOSTLY  # of a normalised cell few are
    distance = np.abs(values - np.maximum(np.rint(values), 1))
    is_whole = np.mean(distance == 0) > MOSTLY
    return is_whole or (are_distinct and np.median(distance) < NEAR_A_COUNT)


def _are_alike(totals: list[float]) -> bool:
    return len(totals) > 1 and np.std(totals) < SAME_TOTAL * np.mean(totals)


def _spaced(is_one: NDArray) -> NDArray:
    """Return evenly spaced rows among some, in their order."""
    rows = np.flatnonzero(is_one)
    return rows[np.unique(np.linspace(0, len(rows) - 1, N_LOOKED_AT).astype(int))]


def _some_cells(counts: object) -> Iterator[NDArray]:
    """Go through the values of some cells that are not zero."""
    for row in _spaced(np.ones(counts.shape[0], bool)).tolist():
        block = counts[row : row + 1]
        values = block.data if sp.issparse(block) else np.ravel(block)
        yield values[values != 0].astype(float)


def counts_elsewhere(where: str, adata: AnnData, name: str = "adata") -> str:
    """Name another matrix of the AnnData, which is called `name`, that holds counts, if any."""
    places = {f"`{name}.X`": None} if adata.X is not None else {}
    places |= {f"`{name}.layers[{key!r}]`": key for key in adata.layers if key is not None}
    if adata.raw is not None and adata.var_names.isin(adata.raw.var_names).all():
        places.setdefault(f"`{name}.raw.X`", RAW)
    for place, layer in places.items():
        if place != where and _holds_counts(adata, layer):
            advice = "leave `layer` out" if layer is None else f"pass `layer={layer!r}`"
            return f" {place} holds counts: {advice}."
    return ""


def _holds_counts(adata: AnnData, layer: str | None) -> bool:
    if find_matrix(adata, layer).dtype.kind not in NUMBERS:
        return False
    values = np.concatenate(list(_some_cells(get_counts(adata, layer))))
    return len(values) > 0 and not _is_no_count(values).any()
