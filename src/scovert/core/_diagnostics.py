"""The rows of ``check()``: what of a fit deserves a second look."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "HealthRow",
    "check_table",
    "dispersion_row",
    "finite_row",
    "gradient_row",
    "latent_row",
    "loss_row",
    "row",
]

THETA_RANGE = (1e-3, 1e4)
"""Of inverse dispersions that counts show: beyond, a gene is in hardly any cell, or Poisson."""
ACTIVE_SD = 0.1
"""Standard deviation of the posterior means of a latent dimension that tells something."""
GRADIENT_GROWTH = 10
"""Last norm of the gradient by the first, from which the learning rate is too large."""


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


def loss_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the fall of the negative ELBO, as a share of that of the first epoch."""
    elbo = history["elbo_train"].to_numpy(float).ravel()
    fall = float(1 - elbo[-1] / elbo[0])
    advice = ""
    if len(elbo) > 1 and not fall > 0:
        advice = "Training diverged: the loss ended above its start. Lower the learning rate."
    return row("fall of the loss", fall, advice)


def gradient_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the mean norm of the gradient in the last epoch, by the median over the epochs."""
    norms = history["gradient_norm_train"].to_numpy(float).ravel()
    growth = float(norms[-1] / np.median(norms))
    advice = ""
    if not growth < GRADIENT_GROWTH:
        advice = (
            "The gradient grew at the end of training: lower the learning rate, or clip it with "
            "`train(gradient_clip_val=...)`."
        )
    return row("growth of the gradient", growth, advice)


def latent_row(means: NDArray) -> HealthRow:
    """Count the latent dimensions whose posterior means vary (sd above 0.1)."""
    active = int((means.std(axis=0) > ACTIVE_SD).sum())
    advice = ""
    if active < min(2, means.shape[1]):
        advice = "The latent space has collapsed: train longer, or lower `max_kl_weight`."
    return row("active latent dimensions", active, advice)


def row(quantity: str, value: float, advice: str) -> HealthRow:
    """Return a line; the verdict is what the advice makes it."""
    return HealthRow(quantity, value, "look" if advice else "ok", advice)
