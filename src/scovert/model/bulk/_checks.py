"""Checks of references, bulk samples and measured fractions of BulkDeconvolution."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import (
    UNKNOWN,
    caller_level,
    check_categorical,
    check_choice,
    check_column,
    some_of,
)
from scovert.core._spelling import warn_about_spelling
from scovert.core._words import a_kind_of, counted
from scovert.model.bulk._type_names import are_no_types

__all__ = [
    "check_cell_size",
    "check_condition",
    "check_method",
    "check_no_options",
    "check_studies",
    "check_subjects",
    "check_types",
    "check_types_have_counts",
    "check_unknown",
    "warn_about_conditions",
    "warn_about_unknown",
    "warn_about_types",
]

LARGE_UNKNOWN = 0.25
"""Share of a sample from which the unknown component is warned of: it changes all the others."""


def check_types(adata: AnnData, key: str, min_cells: int) -> None:
    """Refuse a reference with one cell type, or with types of too few cells."""
    check_categorical(adata, key, "labels_key", warn_about_nan=False)  # as of other non-types
    sizes = adata.obs[key].value_counts()
    sizes = sizes[sizes > 0]
    if len(sizes) < 2:
        raise ValueError(
            f"`adata.obs[{key!r}]` holds one type only, {sizes.index[0]!r}. Deconvolution tells "
            "two or more types apart: annotate the reference more finely, or name another column."
        )
    small = sizes[sizes < min_cells]
    if len(small):
        raise ValueError(
            f"The types {small.to_dict()} of `adata.obs[{key!r}]` have fewer than "
            f"`min_cells_per_type={min_cells}` cells, too few for a profile. Leave them out, "
            "merge them with a related type, or pass a smaller `min_cells_per_type`."
        )


def warn_about_types(obs: pd.DataFrame, key: str) -> None:
    """Warn about names that are those of no type."""
    none = are_no_types(sorted(set(obs[key].astype(str))))
    if none:
        warnings.warn(
            f"{some_of(none, 6)} of the reference look like no type of cells, and take a fraction "
            "of every sample as one. Leave these cells out, unless they are what you look for: "
            f"`reference = reference[~reference.obs[{key!r}].isin({none})].copy()`.",
            UserWarning,
            stacklevel=caller_level(),
        )


def check_subjects(adata: AnnData, batch_key: str | None, subject_key: str | None) -> None:
    """Refuse missing columns of studies and donors, and missing values in them."""
    for argument, key in (("batch_key", batch_key), ("subject_key", subject_key)):
        if key is not None:
            check_categorical(adata, key, argument)


def check_studies(labels: NDArray, studies: Mapping[str, NDArray], min_cells: int) -> None:
    """Refuse studies with one type, and types that no study has enough cells of."""
    kept: set[str] = set()
    for name, is_own in studies.items():
        sizes = pd.Series(labels[is_own]).value_counts()
        enough = sizes.index[sizes >= min_cells]
        if len(enough) < 2:
            raise ValueError(
                f"Study {name!r} of the reference has fewer than two types of {min_cells} cells "
                f"({sizes.to_dict()}). Leave it out, or `batch_key`, which fits every study."
            )
        kept |= set(enough)
    lost = [kind for kind in pd.unique(labels) if kind not in kept]
    if lost:
        raise ValueError(
            f"No study of the reference has {min_cells} cells of {some_of(lost)}, although all "
            "together do. Leave these types out, merge them with a related type, pass a smaller "
            "`min_cells_per_type`, or leave `batch_key` out."
        )


def check_types_have_counts(counts: NDArray, types: Sequence[str]) -> None:
    """Refuse types without counts of the genes that reference and bulk share."""
    empty = [kind for kind, own in zip(types, counts, strict=True) if own == 0]
    if 0 < len(empty) < len(types):  # without any, genes have other names
        raise ValueError(
            f"The cells of {some_of(empty)} have no counts of the genes that bulk and reference "
            "share. Leave these types out of the reference, or pass all genes of both."
        )


def check_cell_size(cell_size: object, types: Collection[str]) -> str | Mapping[str, float]:
    """Return where RNA per cell is from; refuse unknown choices and types, and numbers below 0."""
    if isinstance(cell_size, pd.Series) and cell_size.index.is_unique:
        cell_size = cell_size.to_dict()
    if isinstance(cell_size, str):
        choices = ("auto", "table", "reference", "none")
        if cell_size not in choices:
            raise ValueError(
                f"`cell_size={cell_size!r}` is not known. Pass one of {list(choices)}, or a "
                "mapping from types to RNA per cell."
            )
        return cell_size
    if not isinstance(cell_size, Mapping):
        raise TypeError(
            f"`cell_size` is {a_kind_of(cell_size)}. Pass 'auto', 'table', 'reference', "
            "'none', or a mapping (or a Series) from types to RNA per cell, each type once."
        )
    unknown = [kind for kind in cell_size if kind not in types]
    if unknown or not cell_size:
        is_text = all(isinstance(kind, str) for kind in unknown)
        hint = "" if is_text else f" Names of types are text: pass {str(unknown[0])!r}."
        raise ValueError(
            f"`cell_size` names {unknown or 'no type'}, and the types of the reference are "
            f"{list(types)}. Types that are left out take their counts in the reference.{hint}"
        )
    bad = {k: v for k, v in cell_size.items() if not (_is_number(v) and np.isfinite(v) and v > 0)}
    if bad:
        raise ValueError(f"`cell_size` holds {bad}. RNA per cell is a positive number.")
    return cell_size


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_method(method: str, likelihood: str, unknown: object) -> None:
    """Refuse unknown methods and likelihoods, and those that do not go together."""
    check_choice("method", method, ("joint", "network"))
    check_choice("likelihood", likelihood, ("robust", "nb"))
    if method == "network" and (unknown or likelihood != "robust"):
        raise ValueError(
            f"`method='network'` has no `unknown={unknown}` or `likelihood={likelihood!r}`, which "
            "belong to the joint fit. Leave them out, or pass `method='joint'`."
        )


def check_unknown(unknown: object, types: Collection[str]) -> None:
    """Refuse an unknown component beside a type of this name."""
    if not isinstance(unknown, bool | np.bool_):
        raise TypeError(f"`unknown={unknown!r}` is {a_kind_of(unknown)}. Pass a bool.")
    if unknown and UNKNOWN in types:
        raise ValueError(
            f"The reference has a type {UNKNOWN!r}, which is also the name of the component that "
            "`unknown=True` adds. Leave these cells out, or rename the type."
        )


def check_no_options(options: Mapping[str, object]) -> None:
    """Refuse options of a deconvolution that was done already."""
    if options:
        raise ValueError(
            f"{sorted(options)} are options of `deconvolve`, and its result is there already. "
            "Leave them out, or pass the bulk."
        )


def warn_about_unknown(share: pd.Series) -> None:
    """Warn that the unknown component took a large part of a sample."""
    if share.max() > LARGE_UNKNOWN:
        warnings.warn(
            f"The unknown component is {share.max():.0%} of sample {share.idxmax()!r} (above "
            f"{LARGE_UNKNOWN:.0%} in {counted((share > LARGE_UNKNOWN).sum(), 'sample')}). It "
            "takes what the "
            "types of the reference explain less well, content that they lack or not, and a small "
            "residual proves nothing. Compare with `unknown=False` before you believe it.",
            UserWarning,
            stacklevel=caller_level(),
        )


def check_condition(obs: pd.DataFrame, key: str | None) -> None:
    """Refuse a column of conditions that is missing or has missing values."""
    if key is None:
        return
    holder = AnnData(obs=obs)
    check_column(holder, key, "condition_key")
    missing = obs.index[obs[key].isna()]
    if len(missing):
        raise ValueError(
            f"`bulk.obs[{key!r}]` has no value in {counted(len(missing), 'sample')}, such as "
            f"{missing[0]!r}. "
            "Every sample needs a condition."
        )
    warn_about_spelling(obs, key, "bulk")


def warn_about_conditions(condition: pd.Series) -> None:
    """Warn about conditions of one sample, which cannot tell the types apart."""
    sizes = condition.value_counts(sort=False)
    single = list(sizes.index[sizes == 1])
    if single:
        warnings.warn(
            f"There is one sample only of {some_of(single)} ({len(single)} of {len(sizes)} "
            "conditions). One sample does not tell which type a change belongs to: all types get "
            "nearly the same, and `reliability` is near zero. Name a column that groups samples.",
            UserWarning,
            stacklevel=caller_level(),
        )
