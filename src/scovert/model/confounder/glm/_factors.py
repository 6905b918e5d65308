"""Factor model of counts: latent scores of the cells, orthogonal to the design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.model.confounder.glm._blocks import CountBlocks
from scovert.model.confounder.glm._independent import oriented
from scovert.model.confounder.glm._regression import (
    ETA,
    RIDGE,
    GeneSums,
    Regression,
    fit_regression,
)
from scovert.model.confounder.glm._sums import Triangle

__all__ = [
    "FactorFit",
    "Factors",
    "fit_factors",
    "improve_factors",
    "pearson_residuals",
    "project_scores",
    "start_from_residuals",
]

LOADING_PENALTY = 1.0
"""Precision of a loading, natural log scale, for scores of variance 1: a factor that changes a
gene threefold is usual, one that changes it twentyfold is three deviations off."""

SCORE_RANGE, LONGEST_STEP = 6.0, 1.0
"""Largest score and step of one, in standard deviations: beyond, a cell has too few counts."""

MAX_FEW_CELLS = 10_000
"""Above these cells the scores start from a fit of some of them."""

N_START_CELLS = 5_000
"""These cells: loadings then have a third of the error that 500 cells would leave."""

FIRST_STEPS = 2
"""Steps of the genes before the first round."""

PROJECTION_STEPS = 10
"""Steps for the scores of other cells, from 0: each leaves a third of what was missing."""

SETTLED_ROUNDS, SETTLED_GAIN = 3, 1e-5
"""Rounds that together have to lower the deviance by this share of it."""

FINAL_STEPS, FINAL_TOLERANCE = 6, 0.05
"""Of the regression on the scores, whose coefficients the rounds have found already."""


@dataclass(frozen=True)
class FactorFit:
    r"""Scores :math:`U` of cells and the regression of the counts on :math:`[C, U]`.

    Attributes
    ----------
    scores
        :math:`U` with :math:`U^\top C = 0` and :math:`U^\top U = n I`, shape
        ``(n_cells, n_factors)``.
    regression
        Coefficients of the covariates, then the loadings.
    deviance
        Minus twice the log-likelihood, per cell, at every round.
    """

    scores: NDArray
    regression: Regression
    deviance: NDArray


def fit_factors(
    blocks: CountBlocks,
    design: NDArray,
    n_factors: int,
    *,
    start: Factors | None = None,
    tolerance: float = 5e-3,
    max_rounds: int = 40,
    seed: int = 0,
    on_round: Callable[[int, float], None] | None = None,
) -> FactorFit:
    r"""Fit :math:`y_{ij} \sim \mathrm{NB}(s_i \exp(C_i b_j + U_i g_j), \alpha_j)`.

    Penalised maximum likelihood with :math:`U_i \sim N(0, I)`: every round takes one Newton step
    of the scores of each cell and one step of each gene, and makes the scores orthogonal to the
    covariates and to each other again. With the treatment among the covariates, no score can be a
    copy of it.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Covariates and arms :math:`C`, the intercept in column 0, shape ``(n_cells, n_columns)``.
    n_factors
        Number of scores, possibly 0.
    start
        Where to start; `None` starts from the singular vectors of the residuals, in large data
        those of some of the cells.
    tolerance
        Mean change of a score in a round, in standard deviations, at which the fit ends; or when
        three rounds have lowered the deviance by less than 1e-5 of it.
    max_rounds
        Most rounds.
    seed
        Seed of the cells and of the vectors that the fit starts from.
    on_round
        Called after each round with its number and the deviance.

    Returns
    -------
    The fit. The signs and the rotation of the scores mean nothing.
    """
    if n_factors == 0:
        regression = fit_regression(blocks, design)
        empty = np.zeros((blocks.n_cells, 0))
        return FactorFit(empty, regression, regression.deviance)
    if start is None:
        few = blocks.n_cells > MAX_FEW_CELLS
        find = _start_from_few if few else start_from_residuals
        start = find(blocks, design, n_factors, seed)
    factors, deviance = improve_factors(
        blocks, design, start, tolerance=tolerance, max_rounds=max_rounds, on_round=on_round
    )
    columns = np.hstack([design, factors.scores])
    begin = (factors.coefficients, factors.dispersion)
    regression = fit_regression(
        blocks, columns, start=begin, tolerance=FINAL_TOLERANCE, max_steps=FINAL_STEPS
    )
    return FactorFit(factors.scores, regression, np.append(deviance, regression.deviance[-1]))


class Factors(NamedTuple):
    """Scores, coefficients of covariates and scores, and dispersions."""

    scores: NDArray
    coefficients: NDArray
    dispersion: NDArray


def improve_factors(
    blocks: CountBlocks,
    design: NDArray,
    start: Factors,
    *,
    tolerance: float,
    max_rounds: int,
    on_round: Callable[[int, float], None] | None = None,
) -> tuple[Factors, list[float]]:
    """Go through rounds of `fit_factors`, without the regression at its end.

    Returns
    -------
    The factors, and the deviance of every round.
    """
    state = _State(blocks, design, start)
    deviance = []
    for number in range(max_rounds):
        change, value = state.next_round(with_dispersion=number < 3 or number % 3 == 0)
        deviance.append(value)
        if on_round is not None:
            on_round(number, value)
        if change < tolerance or _is_settled(deviance):
            break
    found = (state.scores.double(), state.coefficients, state.dispersion)
    return Factors(*(v.cpu().numpy() for v in found)), deviance


def _is_settled(deviance: list[float]) -> bool:
    """Whether the last rounds gained next to nothing: scores may turn and move for long after."""
    if len(deviance) <= SETTLED_ROUNDS:
        return False
    gain = abs(deviance[-1 - SETTLED_ROUNDS] - deviance[-1])
    return gain < SETTLED_GAIN * abs(deviance[-1])


class _State:
    """Scores, coefficients and dispersions on their way."""

    def __init__(self, blocks: CountBlocks, design: NDArray, start: Factors) -> None:
        self.blocks, self.n_columns = blocks, design.shape[1]
        self.design = blocks.tensor(design)
        self.basis = torch.linalg.qr(blocks.double(design))[0]
        self.weights = torch.linalg.pinv(blocks.double(design))  # (n_columns, n_cells)
        self.scores = blocks.tensor(start.scores)
        self.coefficients = blocks.double(start.coefficients.copy())
        self.dispersion = blocks.double(start.dispersion)
        n_factors = self.scores.shape[1]
        self.penalties = blocks.double([RIDGE] * self.n_columns + [LOADING_PENALTY] * n_factors)
        self.make_orthogonal()
        for _ in range(FIRST_STEPS):
            x = torch.cat([self.design, self.scores], 1)
            sums = GeneSums.over(self.blocks, x, self.coefficients, self.dispersion)
            self.step_genes(sums, with_dispersion=True)

    def next_round(self, *, with_dispersion: bool) -> tuple[float, float]:
        """Step all scores, then all genes; return the mean change of a score and the deviance."""
        before = self.scores.clone()
        blocks, n_columns = self.blocks, self.n_columns
        b, alpha = self.coefficients.to(blocks.dtype), self.dispersion.to(blocks.dtype)
        sums = GeneSums(len(b), blocks)
        cell_step = ScoreStep(b[n_columns:])
        for rows, y in blocks:
            x = self.design[rows]
            at_zero = torch.addmm(blocks.offset[rows], x, b[:n_columns])
            self.scores[rows] = u = cell_step(self.scores[rows], y, at_zero, alpha)
            eta = torch.addmm(at_zero, u, b[n_columns:]).clamp_(*ETA)
            sums.add(torch.cat([x, u], 1), y, eta, alpha)
        deviance = sums.deviance(blocks, self.dispersion)
        self.step_genes(sums, with_dispersion=with_dispersion)
        self.make_orthogonal()
        change = (self.scores - before).double().square().mean().sqrt()
        return float(change), deviance

    def step_genes(self, sums: GeneSums, *, with_dispersion: bool) -> None:
        """Step the coefficients and, if asked, the dispersions of all genes."""
        step, _ = sums.coefficient_step(self.coefficients, self.penalties)
        self.coefficients = self.coefficients + step
        if with_dispersion:
            self.dispersion, _ = sums.dispersion_step(self.blocks, self.dispersion)

    def make_orthogonal(self) -> None:
        """Make the scores orthogonal to the covariates and white, without changing the means."""
        scores, n_columns = self.scores.double(), self.n_columns
        loadings = self.coefficients[n_columns:]
        self.coefficients[:n_columns] += (self.weights @ scores) @ loadings
        scores = scores - self.basis @ (self.basis.T @ scores)
        identity = torch.eye(scores.shape[1], dtype=torch.float64, device=scores.device)
        root = torch.linalg.cholesky(scores.T @ scores / len(scores) + 1e-8 * identity)
        self.coefficients[n_columns:] = root.T @ loadings
        white = torch.linalg.solve_triangular(root, scores.T, upper=False).T
        self.scores = white.to(self.blocks.dtype).contiguous()


class ScoreStep:
    r"""Newton step of the scores of cells, given the loadings.

    Parameters
    ----------
    loadings
        :math:`g`, shape ``(n_factors, n_genes)``.
    """

    def __init__(self, loadings: Tensor) -> None:
        k = len(loadings)
        self.loadings = loadings
        self.triangle = Triangle(k, loadings.device)
        self.products = self.triangle.products(loadings.T)  # (n_genes, n_pairs)
        self.identity = torch.eye(k, dtype=loadings.dtype, device=loadings.device)

    def __call__(self, u: Tensor, y: Tensor, at_zero: Tensor, alpha: Tensor) -> Tensor:
        """Return the next scores of cells with counts `y` and log means `at_zero` at score 0."""
        mean = torch.addmm(at_zero, u, self.loadings).clamp_(*ETA).exp_()
        v = torch.mul(mean, alpha).add_(1).reciprocal_()
        gradient = torch.sub(y, mean).mul_(v) @ self.loadings.T - u
        scaled = torch.mul(y, alpha).add_(1).mul_(v)
        weight = mean.mul_(v).mul_(scaled)
        information = self.triangle.matrices(weight @ self.products).add_(self.identity)
        root = torch.linalg.cholesky_ex(information)[0]
        step = torch.cholesky_solve(gradient[..., None], root)[..., 0]
        return (u + step.clamp_(-LONGEST_STEP, LONGEST_STEP)).clamp_(-SCORE_RANGE, SCORE_RANGE)


def project_scores(blocks: CountBlocks, design: NDArray, fit: Regression | Factors) -> NDArray:
    """Return the most probable scores of cells that need not have been fitted.

    Parameters
    ----------
    blocks
        Their counts and size factors.
    design
        Their covariates and arms, shape ``(n_cells, n_columns)``.
    fit
        Coefficients of the design and loadings, and dispersions.

    Returns
    -------
    Array of shape ``(n_cells, n_factors)``.
    """
    b, alpha = blocks.tensor(fit.coefficients), blocks.tensor(fit.dispersion)
    x, n_columns = blocks.tensor(design), design.shape[1]
    cell_step = ScoreStep(b[n_columns:])
    scores = x.new_zeros(blocks.n_cells, len(b) - n_columns)
    for rows, y in blocks:
        at_zero = torch.addmm(blocks.offset[rows], x[rows], b[:n_columns])
        for _ in range(PROJECTION_STEPS):
            scores[rows] = cell_step(scores[rows], y, at_zero, alpha)
    return scores.double().cpu().numpy()


def _start_from_few(blocks: CountBlocks, design: NDArray, n_factors: int, seed: int) -> Factors:
    """Find the loadings of some of the cells, and the scores of all by them."""
    rows = np.random.default_rng(seed).permutation(blocks.n_cells)[:N_START_CELLS]
    few = fit_factors(blocks.subset(rows), design[rows], n_factors, seed=seed).regression
    scores = project_scores(blocks, design, few)
    return Factors(scores, few.coefficients, few.dispersion)


def pearson_residuals(y: Tensor, mean: Tensor, alpha: Tensor, n_cells: int) -> Tensor:
    """Return residuals in standard deviations, clipped at a third of the root of `n_cells`."""
    limit = n_cells**0.5 / 3
    return ((y - mean) / (mean + alpha * mean.square()).sqrt()).clamp_(-limit, limit)


def start_from_residuals(
    blocks: CountBlocks, design: NDArray, n_factors: int, seed: int
) -> Factors:
    """Left singular vectors of the residuals of the regression on the design, by iteration."""
    fit = fit_regression(blocks, design, tolerance=0.1, max_steps=8)
    b, alpha = blocks.tensor(fit.coefficients), blocks.tensor(fit.dispersion)
    x, generator = blocks.tensor(design), torch.Generator().manual_seed(seed)
    n_vectors = min(n_factors + 8, blocks.n_genes)
    draw = torch.randn(blocks.n_genes, n_vectors, generator=generator, dtype=torch.float64)
    right = torch.linalg.qr(draw)[0].to(blocks.device)
    for _ in range(4):
        left = x.new_zeros(blocks.n_cells, n_vectors, dtype=torch.float64)
        turned = torch.zeros_like(right)
        for rows, y in blocks:
            mean = torch.addmm(blocks.offset[rows], x[rows], b).clamp_(*ETA).exp_()
            residuals = pearson_residuals(y, mean, alpha, blocks.n_cells)
            part = residuals @ right.to(x.dtype)
            left[rows] = part.double()
            turned += residuals.T @ part
        right = torch.linalg.qr(turned)[0]
    basis = torch.linalg.qr(blocks.double(design))[0]
    left = left - basis @ (basis.T @ left)
    vectors = torch.linalg.svd(left, full_matrices=False)[0][:, :n_factors]
    scores = oriented(vectors.cpu().numpy()) * blocks.n_cells**0.5
    loadings = np.zeros((n_factors, blocks.n_genes))
    return Factors(scores, np.vstack([fit.coefficients, loadings]), fit.dispersion)
