"""Integration without a network: principal components from which shifts are taken."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.anchors._classes import Classes
from scovert.anchors._find import N_COMPONENTS
from scovert.anchors._space import by_row, components_of, log_normalise, nudged
from scovert.core._checks import check_batches, check_layer
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts

__all__ = ["align"]


def align(adata: AnnData, batch_key: str, *, layer: str | None = None, seed: int = 0) -> NDArray:
    """Bring datasets together without a network, in seconds.

    Principal components of log-normalised counts, from which a mixture of classes that the
    datasets share takes the shift of each dataset. It is the space in which :func:`find_anchors`
    looks, for where Harmony :cite:p:`Korsunsky19` is used; :class:`~scovert.model.PairedVAE` joins
    the datasets more closely, above all four and more of them.

    Parameters
    ----------
    adata
        Cells of two or more datasets with raw counts, of genes that vary.
    batch_key
        Column of ``adata.obs`` with the dataset of each cell.
    layer
        Layer with the raw counts; `None` means ``adata.X``, ``"raw"`` the genes of `adata` in
        ``adata.raw``.
    seed
        Seed of the components and of the classes.

    Returns
    -------
    Array of shape ``(n_cells, n_components)``, float32: 20 components, or more as far as they
    stand out from noise, at most 30.

    Raises
    ------
    KeyError
        If the key or the layer does not exist.
    ValueError
        If the counts are not counts, a cell has no dataset, or there are not two.

    Examples
    --------
    >>> import scovert
    >>> adata = scovert.data.two_batches(scovert.data.pbmc68k())
    >>> adata.obsm["X_aligned"] = scovert.anchors.align(adata, "batch")
    """
    where = check_layer(adata, layer)
    check_batches(adata, batch_key)
    counts = get_counts(adata, layer)
    check_counts(counts, where, adata)
    batch = pd.factorize(np.asarray(adata.obs[batch_key]), sort=True)[0]
    found = components_of(by_row(counts), log_normalise, N_COMPONENTS, seed=seed)
    components = nudged(found, seed)
    return Classes.fit(components, batch, seed).corrected(components, batch)
