"""How well genes are decoded whose counts are known: observed ones, and those held back."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.core._minibatch import genes_of
from scovert.model.imputation._expected_counts import covered_share
from scovert.model.imputation._intervals import TotalErrors
from scovert.model.imputation._panels import MIN_COUNTS, Panels, datasets_of, panels_of
from scovert.model.imputation._sums import Moments

__all__ = ["IMPUTED", "LEVEL", "OBSERVED", "agreement_of", "gene_table"]

OBSERVED, IMPUTED = "observed", "imputed"
"""Genes that were learnt from the cells of a dataset, and calibration genes, which were not."""
NAMES = ["dataset", "kind"]
"""Levels of the index of the agreement."""
LEVEL = 0.9
"""Level of the intervals by which known genes are judged."""


def gene_table(model: BaseModelClass, moments: Moments) -> pd.DataFrame:
    """Return a row for each gene with counts that a dataset measured."""
    panels, datasets, genes = panels_of(model), datasets_of(model), genes_of(model.registry)
    lower, upper = _bounds(moments, panels)
    b, g = np.nonzero(panels.measured & (moments.true > 0))
    true, imputed = moments.true[b, g], moments.imputed[b, g]
    return pd.DataFrame(
        {
            "dataset": datasets[b],
            "gene": genes[g],
            "kind": np.where(panels.learnt[b, g], OBSERVED, IMPUTED),
            "total": true,
            "imputed_total": imputed,
            "lower": lower[b, g],
            "upper": upper[b, g],
            "log2_offset": np.log2((imputed + 0.5) / (true + 0.5)),
            "pearson_r": moments.correlation[b, g],
            "deviance_explained": moments.explained[b, g],
        }
    )


def _bounds(moments: Moments, panels: Panels) -> tuple[NDArray, NDArray]:
    """Return bounds of the totals of genes that were held back, NaN of others."""
    lower, upper = (np.full(moments.true.shape, np.nan) for _ in range(2))
    for b, own in enumerate(panels.calibration):
        true, imputed = moments.true[b, own], moments.imputed[b, own]
        lower[b, own], upper[b, own] = TotalErrors.of(true, imputed, LEVEL).interval(imputed)
    return lower, upper


def agreement_of(model: BaseModelClass, moments: Moments, batch: NDArray) -> pd.DataFrame:
    """Return the table of ``get_agreement``, by moments and dataset of the cells of a model."""
    panels, datasets = panels_of(model), datasets_of(model)
    table = _summary(moments, panels, datasets)
    for b, name in enumerate(datasets):
        row, own = (name, IMPUTED), panels.calibration[b]
        if row in table.index:
            known = moments.true[b, own], moments.imputed[b, own]
            table.loc[row, "factor"] = TotalErrors.of(*known, LEVEL).factor(known[1])
            table.loc[row, "coverage"] = covered_share(model, batch, b, own, LEVEL)
    return table


def _summary(moments: Moments, panels: Panels, datasets: pd.Index) -> pd.DataFrame:
    """Return a row for the observed and for the held back genes of each dataset.

    Of genes with 20 counts or more.
    """
    kinds = {OBSERVED: panels.learnt, IMPUTED: panels.calibration}
    rows = {
        (dataset, kind): _row(moments, b, which[b] & (moments.true[b] >= MIN_COUNTS))
        for b, dataset in enumerate(datasets)
        for kind, which in kinds.items()
    }
    rows = {names: row for names, row in rows.items() if row["n_genes"] > 0}
    return pd.DataFrame(rows.values(), index=pd.MultiIndex.from_tuples(rows, names=NAMES))


def _row(moments: Moments, b: int, which: NDArray) -> dict[str, float]:
    """Summarise some genes of a dataset."""
    true, imputed = moments.true[b, which], moments.imputed[b, which]
    if not which.any():
        return {"n_genes": 0}
    offset = np.log2((imputed + 0.5) / (true + 0.5))
    logs = np.log2(true + 0.5)
    residual = np.square(offset).sum() / max(np.square(logs - logs.mean()).sum(), 1e-12)
    return {
        "n_genes": int(which.sum()),
        "r2_totals": float(1 - residual),
        "pearson_r": float(np.nanmedian(moments.correlation[b, which])),
        "deviance_explained": float(
            1 - moments.deviance[b, which].sum() / moments.null_deviance[b, which].sum()
        ),
        "log2_offset": float(np.median(np.abs(offset))),
        "log2_bias": float(np.log2(imputed.sum() / true.sum())),
    }
