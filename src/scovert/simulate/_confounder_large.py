"""Sparse counts with size factors, and a treatment with several hidden confounders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import expit

from scovert.core._checks import check_choice, check_number
from scovert.simulate._confounder_effects import random_directions, thin_one_arm
from scovert.simulate._confounder_treated import (
    LOG_2,
    MIN_CELLS,
    check_sizes,
    draw_counts,
    table_of_cells,
    table_of_genes,
)

__all__ = ["confounder_large"]

_MIN_GENES = 5  # so that some are left when those with too few counts are gone
_N_COVARIATES = 3  # two of 0 and 1, and a number
_TREATMENT_INTERCEPT = -0.3  # log odds: arms of unequal size, 43 % treated
_TREATMENT_SD = 0.4  # log odds, of the weights of the covariates: weaker than a confounder
_EFFECT_SD = 0.3  # nats, of the effects of the covariates: weaker than the loadings
_LOG_SIZE_SD = 0.4  # nats, of the size factors: 95 % between 0.45 and 2.2
_ABUNDANCE = (0.1, 2.0)  # counts of a gene in a cell: sparse, as those of droplets are
_DISPERSION, _LEAST_DISPERSION = (2.0, 0.25), 0.05  # shape and scale of a gamma law; mean 0.55
_MIN_COUNTS = 20  # of a gene that is kept: fewer say nothing of an effect


def confounder_large(
    *,
    n_cells: int = 2000,
    n_genes: int = 1000,
    z_types: Sequence[Literal["binary", "continuous"]] = ("continuous", "continuous", "binary"),
    effects: Literal["added", "thinned", "aligned"] = "added",
    effect_fraction: float = 0.1,
    z_log_odds: float = 0.7,
    loading_scale: float = 0.6,
    seed: int = 0,
) -> AnnData:
    r"""Simulate sparse counts with size factors and several hidden confounders.

    As :func:`confounder`, with another scale of everything. Cell i has two binary covariates and
    a normal one, confounders of one or both kinds, and a log-normal size factor :math:`s_i`:

    .. math::
        \log s_i &\sim N(0, 0.4^2), \qquad
            Z_{im} \sim N(0, 1) \text{ or } \pm 1 \text{ with probability } 1/2, \\
        D_i &\sim \mathrm{Bernoulli}(\mathrm{logit}^{-1}(-0.3 + X_i b_1 + Z_i g_1)), \\
        \log \mu_{ij} &= \log s_i + a_j + X_i B_j + D_i \beta_j + Z_i G_j, \\
        Y_{ij} &\sim \mathrm{NB}(\mathrm{mean} = \mu_{ij},\
            \mathrm{variance} = \mu_{ij} + \mu_{ij}^2 / \theta_j),

    where :math:`b_1 \sim N(0, 0.4^2)`, the entries of :math:`g_1` are plus or minus `z_log_odds`,
    :math:`B \sim N(0, 0.3^2)`, :math:`G \sim N(0, \mathrm{loading\_scale}^2)` and
    :math:`1 / \theta_j \sim \mathrm{Gamma}(2, 1/4) + 0.05`. The intercept
    :math:`a_j = \log u_j - |G_j|^2 / 2 - 0.135`, :math:`u_j \sim U(0.1, 2)`, keeps the average
    count of a gene near :math:`u_j`. At the defaults about 60 % of the counts are zero.
    Genes with fewer than 20 counts are left out.

    Parameters
    ----------
    n_cells
        Cells, at least 20.
    n_genes
        Genes before those with too few counts are left out, at least 5.
    z_types
        Kind of each hidden confounder, one or more.
    effects
        How the treatment changes genes, up or down by a factor of two: ``"added"`` draws genes
        and signs at random and moves the mean of the treated cells; ``"thinned"`` draws them
        likewise and halves the mean of one arm, of the treated for a negative effect and of the
        others for a positive one, so that no gene gains counts; ``"aligned"`` thins the genes with
        the largest loadings of the first confounder, with the signs of these loadings, so that the
        effects look like those of the confounder.
    effect_fraction
        Share of the genes with an effect, in [0, 1].
    z_log_odds
        What a confounder adds to the log odds of the treatment, up to its sign, per unit.
    loading_scale
        Standard deviation of the loadings, natural log scale.
    seed
        Seed of all random numbers.

    Returns
    -------
    AnnData with the slots of :func:`confounder`: ``obs["size_factor"]`` holds :math:`s`,
    ``var["truth_intercept"]`` holds :math:`a`. There are three covariates.

    Raises
    ------
    ValueError
        If an option is not known or out of range.

    Examples
    --------
    >>> from scovert.simulate import confounder_large
    >>> adata = confounder_large(n_cells=300, n_genes=40, z_types=["continuous"] * 3)
    >>> adata.obsm["truth_confounder"].shape
    (300, 3)
    """
    check_sizes(n_cells=(n_cells, MIN_CELLS), n_genes=(n_genes, _MIN_GENES))
    _check_kinds(z_types)
    check_choice("effects", effects, ("added", "thinned", "aligned"))
    check_number("effect_fraction", effect_fraction, 0, 1)
    check_number("z_log_odds", z_log_odds, 0)
    check_number("loading_scale", loading_scale, 0)
    rng = np.random.default_rng(seed)
    n_confounders, n_binary = len(z_types), _N_COVARIATES - 1

    # Causes
    x = np.c_[rng.binomial(1, 0.5, (n_cells, n_binary)), rng.normal(size=n_cells)]
    z = np.column_stack([_draw_centred(rng, kind, n_cells) for kind in z_types])
    b1 = rng.normal(size=_N_COVARIATES) * _TREATMENT_SD
    g1 = z_log_odds * rng.choice([-1, 1], n_confounders)
    logit = _TREATMENT_INTERCEPT + x @ b1 + z @ g1
    treatment = rng.binomial(1, expit(logit)).astype(float)

    # Counts
    intercept = np.log(rng.uniform(*_ABUNDANCE, n_genes))
    covariate_effects = rng.normal(size=(_N_COVARIATES, n_genes)) * _EFFECT_SD
    loadings = rng.normal(size=(n_confounders, n_genes)) * loading_scale
    added = random_directions(n_genes, effect_fraction if effects == "added" else 0, rng)
    log_size = rng.normal(size=n_cells) * _LOG_SIZE_SD
    dispersion = rng.gamma(*_DISPERSION, n_genes) + _LEAST_DISPERSION
    intercept -= 0.5 * ((loadings**2).sum(0) + _N_COVARIATES * _EFFECT_SD**2)
    log_mean = intercept + x @ covariate_effects + treatment[:, None] * (added * LOG_2)
    log_mean += z @ loadings + log_size[:, None]  # (n_cells, n_genes)
    counts = draw_counts(rng, np.exp(log_mean), dispersion)

    adata = AnnData(
        counts,
        obs=table_of_cells(x, treatment, logit, log_size=log_size),
        var=table_of_genes(added * LOG_2, intercept, dispersion),
        obsm={"truth_confounder": z},
        varm={"truth_loadings": loadings.T, "truth_covariate_effects": covariate_effects.T},
        layers={"truth_log_mean": log_mean},
    )
    weights = {"covariate_weights": b1, "confounder_weights": g1}
    options = {"z_types": list(z_types), "effects": effects, "effect_fraction": effect_fraction}
    options |= {"z_log_odds": z_log_odds, "loading_scale": loading_scale, "seed": seed}
    adata.uns["truth"] = {"treatment_intercept": _TREATMENT_INTERCEPT, **weights, **options}
    adata = adata[:, np.asarray(counts.sum(0)).ravel() >= _MIN_COUNTS].copy()
    return adata if effects == "added" else _thin_effects(adata, rng)


def _draw_centred(rng: np.random.Generator, kind: str, n_cells: int) -> NDArray:
    """Confounder with mean 0 and variance 1, shape ``(n_cells,)``."""
    if kind == "binary":
        return rng.binomial(1, 0.5, n_cells) * 2.0 - 1.0
    return rng.normal(size=n_cells)


def _thin_effects(adata: AnnData, rng: np.random.Generator) -> AnnData:
    """Halve the mean of one arm of some genes, in the counts and in the truth."""
    truth, n_genes = adata.uns["truth"], adata.n_vars
    if truth["effects"] == "aligned":
        loadings = adata.varm["truth_loadings"][:, 0]
        largest = np.argsort(-np.abs(loadings))[: round(truth["effect_fraction"] * n_genes)]
        directions = np.zeros(n_genes)
        directions[largest] = np.sign(loadings[largest])
    else:
        directions = random_directions(n_genes, truth["effect_fraction"], rng)
    treatment = adata.obs["treatment"].to_numpy()
    adata.X = thin_one_arm(adata.X, treatment, directions, 2, rng)
    adata.var["truth_log2_fc"] = directions
    adata.var["truth_is_de"] = directions != 0
    loss = LOG_2 * (directions > 0)
    adata.var["truth_intercept"] -= loss
    adata.layers["truth_log_mean"] += treatment[:, None] * (directions * LOG_2) - loss
    return adata


def _check_kinds(z_types: Sequence[str]) -> None:
    if isinstance(z_types, str) or len(z_types) == 0:
        raise ValueError(
            f'`z_types={z_types!r}` is not a list of kinds. Pass one of "binary" and "continuous" '
            'for each confounder, for example `["continuous", "binary"]`.'
        )
    for kind in z_types:
        check_choice("z_types", kind, ("binary", "continuous"))
