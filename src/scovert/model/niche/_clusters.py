"""Niches: cells with alike surroundings."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.cluster import KMeans

__all__ = ["find_niches"]

N_STARTS = 5
"""Starts of k-means."""
N_NEIGHBORS = 15
"""Neighbours in the graph for Leiden, as by default in scanpy."""


def find_niches(
    places: NDArray, n_niches: int | None, *, resolution: float, seed: int
) -> pd.Categorical:
    """Cluster cells by what is around them.

    Parameters
    ----------
    places
        Places on the energy map, shape ``(n_cells, n_axes)``.
    n_niches
        Number of niches, by k-means; `None` takes Leiden.
    resolution
        Of Leiden, the larger the more niches.
    seed
        Seed of either.

    Returns
    -------
    Names ``"0"``, ``"1"``, ... of the niches, the largest first.
    """
    if n_niches is None:
        codes = _leiden(places, resolution, seed)
    else:
        codes = KMeans(n_niches, n_init=N_STARTS, random_state=seed).fit_predict(places)
    order = np.argsort(-np.bincount(codes), kind="stable")
    return pd.Categorical.from_codes(np.argsort(order)[codes], [str(i) for i in range(len(order))])


def _leiden(places: NDArray, resolution: float, seed: int) -> NDArray:
    import scanpy as sc

    found = AnnData(obsm={"X_niche": places})
    k = min(N_NEIGHBORS, len(places) - 1)
    sc.pp.neighbors(found, n_neighbors=k, use_rep="X_niche", random_state=seed)
    options = {"flavor": "igraph", "n_iterations": 2, "directed": False}
    sc.tl.leiden(found, resolution=resolution, random_state=seed, **options)
    return found.obs["leiden"].cat.codes.to_numpy()
