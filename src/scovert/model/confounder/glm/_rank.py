"""How many factors counts hold: sequential parallel analysis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from scovert.model.confounder.glm._blocks import CountBlocks
from scovert.model.confounder.glm._factors import Factors, improve_factors, pearson_residuals
from scovert.model.confounder.glm._independent import oriented
from scovert.model.confounder.glm._regression import ETA, fit_regression

__all__ = ["Scree", "choose_rank"]

MAX_FACTORS = 15
MAX_CELLS = 5_000
MAX_GENES = 2_000
N_PERMUTATIONS = 3
SLACK = 1.05
MAX_ROUNDS = 12
TOLERANCE = 2e-2


@dataclass(frozen=True)
class Scree:
    """How the number of factors was found.

    Attributes
    ----------
    n_factors
        The number.
    singular_value
        Largest singular value of the residuals with 0, 1, ... factors.
    threshold
        What it had to exceed for one factor more.
    factors
        The factors, or `None` if not all cells and genes were looked at.
    """

    n_factors: int
    singular_value: NDArray
    threshold: NDArray
    factors: Factors | None


def choose_rank(
    blocks: CountBlocks,
    design: NDArray,
    *,
    seed: int = 0,
    on_factor: Callable[[int], None] | None = None,
) -> Scree:
    """Add factors as long as the residuals hold more structure than chance would.

    Chance is what remains when the Pearson residuals of every gene are permuted over the cells;
    with a factor in the model its own curvature is no longer mistaken for further factors, as it
    is when all singular values of the first residuals are compared at once. Looks at 5,000 cells
    at most, at the 2,000 genes with the most counts, and at 15 factors.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Known covariates, the intercept in column 0, shape ``(n_cells, n_columns)``.
    seed
        Seed of the permutations and of the cells.
    on_factor
        Called with each number of factors that is looked at.

    Returns
    -------
    The number, and what it was compared with.
    """
    rng = np.random.default_rng(seed)
    are_all = blocks.n_cells <= MAX_CELLS and blocks.n_genes <= MAX_GENES
    if blocks.n_genes > MAX_GENES:
        blocks = blocks.genes(np.sort(np.argsort(-blocks.totals, kind="stable")[:MAX_GENES]))
    if blocks.n_cells > MAX_CELLS:
        rows = np.sort(rng.permutation(blocks.n_cells)[:MAX_CELLS])
        blocks, design = blocks.subset(rows), design[rows]
    most = min(MAX_FACTORS, (blocks.n_cells - design.shape[1]) // 10, blocks.n_genes // 5)
    few = fit_regression(blocks, design, tolerance=1e-3)
    scores = np.zeros((blocks.n_cells, 0))
    factors = Factors(scores, few.coefficients, few.dispersion)
    values, thresholds = [], []
    for k in range(most + 1):
        if on_factor is not None:
            on_factor(k)
        if k:
            factors, _ = improve_factors(
                blocks, design, factors, tolerance=TOLERANCE, max_rounds=MAX_ROUNDS
            )
        residuals = _residuals(blocks, np.hstack([design, factors.scores]), factors)
        value, vector = _largest(residuals, rng)
        by_chance = [
            _largest(rng.permuted(residuals, axis=0), rng)[0] for _ in range(N_PERMUTATIONS)
        ]
        values.append(value)
        thresholds.append(SLACK * max(by_chance))
        if value < thresholds[-1] or k == most:
            break
        factors = Factors(
            np.hstack([factors.scores, vector * len(vector) ** 0.5]),
            np.vstack([factors.coefficients, np.zeros(blocks.n_genes)]),
            factors.dispersion,
        )
    return Scree(k, np.asarray(values), np.asarray(thresholds), factors if are_all else None)


def _residuals(blocks: CountBlocks, columns: NDArray, factors: Factors) -> NDArray:
    """Pearson residuals of all cells."""
    x, b = blocks.tensor(columns), blocks.tensor(factors.coefficients)
    alpha = blocks.tensor(factors.dispersion)
    residuals = np.empty((blocks.n_cells, blocks.n_genes), np.float32)
    for rows, y in blocks:
        mean = torch.addmm(blocks.offset[rows], x[rows], b).clamp_(*ETA).exp_()
        residuals[rows] = pearson_residuals(y, mean, alpha, blocks.n_cells).cpu().numpy()
    return residuals


def _largest(matrix: NDArray, rng: np.random.Generator) -> tuple[float, NDArray]:
    """Largest singular value, and its left vector as a column."""
    if matrix.shape[1] == 1:
        size = float(np.linalg.norm(matrix))
        return size, matrix.astype(float) / max(size, 1e-12)
    start = rng.standard_normal(min(matrix.shape)).astype(matrix.dtype)
    left, value, _ = svds(matrix, 1, v0=start, tol=1e-4)
    return float(value[0]), oriented(left.astype(float))
