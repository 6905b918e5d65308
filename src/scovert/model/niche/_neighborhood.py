"""What a trained model says of the surroundings of cells."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass
from torch import Tensor

from scovert.core._checks import FEW_CELLS, check_layer, select_rows
from scovert.core._counts import in_parts
from scovert.core._losses import SparseCounts
from scovert.core._minibatch import check_trained, genes_of, over_minibatches
from scovert.core._registering import check_unchanged, is_own
from scovert.core.dataloaders._cells import CELLS_KEY, COUNTS_KEY, Cells
from scovert.model.niche._batches import batch_codes, batch_names, warn_about_few
from scovert.model.niche._checks import check_positions, positions_of, samples_of
from scovert.model.niche._data import around
from scovert.model.niche._features import moments_of
from scovert.model.niche._graph import nearest_neighbors
from scovert.model.niche._module import BATCH, NicheModule, pool

__all__ = [
    "Asked",
    "ask_about",
    "by_state",
    "check_states",
    "decode",
    "encode",
    "features_of",
    "labels_around",
    "mean_around",
    "own_states",
    "shares_of_states",
]

DECODED_AT_ONCE = 16_384
"""Cells whose surroundings are put together at once."""


class Asked(NamedTuple):
    """Cells that a method was asked about, among all of their AnnData.

    Attributes
    ----------
    adata
        All cells.
    rows
        Those asked about, shape ``(n_asked,)``.
    graph
        Rows of the neighbours of all cells, -1 for none, shape ``(n_cells, n_neighbors)``.
    batch
        Number of the batch of each cell, shape ``(n_cells,)``; those from `n_batch` of the model
        on were not trained on.
    mean, scale
        Of the features in every batch, shape ``(n_batch, n_genes)``.
    batch_size
        Cells in a minibatch, or `None`.
    """

    adata: AnnData
    rows: NDArray
    graph: NDArray
    batch: NDArray
    mean: Tensor
    scale: Tensor
    batch_size: int | None


def ask_about(
    model: BaseModelClass,
    adata: AnnData | None = None,
    indices: ArrayLike | None = None,
    batch_size: int | None = None,
) -> Asked:
    """Find the neighbours of cells among all of an AnnData, once it was checked."""
    check_trained(model)
    setup = model.registry["setup_args"]
    if is_own(model, adata):
        check_unchanged(model)
        adata = model.adata
    else:
        check_layer(adata, setup["layer"])
    key = setup["spatial_key"]
    check_positions(adata, key)
    sample = samples_of(adata, setup["sample_key"])
    graph = nearest_neighbors(positions_of(adata, key), sample, model.n_neighbors)
    rows = select_rows(indices, adata.n_obs)
    known = batch_names(model.registry)
    batch, names = batch_codes(adata, setup["batch_key"], known)
    mean, scale = model.module.feature_mean, model.module.feature_scale
    if len(names) > len(known):
        mean, scale = _with_new_batches(model, adata, batch, names)
    return Asked(adata, rows, graph, batch, mean, scale, batch_size)


def _with_new_batches(
    model: BaseModelClass, adata: AnnData, batch: NDArray, names: list[str]
) -> tuple[Tensor, Tensor]:
    """Add mean and scale of batches that were not trained on; of few cells, those of training."""
    module: NicheModule = model.module
    n_known = module.n_batch
    cells = Cells.read(adata, model.registry, genes_of(model.registry))
    options = (module.transform, float(module.cofactor), float(module.median_total))
    found = moments_of(cells, batch - n_known, len(names) - n_known, *options)
    warn_about_few(found.n_cells, names[n_known:], by_training=True)
    enough = torch.from_numpy(found.n_cells >= FEW_CELLS).to(model.device).unsqueeze(1)
    whole = []
    for known, new in (
        (module.feature_mean, found.mean),
        (module.feature_scale, found.scale),
    ):
        new = torch.from_numpy(new).to(model.device)
        whole.append(torch.cat([known, torch.where(enough, new, known.mean(0))]))
    return whole[0], whole[1]


def encode(model: BaseModelClass, asked: Asked) -> tuple[NDArray, NDArray]:
    """Return mean and log-variance of the posteriors, float32, ``(n_asked, n_latent)`` each."""
    hidden, where = _of_members(model, asked, _hidden)
    hidden = torch.from_numpy(hidden)
    parts = [_posterior(model, hidden, *some) for some in where]
    means, variances = zip(*parts, strict=True)
    return torch.cat(means).cpu().numpy(), torch.cat(variances).cpu().numpy()


def _of_members(model: BaseModelClass, asked: Asked, compute: Callable) -> tuple[NDArray, list]:
    """Compute something of the cells asked about and their neighbours, of each once.

    Returns
    -------
    The result, and by parts of the cells asked about the places in it: of themselves, of their
    neighbours, and where there are any.
    """
    members, own, near, is_neighbor = around(asked.graph, asked.rows)
    module: NicheModule = model.module
    batch = torch.from_numpy(asked.batch).to(model.device)
    given = partial(compute, module=module, batch=batch, mean=asked.mean, scale=asked.scale)
    values, _ = over_minibatches(model, given, asked.adata, members, asked.batch_size)
    parts = in_parts(np.arange(len(asked.rows)), DECODED_AT_ONCE)
    where = [[torch.from_numpy(a[at]) for a in (own, near, is_neighbor)] for at in parts]
    return values, where


def features_of(
    tensors: dict[str, Tensor], module: NicheModule, batch: Tensor, mean: Tensor, scale: Tensor
) -> Tensor:
    """Return the features of the cells of a minibatch, shape ``(n_cells, n_genes)``.

    Parameters
    ----------
    tensors
        Minibatch.
    module
        Trained module.
    batch
        Batch of every cell of the AnnData.
    mean, scale
        Of every batch, as in `Asked`.
    """
    code = batch[tensors[CELLS_KEY].squeeze(-1)]
    return module.features(tensors[REGISTRY_KEYS.X_KEY], mean[code], scale[code])


def _hidden(
    tensors: dict[str, Tensor], module: NicheModule, batch: Tensor, mean: Tensor, scale: Tensor
) -> Tensor:
    return module.cell_encoder(features_of(tensors, module, batch, mean, scale))


@torch.inference_mode()
def _posterior(
    model: BaseModelClass, hidden: Tensor, own: Tensor, near: Tensor, is_neighbor: Tensor
) -> tuple[Tensor, Tensor]:
    members = torch.cat([own.unsqueeze(1), near], dim=1).unique()
    local = hidden[members].to(model.device)  # the rest may not fit on a GPU
    own, near = (torch.searchsorted(members, places).to(model.device) for places in (own, near))
    return model.module.posterior(pool(local, own, near, is_neighbor.to(model.device)))


def mean_around(
    model: BaseModelClass,
    asked: Asked,
    compute: Callable | None = None,
    *,
    with_self: bool = False,
) -> NDArray:
    """Return means over neighbours of something of every cell; `None` takes the features.

    Parameters
    ----------
    model
        Trained model.
    asked
        The cells.
    compute
        Function of a minibatch, called with what `_of_members` gives.
    with_self
        Whether a cell is one of those around it.
    """
    values, parts = _of_members(model, asked, compute or features_of)
    means = []
    for own, near, is_neighbor in parts:
        n = is_neighbor.sum(1).numpy()
        pairs = (np.repeat(np.arange(len(n)), n), near[is_neighbor].numpy())
        graph = sp.csr_matrix((np.ones(n.sum(), np.float32), pairs), (len(n), len(values)))
        total, n = graph @ values, n[:, None]
        if with_self:
            total, n = total + values[own.numpy()], n + 1
        means.append(total / np.maximum(n, 1))
    return np.concatenate(means)


def labels_around(asked: Asked, labels: pd.Series) -> pd.DataFrame:
    """Return shares of labels among the true neighbours, zeros where there are none."""
    of_cell = pd.Categorical(labels.astype(str))
    near = asked.graph[asked.rows]
    one_hot = np.eye(len(of_cell.categories))[of_cell.codes]
    total = np.where((near >= 0)[..., None], one_hot[near], 0).sum(1)
    shares = total / np.maximum((near >= 0).sum(1, keepdims=True), 1)
    return pd.DataFrame(shares, asked.adata.obs_names[asked.rows], of_cell.categories)


def check_states(model: BaseModelClass, what: str) -> None:
    """Refuse what needs states of a decoder that has none."""
    if model.module.matching is not None:
        raise RuntimeError(
            f"`{what}` needs shared states, and this model has `decoder='matching'`. Fit one "
            "with `decoder='mixture'`."
        )


def shares_of_states(model: BaseModelClass, asked: Asked) -> NDArray:
    """Return the share of each state around cells, ``(n_asked, n_states)``."""
    return decode(model, encode(model, asked)[0])


@torch.inference_mode()
def decode(model: BaseModelClass, z: NDArray) -> NDArray:
    """Return the share of each state around cells at latent positions, ``(n_cells, n_states)``."""
    parts = [
        model.module.generative(torch.from_numpy(z[at]).to(model.device))["log_pi"].exp().cpu()
        for at in in_parts(np.arange(len(z)), DECODED_AT_ONCE)
    ]
    return torch.cat(parts).numpy()


def own_states(model: BaseModelClass, asked: Asked, pi: NDArray) -> NDArray:
    r"""Return the probability of each state of the cells themselves.

    .. math:: r_{im} \propto \pi_{im}\, p(x_i \mid m)

    Parameters
    ----------
    model
        Trained model.
    asked
        The cells.
    pi
        Shares of the states around them, shape ``(n_asked, n_states)``.
    """
    log_joint = np.log(np.maximum(pi, np.finfo(np.float32).tiny)) + by_state(model, asked)
    return np.exp(log_joint - logsumexp(log_joint, axis=1, keepdims=True))


def by_state(model: BaseModelClass, asked: Asked) -> NDArray:
    """Return how likely the cells are in each state, in nats, ``(n_asked, n_states)``."""
    batch = torch.from_numpy(asked.batch).to(model.device)
    given = {"module": model.module, "batch": batch, "mean": asked.mean, "scale": asked.scale}
    compute = partial(_by_state, **given)
    return over_minibatches(model, compute, asked.adata, asked.rows, asked.batch_size)[0]


def _by_state(
    tensors: dict[str, Tensor], module: NicheModule, batch: Tensor, mean: Tensor, scale: Tensor
) -> Tensor:
    code = batch[tensors[CELLS_KEY].squeeze(-1)].clamp(max=module.n_batch)
    counts = SparseCounts.of(tensors[REGISTRY_KEYS.X_KEY])
    f = features_of(tensors, module, batch, mean, scale)
    return module.by_state(tensors | {BATCH: code, COUNTS_KEY: counts}, f)
