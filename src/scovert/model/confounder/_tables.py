"""From estimates to the table of effects, and to what is said about it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from scovert.core._checks import caller_level
from scovert.model.confounder.effects import Estimate

__all__ = [
    "MIN_COUNTS",
    "comparisons",
    "effects_table",
    "for_genes",
    "joined_table",
    "reasons",
    "say_what_was_assumed",
    "warn_of_doubts",
]

MIN_COUNTS = 10
"""Counts of a gene in all cells, at least: the log of so many has a standard error of 0.3."""

ASSUMPTIONS = {
    "classes": "within hidden classes of cells, nothing unmeasured drives the treatment",
    "hybrid": "hidden classes, and few genes respond: what most genes share within classes is no "
    "effect",
    "sparse": "few genes respond: what most genes share is no effect",
    "controls": "the negative controls do not respond",
    "randomised": "unmeasured confounders are alike in both arms",
    "none": "nothing unmeasured differs between the arms",
    "plug-in": "the generator's confounders are the true ones",
}


def comparisons(levels: Sequence[object]) -> list[str]:
    """Return every arm and what it is compared with, the reference being the first level."""
    return [f"{level} v. {levels[0]}" for level in levels[1:]]


SAID = {
    "identification": lambda estimate: estimate.choice,
    "facts": lambda estimate: dict(estimate.facts),
    "alternatives": lambda estimate: {k: dict(v) for k, v in estimate.alternatives.items()},
}
"""What is said of the estimate of an arm, in the attributes of a table."""


def reasons(totals: NDArray, names: Sequence[object]) -> NDArray:
    """Return why genes have no effect to look at, empty for those that have.

    Parameters
    ----------
    totals
        Total count of every gene in every arm, the reference first, shape
        ``(n_levels, n_genes)``.
    names
        Names of the levels.

    Returns
    -------
    Array of strings of shape ``(n_levels - 1, n_genes)``.
    """
    few = totals.sum(0) < MIN_COUNTS
    found = np.full((len(totals) - 1, totals.shape[1]), "", dtype=object)
    for arm in range(1, len(totals)):
        found[arm - 1, totals[arm] == 0] = f"no counts in {names[arm]}"
        found[arm - 1, totals[0] == 0] = f"no counts in {names[0]}"
        found[arm - 1, few] = f"fewer than {MIN_COUNTS} counts"
    return found


def effects_table(
    estimate: Estimate,
    unadjusted: NDArray,
    unadjusted_p: NDArray,
    genes: pd.Index,
    reason: NDArray,
) -> pd.DataFrame:
    """Return the effects of one arm on the log2 scale.

    Parameters
    ----------
    estimate
        The estimate, of all genes; those with a `reason` become NaN.
    unadjusted, unadjusted_p
        Effects without latent confounders, natural log scale, and their p-values.
    genes
        Names of the genes.
    reason
        Why a gene has no effect; empty if it has.
    """
    tested = reason == ""
    table = pd.DataFrame(index=genes.rename("gene"))

    def put(column: str, values: NDArray) -> None:
        table[column] = np.where(tested, values, np.nan)

    put("log2_fc", estimate.effect / np.log(2))
    put("se", estimate.se / np.log(2))
    nothing = np.full(len(genes), np.nan)
    put("z", nothing if estimate.not_identified else estimate.effect / estimate.se)
    put("p_value", nothing if estimate.not_identified else estimate.p_value)
    table["q_value"] = _q_values(table["p_value"])
    put("log2_fc_naive", unadjusted / np.log(2))
    table["q_value_naive"] = _q_values(pd.Series(np.where(tested, unadjusted_p, np.nan), genes))
    table["reason"] = np.where(tested, estimate.not_identified, reason)
    return table


def for_genes(table: pd.DataFrame, genes: pd.Index) -> pd.DataFrame:
    """Return the effects of one arm on some genes, in their order; NaN for unknown ones."""
    asked = table.reindex(genes)
    asked["reason"] = asked["reason"].fillna("not a gene of the model")
    return asked


def joined_table(tables: dict[str, pd.DataFrame], estimates: list[Estimate]) -> pd.DataFrame:
    """Return the table of one arm, or of all with the arm in the index, and say what was used.

    Parameters
    ----------
    tables
        Table of every arm by its name.
    estimates
        Their estimates.
    """
    if len(tables) == 1:
        (table,) = tables.values()
        said = {name: of(estimates[0]) for name, of in SAID.items()}
    else:
        for single, estimate in zip(tables.values(), estimates, strict=True):
            single.insert(single.shape[1] - 1, "identification", estimate.choice)
        table = pd.concat(tables, names=["arm", "gene"])
        by_arm = dict(zip(tables, estimates, strict=True))
        said = {n: {arm: of(e) for arm, e in by_arm.items()} for n, of in SAID.items()}
    table.attrs = said
    return table


def _q_values(p_values: pd.Series) -> NDArray:
    q_values = np.full(len(p_values), np.nan)
    known = p_values.notna().to_numpy()
    if known.any():
        q_values[known] = false_discovery_control(p_values.to_numpy()[known])
    return q_values


def say_what_was_assumed(estimate: Estimate, comparison: str, n_latent: int) -> str:
    """Return a sentence on what identifies the effects."""
    if n_latent == 0:
        return f"{comparison}: no unmeasured confounders in the model, effects of plain regression"
    said = f"{comparison}: identified by {estimate.choice!r}: {ASSUMPTIONS[estimate.choice]}"
    if estimate.choice != "none" or estimate.warning:
        return said
    facts = estimate.facts
    return (
        f"{said}. Adjusting would move the effects by {facts['movement']:.2f} standard errors, "
        f"chance by {facts['movement_by_chance']:.2f}"
    )


def warn_of_doubts(estimate: Estimate, comparison: str) -> None:
    """Warn of what speaks against that which identifies the effects."""
    if estimate.not_identified:
        warnings.warn(
            f"{comparison}: small effects are everywhere, and nothing in the data tells them from "
            "a shift of unmeasured confounders: p-values are refused (NaN), and the estimates are "
            "not to be relied on. Pass `negative_controls`, or `identification='randomised'` if "
            "the treatment was assigned at random.",
            UserWarning,
            stacklevel=caller_level(),
        )
    elif estimate.warning:
        warnings.warn(
            f"{comparison}: {estimate.warning}.",
            UserWarning,
            stacklevel=caller_level(),
        )
    if estimate.exceeds("lambda"):
        warnings.warn(
            f"{comparison}: standard errors had to grow by a factor of "
            f"{estimate.facts['lambda']:.1f} to fit the bulk of the genes: that few genes respond "
            "may be wrong here, and effects are missed.",
            UserWarning,
            stacklevel=caller_level(),
        )
    if estimate.exceeds("shift"):
        warnings.warn(
            f"{comparison}: the arms differ by {estimate.facts['shift']:.1f} standard deviations "
            f"of a confounder{_without(estimate)}. A treatment that moves a whole programme of "
            "genes looks the same, and is then taken for a confounder. If it was assigned at "
            "random, as guides are, pass `identification='randomised'`.",
            UserWarning,
            stacklevel=caller_level(),
        )
    alone = [name for name in ("one_arm_share", "unmatched_share") if estimate.exceeds(name)]
    if alone:
        share = max(estimate.facts[name] for name in alone)
        warnings.warn(
            f"{comparison}: {share:.0%} of the cells have no counterpart in the other arm. No "
            "effect can be learnt from them, and if they are of a type of their own, effects may "
            "be wrong: look at `get_class_probabilities()` by arm.",
            UserWarning,
            stacklevel=caller_level(),
        )


def _without(estimate: Estimate) -> str:
    """Say how many genes are called with and without adjustment, if both were looked at."""
    called = {name: found["genes_called"] for name, found in estimate.alternatives.items()}
    if not {"none", estimate.choice} <= set(called):
        return ""
    ours, plain = called[estimate.choice], called["none"]
    return f", and {ours:.0f} genes are called with it, {plain:.0f} without"
