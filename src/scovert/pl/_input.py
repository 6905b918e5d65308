"""What figures accept, and the axes they draw on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scovert.core._labelled import by_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["as_numbers", "as_vectors", "axes_or_new", "check_effects", "describe_left_out"]


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes, or those of a new figure of this size in inches."""
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


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
    ordered = zip(arrays, by_name(columns=False, **arrays), strict=True)
    vectors = {name: as_numbers(name, values) for name, values in ordered}
    for name, values in vectors.items():
        if values.ndim == 2 and values.shape[1] == 1:
            vectors[name] = values = values[:, 0]
        if values.ndim != 1:
            raise ValueError(
                f"`{name}` has shape {values.shape}, and one value per cell is drawn. Pass one "
                "column, for example `values[:, 0]`."
            )
        if not np.isfinite(values).all():
            raise ValueError(
                f"`{name}` is not finite in {(~np.isfinite(values)).sum()} cells. Finite numbers "
                "are accepted: leave these cells out."
            )
    lengths = {name: len(values) for name, values in vectors.items()}
    if len(set(lengths.values())) > 1 or min(lengths.values()) < 2:
        raise ValueError(
            f"The lengths are {lengths}. Pass the same cells, two or more, in the same order."
        )
    return list(vectors.values())


def check_effects(effects: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse what is not a table of the effects of one arm with these columns."""
    if not isinstance(effects, pd.DataFrame):
        raise TypeError(
            f"`effects` is a {type(effects).__name__}. Pass the DataFrame that "
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
