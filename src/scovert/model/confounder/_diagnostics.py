"""Rows of ``check()`` of effects."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scovert.core._diagnostics import HealthRow, check_table, dispersion_row, finite_row, row
from scovert.model.confounder._inference import Inference
from scovert.model.confounder._tables import comparisons
from scovert.model.confounder.effects import Estimate
from scovert.model.confounder.glm._rank import MAX_FACTORS

__all__ = [
    "deviance_fall_row",
    "diagnose",
    "identification_rows",
    "latent_number_row",
    "leakage_row",
]

OBJECTIVES = ("deviance", "train_loss", "generator_loss")
"""Columns of a history, one for each solver, that become smaller."""

MAX_MEDIAN = 0.2
"""Median effect, log2, up to which totals do as size factors. With interferon beta it is 0.1 in T
cells, and 0.5 in monocytes, whose strongest genes are induced."""

AGAINST = {
    "tau": "Small effects are everywhere: that few genes respond does not hold.",
    "lambda": "Standard errors had to grow to fit the bulk of the genes.",
    "shift": "The arms differ that much in a confounder: if the treatment moves a whole programme "
    "of genes, it is taken for one. With a treatment assigned at random, as guides are, pass "
    "`identification='randomised'`.",
    "heterogeneity": "Hidden classes respond differently: effects are averages.",
    "class_distance": "Hidden classes follow the treatment: nothing was adjusted for.",
    "one_arm_share": "Hidden classes are in one arm only (`get_class_probabilities()`): no effect "
    "can be learnt from their cells.",
    "unmatched_share": "Cells have no counterpart in the other arm: their type may be in one arm "
    "only.",
}
"""What it means that a fact exceeds the limit that an identification sets."""


def diagnose(
    history: dict[str, pd.DataFrame], inference: Inference, estimates: list[Estimate]
) -> pd.DataFrame:
    """Return the table of `LatentConfounder.check` of these estimates."""
    latents, n_latent = inference.latents, inference.fit.scores.shape[1]
    rows = [
        finite_row(history),
        deviance_fall_row(history),
        dispersion_row(1 / inference.fitted.dispersion),
        latent_number_row(n_latent),
        leakage_row(inference.leakage(estimates), latents.max_leakage, latents.remedy),
    ]
    rows += [row(f"design: {said}", 1.0, "") for said in inference.design.sentences]
    for comparison, estimate in zip(comparisons(inference.levels), estimates, strict=True):
        is_plain = n_latent == 0 and not estimate.limits
        choice = "plain regression" if is_plain else estimate.choice
        rows += identification_rows(comparison, choice, estimate)
        rows.append(median_row(comparison, estimate))
    return check_table(rows)


def deviance_fall_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the fall of the deviance or loss, as a share of that of the first round."""
    name = next(name for name in OBJECTIVES if name in history)
    values = history[name].to_numpy(float).ravel()
    fall = float((values[0] - values[-1]) / abs(values[0]))
    advice = "" if fall > -1e-6 else "The fit diverged: look at genes with extreme counts."
    return row(f"fall of the {name.replace('_', ' ')}", fall, advice)


def latent_number_row(n_latent: int) -> HealthRow:
    """Return the number of inferred confounders, of which there should not be too many."""
    advice = ""
    if n_latent >= MAX_FACTORS:
        advice = "There may be more confounders than the search goes: filter cells and genes."
    return row("confounders", n_latent, advice)


def leakage_row(leakage: float, limit: float, remedy: str) -> HealthRow:
    """Return the largest correlation of a confounder with the treatment, given covariates.

    Parameters
    ----------
    leakage
        The correlation.
    limit
        From where it is too large.
    remedy
        What can be done about a large one.
    """
    advice = ""
    if leakage > limit:
        advice = (
            "A confounder is close to a copy of the treatment: its effect and the treatment's can "
            f"hardly be told apart. {remedy}"
        )
    return row("leakage", leakage, advice)


def identification_rows(comparison: str, choice: str, estimate: Estimate) -> list[HealthRow]:
    """Return what identifies the effects of one arm, and what speaks for and against it.

    Parameters
    ----------
    comparison
        The arm and what it is compared with.
    choice
        What identifies the effects, in words.
    estimate
        The effects. Facts without a limit are shown, but the effects do not rest on them.
    """
    doubt = estimate.not_identified or estimate.warning
    rows = [
        row(f"{comparison}: identified by {choice}", float(not estimate.not_identified), doubt)
    ]
    for name, value in estimate.facts.items():
        advice = AGAINST[name] if estimate.exceeds(name) else ""
        rows.append(row(f"{comparison}: {name}", value, advice))
    for name, found in estimate.alternatives.items():
        said = f"by {name!r}, rank correlation {found['rank_correlation']:.3f} with the choice"
        rows.append(row(f"{comparison}: genes called {said}", found["genes_called"], ""))
    return rows


def median_row(comparison: str, estimate: Estimate) -> HealthRow:
    """Return the median effect, log2: that of most genes is 0, if cells are scaled rightly."""
    median = float(np.median(estimate.effect) / np.log(2))
    advice = ""
    if abs(median) > MAX_MEDIAN:
        advice = (
            f"Half of the genes change by {median:+.2f} or more in that direction: a few strong "
            "genes may have changed the total counts. Pass `size_factor_key` with size factors by "
            "the median of ratios, if most genes should not respond."
        )
    return row(f"{comparison}: median log2_fc", median, advice)
