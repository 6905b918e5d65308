"""Treatment effects that hold although something unmeasured differs between the arms."""

from scovert.effects._donors import Donors
from scovert.effects._identify import IDENTIFICATIONS, estimate_effects
from scovert.effects._mixture import Arms, Classes
from scovert.effects._study import Estimate, Study

__all__ = [
    "IDENTIFICATIONS",
    "Arms",
    "Classes",
    "Donors",
    "Estimate",
    "Study",
    "estimate_effects",
]
