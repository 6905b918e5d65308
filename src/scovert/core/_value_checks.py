"""Checks of what a model reads: counts, or intensities where it was set up for them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from anndata import AnnData

from scovert.core._count_checks import NUMBERS, check_counts
from scovert.core._counts import row_blocks
from scovert.core._words import words_of

__all__ = ["are_counts", "check_values"]


def are_counts(setup: dict[str, object]) -> bool:
    """Whether a model was set up to read counts, and not intensities."""
    return setup.get("likelihood") != "gaussian"


def check_values(
    setup: dict[str, object],
    values: object,
    where: str,
    adata: AnnData,
    *,
    may_be_zero: bool = False,
) -> None:
    """Refuse what is no count or, for a model of intensities, no finite number.

    Parameters
    ----------
    setup
        Arguments of ``setup_anndata``; a model of intensities has ``likelihood="gaussian"``.
    values
        Rows to read, shape ``(n_cells, n_genes)``.
    where
        Name of the matrix, for messages.
    adata
        What it belongs to.
    may_be_zero
        Accept a matrix without any count.
    """
    if are_counts(setup):
        words = words_of(setup)
        check_counts(values, where, adata, may_be_zero=may_be_zero, words=words)
    else:
        _check_intensities(values, where, adata)


def _check_intensities(values: object, where: str, adata: AnnData) -> None:
    if values.dtype.kind not in NUMBERS:
        raise TypeError(
            f"{where} has dtype {values.dtype}. Intensities are real numbers: convert them, for "
            "example `adata.X = adata.X.astype(float)`."
        )
    for start, block in row_blocks(values):
        dense = block.toarray() if sp.issparse(block) else block
        bad = np.argwhere(~np.isfinite(dense))
        if len(bad):
            row, column = bad[0]
            raise ValueError(
                f"{where} holds {dense[row, column]} (cell {adata.obs_names[start + row]!r}, "
                f"channel {adata.var_names[column]!r}). Intensities must be finite: leave out "
                "the cells or channels that were not measured, or fill them in."
            )
