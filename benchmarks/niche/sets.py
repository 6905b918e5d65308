"""Slides with regions drawn by others, and simulated tissue."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.data import read
from scovert.model.niche._graph import nearest_neighbors
from scovert.simulate import niche

__all__ = ["K", "SETS", "Tissue", "tissue"]

K = 20
"""Neighbours of a cell, for all methods."""
LARGEST = 10.0
"""Standard deviations at which features are clipped."""


class Tissue(NamedTuple):
    """Cells with regions.

    Attributes
    ----------
    adata
        Cells with ``obs["section"]``, ``obs["region"]`` (empty where unknown), and
        ``obs["cell_type"]`` if types are known.
    is_count
        Whether ``X`` holds counts.
    f
        Features, of the section where there are several: transformed, mean 0 and sd 1.
    pooled
        The same, of all sections together.
    graph
        Neighbours, shape ``(n_cells, 20)``.
    """

    adata: AnnData
    is_count: bool
    f: NDArray
    pooled: NDArray
    graph: NDArray

    @property
    def region(self) -> NDArray:
        return self.adata.obs["region"].astype(str).to_numpy()

    @property
    def section(self) -> NDArray:
        return pd.factorize(self.adata.obs["section"].astype(str), sort=True)[0]


class Source(NamedTuple):
    """Where a set comes from."""

    file: str | None
    about: str
    make: Callable[[], AnnData]


def islet() -> AnnData:
    adata = read("spatial_imc_islet_channels")
    adata.obs["section"] = adata.obs["image"].astype(str)
    adata.obs["region"] = np.where(adata.obs["in_islet"], "islet", "other")
    return adata


def osmfish() -> AnnData:
    adata = read("spatial_osmfish_cortex")
    adata.obs["section"] = "one"
    return adata


def starmap() -> AnnData:
    adata = read("spatial_starmap_mpfc")
    adata.obs["section"] = adata.obs["batch"].astype(str)
    return adata


def simulated() -> AnnData:
    adata = niche(2000, 3)
    adata.obs["section"], adata.obs["region"] = adata.obs["sample"], adata.obs["truth_region"]
    return adata


SETS = {
    "islet": Source("spatial_imc_islet_channels", "imaging mass cytometry, one image", islet),
    "osmfish": Source("spatial_osmfish_cortex", "cortex, 33 genes, 11 regions", osmfish),
    "starmap": Source("spatial_starmap_mpfc", "cortex, 158 genes, 3 sections, 4 layers", starmap),
    "simulated": Source(None, "3 sections, 4 regions with equal means in pairs", simulated),
}


@lru_cache(maxsize=1)
def tissue(name: str) -> Tissue:
    """Return a set with its features and neighbours."""
    adata = SETS[name].make()
    x = np.asarray(adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X, np.float32)
    is_count = bool((x == x.round()).all())
    if is_count:
        total = x.sum(1, keepdims=True)
        x = np.log1p(x / np.maximum(total, 1) * np.median(total[total > 0]))
    else:
        x = np.arcsinh(x)
    section = pd.factorize(adata.obs["section"].astype(str), sort=True)[0]
    graph = nearest_neighbors(adata.obsm["spatial"], section, K)
    pooled = _standardised(x, np.zeros_like(section))
    return Tissue(adata, is_count, _standardised(x, section), pooled, graph)


def _standardised(x: NDArray, group: NDArray) -> NDArray:
    f = x.copy()
    for g in np.unique(group):
        own = group == g
        f[own] = (f[own] - f[own].mean(0)) / np.maximum(f[own].std(0), 1e-6)
    return np.clip(f, -LARGEST, LARGEST)
