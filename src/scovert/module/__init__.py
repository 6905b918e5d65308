"""Networks and losses, one module per model."""

from scovert.module._confounder import ConfounderModule
from scovert.module._paired import PairedModule

__all__ = ["ConfounderModule", "PairedModule"]
