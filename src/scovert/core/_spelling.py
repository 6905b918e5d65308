"""Names of types, donors, arms and the like that are spelt in two ways."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Sequence

import pandas as pd

from scovert.core._checks import caller_level

__all__ = ["spelt_alike", "warn_about_spelling"]


def spelt_alike(types: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs of types that differ in case, spaces, hyphens between words or a plural only.

    Examples
    --------
    >>> spelt_alike(["B cell", "B_cells", "CD4+ T", "CD4- T", "cd4+ T "])
    [('B cell', 'B_cells'), ('CD4+ T', 'cd4+ T ')]
    """
    first: dict[str, str] = {}
    return [
        (first[key], name) for name in types if first.setdefault(key := _key(name), name) != name
    ]


def _key(name: str) -> str:
    """Return a name without what people write differently; signs of markers stay."""
    text = unicodedata.normalize("NFKC", name).casefold()
    text = re.sub(r"[\s_]+|(?<=[^\W\d])-(?=[^\W\d])", " ", text).strip()
    return re.sub(r"(?<=[^\W\d]{3})s\b", "", text)


def warn_about_spelling(obs: pd.DataFrame, key: str | None, table: str) -> None:
    """Warn about values of a column that are spelt in two ways, unless they are numbers.

    Parameters
    ----------
    obs
        Table with the column.
    key
        Its name, if there is one.
    table
        What the AnnData of the table is called.
    """
    if key is None or pd.api.types.is_numeric_dtype(obs[key]):
        return
    pairs = spelt_alike(sorted({str(value) for value in obs[key].unique() if str(value).strip()}))
    if pairs:
        warnings.warn(
            f"{pairs[0][0]!r} and {pairs[0][1]!r} of `{table}.obs[{key!r}]` look like one that is "
            f"spelt in two ways ({len(pairs)} such pairs), and are taken for two. Give both one "
            f"name, for example `{table}.obs[{key!r}] = {table}.obs[{key!r}].astype(str)"
            f".replace({pairs[0][1]!r}, {pairs[0][0]!r})`.",
            UserWarning,
            stacklevel=caller_level(),
        )
