"""Tables of compositions, samples x types, as figures take them, and what such figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.core._checks import UNKNOWN, some_of
from scovert.core._words import a_kind_of
from scovert.pl._marks import MORE_COLOURS, OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "as_fractions",
    "as_table",
    "bar_styles",
    "draw_legend",
    "name_samples",
    "same_entries",
    "shortened",
    "type_colours",
]

_MOST_NAMED = 60  # samples; the names of more touch each other
_LONGEST = 26  # characters of a name: two inches, less than a panel is high
_SHORT = 26  # characters of all names together that fit in one line below the narrowest panel
_PATTERNS = (
    None,
    "////",
    "....",
    "xxxx",
    "----",
)  # of bars, where there are more types than colours
_LEGEND_ROWS = 20  # as high as a panel and the names below it
_ROUNDING = 1e-6  # by which sums of fractions in single precision may exceed 1


def as_table(name: str, table: pd.DataFrame, *, allow_missing: bool = False) -> pd.DataFrame:
    """Return a DataFrame of finite numbers (or missing, if so allowed), or refuse what is none."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"`{name}` is {a_kind_of(table)}. Pass a DataFrame, samples x types, such as "
            "`result.proportions`."
        )
    if 0 in table.shape:
        raise ValueError(f"`{name}` has the shape {table.shape}. Pass one sample or more.")
    try:
        values = table.astype(float)
    except ValueError as error:
        raise TypeError(f"`{name}` holds text ({error}). Pass a DataFrame of numbers.") from error
    is_good = np.isfinite(values.to_numpy()) | (allow_missing & values.isna().to_numpy())
    bad = np.argwhere(~is_good)
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"`{name}` is {values.iloc[row, column]} for {table.index[row]!r}, "
            f"{table.columns[column]!r}. Finite numbers are accepted: leave out such samples."
        )
    return values


def as_fractions(name: str, table: pd.DataFrame, *, allow_missing: bool = False) -> pd.DataFrame:
    """Return a DataFrame of fractions (or missing, if so allowed), or refuse what is none."""
    values = as_table(name, table, allow_missing=allow_missing)
    low, high = values.min().min(), values.max().max()
    if low < 0 or high > 1 + _ROUNDING:
        raise ValueError(
            f"`{name}` runs from {low:.3g} to {high:.3g}. Fractions in [0, 1] are accepted: "
            "divide percentages by 100."
        )
    return values


def same_entries(
    first: str, a: pd.DataFrame, second: str, b: pd.DataFrame
) -> tuple[pd.Index, pd.Index]:
    """Return the samples and the types that both tables have, in the order of the first."""
    samples, types = a.index[a.index.isin(b.index)], a.columns[a.columns.isin(b.columns)]
    for shared, what, mine, others in (
        (samples, "sample", a.index, b.index),
        (types, "type", a.columns, b.columns),
    ):
        if len(shared) == 0:
            raise ValueError(
                f"`{first}` and `{second}` have no {what} in common: {some_of(mine)} and "
                f"{some_of(others)}. Name them alike; types can be added up, for example "
                '`table["T"] = table[["CD4 T", "CD8 T"]].sum(axis=1)`.'
            )
    return samples, types


def type_colours(types: Sequence[object]) -> list:
    """Return one colour for each type, the first eight always the same; grey for the unknown."""
    palette = [*OKABE_ITO, *MORE_COLOURS]
    return ["0.6" if t == UNKNOWN else palette[i % len(palette)] for i, t in enumerate(types)]


def bar_styles(types: Sequence[object]) -> list[dict[str, object]]:
    """Return the face of a bar for each type: eight colours, and then the same with a pattern."""
    if sum(t != UNKNOWN for t in types) > len(OKABE_ITO) * len(_PATTERNS):
        return [{"color": colour} for colour in type_colours(types)]
    known = [t for t in types if t != UNKNOWN]
    styles = {
        t: {"color": OKABE_ITO[i % len(OKABE_ITO)], "hatch": _PATTERNS[i // len(OKABE_ITO)]}
        for i, t in enumerate(known)
    }
    return [styles.get(t, {"color": "0.6"}) for t in types]


def _is_one_line(names: Sequence[object]) -> bool:
    return sum(len(shortened(name)) + 2 for name in names) <= _SHORT


def draw_legend(ax: Axes, n_types: int, **options: object) -> None:
    """Draw the legend of the types to the right of the axes."""
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(1, 1),
        frameon=False,
        ncols=-(-n_types // _LEGEND_ROWS),
        borderaxespad=0,
        **options,
    )


def name_samples(ax: Axes, names: Sequence[object]) -> None:
    """Write the names of the samples below the x-axis, or their number if there are many."""
    ax.set_xlim(-0.6, len(names) - 0.4)
    if len(names) > _MOST_NAMED:
        ax.set_xticks([])
        ax.set_xlabel(f"{len(names):,} samples")
        return
    rotation = 0 if _is_one_line(names) else 90
    ax.set_xticks(range(len(names)), [shortened(name) for name in names], rotation=rotation)


def shortened(name: object) -> str:
    """Cut a long name in its middle, since ends tell samples apart."""
    text = str(name)
    half = (_LONGEST - 1) // 2
    return text if len(text) <= _LONGEST else f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
