"""The rows of ``check()``: what of a fit deserves a second look."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.anchors._find import MIN_CONSISTENCY

__all__ = ["HealthRow", "anchor_row", "dispersion_row", "finite_row", "latent_row", "table"]

ACTIVE_SD = 0.1
THETA_RANGE = (1e-3, 1e4)


class HealthRow(NamedTuple):
    """One line of the table; the advice is empty when all is well."""

    quantity: str
    value: float
    verdict: str
    advice: str


def table(rows: list[HealthRow]) -> pd.DataFrame:
    """Return the rows as a DataFrame indexed by quantity."""
    return pd.DataFrame(rows, columns=HealthRow._fields).set_index("quantity")


def finite_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the share of the recorded values that are finite numbers."""
    values = {name: frame.to_numpy(float) for name, frame in history.items()}
    broken = [name for name, v in values.items() if not np.isfinite(v).all()]
    share = float(np.mean(np.concatenate([np.isfinite(v).ravel() for v in values.values()])))
    advice = f"{', '.join(broken)} became NaN or infinite: train with a smaller learning rate."
    return _row("finite loss terms", share, advice if broken else "")


def latent_row(means: NDArray) -> HealthRow:
    """Count the latent dimensions whose posterior means vary (sd above 0.1)."""
    active = int((means.std(axis=0) > ACTIVE_SD).sum())
    advice = ""
    if active < min(2, means.shape[1]):
        advice = "The latent space has collapsed: train longer, or lower `max_kl_weight`."
    return _row("active latent dimensions", active, advice)


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
    return _row("plausible dispersions", share, advice)


def anchor_row(consistency: float) -> HealthRow:
    """Return the share of the anchors between best-matching clusters (trusted from 0.72)."""
    advice = ""
    if consistency < MIN_CONSISTENCY:
        advice = (
            "The anchors contradict the clusters of the datasets, and the pull was weakened: look "
            "at `get_support()`, and compare with `alignment='none'`."
        )
    return _row("anchor consistency", consistency, advice)


def _row(quantity: str, value: float, advice: str) -> HealthRow:
    return HealthRow(quantity, value, "look" if advice else "ok", advice)
