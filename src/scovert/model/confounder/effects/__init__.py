"""Treatment effects that hold although something unmeasured differs between the arms."""

from scovert.model.confounder.effects._classes import Arms, Classes
from scovert.model.confounder.effects._confounder_fit import ConfounderFit, Estimate
from scovert.model.confounder.effects._deviance import (
    count_deviance,
    propensity_scores,
    treatment_deviance,
)
from scovert.model.confounder.effects._donors import Donors
from scovert.model.confounder.effects._identify import (
    estimate_by_states,
    estimate_effects,
    estimate_plug_in,
)

__all__ = [
    "Arms",
    "Classes",
    "Donors",
    "Estimate",
    "ConfounderFit",
    "count_deviance",
    "estimate_plug_in",
    "estimate_by_states",
    "estimate_effects",
    "treatment_deviance",
    "propensity_scores",
]
