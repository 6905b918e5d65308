"""Kinds of names of genes, told by their form."""

from __future__ import annotations

import re

import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "IDENTIFIERS",
    "JOINED",
    "NO_NAMES",
    "NUMBERS",
    "PREFIX",
    "SYMBOLS",
    "are_known",
    "are_positions",
    "identifiers",
    "kind_of_genes",
    "species_of",
    "symbols",
]

IDENTIFIERS, SYMBOLS, NUMBERS = "Ensembl identifiers", "symbols", "numbers"
JOINED = "symbols joined with identifiers"
NO_NAMES = frozenset(
    {"", "-", "--", "---", ".", "?", "na", "n/a", "#n/a", "nan", "<na>", "none", "null"}
)
"""What stands in columns for a gene without a name, in lower case."""

_ENSEMBL = r"ENS[A-Z]*G\d{5,}"
_SUFFIX = r"(?:\.\d+)?(?:_PAR_Y|_\d+|_at)?"
"""Version, and what GENCODE adds to genes of the Y chromosome and to lifted ones, chips to all."""
_ID = rf"(?:^|(?<=[|_:; (.-]))({_ENSEMBL}){_SUFFIX}(?=$|[|_:; ).-])"

_PATTERNS = {
    "Ensembl identifiers with versions": rf"{_ENSEMBL}\.\d+(?:_PAR_Y|_\d+)?",
    IDENTIFIERS: rf"{_ENSEMBL}(?:_PAR_Y|_at)?",
    "Ensembl transcripts": r"ENS[A-Z]*T\d{5,}(?:\.\d+)?",
    JOINED: (
        rf".+[|_:; (.-]{_ENSEMBL}{_SUFFIX}(?:[|_:; ).-].*)?|{_ENSEMBL}{_SUFFIX}[|_:; .-].+"
        r"|[^|]+\|\d+|.+ \(\d+\)"
    ),
    "RefSeq transcripts": r"[NX][MR]_\d+(?:\.\d+)?",
    "probes": r".+_at|ILMN_\d+",
    "identifiers of other databases": (
        r"(?:HGNC|MGI):\d+|OTT[A-Z]+G\d{5,}(?:\.\d+)?|FBgn\d+|WBGene\d+|AT[1-5CM]G\d{5}"
        r"|Y[A-P][LR]\d{3}[CW](?:-[A-Z])?"
    ),
    NUMBERS: r"\d+",
}
PREFIX = r"^(?:GRC[hm]\d+|hg\d+|mm\d+)[-_]+|^gene[-:]"
"""What Cell Ranger puts before names of a reference of two species, and files of annotation."""
_N_LOOKED_AT = 200
"""Names that tell the kind of all, evenly spaced."""


def kind_of_genes(names: pd.Index) -> str:
    """Return what most of the names are: symbols, or which kind of identifiers."""
    some = [str(name) for name in names[:: max(1, len(names) // _N_LOOKED_AT)]]
    for kind, pattern in _PATTERNS.items():
        if sum(bool(re.fullmatch(pattern, name, re.IGNORECASE)) for name in some) > len(some) / 2:
            return kind
    return SYMBOLS


def identifiers(names: pd.Index) -> pd.Index:
    """Return the Ensembl identifiers in names, without versions; empty where there is none."""
    texts = pd.Series(names, dtype=str).str.upper()
    return pd.Index(texts.str.extract(_ID, expand=False).fillna(""))


def are_known(names: pd.Index, genes: pd.Index) -> NDArray:
    """Tell which names are among those of genes, identifiers whatever their versions are."""
    known = identifiers(genes)
    return names.isin(genes) | identifiers(names).isin(known[known != ""])


def are_positions(names: pd.Index) -> bool:
    """Tell numbers that count genes, as an AnnData without names has, from Entrez identifiers.

    Those begin with 1, and are far larger than the number of genes.
    """
    if not len(names) or not all(map(str.isdecimal, names[:_N_LOOKED_AT])):
        return False
    if not names.str.isdecimal().all():
        return False
    return "0" in names or int(names.astype(int).max()) < 2 * len(names)


def species_of(names: pd.Index) -> str:
    """Return the letters that Ensembl identifiers of most of the names begin with, or nothing."""
    found = identifiers(names[:: max(1, len(names) // _N_LOOKED_AT)])
    starts = pd.Series(found[found != ""]).str.extract(r"^(ENS[A-Z]*)G", expand=False)
    return starts.mode().iloc[0] if len(starts) else ""


def symbols(names: pd.Index) -> pd.Index:
    """Return the symbols in names, without identifiers; empty where there is none."""
    texts = pd.Series(names, dtype=str)
    cut = texts.str.replace(_ID, "", regex=True, flags=re.IGNORECASE)
    cut = cut.str.replace(r" \(\d+\)$", "", regex=True)  # Entrez, as DepMap writes it
    is_joined = cut.str.contains("|", regex=False)
    cut = cut.mask(is_joined, cut.str.strip("|").str.split("|").str[0])
    cut = cut.str.replace(PREFIX, "", regex=True)
    cut = cut.where(cut == texts, cut.str.strip("().- "))
    return pd.Index(cut.str.strip("_:;| ").replace("?", ""))  # TCGA: "?|100130426"
