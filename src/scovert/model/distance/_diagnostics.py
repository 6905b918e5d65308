"""Rows of ``check()`` of an embedding of distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scovert.core._diagnostics import HealthRow, row
from scovert.model.distance._pcoa import negative_share

__all__ = ["facts_of_fit", "rows_of"]

MAX_NEGATIVE = 0.2
"""Share of negative eigenvalues above which no Euclidean positions can be good: weighted UniFrac
of simulated cohorts has 0.11."""
MAX_UNIQUE = 0.9
"""Share of the squared distances that is private, above which hardly anything is shared."""
MAX_OF_DEPTH = 0.5
"""Correlation with depth above which a position tells of it."""
MIN_R2 = 0.3
"""Held-out R2 of real and simulated cohorts is 0.65 and more; of distances in another order than
the samples 0.07."""


def facts_of_fit(distances: NDArray, z: NDArray, u: NDArray, totals: NDArray) -> dict[str, float]:
    """Measure what `rows_of` tells of a fit.

    Parameters
    ----------
    distances
        Between the samples.
    z, u, totals
        Their positions, uniqueness and total counts.
    """
    between = distances[np.triu_indices(len(distances), 1)]
    has_counts = totals > 0
    depth = np.log(totals[has_counts])
    length = np.linalg.norm(z - z.mean(0), axis=1)[has_counts]
    return {
        "negative share": negative_share(distances),
        "private share": float(2 * np.median(u) / np.median(between) ** 2),
        "depth and position": correlation(depth, length),
        "depth and uniqueness": correlation(depth, np.log(u[has_counts])),
    }


def correlation(x: NDArray, y: NDArray) -> float:
    """Return Pearson's correlation, 0 of what does not vary."""
    is_flat = min(np.ptp(x), np.ptp(y)) <= 1e-6 * max(np.abs(y).max(), 1e-300)
    return 0.0 if is_flat else float(np.corrcoef(x, y)[0, 1])


def rows_of(
    facts: dict[str, float], held_out: dict[str, float], kinds: Sequence[str]
) -> list[HealthRow]:
    """Return the rows, by what was measured, how held-out samples agree, and kinds of features."""
    r2 = held_out["r2"]
    remedy = "compare samples of like depth"
    if any("presence" in kind for kind in kinds):
        remedy = "leave presence out of `features`"
    of_depth = f"Depth of sequencing shows in {{}}: rarefy, or {remedy}."
    advice = {
        "held-out R2": (
            r2 < MIN_R2,
            "Distances of new samples are hardly predicted. Are those in `adata.obsp` in the "
            "order of `adata.obs_names` (`scovert.pp.distances` puts a table there by name)? If "
            "so, the counts say little of these distances: try UniFrac, or more samples.",
        ),
        "held-out stress": (False, ""),
        "negative eigenvalues": (
            facts["negative share"] > MAX_NEGATIVE,
            "The distances are far from Euclidean, and no positions reproduce them well: try "
            "their square roots.",
        ),
        "private share": (
            facts["private share"] > MAX_UNIQUE,
            "Hardly anything of the distances is shared by samples: positions say little.",
        ),
        "depth and position": (
            abs(facts["depth and position"]) > MAX_OF_DEPTH,
            of_depth.format("how far out samples are"),
        ),
        "depth and uniqueness": (
            abs(facts["depth and uniqueness"]) > MAX_OF_DEPTH,
            of_depth.format("the uniqueness"),
        ),
    }
    values = {
        "held-out R2": r2,
        "held-out stress": held_out["stress"],
        "negative eigenvalues": facts["negative share"],
    }
    return [
        row(name, values.get(name, facts.get(name)), text if is_bad else "")
        for name, (is_bad, text) in advice.items()
    ]
