"""Figures: data in, axes out; matplotlib's settings are left as they are."""

from scovert.pl._agreement import agreement
from scovert.pl._batch_mixing import batch_mixing
from scovert.pl._confounder import confounder
from scovert.pl._history import history
from scovert.pl._intervals import intervals
from scovert.pl._mean_correlation import mean_correlation
from scovert.pl._p_values import p_values
from scovert.pl._propensity import propensity
from scovert.pl._proportions import proportions
from scovert.pl._proportions_heatmap import proportions_heatmap
from scovert.pl._residuals import residuals
from scovert.pl._scree import scree
from scovert.pl._type_expression import type_expression
from scovert.pl._volcano import volcano

__all__ = [
    "agreement",
    "batch_mixing",
    "confounder",
    "history",
    "intervals",
    "mean_correlation",
    "p_values",
    "propensity",
    "proportions",
    "proportions_heatmap",
    "residuals",
    "scree",
    "type_expression",
    "volcano",
]
