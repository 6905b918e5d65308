"""Negative binomial regression by Fisher scoring, all genes together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from scovert.core._losses import negative_binomial_deviance
from scovert.model.confounder.glm._blocks import CountBlocks

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

TOLERANCE, MAX_STEPS = 5e-4, 12
"""Steps converge quadratically: after one below 5e-4, coefficients are right to 1e-6. The
dispersions of a few genes never settle."""


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
        Change of the coefficients and of the log dispersions at which the fit ends.
    max_steps
        Most steps, each of which goes once through the counts.

    Returns
    -------
    The fit.
    """
    x = blocks.tensor(design)
    penalties = blocks.double(np.broadcast_to(penalty, x.shape[1]).copy())
    started = start_values(blocks, x.shape[1]) if start is None else start
    coefficients, dispersion = (blocks.double(v) for v in started)
    deviance = []
    for _ in range(max_steps):
        sums = GeneSums.over(blocks, x, coefficients, dispersion)
        deviance.append(sums.deviance(blocks, dispersion))
        step = sums.coefficient_step(coefficients, penalties)
        coefficients = (coefficients + step).clamp(*COEFFICIENT)
        dispersion, log_step = sums.dispersion_step(blocks, dispersion)
        if max(_typical(step), _typical(log_step)) < tolerance:
            break
    sums = GeneSums.over(blocks, x, coefficients, dispersion, robust=True)
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


def _typical(change: Tensor) -> float:
    """Size of a step, but for one gene in two hundred: some move forever."""
    largest = change.abs().reshape(-1, change.shape[-1]).amax(0)
    return float(torch.quantile(largest, 0.995))


class GeneSums:
    """Sums over cells that a step of every gene needs, in double precision.

    Parameters
    ----------
    n_columns
        Columns of the design.
    blocks
        The counts, for their number of genes and the device.
    robust
        Sum the squares of the scores too.
    """

    def __init__(self, n_columns: int, blocks: CountBlocks, *, robust: bool = False) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, blocks.n_genes, dtype=torch.float64, device=blocks.device)

        self.pairs = torch.triu_indices(n_columns, n_columns, device=blocks.device)
        self.information = zeros(self.pairs.shape[1])
        self.score = zeros(n_columns)
        self.meat = zeros(self.pairs.shape[1]) if robust else None
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
        robust: bool = False,
    ) -> GeneSums:
        """Go once through the counts with a design, coefficients and dispersions."""
        sums = cls(x.shape[1], blocks, robust=robust)
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
        curvature = torch.sub(scaled, 2).mul_(v)
        if weight is not None:
            for values in (information, log_v, fit, scaled, curvature):
                values.mul_(weight[:, None])
        products = (x[:, self.pairs[0]] * x[:, self.pairs[1]]).T  # (n_pairs, n)
        self.information += products @ information
        if self.meat is not None:
            self.meat += products @ residual.square()
        self.score += x.T @ (residual if weight is None else residual.mul_(weight[:, None]))
        self.log_v += log_v.sum(0)
        self.fit += fit.sum(0)
        self.scaled_v += scaled.sum(0)
        self.curvature += curvature.sum(0) * alpha

    def matrices(self, triangle: Tensor) -> Tensor:
        """Return a symmetric matrix for each gene, shape ``(n_genes, n_columns, n_columns)``."""
        n = len(self.score)
        full = triangle.new_zeros(triangle.shape[1], n, n)
        full[:, self.pairs[0], self.pairs[1]] = triangle.T
        full[:, self.pairs[1], self.pairs[0]] = triangle.T
        return full

    def coefficient_step(self, coefficients: Tensor, penalties: Tensor) -> Tensor:
        """Return the step of Fisher scoring of all coefficients."""
        information = self.matrices(self.information) + torch.diag(penalties)
        gradient = (self.score - penalties[:, None] * coefficients).T
        step = torch.linalg.solve(information, gradient).T
        return step.clamp(-LONGEST_STEP, LONGEST_STEP)

    def dispersion_step(self, blocks: CountBlocks, dispersion: Tensor) -> tuple[Tensor, Tensor]:
        """Return dispersions after a Newton step in their logarithm, and the step."""
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
        return torch.exp(-log_r), log_r - r.log()

    def deviance(self, blocks: CountBlocks, dispersion: Tensor) -> float:
        """Minus twice the log-likelihood per cell."""
        r = 1 / dispersion
        totals = blocks.double(blocks.totals)
        likelihood = blocks.tails.log_gamma(r) + r * self.log_v + self.fit - totals * r.log()
        return -2 * (float(likelihood.sum()) - blocks.log_factorials) / self.n_cells

    def covariances(self, penalties: Tensor) -> tuple[Tensor, Tensor]:
        """Return the model-based and the robust covariance of the coefficients of each gene."""
        covariance = torch.linalg.inv(self.matrices(self.information) + torch.diag(penalties))
        correction = self.n_cells / (self.n_cells - len(self.score))
        sandwich = covariance @ self.matrices(self.meat) @ covariance * correction
        return covariance, sandwich
