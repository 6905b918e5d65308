"""Training plans that the host lacks, and how they are run."""

from scovert.train._adversarial import AdversarialPlan, make_plan
from scovert.train._aligned import AlignedPlan
from scovert.train._best import BestState
from scovert.train._checkpoint import Resumable
from scovert.train._run import run

__all__ = ["AdversarialPlan", "AlignedPlan", "BestState", "Resumable", "make_plan", "run"]
