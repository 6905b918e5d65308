"""What is kept of a fit: the method, and what held-out samples tell."""

from __future__ import annotations

import logging
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._checks import caller_level
from scovert.model.distance._checks import warn_about_depth
from scovert.model.distance._diagnostics import facts_of_fit
from scovert.model.distance._fit import Fit
from scovert.model.distance._held_out import (
    Prediction,
    Spread,
    agreement,
    excess_of,
    fit_spread,
    r2_of,
    squared_between,
)
from scovert.model.distance._places import find_places
from scovert.model.distance._samples import Samples

__all__ = ["Summary", "keep", "summarise"]

logger = logging.getLogger(__name__)

NOISE = 0.05
"""R2 by which the linear map must be better in a cross-validation. A fifth fewer of few samples
costs the network more: of GlobalPatterns (26) the linear map led by up to 0.04, where for samples
left out two at a time the network did, by 0.07."""
N_COMPARED = 2000
"""Training samples whose distances are compared with the matrix, at most."""


class Summary(NamedTuple):
    """What held-out samples tell.

    Attributes
    ----------
    method
        ``"linear"`` or ``"network"``.
    excess
        What squared distances of new samples are longer by than predicted.
    spread
        How wrong distances of a new sample are.
    agreement
        Of distances from held-out to training samples (``"new-train"``), and among the held-out
        ones (``"new-new"``).
    """

    method: str
    excess: float
    spread: Spread
    agreement: dict[str, dict[str, float]]


def summarise(fits: list[Fit], method: str, distances: NDArray) -> Summary:
    """Choose between the methods, and measure the one that is taken.

    Parameters
    ----------
    fits
        One, or those of a cross-validation.
    method
        What was asked for; ``"auto"`` chooses.
    distances
        Between all samples.
    """
    by_method = {name: [fit.predictions[name] for fit in fits] for name in fits[0].predictions}
    r2 = {name: r2_of(found, distances) for name, found in by_method.items()}
    taken = list(r2)[-1]
    noise = NOISE if len(fits) > 1 else 0.0
    if method == "auto" and r2["network"] <= r2["linear"] - noise:
        taken = "linear"
        logger.info(
            "The linear map is kept: R2 of distances of held-out samples is %.3f, and %.3f with "
            "the network.",
            r2["linear"],
            r2["network"],
        )
    if r2[taken] < 0:
        warnings.warn(
            f"R2 of distances of held-out samples is {r2[taken]:.2f}: their mean would predict "
            "them better. Look at `model.check()`.",
            UserWarning,
            stacklevel=caller_level(),
        )
    predictions = by_method[taken]
    excess = excess_of(predictions, distances)
    return Summary(
        taken,
        excess,
        fit_spread(predictions, distances),
        {
            "new-train": agreement(*_to_fitted(predictions, distances, excess)),
            "new-new": agreement(*_among(predictions, distances, excess)),
        },
    )


def keep(model: BaseModelClass, found: Summary, samples: Samples, rows: NDArray) -> None:
    """Keep in a model what held-out samples tell, and where the `rows` it was trained on are."""
    own, module = samples.part(rows), model.module
    empty = own.totals == 0
    module.eval()
    model.method_, model.excess_ = found.method, found.excess
    model.spread_, model.error_quantiles_ = found.spread
    places = find_places(model, indices=rows)
    largest = places.u[~empty].max()
    module.of_empty.fill_(float(largest) / float(module.unit) ** 2)
    places = places._replace(u=np.where(empty, largest, places.u))
    model.fitted_, model.marks_ = np.column_stack([places.z, places.u]), places.marks
    some = np.unique(np.linspace(0, len(rows) - 1, N_COMPARED).astype(int))
    placed = places.z[some], places.u[some]
    true = own.distances[np.ix_(some, some)]
    np.fill_diagonal(true, np.nan)
    of_train = agreement([true], [np.sqrt(squared_between(placed, placed))])
    model.agreement_ = {"train": of_train} | found.agreement
    model.facts_ = facts_of_fit(own.distances, places.z, places.u, own.totals)
    warn_about_depth(own.totals, module.features.kinds)


Parts = tuple[list[NDArray], list[NDArray]]


def _to_fitted(predictions: list[Prediction], distances: NDArray, excess: float) -> Parts:
    """Return true and predicted distances from held-out samples to those that were fitted."""
    true = [distances[np.ix_(p.rows, p.others)] for p in predictions]
    return true, [np.sqrt(p.squared + excess) for p in predictions]


def _among(predictions: list[Prediction], distances: NDArray, excess: float) -> Parts:
    """Return them among the held-out samples of a fit, NaN on the diagonal."""
    true, predicted = [], []
    for p in predictions:
        own = distances[np.ix_(p.rows, p.rows)].copy()
        np.fill_diagonal(own, np.nan)
        true.append(own)
        predicted.append(np.sqrt(p.squared_among + 2 * excess))
    return true, predicted
