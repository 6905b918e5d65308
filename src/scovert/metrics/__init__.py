"""Scores: arrays in, numbers out."""

from scovert.metrics._concordance import concordance
from scovert.metrics._integration import (
    batch_mixing,
    batch_mixing_by_type,
    invaded_share,
    label_transfer,
    purity,
)
from scovert.metrics._panel import integration_panel
from scovert.metrics._table import integration

__all__ = [
    "batch_mixing",
    "batch_mixing_by_type",
    "concordance",
    "integration",
    "integration_panel",
    "invaded_share",
    "label_transfer",
    "purity",
]
