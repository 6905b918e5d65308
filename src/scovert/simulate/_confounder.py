"""A treatment and counts that share causes which nobody measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from scovert._validation import check_choice, check_number
from scovert.simulate._effects import random_directions, thin_one_arm

__all__ = ["confounder", "confounder_large"]

_MIN_CELLS = 20  # with fewer, a binary variable may well be constant
_LARGEST_RATE = 1e7  # of the Poisson draws; float32 holds such counts exactly
_LOG_2 = np.log(2)

_N_COVARIATES = 4
_COVARIATE_SD = 0.8  # of what the covariates add to the logit of the treatment
_SPARSE_FRACTION = 5  # one gene in so many has an effect

_N_COVARIATES_LARGE = 3
_TREATMENT_INTERCEPT = -0.3
_TREATMENT_SD = 0.4  # of the weights of the covariates in the logit of the treatment
_EFFECT_SD = 0.3  # of the effects of the covariates on the log mean
_LOG_SIZE_SD = 0.4  # of the log size factors
_MIN_COUNTS = 20  # of a gene that is kept


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
    _check_sizes(n_cells=(n_cells, _MIN_CELLS), n_genes=(n_genes, _SPARSE_FRACTION))
    _check_sizes(n_confounders=(n_confounders, 1))
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
    dispersion = np.abs(rng.normal(size=n_genes)) + 0.5
    log_mean = np.c_[x, treatment] @ effects + z @ loadings  # (n_cells, n_genes)
    counts = _draw_counts(rng, np.exp(log_mean), dispersion)

    adata = AnnData(
        counts,
        obs=_cells(x, treatment, logit, log_size=np.zeros(n_cells)),
        var=_genes(effects[-1], np.zeros(n_genes), dispersion),
        obsm={"truth_confounder": z},
        varm={"truth_loadings": loadings.T, "truth_covariate_effects": effects[:-1].T},
        layers={"truth_log_mean": log_mean},
    )
    weights = {"treatment_intercept": 0.0, "covariate_weights": b1, "confounder_weights": g1}
    options = {"setting": setting, "z_type": z_type, "z_ratio": z_ratio}
    adata.uns["truth"] = {**weights, **options, "loading_scale": loading_scale, "seed": seed}
    return adata


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
    _check_sizes(n_cells=(n_cells, _MIN_CELLS), n_genes=(n_genes, _SPARSE_FRACTION))
    _check_kinds(z_types)
    check_choice("effects", effects, ("added", "thinned", "aligned"))
    check_number("effect_fraction", effect_fraction, 0, 1)
    check_number("z_log_odds", z_log_odds, 0)
    check_number("loading_scale", loading_scale, 0)
    rng = np.random.default_rng(seed)
    n_confounders, n_binary = len(z_types), _N_COVARIATES_LARGE - 1

    # Causes
    x = np.c_[rng.binomial(1, 0.5, (n_cells, n_binary)), rng.normal(size=n_cells)]
    z = np.column_stack([_draw_centred(rng, kind, n_cells) for kind in z_types])
    b1 = rng.normal(size=_N_COVARIATES_LARGE) * _TREATMENT_SD
    g1 = z_log_odds * rng.choice([-1, 1], n_confounders)
    logit = _TREATMENT_INTERCEPT + x @ b1 + z @ g1
    treatment = rng.binomial(1, expit(logit)).astype(float)

    # Counts
    intercept = np.log(rng.uniform(0.1, 2.0, n_genes))
    covariate_effects = rng.normal(size=(_N_COVARIATES_LARGE, n_genes)) * _EFFECT_SD
    loadings = rng.normal(size=(n_confounders, n_genes)) * loading_scale
    added = random_directions(n_genes, effect_fraction if effects == "added" else 0, rng)
    log_size = rng.normal(size=n_cells) * _LOG_SIZE_SD
    dispersion = rng.gamma(2.0, 0.25, n_genes) + 0.05
    intercept -= 0.5 * ((loadings**2).sum(0) + _N_COVARIATES_LARGE * _EFFECT_SD**2)
    log_mean = intercept + x @ covariate_effects + treatment[:, None] * (added * _LOG_2)
    log_mean += z @ loadings + log_size[:, None]  # (n_cells, n_genes)
    counts = _draw_counts(rng, np.exp(log_mean), dispersion)

    adata = AnnData(
        counts,
        obs=_cells(x, treatment, logit, log_size=log_size),
        var=_genes(added * _LOG_2, intercept, dispersion),
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


def _draw_confounders(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> NDArray:
    if kind == "binary":
        return rng.binomial(1, 0.5, shape).astype(float)
    return rng.normal(size=shape)


def _draw_centred(rng: np.random.Generator, kind: str, n_cells: int) -> NDArray:
    """Confounder with mean 0 and variance 1, shape ``(n_cells,)``."""
    if kind == "binary":
        return rng.binomial(1, 0.5, n_cells) * 2.0 - 1.0
    return rng.normal(size=n_cells)


def _apply_setting(effects: NDArray, setting: str, rng: np.random.Generator) -> None:
    """Set effects of the covariates and the treatment, the last row, in place."""
    if setting == "extreme":
        effects[:] = 0
    if setting in ("null", "sparse"):
        effects[-1] = 0
    if setting == "sparse":
        n_genes = effects.shape[1]
        effects[-1, rng.choice(n_genes, n_genes // _SPARSE_FRACTION, replace=False)] = _LOG_2


def _draw_counts(
    rng: np.random.Generator, mean: NDArray, dispersion: NDArray
) -> sparse.csr_matrix:
    """Negative binomial counts with the variance ``mean + dispersion * mean**2``."""
    rate = mean * rng.gamma(1 / dispersion, dispersion, mean.shape)
    counts = rng.poisson(np.minimum(rate, _LARGEST_RATE))
    return sparse.csr_matrix(counts.astype(np.float32))


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
    loss = _LOG_2 * (directions > 0)
    adata.var["truth_intercept"] -= loss
    adata.layers["truth_log_mean"] += treatment[:, None] * (directions * _LOG_2) - loss
    return adata


def _cells(x: NDArray, treatment: NDArray, logit: NDArray, *, log_size: NDArray) -> pd.DataFrame:
    columns = {"treatment": treatment.astype(bool)}
    columns |= {f"covariate_{i}": values for i, values in enumerate(x.T, 1)}
    columns |= {"size_factor": np.exp(log_size), "truth_logit": logit}
    return pd.DataFrame(columns, index=[f"cell_{i}" for i in range(len(x))])


def _genes(effect: NDArray, intercept: NDArray, dispersion: NDArray) -> pd.DataFrame:
    columns = {
        "truth_log2_fc": effect / _LOG_2,
        "truth_is_de": effect != 0,
        "truth_intercept": intercept,
        "truth_inverse_dispersion": 1 / dispersion,
    }
    return pd.DataFrame(columns, index=[f"gene_{g}" for g in range(len(effect))])


def _check_sizes(**sizes: tuple[int, int]) -> None:
    for name, (value, smallest) in sizes.items():
        check_number(name, value, smallest, whole=True)


def _check_kinds(z_types: Sequence[str]) -> None:
    if isinstance(z_types, str) or len(z_types) == 0:
        raise ValueError(
            f'`z_types={z_types!r}` is not a list of kinds. Pass one of "binary" and "continuous" '
            'for each confounder, for example `["continuous", "binary"]`.'
        )
    for kind in z_types:
        check_choice("z_types", kind, ("binary", "continuous"))
