"""Negative binomial regression of many genes at once, with known or latent covariates."""

from scovert.model.confounder.glm._blocks import CountBlocks
from scovert.model.confounder.glm._clusters import ClusterVariance, cluster_variance
from scovert.model.confounder.glm._factors import (
    FactorFit,
    Factors,
    fit_factors,
    project_scores,
    start_from_residuals,
)
from scovert.model.confounder.glm._independent import independent_components
from scovert.model.confounder.glm._rank import Scree, choose_rank
from scovert.model.confounder.glm._regression import (
    RIDGE,
    Regression,
    fit_regression,
    gene_deviance,
)
from scovert.model.confounder.glm._states import StateFit, fit_states, state_probabilities

__all__ = [
    "RIDGE",
    "ClusterVariance",
    "CountBlocks",
    "FactorFit",
    "Factors",
    "Regression",
    "Scree",
    "StateFit",
    "choose_rank",
    "cluster_variance",
    "fit_factors",
    "fit_regression",
    "fit_states",
    "gene_deviance",
    "independent_components",
    "project_scores",
    "start_from_residuals",
    "state_probabilities",
]
