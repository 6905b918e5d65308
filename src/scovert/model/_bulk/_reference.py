"""Signatures of a reference: found in its cells, kept as tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from scovert._counts import get_counts, is_in_memory, row_blocks
from scovert.mixing import Signature, find_states, is_housekeeping

__all__ = ["find_signatures", "restored", "stored"]

TABLES = ("state_type", "counts", "between", "detected", "n_cells")


def find_signatures(
    adata: AnnData, setup: dict, n_states: int, min_cells: int, seed: int
) -> dict[str, Signature]:
    """Return the signature of every study of a reference, by its name.

    A type with too few cells in a study is left out of its signature.
    """
    stored_counts = get_counts(adata, setup["layer"])
    counts = _in_memory(stored_counts)
    genes = adata.var_names
    kept = ~is_housekeeping(genes)
    counts, genes = counts[:, kept], genes[kept]
    labels = adata.obs[setup["labels_key"]].astype(str).to_numpy()
    batch, subject = (
        None if setup[key] is None else adata.obs[setup[key]].astype(str).to_numpy()
        for key in ("batch_key", "subject_key")
    )
    studies = {"": np.ones(len(labels), bool)}
    if batch is not None:
        studies = {str(name): batch == name for name in pd.unique(batch)}
    signatures = {}
    for name, is_own in studies.items():
        sizes = pd.Series(labels[is_own]).value_counts()
        enough = sizes.index[sizes >= min_cells]
        if len(enough) < 2:
            raise ValueError(
                f"Study {name!r} of the reference has fewer than two types of {min_cells} cells "
                f"({sizes.to_dict()}). Leave it out, or `batch_key`, which fits every study."
            )
        rows = np.flatnonzero(is_own & np.isin(labels, enough))
        types = pd.Categorical(labels[rows])
        own = counts[rows]
        states = find_states(own, types, n_states, seed)
        subjects = None if subject is None else subject[rows]
        signatures[name] = Signature.of(own, genes, types, states, subjects)
    return signatures


def _in_memory(counts: object) -> sp.csr_matrix:
    if is_in_memory(counts):
        return sp.csr_matrix(counts)
    return sp.vstack([sp.csr_matrix(block) for _, block in row_blocks(counts)], "csr")


def stored(signatures: dict[str, Signature]) -> dict[str, NDArray]:
    """Return the tables of signatures by names that hold the number of the study."""
    return {
        f"{i}/{name}": getattr(signature, name)
        for i, signature in enumerate(signatures.values())
        for name in TABLES
    }


def restored(
    tables: dict[str, NDArray], studies: dict[str, list[str]], genes: pd.Index
) -> dict[str, Signature]:
    """Return signatures from their tables, the types of every study, and the model's genes."""
    kept = genes[~is_housekeeping(genes)]
    return {
        study: Signature(kept, tuple(types), **{name: tables[f"{i}/{name}"] for name in TABLES})
        for i, (study, types) in enumerate(studies.items())
    }
