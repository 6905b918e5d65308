"""Cells that stand in for those of a saved model, where no result asks for them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scovert.core._registered import OF_OBSM, categories_of, columns_of

__all__ = ["stand_in"]


def stand_in(registry: dict, n_of_each: int) -> AnnData:
    """Return cells of all categories that a model knows, which hold nothing.

    Parameters
    ----------
    registry
        Of the saved model.
    n_of_each
        Cells of each category, as many as the model accepts.
    """
    setup, known = registry["setup_args"], categories_of(registry)
    genes = pd.Index(registry["field_registries"]["X"]["state_registry"]["column_names"])
    n_cells = n_of_each * max([1, *map(len, known.values())])
    at = np.arange(n_cells)
    obs = pd.DataFrame(index=pd.Index([f"stand-in {i}" for i in at]))
    for key in columns_of(setup):
        values = np.asarray(known[key]) if key in known else np.array([0.0, 1.0])
        obs[key] = values[at % len(values)]
    counts = sparse.csr_matrix(
        ((1.0 + at % 3).astype(np.float32), (at, at % len(genes))), (n_cells, len(genes))
    )
    adata = AnnData(counts, obs=obs, var=pd.DataFrame(index=genes))
    if setup.get("layer") is not None:
        adata.layers[setup["layer"]] = counts.copy()
    for key in (setup[name] for name in OF_OBSM if name in setup):
        adata.obsm[key] = np.column_stack([at, at]).astype(float)
    return adata
