"""The rows of ``check()``: what of a fit deserves a second look."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.anchors._find import MIN_CONSISTENCY

if TYPE_CHECKING:
    from scovert.effects import Estimate

__all__ = [
    "HealthRow",
    "anchor_row",
    "deviance_fall_row",
    "deviance_row",
    "dispersion_row",
    "finite_row",
    "gradient_row",
    "identification_rows",
    "latent_number_row",
    "latent_row",
    "leakage_row",
    "loss_row",
    "reference_rows",
    "share_row",
    "table",
]

ACTIVE_SD = 0.1
THETA_RANGE = (1e-3, 1e4)
GRADIENT_GROWTH = 10
MANY_CONFOUNDERS = 15
OBJECTIVES = ("deviance", "train_loss", "generator_loss")
LARGEST_SHARE = 0.9
FEW_CELLS_OF_TYPE, FEW_GENES, FEW_GENES_OF_TYPE, ALIKE = 50, 200, 10, 0.95
AGAINST = {
    "tau": "Small effects are everywhere: that few genes respond does not hold.",
    "lambda": "Standard errors had to grow to fit the bulk of the genes.",
    "heterogeneity": "Hidden classes respond differently: effects are averages.",
    "one_arm_share": "Hidden classes are in one arm only (`get_class_probabilities()`): no effect "
    "can be learnt from their cells.",
    "unmatched_share": "Cells have no counterpart in the other arm: their type may be in one arm "
    "only.",
}
"""What it means that a fact exceeds the limit that an identification sets."""

DEVIANCE_EXPLAINED = 0.06
"""Shuffled counts explain something too, but less: what one gene takes, the others lack."""


class HealthRow(NamedTuple):
    """One line of the table; the advice is empty when all is well."""

    quantity: str
    value: float
    verdict: str
    advice: str


def table(rows: list[HealthRow]) -> pd.DataFrame:
    """Return the rows as a DataFrame indexed by quantity."""
    return pd.DataFrame(rows, columns=HealthRow._fields).set_index("quantity")


def finite_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the share of the recorded values that are finite numbers."""
    values = {name: frame.to_numpy(float) for name, frame in history.items()}
    broken = [name for name, v in values.items() if not np.isfinite(v).all()]
    share = float(np.mean(np.concatenate([np.isfinite(v).ravel() for v in values.values()])))
    advice = f"{', '.join(broken)} became NaN or infinite: train with a smaller learning rate."
    return _row("finite loss terms", share, advice if broken else "")


def loss_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the fall of the negative ELBO, as a share of that of the first epoch."""
    elbo = history["elbo_train"].to_numpy(float).ravel()
    fall = float(1 - elbo[-1] / elbo[0])
    advice = ""
    if len(elbo) > 1 and not fall > 0:
        advice = "Training diverged: the loss ended above its start. Lower the learning rate."
    return _row("fall of the loss", fall, advice)


def gradient_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the mean norm of the gradient in the last epoch, by the median over the epochs."""
    norms = history["gradient_norm_train"].to_numpy(float).ravel()
    growth = float(norms[-1] / np.median(norms))
    advice = ""
    if not growth < GRADIENT_GROWTH:
        advice = (
            "The gradient grew at the end of training: lower the learning rate, or clip it with "
            "`train(gradient_clip_val=...)`."
        )
    return _row("growth of the gradient", growth, advice)


def deviance_fall_row(history: dict[str, pd.DataFrame]) -> HealthRow:
    """Return the fall of the deviance or loss, as a share of that of the first round."""
    name = next(name for name in OBJECTIVES if name in history)
    values = history[name].to_numpy(float).ravel()
    fall = float((values[0] - values[-1]) / abs(values[0]))
    advice = "" if fall > -1e-6 else "The fit diverged: look at genes with extreme counts."
    return _row(f"fall of the {name.replace('_', ' ')}", fall, advice)


def latent_number_row(n_latent: int) -> HealthRow:
    """Return the number of inferred confounders, of which there should not be too many."""
    advice = ""
    if n_latent >= MANY_CONFOUNDERS:
        advice = "There may be more confounders than the search goes: filter cells and genes."
    return _row("confounders", n_latent, advice)


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
    return _row("leakage", leakage, advice)


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
    doubt = estimate.refused or estimate.warning
    rows = [_row(f"{comparison}: identified by {choice}", float(not estimate.refused), doubt)]
    for name, value in estimate.facts.items():
        advice = AGAINST[name] if estimate.exceeds(name) else ""
        rows.append(_row(f"{comparison}: {name}", value, advice))
    return rows


def share_row(largest: float) -> HealthRow:
    """Return the largest decoded share of a gene in a cell, the median of held-out cells."""
    advice = ""
    if not largest < LARGEST_SHARE:
        advice = (
            "One gene takes nearly all decoded counts of a cell: look at the genes with the "
            "highest totals, or train with a smaller learning rate."
        )
    return _row("largest decoded share", largest, advice)


def deviance_row(explained: float) -> HealthRow:
    """Return the share of the deviance of held-out counts in held-out cells that is explained."""
    advice = ""
    if not explained > DEVIANCE_EXPLAINED:
        advice = (
            "The model tells hardly more of cells it was not trained on than the mean of their "
            "dataset: the latent space is empty, or the counts have little structure."
        )
    return _row("held-out deviance explained", explained, advice)


def latent_row(means: NDArray) -> HealthRow:
    """Count the latent dimensions whose posterior means vary (sd above 0.1)."""
    active = int((means.std(axis=0) > ACTIVE_SD).sum())
    advice = ""
    if active < min(2, means.shape[1]):
        advice = "The latent space has collapsed: train longer, or lower `max_kl_weight`."
    return _row("active latent dimensions", active, advice)


def dispersion_row(theta: NDArray) -> HealthRow:
    """Return the share of genes whose inverse dispersion is plausible (0.001 to 10,000)."""
    low, high = THETA_RANGE
    share = float(np.mean((theta >= low) & (theta <= high)))
    advice = ""
    if share < 0.99:
        advice = (
            f"{1 - share:.0%} of the inverse dispersions left [{low:g}, {high:g}]: look at genes "
            "with very few counts, or train with a smaller learning rate."
        )
    return _row("plausible dispersions", share, advice)


def anchor_row(consistency: float) -> HealthRow:
    """Return the share of the anchors between best-matching clusters (trusted from 0.72)."""
    advice = ""
    if consistency < MIN_CONSISTENCY:
        advice = (
            "The anchors contradict the clusters of the datasets, and the pull was weakened: look "
            "at `get_support()`, and compare with `alignment='none'`."
        )
    return _row("anchor consistency", consistency, advice)


def reference_rows(
    study: str, n_cells: dict[str, int], n_genes: int, shares: NDArray
) -> list[HealthRow]:
    """Return what a reference can tell.

    Parameters
    ----------
    study
        Name of the study, empty if there is only one.
    n_cells
        Cells of every type.
    n_genes
        Genes that tell types apart.
    shares
        Shares of these genes in the types, shape ``(n_types, n_genes)``.
    """
    prefix = f"{study}: " if study else ""
    smallest = min(n_cells, key=n_cells.get)
    advice = ""
    if n_cells[smallest] < FEW_CELLS_OF_TYPE:
        advice = f"The profile of {smallest!r} rests on few cells: merge it with a related type."
    rows = [_row(f"{prefix}cells of the smallest type", n_cells[smallest], advice)]
    advice = "" if n_genes >= FEW_GENES else "Few genes tell the types apart: pass all genes."
    rows.append(_row(f"{prefix}informative genes", n_genes, advice))
    own = np.bincount(shares.argmax(0), minlength=len(n_cells))
    rarest = list(n_cells)[own.argmin()]
    advice = ""
    if own.min() < FEW_GENES_OF_TYPE:
        advice = (
            f"Few genes tell {rarest!r} from the others beyond what sampling explains: merge it "
            "with a related type, or use more cells."
        )
    rows.append(_row(f"{prefix}genes highest in {rarest}, the fewest", own.min(), advice))
    likeness = np.corrcoef(np.log(shares * 1e6 + 10))
    np.fill_diagonal(likeness, -1)
    pair = np.unravel_index(likeness.argmax(), likeness.shape)
    first, second = (list(n_cells)[i] for i in pair)
    advice = ""
    if likeness.max() > ALIKE:
        advice = (
            f"{first!r} and {second!r} express almost alike: read their sum rather than each, or "
            "merge them."
        )
    return [
        *rows,
        _row(
            f"{prefix}correlation of {first} and {second}, the closest types",
            likeness.max(),
            advice,
        ),
    ]


def _row(quantity: str, value: float, advice: str) -> HealthRow:
    return HealthRow(quantity, value, "look" if advice else "ok", advice)
