"""What effects are estimated from: one fit, and what can be derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scovert.model.confounder.effects._classes import Arms, Classes
from scovert.model.confounder.effects._donors import Donors
from scovert.model.confounder.effects._mixture import find_classes
from scovert.model.confounder.effects._robust import Shift, robust_shift
from scovert.model.confounder.glm import RIDGE, CountBlocks, Regression, fit_regression

__all__ = ["Estimate", "ConfounderFit"]

CLASS_RIDGE = 0.1
"""Precision of the log mean of a class around that of all: no class is a reference. With one as
the reference, single genes have standard errors of 100."""

MIN_CLASS_CELLS = 2.0
"""Expected cells from which a class has a column: of one cell nothing is left."""


@dataclass(frozen=True)
class Estimate:
    """Effects of one arm against the reference, natural log scale.

    Attributes
    ----------
    effect, se
        Effects and their standard errors, shape ``(n_genes,)``.
    df
        Degrees of freedom of the t-statistics, possibly infinite.
    choice
        What identified them: ``"classes"``, ``"hybrid"``, ``"sparse"``, ``"controls"``,
        ``"randomised"``, or ``"none"`` where nothing was adjusted for.
    baseline
        Log mean of the genes in the reference, for each cell linear in the covariates, but
        for `baseline_shift`: coefficients of shape ``(1 + n_covariates, n_genes)``.
    facts
        What was looked at before choosing, and what was found.
    limits
        Of the facts that the choice rests on: above them, they speak against it.
    alternatives
        Of every estimate that was looked at, ``"genes_called"`` and ``"rank_correlation"`` with
        the chosen one.
    shift
        Shift of the scores between the arm and the reference, shape ``(n_factors,)``.
    baseline_shift
        What the shift of this arm adds to the baseline at the average of what was hidden, of the
        same shape; 0 for nothing.
    by_class
        Whether every class has its own shift besides.
    not_identified
        Why there are no p-values; empty if there are.
    warning
        What to keep in mind; empty if nothing.
    """

    effect: NDArray
    se: NDArray
    df: float
    choice: str
    baseline: NDArray
    facts: dict[str, float]
    shift: NDArray
    baseline_shift: NDArray | float = 0.0
    by_class: bool = False
    not_identified: str = ""
    warning: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    alternatives: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def p_value(self) -> NDArray:
        """Two-sided p-values, shape ``(n_genes,)``."""
        z = np.abs(self.effect) / self.se
        return 2 * (stats.norm.sf(z) if np.isinf(self.df) else stats.t.sf(z, self.df))

    def exceeds(self, name: str) -> bool:
        """Whether a fact speaks against the choice."""
        return self.facts.get(name, -np.inf) > self.limits.get(name, np.inf)

    def replace(self, **changes: object) -> Estimate:
        """Return the estimate with some values changed, and facts added."""
        facts = self.facts | changes.pop("facts", {})
        return replace(self, facts=facts, **changes)


@dataclass(frozen=True)
class ConfounderFit:
    """A fit of latent scores, with the counts, treatment and covariates that it was made of.

    Attributes
    ----------
    blocks
        Counts and size factors.
    covariates
        Intercept and covariates, shape ``(n_cells, 1 + n_covariates)``.
    arms
        Treatment of the cells.
    scores
        Scores orthogonal to covariates and treatment, shape ``(n_cells, n_factors)``.
    regression
        Of the counts on covariates, arms and scores.
    is_tested
        Genes with counts enough, in both arms, shape ``(n_arms, n_genes)``.
    donors
        Clusters of the cells, if they are not independent.
    seed
        Seed of the search for classes.
    """

    blocks: CountBlocks
    covariates: NDArray
    arms: Arms
    scores: NDArray
    regression: Regression
    is_tested: NDArray
    donors: Donors | None = None
    seed: int = 0

    @property
    def n_design(self) -> int:
        """Columns before the scores."""
        return self.covariates.shape[1] + self.arms.n_levels - 1

    @cached_property
    def design(self) -> NDArray:
        """Covariates and indicators of the arms, shape ``(n_cells, n_design)``."""
        return np.hstack([self.covariates, np.eye(self.arms.n_levels)[self.arms.level][:, 1:]])

    @cached_property
    def by_covariates(self) -> NDArray:
        """Coefficients of the arms' linear prediction by the covariates, one column for each."""
        return np.linalg.lstsq(
            self.covariates, self.design[:, self.covariates.shape[1] :], rcond=None
        )[0]

    @cached_property
    def classes(self) -> Classes:
        """Hidden classes of the cells."""
        return find_classes(self.scores, self.arms, self.seed)

    @cached_property
    def class_columns(self) -> NDArray:
        """Centred probabilities of the classes, as if equally frequent in all arms."""
        likely = self.classes.equal_in_arms(self.classes.probabilities, self.arms.level)
        likely = likely[:, likely.sum(0) > MIN_CLASS_CELLS]
        return likely - likely.mean(0)

    @cached_property
    def class_regression(self) -> Regression:
        """Of the counts on covariates, arms and classes."""
        penalty = [RIDGE] * self.n_design + [CLASS_RIDGE] * self.class_columns.shape[1]
        columns = np.hstack([self.design, self.class_columns])
        none = np.zeros((self.class_columns.shape[1], self.blocks.n_genes))
        start = (np.vstack([self._of_design, none]), self.regression.dispersion)
        return fit_regression(self.blocks, columns, penalty=penalty, start=start)

    @cached_property
    def shifted_scores(self) -> NDArray:
        """Scores with the shift of each cell's class put back."""
        return self.classes.put_back(self.scores, self.arms, self.classes.probabilities)

    @cached_property
    def score_regression(self) -> Regression:
        """Of the counts on covariates, arms and the scores with their shift."""
        columns = np.hstack([self.design, self.shifted_scores])
        coefficients, q = self.regression.coefficients.copy(), self.n_design
        moved = self.classes.shift @ coefficients[q:]  # (n_arms, n_genes)
        by_arms = np.vstack([self.by_covariates, -np.eye(len(moved))])
        coefficients[:q] += by_arms @ moved
        start = (coefficients, self.regression.dispersion)
        return fit_regression(self.blocks, columns, start=start)

    @cached_property
    def unadjusted_regression(self) -> Regression:
        """Of the counts on covariates and arms alone."""
        if self.scores.shape[1] == 0:
            return self.regression
        start = (self._of_design, self.regression.dispersion)
        return fit_regression(self.blocks, self.design, start=start)

    @property
    def _of_design(self) -> NDArray:
        """Coefficients of covariates and arms beside the scores, to start from."""
        return self.regression.coefficients[: self.n_design]

    @cached_property
    def unadjusted(self) -> dict[int, Estimate]:
        """Effects without confounders, by arm from 1."""
        none = replace(self, scores=self.scores[:, :0], regression=self.unadjusted_regression)
        shift, zero = Shift(np.zeros(0), np.zeros((0, 0))), np.zeros(self.scores.shape[1])
        arms = range(1, self.arms.n_levels)
        found = {arm: none.adjusted(arm, none.scores, none.regression, shift) for arm in arms}
        return {arm: e.replace(choice="none", shift=zero) for arm, e in found.items()}

    def column(self, arm: int) -> int:
        """Return the column of an arm, counted from 1, in the designs."""
        return self.covariates.shape[1] + arm - 1

    def shift(
        self,
        arm: int,
        regression: Regression,
        among: NDArray,
        axes: NDArray | None = None,
        *,
        correct_noise: bool = True,
    ) -> Shift:
        """Return the robust shift of the scores of a regression between an arm and the reference.

        Parameters
        ----------
        arm
            The arm, from 1.
        regression
            A regression with scores in its last columns.
        among
            Genes to take it from, shape ``(n_genes,)``.
        axes
            Directions it may have, shape ``(n_factors, n_axes)``; `None` means all.
        correct_noise
            Correct for the noise of the loadings. With few genes that inflates the shift in the
            directions in which they hardly differ.
        """
        column, q = self.column(arm), self.n_design
        axes = np.eye(self.scores.shape[1]) if axes is None else axes
        effect, loadings = (
            regression.coefficients[column, among],
            regression.coefficients[q:, among].T,
        )
        noise = np.einsum("ia,pij,jb->pab", axes, regression.covariance[among, q:, q:], axes)
        variance = np.maximum(regression.covariance, regression.sandwich)[among, column, column]
        noise = noise if correct_noise else None
        found = robust_shift(effect, np.sqrt(variance), loadings @ axes, noise)
        return Shift(axes @ found.mean, axes @ found.covariance @ axes.T)

    def adjusted(
        self, arm: int, columns: NDArray, regression: Regression, shift: Shift
    ) -> Estimate:
        """Return the effects of an arm once the scores are shifted.

        Parameters
        ----------
        arm
            The arm, from 1.
        columns
            Scores in the last columns of `fit`, shape ``(n_cells, n_factors)``.
        regression
            A regression on covariates, arms and these scores.
        shift
            The shift of the scores that the regression does not know.
        """
        q = self.n_design
        contrast = np.zeros(len(regression.coefficients))
        contrast[self.column(arm)] = 1
        contrast[q:] = -shift.mean
        loadings = regression.coefficients[q:].T
        extra = np.einsum("pi,ij,pj->p", loadings, shift.covariance, loadings)
        se, df = self._errors(arm, np.hstack([self.design, columns]), regression, contrast, extra)
        n_covariates = self.covariates.shape[1]
        baseline_shift = np.outer(self.by_covariates[:, arm - 1], loadings @ shift.mean)
        baseline, effect = (
            regression.coefficients[:n_covariates],
            contrast @ regression.coefficients,
        )
        return Estimate(effect, se, df, "sparse", baseline, {}, shift.mean, baseline_shift)

    def by_classes(self, arm: int) -> Estimate:
        """Return the effects of an arm at equal classes."""
        regression, q = self.class_regression, self.n_design
        contrast = np.zeros(len(regression.coefficients))
        contrast[self.column(arm)] = 1
        loadings = self.regression.coefficients[q:].T
        covariance = self.classes.shift_covariance(arm - 1)
        extra = np.einsum("pi,ij,pj->p", loadings, covariance, loadings)
        columns = np.hstack([self.design, self.class_columns])
        se, df = self._errors(arm, columns, regression, contrast, extra)
        baseline = regression.coefficients[: self.covariates.shape[1]]
        effect, none = contrast @ regression.coefficients, np.zeros(self.scores.shape[1])
        return Estimate(effect, se, df, "classes", baseline, {}, none, by_class=True)

    def _errors(
        self, arm: int, design: NDArray, regression: Regression, contrast: NDArray, extra: NDArray
    ) -> tuple[NDArray, float]:
        if self.donors is None:
            return np.sqrt(regression.variance(contrast) + extra), np.inf
        compared = self.donors.compared(self.arms, arm)
        return self.donors.errors(
            self.blocks, design, regression, contrast, extra=extra, compared=compared
        )
