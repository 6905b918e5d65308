"""Treatment effects that hold although something unmeasured differs between the arms."""

from scovert.effects._aipw import doubly_robust
from scovert.effects._deviance import count_deviance, treatment_deviance, treatment_probability
from scovert.effects._donors import Donors
from scovert.effects._identify import estimate_as_found, estimate_by_states, estimate_effects
from scovert.effects._mixture import Arms, Classes
from scovert.effects._study import Estimate, Study

__all__ = [
    "Arms",
    "Classes",
    "Donors",
    "Estimate",
    "Study",
    "count_deviance",
    "doubly_robust",
    "estimate_as_found",
    "estimate_by_states",
    "estimate_effects",
    "treatment_deviance",
    "treatment_probability",
]
