"""Cells of datasets that a model has not seen: which columns are read, and their support."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from scovert.anchors import find_anchors
from scovert.anchors._find import MAX_CELLS
from scovert.anchors._space import sample
from scovert.core._counts import as_csr
from scovert.core._minibatch import read_query
from scovert.core._registered import check_seen
from scovert.core.dataloaders._cells import Cells

__all__ = ["UNREAD_BY_DECODER", "UNREAD_BY_ENCODER", "new_support"]

UNREAD_BY_DECODER = (REGISTRY_KEYS.BATCH_KEY,)
"""What a shared decoder does not need of a cell that it decodes as another dataset."""

UNREAD_BY_ENCODER = (*UNREAD_BY_DECODER, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY)
"""What a shared encoder does not need of a cell."""


def new_support(model: object, known: Cells, datasets: NDArray, adata: AnnData) -> pd.DataFrame:
    """Support of new cells in the datasets of a model.

    Anchors are sought between the new cells and those of the model, at most 50,000 of these.

    Parameters
    ----------
    model
        A trained PairedVAE.
    known
        Its cells.
    datasets
        Names of its datasets.
    adata
        The new cells, of datasets that the model knows or not.

    Returns
    -------
    DataFrame of cells x datasets, NaN in the column of the cell's own dataset if it has one.
    """
    _, cells = read_query(model, adata, UNREAD_BY_ENCODER)
    key = model.registry["setup_args"]["batch_key"]
    labels = np.asarray(adata.obs[key])
    codes = pd.Index(datasets).get_indexer(labels)
    is_unseen = codes < 0
    if is_unseen.any() and {*map(str, labels)} <= {*map(str, datasets)}:
        check_seen(adata.obs[key], key, datasets)  # the same in another type
    codes[is_unseen] = len(datasets) + pd.factorize(labels[is_unseen], sort=True)[0]
    rows = np.sort(np.concatenate(sample(known.batch, np.ones(len(known), bool), MAX_CELLS, 0)))
    counts = sp.vstack([_counts(known, rows), _counts(cells, np.arange(len(cells)))], "csr")
    found = find_anchors(counts, np.concatenate([known.batch[rows], codes]))
    support = found.support[len(rows) :, : len(datasets)]
    return pd.DataFrame(support, index=adata.obs_names, columns=datasets)


def _counts(cells: Cells, rows: NDArray) -> sp.csr_matrix:
    counts = as_csr(cells.counts[rows])
    return counts if cells.genes is None else counts[:, cells.genes]
