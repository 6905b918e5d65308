"""Real counts without a download."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

__all__ = ["pbmc68k"]

_LARGEST_DISTANCE = 0.2  # of a recovered count to the next integer; 0.11 in the bundled file
_SOURCE = (
    "700 blood cells x 765 genes of the 68k PBMC data (Zheng et al. 2017, 10.1038/ncomms14049), "
    "bundled with scanpy as pbmc68k_reduced; counts recovered from the stored log1p values."
)


def pbmc68k() -> AnnData:
    r"""Load 700 blood cells x 765 genes as integer counts :cite:p:`Zheng17`.

    The file is a part of scanpy :cite:p:`Wolf18`, so nothing is downloaded. It stores
    :math:`y_{ig} = \log(1 + 10^4 x_{ig} / n_i)`, rounded to three decimals, where :math:`n_i` is
    the total count of cell i over all genes of the full data. In every cell the smallest
    non-zero value belongs to a single count, so the counts are

    .. math:: x_{ig} = \mathrm{round}\left(
        \frac{e^{y_{ig}} - 1}{\min_{h: y_{ih} > 0} (e^{y_{ih}} - 1)} \right).

    The rounding of the stored values moves a count by 0.13 at most, so this is exact.

    Returns
    -------
    AnnData with raw counts in ``X`` (CSR, float32), the ten cell types of the authors in
    ``obs["cell_type"]`` and the origin in ``uns["source"]``.

    Raises
    ------
    ValueError
        If the file of the installed scanpy does not hold counts in this form.

    Notes
    -----
    The labels come from the correlation with sorted cells and confuse subtypes of T cells. The
    smallest type has eight cells. The genes are a selection with a fifth of all counts.

    Examples
    --------
    >>> from scovert.data import pbmc68k
    >>> pbmc68k().shape
    (700, 765)
    """
    import scanpy as sc  # here, because it costs a second or more

    stored = sc.datasets.pbmc68k_reduced()
    return AnnData(
        _counts_from_log(sparse.csr_matrix(stored.raw.X).sorted_indices()),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(stored.obs["bulk_labels"])},
            index=stored.obs_names.rename(None),
        ),
        var=pd.DataFrame(index=stored.raw.var_names.rename(None)),
        uns={"source": _SOURCE},
    )


def _counts_from_log(log_values: sparse.csr_matrix) -> sparse.csr_matrix:
    """Undo ``log1p`` of counts divided by a size factor; each row needs a value of one count."""
    linear = np.expm1(log_values.data.astype(np.float64))
    one_count = np.minimum.reduceat(linear, log_values.indptr[:-1])  # (n_cells,)
    counts = linear / np.repeat(one_count, np.diff(log_values.indptr))  # (n_stored,)
    distance = np.abs(counts - np.rint(counts)).max()
    if not distance <= _LARGEST_DISTANCE:
        raise ValueError(
            f"The values of scanpy's `pbmc68k_reduced` are up to {distance:.2f} away from whole "
            f"counts. At most {_LARGEST_DISTANCE} is accepted. The file has changed: install "
            "scanpy 1.11, or read counts of your own."
        )
    values = np.rint(counts).astype(np.float32)
    return sparse.csr_matrix((values, log_values.indices, log_values.indptr), log_values.shape)
