"""Names that the genes of a table go by, in ``var_names`` and in columns of ``var``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import pandas as pd
from numpy.typing import NDArray

from scovert.core.genes._housekeeping import is_housekeeping
from scovert.core.genes._kinds import (
    IDENTIFIERS,
    JOINED,
    NO_NAMES,
    NUMBERS,
    SYMBOLS,
    identifiers,
    kind_of_genes,
    symbols,
)

__all__ = ["GeneNames", "Spelling"]

_OF_SYMBOLS = frozenset(
    "featurename genesymbol genesymbols genename genenames geneshortname externalgenename "
    "externalgeneid associatedgenename hgncsymbol hgncsymbols hgnc mgisymbol symbol symbols gene "
    "genes name features".split()
)
"""Columns of symbols: of CELLxGENE, scanpy, GENCODE, nf-core, monocle, biomaRt and others.

Those of identifiers are told by what is in them.
"""
OTHER = "other names"
"""Kind of a column that may have names of genes, or just different texts."""
_DISTINCT = 0.5
"""Share of different entries of such a column; classes of genes have fewer."""
VERSIONS = "versions"
CUT = {
    (IDENTIFIERS, JOINED): "symbols",
    (SYMBOLS, JOINED): "identifiers",
    (SYMBOLS, SYMBOLS): "prefixes",
}
"""What is cut from names of the second kind to have those of the first, if not versions."""


@dataclass(frozen=True)
class Spelling:
    """One way to name all genes of a table.

    Attributes
    ----------
    kind
        ``"Ensembl identifiers"`` (without versions), ``"symbols"`` or ``"other names"``.
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
            if spelling.kind != OTHER:
                found = found | is_housekeeping(spelling.names)
        return found

    @property
    def has_symbols(self) -> bool:
        """Whether the genes have symbols."""
        return kind_of_genes(self.names) == SYMBOLS or any(
            s.kind == SYMBOLS == kind_of_genes(s.names) for s in self.spellings
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
        has_identifiers = kind.startswith(IDENTIFIERS) or kind == JOINED
        if has_identifiers or kind == SYMBOLS:
            ids = _spelling(IDENTIFIERS, kind, source, texts, names)
            n_ids = int((identifiers(texts) != "").sum())
            if n_ids:
                yield ids
            is_mixed = 0 < n_ids < len(texts)
            if may_be_symbols and (kind in (SYMBOLS, JOINED) or is_mixed):
                yield _spelling(SYMBOLS, kind, source, texts, names)
        if kind != NUMBERS and not has_identifiers and not (kind == SYMBOLS and may_be_symbols):
            if texts.nunique() > _DISTINCT * len(texts):
                yield Spelling(OTHER, source, texts.where(texts != "", names))


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
            texts = values.astype(object).where(values.notna(), "").astype(str).str.strip()
            texts = texts.mask(texts.str.lower().isin(NO_NAMES), "")
            is_of_symbols = re.sub("[^a-z]", "", str(column).lower()) in _OF_SYMBOLS
            yield f"var[{column!r}]", pd.Index(texts), is_of_symbols
