"""What is around cells, and they themselves, in states or in labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._checks import check_categorical
from scovert.model.niche._neighborhood import Asked, ask_about, own_states, shares_of_states

__all__ = ["composition_of", "labels_column", "labels_of_states", "states_of_cells"]

RARE = 1e-6
"""Share of all cells that every state has besides its own: one without cells has their labels."""


def composition_of(
    model: BaseModelClass, asked: Asked, pi: NDArray, labels_key: str | None
) -> pd.DataFrame:
    """Return what is around cells: shares of states, or of labels that the cells of these have.

    The labels are those of the cells of the model.
    """
    names = asked.adata.obs_names[asked.rows]
    if labels_key is None:
        return pd.DataFrame(pi, names, _names(model))
    shares = labels_of_states(model, labels_key)
    return pd.DataFrame(pi @ shares.to_numpy(np.float32), names, shares.columns)


def states_of_cells(model: BaseModelClass, asked: Asked, pi: NDArray) -> pd.DataFrame:
    """Return the likeliest state of cells by what is around them, and its probability."""
    own = own_states(model, asked, pi)
    state = pd.Categorical.from_codes(own.argmax(1), _names(model))
    names = asked.adata.obs_names[asked.rows]
    return pd.DataFrame({"state": state, "probability": own.max(1)}, names)


def labels_of_states(model: BaseModelClass, labels_key: str | None) -> pd.DataFrame:
    """Return shares of the labels of the cells of each state, states x labels."""
    asked = ask_about(model)
    key = labels_column(model, labels_key)
    check_categorical(model.adata, key, "labels_key")
    own = own_states(model, asked, shares_of_states(model, asked))
    of_cell = pd.Categorical(model.adata.obs[key].astype(str))
    of_label = own.astype(float).T @ np.eye(len(of_cell.categories))[of_cell.codes]
    of_label += RARE * of_label.sum(0)
    shares = of_label / of_label.sum(1, keepdims=True)
    return pd.DataFrame(shares, _names(model), of_cell.categories)


def labels_column(model: BaseModelClass, labels_key: str | None) -> str:
    """Return the column of the labels, or refuse that there is none."""
    key = labels_key or model.registry["setup_args"]["labels_key"]
    if key is None:
        raise ValueError(
            "`labels_key=None`, and none was named in `setup_anndata`. Name a column of "
            "`adata.obs` with cell types."
        )
    return key


def _names(model: BaseModelClass) -> list[str]:
    return [f"state_{m}" for m in range(len(model.module.states))]
