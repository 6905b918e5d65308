"""Which assumption tells the effect of the treatment from the shift of the confounders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scovert.model.confounder.effects._adjustment import (
    choose_against_unadjusted,
    sampling_shift,
    summaries,
)
from scovert.model.confounder.effects._confounder_fit import ConfounderFit, Estimate
from scovert.model.confounder.effects._overlap import unmatched
from scovert.model.confounder.effects._robust import Calibration, Shift, calibrate

__all__ = ["IDENTIFICATIONS", "estimate_plug_in", "estimate_by_states", "estimate_effects"]

SEPARATED = 0.4
"""Share of the variance of a direction that is between classes, from which classes identify it."""

HETEROGENEITY, UNEVEN = 0.2, 0.15
"""Standard deviation of the shifts of classes, in those of the scores, from which they respond
differently to the treatment; and from which a class may be two. With the next two: no false alarm
in 28 data sets with sparse effects, and alarm in all with a dense response."""

DISAGREEMENT, GAP = 1.5, 0.3
"""Chi-square per degree of freedom, and length in standard deviations of the scores, of the
difference between the shifts by classes and by sparsity, from which one of them is wrong."""

SPREAD, NO_SPREAD = 0.10, 0.05
"""Standard deviation of the small effects of most genes, natural log scale, from which sparsity
does not hold; and below which it does."""

SPREAD_BY_GENES = 1.5
"""Over the root of the number of genes: with few genes chance spreads effects that far."""

WITHIN_SHIFT, WITHIN_Z = 0.2, 3.0
"""Length of a shift within classes, in standard deviations of the scores, and in standard errors
of a direction, from which there is one. Draws with a hidden programme within types have 3.1 or
more; without one such a z comes with a shift below 0.2, but for two draws in forty."""

PURE = 0.03
"""Share of an arm in a class, arms taken as of one size, below which it has no counterpart."""

MIN_FREQUENCY = 1e-3
"""Share of the cells from which a class counts: a smaller one is empty."""

MAX_CELLS = 10_000
"""Cells whose neighbours are sought: a share of .02 then has an error of .0014."""

MAX_FACTOR = 1.5
"""Factor of the errors from which the bulk of the genes does not look like no effect."""

MAX_SHIFT = 2.0
"""Standard deviations of the scores between the arms that few genes responding may explain: with
more, a third of the distributions overlaps at most, and a response looks the same."""

MAX_UNMATCHED_SHARE = 0.02
"""No warning up to this share of cells without overlap."""

NOT_IDENTIFIED = "dense effects, not identified"
DENSE = (
    "dense effects; confounding within classes is assumed away. The effects hold if unmeasured "
    "confounders differ between the arms only by the hidden classes (`get_class_probabilities()`)"
)
LIMITS_OF_STATES = {"one_arm_share": MAX_UNMATCHED_SHARE}
LIMITS_OF_ARMS = {**LIMITS_OF_STATES, "unmatched_share": MAX_UNMATCHED_SHARE}
LIMITS_OF_CLASSES = {"heterogeneity": HETEROGENEITY, **LIMITS_OF_ARMS}
EVERYWHERE = (
    "small effects are everywhere, so that many genes respond or the confounders were not found: "
    "that few genes respond does not hold, and effects are missed. Compare with "
    "`identification='classes'`"
)


def estimate_effects(
    fit: ConfounderFit, identification: str, controls: NDArray | None = None
) -> list[Estimate]:
    """Estimate the effects of every arm.

    Parameters
    ----------
    fit
        The fit.
    identification
        One of `IDENTIFICATIONS`.
    controls
        Genes without effect, shape ``(n_genes,)``; for ``"controls"``.

    Returns
    -------
    One estimate for each arm.
    """
    arms = range(1, fit.arms.n_levels)
    if identification == "controls":
        return [by_controls(fit, arm, controls) for arm in arms]
    return [IDENTIFICATIONS[identification](fit, arm) for arm in arms]


def by_randomisation(fit: ConfounderFit, arm: int) -> Estimate:
    """Take the confounders to differ between the arms by chance only."""
    shift = sampling_shift(fit, arm)
    estimate = fit.adjusted(arm, fit.scores, fit.regression, shift)
    return estimate.replace(choice="randomised", facts={"shift": 0.0})


def by_sparsity(fit: ConfounderFit, arm: int) -> Estimate:
    """Take most genes to have no effect: the shift is what they have in common."""
    regression, among = fit.regression, fit.is_tested[arm - 1]
    shift = fit.shift(arm, regression, among)
    estimate = fit.adjusted(arm, fit.scores, regression, shift)
    found = _calibrated(fit, arm, estimate)
    limits = {**found.limits, "shift": MAX_SHIFT}
    found = found.replace(facts={"shift": _norm(shift.mean)}, limits=limits)
    return found.replace(warning=EVERYWHERE) if found.exceeds("tau") else found


def by_controls(fit: ConfounderFit, arm: int, controls: NDArray) -> Estimate:
    """Take the controls to have no effect: the shift is what they have in common."""
    regression, among = fit.regression, fit.is_tested[arm - 1] & controls
    shift = fit.shift(arm, regression, among, correct_noise=False)
    estimate = fit.adjusted(arm, fit.scores, regression, shift)
    facts = {"shift": _norm(shift.mean), "n_controls": float(among.sum())}
    return estimate.replace(choice="controls", facts=facts)


def by_classes(fit: ConfounderFit, arm: int) -> Estimate:
    """Take the confounders to differ only in how frequent hidden classes are."""
    if fit.scores.shape[1] == 0:
        return by_randomisation(fit, arm).replace(choice="classes", facts={"n_classes": 1.0})
    look = _Look(fit, arm)
    return look.by_classes.replace(facts=look.facts(), limits=LIMITS_OF_CLASSES)


def by_rule(fit: ConfounderFit, arm: int) -> Estimate:
    """Choose by what the scores look like, and against adjusting for nothing."""
    if fit.scores.shape[1] == 0:
        return by_randomisation(fit, arm)
    look = _Look(fit, arm)
    chosen = choose_against_unadjusted(fit, arm, look.adjusted())
    found = {"none": fit.unadjusted[arm], **look.estimates, chosen.choice: chosen}
    return chosen.replace(alternatives=summaries(found, chosen, fit.is_tested[arm - 1]))


IDENTIFICATIONS: dict[str, Callable] = {
    "auto": by_rule,
    "classes": by_classes,
    "sparse": by_sparsity,
    "controls": by_controls,
    "randomised": by_randomisation,
}


@dataclass
class _Look:
    """What the classes and the robust shift say of one arm."""

    fit: ConfounderFit
    arm: int

    def __post_init__(self) -> None:
        fit, classes = self.fit, self.fit.classes
        self.sparse = by_sparsity(fit, self.arm)
        frequency = classes.probabilities.mean(0)
        means = classes.probabilities.T @ fit.shifted_scores
        means /= classes.probabilities.sum(0)[:, None]
        centred = means - frequency @ means
        share, axes = np.linalg.eigh((centred.T * frequency) @ centred)
        self.share = np.clip(share, 0, 1)
        self.separated, self.blind = (
            axes[:, at] for at in (share > SEPARATED, share <= SEPARATED)
        )
        own = classes.class_shift[:, self.arm - 1] - classes.shift[self.arm - 1]
        self.heterogeneity = float(np.sqrt((frequency @ own**2).mean()))
        self.disagreement, self.gap = self._compare_shifts()
        self.within, self.within_z = 0.0, 0.0

    def adjusted(self) -> Estimate:
        """Return the effects by classes if there are any, else by sparsity.

        Within donors a shift that sparsity finds and that fails its test is the response itself:
        it is not used.
        """
        fit, by_sparsity, limits = self.fit, self.sparse, {**self.sparse.limits, **LIMITS_OF_ARMS}
        if fit.classes.n_classes == 1 and self._is_blocked and by_sparsity.exceeds("tau"):
            return fit.unadjusted[self.arm].replace(facts=self.facts())
        if fit.classes.n_classes == 1:
            return _not_identified_if_dense(by_sparsity).replace(facts=self.facts(), limits=limits)
        if self.classes_are_doubtful:
            return by_sparsity.replace(facts=self.facts(), limits=limits)
        if self.is_dense:
            options = {"limits": LIMITS_OF_CLASSES, "warning": DENSE}
            return self.by_classes.replace(facts=self.facts(), **options)
        within = self.within_classes()
        if within is None or (self._is_blocked and within.exceeds("tau")):
            return self.by_classes.replace(facts=self.facts(), limits=LIMITS_OF_CLASSES)
        facts, limits = self.facts() | within.facts, {**within.limits, **LIMITS_OF_CLASSES}
        options = {"choice": "hybrid", "by_class": True, "facts": facts, "limits": limits}
        return _not_identified_if_dense(within).replace(**options)

    @cached_property
    def by_classes(self) -> Estimate:
        """Effects at equal classes."""
        return self.fit.by_classes(self.arm)

    @property
    def estimates(self) -> dict[str, Estimate]:
        """What was looked at, by what identifies it."""
        found = {"sparse": self.sparse}
        return found | ({"classes": self.by_classes} if self.fit.classes.n_classes > 1 else {})

    @property
    def _is_blocked(self) -> bool:
        return self.fit.donors is not None and self.fit.donors.are_blocks

    def _compare_shifts(self) -> tuple[float, float]:
        """Distance of the shifts by classes and by sparsity: chi-square per degree, and norm."""
        if self.fit.classes.n_classes == 1 or self.separated.shape[1] == 0:
            return np.nan, np.nan
        at, classes, axes = self.arm - 1, self.fit.classes, self.separated
        robust = self.fit.shift(self.arm, self.fit.regression, self.fit.is_tested[at])
        difference = axes.T @ (classes.shift[at] - robust.mean)
        covariance = axes.T @ (np.linalg.inv(classes.precision[at]) + robust.covariance) @ axes
        chi_square = difference @ np.linalg.solve(covariance, difference)
        return float(chi_square / len(difference)), _norm(difference)

    @property
    def are_apart(self) -> bool:
        """Whether classes and sparsity tell different shifts."""
        return self.disagreement > DISAGREEMENT and self.gap > GAP

    @property
    def is_dense(self) -> bool:
        """Whether many genes respond, or the classes respond differently."""
        return self.heterogeneity > HETEROGENEITY or self.are_apart

    @property
    def classes_are_doubtful(self) -> bool:
        """Whether the classes shift differently although few genes respond.

        A class of two types of cells that differ in frequency between the arms looks like that;
        so do donors.
        """
        if self.fit.donors is not None:
            return False
        uneven = self.heterogeneity > UNEVEN or self.are_apart
        return uneven and self.sparse.facts["tau"] < NO_SPREAD

    def within_classes(self) -> Estimate | None:
        """Return effects with a robust shift where classes are blind, if there is such a shift."""
        fit, regression = self.fit, self.fit.score_regression
        if self.blind.shape[1] == 0:
            return None
        shift = fit.shift(self.arm, regression, fit.is_tested[self.arm - 1], self.blind)
        within, covariance = (self.blind.T @ v for v in (shift.mean, shift.covariance))
        self.within = _norm(within)
        chi_square = within @ np.linalg.solve(covariance @ self.blind, within)
        self.within_z = float(np.sqrt(chi_square / len(within)))
        if self.within <= WITHIN_SHIFT or self.within_z <= WITHIN_Z:
            return None
        return _calibrated(
            fit, self.arm, fit.adjusted(self.arm, fit.shifted_scores, regression, shift)
        )

    @cached_property
    def _unmatched_share(self) -> float:
        """Share of the cells of both arms without a neighbour in the other one."""
        level = self.fit.arms.level
        rows = np.flatnonzero((level == 0) | (level == self.arm))
        if len(rows) > MAX_CELLS:
            rows = np.random.default_rng(self.fit.seed).permutation(rows)[:MAX_CELLS]
        treated = level[rows] == self.arm
        return float(unmatched(self.fit.shifted_scores[rows], treated).mean())

    def facts(self) -> dict[str, float]:
        """Return all that the choice rests on."""
        fit = self.fit
        share = fit.classes.share(self.arm)
        overall = fit.classes.overall
        is_pure = ((share < PURE) | (share > 1 - PURE)) & (overall > MIN_FREQUENCY)
        return {
            "n_classes": float(fit.classes.n_classes),
            "between_share": float(self.share.mean()),
            "heterogeneity": self.heterogeneity,
            "disagreement": self.disagreement,
            "gap": self.gap,
            "within_shift": self.within,
            "within_z": self.within_z,
            "one_arm_share": float(overall[is_pure].sum()),
            "unmatched_share": self._unmatched_share,
            "tau": self.sparse.facts["tau"],
            "lambda": self.sparse.facts["lambda"],
        }


def _zero_shift(fit: ConfounderFit) -> Shift:
    """Return the shift of confounders that are known as they are."""
    k = fit.scores.shape[1]
    return Shift(np.zeros(k), np.zeros((k, k)))


def _calibrated(fit: ConfounderFit, arm: int, estimate: Estimate) -> Estimate:
    """Widen the errors to what the bulk of the genes shows."""
    among = fit.is_tested[arm - 1]
    found = calibrate(estimate.effect[among], estimate.se[among])
    facts = {"tau": found.spread, "lambda": found.factor}
    limits = {"tau": max(SPREAD, SPREAD_BY_GENES / np.sqrt(len(among)))}
    if fit.donors is not None:  # their errors hold without
        return estimate.replace(facts=facts, limits=limits)
    limits["lambda"] = MAX_FACTOR
    return estimate.replace(se=_widen(estimate.se, found), facts=facts, limits=limits)


def _widen(se: NDArray, found: Calibration) -> NDArray:
    return found.factor * np.sqrt(se**2 + found.spread**2)


def _not_identified_if_dense(estimate: Estimate) -> Estimate:
    """Refuse p-values where small effects are everywhere, which sparsity excludes."""
    return estimate.replace(not_identified=NOT_IDENTIFIED) if estimate.exceeds("tau") else estimate


def _norm(vector: NDArray) -> float:
    return float(np.linalg.norm(vector))


def estimate_by_states(fit: ConfounderFit, states: NDArray) -> list[Estimate]:
    """Estimate the effects of every arm given binary confounders, whose states identify them.

    Parameters
    ----------
    fit
        The fit, with the probabilities of the confounders for scores.
    states
        Probability of every combination of them, shape ``(n_cells, n_states)``.
    """
    level, zero = fit.arms.level, _zero_shift(fit)
    n_covariates, found = fit.covariates.shape[1], []
    for arm in range(1, fit.arms.n_levels):
        estimate = fit.adjusted(arm, fit.scores, fit.regression, zero)
        at_mean = fit.scores.mean(0) @ fit.regression.coefficients[fit.n_design :]
        baseline = estimate.baseline.copy()
        baseline[0] += at_mean
        frequency = np.stack([states[level == v].mean(0) for v in (0, arm)])
        share = frequency[1] / np.maximum(frequency.sum(0), 1e-12)
        is_pure = ((share < PURE) | (share > 1 - PURE)) & (states.mean(0) > MIN_FREQUENCY)
        facts = {
            "n_classes": float(states.shape[1]),
            "one_arm_share": float(states.mean(0)[is_pure].sum()),
        }
        stated = estimate.replace(choice="classes", facts=facts, limits=LIMITS_OF_STATES)
        found.append(stated.replace(baseline=baseline[:n_covariates]))
    return found


def estimate_plug_in(fit: ConfounderFit) -> list[Estimate]:
    """Estimate the effects of every arm given confounders that are taken for the truth.

    Parameters
    ----------
    fit
        The fit, with confounders for scores that need not be orthogonal to the treatment.
    """
    zero, found = _zero_shift(fit), []
    for arm in range(1, fit.arms.n_levels):
        estimate = fit.adjusted(arm, fit.scores, fit.regression, zero)
        baseline = estimate.baseline.copy()
        baseline[0] += fit.scores.mean(0) @ fit.regression.coefficients[fit.n_design :]
        found.append(estimate.replace(choice="plug-in", baseline=baseline))
    return found
