"""Models: AnnData in, arrays out."""

from scovert.core.report import Report
from scovert.model.bulk._budget import BulkBudget
from scovert.model.bulk._expression import TypeExpression
from scovert.model.bulk._model import BulkDeconvolution
from scovert.model.bulk._result import BulkResult
from scovert.model.confounder._model import LatentConfounder
from scovert.model.distance._model import DistanceEmbedding
from scovert.model.imputation._model import MaskedImputation
from scovert.model.niche._model import NicheVAE
from scovert.model.paired._model import PairedVAE

__all__ = [
    "BulkBudget",
    "BulkDeconvolution",
    "BulkResult",
    "DistanceEmbedding",
    "LatentConfounder",
    "MaskedImputation",
    "NicheVAE",
    "PairedVAE",
    "Report",
    "TypeExpression",
]
