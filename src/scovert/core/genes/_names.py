"""Names that the genes of a table go by, in ``var_names`` and in columns of ``var``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pandas as pd
from numpy.typing import NDArray

from scovert.core.genes._housekeeping import is_housekeeping
from scovert.core.genes._kinds import (
    IDENTIFIERS,
    JOINED,
    SYMBOLS,
    identifiers,
    kind_of_genes,
    symbols,
)

__all__ = ["GeneNames", "Spelling"]

_OF_SYMBOLS = (
    "feature_name",  # CELLxGENE
    "gene_symbol",
    "gene_symbols",  # scanpy
    "gene_name",  # GENCODE, nf-core
    "gene_names",
    "gene_short_name",  # monocle
    "external_gene_name",  # biomaRt
    "hgnc_symbol",
    "mgi_symbol",
    "symbol",
    "symbols",
    "gene",
    "genes",
    "name",
)
"""Columns of symbols. Those of identifiers are told by what is in them."""
VERSIONS = "versions"
CUT = {
    (IDENTIFIERS, JOINED): "symbols",
    (SYMBOLS, JOINED): "identifiers",
    (SYMBOLS, SYMBOLS): "genomes",
}
"""What is cut from names of the second kind to have those of the first, if not versions."""


@dataclass(frozen=True)
class Spelling:
    """One way to name all genes of a table.

    Attributes
    ----------
    kind
        ``"Ensembl identifiers"`` (without versions) or ``"symbols"``.
    source
        Where the names are, such as ``"var['gene_ids']"``.
    names
        The names; a gene that has none of this kind is called as in ``var_names``.
    """

    kind: str
    source: str
    names: pd.Index


@dataclass(frozen=True)
class GeneNames:
    """Names of the genes of a table.

    Attributes
    ----------
    names
        The ``var_names``.
    spellings
        Other ways to name them.
    """

    names: pd.Index
    spellings: tuple[Spelling, ...]

    @classmethod
    def of(cls, var: pd.DataFrame) -> Self:
        """Find the names of genes in ``adata.var``."""
        names = var.index.astype(str)
        return cls(names, tuple(_spellings(var, names)))

    @classmethod
    def restored(cls, names: pd.Index, stored: list[list]) -> Self:
        """Return what :meth:`stored` gave."""
        return cls(names, tuple(Spelling(kind, at, pd.Index(own)) for kind, at, own in stored))

    def stored(self) -> list[list]:
        """Return the spellings as plain lists."""
        return [[s.kind, s.source, s.names.tolist()] for s in self.spellings]

    def is_housekeeping(self) -> NDArray:
        """Tell ribosomal and mitochondrial genes by any of their names."""
        found = is_housekeeping(self.names)
        for spelling in self.spellings:
            found = found | is_housekeeping(spelling.names)
        return found

    @property
    def has_symbols(self) -> bool:
        """Whether the genes have symbols."""
        return kind_of_genes(self.names) == SYMBOLS or any(
            spelling.kind == SYMBOLS for spelling in self.spellings
        )

    def known(self) -> pd.Index:
        """Return all names of all genes, the ``var_names`` first."""
        known = self.names
        for spelling in self.spellings:
            known = known.append(spelling.names)
        return known.unique()


def _spellings(var: pd.DataFrame, names: pd.Index) -> Iterator[Spelling]:
    for source, texts, may_be_symbols in _sources(var, names):
        kind = kind_of_genes(texts)
        if kind.startswith(IDENTIFIERS) or kind == JOINED:
            yield _spelling(IDENTIFIERS, kind, source, texts, names)
        if kind in (SYMBOLS, JOINED) and may_be_symbols:
            yield _spelling(SYMBOLS, kind, source, texts, names)


def _spelling(kind: str, was: str, source: str, texts: pd.Index, names: pd.Index) -> Spelling:
    """Return the part of this kind of texts that are of another, or the name where it is empty."""
    found = identifiers(texts) if kind == IDENTIFIERS else symbols(texts)
    is_there = found != ""
    if (found != texts)[is_there].any():
        source = f"{source} without {CUT.get((kind, was), VERSIONS)}"
    return Spelling(kind, source, found.where(is_there, names))


def _sources(var: pd.DataFrame, names: pd.Index) -> Iterator[tuple[str, pd.Index, bool]]:
    """Return columns of texts, missing values as empty ones, and whether symbols may be there."""
    yield "var_names", names, True
    for column, values in var.items():
        if not pd.api.types.is_numeric_dtype(values):
            texts = values.astype(object).where(values.notna(), "").astype(str)
            is_of_symbols = str(column).lower().replace(" ", "_") in _OF_SYMBOLS
            yield f"var[{column!r}]", pd.Index(texts), is_of_symbols
