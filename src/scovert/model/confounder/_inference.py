"""All that is derived from a fit: effects, shifted confounders, means, what they explain."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from scovert.model.confounder._checks import HIGH_LEAKAGE
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._module import ConfounderModule
from scovert.model.confounder._tables import MIN_COUNTS, effects_table, reasons
from scovert.model.confounder.effects import (
    ConfounderFit,
    Donors,
    Estimate,
    count_deviance,
    estimate_by_states,
    estimate_effects,
    estimate_plug_in,
    propensity_scores,
    treatment_deviance,
)
from scovert.model.confounder.fit._amortized import scores_by_network
from scovert.model.confounder.fit._amortized_module import AmortizedModule
from scovert.model.confounder.fit._networks import combinations, designed
from scovert.model.confounder.glm import (
    CountBlocks,
    Regression,
    fit_regression,
    project_scores,
    state_probabilities,
)
from scovert.model.confounder.variants._aipw import doubly_robust
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["Inference"]

ROWS_AT_ONCE = 4096
MAX_LEAKAGE = 0.9
"""Confounders that do not see the treatment correlate with it all the same, if not as much."""

PSEUDOCOUNT = 0.5
"""Total count given to a gene without counts."""


class Inference:
    """Results that follow from the tables of a fit and the cells it was made of.

    Parameters
    ----------
    cells
        The cells.
    module
        The tables.
    levels
        Names of the levels of the treatment, the reference first.
    clusters
        Donor of each cell, if the cells are not independent.
    seed
        Seed of all that is drawn.
    network
        Network that infers the confounders of a cell, if one was trained.
    dtype
        Type of numbers that there is one of for every cell and gene in a regression.
    """

    def __init__(
        self,
        cells: TreatmentData,
        module: ConfounderModule,
        levels: list[str],
        clusters: NDArray | None,
        *,
        seed: int,
        network: AmortizedModule | AlternatingModule | None,
        dtype: torch.dtype,
    ) -> None:
        self.cells, self.module, self.seed, self.network = cells, module, seed, network
        totals = cells.totals()
        self.reasons = reasons(totals, levels)
        self.fitted = totals.sum(0) >= MIN_COUNTS
        self.log_rate = np.log(np.maximum(totals.sum(0), PSEUDOCOUNT) / cells.size.sum())
        self.states = None if module.states is None else module.array("states")
        names = ("coefficients", "dispersion", "covariance", "sandwich")
        tables = (module.array(name) for name in names)
        self.regression = Regression(*tables, deviance=np.zeros(0))
        covariates, indicators = cells.covariates, cells.indicators
        self.by_covariates = np.linalg.lstsq(covariates, indicators, rcond=None)[0]
        donors = None
        if clusters is not None:
            donors = Donors(clusters, _n_constant_within(covariates[:, 1:], clusters))
        self.fit = ConfounderFit(
            blocks=self._blocks(cells, dtype, None),
            covariates=covariates,
            arms=cells.arms(self.by_covariates),
            scores=module.array("scores"),
            regression=self.regression,
            is_tested=self.reasons[:, self.fitted] == "",
            donors=donors,
            seed=seed,
        )
        self._estimates: dict[tuple, list[Estimate]] = {}
        self._said: set[Hashable] = set()
        self._projected: tuple[TreatmentData, NDArray] | None = None

    @property
    def n_latent(self) -> int:
        """Number of confounders."""
        return self.fit.scores.shape[1]

    @property
    def is_plug_in(self) -> bool:
        """Whether confounders are taken as a generator made them."""
        return isinstance(self.network, AlternatingModule)

    @property
    def against_leakage(self) -> tuple[float, str]:
        """From where confounders are too close to the treatment, and what can be done about it."""
        if self.is_plug_in:
            remedy = (
                "Train with `solver='full_batch'`, whose confounders do not see the treatment."
            )
            return HIGH_LEAKAGE, remedy
        if self.states is not None:
            return MAX_LEAKAGE, "Compare with `z_type='continuous'`."
        return MAX_LEAKAGE, "Compare with another `identification`."

    @property
    def n_classes(self) -> int:
        """Number of hidden classes, or of combinations of binary confounders."""
        if self.states is not None:
            return self.states.shape[1]
        is_mixture = self.n_latent and not self.is_plug_in
        return self.fit.classes.n_classes if is_mixture else 1

    def estimate(
        self, identification: str, is_control: NDArray | None, method: str
    ) -> list[Estimate]:
        """Return the estimates of all arms, computed once.

        Parameters
        ----------
        identification
            As in `estimate_effects`.
        is_control
            Negative controls among all genes, for ``"controls"``.
        method
            ``"wald"`` or ``"aipw"``.
        """
        controls = None if is_control is None else is_control[self.fitted]
        key = (identification, method, None if controls is None else controls.tobytes())
        if key not in self._estimates:
            if self.states is not None:
                estimates = estimate_by_states(self.fit, self.states)
            elif self.is_plug_in:
                estimates = estimate_plug_in(self.fit)
            else:
                estimates = estimate_effects(self.fit, identification, controls)
            if method == "aipw":
                hidden = self.latents(self.cells, estimates)
                estimates = doubly_robust(self.fit, hidden, estimates)
            self._estimates[key] = estimates
        return self._estimates[key]

    def is_first_time(self, what: Hashable) -> bool:
        """Whether this is asked for the first time, so that a warning is due."""
        is_first_time = what not in self._said
        self._said.add(what)
        return is_first_time

    def table(self, arm: int, estimate: Estimate, genes: pd.Index) -> pd.DataFrame:
        """Return the effects of an arm, counted from 0, on all genes."""
        full = estimate.replace(effect=self._of_all(estimate.effect), se=self._of_all(estimate.se))
        unadjusted, p_value = (self._of_all(values) for values in self._unadjusted(arm))
        return effects_table(full, unadjusted, p_value, genes, self.reasons[arm])

    def _unadjusted(self, arm: int) -> tuple[NDArray, NDArray]:
        """Return effects of an arm without confounders, and p-values that know the donors."""
        effect, se = (self.module.array(name)[arm] for name in ("unadjusted", "unadjusted_se"))
        if self.fit.donors is None:
            return effect, 2 * norm.sf(np.abs(effect) / se)
        return effect, self._plain[arm].p_value

    @cached_property
    def _plain(self) -> list[Estimate]:
        """Estimates of all arms without confounders."""
        fit = fit_regression(self.fit.blocks, self.cells.design)
        no_scores = np.zeros((len(self.cells), 0))
        return estimate_effects(replace(self.fit, scores=no_scores, regression=fit), "randomised")

    def latents(
        self, cells: TreatmentData, estimates: list[Estimate], batch_size: int | None = None
    ) -> NDArray:
        """Return the confounders of cells, with the shift between the arms put back."""
        if self.states is not None:
            bits = np.arange(self.n_classes)[:, None] >> np.arange(self.n_latent) & 1
            return self._states_of(cells, batch_size) @ bits
        if self.n_latent == 0:
            return np.zeros((len(cells), 0))
        arms, scores = cells.arms(self.by_covariates), self._scores_of(cells, batch_size)
        shifted = scores + arms.residual @ np.stack([e.shift for e in estimates])
        if not any(e.by_class for e in estimates):
            return shifted
        classes = self.fit.classes
        of_class = arms._replace(residual=arms.residual * [e.by_class for e in estimates])
        return classes.put_back(shifted, of_class, classes.assign(scores, arms))

    def class_probabilities(self, cells: TreatmentData) -> NDArray:
        """Return the class probabilities of cells, as if classes were as frequent in all arms."""
        if self.states is not None:
            return self._states_of(cells, None)
        if self.n_classes == 1:
            return np.ones((len(cells), 1))
        classes, arms = self.fit.classes, cells.arms(self.by_covariates)
        probabilities = classes.assign(self._scores_of(cells, None), arms)
        return classes.equal_in_arms(probabilities, cells.level)

    def propensity_scores(self, cells: TreatmentData, estimates: list[Estimate]) -> NDArray:
        """Return the propensity scores by covariates and confounders."""
        train, asked = (self._predictors(some, estimates) for some in (self.cells, cells))
        return propensity_scores(train, self.cells.level, asked)

    def means(
        self, cells: TreatmentData, level: NDArray, estimates: list[Estimate], genes: NDArray
    ) -> NDArray:
        """Return mean counts with the confounders at their average, shape ``(n, n_genes)``.

        Parameters
        ----------
        cells
            Covariates and size factors.
        level
            Treatment that they are taken to have.
        estimates
            Effects of all arms.
        genes
            Genes in the order of the result, as columns.
        """
        baseline = np.mean([e.baseline for e in estimates], 0) + sum(
            e.baseline_shift for e in estimates
        )
        effects = np.stack([np.zeros(baseline.shape[1]), *(e.effect for e in estimates)])
        values = np.empty((len(cells), len(genes)), np.float32)
        for start in range(0, len(cells), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            log_mean = np.tile(self.log_rate, (len(values[rows]), 1))
            log_mean[:, self.fitted] = cells.covariates[rows] @ baseline + effects[level[rows]]
            values[rows] = np.exp(log_mean[:, genes]) * cells.size[rows, None]
        return values

    def treatment_deviance(self, estimates: list[Estimate]) -> float:
        """Return the share of the treatment's deviance that confounders explain, held out."""
        predictors, level = self._predictors(self.cells, estimates), self.cells.level
        n_covariates = self.cells.covariates.shape[1] - 1
        return treatment_deviance(predictors, n_covariates, level, self.seed)

    def count_deviance(self) -> float:
        """Return the share of the counts' deviance that confounders explain, held out."""

        def infer(blocks: CountBlocks, genes: NDArray) -> NDArray:
            part = self.regression.of_genes(genes)
            if self.states is None:
                return project_scores(blocks, self.cells.design, part)
            return state_probabilities(blocks, self.cells.design, part, self.states.mean(0))

        return count_deviance(self.fit.blocks, self.cells.design, infer, self.seed)

    def leakage(self, estimates: list[Estimate]) -> float:
        """Return the largest correlation of a confounder with an arm, given the covariates."""
        latents, covariates = self.latents(self.cells, estimates), self.cells.covariates
        if latents.shape[1] == 0:
            return 0.0
        z, d = (
            v - covariates @ np.linalg.lstsq(covariates, v, rcond=None)[0]
            for v in (latents, self.cells.indicators)
        )
        norms = np.outer(np.linalg.norm(z, axis=0), np.linalg.norm(d, axis=0))
        return float(np.max(np.abs(z.T @ d) / np.maximum(norms, 1e-12)))

    def _blocks(self, cells: TreatmentData, dtype: torch.dtype, size: int | None) -> CountBlocks:
        return cells.blocks(self.fitted, self.module.device, dtype, size)

    def _scores_of(self, cells: TreatmentData, batch_size: int | None) -> NDArray:
        """Return the most probable scores of cells, not shifted."""
        if self.network is not None:
            return scores_by_network(self.network, designed(cells, self.fitted))
        if self._projected is None or self._projected[0] is not cells:
            blocks, design = self._blocks(cells, torch.float64, batch_size), cells.design
            scores = project_scores(blocks, design, self.regression)
            self._projected = (cells, scores)
        return self._projected[1]

    def _states_of(self, cells: TreatmentData, batch_size: int | None) -> NDArray:
        """Return the probabilities of all combinations of binary confounders."""
        if self.network is not None:
            return combinations(self._scores_of(cells, batch_size))
        blocks, frequencies = self._blocks(cells, torch.float64, batch_size), self.states.mean(0)
        return state_probabilities(blocks, cells.design, self.regression, frequencies)

    def _predictors(self, cells: TreatmentData, estimates: list[Estimate]) -> NDArray:
        """Covariates and confounders, without intercept; a column of zeros if there are none."""
        columns = np.hstack([cells.covariates[:, 1:], self.latents(cells, estimates)])
        return columns if columns.shape[1] else np.zeros((len(cells), 1))

    def _of_all(self, values: NDArray) -> NDArray:
        """Place values of the fitted genes among all, NaN elsewhere."""
        full = np.full(len(self.fitted), np.nan)
        full[self.fitted] = values
        return full


def _n_constant_within(covariates: NDArray, clusters: NDArray) -> int:
    """Count the covariates that do not vary within clusters."""
    frame = pd.DataFrame(covariates).groupby(clusters)
    return int(((frame.max() - frame.min()).abs() < 1e-9).all(axis=0).sum())
