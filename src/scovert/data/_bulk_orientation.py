"""Which axis of a table has the genes, and whether its first row has names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from anndata import AnnData

from scovert.core._checks import some_of
from scovert.core.genes import GeneNames, are_alike, are_known, kind_of_genes, species_of
from scovert.data._bulk_programs import are_no_genes
from scovert.data._bulk_tables import Sheet, meaning_of

__all__ = ["begins_with_names", "column_of", "find_genes", "known_names", "tell_genes"]

_MANY_GENES, _MANY_TIMES = 1000, 5
"""An axis with more names than the first, and this many times as many as the other, has genes:
hardly a cohort has as many samples."""


def known_names(genes: Iterable[str] | pd.DataFrame | AnnData) -> GeneNames:
    """Return the names that genes go by, of an AnnData or its ``var`` also those in columns."""
    var = genes.var if isinstance(genes, AnnData) else genes
    if isinstance(var, pd.DataFrame):
        return GeneNames.of(var)
    return GeneNames(pd.Index(var), ())


def column_of(genes: GeneNames, found: pd.Index) -> list[str]:
    """Say which column has the names that were found, if not ``var_names``."""
    n_found = {s.source: int(found.isin(s.names).sum()) for s in genes.spellings}
    best = max(n_found, key=n_found.get, default=None)
    if best is None or n_found[best] <= found.isin(genes.names).sum():
        return []
    return [f"genes called as in {best} of the reference"]


def begins_with_names(sheet: Sheet, genes: pd.Index | None) -> bool:
    """Whether the first row has names of columns, and is not that of the first gene."""
    if not sheet.starts_with_numbers or meaning_of(sheet.first[0]):
        return True
    known = pd.Index([] if genes is None else genes)
    corner, below = pd.Index(sheet.first[:1]), pd.Index(sheet.names)
    entries = pd.Index(sheet.first[1:])
    is_identifier = kind_of_genes(corner) == kind_of_genes(below) != "symbols"
    if are_known(corner, known).any() or is_identifier:
        return False
    if are_known(entries, known).any():  # identifiers of genes in columns
        return True
    if entries.has_duplicates or are_no_genes(below).any():
        return False
    raise ValueError(
        f"{sheet.path} begins with {some_of(sheet.first, 4)}, which may be names of columns, or "
        f"the numbers of {sheet.first[0]!r}. Write 'gene' in front of names of samples, or add a "
        "first row: 'gene' and the name of every sample."
    )


def find_genes(rows: pd.Index, columns: pd.Index, genes: pd.Index, path: Path) -> bool:
    """Find out by names of genes whether they are in the rows, and not in the columns."""
    found = {
        "rows": int(are_known(rows, genes).sum()),
        "columns": int(are_known(columns, genes).sum()),
    }
    if not any(found.values()):
        found = {
            "rows": int(are_alike(rows, genes).sum()),
            "columns": int(are_alike(columns, genes).sum()),
        }
    few, many = sorted(found.values())
    if many == 0:
        _refuse_names(rows, columns, genes, path)
    if 2 * few >= many:
        raise ValueError(
            f"{path} has names of genes in {found['rows']} rows and {found['columns']} columns, "
            "so genes and samples cannot be told apart. Give the samples other names."
        )
    return found["rows"] > found["columns"]


def tell_genes(rows: pd.Index, columns: pd.Index, corner: str, path: Path) -> tuple[bool, str]:
    """Tell without known genes whether they are in the rows, and by what."""
    are_ensembl = [kind_of_genes(names).startswith("Ensembl") for names in (rows, columns)]
    if are_ensembl[0] != are_ensembl[1]:
        return are_ensembl[0], "by their Ensembl identifiers"
    if are_no_genes(rows).any():
        return True, "by rows that HTSeq or STAR writes"
    few, many = sorted([len(rows), len(columns)])
    if many > max(_MANY_GENES, _MANY_TIMES * few):
        return len(rows) == many, "by their number"
    if meaning_of(corner) == "genes":  # the word "sample" may stand for the first row as well
        return True, f"by the word {corner!r} above them"
    raise ValueError(
        f"{path} has {len(rows)} rows (such as {some_of(rows)}) and {len(columns)} columns (such "
        f"as {some_of(columns)}), and nothing tells which are genes. Pass names of genes, such as "
        "`genes=reference.var_names`, or write 'gene' above them if they are in rows."
    )


def _refuse_names(rows: pd.Index, columns: pd.Index, genes: pd.Index, path: Path) -> None:
    longer = rows if len(rows) >= len(columns) else columns
    expected, kind = kind_of_genes(genes), kind_of_genes(longer)
    advice = "Name them alike."
    if kind != expected:
        advice = (
            f"The file seems to have {kind}, and {expected} are expected. If a column of "
            "`reference.var` has them, such as 'feature_name' or 'gene_ids', pass "
            "`genes=reference`; else translate them."
        )
    elif len({species_of(genes), species_of(longer)}) > 1:
        advice = "They are identifiers of two species: pass a reference of that of the samples."
    elif longer.str.upper().isin(genes.str.upper()).any():
        advice = "They differ in upper and lower case: is it the same species?"
    raise ValueError(
        f"{path} has none of the {len(genes)} genes (such as {some_of(genes)}): neither in its "
        f"rows (such as {some_of(rows)}) nor in its columns (such as {some_of(columns)}). {advice}"
    )
