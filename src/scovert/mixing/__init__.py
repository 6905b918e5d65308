"""Deconvolution of mixtures: signatures, the joint fit, its uncertainty, RNA content."""

from scovert.mixing._draws import (
    bootstrap,
    find_multiplier,
    simulate_cohort,
    widen,
    with_own_errors,
    with_shared_errors,
)
from scovert.mixing._expression import ExpressionFit, Mixture, fit_expression
from scovert.mixing._joint import Cohort, JointFit, fit_cohort, refit_cohort
from scovert.mixing._measured import Measured
from scovert.mixing._names import match_types
from scovert.mixing._network import NetworkFit, fit_network
from scovert.mixing._residual import robust_residual
from scovert.mixing._signature import Profiles, Signature
from scovert.mixing._sizes import size_groups, table_sizes, to_cells
from scovert.mixing._states import find_states

__all__ = [
    "Cohort",
    "ExpressionFit",
    "JointFit",
    "Measured",
    "Mixture",
    "NetworkFit",
    "Profiles",
    "Signature",
    "bootstrap",
    "find_multiplier",
    "find_states",
    "fit_cohort",
    "fit_expression",
    "fit_network",
    "match_types",
    "refit_cohort",
    "robust_residual",
    "simulate_cohort",
    "size_groups",
    "table_sizes",
    "to_cells",
    "widen",
    "with_own_errors",
    "with_shared_errors",
]
