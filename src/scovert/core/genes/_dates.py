"""Symbols that a spreadsheet turned into dates: ``MARCH1`` into ``1-Mar``."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core.genes._kinds import SYMBOLS, kind_of_genes

__all__ = ["are_dates"]

_MONTH = (
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
    r"|mrz|m\u00e4r|mai|okt|dez|mars|sept|d\u00e9c)\.?"
)
"""In English, German and French, as Excel shortens them."""
_SEPARATOR = r"[-./ ]\s?"
_DATE = re.compile(
    rf"x?\d{{1,2}}{_SEPARATOR}{_MONTH}(?:{_SEPARATOR}\d{{2,4}})?"  # R writes X1.Mar
    rf"|{_MONTH}[-/]\d{{1,2}}"
    r"|x?(?:19|20)\d\d[-./]\d\d?[-./]\d\d?(?:[ T]00:00(?::00(?:\.0+)?)?)?"
    r"|\d{1,2}[/.]\d{1,2}[/.](?:\d{2}|(?:19|20)\d\d)",
    re.IGNORECASE,
)
_MONTHS, _LAST_DAY = (3, 9, 10, 12), 15
"""Genes that became dates: MARCH1 to 11, MARC1, SEPT1 to 14, SEP15, OCT1 to 4, DEC1 and 2."""
_EPOCH = np.datetime64("1899-12-30")
"""Day 0 of Excel."""
_FIRST_YEAR, _LAST_YEAR = 1995, 2045
"""Years in which a table was, or will be, opened with Excel."""
_SERIAL = re.compile(r"[345]\d{4}(?:\.0)?")


def are_dates(names: pd.Index) -> NDArray:
    """Tell dates between symbols, also as Excel counts days (43891 is 1-Mar of 2020)."""
    texts = pd.Series(names, dtype=str)
    found = texts.str.fullmatch(_DATE).to_numpy(bool)
    if kind_of_genes(names) == SYMBOLS:
        is_number = texts.str.fullmatch(_SERIAL).to_numpy(bool)
        found[is_number] = [_is_day(int(float(text))) for text in texts[is_number]]
    return found


def _is_day(number: int) -> bool:
    """Whether the day of this number is one that names of genes became."""
    year, month, day = map(int, str(_EPOCH + np.timedelta64(number, "D")).split("-"))
    return _FIRST_YEAR <= year <= _LAST_YEAR and month in _MONTHS and day <= _LAST_DAY
