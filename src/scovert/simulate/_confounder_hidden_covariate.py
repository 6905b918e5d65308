"""A treatment on real counts that depends on what is then hidden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit, logit

from scovert.core._checks import check_categorical, check_layer, check_number
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._words import counted
from scovert.simulate._confounder_effects import random_directions, thin_one_arm

__all__ = ["hidden_covariate"]


def hidden_covariate(
    adata: AnnData,
    key: str | Sequence[str],
    *,
    layer: str | None = None,
    strength: float | Sequence[float] = 1.0,
    effect_fraction: float = 0.0,
    fold_change: float = 2.0,
    cluster_key: str | None = None,
    seed: int = 0,
) -> AnnData:
    r"""Give real cells a treatment that depends on a label, with known effects on the counts.

    Leave the label out of an analysis, and it is a confounder of the treatment that nobody
    measured. The treatment of cell i with the label :math:`c_i` is

    .. math:: D_i \sim \mathrm{Bernoulli}(\mathrm{logit}^{-1}(\mathrm{strength} \cdot a_{c_i})),
        \qquad a_c \sim N(0, 1),

    where :math:`a` is standardised over the labels. A numeric column of ``adata.obs`` takes the
    place of :math:`a_{c_i}`, standardised over the cells. Several columns add up.

    The treatment does nothing by itself. Then a share of the genes, drawn at random, gets an
    effect, of either sign with probability 1/2: the treated cells keep each count of a gene with
    the probability ``1 / fold_change`` for a negative effect, and the other cells for a positive
    one (binomial thinning). What is left are counts, whatever their law was.

    Parameters
    ----------
    adata
        Cells with raw counts: sparse or dense, in memory or backed. It stays as it is.
    key
        Column of ``adata.obs`` to hide, or several. Columns of floats count as numeric, all
        others as labels, of which two or more are needed.
    layer
        Layer with the raw counts; `None` for ``adata.X``.
    strength
        How strongly the treatment depends on the columns: the standard deviation of the logit
        over the labels (or the cells, for a numeric column), one for all columns or one for each.
        0 for a treatment at random.
    effect_fraction
        Share of the genes with an effect, in [0, 1].
    fold_change
        Size of the effects, above 1.
    cluster_key
        Column of ``adata.obs``, such as the donor. If given, all cells of a cluster have the same
        treatment: half of the clusters, rounded down, are drawn at random. The columns of `key`
        then confound as far as they differ between the clusters by chance, and `strength` plays
        no part.
    seed
        Seed of all random numbers. The treatment is drawn before the effects: with the same seed
        it is the same for any effects.

    Returns
    -------
    New AnnData with the counts in ``X`` (CSR, float32), all columns of ``adata.obs`` and
    ``adata.var``, and ``obs["treatment"]`` (bool). Other slots are left out, since they belong to
    the old counts. The truth: ``obs["truth_logit"]`` (logit of the probability of the
    treatment), ``var["truth_log2_fc"]``, ``var["truth_is_de"]`` and the options in
    ``uns["truth"]``. Size factors are best taken from the counts before thinning.

    Raises
    ------
    KeyError
        If a column or the layer is missing.
    ValueError
        If the counts are not raw counts, an option is out of range, a column has missing values
        or is constant, or ``obs["treatment"]`` exists.

    See Also
    --------
    confounder : A simulation in which everything is known.

    Examples
    --------
    >>> from scovert.data import pbmc68k
    >>> from scovert.simulate import hidden_covariate
    >>> adata = hidden_covariate(pbmc68k(), "cell_type", effect_fraction=0.1)
    >>> adata.shape, int(adata.var["truth_is_de"].sum())
    ((700, 765), 76)
    """
    keys = [key] if isinstance(key, str) else list(key)
    strengths = _check_strengths(strength, keys, cluster_key)
    check_number("effect_fraction", effect_fraction, 0, 1)
    _check_fold_change(fold_change)
    where = check_layer(adata, layer)
    adata = adata.to_memory() if adata.isbacked else adata
    _check_free(adata)
    counts = get_counts(adata, layer)
    check_counts(counts, where, adata)
    counts = sparse.csr_matrix(counts).sorted_indices()  # so that storage does not matter

    rng = np.random.default_rng(seed)
    scores = np.column_stack([_scores(adata, k, rng) for k in keys])  # (n_cells, n_keys)
    if cluster_key is None:
        log_odds = scores @ strengths
        treatment = rng.random(adata.n_obs) < expit(log_odds)
    else:
        treatment, log_odds = _by_clusters(adata, cluster_key, rng)
    directions = random_directions(adata.n_vars, effect_fraction, rng)
    counts = thin_one_arm(counts, treatment, directions, fold_change, rng)

    options = {"key": keys, "strength": strengths, "effect_fraction": effect_fraction}
    options |= {"fold_change": fold_change, "seed": seed}
    if cluster_key is not None:
        options["cluster_key"] = cluster_key
    log2_fc = directions * np.log2(fold_change)
    return AnnData(
        counts,
        obs=adata.obs.assign(treatment=treatment, truth_logit=log_odds),
        var=adata.var.assign(truth_log2_fc=log2_fc, truth_is_de=directions != 0),
        uns={"truth": options},
    )


def _scores(adata: AnnData, key: str, rng: np.random.Generator) -> NDArray:
    """Score of each cell in one column, mean 0 and variance 1 over labels, or over cells."""
    check_categorical(adata, key, "key")
    column = adata.obs[key]
    if pd.api.types.is_float_dtype(column):
        return _standardised(column.to_numpy(float), key)
    labels, found = pd.factorize(column.astype(str), sort=True)
    if len(found) < 2:
        _refuse_constant(key, repr(found[0]))
    return _standardised(rng.normal(size=len(found)), key)[labels]


def _standardised(values: NDArray, key: str) -> NDArray:
    if not np.isfinite(values).all():
        raise ValueError(
            f"`adata.obs[{key!r}]` is infinite in "
            f"{counted((~np.isfinite(values)).sum(), 'cell')}. Finite "
            "numbers are accepted: leave these cells out."
        )
    if values.min() == values.max():
        _refuse_constant(key, f"{values[0]:g}")
    return (values - values.mean()) / values.std()


def _refuse_constant(key: str, value: str) -> None:
    raise ValueError(
        f"`adata.obs[{key!r}]` is {value} in all cells, so no treatment can depend on it. Name a "
        "column with two or more labels, or with numbers that differ."
    )


def _by_clusters(
    adata: AnnData, cluster_key: str, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Treatment of each cell, the same within clusters, and its logit."""
    check_categorical(adata, cluster_key, "cluster_key")
    clusters, found = pd.factorize(adata.obs[cluster_key].astype(str), sort=True)
    if len(found) < 2:
        raise ValueError(
            f"`cluster_key={cluster_key!r}` holds one cluster only, {found[0]!r}. Two or more can "
            "be treated differently: name another column, or leave `cluster_key` out."
        )
    n_treated = len(found) // 2
    treated = rng.permutation(len(found))[:n_treated]
    return np.isin(clusters, treated), np.full(adata.n_obs, logit(n_treated / len(found)))


def _check_free(adata: AnnData) -> None:
    if "treatment" in adata.obs:
        raise ValueError(
            '`adata.obs["treatment"]` exists, but the result writes this column. Rename it: '
            '`adata.obs = adata.obs.rename(columns={"treatment": "real_treatment"})`.'
        )


def _check_strengths(
    strength: float | Sequence[float], keys: list[str], cluster_key: str | None
) -> NDArray:
    """Strength of each column, shape ``(n_keys,)``."""
    if not keys:
        raise ValueError("`key` names no column of `adata.obs`. Name one or more.")
    values = [strength] * len(keys) if np.ndim(strength) == 0 else list(strength)
    if len(values) != len(keys):
        raise ValueError(
            f"`strength={strength!r}` has {len(values)} numbers for the {len(keys)} columns "
            f"{keys}. Pass one number, or one for each column."
        )
    for value in values:
        check_number("strength", value, 0)
    if cluster_key is not None and not np.all(np.equal(values, 1)):
        raise ValueError(
            f"`strength={strength!r}` plays no part with `cluster_key={cluster_key!r}`: the "
            "clusters are treated at random. Leave one of them out."
        )
    return np.array(values, float)


def _check_fold_change(fold_change: float) -> None:
    check_number("fold_change", fold_change, 0)
    if not 1 < fold_change < np.inf:
        raise ValueError(
            f"`fold_change={fold_change}` is out of range. Thinning needs a finite number above "
            "1; the direction of each effect is random."
        )
