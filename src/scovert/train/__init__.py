"""Training plans that the host lacks, and how they are run."""

from scovert.train._adversarial import AdversarialPlan
from scovert.train._aligned import AlignedPlan
from scovert.train._alternating import AlternatingFit, AlternatingOptions, fit_alternating
from scovert.train._amortized import AmortizedFit, fit_amortized, scores_by_network
from scovert.train._best import BestState
from scovert.train._checkpoint import Resumable
from scovert.train._make_plan import make_plan
from scovert.train._plan import Plan
from scovert.train._prototypes import PrototypeFit, learn_prototypes
from scovert.train._run import run

__all__ = [
    "AdversarialPlan",
    "AlignedPlan",
    "AlternatingFit",
    "AlternatingOptions",
    "AmortizedFit",
    "BestState",
    "Plan",
    "PrototypeFit",
    "Resumable",
    "fit_alternating",
    "fit_amortized",
    "learn_prototypes",
    "make_plan",
    "run",
    "scores_by_network",
]
