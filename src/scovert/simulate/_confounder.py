"""A treatment and counts that share causes which nobody measured."""

from __future__ import annotations

from typing import Literal

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.special import expit

from scovert.core._checks import check_choice, check_number
from scovert.simulate._confounder_treated import (
    LOG_2,
    MIN_CELLS,
    check_sizes,
    draw_counts,
    table_of_cells,
    table_of_genes,
)

__all__ = ["confounder"]

_N_COVARIATES = 4  # few beside the cells, so that they are estimated well
_COVARIATE_SD = 0.8  # of their part of the log odds of the treatment: the arms overlap
_SPARSE_FRACTION = 5  # one gene in so many has an effect: a clear minority
_LEAST_DISPERSION = 0.5  # no gene is close to Poisson, where all methods do well


def confounder(
    setting: Literal["normal", "extreme", "null", "sparse"] = "normal",
    *,
    n_cells: int = 1000,
    n_genes: int = 100,
    n_confounders: int = 1,
    z_type: Literal["binary", "continuous"] = "binary",
    z_ratio: float = 0.3,
    loading_scale: float = 1.0,
    seed: int = 0,
) -> AnnData:
    r"""Simulate a treatment and counts that share hidden confounders.

    Cell i has four binary covariates, hidden confounders, a treatment that depends on both, and
    counts that depend on all three:

    .. math::
        X_{il} &\sim \mathrm{Bernoulli}(1/2), \qquad
            Z_{im} \sim \mathrm{Bernoulli}(1/2) \text{ or } N(0, 1), \\
        D_i &\sim \mathrm{Bernoulli}(\mathrm{logit}^{-1}(X_i b_1 + Z_i g_1)), \\
        \log \mu_i &= X_i B + D_i \beta + Z_i G, \\
        Y_{ij} &\sim \mathrm{NB}(\mathrm{mean} = \mu_{ij},\
            \mathrm{variance} = \mu_{ij} + \mu_{ij}^2 / \theta_j).

    All weights, effects and loadings are N(0, 1) at first. Then :math:`b_1` is scaled so that
    :math:`X b_1` has the standard deviation 0.8, :math:`g_1` so that the variance of
    :math:`Z g_1` is `z_ratio` times that of :math:`X b_1`, and :math:`G` by `loading_scale`.
    The inverse dispersions are :math:`\theta_j = 1 / (|\epsilon_j| + 1/2)` with
    :math:`\epsilon_j \sim N(0, 1)`. There are no intercepts and no size factors.

    Parameters
    ----------
    setting
        The effects: ``"normal"`` as above, for every gene; ``"extreme"`` neither the covariates
        nor the treatment have any, so that only the confounders move the counts; ``"null"`` the
        treatment has none; ``"sparse"`` the treatment doubles one gene in five, at random, and
        leaves the others alone.
    n_cells
        Cells, at least 20.
    n_genes
        Genes, at least 5.
    n_confounders
        Hidden confounders, at least 1.
    z_type
        Whether the confounders are 0 and 1, or normal.
    z_ratio
        How strongly the confounders drive the treatment: the variance of their part of the logit
        relative to that of the covariates; 0 for not at all.
    loading_scale
        How strongly the confounders drive the counts: the standard deviation of the loadings,
        natural log scale. With 0, and ``z_ratio=0``, there is no confounder.
    seed
        Seed of all random numbers.

    Returns
    -------
    AnnData with raw counts in ``X`` (CSR, float32), the columns ``treatment`` (bool),
    ``covariate_1`` to ``covariate_4`` and ``size_factor`` (all one) of ``obs``, and the truth:

    - ``obs["truth_logit"]``: logit of the probability of the treatment;
    - ``obsm["truth_confounder"]``: :math:`Z`, shape ``(n_cells, n_confounders)``;
    - ``var["truth_log2_fc"]``: effect of the treatment, :math:`\beta / \log 2`, and
      ``var["truth_is_de"]``: whether it is not zero;
    - ``var["truth_intercept"]`` (all zero) and ``var["truth_inverse_dispersion"]``
      (:math:`\theta`);
    - ``varm["truth_loadings"]``: :math:`G^T`, shape ``(n_genes, n_confounders)``, and
      ``varm["truth_covariate_effects"]``: :math:`B^T`, shape ``(n_genes, 4)``, natural log scale;
    - ``layers["truth_log_mean"]``: :math:`\log \mu`, natural log, size factor included;
    - ``uns["truth"]``: the options, and the parts of the logit: ``treatment_intercept``,
      ``covariate_weights`` (:math:`b_1`) and ``confounder_weights`` (:math:`g_1`).

    Raises
    ------
    ValueError
        If an option is not known or out of range.

    See Also
    --------
    confounder_large : Size factors, sparse counts, several confounders of both kinds.
    hidden_covariate : A treatment on real counts.

    Examples
    --------
    >>> from scovert.simulate import confounder
    >>> adata = confounder("sparse", n_cells=50, n_genes=30)
    >>> adata.shape, int(adata.var["truth_is_de"].sum())
    ((50, 30), 6)
    """
    check_choice("setting", setting, ("normal", "extreme", "null", "sparse"))
    check_choice("z_type", z_type, ("binary", "continuous"))
    check_sizes(n_cells=(n_cells, MIN_CELLS), n_genes=(n_genes, _SPARSE_FRACTION))
    check_sizes(n_confounders=(n_confounders, 1))
    check_number("z_ratio", z_ratio, 0)
    check_number("loading_scale", loading_scale, 0)
    rng = np.random.default_rng(seed)

    # Causes
    x = rng.binomial(1, 0.5, (n_cells, _N_COVARIATES)).astype(float)
    z = _draw_confounders(rng, z_type, (n_cells, n_confounders))
    b1 = rng.normal(size=_N_COVARIATES)
    b1 *= _COVARIATE_SD / np.std(x @ b1)
    g1 = rng.normal(size=n_confounders)
    g1 *= np.sqrt(z_ratio * np.var(x @ b1) / np.var(z @ g1))
    logit = x @ b1 + z @ g1
    treatment = rng.binomial(1, expit(logit)).astype(float)

    # Counts
    effects = rng.normal(size=(_N_COVARIATES + 1, n_genes))  # the last row: of the treatment
    loadings = rng.normal(size=(n_confounders, n_genes)) * loading_scale
    _apply_setting(effects, setting, rng)
    dispersion = np.abs(rng.normal(size=n_genes)) + _LEAST_DISPERSION
    log_mean = np.c_[x, treatment] @ effects + z @ loadings  # (n_cells, n_genes)
    counts = draw_counts(rng, np.exp(log_mean), dispersion)

    adata = AnnData(
        counts,
        obs=table_of_cells(x, treatment, logit, log_size=np.zeros(n_cells)),
        var=table_of_genes(effects[-1], np.zeros(n_genes), dispersion),
        obsm={"truth_confounder": z},
        varm={"truth_loadings": loadings.T, "truth_covariate_effects": effects[:-1].T},
        layers={"truth_log_mean": log_mean},
    )
    weights = {"treatment_intercept": 0.0, "covariate_weights": b1, "confounder_weights": g1}
    options = {"setting": setting, "z_type": z_type, "z_ratio": z_ratio}
    adata.uns["truth"] = {**weights, **options, "loading_scale": loading_scale, "seed": seed}
    return adata


def _draw_confounders(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> NDArray:
    if kind == "binary":
        return rng.binomial(1, 0.5, shape).astype(float)
    return rng.normal(size=shape)


def _apply_setting(effects: NDArray, setting: str, rng: np.random.Generator) -> None:
    """Set effects of the covariates and the treatment, the last row, in place."""
    if setting == "extreme":
        effects[:] = 0
    if setting in ("null", "sparse"):
        effects[-1] = 0
    if setting == "sparse":
        n_genes = effects.shape[1]
        effects[-1, rng.choice(n_genes, n_genes // _SPARSE_FRACTION, replace=False)] = LOG_2
