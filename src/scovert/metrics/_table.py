"""One table of scores for the embeddings of an AnnData."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scovert.core._checks import check_categorical
from scovert.metrics._integration import invaded_share, purity
from scovert.metrics._panel import integration_panel

__all__ = ["integration"]


def integration(
    adata: AnnData,
    *,
    batch_key: str,
    labels_key: str,
    use_rep: str | Sequence[str] | None = None,
    n_init: int = 50,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare embeddings of the same cells, each with all scores of an integration.

    Parameters
    ----------
    adata
        Cells of two or more datasets with embeddings in ``adata.obsm``.
    batch_key, labels_key
        Columns of ``adata.obs`` with the dataset and the type of each cell.
    use_rep
        Slot of ``adata.obsm``, or several; `None` takes all whose name begins with ``X_`` but maps
        for the eye (two columns).
    n_init, seed
        As in :func:`integration_panel`.

    Returns
    -------
    DataFrame with a row for each embedding, the best total first, and as columns the scores of
    :func:`integration_panel`; where a dataset lacks a type also ``invaded`` and ``purity``
    (:func:`invaded_share`, :func:`purity`). All are better the higher, but ``invaded``.

    Raises
    ------
    KeyError
        If a key or a slot is missing, or no slot is found.
    ValueError
        If the embeddings or labels do not suit the scores.

    Examples
    --------
    >>> import scovert
    >>> adata = scovert.simulate.paired((120, 90))
    >>> adata.obsm["X_aligned"] = scovert.anchors.align(adata, "batch")
    >>> table = scovert.metrics.integration(adata, batch_key="batch", labels_key="cell_type")
    >>> table.index.tolist()
    ['X_aligned']
    """
    check_categorical(adata, batch_key, "batch_key")
    check_categorical(adata, labels_key, "labels_key")
    batch, labels = (adata.obs[key].astype(str).to_numpy() for key in (batch_key, labels_key))
    lacks_types = (pd.crosstab(labels, batch) == 0).any(axis=None)
    rows = {}
    for slot in _slots(adata, use_rep):
        points = np.asarray(adata.obsm[slot])
        panel = integration_panel(points, batch, labels, n_init=n_init, seed=seed)
        rows[slot] = panel["value"].to_dict()
        if lacks_types:
            rows[slot]["invaded"] = invaded_share(points, batch, labels)
            rows[slot]["purity"] = purity(points, batch, labels)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("embedding")
    return table.sort_values("total", ascending=False, kind="stable")


def _slots(adata: AnnData, use_rep: str | Sequence[str] | None) -> list[str]:
    """Names of the embeddings."""
    if use_rep is None:
        found = [k for k, v in adata.obsm.items() if k.startswith("X_") and v.shape[1] > 2]
    else:
        found = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    missing = [slot for slot in found if slot not in adata.obsm]
    if missing or not found:
        raise KeyError(
            f"`use_rep={use_rep!r}`: {missing or 'no embedding'} in `adata.obsm` (slots: "
            f"{list(adata.obsm)}). Name slots, or write one first, for example with "
            "`model.annotate()`."
        )
    return found
