"""Models: AnnData in, arrays out."""

from scovert.model._bulk import BulkDeconvolution, BulkResult, TypeExpression
from scovert.model._confounder import LatentConfounder
from scovert.model._paired import PairedVAE

__all__ = ["BulkDeconvolution", "BulkResult", "LatentConfounder", "PairedVAE", "TypeExpression"]
