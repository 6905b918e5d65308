"""Models: AnnData in, arrays out."""

from scovert.model._paired import PairedVAE

__all__ = ["PairedVAE"]
