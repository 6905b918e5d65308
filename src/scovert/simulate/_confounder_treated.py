"""What simulated treatments have in common: the tables of cells and genes, and the counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from scovert.core._checks import check_number

__all__ = ["LOG_2", "MIN_CELLS", "check_sizes", "draw_counts", "table_of_cells", "table_of_genes"]

LOG_2 = np.log(2)
MIN_CELLS = 20
"""With fewer, a binary variable may well be constant."""

_LARGEST_RATE = 1e7  # of the Poisson draws; float32 holds such counts exactly


def draw_counts(rng: np.random.Generator, mean: NDArray, dispersion: NDArray) -> sparse.csr_matrix:
    """Draw negative binomial counts with the variance ``mean + dispersion * mean**2``."""
    rate = mean * rng.gamma(1 / dispersion, dispersion, mean.shape)
    counts = rng.poisson(np.minimum(rate, _LARGEST_RATE))
    return sparse.csr_matrix(counts.astype(np.float32))


def table_of_cells(
    x: NDArray, treatment: NDArray, logit: NDArray, *, log_size: NDArray
) -> pd.DataFrame:
    """Columns of ``obs``; `x` has shape ``(n_cells, n_covariates)``."""
    columns = {"treatment": treatment.astype(bool)}
    columns |= {f"covariate_{i}": values for i, values in enumerate(x.T, 1)}
    columns |= {"size_factor": np.exp(log_size), "truth_logit": logit}
    return pd.DataFrame(columns, index=[f"cell_{i}" for i in range(len(x))])


def table_of_genes(effect: NDArray, intercept: NDArray, dispersion: NDArray) -> pd.DataFrame:
    """Columns of ``var``; `effect` and `intercept` are natural logarithms."""
    columns = {
        "truth_log2_fc": effect / LOG_2,
        "truth_is_de": effect != 0,
        "truth_intercept": intercept,
        "truth_inverse_dispersion": 1 / dispersion,
    }
    return pd.DataFrame(columns, index=[f"gene_{g}" for g in range(len(effect))])


def check_sizes(**sizes: tuple[int, int]) -> None:
    """Refuse what is not a whole number of at least the second entry."""
    for name, (value, smallest) in sizes.items():
        check_number(name, value, smallest, whole=True)
