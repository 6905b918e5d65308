"""Networks and losses, one module per model."""

from scovert.module._paired import FOOLED, PairedModule

__all__ = ["FOOLED", "PairedModule"]
