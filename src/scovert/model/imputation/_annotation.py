"""What `annotate` writes of imputed genes, and where."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._annotating import Slot
from scovert.core._minibatch import genes_of
from scovert.core.dataloaders._cells import Cells
from scovert.model.imputation._expected_counts import expected_counts
from scovert.model.imputation._panels import datasets_of, panels_of

__all__ = ["slots", "values"]


def slots(key: str, *, write_layer: bool) -> list[Slot]:
    """Return container and name of every slot."""
    places = [("obsm", f"X_{key}"), *([("layers", key)] if write_layer else [])]
    return [*places, ("varm", f"{key}_measured"), ("varm", f"{key}_explained")]


def values(
    model: BaseModelClass, adata: AnnData, places: list[Slot], *, keep_measured: bool
) -> tuple[dict[Slot, object], dict]:
    """Return the values of slots, and what the record tells of errors."""
    genes, names = genes_of(model.registry), datasets_of(model).astype(str)
    measured = pd.DataFrame(panels_of(model).measured.T, genes, names)
    explained = pd.DataFrame(model.explained_.T, genes, names)
    found: list[object] = [
        model.get_latent_representation(adata),
        measured.reindex(adata.var_names, fill_value=False),
        explained.reindex(adata.var_names, fill_value=np.nan),
    ]
    if len(places) > len(found):
        found.insert(1, _layer(model, adata, keep_measured=keep_measured))
    centre, sd = model.spread_.T
    errors = {"centre": centre, "sd": sd, "datasets": np.asarray(names)}
    return dict(zip(places, found, strict=True)), {"errors": errors}


def _layer(model: BaseModelClass, adata: AnnData, *, keep_measured: bool) -> NDArray:
    """Return expected counts of the genes of an AnnData, or counts where there are any."""
    names = adata.var_names
    layer = expected_counts(model, names, adata).to_numpy()
    if not keep_measured:
        return layer
    measured = panels_of(model).measured[:, genes_of(model.registry).get_indexer(names)]
    cells = Cells.read(adata, model.registry, names)
    for start, block in cells.blocks():
        rows = slice(start, start + block.shape[0])
        dense = block.toarray() if hasattr(block, "toarray") else block
        layer[rows] = np.where(measured[cells.batch[rows]], dense, layer[rows])
    return layer
