"""All that is derived from a fit: effects, shifted confounders, means, what they explain."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from scovert.core._checks import check_choice
from scovert.core._counts import row_slices
from scovert.model.confounder._checks import check_controls, warn_about_controls
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._donor_design import DonorDesign
from scovert.model.confounder._fitted import Fitted
from scovert.model.confounder._latents import Generated, Latents, Scores, States
from scovert.model.confounder._module import ConfounderModule
from scovert.model.confounder._tables import (
    MIN_COUNTS,
    comparisons,
    effects_table,
    joined_table,
    reasons,
    say_what_was_assumed,
    warn_of_doubts,
)
from scovert.model.confounder.effects import (
    ConfounderFit,
    Donors,
    Estimate,
    count_deviance,
    propensity_scores,
    treatment_deviance,
)
from scovert.model.confounder.effects._identify import IDENTIFICATIONS
from scovert.model.confounder.fit._amortized import scores_by_network
from scovert.model.confounder.fit._solvers import combinations, designed
from scovert.model.confounder.glm import (
    CountBlocks,
    Regression,
    project_scores,
    state_probabilities,
)
from scovert.model.confounder.variants._aipw import doubly_robust
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["Inference"]

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 4096
"""Cells whose means are computed together: 33 MB of single precision for 2,000 genes."""

PSEUDOCOUNT = 0.5
"""Total count given to a gene without counts, so that its log mean is finite."""

CONSTANT = 1e-9
"""Range, in standard deviations, up to which a covariate does not vary: rounding errors."""


class Inference:
    """Results that follow from a fit and the cells it was made of.

    Parameters
    ----------
    cells
        The cells.
    fitted
        The arrays of the fit.
    module
        The network, if there is one, and where to compute.
    levels
        Names of the levels of the treatment, the reference first.
    donors
        Donors of the cells, if these are not independent.
    design
        How the treatment is spread over them.
    seed
        Seed of all that is drawn.
    """

    def __init__(
        self,
        cells: TreatmentData,
        fitted: Fitted,
        module: ConfounderModule,
        levels: list[str],
        donors: Donors | None,
        design: DonorDesign,
        *,
        seed: int,
    ) -> None:
        self.cells, self.fitted, self.module, self.levels = cells, fitted, module, levels
        self.seed, self.design = seed, design
        totals = cells.totals()
        self.reasons = reasons(totals, levels)
        self.is_fitted = totals.sum(0) >= MIN_COUNTS
        self.log_rate = np.log(np.maximum(totals.sum(0), PSEUDOCOUNT) / cells.size.sum())
        regression = (fitted.coefficients, fitted.dispersion, fitted.covariance, fitted.sandwich)
        self.fit = ConfounderFit(
            blocks=cells.blocks(self.is_fitted, module.device),
            covariates=cells.covariates,
            arms=cells.arms(cells.by_covariates),
            scores=fitted.scores,
            regression=Regression(*regression, deviance=np.zeros(0)),
            is_tested=self.reasons[:, self.is_fitted] == "",
            donors=donors,
            seed=seed,
        )
        self.latents = self._kind()
        self._estimates: dict[tuple, list[Estimate]] = {}
        self._said: set[Hashable] = set()
        self._projected: tuple[TreatmentData, NDArray] | None = None

    def _kind(self) -> Latents:
        """Return the confounders, of which there are three kinds."""
        network, states = self.module.network, self.fitted.states
        if states is not None:
            infer = self._states_by_counts if network is None else self._states_by_network
            return States(self.fit, infer, states)
        if isinstance(network, AlternatingModule):
            return Generated(self.fit, self._by_network)
        return Scores(self.fit, self._by_counts if network is None else self._by_network)

    def estimates(
        self,
        identification: str,
        negative_controls: Sequence[str] | str | None,
        method: str,
        var: pd.DataFrame,
    ) -> list[Estimate]:
        """Return the estimates of all arms, computed once; refuse what does not go together.

        Parameters
        ----------
        identification, negative_controls, method
            As in `LatentConfounder.get_treatment_effects`.
        var
            Genes of the model.
        """
        check_choice("identification", identification, tuple(IDENTIFICATIONS))
        check_choice("method", method, ("wald", "aipw"))
        self.latents.check(identification, has_controls=negative_controls is not None)
        if negative_controls is None:
            return self._estimated(identification, None, method)
        is_tested = (self.reasons == "").all(0)
        is_control = check_controls(negative_controls, var, is_tested)
        if self.is_first_time(is_control.tobytes()):
            warn_about_controls(int((is_control & is_tested).sum()))
        return self._estimated("controls", is_control[self.is_fitted], method)

    def _estimated(
        self, identification: str, controls: NDArray | None, method: str
    ) -> list[Estimate]:
        key = (identification, method, None if controls is None else controls.tobytes())
        if key not in self._estimates:
            estimates = self.latents.estimates(identification, controls)
            if method == "aipw":
                hidden = self.latents.of_cells(self.cells, estimates)
                estimates = doubly_robust(self.fit, hidden, estimates)
            self._estimates[key] = estimates
        return self._estimates[key]

    def is_first_time(self, what: Hashable) -> bool:
        """Whether this is asked for the first time, so that a warning is due."""
        is_first_time = what not in self._said
        self._said.add(what)
        return is_first_time

    def effects(self, estimates: list[Estimate], genes: pd.Index) -> pd.DataFrame:
        """Return the effects on all genes, and say what they rest on."""
        said, tables, named = [], {}, comparisons(self.levels)
        arms = zip(self.levels[1:], named, estimates, strict=True)
        for arm, (level, comparison, estimate) in enumerate(arms):
            said.append(say_what_was_assumed(estimate, comparison, self.fit.scores.shape[1]))
            if self.is_first_time(id(estimate)):
                logger.info(said[-1])
                warn_of_doubts(estimate, comparison)
            tables[level] = self._table(arm, estimate, genes)
        table = joined_table(tables, estimates)
        table.attrs |= {
            "reference": ", ".join(named),
            "assumption": "; ".join(said),
            "design": "; ".join(self.design.sentences),
        }
        return table

    def _table(self, arm: int, estimate: Estimate, genes: pd.Index) -> pd.DataFrame:
        """Return the effects of an arm, counted from 0, on all genes."""
        full = estimate.replace(effect=self._of_all(estimate.effect), se=self._of_all(estimate.se))
        unadjusted, p_value = (self._of_all(values) for values in self._unadjusted(arm))
        return effects_table(full, unadjusted, p_value, genes, self.reasons[arm])

    def _unadjusted(self, arm: int) -> tuple[NDArray, NDArray]:
        """Return effects of an arm without confounders, and p-values that know the donors."""
        effect, se = self.fitted.unadjusted[arm], self.fitted.unadjusted_se[arm]
        if self.fit.donors is None:
            return effect, 2 * norm.sf(np.abs(effect) / se)
        return effect, self.fit.unadjusted[arm + 1].p_value

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
        baseline = np.mean([e.baseline for e in estimates], 0)
        baseline = baseline + sum(e.baseline_shift for e in estimates)
        effects = np.stack([np.zeros(baseline.shape[1]), *(e.effect for e in estimates)])
        values = np.empty((len(cells), len(genes)), np.float32)
        for rows in row_slices(len(cells), ROWS_AT_ONCE):
            log_mean = np.tile(self.log_rate, (len(values[rows]), 1))
            log_mean[:, self.is_fitted] = cells.covariates[rows] @ baseline + effects[level[rows]]
            values[rows] = np.exp(log_mean[:, genes]) * cells.size[rows, None]
        return values

    def explained(self, estimates: list[Estimate]) -> dict[str, float]:
        """Return the share of the deviance that confounders explain, on held-out data."""
        if self.fit.scores.shape[1] == 0:
            return {"treatment": 0.0, "counts": 0.0}
        predictors, cells = self._predictors(self.cells, estimates), self.cells
        n_covariates = cells.covariates.shape[1] - 1
        return {
            "treatment": treatment_deviance(predictors, n_covariates, cells.level, self.seed),
            "counts": count_deviance(
                self.fit.blocks, cells.design, self.latents.from_genes, self.seed
            ),
        }

    def leakage(self, estimates: list[Estimate]) -> float:
        """Return the largest correlation of a confounder with an arm, given the covariates."""
        latents, covariates = self.latents.of_cells(self.cells, estimates), self.cells.covariates
        if latents.shape[1] == 0:
            return 0.0
        z, d = (
            v - covariates @ np.linalg.lstsq(covariates, v, rcond=None)[0]
            for v in (latents, self.cells.indicators)
        )
        norms = np.outer(np.linalg.norm(z, axis=0), np.linalg.norm(d, axis=0))
        return float(np.max(np.abs(z.T @ d) / np.maximum(norms, 1e-12)))

    def _by_counts(self, cells: TreatmentData) -> NDArray:
        """Return the most probable scores of cells, kept for when they are asked about again."""
        if self._projected is None or self._projected[0] is not cells:
            scores = project_scores(self._blocks(cells), cells.design, self.fit.regression)
            self._projected = (cells, scores)
        return self._projected[1]

    def _states_by_counts(self, cells: TreatmentData) -> NDArray:
        """Return the probabilities of all combinations of binary confounders."""
        frequencies, regression = self.fitted.states.mean(0), self.fit.regression
        return state_probabilities(self._blocks(cells), cells.design, regression, frequencies)

    def _by_network(self, cells: TreatmentData) -> NDArray:
        return scores_by_network(self.module.network, designed(cells, self.is_fitted))

    def _states_by_network(self, cells: TreatmentData) -> NDArray:
        return combinations(self._by_network(cells))

    def _blocks(self, cells: TreatmentData) -> CountBlocks:
        """Return counts in double precision, in which a cell's scores are its own alone."""
        return cells.blocks(self.is_fitted, self.module.device, dtype=torch.float64)

    def _predictors(self, cells: TreatmentData, estimates: list[Estimate]) -> NDArray:
        """Covariates and confounders, without intercept; a column of zeros if there are none."""
        columns = np.hstack([cells.covariates[:, 1:], self.latents.of_cells(cells, estimates)])
        return columns if columns.shape[1] else np.zeros((len(cells), 1))

    def _of_all(self, values: NDArray) -> NDArray:
        """Place values of the fitted genes among all, NaN elsewhere."""
        full = np.full(len(self.is_fitted), np.nan)
        full[self.is_fitted] = values
        return full
