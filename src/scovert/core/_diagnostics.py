"""The rows of ``check()``: what of a fit deserves a second look."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["HealthRow", "dispersion_row", "finite_row", "row", "check_table"]

THETA_RANGE = (1e-3, 1e4)
"""Of inverse dispersions that counts show: beyond, a gene is in hardly any cell, or Poisson."""


class HealthRow(NamedTuple):
    """One line of the table; the advice is empty when all is well."""

    quantity: str
    value: float
    verdict: str
    advice: str


def check_table(rows: list[HealthRow]) -> pd.DataFrame:
    """Return the rows as a DataFrame indexed by quantity."""
    return pd.DataFrame(rows, columns=HealthRow._fields).set_index("quantity")


def finite_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the share of the recorded values that are finite numbers."""
    values = {name: frame.to_numpy(float) for name, frame in history.items()}
    broken = [name for name, v in values.items() if not np.isfinite(v).all()]
    share = float(np.mean(np.concatenate([np.isfinite(v).ravel() for v in values.values()])))
    advice = f"{', '.join(broken)} became NaN or infinite: train with a smaller learning rate."
    return row("finite loss terms", share, advice if broken else "")


def dispersion_row(theta: NDArray) -> HealthRow:
    """Return the share of genes whose inverse dispersion is plausible (0.001 to 10,000)."""
    low, high = THETA_RANGE
    share = float(np.mean((theta >= low) & (theta <= high)))
    advice = ""
    if share < 0.99:
        advice = (
            f"{1 - share:.0%} of the inverse dispersions left [{low:g}, {high:g}]: look at genes "
            "with very few counts, or train with a smaller learning rate."
        )
    return row("plausible dispersions", share, advice)


def row(quantity: str, value: float, advice: str) -> HealthRow:
    """Return a line; the verdict is what the advice makes it."""
    return HealthRow(quantity, value, "look" if advice else "ok", advice)
