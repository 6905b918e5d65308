"""Checks of counts, genes, cells and columns that several models share."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray

from scovert.core._arguments import nearest
from scovert.core._count_checks import SAME_TOTAL
from scovert.core._counts import RAW
from scovert.core._words import CELLS, Words, a_kind_of, counted
from scovert.core.genes import SAME_NAMES, advice_on_duplicates, advice_on_names

__all__ = [
    "UNKNOWN",
    "caller_level",
    "check_anndata",
    "check_batches",
    "check_categorical",
    "check_choice",
    "check_column",
    "check_continuous",
    "check_covariates",
    "check_distributed",
    "check_gene_list",
    "check_genes",
    "check_layer",
    "check_mapping",
    "check_number",
    "select_rows",
    "some_of",
    "warn_about_cells",
    "warn_about_file",
]

KINDS = ("string", "integer", "boolean", "floating", "mixed-integer-float")
"""Kinds of categories, as pandas calls them."""
TEXTS_OF_NAN = frozenset({"nan", "NaN", "<NA>", "NaT"})
"""What pandas makes of a missing value that it is to write as text."""
FEW_CELLS = 50
"""Cells of a dataset or an arm, below which results are uncertain."""
UNKNOWN = "unknown"
"""Name of the component that takes what a reference of bulk samples lacks."""


def caller_level() -> int:
    """Return the `stacklevel` that makes a warning point at the first line outside scovert."""
    frame, level = sys._getframe(1), 1
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "scovert":
        frame, level = frame.f_back, level + 1
    return level


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Refuse a value that is not one of `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}={value!r}` is not known. Pass one of {list(choices)}.")


def check_number(
    name: str,
    value: object,
    low: float,
    high: float = np.inf,
    *,
    whole: bool = False,
) -> None:
    """Refuse what is not a number (a whole one, if so asked) from `low` to `high`."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    kind = "whole number" if whole else "number"
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"`{name}={value!r}` is {a_kind_of(value)}. Pass a {kind}.")
    if not low <= value <= high:
        raise ValueError(f"`{name}={value!r}` is out of range. Pass a {kind} in [{low}, {high}].")


def check_mapping(name: str, value: object) -> None:
    """Refuse what is neither a mapping nor `None`."""
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"`{name}={value!r}` is {a_kind_of(value)}. Pass a dict.")


def check_distributed(
    trainer_kwargs: Mapping[str, object], seed: int | None, folder: object
) -> None:
    """Refuse several processes that would not agree on the cells, or would share a checkpoint."""
    strategy = trainer_kwargs.get("strategy", "auto")
    if not str(getattr(strategy, "strategy_name", strategy)).startswith("ddp"):
        return
    if seed is None:
        raise ValueError(
            f"`strategy={strategy!r}` trains in several processes, each of which splits the cells "
            "into training and validation. Set `scvi.settings.seed`, so that they agree."
        )
    if folder is not None:
        raise ValueError(
            f"`checkpoint_dir={str(folder)!r}` is for training in one process, and `strategy="
            f"{strategy!r}` uses several. Leave one of them out."
        )


def check_layer(adata: AnnData, layer: str | None, name: str = "adata") -> str:
    """Return how to name the matrix of counts, or refuse a layer that does not exist."""
    _check_table(adata, name)
    what = "raw counts" if name == "adata" else "counts or TPM"
    if layer is not None and not isinstance(layer, str):
        raise TypeError(f"`layer` is {a_kind_of(layer)}. Pass the name of a layer.")
    if layer is None:
        if adata.X is None:
            raise ValueError(f"`{name}.X` is empty. Put {what} there, or name a `layer`.")
        return f"`{name}.X`"
    if layer in adata.layers:
        return f"`{name}.layers[{layer!r}]`"
    if layer == RAW and adata.raw is not None:
        return _check_raw(adata, name)
    there = [name for name in adata.layers if name is not None]  # anndata 0.13 lists X too
    others = ", or `layer='raw'` for `adata.raw`" if adata.raw is not None else ""
    raise KeyError(
        f"`layer={layer!r}` is not in `{name}.layers` (there are: {there}). Name the layer that "
        f"holds {what}{others}, or leave `layer` out if they are in `{name}.X`."
    )


_INSIDE = {
    "MuData": "a modality, such as `mdata['rna']`",
    "SpatialData": "`sdata.tables['table']`",
}
"""What holds an AnnData, and where."""


def check_anndata(adata: object, name: str) -> None:
    """Refuse what is no AnnData, and say where it is in what holds one."""
    if not isinstance(adata, AnnData):
        where = _INSIDE.get(type(adata).__name__)
        raise TypeError(
            f"`{name}` is {a_kind_of(adata)}. Pass an AnnData{f': {where}' if where else ''}."
        )


def _check_table(adata: object, name: str) -> None:
    """Refuse what is no AnnData with cells and genes whose ``obs`` is in memory."""
    check_anndata(adata, name)
    if not isinstance(adata.obs, pd.DataFrame):
        raise TypeError(
            f"`{name}.obs` is {a_kind_of(adata.obs)}, which is not in memory. Read it, "
            f"`{name}.obs = {name}.obs.to_memory()`, and `{name}.var` alike: the counts may stay "
            "where they are."
        )
    if 0 in adata.shape:
        row = "sample" if name == "bulk" else "cell"
        raise ValueError(
            f"`{name}` has {counted(adata.n_obs, row)} and {counted(adata.n_vars, 'gene')}. Both "
            "are needed: look at the filters that it went through."
        )


def _check_raw(adata: AnnData, name: str) -> str:
    """Refuse an ``adata.raw`` without the genes of `adata`."""
    lacking = adata.var_names.difference(adata.raw.var_names, sort=False)
    if len(lacking):
        raise KeyError(
            f"`{name}.raw` lacks {len(lacking)} of the {adata.n_vars} genes of `{name}`, such as "
            f"{some_of(lacking)}. Name a layer with the counts of all genes, or keep the genes "
            f"that `{name}.raw` has."
        )
    return f"`{name}.raw.X`"


def check_genes(
    adata: AnnData,
    genes: pd.Index | None = None,
    *,
    name: str = "adata",
    words: Words = CELLS,
) -> None:
    """Refuse gene names that lack or occur twice, and genes that are missing from `adata`."""
    n_unnamed = int(adata.var_names.isna().sum())
    if n_unnamed:
        raise ValueError(
            f"`{name}.var_names` lacks {counted(n_unnamed, 'name')}, such as that "
            f"in column {int(adata.var_names.isna().argmax())}. {words.columns.capitalize()} are "
            f"matched by name: name them, or keep `{name}[:, {name}.var_names.notna()].copy()`."
        )
    twice = adata.var_names[adata.var_names.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"`{name}.var_names` holds {counted(len(twice), 'name')} more than once, such as "
            f"{some_of(twice)}. {words.columns.capitalize()} are matched by name, so names must "
            f"be unique: {advice_on_duplicates(adata.var, name, words.column)}."
        )
    missing = pd.Index([]) if genes is None else genes.difference(adata.var_names, sort=False)
    if len(missing):
        advice = advice_on_names(adata.var, genes, name)
        if words != CELLS:
            advice = f"`{name}.var_names` are such as {some_of(adata.var_names, 2)}. {SAME_NAMES}"
        raise ValueError(
            f"`{name}` lacks {len(missing)} of the {len(genes)} {words.columns} of the model, "
            f"such as {some_of(missing)}. {advice}"
        )


def check_gene_list(gene_list: Sequence[str] | None, genes: pd.Index) -> pd.Index:
    """Return the genes asked for, all of the model for `None`; refuse unknown ones."""
    if gene_list is None:
        return genes
    if isinstance(gene_list, str):
        raise TypeError(f"`gene_list={gene_list!r}` is a string. Pass a list: `[{gene_list!r}]`.")
    chosen = pd.Index(gene_list)
    missing = chosen.difference(genes)
    if len(missing):
        raise KeyError(
            f"`gene_list` holds {list(missing[:3])}, not among the {len(genes)} genes of the "
            "model. Pass names from `model.adata.var_names`."
        )
    return chosen


def check_column(adata: AnnData, key: str, argument: str) -> None:
    """Refuse a key that is not a column of ``adata.obs``, or the name of two."""
    if key is not None and not isinstance(key, str):
        raise TypeError(
            f"`{argument}` is {a_kind_of(key)}. Pass the name of a column of `adata.obs`."
        )
    if (adata.obs.columns == key).sum() > 1:
        raise ValueError(f"`adata.obs` has several columns {key!r}. Rename all but one.")
    if key not in adata.obs:
        guess = nearest(str(key), list(map(str, adata.obs.columns)))
        raise KeyError(
            f"`{argument}={key!r}` is not a column of `adata.obs` (columns: "
            f"{list(adata.obs.columns)}). Name one of these, or add it."
            f"{f' Did you mean {guess!r}?' if guess else ''}"
        )


def check_categorical(
    adata: AnnData,
    key: str,
    argument: str,
    words: Words = CELLS,
    *,
    warn_about_nan: bool = True,
) -> None:
    """Refuse a missing column, missing values, and what is neither text, numbers nor bool.

    Warn about text that pandas made of missing values, unless the caller does so.
    """
    check_column(adata, key, argument)
    missing = np.flatnonzero(adata.obs[key].isna())
    if len(missing):
        raise ValueError(
            f"`adata.obs[{key!r}]` has no value in {counted(len(missing), words.row)}, such as "
            f"{adata.obs_names[missing[0]]!r}. Each needs one: fill them in, or keep "
            f"`adata[adata.obs[{key!r}].notna()]`."
        )
    categories = adata.obs[key].astype("category").cat.categories
    kind = pd.api.types.infer_dtype(categories)
    if kind not in KINDS:
        raise TypeError(
            f"`adata.obs[{key!r}]` holds values of the kind {kind!r}. Categories are text, whole "
            f"numbers or bool, all of one kind: `adata.obs[{key!r}].astype(str)`."
        )
    if warn_about_nan:
        _warn_about_nan(adata.obs[key], TEXTS_OF_NAN.intersection(categories))


def _warn_about_nan(column: pd.Series, texts: Collection[str]) -> None:
    for text in texts:
        n_cells = int((column == text).sum())
        if n_cells:
            where = f"adata.obs[{column.name!r}]"
            warnings.warn(
                f"`{where}` is the text {text!r} in {n_cells} cells, as `astype(str)` makes of "
                "missing values, and it counts as a category like any other. If they are missing, "
                f"leave these cells out: `adata[{where} != {text!r}].copy()`.",
                UserWarning,
                stacklevel=caller_level(),
            )


def check_continuous(adata: AnnData, key: str) -> None:
    """Refuse a missing column, one that is not numeric, and values that are not finite."""
    check_column(adata, key, "continuous_covariate_keys")
    column = adata.obs[key]
    if not pd.api.types.is_numeric_dtype(column):
        raise TypeError(
            f"`adata.obs[{key!r}]` has dtype {column.dtype}, and continuous covariates are "
            "numbers. Convert it, or pass it in `categorical_covariate_keys`."
        )
    bad = np.flatnonzero(~np.isfinite(column.to_numpy(float)))
    if len(bad):
        raise ValueError(
            f"`adata.obs[{key!r}]` is {column.iloc[bad[0]]} in cell "
            f"{adata.obs_names[bad[0]]!r} (not finite in {counted(len(bad), 'cell')}). Continuous "
            "covariates must be finite: fill them in, or leave these cells out."
        )


def check_covariates(
    adata: AnnData, categorical: Sequence[str] | None, continuous: Sequence[str] | None
) -> tuple[list[str] | None, list[str] | None]:
    """Return the covariates as lists; refuse missing ones, and those with missing values."""
    lists = []
    for argument, keys in (
        ("categorical_covariate_keys", categorical),
        ("continuous_covariate_keys", continuous),
    ):
        if isinstance(keys, str):
            raise TypeError(f"`{argument}={keys!r}` is a string. Pass a list: `[{keys!r}]`.")
        lists.append(None if keys is None else list(keys))
        for key in lists[-1] or []:
            if lists[-1].count(key) > 1:
                raise ValueError(f"`{argument}` names {key!r} twice. Name every column once.")
    for key in lists[0] or []:
        check_categorical(adata, key, "categorical_covariate_keys")
    for key in lists[1] or []:
        check_continuous(adata, key)
    return lists[0], lists[1]


def check_batches(adata: AnnData, key: str) -> None:
    """Refuse fewer than two datasets or one under 3 cells; warn about one under 50."""
    check_categorical(adata, key, "batch_key")
    sizes = adata.obs[key].value_counts()
    sizes = sizes[sizes > 0]
    if len(sizes) < 2:
        raise ValueError(
            f"`adata.obs[{key!r}]` holds one dataset only, {sizes.index[0]!r}. Two or "
            "more are needed: concatenate them with `anndata.concat(..., label=...)`."
        )
    small = sizes[sizes < FEW_CELLS]
    if sizes.min() < 3:
        raise ValueError(
            f"Dataset {sizes.idxmin()!r} of `adata.obs[{key!r}]` has "
            f"{counted(sizes.min(), 'cell')}. A "
            "dataset needs at least 3: leave it out, or merge it with another."
        )
    if len(small):
        warnings.warn(
            f"Few cells in {small.to_dict()} of `adata.obs[{key!r}]` (under {FEW_CELLS}): what "
            "the model says of these datasets is uncertain.",
            UserWarning,
            stacklevel=caller_level(),
        )


def warn_about_cells(adata: AnnData, totals: NDArray) -> None:
    """Warn about cells without counts or with the same `totals`, and about duplicated names."""
    n_empty = int((totals == 0).sum())
    if n_empty:
        warnings.warn(
            f"{counted(n_empty, 'cell')} {'has' if n_empty == 1 else 'have'} no counts. Such "
            "cells are kept, and what the model says of them comes from its prior. "
            "`sc.pp.filter_cells(adata, min_counts=1)` removes them.",
            UserWarning,
            stacklevel=caller_level(),
        )
    if len(totals) > FEW_CELLS and totals.std() < SAME_TOTAL * totals.mean():
        warnings.warn(
            f"All cells have nearly the same total, {totals.mean():.6g}: the counts may have been "
            "normalised and rounded, and then errors and p-values are wrong. Pass the raw counts.",
            UserWarning,
            stacklevel=caller_level(),
        )
    if not adata.obs_names.is_unique:
        warnings.warn(
            "`adata.obs_names` are not unique, so results indexed by cell are ambiguous. "
            "`adata.obs_names_make_unique()` mends it.",
            UserWarning,
            stacklevel=caller_level(),
        )


def warn_about_file(adata: AnnData, layer: str | None) -> None:
    """Warn about a backed file whose counts are compressed."""
    if not adata.isbacked or adata.file._file is None:
        return
    is_raw = layer == RAW and layer not in adata.layers
    group = adata.file._file["raw/X" if is_raw else "X" if layer is None else f"layers/{layer}"]
    stored = group["data"] if hasattr(group, "keys") else group
    if stored.compression:
        warnings.warn(
            f"The counts in {adata.filename} are compressed ({stored.compression}), which makes "
            "reading many times slower. `adata.write_h5ad(path, compression=None)` of the loaded "
            "AnnData rewrites them.",
            UserWarning,
            stacklevel=caller_level(),
        )


def select_rows(indices: ArrayLike | None, n_cells: int) -> NDArray:
    """Return row numbers for `indices`: `None` (all), numbers in any order, or a mask."""
    if indices is None:
        return np.arange(n_cells)
    rows = np.asarray(indices)
    if rows.dtype == bool:
        if rows.shape != (n_cells,):
            raise ValueError(
                f"`indices` is a mask of shape {rows.shape}, and there are {n_cells} cells. Pass "
                "one value per cell."
            )
        return np.flatnonzero(rows)
    rows = rows.astype(np.int64) if rows.size == 0 else rows
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(
            f"`indices` has dtype {rows.dtype} and shape {rows.shape}. Pass row numbers or a "
            "boolean mask, one axis."
        )
    if rows.size and (rows.min() < -n_cells or rows.max() >= n_cells):
        raise IndexError(
            f"`indices` runs from {rows.min()} to {rows.max()}, and there are {n_cells} cells. "
            f"Pass row numbers below {n_cells}."
        )
    return np.arange(n_cells)[rows]


def some_of(names: Sequence[object], most: int = 3) -> str:
    """Return the first few names for a message."""
    return ", ".join(repr(n) for n in names[:most])
