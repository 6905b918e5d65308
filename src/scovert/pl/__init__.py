"""Figures: data in, axes out; matplotlib's settings are left as they are."""

from scovert.pl._bulk_agreement import agreement
from scovert.pl._bulk_intervals import intervals
from scovert.pl._bulk_proportions import proportions
from scovert.pl._bulk_proportions_heatmap import proportions_heatmap
from scovert.pl._bulk_residuals import residuals
from scovert.pl._bulk_type_expression import type_expression
from scovert.pl._confounder_p_values import p_values
from scovert.pl._confounder_placebo import placebo
from scovert.pl._confounder_scree import scree
from scovert.pl._confounder_truth import confounder, mean_correlation, propensity
from scovert.pl._confounder_volcano import volcano
from scovert.pl._distance_agreement import distance_agreement
from scovert.pl._history import history
from scovert.pl._imputation_agreement import imputation_agreement
from scovert.pl._niche_neighborhoods import neighborhoods
from scovert.pl._niche_spatial import niches
from scovert.pl._paired_batch_mixing import batch_mixing
from scovert.pl._paired_support import support

__all__ = [
    "agreement",
    "batch_mixing",
    "confounder",
    "distance_agreement",
    "history",
    "imputation_agreement",
    "intervals",
    "mean_correlation",
    "neighborhoods",
    "niches",
    "p_values",
    "placebo",
    "propensity",
    "proportions",
    "proportions_heatmap",
    "residuals",
    "scree",
    "support",
    "type_expression",
    "volcano",
]
