"""Figures: data in, axes out; matplotlib's settings are left as they are."""

from scovert.pl._batch_mixing import batch_mixing
from scovert.pl._confounder import confounder
from scovert.pl._history import history
from scovert.pl._mean_correlation import mean_correlation
from scovert.pl._p_values import p_values
from scovert.pl._propensity import propensity
from scovert.pl._scree import scree
from scovert.pl._volcano import volcano

__all__ = [
    "batch_mixing",
    "confounder",
    "history",
    "mean_correlation",
    "p_values",
    "propensity",
    "scree",
    "volcano",
]
