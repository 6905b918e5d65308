"""Values that carry names, brought into one order by them."""

from __future__ import annotations

import pandas as pd
from numpy.typing import ArrayLike
from pandas.api.types import is_numeric_dtype

__all__ = ["by_name"]

_N_SHOWN = 3
"""Names that a message shows, in one line."""


def by_name(*, columns: bool = True, **values: ArrayLike) -> list[ArrayLike]:
    """Bring Series and DataFrames into the order of the first of them; leave others as they are.

    Parameters
    ----------
    columns
        Whether the columns of DataFrames are matched too, and not their rows alone.
    **values
        What belongs together, by the names in messages.

    Returns
    -------
    The same in one order. Where an index has names, those that only count from 0 say nothing.

    Raises
    ------
    ValueError
        If names differ, or occur more than once and in another order.
    """
    tables = {k: v for k, v in values.items() if isinstance(v, pd.Series | pd.DataFrame)}
    values |= _in_order(tables, "index")
    if columns:
        frames = {k: values[k] for k, v in tables.items() if isinstance(v, pd.DataFrame)}
        values |= _in_order(frames, "columns")
    return list(values.values())


def _in_order(tables: dict[str, pd.DataFrame], axis: str) -> dict[str, pd.DataFrame]:
    labels = {name: getattr(table, axis) for name, table in tables.items()}
    if not all(map(is_numeric_dtype, labels.values())):
        labels = {name: own for name, own in labels.items() if not _only_counts(own)}
    first, ordered = next(iter(labels), ""), {}
    for name, own in labels.items():
        if not own.equals(labels[first]):
            _check_same(first, labels[first], name, own)
            ordered[name] = tables[name].reindex(**{axis: labels[first]})
    return ordered


def _only_counts(labels: pd.Index) -> bool:
    return isinstance(labels, pd.RangeIndex) and labels.equals(pd.RangeIndex(len(labels)))


def _check_same(first: str, a: pd.Index, second: str, b: pd.Index) -> None:
    lacking = [*a.difference(b, sort=False), *b.difference(a, sort=False)]
    if lacking or not (a.is_unique and b.is_unique):
        found = f"such as {', '.join(map(repr, lacking[:_N_SHOWN]))}" if lacking else "some twice"
        raise ValueError(
            f"`{first}` ({len(a)}) and `{second}` ({len(b)}) have different names, {found}. They "
            "are matched by name: pass what both have, for example "
            f"`{second}.loc[{first}.index]`, or arrays (`.to_numpy()`) if they are in one order."
        )
