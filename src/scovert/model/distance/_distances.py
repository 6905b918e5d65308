"""Predicted distances between samples, and how wrong they may be."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.model.distance._held_out import Spread, squared_between
from scovert.model.distance._places import Places, same_samples, uniqueness_of

__all__ = ["distances_between", "with_intervals"]


def distances_between(model: BaseModelClass, first: Places, second: Places) -> pd.DataFrame:
    """Return distances of samples to others, 0 between those that are the same."""
    own, other = ((places.z, uniqueness_of(model, places)) for places in (first, second))
    distances = np.sqrt(squared_between(own, other))
    distances[same_samples(first, second)] = 0.0
    return pd.DataFrame(distances, first.names, second.names)


def with_intervals(
    model: BaseModelClass, first: Places, second: Places, level: float
) -> pd.DataFrame:
    """Return distances, and bounds between which they lie with a probability of `level`."""
    distance = distances_between(model, first, second)
    wide = np.where(same_samples(first, second), 0.0, _half_width(model, first, second, level))
    lower, upper = (distance - wide).clip(lower=0), distance + wide
    return pd.concat({"mean": distance, "lower": lower, "upper": upper}, axis=1)


def _half_width(model: BaseModelClass, first: Places, second: Places, level: float) -> NDArray:
    """Return half of the intervals: errors of new samples add up as variances."""
    spread = Spread(model.spread_, model.error_quantiles_)
    sizes, is_new = [], []
    for places in (first, second):
        sizes.append(spread.expected(places.traits(model.fitted_)))
        is_new.append(~places.is_among(model.marks_))
    size = np.hypot((sizes[0] * is_new[0])[:, None], sizes[1] * is_new[1])
    of_fitted = np.maximum(sizes[0][:, None], sizes[1])
    return spread.factor(level) * np.where(size > 0, size, of_fitted)
