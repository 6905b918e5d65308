"""Tables of samples x types as figures take them, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scovert.core._checks import UNKNOWN, some_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "as_fractions",
    "as_table",
    "draw_legend",
    "height_of",
    "legend_size",
    "name_samples",
    "same_entries",
    "type_colours",
    "width_of",
]

_MOST_NAMED = 60  # samples; the names of more cannot be read
_LONGEST = 26  # characters of a name
_SHORT = 26  # characters of all names together that fit in one line
_PER_SAMPLE, _NARROWEST, _WIDEST = 0.24, 2.4, 11.0  # inches
_PALETTES = ("tab20", "tab20b", "tab20c")
_LEGEND_ROWS = 20
_LINE, _PER_CHARACTER, _KEY, _BETWEEN = 0.21, 0.084, 0.5, 0.3  # of text and legends, in inches
_ROUNDING = 1e-6  # by which fractions may exceed 1


def as_table(name: str, table: pd.DataFrame, *, allow_missing: bool = False) -> pd.DataFrame:
    """Return a DataFrame of finite numbers (or missing, if so allowed), or refuse what is none."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"`{name}` is a {type(table).__name__}. Pass a DataFrame, samples x types, such as "
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
    """Return one colour for each type, neighbours apart from each other; grey for the unknown."""
    from matplotlib import colormaps

    palette = [*colormaps["tab20"].colors[::2], *colormaps["tab20"].colors[1::2]]
    palette = [c for c in palette if max(c) - min(c) > 0.01]  # grey is taken
    palette += [c for name in ("tab20b", "tab20c") for c in colormaps[name].colors[::2]]
    return ["0.6" if t == UNKNOWN else palette[i % len(palette)] for i, t in enumerate(types)]


def width_of(n_samples: int) -> float:
    """Return the width in inches that so many samples take."""
    return float(np.clip(_PER_SAMPLE * n_samples, _NARROWEST, _WIDEST))


def height_of(names: Sequence[object]) -> float:
    """Return the height in inches that the names of samples take below the x-axis."""
    if len(names) > _MOST_NAMED or _is_one_line(names):
        return _LINE
    return _PER_CHARACTER * max(len(shortened(name)) for name in names)


def _is_one_line(names: Sequence[object]) -> bool:
    return sum(len(shortened(name)) + 2 for name in names) <= _SHORT


def legend_size(types: Sequence[object]) -> tuple[float, float]:
    """Return width and height in inches of a legend of types."""
    n_columns, longest = -(-len(types) // _LEGEND_ROWS), max(len(shortened(t)) for t in types)
    width = n_columns * (_PER_CHARACTER * longest + _KEY) + (n_columns - 1) * _BETWEEN
    return width, -(-len(types) // n_columns) * _LINE


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
