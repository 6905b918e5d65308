"""Latent binary states of cells: exact expectation-maximisation over all combinations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.model.confounder.glm._blocks import CountBlocks
from scovert.model.confounder.glm._factors import start_from_residuals
from scovert.model.confounder.glm._independent import independent_components
from scovert.model.confounder.glm._regression import ETA, GeneSums, Regression

__all__ = ["StateFit", "fit_states", "state_probabilities"]

RIDGE = 1e-2
"""Precision of a coefficient: states that hardly occur say little of theirs."""

MIN_WEIGHT = 1e-4
"""States below this probability do not enter the regression of a cell."""

PRIOR_RANGE = (0.02, 0.98)
"""Range of the frequency of a confounder: one that nobody or everybody has is none."""

START_SLOPE = 1.5
"""Logits of the start for a component of one standard deviation: probabilities .18 and .82."""


@dataclass(frozen=True)
class StateFit:
    r"""Fit of binary :math:`Z` and of the regression of the counts on :math:`[C, Z]`.

    Attributes
    ----------
    probabilities
        :math:`P(Z_{im} = 1 \mid y_i, C_i)`, shape ``(n_cells, n_bits)``.
    combinations
        Probability of every combination of bits, shape ``(n_cells, 2**n_bits)``; bit ``m`` of
        combination ``s`` is ``s >> m & 1``.
    regression
        Coefficients of the covariates, then of :math:`Z`. Its covariance is the inverse of the
        observed information, by Louis's identity.
    deviance
        Minus twice the marginal log-likelihood, per cell, at every round.
    """

    probabilities: NDArray
    combinations: NDArray
    regression: Regression
    deviance: NDArray


def fit_states(
    blocks: CountBlocks,
    design: NDArray,
    n_bits: int,
    *,
    tolerance: float = 1e-6,
    max_rounds: int = 100,
    seed: int = 0,
    on_round: Callable[[int, float], None] | None = None,
) -> StateFit:
    r"""Fit :math:`y_{ij} \sim \mathrm{NB}(s_i \exp(C_i b_j + Z_i g_j), \alpha_j)` with binary Z.

    The expectation is exact and uses the counts only: the treatment is among the covariates of the
    counts and says nothing more about :math:`Z`. Starts from the independent components of the
    residuals' singular vectors. Covariances follow :cite:t:`Louis82`.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Covariates and arms :math:`C`, the intercept in column 0, shape ``(n_cells, n_columns)``.
    n_bits
        Number of binary confounders, from 1.
    tolerance
        Relative fall of the deviance at which the fit ends.
    max_rounds
        Most rounds, each of which goes once through the counts.
    seed
        Seed of the start.
    on_round
        Called after each round with its number and the deviance.

    Returns
    -------
    The fit. Which state is called 1 means nothing.
    """
    state = _State(blocks, design, n_bits, seed)
    deviance = []
    for number in range(max_rounds):
        sums, value = state.expect()
        deviance.append(value)
        if on_round is not None:
            on_round(number, value)
        if number > 2 and abs(deviance[-2] - value) < tolerance * abs(value):
            break
        state.maximise(sums)
    fitted = (state.coefficients, state.dispersion, *state.covariances())
    regression = Regression(*(v.cpu().numpy() for v in fitted), np.asarray(deviance))
    combinations = state.posterior.double()
    probabilities = combinations @ state.bits.double()
    states = (probabilities.cpu().numpy(), combinations.cpu().numpy())
    return StateFit(*states, regression, regression.deviance)


class _State:
    """Probabilities of the states, coefficients and dispersions on their way."""

    def __init__(self, blocks: CountBlocks, design: NDArray, n_bits: int, seed: int) -> None:
        self.blocks, self.n_columns = blocks, design.shape[1]
        self.design = blocks.tensor(design)
        self.bits = _bits(n_bits, blocks)
        start = start_from_residuals(blocks, design, n_bits, seed)
        probability = torch.sigmoid(
            START_SLOPE * blocks.tensor(independent_components(start.scores))
        )
        each = torch.where(self.bits.bool(), probability[:, None], 1 - probability[:, None])
        self.posterior = each.prod(2)  # (n_cells, n_states)
        self.coefficients = blocks.double(start.coefficients)
        self.dispersion = blocks.double(start.dispersion)
        self.penalties = torch.full_like(self.coefficients[:, 0], RIDGE)
        for _ in range(4):
            self.maximise(self.sums_at_start())

    def sums_at_start(self) -> GeneSums:
        """Go through the counts with the states as probable as they are."""
        sums = GeneSums(len(self.coefficients), self.blocks)
        for rows, y in self.blocks:
            self.add(sums, rows, y)
        return sums

    def expect(self) -> tuple[GeneSums, float]:
        """Update the probabilities of the states; return sums for a step, and the deviance."""
        blocks, sums = self.blocks, GeneSums(len(self.coefficients), self.blocks)
        b, alpha = self.coefficients.to(blocks.dtype), self.dispersion.to(blocks.dtype)
        log_prior = _log_prior(self.bits, self.posterior.mean(0))
        total = torch.zeros((), dtype=torch.float64, device=blocks.device)
        for rows, y in blocks:
            at_zero = torch.addmm(blocks.offset[rows], self.design[rows], b[: self.n_columns])
            shifts = self.bits @ b[self.n_columns :]
            joint = log_prior + _log_likelihoods(y, at_zero, shifts, alpha)
            evidence = torch.logsumexp(joint, 1)
            self.posterior[rows] = (joint - evidence[:, None]).exp()
            total += evidence.double().sum()
            self.add(sums, rows, y)
        r = 1 / self.dispersion
        totals = blocks.double(blocks.totals)
        constant = (blocks.tails.log_gamma(r) - totals * r.log()).sum() - blocks.log_factorials
        return sums, float(-2 * (total + constant) / blocks.n_cells)

    def likely(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Cells (within a block) and states that go together; and the rows of the design."""
        at, state = (self.posterior[rows] > MIN_WEIGHT).nonzero(as_tuple=True)
        return at, state, torch.cat([self.design[rows][at], self.bits[state]], 1)

    def add(self, sums: GeneSums, rows: slice, y: Tensor) -> None:
        """Add the cells of a block, once for every state they may be in."""
        at, state, x = self.likely(rows)
        eta = torch.addmm(self.blocks.offset[rows][at], x, self.coefficients.to(x.dtype))
        weight = self.posterior[rows][at, state]
        sums.add(x, y[at], eta.clamp_(*ETA), self.dispersion.to(x.dtype), weight)

    def maximise(self, sums: GeneSums) -> None:
        """Step the coefficients and the dispersions of all genes."""
        step, _ = sums.coefficient_step(self.coefficients, self.penalties)
        self.coefficients = self.coefficients + step
        self.dispersion, _ = sums.dispersion_step(self.blocks, self.dispersion)

    def covariances(self) -> tuple[Tensor, Tensor]:
        """Return the covariances by Louis's identity: complete less missing information."""
        complete = GeneSums(len(self.coefficients), self.blocks, expected=True)
        n, p = len(self.coefficients), self.blocks.n_genes
        every, mean = (
            torch.zeros(p, n, n, dtype=torch.float64, device=self.blocks.device) for _ in range(2)
        )
        b, alpha = self.coefficients.to(self.blocks.dtype), self.dispersion.to(self.blocks.dtype)
        for rows, y in self.blocks:
            self.add(complete, rows, y)
            at, state, x = self.likely(rows)
            eta = torch.addmm(self.blocks.offset[rows][at], x, b).clamp_(*ETA)
            mean_count = eta.exp_()
            score = (y[at] - mean_count) / (1 + alpha * mean_count)  # (n_pairs, n_genes)
            weight = self.posterior[rows][at, state]
            weighted = score * weight[:, None]
            every += torch.einsum("np,ni,nj->pij", weighted * score, x, x).double()
            parts = weighted[:, :, None] * x[:, None]  # (n_pairs, n_genes, n_columns)
            cells = parts.new_zeros(len(y), p, n).index_add_(0, at, parts)
            mean += torch.einsum("cpi,cpj->pij", cells, cells).double()
        full = complete.information + torch.diag(self.penalties)
        observed = full - (every - mean)
        is_definite = torch.linalg.eigvalsh(observed)[:, 0] > 1e-3
        covariance = torch.linalg.inv(torch.where(is_definite[:, None, None], observed, full))
        return covariance, covariance @ mean @ covariance


def state_probabilities(
    blocks: CountBlocks, design: NDArray, fit: Regression, frequencies: NDArray
) -> NDArray:
    """Return the probabilities of the states of cells that need not have been fitted.

    Parameters
    ----------
    blocks
        Their counts and size factors.
    design
        Their covariates and arms, shape ``(n_cells, n_columns)``.
    fit
        Regression on the design and binary confounders.
    frequencies
        Frequency of every combination of bits, shape ``(n_states,)``.

    Returns
    -------
    Array of shape ``(n_cells, n_states)``.
    """
    b, alpha, x = (blocks.tensor(v) for v in (fit.coefficients, fit.dispersion, design))
    n_columns = x.shape[1]
    bits = _bits(len(b) - n_columns, blocks)
    log_prior = _log_prior(bits, blocks.tensor(frequencies))
    joint = x.new_empty(blocks.n_cells, len(bits))
    for rows, y in blocks:
        at_zero = torch.addmm(blocks.offset[rows], x[rows], b[:n_columns])
        joint[rows] = log_prior + _log_likelihoods(y, at_zero, bits @ b[n_columns:], alpha)
    return torch.softmax(joint.double(), 1).cpu().numpy()


def _bits(n_bits: int, blocks: CountBlocks) -> Tensor:
    """Bits of every combination, shape ``(n_states, n_bits)``."""
    return blocks.tensor(np.arange(2**n_bits)[:, None] >> np.arange(n_bits) & 1)


def _log_prior(bits: Tensor, frequencies: Tensor) -> Tensor:
    """Log prior probability of every combination of independent bits."""
    probability = (frequencies @ bits).clamp(*PRIOR_RANGE)
    return (bits * probability.log() + (1 - bits) * (1 - probability).log()).sum(1)


def _log_likelihoods(y: Tensor, at_zero: Tensor, shifts: Tensor, alpha: Tensor) -> Tensor:
    """Log-likelihood of cells in every state, shape ``(n, n_states)``, but for constants."""
    columns = []
    for shift in shifts:
        eta = (at_zero + shift).clamp_(*ETA)
        log_v = -torch.log1p(eta.exp().mul_(alpha))
        columns.append((eta.add_(log_v).mul_(y) + log_v / alpha).sum(1))
    return torch.stack(columns, 1)
