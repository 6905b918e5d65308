"""Checks of references, bulk samples and measured fractions of BulkDeconvolution."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import UNKNOWN, caller_level, check_categorical, check_column, some_of
from scovert.core.genes import Match, kind_of_genes

__all__ = [
    "check_condition",
    "check_content",
    "check_informative",
    "check_no_options",
    "check_sizes",
    "check_studies",
    "check_subjects",
    "check_types",
    "check_unknown",
    "warn_about_conditions",
    "warn_about_housekeeping",
    "warn_about_match",
    "warn_about_unknown",
]

FEWEST_GENES, FEW_GENES = 50, 200
LARGE_UNKNOWN = 0.25


def check_types(adata: AnnData, key: str, min_cells: int) -> None:
    """Refuse a reference with one cell type, or with types of too few cells."""
    check_categorical(adata, key, "labels_key")
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


def check_content(rna: NDArray, types: Sequence[str]) -> None:
    """Refuse types without counts of the genes that reference and bulk share."""
    empty = [kind for kind, counts in zip(types, rna, strict=True) if counts == 0]
    if 0 < len(empty) < len(types):  # without any, genes have other names
        raise ValueError(
            f"The cells of {some_of(empty)} have no counts of the genes that bulk and reference "
            "share. Leave these types out of the reference, or pass all genes of both."
        )


def check_informative(
    n_informative: int, shared: pd.Index, genes: pd.Index, bulk: pd.Index
) -> None:
    """Refuse fewer than 50 shared genes that tell types apart; warn about fewer than 200."""
    if n_informative >= FEW_GENES:
        return
    found = (
        f"Bulk and reference share {len(shared)} genes, {n_informative} of which tell the types "
        "of the reference apart"
    )
    if n_informative < FEWEST_GENES:
        raise ValueError(
            f"{found}, and at least {FEWEST_GENES} are needed.{_why_few(shared, genes, bulk)}"
        )
    warnings.warn(
        f"{found}. With fewer than {FEW_GENES}, proportions are uncertain: pass all genes of the "
        "bulk and the reference.",
        UserWarning,
        stacklevel=caller_level(),
    )


def _why_few(shared: pd.Index, genes: pd.Index, bulk: pd.Index) -> str:
    """Say what kinds of names the reference and the bulk have, if they differ."""
    kinds = kind_of_genes(genes), kind_of_genes(bulk)
    examples = f"such as {genes[0]!r} and {bulk[0]!r}"
    others = bulk.difference(shared, sort=False)
    upper = dict(zip(others.str.upper(), others, strict=True))
    cased = [gene for gene in genes.difference(shared, sort=False) if gene.upper() in upper]
    if kinds[0] != kinds[1]:
        return (
            f" The genes of the reference are {kinds[0]} and those of the bulk {kinds[1]}, "
            f"{examples}, and no column of `var` has the same names for both. Give both the same "
            "names in `var_names`, or a column that has them, such as 'gene_ids' or 'gene_name'."
        )
    if len(shared) < len(genes) // 10 and len(cased) > len(shared):
        pair = f"such as {cased[0]!r} and {upper[cased[0].upper()]!r}"
        return f" Their names differ in case, {pair}: are they of the same species?"
    return (
        f" Pass all genes of both ({len(genes)} and {len(bulk)} here, {examples}), and a "
        "reference with more cells if it has few: differences that sampling explains do not count."
    )


def warn_about_housekeeping(n_found: int, names: pd.Index, *, has_symbols: bool) -> None:
    """Warn that ribosomal and mitochondrial genes cannot be told by the names of a reference."""
    if n_found or has_symbols:
        return
    warnings.warn(
        f"The genes of the reference are {kind_of_genes(names)}, such as {some_of(names)}, and "
        "none is known as that of a ribosomal or mitochondrial gene. If there are any, they stay "
        "in unless names of the bulk tell them, and fractions are less certain: known are "
        "symbols, and Ensembl identifiers of human and mouse. Put symbols into a column of "
        "`reference.var` called 'gene_symbols', or leave these genes out.",
        UserWarning,
        stacklevel=caller_level(),
    )


def warn_about_match(match: Match, genes: pd.Index, bulk: pd.Index) -> None:
    """Say how genes of a bulk were matched, if not by `var_names`, and how many were added up."""
    if match.is_plain:
        return
    added = ""
    if match.n_added:
        added = f" The counts of {match.n_added} genes are added to those of another of that name."
    warnings.warn(
        f"The genes of the reference are {kind_of_genes(genes)} and those of the bulk "
        f"{kind_of_genes(bulk)}, such as {genes[0]!r} and {bulk[0]!r}. They are matched by "
        f"{match.source}: {match.n_shared} of {len(genes)} and "
        f"{len(bulk)} are in both.{added} If that is not right, give both "
        "the same `var_names`.",
        UserWarning,
        stacklevel=caller_level(),
    )


def check_sizes(cell_size: object, types: Collection[str]) -> None:
    """Refuse RNA contents that are no known choice, not positive, or of unknown types."""
    if isinstance(cell_size, str):
        choices = ("auto", "table", "reference", "none")
        if cell_size not in choices:
            raise ValueError(
                f"`cell_size={cell_size!r}` is not known. Pass one of {list(choices)}, or a "
                "mapping from types to RNA per cell."
            )
        return
    if not isinstance(cell_size, Mapping):
        raise TypeError(
            f"`cell_size` is a {type(cell_size).__name__}. Pass 'auto', 'table', 'reference', "
            "'none', or a mapping from types to RNA per cell."
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


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def check_unknown(unknown: object, types: Collection[str]) -> None:
    """Refuse an unknown component beside a type of this name."""
    if not isinstance(unknown, bool | np.bool_):
        raise TypeError(f"`unknown={unknown!r}` is a {type(unknown).__name__}. Pass a bool.")
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
            f"{LARGE_UNKNOWN:.0%} in {(share > LARGE_UNKNOWN).sum()} samples). It takes what the "
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
            f"`bulk.obs[{key!r}]` has no value in {len(missing)} samples, such as {missing[0]!r}. "
            "Every sample needs a condition."
        )


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
