"""How many factors counts hold: sequential parallel analysis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from scovert.model.confounder.glm._blocks import CountBlocks
from scovert.model.confounder.glm._factors import (
    Factors,
    improve_factors,
    pearson_residuals,
    project_scores,
)
from scovert.model.confounder.glm._independent import oriented
from scovert.model.confounder.glm._regression import ETA, fit_regression, start_values

__all__ = ["Scree", "choose_rank"]

MAX_FACTORS = 15
"""Most factors: the search for classes needs no more, and each costs a round of the whole fit."""

MAX_CELLS, MAX_GENES = 2_000, 1_000
"""Counted with so many cells and genes at most: their number is what the search costs."""

N_FIRST, N_PERMUTATIONS = 2, 3
"""Permutations of the first residuals, and of those whose structure is close to chance."""

CLOSE = 1.25
"""Ratio to the threshold below which residuals are permuted anew: it falls by a few per cent."""

SLACK = 1.05
"""Ratio to the largest of two or three permutations, for those that were not drawn."""

MAX_TOGETHER = 6
"""Factors that are added together at most, so that residuals are looked at again before 15."""

SHARE_OF_LARGEST = 0.7
"""Excess over the threshold, as a share of the largest, of factors that are added together. The
curvature of three factors that are alike has exceeded half."""

MAX_ROUNDS, TOLERANCE = 4, 2e-2
"""Rounds after each addition, and change of the scores that ends them: only singular values are
looked at."""


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
        The factors of all cells and genes, to start from.
    """

    n_factors: int
    singular_value: NDArray
    threshold: NDArray
    factors: Factors


def choose_rank(
    blocks: CountBlocks,
    design: NDArray,
    *,
    seed: int = 0,
    on_factor: Callable[[int, int], None] | None = None,
) -> Scree:
    """Add factors as long as the residuals hold more structure than chance would.

    Chance is what remains when the Pearson residuals of every gene are permuted over the cells;
    with factors in the model their own curvature is no longer mistaken for further ones, as it is
    when all singular values of the first residuals are compared at once. So only those that
    exceed chance nearly as much as the largest are added together. Looks at 2,000 cells
    at most, at the 1,000 genes with the most counts, and at 15 factors.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Known covariates, the intercept in column 0, shape ``(n_cells, n_columns)``.
    seed
        Seed of the permutations and of the cells.
    on_factor
        Called with each number of factors that is looked at, and the largest that would be.

    Returns
    -------
    The number, and what it was compared with.
    """
    rng = np.random.default_rng(seed)
    genes = np.sort(np.argsort(-blocks.totals, kind="stable")[:MAX_GENES])
    rows = np.sort(rng.permutation(blocks.n_cells)[:MAX_CELLS])
    seen = blocks.genes(genes) if len(genes) < blocks.n_genes else blocks
    few = seen.subset(rows) if len(rows) < blocks.n_cells else seen
    scree = _search(few, design[rows], rng, on_factor)
    if few is blocks or scree.n_factors == 0:
        return scree
    return replace(scree, factors=_of_all(blocks, seen, design, genes, scree.factors))


def _search(
    blocks: CountBlocks,
    design: NDArray,
    rng: np.random.Generator,
    on_factor: Callable[[int, int], None] | None,
) -> Scree:
    """Add factors, those that stand out alike at once, until the residuals look like chance."""
    most = min(MAX_FACTORS, (blocks.n_cells - design.shape[1]) // 10, blocks.n_genes // 5)
    plain = fit_regression(blocks, design, tolerance=0.1)
    factors = Factors(np.zeros((blocks.n_cells, 0)), plain.coefficients, plain.dispersion)
    values, thresholds, threshold = [], [], None
    while True:
        k = factors.scores.shape[1]
        if on_factor is not None:
            on_factor(k, most)
        residuals = _residuals(blocks, np.hstack([design, factors.scores]), factors)
        found, vectors = _largest(residuals, np.clip(most - k, 1, MAX_TOGETHER), rng)
        if threshold is None or found[0] < CLOSE * threshold:
            n_permutations = N_FIRST if threshold is None else N_PERMUTATIONS
            threshold = _by_chance(residuals, n_permutations, rng)
        excess, is_last = found - threshold, found[0] < threshold or k == most
        is_new = np.arange(len(found)) == 0
        if not is_last:
            is_new = excess >= SHARE_OF_LARGEST * excess[0]
        values += list(found[is_new])
        thresholds += [threshold] * int(is_new.sum())
        if is_last:
            return Scree(k, np.asarray(values), np.asarray(thresholds), factors)
        factors = _with_more(factors, vectors[:, is_new])
        options = {"tolerance": TOLERANCE, "max_rounds": MAX_ROUNDS}
        factors, _ = improve_factors(blocks, design, factors, **options)


def _with_more(factors: Factors, vectors: NDArray) -> Factors:
    """Add unit vectors to the scores, with loadings of zero."""
    n_cells, n_more = vectors.shape
    loadings = np.zeros((n_more, factors.coefficients.shape[1]))
    return factors._replace(
        scores=np.hstack([factors.scores, vectors * n_cells**0.5]),
        coefficients=np.vstack([factors.coefficients, loadings]),
    )


def _of_all(
    blocks: CountBlocks, seen: CountBlocks, design: NDArray, genes: NDArray, factors: Factors
) -> Factors:
    """Return factors of all cells and genes by those of some: to start from, not converged."""
    scores = project_scores(seen, design, factors)
    coefficients, dispersion = start_values(blocks, design.shape[1] + scores.shape[1])
    coefficients[:, genes], dispersion[genes] = factors.coefficients, factors.dispersion
    return Factors(scores, coefficients, dispersion)


def _residuals(blocks: CountBlocks, columns: NDArray, factors: Factors) -> NDArray:
    """Pearson residuals of all cells."""
    x, b = blocks.tensor(columns), blocks.tensor(factors.coefficients)
    alpha = blocks.tensor(factors.dispersion)
    residuals = np.empty((blocks.n_cells, blocks.n_genes), np.float32)
    for rows, y in blocks:
        mean = torch.addmm(blocks.offset[rows], x[rows], b).clamp_(*ETA).exp_()
        residuals[rows] = pearson_residuals(y, mean, alpha, blocks.n_cells).cpu().numpy()
    return residuals


def _by_chance(residuals: NDArray, n: int, rng: np.random.Generator) -> float:
    """Return what a singular value has to exceed: the largest of permuted residuals, and slack."""
    permuted = (rng.permuted(residuals, axis=0) for _ in range(n))
    return SLACK * max(_largest(matrix, 1, rng)[0][0] for matrix in permuted)


def _largest(matrix: NDArray, n: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """Largest singular values, the first the largest, and their left vectors as columns."""
    if min(matrix.shape) <= n:
        left, value, _ = np.linalg.svd(matrix.astype(float), full_matrices=False)
    else:
        start = rng.standard_normal(min(matrix.shape)).astype(matrix.dtype)
        left, value, _ = svds(matrix, n, v0=start, tol=1e-4)
        left, value = left[:, ::-1], value[::-1]
    return value[:n].astype(float), oriented(left[:, :n].astype(float))
