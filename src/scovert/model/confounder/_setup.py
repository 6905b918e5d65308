"""What ``setup_anndata`` refuses and warns of."""

from __future__ import annotations

import logging

from anndata import AnnData

from scovert.core._checks import (
    check_covariates,
    check_genes,
    check_layer,
    warn_about_cells,
    warn_about_file,
)
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._unmeasured import warn_about_unmeasured
from scovert.model.confounder._checks import (
    check_clusters,
    check_size_factors,
    check_treatment,
    check_treatment_apart,
    warn_about_arms,
    warn_about_clusters,
    warn_about_size_factors,
)
from scovert.model.confounder._design import check_design, warn_about_overlap
from scovert.model.confounder._donor_design import read_design

__all__ = ["checked"]

logger = logging.getLogger(__name__)


def checked(adata: AnnData, arguments: dict, *, is_new: bool) -> dict:
    """Return the arguments of ``setup_anndata`` as they are kept, once they were checked.

    Parameters
    ----------
    adata
        The cells.
    arguments
        All but the AnnData.
    is_new
        Whether to warn, and to log the design: of a file that was done when it was made.
    """
    treatment, layer = arguments["treatment_key"], arguments["layer"]
    where = check_layer(adata, layer)
    check_genes(adata)
    names = ("categorical_covariate_keys", "continuous_covariate_keys")
    covariates = check_covariates(adata, *(arguments[name] for name in names))
    size_factors, clusters = arguments["size_factor_key"], arguments["cluster_key"]
    others = [*(covariates[0] or []), *(covariates[1] or []), size_factors, clusters]
    check_treatment_apart(treatment, others)
    check_size_factors(adata, size_factors)
    levels = check_treatment(adata, treatment, arguments["reference"])
    check_design(adata, treatment, levels, *covariates)
    check_clusters(adata, clusters, treatment)
    totals = check_counts(get_counts(adata, layer), where, adata)
    if is_new:
        warn_about_cells(adata, totals)
        warn_about_size_factors(adata, size_factors, totals)
        warn_about_arms(adata, treatment)
        warn_about_unmeasured(adata, layer, treatment)
        warn_about_overlap(adata, treatment, levels, *covariates)
        warn_about_file(adata, layer)
        if clusters is None:
            warn_about_clusters(adata, treatment, others)
        categorical, continuous = (keys or [] for keys in covariates)
        options = {"categorical": list(categorical), "continuous": list(continuous)}
        design = read_design(adata.obs, treatment, levels, cluster_key=clusters, **options)
        logger.info("; ".join(design.sentences))
    return arguments | dict(zip(names, covariates, strict=True)) | {"reference": levels[0]}
