"""Negative binomial regression by steps of Newton's kind, all genes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scovert.core._losses import negative_binomial_deviance
from scovert.model.confounder.glm._blocks import CountBlocks
from scovert.model.confounder.glm._sums import LongSum, Triangle

__all__ = ["GeneSums", "Regression", "fit_regression", "gene_deviance", "start_values"]

RIDGE = 1e-4
"""Precision of a coefficient: what a gene without counts in an arm is held by, and no other."""

ETA, COEFFICIENT = (-20.0, 14.0), (-25.0, 15.0)
"""Ranges of the logarithm of a mean and of a coefficient: from no count in any atlas to the
largest 32-bit numbers of counts."""

DISPERSION = (1e-3, 20.0)
"""Range of alpha: from indistinguishable from Poisson, to a gene in one cell of hundreds."""

LONGEST_STEP = 2.0
"""Longest step of a coefficient, natural log scale, against overshooting from a bad start."""

TOLERANCE, MAX_STEPS = 0.02, 12
"""A step leaves less than half of what was missing: after one of a fiftieth of a standard error,
that is of no account. The dispersions of a few genes never settle."""

MOVING, FAR = 0.005, 1.0
"""Share of the genes that may be on the move when the fit ends, and standard errors from which
the last step of a gene that is counts only if it was found to be uphill."""

ROUNDING = 1e-6
"""Share of a log-likelihood by which it may fall without a step being too long."""


@dataclass(frozen=True)
class Regression:
    r"""Fit of :math:`y_{ij} \sim \mathrm{NB}(s_i \exp(x_i^\top b_j),\ \alpha_j)` for every gene.

    Attributes
    ----------
    coefficients
        :math:`b`, natural log scale, shape ``(n_columns, n_genes)``.
    dispersion
        :math:`\alpha` of the variance :math:`\mu + \alpha \mu^2`, shape ``(n_genes,)``.
    covariance
        Inverse of the (penalised) expected information, shape ``(n_genes, n_columns, n_columns)``.
    sandwich
        Covariance that also holds when the variance function is wrong, of the same shape.
    deviance
        Minus twice the log-likelihood, per cell, at every step.
    """

    coefficients: NDArray
    dispersion: NDArray
    covariance: NDArray
    sandwich: NDArray
    deviance: NDArray

    def variance(self, contrast: ArrayLike) -> NDArray:
        """Variance of a contrast of the coefficients, the larger of the two estimates.

        Parameters
        ----------
        contrast
            Weights of the coefficients, shape ``(n_columns,)`` or ``(n_genes, n_columns)``.

        Returns
        -------
        Array of shape ``(n_genes,)``.
        """
        c = np.broadcast_to(contrast, (len(self.dispersion), len(self.coefficients)))
        model, robust = (
            np.einsum("pi,pij,pj->p", c, cov, c, optimize=True)
            for cov in (self.covariance, self.sandwich)
        )
        return np.maximum(model, robust)

    def of_genes(self, genes: NDArray) -> Regression:
        """Return the fit of some genes, given as a mask or in their order."""
        per_gene = (self.dispersion[genes], self.covariance[genes], self.sandwich[genes])
        return Regression(self.coefficients[:, genes], *per_gene, self.deviance)


def fit_regression(
    blocks: CountBlocks,
    design: NDArray,
    *,
    penalty: ArrayLike = RIDGE,
    start: tuple[NDArray, NDArray] | None = None,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Regression:
    """Regress the counts of every gene on the columns of a design.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Covariates of the cells, the intercept in column 0, shape ``(n_cells, n_columns)``.
    penalty
        Precision of the normal prior around zero, for all columns or for each.
    start
        Coefficients and dispersions to start from.
    tolerance
        Step of the coefficients and of the log dispersions at which the fit ends, in their
        standard errors.
    max_steps
        Most steps, each of which goes once through the counts.

    Returns
    -------
    The fit.
    """
    x = blocks.tensor(design)
    penalties = blocks.double(np.broadcast_to(penalty, x.shape[1]).copy())
    started = start_values(blocks, x.shape[1]) if start is None else start
    here = _Point(-np.inf, *(blocks.double(v) for v in started))
    best, deviance = here, []
    for _ in range(max_steps):
        sums = GeneSums.over(blocks, x, here.coefficients, here.dispersion)
        deviance.append(sums.deviance(blocks, here.dispersion))
        here = here._replace(value=sums.value(blocks, here, penalties))
        is_worse = here.value < best.value - ROUNDING * (1 + here.value.abs())
        best = best.where(is_worse, here)
        there, distance = sums.step(blocks, here, penalties)
        here = best.halfway(here).where(is_worse, there)
        if torch.quantile(distance, 1 - MOVING) < tolerance:
            break
    here = best.where(distance > FAR, here)
    coefficients, dispersion = here.coefficients, here.dispersion
    sums = GeneSums.over(blocks, x, coefficients, dispersion, expected=True, robust=True)
    deviance.append(sums.deviance(blocks, dispersion))
    covariance, sandwich = sums.covariances(penalties)
    fitted = (coefficients, dispersion, covariance, sandwich)
    return Regression(*(v.cpu().numpy() for v in fitted), np.asarray(deviance))


def gene_deviance(
    blocks: CountBlocks, design: NDArray, coefficients: NDArray, dispersion: NDArray
) -> NDArray:
    """Return the deviance of every gene from the model that fits each count exactly.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Shape ``(n_cells, n_columns)``.
    coefficients, dispersion
        As in `Regression`.
    """
    x, b = blocks.tensor(design), blocks.tensor(coefficients)
    r = 1 / blocks.tensor(dispersion)
    total = torch.zeros(blocks.n_genes, dtype=torch.float64, device=blocks.device)
    for rows, y in blocks:
        mean = torch.addmm(blocks.offset[rows], x[rows], b).clamp_(*ETA).exp_()
        total += negative_binomial_deviance(mean, r, y).sum(0).double()
    return total.cpu().numpy()


def start_values(blocks: CountBlocks, n_columns: int) -> tuple[NDArray, NDArray]:
    """Return coefficients that give every gene its mean, and dispersions of one."""
    coefficients = np.zeros((n_columns, blocks.n_genes))
    total_size = float(blocks.offset.double().exp().sum())
    coefficients[0] = np.log(np.maximum(blocks.totals, 0.5) / total_size)
    return coefficients, np.ones(blocks.n_genes)


class _Point(NamedTuple):
    """Coefficients and dispersions of all genes, and their penalised log-likelihoods by gene."""

    value: Tensor | float
    coefficients: Tensor
    dispersion: Tensor

    def where(self, chosen: Tensor, other: _Point) -> _Point:
        """Return this for the chosen genes, and the other for the rest."""
        return _Point(*(torch.where(chosen, v, w) for v, w in zip(self, other, strict=True)))

    def halfway(self, other: _Point) -> _Point:
        """Return the middle of this and the other."""
        middle = (self.coefficients + other.coefficients) / 2
        return _Point(self.value, middle, (self.dispersion * other.dispersion).sqrt())


class GeneSums:
    """Sums over cells that a step of every gene needs, in double precision.

    Parameters
    ----------
    n_columns
        Columns of the design.
    blocks
        The counts, for their number of genes and the device.
    expected
        Sum the expected information, for errors; else of every cell the larger of the expected
        and the observed one, for steps. Where few cells have most of the counts of a gene, steps
        by the expected one are too long, and where counts are far below their mean those by the
        observed one: coefficients would swing around their optimum.
    robust
        Sum the squares of the scores too.
    """

    def __init__(
        self,
        n_columns: int,
        blocks: CountBlocks,
        *,
        expected: bool = False,
        robust: bool = False,
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, blocks.n_genes, dtype=torch.float64, device=blocks.device)

        def of_pairs() -> LongSum:
            return LongSum(zeros(len(self.triangle)), blocks.dtype)

        self.expected, self.triangle = expected, Triangle(n_columns, blocks.device)
        self.score = zeros(n_columns)
        self._information = of_pairs()
        self._meat = of_pairs() if robust else None
        self.log_v, self.scaled_v, self.curvature, self.fit = (zeros() for _ in range(4))
        self.n_cells = blocks.n_cells

    @classmethod
    def over(
        cls,
        blocks: CountBlocks,
        x: Tensor,
        coefficients: Tensor,
        dispersion: Tensor,
        *,
        expected: bool = False,
        robust: bool = False,
    ) -> GeneSums:
        """Go once through the counts with a design, coefficients and dispersions."""
        sums = cls(x.shape[1], blocks, expected=expected, robust=robust)
        b, alpha = coefficients.to(x.dtype), dispersion.to(x.dtype)
        for rows, y in blocks:
            eta = torch.addmm(blocks.offset[rows], x[rows], b).clamp_(*ETA)
            sums.add(x[rows], y, eta, alpha)
        return sums

    def add(
        self, x: Tensor, y: Tensor, eta: Tensor, alpha: Tensor, weight: Tensor | None = None
    ) -> None:
        """Add cells.

        Parameters
        ----------
        x
            Their rows of the design, shape ``(n, n_columns)``.
        y
            Their counts, shape ``(n, n_genes)``.
        eta
            The logarithm of their means, of the same shape, which is overwritten.
        alpha
            Dispersions, shape ``(n_genes,)``.
        weight
            Weights of the cells, shape ``(n,)``; `None` means one.
        """
        mean = eta.exp()
        v = torch.mul(mean, alpha).add_(1).reciprocal_()
        residual = torch.sub(y, mean).mul_(v)
        information = mean.mul_(v)
        log_v = v.log()
        fit = eta.add_(log_v).mul_(y)  # y log(mean v)
        scaled = torch.mul(y, alpha).add_(1).mul_(v)  # (y + r) / (mean + r)
        if not self.expected:
            information.mul_(scaled.clamp(min=1))  # too long a step by either makes it swing
        curvature = torch.sub(scaled, 2).mul_(v)
        if weight is not None:
            for values in (information, log_v, fit, scaled, curvature):
                values.mul_(weight[:, None])
        products = self.triangle.products(x).T  # (n_pairs, n)
        self._information.add(products, information)
        if self._meat is not None:
            self._meat.add(products, residual.square())
        self.score += x.T @ (residual if weight is None else residual.mul_(weight[:, None]))
        self.log_v += log_v.sum(0)
        self.fit += fit.sum(0)
        self.scaled_v += scaled.sum(0)
        self.curvature += curvature.sum(0) * alpha

    @property
    def information(self) -> Tensor:
        """Information of the coefficients, shape ``(n_genes, n_columns, n_columns)``."""
        return self._matrices(self._information)

    def _matrices(self, total: LongSum) -> Tensor:
        return self.triangle.matrices(total.value.T.contiguous())

    def coefficient_step(self, coefficients: Tensor, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step of all coefficients, and its length in standard errors by gene."""
        information = self.information + torch.diag(penalties)
        gradient = (self.score - penalties[:, None] * coefficients).T
        step = torch.linalg.solve(information, gradient)
        length = (step * gradient).sum(1).clamp(min=0).sqrt()
        longest = step.abs().amax(1, keepdim=True)
        return (step * (LONGEST_STEP / longest).clamp(max=1)).T, length

    def dispersion_step(self, blocks: CountBlocks, dispersion: Tensor) -> tuple[Tensor, Tensor]:
        """Return dispersions after Newton's step in their logarithm, and its length as above."""
        r = 1 / dispersion
        first, second = blocks.tails.digamma(r)
        n = self.n_cells
        gradient = (first + n + self.log_v - self.scaled_v) * r  # the logs of r cancel
        curvature = (second + n / r + self.curvature) * r.square() + gradient
        is_peak = curvature < -1e-8
        newton = -gradient / torch.where(is_peak, curvature, -1.0)
        step = torch.where(is_peak, newton, gradient.sign()).clamp(-1.5, 1.5)
        low, high = DISPERSION
        log_r = (r.log() + step).clamp(-np.log(high), -np.log(low))
        length = ((log_r - r.log()) * gradient).clamp(min=0).sqrt()
        return torch.exp(-log_r), length

    def log_likelihood(self, blocks: CountBlocks, dispersion: Tensor) -> Tensor:
        """Log-likelihood of each gene, but for the factorials of its counts."""
        r = 1 / dispersion
        totals = blocks.double(blocks.totals)
        return blocks.tails.log_gamma(r) + r * self.log_v + self.fit - totals * r.log()

    def value(self, blocks: CountBlocks, here: _Point, penalties: Tensor) -> Tensor:
        """Penalised log-likelihood of each gene."""
        penalty = (penalties[:, None] * here.coefficients.square()).sum(0) / 2
        return self.log_likelihood(blocks, here.dispersion) - penalty

    def step(self, blocks: CountBlocks, here: _Point, penalties: Tensor) -> tuple[_Point, Tensor]:
        """Return what is a step from here, and its length in standard errors by gene."""
        step, length = self.coefficient_step(here.coefficients, penalties)
        dispersion, log_length = self.dispersion_step(blocks, here.dispersion)
        coefficients = (here.coefficients + step).clamp(*COEFFICIENT)
        there = here._replace(coefficients=coefficients, dispersion=dispersion)
        return there, torch.maximum(length, log_length)

    def deviance(self, blocks: CountBlocks, dispersion: Tensor) -> float:
        """Minus twice the log-likelihood per cell."""
        likelihood = float(self.log_likelihood(blocks, dispersion).sum())
        return -2 * (likelihood - blocks.log_factorials) / self.n_cells

    def covariances(self, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """Return the model-based and the robust covariance of the coefficients of each gene."""
        covariance = torch.linalg.inv(self.information + torch.diag(penalties))
        correction = self.n_cells / (self.n_cells - len(self.score))
        sandwich = covariance @ self._matrices(self._meat) @ covariance * correction
        return covariance, sandwich
