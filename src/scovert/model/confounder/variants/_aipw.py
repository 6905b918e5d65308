"""Doubly robust effects, for comparison."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scovert.model.confounder.effects._confounder_fit import ConfounderFit, Estimate
from scovert.model.confounder.effects._deviance import propensity_scores
from scovert.model.confounder.glm import CountBlocks, fit_regression

__all__ = ["doubly_robust"]

N_FOLDS = 5
"""Parts of the cells, each of which is judged by models of the others."""

CLIP = 0.02
"""Distance of a propensity score from 0 and 1, at least, so that no cell counts 50-fold."""

RIDGE, OF_INTERCEPT = 1.0, 1e-4
"""Precision of the normal prior of coefficients, natural log scale, and of the intercept: parts of
the cells may lack a level of a covariate."""

ETA = (-20.0, 12.0)
"""Range of the logarithm of a mean."""

MIN_MEAN = 1e-3
"""Mean count at size factor 1, at least, whose logarithm is taken."""


def doubly_robust(
    fit: ConfounderFit, hidden: NDArray, estimates: list[Estimate]
) -> list[Estimate]:
    r"""Return cross-fitted doubly robust effects of all arms :cite:p:`Robins94`.

    The logarithm of the ratio of :math:`E[Y(1)/s]` and :math:`E[Y(0)/s]`, from a negative binomial
    model of the counts and a logistic model of the treatment, both fitted to other cells than
    those they are applied to. The mean of counts with heavy tails is a noisy thing: the
    coefficients of the regression are more precise even where the confounders are known.

    Parameters
    ----------
    fit
        The fit.
    hidden
        Confounders, with the shift between the arms put back, shape ``(n_cells, n_latent)``.
    estimates
        Effects by regression, whose identification these keep.
    """
    return [_effect(fit, hidden, estimate, arm) for arm, estimate in enumerate(estimates, 1)]


def _effect(fit: ConfounderFit, hidden: NDArray, estimate: Estimate, arm: int) -> Estimate:
    rows = np.flatnonzero(np.isin(fit.arms.level, (0, arm)))
    treated = (fit.arms.level[rows] == arm).astype(float)
    columns = np.hstack([fit.covariates, hidden])[rows]
    fold = np.random.default_rng(fit.seed).permutation(len(rows)) % N_FOLDS
    moments = _Moments(fit, rows)
    for number in range(N_FOLDS):
        train, test = fold != number, fold == number
        columns_test = columns[test]
        scores = propensity_scores(columns[train][:, 1:], treated[train], columns_test[:, 1:])
        propensity = np.clip(scores[:, 1], CLIP, 1 - CLIP)
        design = np.hstack([columns, treated[:, None]])
        penalty = [OF_INTERCEPT] + [RIDGE] * (design.shape[1] - 1)
        regression = fit_regression(fit.blocks.subset(rows[train]), design[train], penalty=penalty)
        held_out = fit.blocks.subset(rows[test])
        for part, values in _influence(
            held_out, columns_test, treated[test], propensity, regression.coefficients
        ):
            moments.add(np.flatnonzero(test)[part], values)
    effect, se, df = moments.effect()
    limits = {name: limit for name, limit in estimate.limits.items() if name != "lambda"}
    return estimate.replace(effect=effect, se=se, df=df, limits=limits)  # errors of their own


class _Moments:
    """Moments of the influence values of both means; by donor, if cells are not independent.

    Parameters
    ----------
    fit
        The fit.
    rows
        Cells that are compared.
    """

    def __init__(self, fit: ConfounderFit, rows: NDArray) -> None:
        blocks, self.n_cells, self.by_donor = fit.blocks, len(rows), None
        self.sums = blocks.double(np.zeros((2, blocks.n_genes)))
        self.products = blocks.double(np.zeros((3, blocks.n_genes)))
        if fit.donors is not None:
            names, codes = np.unique(fit.donors.codes[rows], return_inverse=True)
            self.codes = torch.as_tensor(codes, device=blocks.device)
            self.by_donor = blocks.double(np.zeros((len(names), 2, blocks.n_genes)))

    def add(self, cells: NDArray, values: Tensor) -> None:
        """Add the values of cells of the treated and the untreated mean, ``(2, n, n_genes)``."""
        one, zero = values
        self.sums += values.sum(1)
        self.products += torch.stack([one**2, zero**2, one * zero]).sum(1)
        if self.by_donor is not None:
            self.by_donor.index_add_(0, self.codes[cells], values.movedim(1, 0))

    def effect(self) -> tuple[NDArray, NDArray, float]:
        """Return the logarithms of the ratios, standard errors and degrees of freedom."""
        one, zero = (self.sums / self.n_cells).clamp(min=MIN_MEAN)
        if self.by_donor is None:
            square, other_square, product = self.products
            total = square / one**2 + other_square / zero**2 - 2 * product / (one * zero)
            df = np.inf
        else:
            n_donors = len(self.by_donor)
            parts = self.by_donor[:, 0] / one - self.by_donor[:, 1] / zero
            total, df = parts.square().sum(0) * n_donors / (n_donors - 1), max(1, n_donors - 2)
        se = total.clamp(min=0).sqrt() / self.n_cells
        return (one / zero).log().cpu().numpy(), se.cpu().numpy(), df


def _influence(
    blocks: CountBlocks, columns: NDArray, treated: NDArray, propensity: NDArray, b: NDArray
) -> Iterator[tuple[slice, Tensor]]:
    """Influence values of both means, of blocks of cells."""
    x, d, propensity, b = (
        blocks.double(v) for v in (columns, treated[:, None], propensity[:, None], b)
    )
    for rows, y in blocks:
        rate = y.double() / blocks.offset[rows].double().exp()
        without = (x[rows] @ b[:-1]).clamp(*ETA).exp()
        with_it = without * b[-1].exp()
        one = with_it + d[rows] / propensity[rows] * (rate - with_it)
        zero = without + (1 - d[rows]) / (1 - propensity[rows]) * (rate - without)
        yield rows, torch.stack([one, zero])
