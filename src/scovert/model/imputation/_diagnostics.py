"""Rows of ``check()`` of an imputation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._diagnostics import (
    HealthRow,
    dispersion_row,
    finite_row,
    gradient_row,
    latent_row,
    loss_row,
    row,
)
from scovert.core._minibatch import cells_of
from scovert.model.imputation._agreement import IMPUTED, OBSERVED, agreement_of
from scovert.model.imputation._expected_counts import spaced
from scovert.model.imputation._panels import panels_of
from scovert.model.imputation._sums import moments_by_dataset

__all__ = [
    "agreement_rows",
    "coverage_row",
    "diagnose",
    "share_row",
    "support_row",
    "width_row",
]

LARGEST_SHARE = 0.9
"""Share of a dataset's imputed counts in one gene: no tissue is like that."""
LARGEST_OFFSET = 0.5
"""log2 units: totals that are off by a factor of 1.4 in the median are seen in a fold change."""
LEAST_EXPLAINED = 0.05
"""Share of the deviance of known genes below which imputed values are hardly more than a mean."""
WIDEST = 3.0
"""Factor by which a total may be off, above which it says little of an abundance."""
COVERED = 0.8
"""Coverage of intervals that are to hold 90 %: two standard deviations below it for 40 genes,
whose coverages spread by 0.3."""
NEIGHBOR = 15
"""Neighbours in other datasets, of which the last is to be near."""
OUTLYING = 0.99
"""Quantile of the distances within a dataset, beyond which a cell of another is far away."""
MOST_OUTLYING = 0.2
"""Share of far cells from which it is worth a word: 0.01 by chance."""


def diagnose(model: BaseModelClass) -> list[HealthRow]:
    """Return all rows of a calibrated model."""
    batch, panels = cells_of(model).batch, panels_of(model)
    moments = moments_by_dataset(model, batch)
    agreement = agreement_of(model, moments, batch)
    each = [spaced(np.flatnonzero(batch == b)) for b in np.unique(batch)]
    looked_at = np.concatenate(each)
    latent = model.get_latent_representation(indices=looked_at)
    rows = [
        finite_row(model.history),
        loss_row(model.history),
        gradient_row(model.history),
        latent_row(latent),
        dispersion_row(model.module.theta),
        share_row(moments.imputed),
        *agreement_rows(agreement),
    ]
    if "factor" in agreement:
        rows.append(coverage_row(agreement["coverage"].min()))
        if agreement["factor"].notna().any():
            rows.append(width_row(agreement["factor"].max()))
    return [*rows, support_row(latent, batch[looked_at], ~panels.measured.all(1))]


def agreement_rows(table: pd.DataFrame) -> list[HealthRow]:
    """Return the worst dataset in each number of the agreement, of observed and of known genes."""
    rows = []
    for kind in (OBSERVED, IMPUTED):
        own = table[table.index.get_level_values("kind") == kind]
        if len(own) == 0:
            continue
        offset, explained = own["log2_offset"].max(), own["deviance_explained"].min()
        rows += [
            row(f"{kind} genes: R2 of log totals", own["r2_totals"].min(), ""),
            row(f"{kind} genes: median Pearson r", own["pearson_r"].min(), ""),
            row(
                f"{kind} genes: deviance explained", explained, _explained_advice(kind, explained)
            ),
            row(f"{kind} genes: median log2 offset", offset, _offset_advice(kind, offset)),
        ]
    return rows


def _explained_advice(kind: str, explained: float) -> str:
    if kind == OBSERVED or explained >= LEAST_EXPLAINED:
        return ""
    return (
        "Genes that were held back are hardly imputed better than by their mean: the shared genes "
        "tell little of the others in these cells. Do not interpret differences between cells."
    )


def _offset_advice(kind: str, offset: float) -> str:
    if kind == OBSERVED or offset <= LARGEST_OFFSET:
        return ""
    return (
        f"Totals of genes that were held back are off by a factor of {2**offset:.1f} in the "
        "median, as between chemistries: compare cells and groups, not the levels of datasets."
    )


def width_row(factor: float) -> HealthRow:
    """Return the factor by which nine in ten totals of genes are off at most."""
    advice = ""
    if not factor <= WIDEST:
        advice = (
            f"Nine in ten totals of known genes are imputed within a factor of {factor:.1f}: "
            "intervals are wide, and abundances uncertain. Train longer, or look for a source "
            "of the same chemistry."
        )
    return row("factor of 90 % of the totals", float(factor), advice)


def coverage_row(covered: float) -> HealthRow:
    """Return the share of known counts inside their intervals of 90 %."""
    advice = ""
    if not covered >= COVERED:
        advice = (
            "Intervals of single cells hold fewer counts than they should: the model fits the "
            "source too closely. Train with fewer `max_epochs`, or use intervals of groups."
        )
    return row("coverage of single counts at 90 %", float(covered), advice)


def share_row(imputed: NDArray) -> HealthRow:
    """Return the largest share of a gene in what is imputed for a dataset.

    Parameters
    ----------
    imputed
        Totals, shape ``(n_datasets, n_genes)``.
    """
    totals = imputed.sum(1, keepdims=True)
    largest = float((imputed / np.maximum(totals, 1e-12)).max())
    advice = ""
    if not largest < LARGEST_SHARE:
        advice = (
            "One gene takes nearly all imputed counts: look at the genes with the highest totals, "
            "or train with a smaller learning rate."
        )
    return row("largest imputed share", largest, advice)


def support_row(latent: NDArray, batch: NDArray, lacks: NDArray) -> HealthRow:
    """Return the largest share of cells of a dataset without cells like them in the others.

    A cell is like others if its 15th neighbour in other datasets is as near as such a neighbour is
    to 99 % of the cells there.

    Parameters
    ----------
    latent
        Posterior means, shape ``(n_cells, n_latent)``.
    batch
        Dataset of each cell, shape ``(n_cells,)``.
    lacks
        Which datasets miss genes, shape ``(n_datasets,)``.
    """
    shares = [_far(latent[batch == b], latent[batch != b]) for b in np.flatnonzero(lacks)]
    worst = max(shares, default=0.0)
    advice = ""
    if worst > MOST_OUTLYING:
        advice = (
            f"{worst:.0%} of the cells of a dataset have no cells like them in the others. What "
            "is imputed there is extrapolated: a response that no source shows is missed."
        )
    return row("cells unlike the source", worst, advice)


def _far(own: NDArray, others: NDArray) -> float:
    from sklearn.neighbors import NearestNeighbors  # here, because it costs a second

    if len(own) == 0 or len(others) <= NEIGHBOR:
        return 0.0
    known = NearestNeighbors(n_neighbors=NEIGHBOR).fit(others)
    usual = known.kneighbors()[0][:, -1]
    return float((known.kneighbors(own)[0][:, -1] > np.quantile(usual, OUTLYING)).mean())
