"""Whether there is anything to adjust for, or adjusting moves the effects as chance would."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scovert.model.confounder.effects._confounder_fit import ConfounderFit, Estimate
from scovert.model.confounder.effects._robust import Shift

__all__ = ["Movement", "choose_against_unadjusted", "summaries", "sampling_shift"]

LEVEL = 0.05
"""Level of the test that adjusting moves the effects by no more than chance would."""

USUAL = 0.84
"""Probability that chance moves effects less than is taken for its doing: one standard deviation
of a normal variable above its mean."""

MAX_MOVEMENT, MAX_EXCESS = 1.0, 0.5
"""Standard errors by which adjusting may move effects, in all and beyond chance, for the
unadjusted ones to be kept. A bias of half a standard error makes 8 % of 5 % false positives, were
the errors not widened by it."""

MIN_VARIANCE = 0.95
"""Variance of adjusted effects, unadjusted ones 1, below which adjusting pays without any bias."""

MAX_CLASS_DISTANCE = 0.65
"""Half the sum of absolute differences of the frequency of classes between an arm and the
reference, from which the classes are the arms: 0.03 to 0.24 in six of Kang's types, 0.8 in both
kinds of monocytes; and where types are hidden 0.25 to 0.51, which have to be adjusted for."""

CALLED = 0.05
"""False discovery rate of the genes that are counted."""

FOLLOWS_TREATMENT = (
    "the hidden classes follow the treatment itself, so that they cannot be told from its effect: "
    "nothing was adjusted for. The effects hold if nothing unmeasured differs between the arms; "
    "`identification='classes'` adjusts all the same"
)


class Movement(NamedTuple):
    """By how much adjusting moves the effects of an arm, in standard errors of the unadjusted.

    Attributes
    ----------
    size
        Root mean square over the tested genes.
    by_chance
        The same if the confounders differ between the arms by chance only, root of the mean.
    usually
        What chance rarely exceeds (in 16 of 100 cases).
    p_value
        That chance moves them as much, over all genes at once.
    variance
        Median ratio of the adjusted variance to the unadjusted.
    """

    size: float
    by_chance: float
    usually: float
    p_value: float
    variance: float

    @property
    def excess(self) -> float:
        """What chance does not explain, in standard errors."""
        return float(np.sqrt(max(0.0, self.size**2 - self.usually**2)))

    def is_nothing(self, *, has_donors: bool) -> bool:
        """Whether unadjusted effects do as well.

        Donors are few, and what their test sees beyond chance may be small enough. Of cells that
        count as independent it sees a bias that false positives come from.
        """
        is_small = self.p_value >= LEVEL or (has_donors and self.excess < MAX_EXCESS)
        return is_small and self.size < MAX_MOVEMENT and self.variance >= MIN_VARIANCE

    @classmethod
    def of(
        cls, fit: ConfounderFit, arm: int, adjusted: Estimate, unadjusted: Estimate
    ) -> Movement:
        """Compare an adjusted estimate with the unadjusted one.

        By chance the shift of the scores has the covariance of `sampling_shift`, so that the mean
        square is a sum of squares of normal variables with known weights: scaled to an F
        distribution with the first two moments.
        """
        among, se = fit.is_tested[arm - 1], unadjusted.se
        difference = ((adjusted.effect - unadjusted.effect) / se)[among]
        loadings = (fit.regression.coefficients[fit.n_design :] / se)[:, among]
        weights = sampling_shift(fit, arm).covariance @ (loadings @ loadings.T) / among.sum()
        mean, square = np.trace(weights), np.trace(weights @ weights)
        chance = stats.f(mean**2 / square, _degrees_of_freedom(fit, arm))
        size = float(np.mean(difference**2))
        return cls(
            size=size**0.5,
            by_chance=float(mean**0.5),
            usually=float((mean * chance.ppf(USUAL)) ** 0.5),
            p_value=float(chance.sf(size / mean)),
            variance=float(np.median((adjusted.se / se)[among] ** 2)),
        )


def sampling_shift(fit: ConfounderFit, arm: int) -> Shift:
    """Return a shift of zero with the covariance that chance gives it.

    The scores are orthogonal to the treatment, so that the regression cannot see by how much the
    arms differ by chance: that of a difference of means, between cells or between donors.
    """
    residual, scores = fit.arms.residual, fit.scores
    weight = residual @ np.linalg.inv(residual.T @ residual)[:, arm - 1]
    influence = scores * weight[:, None]
    if fit.donors is not None:
        codes = fit.donors.codes
        influence = np.stack([influence[codes == code].sum(0) for code in np.unique(codes)])
    return Shift(np.zeros(scores.shape[1]), influence.T @ influence)


def _degrees_of_freedom(fit: ConfounderFit, arm: int) -> float:
    """Return those of the covariance of the shift: of donors, or of as many cells as there are."""
    if fit.donors is None:
        return float(len(fit.arms.level))
    return float(fit.donors.compared(fit.arms, arm).df)


def choose_against_unadjusted(fit: ConfounderFit, arm: int, adjusted: Estimate) -> Estimate:
    """Return the unadjusted estimate where adjusting is of no use, else the adjusted one.

    Parameters
    ----------
    fit
        The fit, with scores.
    arm
        The arm, from 1.
    adjusted
        Its effects by the rule for confounders.

    Returns
    -------
    The estimate with what the choice rests on in its facts. Errors of the unadjusted one are
    widened by what chance does not explain, so that they cover the case that it is a bias.
    """
    unadjusted = fit.unadjusted[arm]
    movement = Movement.of(fit, arm, adjusted, unadjusted)
    distance = _class_distance(fit, arm)
    facts = {
        "movement": movement.size,
        "movement_by_chance": movement.by_chance,
        "movement_p": movement.p_value,
        "relative_variance": movement.variance,
        "class_distance": distance,
    }
    none = unadjusted.replace(choice="none", facts=adjusted.facts | facts)
    if distance > MAX_CLASS_DISTANCE:
        limits = {"class_distance": MAX_CLASS_DISTANCE}
        return none.replace(warning=FOLLOWS_TREATMENT, limits=limits)
    if movement.is_nothing(has_donors=fit.donors is not None):
        return none.replace(se=none.se * np.sqrt(1 + movement.excess**2))
    return adjusted.replace(facts=facts)


def _class_distance(fit: ConfounderFit, arm: int) -> float:
    frequency = fit.classes.frequency
    return float(np.abs(frequency[arm] - frequency[0]).sum() / 2)


def summaries(
    estimates: dict[str, Estimate], chosen: Estimate, among: NDArray
) -> dict[str, dict[str, float]]:
    """Return of each estimate the genes it calls, and its rank correlation with the chosen one.

    Parameters
    ----------
    estimates
        By what identifies them.
    chosen
        The one that was chosen.
    among
        Genes that are tested, shape ``(n_genes,)``.
    """
    return {
        name: {
            "genes_called": float((_q_values(one.p_value[among]) < CALLED).sum()),
            "rank_correlation": float(stats.spearmanr(one.effect[among], chosen.effect[among])[0]),
        }
        for name, one in estimates.items()
    }


def _q_values(p_value: NDArray) -> NDArray:
    return stats.false_discovery_control(np.nan_to_num(p_value, nan=1.0))
