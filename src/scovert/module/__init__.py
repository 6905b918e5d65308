"""Networks and losses, one module per model."""

from scovert.module._paired import PairedModule

__all__ = ["PairedModule"]
