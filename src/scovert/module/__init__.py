"""Networks and losses, one module per model."""

from scovert.module._alternating import AlternatingModule
from scovert.module._amortized import AmortizedModule
from scovert.module._bulk import BulkModule
from scovert.module._confounder import ConfounderModule
from scovert.module._paired import PairedModule
from scovert.module._prototypes import PrototypeModule

__all__ = [
    "AlternatingModule",
    "AmortizedModule",
    "BulkModule",
    "ConfounderModule",
    "PairedModule",
    "PrototypeModule",
]
