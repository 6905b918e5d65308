"""Training plans that the host lacks."""

from scovert.train._aligned import AdversarialPlan, AlignedPlan
from scovert.train._best import BestState

__all__ = ["AdversarialPlan", "AlignedPlan", "BestState"]
