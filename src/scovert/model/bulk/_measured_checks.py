"""Checks of measured fractions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from scovert.core._checks import caller_level, some_of
from scovert.core._words import a_kind_of

__all__ = ["check_measured"]

ROUNDING = 0.005
"""What a fraction may be too large by, if it was written in whole percent."""


def check_measured(
    measured: object,
    groups: Mapping[str, Sequence[str]] | None,
    samples: pd.Index,
    types: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame] | tuple[None, None]:
    """Return what was measured, and which types belong to every column, columns x types.

    Refuses fractions that are none, and columns or samples that are not known; leaves samples and
    columns out that say nothing, with a warning.
    """
    if measured is None:
        if groups is not None:
            raise ValueError("`groups` names columns of `measured`, which is missing. Pass both.")
        return None, None
    if not isinstance(measured, pd.DataFrame):
        raise TypeError(
            f"`measured` is {a_kind_of(measured)}. Pass a DataFrame of samples x types with "
            "measured fractions of cells."
        )
    members = {kind: [kind] for kind in types} | _as_lists(groups, types)
    _check_text(measured, samples, list(members))
    _check_orientation(measured, samples, list(members))
    _check_names(measured, samples, list(members))
    if measured.shape[1] < 2:
        raise ValueError(
            f"`measured` has one type only, {measured.columns[0]!r}. What one type is too large "
            "by is seen against others: pass two or more."
        )
    member = np.array([[kind in members[name] for kind in types] for name in measured.columns])
    twice = [kind for kind, n in zip(types, member.sum(0), strict=True) if n > 1]
    if twice:
        raise ValueError(
            f"The columns of `measured` hold {some_of(twice)} more than once, in a group and on "
            "its own. Every type belongs to one column at most."
        )
    measured = _as_numbers(measured)
    _check_fractions(measured)
    table = pd.DataFrame(member, measured.columns, types)
    measured = _without_gaps(measured)
    return measured, table.loc[measured.columns]


def _check_text(measured: pd.DataFrame, samples: pd.Index, members: Sequence[str]) -> None:
    """Refuse names that are numbers: which text they were before cannot be told."""
    for axis, known in (("index", samples), ("columns", members)):
        others = [name for name in getattr(measured, axis) if not isinstance(name, str)]
        if others:
            raise TypeError(
                f"`measured.{axis}` holds {some_of(others)}, of type {type(others[0]).__name__}, "
                f"and names are text here, such as {some_of(known)}. A number may be another name "
                "(1.1 for '1.10', 1 for '001'): read names as text, for example `pd.read_csv(file,"
                " dtype={'sample': str}).set_index('sample')`, or if all are right write "
                f"`measured.{axis} = measured.{axis}.astype(str)`."
            )


def _check_orientation(measured: pd.DataFrame, samples: pd.Index, members: list[str]) -> None:
    if measured.index.isin(members).any() and measured.columns.isin(samples).any():
        raise ValueError(
            f"`measured` looks transposed: its rows are types ({some_of(list(measured.index))}) "
            f"and its columns samples ({some_of(list(measured.columns))}). Samples x types are "
            "accepted: pass `measured.T`."
        )


def _check_names(measured: pd.DataFrame, samples: pd.Index, members: list[str]) -> None:
    """Refuse samples and types that are not known, or there more than once."""
    for axis, what, known, hint in (
        (measured.index, "samples", samples, ""),
        (measured.columns, "types", members, "; `groups` can name several types together"),
    ):
        unknown = axis[~axis.isin(known)]
        if len(unknown) or not len(axis) or axis.has_duplicates:
            raise ValueError(
                f"`measured` has {what} {some_of(list(axis), 6)}, of which {len(unknown)} "
                f"{'is' if len(unknown) == 1 else 'are'} unknown"
                f"{', such as ' if len(unknown) else ''}{some_of(list(unknown))}. It takes {what} "
                f"among {some_of(list(known), 20)}, each once{hint}."
            )


def _without_gaps(measured: pd.DataFrame) -> pd.DataFrame:
    """Leave out samples with fewer than two fractions, and columns without any, and say so."""
    rows = measured.index[measured.notna().sum(axis=1) < 2]
    kept = measured.drop(index=rows)
    columns = kept.columns[kept.isna().all()]
    if kept.empty:
        raise ValueError(
            "No sample in `measured` has fractions of two types or more: the others are NaN. What "
            "one type is too large by is seen against others."
        )
    for names, why in (
        (rows, "fewer than two numbers, and what one type is too large by is seen against others"),
        (columns, "no number"),
    ):
        if len(names):
            warnings.warn(
                f"{some_of(list(names), 6)} of `measured` ({len(names)} in all) left out: {why}.",
                UserWarning,
                stacklevel=caller_level(),
            )
    return kept.drop(columns=columns)


def _as_lists(groups: object, types: Sequence[str]) -> dict[str, list[str]]:
    """Return lists of types by group, whatever holds them: an array, an Index, a set."""
    if groups is None:
        return {}
    if isinstance(groups, pd.Series) and groups.index.is_unique:
        groups = groups.to_dict()
    if not isinstance(groups, Mapping):
        raise TypeError(
            f"`groups` is {a_kind_of(groups)}. Pass a mapping from a column of `measured` "
            'to types, such as {"T": ["CD4 T", "CD8 T"]}.'
        )
    for name, members in groups.items():
        if isinstance(members, str) or not isinstance(members, Iterable):
            raise TypeError(
                f"`groups[{name!r}]` is {a_kind_of(members)}, {members!r}. Pass a list of types."
            )
    lists = {name: list(members) for name, members in groups.items()}
    _check_groups(lists, types)
    return lists


def _check_groups(groups: Mapping[str, list[str]], types: Sequence[str]) -> None:
    owner: dict[str, str] = {}
    for name, members in groups.items():
        unknown = [kind for kind in members if kind not in types]
        if unknown or not members:
            raise ValueError(
                f"`groups[{name!r}]` names {unknown or 'no type'}, and the types of the reference "
                f"are {list(types)}."
            )
        for kind in members:
            if kind in owner:
                raise ValueError(
                    f"`groups` hold {kind!r} twice, in {owner[kind]!r} and {name!r}. A type "
                    "belongs to one group at most."
                )
            owner[kind] = name


def _as_numbers(measured: pd.DataFrame) -> pd.DataFrame:
    """Return what was measured as floats; columns of objects may hold them, as those of ``.T``."""
    numbers = measured.astype(object).apply(pd.to_numeric, errors="coerce").astype(float)
    text = list(measured.columns[(numbers.isna() & measured.notna()).any()])
    if text:
        raise TypeError(
            f"The columns {text} of `measured` are not numbers. Pass fractions between 0 and 1, "
            "and NaN for what was not measured."
        )
    return numbers


def _check_fractions(measured: pd.DataFrame) -> None:
    values = measured.to_numpy(float)
    bad = np.argwhere((values < 0) | (values > 1))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"`measured` holds {values[row, column]:.6g} (sample {measured.index[row]!r}, type "
            f"{measured.columns[column]!r}). Fractions are between 0 and 1: divide percentages by "
            "100, and let what was not measured be NaN."
        )
    totals = np.nansum(values, axis=1)
    empty = measured.index[(totals == 0) & measured.notna().any(axis=1)]
    if len(empty):
        raise ValueError(
            f"The fractions of sample {empty[0]!r} in `measured` are all zero ({len(empty)} such "
            "samples). Some cells are of some type: leave the sample out, or let what was not "
            "measured be NaN."
        )
    if (totals > 1 + ROUNDING * values.shape[1]).any():  # the level of a sample does not matter
        worst = int(totals.argmax())
        raise ValueError(
            f"The fractions of sample {measured.index[worst]!r} in `measured` sum to "
            f"{totals[worst]:.4g}. They are fractions of all cells and sum to 1 at most."
        )
