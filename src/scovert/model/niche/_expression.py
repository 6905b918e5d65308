"""What states and their mixtures express, and cells drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import softmax
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass
from torch import Tensor

from scovert.core._minibatch import genes_of
from scovert.model.niche._batches import batch_names
from scovert.model.niche._module import NicheModule
from scovert.model.niche._neighborhood import (
    Asked,
    ask_about,
    mean_around,
    own_states,
    shares_of_states,
)

__all__ = [
    "decoded_and_true",
    "draw_cells",
    "map_centers",
    "mean_expression",
    "sample_cells",
    "state_expression",
]

HELLINGER = 20.0
"""Scale of the square roots of shares of genes, which are of the size of standardised features."""


def map_centers(module: NicheModule) -> NDArray:
    """Return centres of the states by whose distances niches are placed, ``(n_states, n_genes)``.

    Of counts, square roots of shares, whose distance is Hellinger's.
    """
    centers = module.states.detach().cpu().double().numpy()
    return centers if module.likelihood == "gaussian" else HELLINGER * np.sqrt(softmax(centers, 1))


def state_expression(module: NicheModule, batches: Sequence[int]) -> NDArray:
    """Return mean values of the states over some batches, float32, ``(n_states, n_genes)``.

    Counts per median total; of a Gaussian, transformed values before they were standardised.
    """
    centers = module.states.detach().cpu().double().numpy()
    shift = np.zeros((module.n_batch, centers.shape[1]))
    if module.n_batch > 1:
        shift = module.batch_shift.detach().cpu().double().numpy()
    found = []
    for b in batches:
        if module.likelihood == "nb":
            found.append(softmax(centers + shift[b], axis=1) * float(module.median_total))
            continue
        mean, scale = (
            t[b].cpu().double().numpy() for t in (module.feature_mean, module.feature_scale)
        )
        sd = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        found.append((centers + shift[b]) * sd + mean)
    return np.mean(found, axis=0).astype(np.float32)


def mean_expression(
    model: BaseModelClass, pi: NDArray, genes: pd.Index, transform_batch: str | None = None
) -> NDArray:
    """Return the mean expression around cells, ``(n_cells, n_genes)``, by shares of states.

    Decoded as one batch, or the average over all.
    """
    known = batch_names(model.registry)
    batches = range(len(known))
    if transform_batch is not None:
        batches = [known.index(str(transform_batch))]
    at = genes_of(model.registry).get_indexer(genes)
    return pi @ state_expression(model.module, batches)[:, at]


def decoded_and_true(model: BaseModelClass, asked: Asked, pi: NDArray) -> tuple[NDArray, NDArray]:
    """Return decoded and true means over neighbours, ``(n_asked, n_genes)`` each.

    Of features, or with counts of square roots of counts per median total. Cells without
    neighbours are left out.
    """
    module: NicheModule = model.module
    has_any = (asked.graph[asked.rows] >= 0).any(1)
    asked, pi = asked._replace(rows=asked.rows[has_any]), pi[has_any]
    if module.likelihood == "gaussian":
        return pi @ map_centers(module), mean_around(model, asked, None)
    decoded = pi @ state_expression(module, range(module.n_batch))
    compute = partial(_per_median_total, median=module.median_total)
    return decoded, mean_around(model, asked, compute)


def _per_median_total(tensors: dict[str, Tensor], median: Tensor, **_: object) -> Tensor:
    x = tensors[REGISTRY_KEYS.X_KEY]
    return x / x.sum(-1, keepdim=True).clamp(min=1) * median


def sample_cells(
    model: BaseModelClass, asked: Asked, n_samples: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Draw cells of the model as neighbours, by name; see ``sample_neighborhood``."""
    pool = ask_about(model)
    states = own_states(model, pool, shares_of_states(model, pool)).argmax(1)
    pi, batch = shares_of_states(model, asked), asked.batch[asked.rows]
    drawn = draw_cells(pi, batch, states, pool.batch, n_samples, rng)
    names = model.adata.obs_names.to_numpy()[drawn]
    return pd.DataFrame(names, asked.adata.obs_names[asked.rows])


def draw_cells(
    pi: NDArray,
    batch: NDArray,
    states: NDArray,
    pool_batch: NDArray,
    n_samples: int,
    rng: np.random.Generator,
) -> NDArray:
    """Draw cells of a pool by their states.

    Parameters
    ----------
    pi
        Shares of the states around each cell, shape ``(n_cells, n_states)``.
    batch
        Batch of each cell, shape ``(n_cells,)``.
    states, pool_batch
        State and batch of the cells that are drawn from, shape ``(n_pool,)``.
    n_samples
        Draws for each cell.
    rng
        Generator.

    Returns
    -------
    Rows of the pool, shape ``(n_cells, n_samples)``. A state that no cell is in is not drawn.
    """
    n_states = pi.shape[1]
    shares = np.where(np.bincount(states, minlength=n_states) > 0, pi, 0).astype(float)
    cumulative = np.cumsum(shares / shares.sum(1, keepdims=True), axis=1)[:, :-1]
    u = rng.random((len(pi), n_samples))
    drawn = (u[:, :, None] > cumulative[:, None]).sum(2)  # states, (n_cells, n_samples)
    result = np.empty(drawn.shape, np.int64)
    for b in np.unique(batch):
        for m in np.unique(drawn[batch == b]):
            places = (batch == b)[:, None] & (drawn == m)
            of_state = states == m
            own = np.flatnonzero(of_state & (pool_batch == b))
            among = own if len(own) else np.flatnonzero(of_state)
            result[places] = rng.choice(among, places.sum())
    return result
