"""Other ways to describe what is around a cell, in the few lines that each takes.

Written from the papers, but for nichepca, whose package is run too where it is installed; packages
add their own choice of neighbours and of clusters.
"""

from __future__ import annotations

import harmonypy
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from benchmarks.niche.sets import K, Tissue
from scovert.model.niche._energy import energy_map
from scovert.model.niche._states import initial_states, means_of

__all__ = ["PACKAGE", "PEERS", "mean_around", "nichepca_axes"]

N_COMPONENTS, N_STATES = 20, 32
PACKAGE, N_PACKAGE_COMPONENTS = "nichepca, package", 30
"""Method that needs a package, and components that it takes by default."""


def components(x: NDArray) -> NDArray:
    return PCA(min(N_COMPONENTS, x.shape[1]), svd_solver="full").fit_transform(x)


def mean_around(values: NDArray, graph: NDArray, *, with_self: bool) -> NDArray:
    """Mean over the neighbours, and over the cell itself."""
    is_one = graph >= 0
    total = np.where(is_one[..., None], values[graph], 0).sum(1)
    n = is_one.sum(1, keepdims=True)
    return (total + values) / (n + 1) if with_self else total / np.maximum(n, 1)


def cell(t: Tissue, seed: int) -> NDArray:
    """Take principal components of the cell alone."""
    return components(t.f)


def composition(t: Tissue, seed: int) -> NDArray:
    """Shares of given cell types among the neighbours."""
    types = pd.get_dummies(t.adata.obs["cell_type"].astype(str)).to_numpy(np.float32)
    return mean_around(types, t.graph, with_self=False)


def nichepca(t: Tissue, seed: int) -> NDArray:
    """Take principal components of means over cell and neighbours, sections scaled alike."""
    return components(mean_around(t.pooled, t.graph, with_self=True))


def nichepca_by_section(t: Tissue, seed: int) -> NDArray:
    """Do the same, each section scaled by itself."""
    return components(mean_around(t.f, t.graph, with_self=True))


def nichepca_axes(f: NDArray, graph: NDArray) -> PCA:
    """Fit the components, for sections that they have not seen."""
    means = mean_around(f, graph, with_self=True)
    return PCA(min(N_COMPONENTS, f.shape[1]), svd_solver="full").fit(means)


def nichepca_harmony(t: Tissue, seed: int) -> NDArray:
    """Do the same with Harmony over the sections."""
    found = nichepca_by_section(t, seed).astype(np.float64)
    if t.section.max() == 0:
        return found
    batch = pd.DataFrame({"section": t.section.astype(str)})
    result = harmonypy.run_harmony(found, batch, "section", random_state=seed, verbose=False)
    corrected = np.asarray(result.Z_corr)
    return corrected if corrected.shape == found.shape else corrected.T


def nichepca_package(t: Tissue, seed: int) -> NDArray:
    """Run the package with its own settings; its Harmony needs harmonypy before 1."""
    from nichepca.workflows import nichepca

    adata = t.adata.copy()
    steps = ("norm", "log1p", "agg", "pca") if t.is_count else ("agg", "pca")
    if not t.is_count:
        adata.X = np.arcsinh(adata.X)
    sample_key = "section" if t.section.max() > 0 else None
    n_comps = min(N_PACKAGE_COMPONENTS, adata.n_vars - 1)
    nichepca(adata, knn=K, n_comps=n_comps, sample_key=sample_key, pipeline=steps)
    return np.asarray(adata.obsm["X_npca"])


def banksy(t: Tissue, seed: int) -> NDArray:
    """BANKSY, lambda .8: own expression, mean and azimuthal gradient of the neighbours."""
    own, mean = t.pooled, mean_around(t.pooled, t.graph, with_self=False)
    positions = np.asarray(t.adata.obsm["spatial"], float)
    shift = positions[t.graph] - positions[:, None]
    angle = np.arctan2(shift[..., 1], shift[..., 0])[..., None]  # (n_cells, n_neighbors, 1)
    away = np.where((t.graph >= 0)[..., None], t.pooled[t.graph] - mean[:, None], 0)
    gradient = np.hypot((away * np.cos(angle)).mean(1), (away * np.sin(angle)).mean(1))
    lam = 0.8
    parts = [np.sqrt(1 - lam) * own, np.sqrt(lam / 1.5) * scaled(mean)]
    return components(np.hstack([*parts, np.sqrt(lam / 3) * scaled(gradient)]))


def cellcharter(t: Tissue, seed: int) -> NDArray:
    """CellCharter: components of the cell, and means of three rings of a 6-neighbour graph."""
    own, near = components(t.pooled), t.graph[:, :6]
    is_one, n = near >= 0, len(near)
    rows = np.repeat(np.arange(n), is_one.sum(1))
    graph = sp.csr_matrix((np.ones(len(rows)), (rows, near[is_one])), (n, n))
    graph = ((graph + graph.T) > 0).astype(float)
    ring = seen = sp.identity(n, format="csr")
    parts = [own]
    for _ in range(3):
        reached = ((ring @ graph) > 0).astype(float)
        ring = reached - reached.multiply(seen > 0)
        ring.eliminate_zeros()
        seen = ((seen + ring) > 0).astype(float)
        parts.append(np.asarray(ring @ own) / np.maximum(ring.sum(1).A1, 1)[:, None])
    return np.hstack(parts)


def utag(t: Tissue, seed: int) -> NDArray:
    """UTAG: features multiplied with the row-normalised neighbour graph."""
    return mean_around(t.pooled, t.graph, with_self=True)


def states(t: Tissue, seed: int) -> NDArray:
    """K-means states of the cells, their shares around a cell, and the energy map: no network."""
    cluster = initial_states(t.f, N_STATES, seed)
    shares = mean_around(np.eye(N_STATES)[cluster], t.graph, with_self=True)
    return shares @ energy_map(means_of(t.f, cluster, N_STATES))


def scaled(x: NDArray) -> NDArray:
    return (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)


PEERS = {
    "cell alone": cell,
    "composition of given types": composition,
    "nichepca": nichepca,
    "nichepca, by section": nichepca_by_section,
    "nichepca, by section, Harmony": nichepca_harmony,
    PACKAGE: nichepca_package,
    "BANKSY, lambda .8": banksy,
    "CellCharter-like": cellcharter,
    "UTAG-like": utag,
    "states without a network": states,
}
