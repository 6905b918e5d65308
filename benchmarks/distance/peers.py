"""Other ways to place new samples, each in a few lines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from torch import nn

from benchmarks.distance.sets import Cohort
from scovert.core.trees import bray_curtis, read_branches, unifrac

__all__ = ["ONLY_SIMULATED", "PEERS", "direct"]

N_AXES = 24
N_STEPS, BATCH, RATE = 1500, 128, 1e-3

Peer = Callable[[Cohort, NDArray, NDArray, int], tuple[NDArray, NDArray]]
"""From a cohort, its fitted and its new rows, and a seed to predicted distances of new samples to
fitted ones, and among each other (none where a method has none)."""


def axes_of(d: NDArray, n_axes: int) -> tuple[NDArray, NDArray]:
    centred = np.eye(len(d)) - 1 / len(d)
    values, vectors = np.linalg.eigh(-0.5 * centred @ d**2 @ centred)
    values, vectors = values[::-1][:n_axes], vectors[:, ::-1][:, :n_axes]
    kept = values > 1e-9 * values[0]
    return values[kept], vectors[:, kept] * np.sqrt(values[kept])


def between(a: NDArray, b: NDArray) -> NDArray:
    return np.square(a[:, None] - b[None]).sum(-1)


def gower(c: Cohort, train: NDArray, new: NDArray, seed: int) -> tuple[NDArray, NDArray]:
    """PCoA, new samples by Gower's formula from their true distances, and a constant."""
    d = c.d[np.ix_(train, train)]
    values, axes = axes_of(d, min(N_AXES, len(train) // 4))
    places = -0.5 * ((c.d[np.ix_(new, train)] ** 2 - (d**2).mean(1)) @ axes) / values
    i, j = np.triu_indices(len(train), 1)
    rest = max(0.0, float(np.mean(d[i, j] ** 2 - between(axes, axes)[i, j])))
    return np.sqrt(between(places, axes) + rest), np.sqrt(between(places, places) + rest)


def ridge(c: Cohort, train: NDArray, new: NDArray, seed: int) -> tuple[NDArray, NDArray]:
    """Ridge from centred log ratios to principal coordinates: Aitchison geometry."""
    log = np.log(c.adata.X.toarray() + 0.5)
    clr = log - log.mean(1, keepdims=True)
    axes = axes_of(c.d[np.ix_(train, train)], min(N_AXES, len(train) // 4))[1]
    centre = clr[train].mean(0)
    left, size, right = np.linalg.svd(clr[train] - centre, full_matrices=False)
    fit = RidgeCV(np.logspace(-3, 6, 19) * size.mean(), alpha_per_target=True)
    fit.fit(left * size, axes)
    old, places = (fit.predict((clr[rows] - centre) @ right.T) for rows in (train, new))
    return np.sqrt(between(places, old)), np.sqrt(between(places, places))


def original(c: Cohort, train: NDArray, new: NDArray, seed: int) -> tuple[NDArray, NDArray]:
    """Train the original form: a network from scratch on log abundances, without uniqueness."""
    torch.manual_seed(seed)
    share = c.adata.X.toarray() / np.maximum(c.adata.X.sum(1), 1).reshape(-1, 1)
    x = torch.from_numpy(np.log1p(1e4 * share)).float()
    d = torch.from_numpy(c.d[np.ix_(train, train)]).float()
    net = nn.Sequential(
        nn.Linear(x.shape[1], 256), nn.LayerNorm(256), nn.GELU(), nn.Linear(256, N_AXES)
    )
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-4)
    n = min(BATCH, len(train))
    i, j = torch.triu_indices(n, n, 1)
    for _ in range(N_STEPS if len(train) > 100 else 300):
        rows = torch.randperm(len(train))[:n]
        z = net(x[train[rows.numpy()]])
        error = ((z[i] - z[j]).square().sum(1) + 1e-12).sqrt() - d[rows[i], rows[j]]
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        old, places = (net(x[rows]).numpy() for rows in (train, new))
    return np.sqrt(between(places, old)), np.sqrt(between(places, places))


PEERS: dict[str, Peer] = {
    "Gower, true distances, constant": gower,
    "ridge from CLR": ridge,
    "network from scratch, no uniqueness": original,
}


ONLY_SIMULATED = ("ridge from CLR", "network from scratch, no uniqueness")
"""Peers that are far behind, which are run once and on simulated cohorts alone."""


def direct(c: Cohort) -> NDArray:
    """Compute all distances from the counts, exactly."""
    if "unifrac" not in c.key:
        return bray_curtis(c.adata.X)
    branches = read_branches(c.adata, "tree")
    return unifrac(c.adata.X, branches, weighted=not c.key.startswith("unweighted"))
