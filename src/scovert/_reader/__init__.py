"""Minibatches of cells: in memory, on the device, and block-shuffled from disk."""

from scovert._reader._cells import Cells, CellTensors
from scovert._reader._designed import designed_cells
from scovert._reader._draws import PairedData, split_cells

__all__ = ["CellTensors", "Cells", "PairedData", "designed_cells", "split_cells"]
