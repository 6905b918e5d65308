"""Models: AnnData in, arrays out."""

from scovert.model._confounder import LatentConfounder
from scovert.model._paired import PairedVAE

__all__ = ["LatentConfounder", "PairedVAE"]
