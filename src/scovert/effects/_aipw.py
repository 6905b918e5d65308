"""Doubly robust effects, for comparison."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from scovert.effects._deviance import treatment_model
from scovert.effects._study import Estimate, Study
from scovert.glm import CountBlocks, fit_regression

__all__ = ["doubly_robust"]

N_FOLDS = 5
CLIP = 0.02
RIDGE = 1.0
MIN_MEAN = 1e-3


def doubly_robust(study: Study, hidden: NDArray, estimates: list[Estimate]) -> list[Estimate]:
    r"""Return cross-fitted doubly robust effects of all arms :cite:p:`Robins94`.

    The logarithm of the ratio of :math:`E[Y(1)/s]` and :math:`E[Y(0)/s]`, from a negative binomial
    model of the counts and a logistic model of the treatment, both fitted to other cells than
    those they are applied to. The mean of counts with heavy tails is a noisy thing: the
    coefficients of the regression are more precise even where the confounders are known.

    Parameters
    ----------
    study
        The fit.
    hidden
        Confounders, with the shift between the arms put back, shape ``(n_cells, n_latent)``.
    estimates
        Effects by regression, whose identification these keep.
    """
    return [_effect(study, hidden, estimate, arm) for arm, estimate in enumerate(estimates, 1)]


def _effect(study: Study, hidden: NDArray, estimate: Estimate, arm: int) -> Estimate:
    rows = np.flatnonzero(np.isin(study.arms.level, (0, arm)))
    treated = (study.arms.level[rows] == arm).astype(float)
    columns = np.hstack([study.known, hidden])[rows]
    fold = np.random.default_rng(study.seed).permutation(len(rows)) % N_FOLDS
    moments = np.zeros((5, study.blocks.n_genes))  # of the treated, the others, their products
    for number in range(N_FOLDS):
        train, test = fold != number, fold == number
        chance = treatment_model(columns[train][:, 1:], treated[train])
        columns_test = columns[test]
        weight = np.clip(_probability(chance, columns_test[:, 1:]), CLIP, 1 - CLIP)
        design = np.hstack([columns, treated[:, None]])
        penalty = [1e-4] + [RIDGE] * (design.shape[1] - 1)
        fit = fit_regression(study.blocks.subset(rows[train]), design[train], penalty=penalty)
        held_out = study.blocks.subset(rows[test])
        moments += _moments(held_out, columns_test, treated[test], weight, fit.coefficients)
    first, other, square, other_square, product = moments / len(rows)
    first, other = np.maximum(first, MIN_MEAN), np.maximum(other, MIN_MEAN)
    variance = square / first**2 + other_square / other**2 - 2 * product / (first * other)
    se = np.sqrt(np.maximum(variance, 0) / len(rows))
    return estimate.but(effect=np.log(first / other), se=se, df=np.inf)


def _probability(model: object, predictors: NDArray) -> NDArray:
    if predictors.shape[1] == 0:
        predictors = np.zeros((len(predictors), 1))
    return model.predict_proba(predictors)[:, 1]


def _moments(
    blocks: CountBlocks, columns: NDArray, treated: NDArray, chance: NDArray, b: NDArray
) -> NDArray:
    """Sum the influence values of both means over cells, their squares and their product."""
    x, d, chance, b = (blocks.double(v) for v in (columns, treated[:, None], chance[:, None], b))
    sums = torch.zeros(5, blocks.n_genes, dtype=torch.float64, device=blocks.device)
    for rows, y in blocks:
        rate = y.double() / blocks.offset[rows].double().exp()
        without = (x[rows] @ b[:-1]).clamp(-20, 12).exp()
        with_it = without * b[-1].exp()
        one = with_it + d[rows] / chance[rows] * (rate - with_it)
        zero = without + (1 - d[rows]) / (1 - chance[rows]) * (rate - without)
        sums += torch.stack([one, zero, one**2, zero**2, one * zero]).sum(1)
    return sums.cpu().numpy()
