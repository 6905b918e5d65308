"""What figures accept, and the axes they draw on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scovert.core._labelled import by_name
from scovert.core._words import a_kind_of, counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "PANEL",
    "PER_ENTRY",
    "SIZE",
    "as_matrices",
    "as_numbers",
    "as_vectors",
    "axes_or_new",
    "check_effects",
    "describe_left_out",
    "finish",
    "fit_figure",
    "room_for",
]

SIZE = (4.0, 3.3)  # inches, of a panel with its labels: two stand beside each other on a page
PANEL = (3.2, 2.7)  # inches, of such a panel alone
_NARROWEST, _WIDEST = 2.4, 11.0  # inches, of a panel: what holds a title, and what a slide holds
PER_ENTRY = 0.25  # inches between the names of an axis: 18 points, for text of 10
Drawn = TypeVar("Drawn")  # axes, or an array of them
_AROUND = 8.0  # inches that names and legends are given to find out how much they take


def axes_or_new(ax: Axes | None, size: tuple[float, float] = SIZE) -> Axes:
    """Return the axes, or those of a new figure of this size in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def room_for(n_entries: int) -> float:
    """Return how wide a panel is, in inches, whose x-axis has so many names."""
    return float(np.clip(PER_ENTRY * n_entries, _NARROWEST, _WIDEST))


def finish(axes: Drawn, *, show: bool) -> Drawn:
    """Show the figure if so asked, and return the axes."""
    import matplotlib.pyplot as plt

    if show:
        plt.show()
    return axes


def fit_figure(axes: Axes | NDArray, width: float, height: float) -> None:
    """Make the figure as large as panels of this size in inches and all around them need."""
    panel = np.ravel(axes)[0]
    figure, grid = panel.figure, panel.get_subplotspec().get_gridspec()
    shape, wanted = np.array([grid.ncols, grid.nrows]), np.array([width, height])
    size = shape * wanted + _AROUND
    for _ in range(2):  # colour bars grow with the figure
        figure.set_size_inches(size)
        figure.draw_without_rendering()
        found = panel.get_position(original=True).size * size
        size = size + shape * (wanted - found)
    figure.set_size_inches(size)


def as_numbers(name: str, values: ArrayLike) -> NDArray:
    """Return an array of numbers, or refuse text."""
    try:
        return np.asarray(values, float)
    except ValueError as error:
        text = next((v for v in np.ravel(np.asarray(values, object)) if isinstance(v, str)), None)
        if text is None:
            raise
        raise TypeError(
            f"`{name}` holds {text!r}, and numbers are drawn. Of labels, pass whether a cell has "
            f"the one that you look for: `labels == {text!r}`."
        ) from error


def as_vectors(**arrays: ArrayLike) -> list[NDArray]:
    """Return finite vectors of one length; a matrix with one column counts as a vector.

    Series and DataFrames are matched by the names of their rows.
    """
    vectors = _as_finite(arrays, columns=False)
    for name, values in vectors.items():
        if values.ndim == 2 and values.shape[1] == 1:
            vectors[name] = values = values[:, 0]
        if values.ndim != 1:
            raise ValueError(
                f"`{name}` has shape {values.shape}, and one value per cell is drawn. Pass one "
                "column, for example `values[:, 0]`."
            )
    lengths = {name: len(values) for name, values in vectors.items()}
    if len(set(lengths.values())) > 1 or min(lengths.values()) < 2:
        raise ValueError(
            f"The lengths are {lengths}. Pass the same cells, two or more, in the same order."
        )
    return list(vectors.values())


def as_matrices(**arrays: ArrayLike) -> list[NDArray]:
    """Return finite matrices of one shape; DataFrames are matched by their names."""
    matrices = _as_finite(arrays, columns=True)
    shapes = {name: values.shape for name, values in matrices.items()}
    if len(set(shapes.values())) > 1 or {len(shape) for shape in shapes.values()} != {2}:
        raise ValueError(
            f"The shapes are {shapes}. Pass matrices of the same cells and genes, in the same "
            "order."
        )
    return list(matrices.values())


def _as_finite(arrays: dict[str, ArrayLike], *, columns: bool) -> dict[str, NDArray]:
    ordered = zip(arrays, by_name(columns=columns, **arrays), strict=True)
    numbers = {name: as_numbers(name, values) for name, values in ordered}
    for name, values in numbers.items():
        n_bad = (~np.isfinite(values)).sum()
        if n_bad:
            raise ValueError(
                f"`{name}` holds {counted(n_bad, 'value')} not finite. Finite numbers "
                "are accepted: leave these cells out."
            )
    return numbers


def check_effects(effects: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse what is not a table of the effects of one arm with these columns."""
    if not isinstance(effects, pd.DataFrame):
        raise TypeError(
            f"`effects` is {a_kind_of(effects)}. Pass the DataFrame that "
            "`model.get_treatment_effects()` returns."
        )
    missing = [column for column in columns if column not in effects]
    if missing:
        raise KeyError(
            f"`effects` has no columns {missing} (columns: {list(effects.columns)}). Pass the "
            "DataFrame that `model.get_treatment_effects()` returns."
        )
    if effects.index.nlevels > 1:
        arms = list(effects.index.unique(0))
        raise ValueError(
            f"`effects` holds {len(arms)} arms, and one is drawn. Pass one of them, for example "
            f"`effects.loc[{arms[0]!r}]`."
        )


def describe_left_out(effects: pd.DataFrame, is_left_out: NDArray) -> str:
    """Say how many genes are left out of a figure, and why; empty if none is."""
    if not is_left_out.any():
        return ""
    note = f"{is_left_out.sum():,} of {len(effects):,} genes left out"
    if "reason" not in effects:
        return note
    reasons = effects["reason"][is_left_out].value_counts()
    if len(reasons) == 1:
        return f"{note}:\n{reasons.index[0]}"
    return "\n".join([f"{note}:", *(f"{reason} ({n:,})" for reason, n in reasons.items())])
