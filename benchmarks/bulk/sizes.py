"""RNA of a cell, by the same table and formula for all methods."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.bulk.peers import Fractions, is_left_out
from benchmarks.bulk.sets import Case
from scovert.model.bulk._rna_per_cell import RNA_PER_CELL
from scovert.model.bulk._type_names import match_types

__all__ = ["cells_of"]


def cells_of(found: Fractions, case: Case) -> pd.DataFrame:
    """Turn fractions of the RNA of some genes into fractions of cells, samples x types."""
    sizes = sizes_of(case, found.genes)
    cells = pd.DataFrame(found.rna / sizes.to_numpy(), case.bulk.obs_names, sizes.index)
    return cells.div(cells.sum(axis=1), axis=0)


def sizes_of(case: Case, genes: np.ndarray) -> pd.Series:
    """RNA of a cell in the given genes, by type, on any scale."""
    reference = case.reference
    kept = ~is_left_out(reference.var_names)
    counts = pd.DataFrame(
        {
            "used": np.ravel(reference[:, genes].X.sum(1)),
            "kept": np.ravel(reference[:, kept].X.sum(1)),
        }
    )
    mean = counts.groupby(reference.obs["cell_type"].to_numpy(str)).mean()
    if case.cell_size == "none":
        return mean["used"] ** 0
    if case.cell_size == "reference":
        return mean["used"]
    log_kept = np.log(mean["kept"])
    in_table = pd.Series(match_types(list(mean.index))).map(RNA_PER_CELL)
    log_table = np.log(in_table.reindex(mean.index))
    scale = (log_kept - log_table).mean()  # of the types in the table
    return np.exp((log_table + scale).fillna(log_kept)) * mean["used"] / mean["kept"]
