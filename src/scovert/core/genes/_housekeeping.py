"""Ribosomal and mitochondrial genes, whose share depends on the protocol most of all."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import pandas as pd
from numpy.typing import NDArray

from scovert.core.genes._kinds import identifiers

__all__ = ["has_left_out_prefix", "is_housekeeping", "is_housekeeping_symbol"]

_START, _END = r"(?:^|[|_:; ])", r"(?=$|[|_:; ])"
"""A name may be joined of several, or begin with a genome: ``GRCh38_RPL3``, ``RPL3|ENSG...``."""
_OTHERS = r"6K[ABCL]|19BP|23RG"
"""Kinases of RPS6, a protein that binds RPS19, a gene that arose in an intron."""
_NOT_CODING = r"[^|_:; ]*[-.](?:AS|DT|IT|OT)\d*" + _END
"""RNA of the other strand, of the promoter and of introns, named after the gene beside it."""
_OF_GENOME = r"(?:ND[1-6]|ND4L|ATP[68]|RNR[12])"
_SYMBOL = re.compile(
    rf"{_START}(?:"
    rf"RP[LS](?!{_OTHERS}|{_NOT_CODING})(?:\d|A|P\d)"  # with pseudogenes, which take their reads
    rf"|(?:FAU|UBA52){_END}"  # RPS30 and RPL40
    rf"|MT[-.:]\w"  # R writes `MT.ND1`, and flies have `mt:ND1`
    rf"|MT_?(?:{_OF_GENOME}|CO[1-3]|CYT?B){_END}|MT_T[A-Z][12]?{_END}"
    rf"|(?:{_OF_GENOME}|COX[1-3]|CYTB){_END}"  # RefSeq, and Ensembl of other species
    rf")",
    re.IGNORECASE,
)


def is_housekeeping(names: pd.Index) -> NDArray:
    """Tell ribosomal and mitochondrial genes by symbols, or by identifiers of human and mouse.

    Parameters
    ----------
    names
        Names of any kind, also joined ones.
    """
    return is_housekeeping_symbol(names) | identifiers(names).isin(_table())


def is_housekeeping_symbol(names: pd.Index) -> NDArray:
    """Tell ribosomal and mitochondrial genes by their symbols."""
    return pd.Series(names, dtype=str).str.contains(_SYMBOL).to_numpy(bool)


def has_left_out_prefix(genes: pd.Index) -> NDArray:
    """Tell the genes that models left out when their files did not yet say which ones."""
    return genes.str.upper().str.startswith(("RPL", "RPS", "MT-"))


@cache
def _table() -> frozenset[str]:
    """Return the identifiers of these genes; the file says where they are from."""
    with (files("scovert.core.genes") / "housekeeping.csv").open() as file:
        return frozenset(pd.read_csv(file, comment="#")["ensembl_id"])
