"""Batches that a model was trained on, and cells of others."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scvi.data.fields import BaseAnnDataField

from scovert.core._checks import FEW_CELLS, caller_level, check_categorical

__all__ = ["BatchNames", "batch_codes", "batch_names", "check_batches", "warn_about_few"]

BATCHES = "niche_batches"
"""Key of the registry."""


class BatchNames(BaseAnnDataField):
    """Names of the batches, which are no categories of a registry: new ones are taken too.

    Parameters
    ----------
    batch_key
        Column of ``obs``; `None` takes all cells as one batch.
    """

    registry_key, attr_name, attr_key = BATCHES, "obs", None
    is_empty = False

    def __init__(self, batch_key: str | None) -> None:
        self.batch_key = batch_key

    def validate_field(self, adata: AnnData) -> None:
        """Trust the column, which the model has looked at."""

    def register_field(self, adata: AnnData) -> dict:
        """Return the names in the AnnData."""
        if self.batch_key is None:
            return {"names": [""]}
        return {"names": sorted(set(adata.obs[self.batch_key].astype(str)))}

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **_: object) -> dict:
        """Keep the names that the model knows."""
        return state_registry

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Return the number of batches."""
        return {"n_niche_batches": len(state_registry["names"])}

    def view_state_registry(self, state_registry: dict) -> None:
        """Show nothing."""


def batch_names(registry: dict) -> list[str]:
    """Return the names of the batches that a model was trained on."""
    return list(registry["field_registries"][BATCHES]["state_registry"]["names"])


def batch_codes(adata: AnnData, key: str | None, known: list[str]) -> tuple[NDArray, list[str]]:
    """Return the number of the batch of each cell, and the names of all batches.

    Parameters
    ----------
    adata
        The cells.
    key
        Column of ``obs``; `None` takes them as one batch.
    known
        Batches of the model, which are numbered first.
    """
    if key is None:
        return np.zeros(adata.n_obs, np.int64), known
    check_categorical(adata, key, "batch_key")
    values = adata.obs[key].astype(str)
    names = [*known, *sorted(set(values) - set(known))]
    return pd.Index(names).get_indexer(values).astype(np.int64), names


def check_batches(adata: AnnData, key: str | None) -> None:
    """Refuse a column without all values, and warn about batches with few cells."""
    if key is not None:
        codes, names = batch_codes(adata, key, [])
        warn_about_few(np.bincount(codes), names, by_training=False)


def warn_about_few(n_cells: NDArray, names: list[str], *, by_training: bool) -> None:
    """Warn about batches with few cells.

    Parameters
    ----------
    n_cells
        Cells of each batch, shape ``(n_batch,)``.
    names
        Their names.
    by_training
        Whether the mean and scale of the training cells were taken for them.
    """
    few = {name: int(n) for name, n in zip(names, n_cells, strict=True) if 0 < n < FEW_CELLS}
    if few:
        taken = "was taken from the training cells" if by_training else "is uncertain"
        warnings.warn(
            f"Few cells in {few} (under {FEW_CELLS}): the scale of their genes or channels "
            f"{taken}.",
            UserWarning,
            stacklevel=caller_level(),
        )
