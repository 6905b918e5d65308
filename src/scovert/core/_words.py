"""Words of messages: what rows and columns are called, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["CELLS", "SAMPLES", "Words", "a_kind_of", "counted", "words_of"]


class Words(NamedTuple):
    """What the rows and the columns of an AnnData are called, one and many."""

    row: str
    rows: str
    column: str
    columns: str


CELLS = Words("cell", "cells", "gene", "genes")
SAMPLES = Words("sample", "samples", "taxon or gene", "taxa or genes")


def words_of(setup: Mapping[str, object]) -> Words:
    """Return what is in the AnnData of a model, by its set-up: samples, if it names distances."""
    return SAMPLES if "distances_key" in setup else CELLS


def counted(n: int, what: str, many: str | None = None) -> str:
    """Return a number of things in words: ``1 slide``, ``2,000 slides``.

    Parameters
    ----------
    n
        How many.
    what
        What one of them is called.
    many
        What several are called; `None` adds an s.
    """
    return f"{n:,} {what if n == 1 else many or f'{what}s'}"


def a_kind_of(value: object) -> str:
    """Return the type of a value with its article: ``an int``, ``a str``."""
    kind = type(value).__name__
    return f"a{'n' * (kind[0].lower() in 'aeiou')} {kind}"
