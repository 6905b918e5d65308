"""One fit of the benchmark of integration, and the scores of its embedding."""

from __future__ import annotations

import logging
import warnings

import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.paired.methods import METHODS
from benchmarks.paired.scenarios import prepared
from benchmarks.runs import Task
from scovert.metrics import integration_panel, invaded_share, purity

__all__ = ["fit", "warm_up"]


def fit(task: Task, max_epochs: int | None = None) -> dict:
    """Fit one method to one scenario and score its embedding."""
    adata = prepared(task.scenario)
    embedding, costs = METHODS[task.method](adata, task.seed, max_epochs)
    size = {
        "n_cells": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_batch": adata.obs["batch"].nunique(),
    }
    return size | costs | scores(embedding, adata)


def warm_up() -> None:
    """Prepare a worker: quiet libraries, loaded and compiled, so that no fit is charged for it."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="`encoder='per_dataset'` with")
    METHODS["shared/anchors"](prepared("two_batches"), seed=0, max_epochs=1)


def scores(embedding: NDArray, adata: AnnData) -> dict[str, float]:
    batch, labels = adata.obs["batch"], adata.obs["cell_type"]
    panel = integration_panel(embedding, batch, labels)["value"].to_dict()
    few_starts = integration_panel(embedding, batch, labels, n_init=5)["value"]
    panel["total_5"] = few_starts["total"]
    if (pd.crosstab(labels, batch) > 0).all(axis=None):
        return panel
    invaded = invaded_share(embedding, batch, labels)
    return panel | {"invaded": invaded, "purity": purity(embedding, batch, labels)}
