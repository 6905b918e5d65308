"""RNA of a cell, by the same table and formula for all methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
from _deconvolution_peers import Fractions, is_left_out
from _deconvolution_sets import Case

__all__ = ["cells_of"]

RNA = {  # of a cell, without ribosomal and mitochondrial genes, CD4 = 1
    "CD4": 1.0,
    "Treg": 0.96,
    "CD8": 0.98,
    "B": 1.12,
    "NK": 1.24,
    "ILC": 1.15,
    "monocyte": 2.13,
    "DC": 3.10,
    "pDC": 2.74,
    "plasma": 13.2,
    "neutrophil": 0.43,
    "platelet": 0.96,
}
NAME = {  # in the table, of the types in the references
    "B": "B",
    "B cells": "B",
    "CD4 T": "CD4",
    "T cells CD4 conv": "CD4",
    "Tregs": "Treg",
    "CD8 T": "CD8",
    "T cells CD8": "CD8",
    "NK": "NK",
    "NK cells": "NK",
    "ILC": "ILC",
    "Monocyte": "monocyte",
    "Monocytes": "monocyte",
    "DC": "DC",
    "mDC": "DC",
    "pDC": "pDC",
    "Plasma": "plasma",
    "Plasma cells": "plasma",
    "Platelet": "platelet",
    "Neutrophil": "neutrophil",
}


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
    log_table = np.log(pd.Series(mean.index, mean.index).map(NAME).map(RNA))
    scale = (log_kept - log_table).mean()  # of the types in the table
    return np.exp((log_table + scale).fillna(log_kept)) * mean["used"] / mean["kept"]
