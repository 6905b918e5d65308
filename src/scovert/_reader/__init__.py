"""Minibatches of cells: in memory, on the device, and block-shuffled from disk."""

from scovert._reader._cells import CELLS_KEY, Cells, CellTensors
from scovert._reader._designed import DesignedData, design_of, designed_cells
from scovert._reader._draws import PairedData, split_cells

__all__ = [
    "CELLS_KEY",
    "CellTensors",
    "Cells",
    "DesignedData",
    "PairedData",
    "design_of",
    "designed_cells",
    "split_cells",
]
