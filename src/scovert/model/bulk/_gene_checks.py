"""Checks of the genes that a reference and a bulk have in common, and of what they are called."""

from __future__ import annotations

import warnings

import pandas as pd

from scovert.core._checks import caller_level, some_of
from scovert.core.genes import (
    Match,
    are_dates,
    are_positions,
    kind_of_genes,
    species_of,
)

__all__ = [
    "FEW_GENES",
    "check_informative",
    "check_positions",
    "warn_about_dates",
    "warn_about_housekeeping",
    "warn_about_lost",
    "warn_about_match",
]

FEWEST_GENES, FEW_GENES = 50, 200
"""Shared genes that tell types apart, below which a bulk is refused and warned of: of ten types, 5
and 20 of each."""
FEW_SHARED = 0.5
"""Share of the genes of the smaller table; two releases of an annotation share far more."""


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
    species = species_of(genes), species_of(bulk)
    if species[0] != species[1] and all(species):
        return (
            f" Their identifiers are of two species, {species[0]}G and {species[1]}G ({examples})."
            " Pass a reference of the species of the bulk, or translate the identifiers of one "
            "into those of the other by a table of orthologues."
        )
    if "transcripts" in kinds[1] and "transcripts" not in kinds[0]:
        return (
            f" The bulk has {kinds[1]} ({examples}), and genes are compared: sum them by gene, "
            "for example with tximport and its `tx2gene`."
        )
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


def check_positions(match: Match, genes: pd.Index, bulk: pd.Index) -> None:
    """Refuse to match numbers that only count the genes."""
    if match.is_plain and match.n_shared and (are_positions(genes) or are_positions(bulk)):
        raise ValueError(
            f"The names of the genes are numbers that count them, in the reference (such as "
            f"{some_of(genes)}) and in the bulk (such as {some_of(bulk)}), and gene 5 of one is "
            "not gene 5 of the other. Give both names of genes in `var_names` or in a column of "
            "`var` such as 'gene_name', for example `bulk.var_names = names`, and set up the "
            "reference again."
        )


def warn_about_dates(genes: pd.Index, what: str) -> None:
    """Warn about symbols that a spreadsheet turned into dates."""
    dates = genes[are_dates(genes)]
    if len(dates):
        warnings.warn(
            f"{len(dates)} genes of the {what} are called like a date, such as {some_of(dates)}: "
            "a spreadsheet did that to symbols such as 'MARCH1' and 'SEPT2'. Which gene each was "
            "cannot be told, and they are not matched. Take the names from the table as it was "
            "before, or those that replaced them ('MARCHF1', 'SEPTIN2').",
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


def warn_about_lost(match: Match, genes: pd.Index) -> None:
    """Warn that most genes of the smaller table are not in the other one."""
    if match.n_shared < FEWEST_GENES:  # refused, with the reason
        return
    if match.n_shared >= FEW_SHARED * min(len(genes), len(match.own)):
        return
    mine = genes[~genes.isin(match.called) & ~genes.isin(match.own)]
    theirs = match.own.difference([*match.called.values(), *genes], sort=False)
    warnings.warn(
        f"Bulk and reference share {match.n_shared} genes, and have {len(match.own)} and "
        f"{len(genes)}. Only the reference has such as {some_of(mine)}, only the bulk such as "
        f"{some_of(theirs)}. If these are the same genes, name them alike in `var_names` or in a "
        "column of `var` such as 'gene_ids'; results rest on the shared ones.",
        UserWarning,
        stacklevel=caller_level(),
    )
