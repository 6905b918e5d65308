"""Kinds of names of genes, told by their form."""

from __future__ import annotations

import re

import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "IDENTIFIERS",
    "JOINED",
    "NUMBERS",
    "SYMBOLS",
    "are_known",
    "identifiers",
    "kind_of_genes",
    "symbols",
]

IDENTIFIERS, SYMBOLS, NUMBERS = "Ensembl identifiers", "symbols", "numbers"
JOINED = "symbols joined with identifiers"

_ENSEMBL = r"ENS[A-Z]*G\d{5,}"
_SUFFIX = r"(?:\.\d+)?(?:_PAR_Y|_\d+|_at)?"
"""Version, and what GENCODE adds to genes of the Y chromosome and to lifted ones, chips to all."""
_ID = rf"(?:^|(?<=[|_:; ]))({_ENSEMBL}){_SUFFIX}(?=$|[|_:; ])"

_PATTERNS = {
    "Ensembl identifiers with versions": rf"{_ENSEMBL}\.\d+(?:_PAR_Y|_\d+)?",
    IDENTIFIERS: rf"{_ENSEMBL}(?:_PAR_Y|_at)?",
    "Ensembl transcripts": r"ENS[A-Z]*T\d{5,}(?:\.\d+)?",
    JOINED: rf".+[|_:; ]{_ENSEMBL}{_SUFFIX}(?:[|_:; ].*)?|{_ENSEMBL}{_SUFFIX}[|_:; ].+|[^|]+\|\d+",
    "RefSeq transcripts": r"[NX][MR]_\d+(?:\.\d+)?",
    "probes": r".+_at|ILMN_\d+",
    "identifiers of other databases": (
        r"(?:HGNC|MGI):\d+|OTT[A-Z]+G\d{5,}(?:\.\d+)?|FBgn\d+|WBGene\d+|AT[1-5CM]G\d{5}"
        r"|Y[A-P][LR]\d{3}[CW](?:-[A-Z])?"
    ),
    NUMBERS: r"\d+",
}
_GENOME = r"^(?:GRC[hm]\d+|hg\d+|mm\d+)_+"
"""What Cell Ranger puts before names of a reference of two species."""
_N_LOOKED_AT = 200


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


def symbols(names: pd.Index) -> pd.Index:
    """Return the symbols in names, without identifiers; empty where there is none."""
    texts = pd.Series(names, dtype=str).str.replace(_ID, "", regex=True, flags=re.IGNORECASE)
    is_joined = texts.str.contains("|", regex=False)
    texts = texts.mask(is_joined, texts.str.strip("|").str.split("|").str[0])
    texts = texts.str.replace(_GENOME, "", regex=True)
    return pd.Index(texts.str.strip("_:;| ").replace("?", ""))  # TCGA: "?|100130426"
