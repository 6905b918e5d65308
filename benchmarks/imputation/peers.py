"""Other methods: counts of all genes for the cells of the second dataset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.imputation.sets import Hidden

__all__ = ["PEERS"]

K, N_COMPONENTS = 30, 30
"""Nearest neighbours, and principal components."""
N_EPOCHS = 100
"""Epochs of the peers of scvi-tools."""
LARGEST = 10.0
"""Standard deviations at which features are clipped."""


def log_normalised(x: NDArray, genes: NDArray) -> NDArray:
    """Logarithms of counts scaled to a total of 10,000 over some genes."""
    return np.log1p(x / np.maximum(x[:, genes].sum(1, keepdims=True), 1) * 1e4)


def library(data: Hidden, cells: NDArray) -> NDArray:
    """Add up the counts of cells in the shared genes."""
    return data.x[cells][:, data.shared].sum(1, keepdims=True)


def mean(data: Hidden) -> NDArray:
    """Mean shares of the first dataset."""
    first = data.x[~data.second].sum(0)
    return library(data, data.second) * first / first[data.shared].sum()


def space(data: Hidden, *, harmony: bool) -> NDArray:
    """Principal components of the shared genes, of length one, with Harmony or as they are."""
    z = log_normalised(data.x, data.shared)[:, data.shared]
    z = ((z - z.mean(0)) / (z.std(0) + 1e-6)).clip(-LARGEST, LARGEST)
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    k = min(N_COMPONENTS, data.shared.sum() - 1)
    places = u[:, :k] * s[:k]
    if harmony:
        import harmonypy

        obs = pd.DataFrame({"b": data.second.astype(str)})
        n = int(np.clip(round(len(places) / 30), 1, 100))
        options = {"verbose": False, "nclust": n, "ncores": 1, "random_state": 0}
        found = np.asarray(harmonypy.run_harmony(places, obs, "b", **options).Z_corr)
        places = found if len(found) == len(places) else found.T
    return places / np.linalg.norm(places, axis=1, keepdims=True)


def neighbours(data: Hidden, *, harmony: bool = False) -> NDArray:
    """Mean of the nearest cells of the first dataset, with one part in 31 of the overall mean.

    A zero among the neighbours would cost an infinite deviance.
    """
    from sklearn.neighbors import NearestNeighbors

    z = space(data, harmony=harmony)
    nearest = NearestNeighbors(n_neighbors=K).fit(z[~data.second])
    found = nearest.kneighbors(z[data.second], return_distance=False)
    sums = data.x[~data.second][found].sum(1)
    shares = sums / np.maximum(sums[:, data.shared].sum(1, keepdims=True), 1)
    return (K * library(data, data.second) * shares + mean(data)) / (K + 1)


def ridge(data: Hidden) -> NDArray:
    """Ridge regression of log-normalised values on those of the shared genes."""
    from sklearn.linear_model import RidgeCV

    logs, second = log_normalised(data.x, data.shared), data.second
    features = logs[:, data.shared]
    centre, sd = features[~second].mean(0), features[~second].std(0) + 1e-6
    model = RidgeCV(np.logspace(1, 5, 9)).fit((features[~second] - centre) / sd, logs[~second])
    found = model.predict((features[second] - centre) / sd)
    return np.expm1(np.maximum(found, 0)) * library(data, second) / 1e4


def types(data: Hidden, *, oracle: bool) -> NDArray:
    """Mean share of the true type of a cell in the first dataset, or in the hidden truth."""
    found, own = mean(data), data.second == oracle
    for label in np.unique(data.labels[data.second]):
        rows, source = data.labels == label, own & (data.labels == label)
        if source.sum() >= 5:
            sums = data.x[source].sum(0)
            shares = sums / max(sums[data.shared].sum(), 1)
            at = rows[data.second]
            found[at] = library(data, rows & data.second) * shares
    return found


def scvi_zero_filled(data: Hidden) -> NDArray:
    """SCVI on the union of the genes with zeros for gaps, decoded as the first dataset."""
    import scvi

    scvi.settings.seed = 0
    adata = AnnData(data.x * data.measured[data.second.astype(int)])
    adata.obs["b"] = data.second.astype(int).astype(str)
    scvi.model.SCVI.setup_anndata(adata, batch_key="b")
    model = scvi.model.SCVI(adata, gene_likelihood="nb")
    model.train(N_EPOCHS, enable_progress_bar=False, accelerator="cpu")
    options = {"transform_batch": "0", "return_numpy": True}
    shares = model.get_normalized_expression(adata[data.second].copy(), **options)
    return library(data, data.second) * shares / shares[:, data.shared].sum(1, keepdims=True)


def gimvi(data: Hidden) -> NDArray:
    """Run gimVI with negative binomial counts in both datasets."""
    import scvi
    from scvi.external import GIMVI

    scvi.settings.seed = 0
    first, second = AnnData(data.x[~data.second]), AnnData(data.x[data.second][:, data.shared])
    first.var_names, second.var_names = data.genes, data.genes[data.shared]
    GIMVI.setup_anndata(first)
    GIMVI.setup_anndata(second)
    model = GIMVI(first, second, generative_distributions=["nb", "nb"])
    model.train(N_EPOCHS, enable_progress_bar=False, accelerator="cpu")
    shares = model.get_imputed_values(normalized=True)[1]
    return library(data, data.second) * shares / shares[:, data.shared].sum(1, keepdims=True)


PEERS: dict[str, Callable[[Hidden], NDArray]] = {
    "30 nearest neighbours": neighbours,
    "the same after Harmony": partial(neighbours, harmony=True),
    "ridge": ridge,
    "mean": mean,
    "mean of the true type": partial(types, oracle=False),
    "oracle: hidden mean of the type": partial(types, oracle=True),
    "gimVI": gimvi,
    "SCVI, zero-filled": scvi_zero_filled,
}
