"""Rows of ``check()`` of an integration."""

from __future__ import annotations

import warnings

from scovert.anchors._find import MIN_CLARITY, Anchors
from scovert.core._checks import caller_level
from scovert.core._diagnostics import HealthRow, row

__all__ = ["anchor_row", "deviance_row", "share_row", "warn_about_anchors"]

LARGEST_SHARE = 0.9
"""Share of a cell's decoded counts in one gene: no cell is like that."""
DEVIANCE_EXPLAINED = 0.06
"""Shuffled counts explain something too, but less: what one gene takes, the others lack."""


def share_row(largest: float) -> HealthRow:
    """Return the largest decoded share of a gene in a cell, the median of held-out cells."""
    advice = ""
    if not largest < LARGEST_SHARE:
        advice = (
            "One gene takes nearly all decoded counts of a cell: look at the genes with the "
            "highest totals, or train with a smaller learning rate."
        )
    return row("largest decoded share", largest, advice)


def deviance_row(explained: float) -> HealthRow:
    """Return the share of the deviance of held-out counts in held-out cells that is explained."""
    advice = ""
    if not explained > DEVIANCE_EXPLAINED:
        advice = (
            "The model tells hardly more of cells it was not trained on than the mean of their "
            "dataset: the latent space is empty, or the counts have little structure."
        )
    return row("held-out deviance explained", explained, advice)


def anchor_row(clarity: float) -> HealthRow:
    """Return how clearly the cells fall into classes (trusted from 0.53)."""
    advice = ""
    if clarity < MIN_CLARITY:
        advice = (
            "The cells do not fall into classes by which datasets could be matched, and the pull "
            "was weakened: compare with `alignment='none'`."
        )
    return row("clarity of the classes", clarity, advice)


def warn_about_anchors(anchors: Anchors) -> None:
    """Warn that anchors have a tenth of their weight, and why."""
    found = f"the cells do not fall into clear classes (clarity {anchors.clarity:.2f})"
    if len(anchors.pairs) == 0:
        found = "no cells of different datasets were found that match"
    warnings.warn(
        f"Anchors should join cells of the same class, and {found}. The pull between anchored "
        "cells has a tenth of its weight. The datasets may share few cell types, or be too noisy: "
        "look at `get_support()`, and compare with `alignment='none'`.",
        UserWarning,
        stacklevel=caller_level(),
    )
