"""Niches: cells with alike surroundings."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

__all__ = ["annotated_options", "find_niches"]

N_STARTS = 5
"""Starts of k-means."""
N_NEIGHBORS = 15
"""Neighbours in the graph for Leiden, as by default in scanpy."""


def find_niches(
    places: NDArray,
    n_niches: int | None,
    *,
    resolution: float,
    seed: int,
    new: NDArray | None = None,
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
    new
        Places of other cells: they go to the cluster with the nearest centre, or of Leiden to
        that of the nearest cell.

    Returns
    -------
    Names ``"0"``, ``"1"``, ... of the niches of the cells, or of the new ones if there are any;
    the niche with most of `places` first.
    """
    if n_niches is None:
        codes = _leiden(places, resolution, seed)
        of_new = None if new is None else codes[_nearest(places, new)]
    else:
        clusters = KMeans(n_niches, n_init=N_STARTS, random_state=seed).fit(places)
        codes = clusters.labels_
        of_new = None if new is None else clusters.predict(new)
    order = np.argsort(-np.bincount(codes), kind="stable")
    found = np.argsort(order)[codes if of_new is None else of_new]
    return pd.Categorical.from_codes(found, [str(i) for i in range(len(order))])


def annotated_options(adata: AnnData) -> dict[str, object]:
    """Return how the niches in an AnnData were found; ten by k-means if there are none."""
    record = adata.uns.get("niche", {})
    params = record.get("params", {}) if record.get("model") == "NicheVAE" else {"n_niches": 10}
    # What was `None` is not in the record.
    return {"n_niches": params.get("n_niches"), "resolution": params.get("resolution", 0.1)}


def _nearest(places: NDArray, new: NDArray) -> NDArray:
    """Return the row of the nearest of `places` for each new one."""
    search = NearestNeighbors(n_neighbors=1).fit(places)
    return search.kneighbors(new, return_distance=False).ravel()


def _leiden(places: NDArray, resolution: float, seed: int) -> NDArray:
    import scanpy as sc

    found = AnnData(obsm={"X_niche": places})
    k = min(N_NEIGHBORS, len(places) - 1)
    sc.pp.neighbors(found, n_neighbors=k, use_rep="X_niche", random_state=seed)
    options = {"flavor": "igraph", "n_iterations": 2, "directed": False}
    sc.tl.leiden(found, resolution=resolution, random_state=seed, **options)
    return found.obs["leiden"].cat.codes.to_numpy()
