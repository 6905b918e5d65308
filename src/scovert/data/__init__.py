"""Real counts without a download, batches with a known truth, and tables of bulk samples."""

from scovert.data._concat_measured import concat_measured
from scovert.data._pbmc68k import pbmc68k
from scovert.data._read_bulk import read_bulk
from scovert.data._two_batches import two_batches

__all__ = ["concat_measured", "pbmc68k", "read_bulk", "two_batches"]
