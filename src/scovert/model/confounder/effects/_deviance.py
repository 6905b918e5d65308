"""How much latent confounders explain, judged on data that did not help to infer them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from scovert.model.confounder.glm import CountBlocks, fit_regression, gene_deviance

__all__ = ["count_deviance", "treatment_deviance", "propensity_scores"]

N_FOLDS = 5
"""Folds of the cells, as usual: four in five learn, and each is predicted once."""


def propensity_scores(train: NDArray, level: NDArray, predictors: NDArray) -> NDArray:
    """Return propensity scores, those of every arm, by a logistic regression with a ridge of one.

    Parameters
    ----------
    train
        Covariates and confounders that the regression is fitted to, without intercept, shape
        ``(n_cells, n_predictors)``.
    level
        Treatment of these cells.
    predictors
        The same of the cells that are asked for.

    Returns
    -------
    Array of shape ``(n, n_levels)``.
    """
    if len(predictors) == 0:
        return np.zeros((0, len(np.unique(level))))
    return _ridge().fit(_not_empty(train), level).predict_proba(_not_empty(predictors))


def treatment_deviance(predictors: NDArray, n_covariates: int, level: NDArray, seed: int) -> float:
    """Return the share of the treatment's deviance that the last predictors take away.

    Parameters
    ----------
    predictors
        Covariates, then confounders, shape ``(n_cells, n_predictors)``.
    n_covariates
        Number of covariates.
    level
        Treatment of the cells.
    seed
        Seed of the folds.
    """
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed)
    with_all, without = (
        log_loss(
            level,
            cross_val_predict(_ridge(), _not_empty(x), level, cv=folds, method="predict_proba"),
        )
        for x in (predictors, predictors[:, :n_covariates])
    )
    return float(1 - with_all / without)


def count_deviance(
    blocks: CountBlocks,
    design: NDArray,
    infer: Callable[[CountBlocks, NDArray], NDArray],
    seed: int,
) -> float:
    """Return the share of the counts' deviance that confounders take away, the mean over genes.

    Confounders are inferred from one half of the genes; regressions of the other half on them are
    fitted to half of the cells and judged on the other half.

    Parameters
    ----------
    blocks
        Counts and size factors.
    design
        Known covariates and treatment, shape ``(n_cells, n_columns)``.
    infer
        Function of the blocks of some genes, and of these as a mask, to confounders.
    seed
        Seed of the halves.
    """
    rng = np.random.default_rng(seed)
    genes, cells = (rng.permutation(n) % 2 == 0 for n in (blocks.n_genes, blocks.n_cells))
    gains = []
    for half in (genes, ~genes):
        judged = blocks.genes(~half)
        columns = np.hstack([design, infer(blocks.genes(half), half)])
        for train in (cells, ~cells):
            gains.append(_gain(judged, design, columns, train))
    return float(np.mean(np.concatenate(gains)))


def _gain(blocks: CountBlocks, few: NDArray, many: NDArray, train: NDArray) -> NDArray:
    """Share of the deviance of each gene that more columns take away in other cells."""
    fitted, judged = blocks.subset(np.flatnonzero(train)), blocks.subset(np.flatnonzero(~train))
    plain = fit_regression(fitted, few[train])
    start = np.vstack(
        [plain.coefficients, np.zeros((many.shape[1] - few.shape[1], blocks.n_genes))]
    )
    richer = fit_regression(fitted, many[train], start=(start, plain.dispersion))
    before, after = (
        gene_deviance(judged, columns[~train], fit.coefficients, plain.dispersion)
        for columns, fit in ((few, plain), (many, richer))
    )
    return 1 - after[before > 0] / before[before > 0]


def _ridge() -> LogisticRegression:
    return LogisticRegression(C=1.0, max_iter=1000)


def _not_empty(predictors: NDArray) -> NDArray:
    """Predictors, or a column of zeros if there are none."""
    return predictors if predictors.shape[1] else np.zeros((len(predictors), 1))
