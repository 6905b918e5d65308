"""RNA content of cells by type, which turns shares of RNA into shares of cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from scovert.mixing._signature import Profiles

__all__ = ["RNA_PER_CELL", "match_types", "size_groups", "table_sizes", "to_cells"]

RNA_PER_CELL = MappingProxyType(
    {
        "CD4 T": 1.0,
        "Treg": 0.96,
        "CD8 T": 0.98,
        "T": 0.99,
        "B": 1.12,
        "NK": 1.24,
        "ILC": 1.15,
        "monocyte": 2.13,
        "DC": 3.10,
        "pDC": 2.74,
        "plasma": 13.2,
        "neutrophil": 0.43,
        "platelet": 0.96,
    }
)
"""RNA per human blood or immune cell by that of a CD4 T cell, without ribosomal and mitochondrial.

Two-way fit (type and source, on the log scale) to the tables of EPIC :cite:p:`Racle17`, quanTIseq
:cite:p:`Finotello19` and ABIS :cite:p:`Monaco19` and to the counts per cell of four single-cell
studies. The sources differ up to 2.2-fold on monocytes; plasma cells rest on one.
"""

_UNCERTAIN_TOGETHER = {"Treg": "CD4 T", "T": "CD4 T", "ILC": "NK"}

# A name is that of the first type with all words of one of its alternatives.
_WORDS = (
    ("pDC", ("pdc", "plasmacytoid")),
    ("plasma", ("plasma", "plasmablast")),
    ("Treg", ("treg", "t reg", "t regulatory", "cd4 regulatory")),
    ("platelet", ("platelet", "megakaryocyte")),
    ("neutrophil", ("neutrophil",)),
    ("ILC", ("ilc", "ilc1", "ilc2", "ilc3", "innate lymphoid")),
    ("T", ("nkt", "nk t", "natural killer t", "mait", "gdt")),
    ("NK", ("nk", "natural killer")),
    ("DC", ("dc", "mdc", "cdc", "cdc1", "cdc2", "dendritic")),
    ("monocyte", ("monocyte", "mono", "macrophage")),
    ("B", ("b",)),
    ("CD4 T", ("cd4", "t helper", "th")),
    ("CD8 T", ("cd8", "t cytotoxic", "naive cytotoxic")),
    ("T", ("t",)),
)
_LINEAGES = (
    {"CD4 T", "CD8 T", "Treg", "T"},
    {"NK", "ILC"},
    {"DC", "pDC"},
    {"B", "plasma"},
    {"monocyte"},
    {"neutrophil"},
    {"platelet"},
)
_QUALIFIERS = set(
    "cell naive memory central effector activated resting classical nonclassical intermediate "
    "conventional conv myeloid fcgr3a gamma delta gd alpha beta tem tcm temra ctl immature mature "
    "transitional switched unswitched nonswitched dim bright proliferating cycling other like "
    "follicular lymphocyte peripheral blood m0 m1 m2".split()
)
_GLUED = re.compile(r"(naive|memory|regulatory|cytotoxic)(?=t\b|cytotoxic)|\b(b|t)(?=cell|helper)")


def match_types(types: Sequence[str]) -> dict[str, str]:
    """Find cell types in the table by their names.

    Case, plurals and punctuation do not matter. A name with a word that is neither the type nor
    one of its usual qualifiers is not matched (``"malignant B"``, ``"non-T"``), nor is one with
    types of two lineages (``"B/T"``).

    Examples
    --------
    >>> match_types(["CD14+ Monocytes", "T cells CD4 conv", "Tregs", "hepatocyte", "tumour B"])
    {'CD14+ Monocytes': 'monocyte', 'T cells CD4 conv': 'CD4 T', 'Tregs': 'Treg'}
    """
    matches = {name: _match(name) for name in types}
    return {name: key for name, key in matches.items() if key is not None}


def _match(name: str) -> str | None:
    joined = re.sub(r"\bnon\W+", "non", name.lower())
    spaced = _GLUED.sub(lambda m: m[0] + " ", re.sub(r"[\W_]+", " ", joined))
    words = {w if len(w) < 4 else w.removesuffix("s") for w in spaced.split()}
    words = {"dc" if w == "dcs" else w for w in words}
    for key, alternatives in _WORDS:
        for alternative in alternatives:
            needed = set(alternative.split())
            if needed <= words and all(_is_qualifier(w, key) for w in words - needed):
                return key
    return None


def _is_qualifier(word: str, key: str) -> bool:
    """Tell a word that leaves a type what it is: a usual one, a marker, or one of its lineage."""
    lineage = next(lineage for lineage in _LINEAGES if key in lineage)
    known = {w for k, names in _WORDS if k in lineage for name in names for w in name.split()}
    return word in _QUALIFIERS or word in known or bool(re.fullmatch(r"cd\d+\w*|\d+", word))


def table_sizes(profiles: Profiles, table: Mapping[str, float]) -> NDArray:
    """Return the RNA per cell over the shared genes by a table of RNA per cell over all.

    Parameters
    ----------
    profiles
        Types, and how much of their RNA the shared genes hold.
    table
        RNA per cell of types, in any unit. A type that is not in it takes its counts in the
        reference, in the unit that fits those which are.

    Returns
    -------
    Array of shape ``(n_types,)``.
    """
    counts = profiles.rna / profiles.covered
    known = np.array([kind in table for kind in profiles.types])
    if not known.any():
        return profiles.rna
    sizes = np.array([table.get(kind, np.nan) for kind in profiles.types])
    unit = np.exp(np.mean(np.log(sizes[known] / counts[known]))) if known.any() else 1.0
    return np.where(known, sizes, counts * unit) * profiles.covered


def size_groups(types: Sequence[str]) -> NDArray:
    """Give types numbers, so that those whose content is uncertain together share a number."""
    matched = match_types(types)
    keys = [matched.get(kind, kind) for kind in types]
    names = [_UNCERTAIN_TOGETHER.get(key, key) for key in keys]
    return np.unique(names, return_inverse=True)[1]


def to_cells(weights: NDArray, sizes: NDArray) -> NDArray:
    """Turn shares of RNA into shares of cells, last axis types."""
    cells = weights / sizes
    return cells / cells.sum(-1, keepdims=True)
