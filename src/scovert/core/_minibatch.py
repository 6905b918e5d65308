"""The one loop over minibatches behind every ``get_*``."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS, settings
from scvi.model.base import BaseModelClass
from torch import Tensor

from scovert.core._checks import (
    check_categorical,
    check_continuous,
    check_genes,
    check_layer,
    check_number,
    select_rows,
)
from scovert.core._counts import get_counts, in_parts
from scovert.core._registered import columns_of
from scovert.core._registering import check_unchanged, is_own
from scovert.core._unmeasured import warn_about_padding
from scovert.core._value_checks import are_counts, check_values
from scovert.core._words import CELLS, Words, words_of
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.genes import are_positions

__all__ = [
    "check_new_genes",
    "check_query",
    "check_trained",
    "genes_of",
    "over_minibatches",
    "read_query",
]


def check_trained(model: BaseModelClass) -> None:
    """Refuse a model that was not trained."""
    if not model.is_trained:
        name = type(model).__name__
        raise RuntimeError(f"This {name} is not trained. Call `model.train()` first.")


def genes_of(registry: dict) -> pd.Index:
    """Return the names of the genes in the order of the networks."""
    return pd.Index(registry["field_registries"]["X"]["state_registry"]["column_names"])


def check_new_genes(adata: AnnData, genes: pd.Index, words: Words = CELLS) -> None:
    """Refuse new cells that lack genes of the model, and genes whose names only count them."""
    check_genes(adata, genes, words=words)
    if are_positions(genes):
        raise ValueError(
            f"The {words.columns} of the model are called {genes[0]!r}, {genes[1]!r}, ..., by "
            f"their place, and new {words.rows} are matched by name: number 5 of one AnnData need "
            f"not be number 5 of another. Give the {words.rows} that the model was fitted on "
            f"names of {words.columns}, for example `adata.var_names = names`, set them up and "
            f"fit again; for some of the fitted {words.rows} pass `indices`."
        )


def read_query(
    model: BaseModelClass, adata: AnnData | None, unread: Collection[str] = ()
) -> tuple[AnnData, Cells]:
    """Return the cells a method was asked about; foreign ones are checked first.

    Of these the columns of the fields `unread` are not looked at.
    """
    registry = model.registry
    if is_own(model, adata):
        check_unchanged(model)
        return model.adata, Cells.read(model.adata, registry, genes_of(registry))
    fields = {k: v for k, v in registry["field_registries"].items() if k not in unread}
    registry = registry | {"field_registries": fields}
    check_query(adata, registry)
    return adata, Cells.read(adata, registry, genes_of(registry))


def check_query(adata: AnnData, registry: dict) -> None:
    """Refuse cells that a model cannot read: their counts, genes and columns."""
    setup = registry["setup_args"]
    where = check_layer(adata, setup["layer"])
    _check_columns(adata, registry)
    check_new_genes(adata, genes_of(registry), words_of(setup))
    check_values(setup, get_counts(adata, setup["layer"]), where, adata, may_be_zero=True)
    warn_about_padding(adata, registry)


def _check_columns(adata: AnnData, registry: dict) -> None:
    """Refuse cells without the columns that a model reads, whichever these are."""
    named = columns_of(registry["setup_args"])
    for field in registry["field_registries"].values():
        state = field["state_registry"]
        for key in (*state.get("mappings", ()), *filter(None, [state.get("original_key")])):
            check_categorical(adata, key, named[key])
        for key in state.get("columns", ()):
            check_continuous(adata, key)


@torch.inference_mode()
def over_minibatches(
    model: BaseModelClass,
    compute: Callable[[dict[str, Tensor]], Tensor],
    adata: AnnData | None = None,
    indices: ArrayLike | None = None,
    batch_size: int | None = None,
    *,
    columns: Callable[[AnnData], dict[str, NDArray]] = lambda _: {},
    unread: Collection[str] = (),
) -> tuple[NDArray, pd.Index]:
    """Compute an array of cells minibatch by minibatch.

    Parameters
    ----------
    model
        A trained model.
    compute
        Function from a minibatch on the model's device to a tensor with its cells as rows.
    adata
        Cells to compute for; `None` means those of the model. Genes are matched by name.
    indices
        Rows of `adata`, in the order of the result, or a mask.
    batch_size
        Cells in a minibatch; the result does not depend on it.
    columns
        Function from an AnnData to what is known of its cells besides the columns that were set
        up, see :meth:`~scovert.core.dataloaders._cells.Cells.with_columns`.
    unread
        Registered columns that `compute` does not need, and that other cells need not have.

    Returns
    -------
    The array, and the names of its rows.
    """
    check_trained(model)
    if batch_size is not None:
        check_number("batch_size", batch_size, 1, whole=True)
    adata, cells = read_query(model, adata, unread)
    cells = cells.with_columns(**columns(adata))
    rows = select_rows(indices, len(cells))
    size = batch_size or settings.batch_size
    counted = are_counts(model.registry["setup_args"])
    model.module.eval()
    if len(rows) == 0:  # one cell tells the shape
        one = CellTensors(cells.block(0, 1), model.device)[np.zeros(1, np.int64)]
        return compute(one).cpu().numpy()[:0], adata.obs_names[rows]
    result = None
    for places, first, last in cells.spans(rows):
        tensors = CellTensors(cells.block(first, last), model.device)
        for at in in_parts(places, size):
            minibatch = tensors[rows[at] - first]
            if counted:
                _check_counts_of(minibatch[REGISTRY_KEYS.X_KEY], adata.obs_names[rows[at]])
            values = compute(minibatch).cpu().numpy()
            if result is None:
                result = np.empty((len(rows), *values.shape[1:]), values.dtype)
            result[at] = values
    return result, adata.obs_names[rows]


def _check_counts_of(x: Tensor, cells: pd.Index) -> None:
    """Refuse values that are no counts in a minibatch: of many cells only some were compared."""
    is_count = (x >= 0) & (x == x.round()) & x.isfinite()
    if not is_count.all():
        row, gene = (int(i) for i in (~is_count).nonzero()[0])
        raise ValueError(
            f"Cell {cells[row]!r} holds {x[row, gene]:.6g}, and scovert models raw counts, "
            "non-negative whole numbers. They were changed after they were set up: put them back."
        )
