"""Checks of an AnnData against what a model knows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._words import counted

__all__ = ["categories_of", "check_registered", "check_seen", "codes_of", "columns_of"]


OF_OBSM = ("spatial_key",)
"""Arguments of ``setup_anndata`` that name a slot of ``obsm``."""
NOT_OF_OBS = (*OF_OBSM, "distances_key", "tree_key", "measured_key")
"""Those that name no column of ``obs``."""


def columns_of(setup: dict[str, object]) -> dict[str, str]:
    """Return the columns of ``obs`` that a set-up names, with the argument that names each."""
    named = {}
    for argument, given in setup.items():
        is_column = argument.endswith(("_key", "_keys")) and argument not in NOT_OF_OBS
        if is_column and given is not None:
            named |= dict.fromkeys([given] if isinstance(given, str) else given, argument)
    return named


def check_registered(adata: AnnData, registry: dict) -> None:
    """Refuse an AnnData that lacks columns of a saved model, or holds unknown categories.

    Parameters
    ----------
    adata
        The AnnData to attach.
    registry
        What scvi-tools kept of the AnnData that the model was fitted to.
    """
    for key, argument in columns_of(registry["setup_args"]).items():
        _check_there(adata, key, argument)
    for key, categories in categories_of(registry).items():
        check_seen(adata.obs[key], key, categories)


def _check_there(adata: AnnData, key: str, argument: str) -> None:
    if key not in adata.obs:
        raise KeyError(
            f"`adata.obs` has no column {key!r}, which the model was set up with as `{argument}` "
            f"(columns: {list(adata.obs.columns)}). Add it, under this name."
        )


def categories_of(registry: dict) -> dict[str, object]:
    """Return the categories that a model knows of each column."""
    found = {}
    for field in registry["field_registries"].values():
        state = field["state_registry"]
        if "original_key" in state and "categorical_mapping" in state:
            found[state["original_key"]] = state["categorical_mapping"]
        found |= state.get("mappings", {})
    return found


def codes_of(obs: pd.DataFrame, key: str, categories: object) -> NDArray:
    """Return the number of each cell's category among those a model knows, shape ``(n_cells,)``.

    Raises
    ------
    ValueError
        If there are others.
    """
    codes = pd.Index(categories).get_indexer(np.asarray(obs[key]))
    if (codes < 0).any():
        check_seen(obs[key], key, categories)
    return codes.astype(np.int64)


def check_seen(column: pd.Series, key: str, categories: object) -> None:
    """Refuse a column of ``adata.obs`` with categories that a model does not know.

    Parameters
    ----------
    column
        The column.
    key
        Its name.
    categories
        What the model knows.
    """
    known = pd.Index(categories)
    values = column.unique().tolist()
    unknown = [value for value in values if value not in known]
    if not unknown:
        return
    if any(pd.isna(value) for value in unknown):
        cell = column.index[int(np.argmax(column.isna()))]
        raise ValueError(
            f"`adata.obs[{key!r}]` has no value in {counted(column.isna().sum(), 'cell')}, "
            "such as "
            f"{cell!r}. The model knows {_some(known)}: fill them in, or leave these cells out."
        )
    call = _conversion(f"adata.obs[{key!r}]", known.tolist(), unknown)
    advice = "Leave these cells out, or train a model on all of them."
    if call is not None:
        advice = f"They are the same in another type: convert the column, `{call}`."
    raise ValueError(
        f"`adata.obs[{key!r}]` holds {_some(unknown)}, which the model has not seen (it knows "
        f"{_some(known)}). {advice}"
    )


def _conversion(column: str, known: list, unknown: list) -> str | None:
    """Return the call that makes known categories of others, if they differ in type alone."""
    wanted, is_alike = type(known[0]), {*map(str, known)} >= {*map(str, unknown)}
    if wanted is bool and is_alike:
        return f"{column} == 'True'"  # any text is true
    if is_alike or (set(known) <= {0, 1} and set(unknown) <= {0, 1}):  # False is 0
        return f"{column}.astype({wanted.__name__})"
    return None


def _some(values: object) -> str:
    """Return the first few values for a message."""
    values = list(values)
    more = f" and {len(values) - 8} more" if len(values) > 8 else ""
    return f"{values[:8]}{more}"
