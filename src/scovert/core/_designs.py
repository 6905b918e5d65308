"""Whether covariates say something of their own: designs and their ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

__all__ = ["check_independent", "one_hot", "rank_of", "standardised"]


def check_independent(
    adata: AnnData,
    batch_key: str,
    categorical: Sequence[str] | None,
    continuous: Sequence[str] | None,
) -> None:
    """Refuse a covariate that the dataset and the covariates before it determine."""
    design = [np.ones((adata.n_obs, 1)), one_hot(adata.obs[batch_key])]
    before = [batch_key]
    for key in [*(categorical or []), *(continuous or [])]:
        column = adata.obs[key]
        is_number = key in (continuous or [])
        added = standardised(column) if is_number else one_hot(column)
        gain = rank_of([*design, added]) - rank_of(design)
        if gain < (1 if is_number else added.shape[1] - 1):
            raise ValueError(
                f"The covariate `adata.obs[{key!r}]` is collinear with {before}: its effect "
                "cannot be told from theirs, and correcting for the dataset would leave part of "
                f"it in. Leave {key!r} out, or pass it as `batch_key` instead."
            )
        design.append(added)
        before.append(key)


def one_hot(column: pd.Series) -> sp.csr_matrix:
    """Return an indicator of each level, shape ``(n_cells, n_levels)``."""
    codes, levels = pd.factorize(column)
    ones = np.ones(len(codes))
    return sp.csr_matrix((ones, (np.arange(len(codes)), codes)), shape=(len(codes), len(levels)))


def standardised(column: pd.Series) -> NDArray:
    """Return numbers with mean 0 and standard deviation 1, shape ``(n_cells, 1)``."""
    values = column.to_numpy(float)
    return ((values - values.mean()) / (values.std() or 1.0))[:, None]


def rank_of(blocks: list[NDArray | sp.csr_matrix]) -> int:
    """Return the rank of a design, given as blocks of columns."""
    design = sp.hstack([sp.csr_matrix(b) for b in blocks]).tocsr()
    gram = (design.T @ design).toarray() / design.shape[0]
    return int(np.linalg.matrix_rank(gram, tol=1e-9, hermitian=True))
