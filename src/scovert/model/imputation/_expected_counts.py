"""Expected counts of cells, and between what bounds counts lie."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass

from scovert.core._checks import select_rows
from scovert.core._minibatch import genes_of, over_minibatches, read_query
from scovert.model.imputation._calibration import errors_of
from scovert.model.imputation._intervals import count_interval, coverage

__all__ = ["covered_share", "expected_counts", "spaced", "with_bounds"]

N_LOOKED_AT = 2000
"""Cells of a dataset by which intervals and support are judged, at most."""


def expected_counts(
    model: BaseModelClass,
    genes: pd.Index,
    adata: AnnData | None,
    indices: ArrayLike | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Return expected counts of some genes, cells x genes."""
    compute = partial(model.module.imputed, genes=_columns(model, genes))
    values, names = over_minibatches(model, compute, adata, indices, batch_size)
    return pd.DataFrame(values, index=names, columns=genes, copy=False)


def with_bounds(
    model: BaseModelClass,
    genes: pd.Index,
    adata: AnnData | None,
    indices: ArrayLike | None,
    batch_size: int | None,
    level: float,
) -> pd.DataFrame:
    """Return expected counts and bounds of counts, which are found dataset by dataset.

    A count lies between its bounds with a probability of `level`.
    """
    at = _columns(model, genes)
    compute = partial(model.module.imputed_moments, genes=at)
    moments, names = over_minibatches(model, compute, adata, indices, batch_size)
    batch = read_query(model, adata)[1].batch
    batch = batch[select_rows(indices, len(batch))]
    theta = model.module.theta[at.cpu().numpy()]
    lower, upper = (np.empty(moments.shape[:2], np.float32) for _ in range(2))
    for b in np.unique(batch):
        own = batch == b
        mean, variation = np.moveaxis(moments[own], -1, 0)
        bounds = count_interval(mean, variation, theta, errors_of(model, b), level)
        lower[own], upper[own] = bounds
    parts = {"mean": moments[..., 0], "lower": lower, "upper": upper}
    frames = {name: pd.DataFrame(v, names, genes, copy=False) for name, v in parts.items()}
    return pd.concat(frames, axis=1)


def covered_share(
    model: BaseModelClass, batch: NDArray, b: int, is_known: NDArray, level: float
) -> float:
    """Return the share of known counts inside their intervals.

    Parameters
    ----------
    model
        Calibrated model.
    batch, b
        Dataset of each of its cells, and that which is asked about.
    is_known
        Whether a gene is one of those that were held back, shape ``(n_genes,)``.
    level
        Of the intervals.
    """
    genes = np.flatnonzero(is_known)
    at = torch.from_numpy(genes).to(model.device)

    def compute(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        counts = tensors[REGISTRY_KEYS.X_KEY][:, at, None]
        return torch.cat([counts, model.module.imputed_moments(tensors, at)], dim=-1)

    found = over_minibatches(model, compute, indices=spaced(np.flatnonzero(batch == b)))[0]
    counts, mean, variation = np.moveaxis(found, -1, 0)
    theta, spread = model.module.theta[genes], errors_of(model, b)
    return float(coverage(counts, mean, variation, theta, spread, level).mean())


def spaced(rows: NDArray) -> NDArray:
    """Return evenly spaced rows, not too many."""
    return rows[:: -(-len(rows) // N_LOOKED_AT)] if len(rows) else rows


def _columns(model: BaseModelClass, genes: pd.Index) -> torch.Tensor:
    return torch.from_numpy(genes_of(model.registry).get_indexer(genes)).to(model.device)
