"""True effects of a treatment by binomial thinning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scovert.core._counts import thin

__all__ = ["random_directions", "thin_one_arm"]


def random_directions(n_genes: int, fraction: float, rng: np.random.Generator) -> NDArray:
    """Direction of the effect on each gene, -1, 0 or 1, shape ``(n_genes,)``.

    A `fraction` of the genes has one, each sign with probability 1/2.
    """
    n_affected = round(fraction * n_genes)
    directions = np.zeros(n_genes)
    affected = rng.choice(n_genes, n_affected, replace=False)
    directions[affected] = rng.choice([-1, 1], n_affected)
    return directions


def thin_one_arm(
    counts: sparse.csr_matrix,
    is_treated: NDArray,
    directions: NDArray,
    fold_change: float,
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Divide the mean of one arm by `fold_change`, by taking single counts away at random.

    The treated cells lose counts of genes with a negative direction, the others those of genes
    with a positive one: the effect has the sign of the direction.
    """
    kept = np.ones((len(directions), 2))  # (n_genes, n_arms)
    kept[directions > 0, 0] = kept[directions < 0, 1] = 1 / fold_change
    return thin(counts, kept, is_treated.astype(int), rng)
