"""What anchors say of each cell, as columns of the minibatches."""

from __future__ import annotations

import numpy as np

from scovert.anchors import Anchors
from scovert.anchors._find import N_COMPONENTS
from scovert.core.dataloaders._cells import Cells
from scovert.model.paired._module import BALANCE_KEY, COUNTERPARTS_KEY, POSITIONS_KEY

__all__ = ["with_counterparts", "with_positions"]


def with_counterparts(cells: Cells, anchors: Anchors) -> Cells:
    """Add what weighs cells before a discriminator: those without counterparts weigh nothing."""
    counterparts = anchors.counterparts.astype(np.float32)
    balance = anchors.balance * (counterparts.sum(axis=1) > 1)
    return cells.with_columns(**{COUNTERPARTS_KEY: counterparts, BALANCE_KEY: balance[:, None]})


def with_positions(cells: Cells, anchors: Anchors) -> Cells:
    """Add aligned components, in standard deviations within classes; 0 where there are fewer."""
    found = anchors.positions.shape[1]
    positions = np.zeros((len(cells), N_COMPONENTS), np.float32)
    np.subtract(anchors.positions, anchors.positions.mean(axis=0), out=positions[:, :found])
    positions[:, :found] /= np.where(anchors.sd > 0, anchors.sd, 1)
    return cells.with_columns(**{POSITIONS_KEY: positions})
