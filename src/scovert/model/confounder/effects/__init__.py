"""Treatment effects that hold although something unmeasured differs between the arms."""

from scovert.model.confounder.effects._deviance import (
    count_deviance,
    treatment_deviance,
    treatment_probability,
)
from scovert.model.confounder.effects._donors import Donors
from scovert.model.confounder.effects._identify import (
    estimate_as_found,
    estimate_by_states,
    estimate_effects,
)
from scovert.model.confounder.effects._mixture import Arms, Classes
from scovert.model.confounder.effects._study import Estimate, Study

__all__ = [
    "Arms",
    "Classes",
    "Donors",
    "Estimate",
    "Study",
    "count_deviance",
    "estimate_as_found",
    "estimate_by_states",
    "estimate_effects",
    "treatment_deviance",
    "treatment_probability",
]
