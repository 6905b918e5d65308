"""Distances of samples by the taxa in them, exact."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from scovert.core.trees._branches import Branches

__all__ = ["bray_curtis", "shares", "unifrac"]


def shares(counts: NDArray | sp.spmatrix) -> sp.csr_matrix:
    """Divide counts by the total of their sample; of an empty sample all shares are 0."""
    counts = sp.csr_matrix(counts, dtype=float)
    total = np.asarray(counts.sum(1)).ravel()
    return sp.csr_matrix(sp.diags(1 / np.where(total > 0, total, 1)) @ counts)


def unifrac(counts: NDArray | sp.spmatrix, branches: Branches, *, weighted: bool) -> NDArray:
    r"""UniFrac distances :cite:p:`Lozupone05`.

    With :math:`B_{ib}` the share of the counts of sample i below branch b of length
    :math:`\ell_b`,

    .. math::

        d_{ij} = \frac{\sum_b \ell_b |B_{ib} - B_{jb}|}{\sum_b \ell_b (B_{ib} + B_{jb})}
        \quad\text{or}\quad
        1 - \frac{\sum_b \ell_b [B_{ib} > 0][B_{jb} > 0]}
        {\sum_b \ell_b [B_{ib} + B_{jb} > 0]},

    weighted and normalised :cite:p:`Lozupone07`, or unweighted.

    Parameters
    ----------
    counts
        Counts of taxa, shape ``(n_samples, n_taxa)``.
    branches
        Branches above the taxa.
    weighted
        By the abundance below a branch, or by its presence.

    Returns
    -------
    Shape ``(n_samples, n_samples)``, in [0, 1]; 0 between two empty samples.
    """
    below = (shares(counts) @ branches.above).toarray()  # (n_samples, n_branches)
    if weighted:
        below *= branches.length
        distance, total = cdist(below, below, "cityblock"), below.sum(1)
        whole = total[:, None] + total
    else:
        present = (below > 0).astype(float)
        both = (present * branches.length) @ present.T
        total = present @ branches.length
        whole = total[:, None] + total - both
        distance = whole - both
    return _symmetric(distance / np.where(whole > 0, whole, 1))


def bray_curtis(counts: NDArray | sp.spmatrix) -> NDArray:
    """Bray-Curtis distances of the shares of taxa, shape ``(n_samples, n_samples)``."""
    dense = shares(counts).toarray()
    return _symmetric(cdist(dense, dense, "cityblock") / 2)


def _symmetric(distance: NDArray) -> NDArray:
    """Remove what rounding left."""
    distance = np.clip((distance + distance.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    return distance
