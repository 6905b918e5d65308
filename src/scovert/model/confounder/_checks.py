"""Checks of a treatment, and of what goes with it."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import (
    FEW_CELLS,
    caller_level,
    check_categorical,
    check_column,
    check_number,
    some_of,
)

__all__ = [
    "check_clusters",
    "check_controls",
    "check_latents",
    "check_size_factors",
    "check_treatment",
    "check_treatment_apart",
    "warn_about_arms",
    "warn_about_clusters",
    "warn_about_controls",
    "warn_about_leakage",
    "warn_about_size_factors",
]

MIN_CELLS, MAX_LEVELS = 20, 100
"""Cells of an arm, at least, since most genes have no count in fewer; and different numbers in a
column from which it is a measurement and no treatment."""

MIN_CLUSTERS, FEW_CLUSTERS = 3, 4
"""Clusters of an arm from which p-values are given, and from which they are more than exploratory:
with fewer the variances of the genes are not squeezed towards each other."""

FEWEST_EFFECTIVE, UNEQUAL = 2, 0.6
"""Clusters in effect, and their share of the clusters, below which tests of a null reject too
often: at .05 in 41 % of the genes with 1.4 of 6, 24 % with 1.4 of 3, 9 % with 3 of 6, and 7 % with
6 of 6 (`benchmarks/limits.py`)."""

MIN_CONTROLS, FEW_CONTROLS = 60, 100
"""Negative controls with counts, at least, and below which there is a warning: the shift of up to
15 confounders is learnt from them."""

MAX_BINARY = 4
"""Binary confounders, at most: their 16 combinations are all looked at."""

HIGH_LEAKAGE = 0.3
"""Correlation of a generator's confounder with the treatment that is warned of."""

SMALLEST_SPREAD = 0.05
"""Standard deviation of the logarithms of size factors or totals, below which none is judged."""
CLOSELY, FLAT = 0.9, 0.5
"""Correlation of size factors with totals, both in logarithms, from which on one is made of the
other, and the slope below which it is not in proportion; that of a logarithm is 0.1 to 0.2."""

CLUSTER_LEVELS = (3, 200)
"""Levels of a column that may be donors or samples: of fewer no variance is known, and more are
barcodes or lanes."""


def check_treatment(adata: AnnData, key: str, reference: object) -> list[object]:
    """Return the levels of the treatment, the reference first; refuse what cannot be compared."""
    check_categorical(adata, key, "treatment_key")
    sizes = adata.obs[key].value_counts()
    sizes = sizes[sizes > 0]
    levels = sorted(sizes.index, key=lambda level: (str(type(level)), level))
    if pd.api.types.is_float_dtype(adata.obs[key]) and len(levels) > MAX_LEVELS:
        raise ValueError(
            f"`adata.obs[{key!r}]` holds {len(levels)} different numbers, such as "
            f"{some_of(levels)}. A treatment has levels: bin the numbers, such as "
            f"`pd.qcut(adata.obs[{key!r}], 3).astype(str)`."
        )
    if len(levels) < 2:
        raise ValueError(
            f"`adata.obs[{key!r}]` is {levels[0]!r} in every cell. An effect is a comparison: "
            "pass an AnnData with treated and untreated cells."
        )
    if reference is None:
        if set(levels) != {0, 1}:  # as False and True are
            raise ValueError(
                f"`adata.obs[{key!r}]` has the levels {some_of(levels, 8)}. Say which of them the "
                f"others are compared with, such as `reference={levels[0]!r}`."
            )
        reference = levels[0]
    if reference not in levels:
        raise ValueError(
            f"`reference={reference!r}` is not a level of `adata.obs[{key!r}]` (levels: "
            f"{some_of(levels, 8)}). Pass one of these."
        )
    reference = levels[levels.index(reference)]  # False, where 0 was passed
    few = sizes[sizes < MIN_CELLS]
    if len(few):
        without = f"`adata[~adata.obs[{key!r}].isin({list(few.index)})].copy()`"
        is_enough = reference not in few.index and len(few) < len(levels) - 1
        more = (
            "Pass more cells. If these are sums of the cells of samples (pseudobulk), pass the "
            "cells themselves, with the samples as `cluster_key`."
        )
        raise ValueError(
            f"`adata.obs[{key!r}]` has fewer than {MIN_CELLS} cells in {few.to_dict()}. "
            + (f"Leave these cells out: {without}." if is_enough else more)
        )
    return [reference, *[level for level in levels if level != reference]]


def check_treatment_apart(key: str, others: Collection[str | None]) -> None:
    """Refuse the treatment as a covariate, as size factors or as clusters."""
    if key in [other for other in others if isinstance(other, str)]:
        raise ValueError(
            f"`treatment_key={key!r}` is named as a covariate, a size factor or a cluster too. "
            "Name another column there: the treatment is in the model already."
        )


def warn_about_arms(adata: AnnData, key: str) -> None:
    """Warn about arms of few cells."""
    sizes = adata.obs[key].value_counts()
    few = sizes[(sizes > 0) & (sizes < FEW_CELLS)]
    if len(few):
        warnings.warn(
            f"Few cells in {few.to_dict()} of `adata.obs[{key!r}]` (under {FEW_CELLS}): p-values "
            "that compare them rest on few cells. Pass more, or take the result for a screen.",
            UserWarning,
            stacklevel=caller_level(),
        )


def check_size_factors(adata: AnnData, key: str | None) -> None:
    """Refuse size factors that are not positive numbers."""
    if key is None:
        return
    check_column(adata, key, "size_factor_key")
    column = adata.obs[key]
    if not pd.api.types.is_numeric_dtype(column):
        raise TypeError(
            f"`adata.obs[{key!r}]` has dtype {column.dtype}, and size factors are numbers."
        )
    values = column.to_numpy(float)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(bad):
        raise ValueError(
            f"`adata.obs[{key!r}]` is {values[bad[0]]} in cell {adata.obs_names[bad[0]]!r}. "
            "Size factors are positive and not logarithms (1 for an average cell)."
        )


def warn_about_size_factors(adata: AnnData, key: str | None, totals: NDArray) -> None:
    """Warn about size factors that fall as the total counts rise, or are their logarithms."""
    if key is None:
        return
    size = adata.obs[key].to_numpy(float)[totals > 0]
    factors, depth = np.log(size), np.log(totals[totals > 0])
    if min(factors.std(), depth.std()) < SMALLEST_SPREAD:
        return
    r = np.corrcoef(factors, depth)[0, 1]
    slope = r * factors.std() / depth.std()
    found = None
    if r < -CLOSELY:
        found = "fall as the total counts rise. Counts are divided by them: pass 1 / size factor"
    elif r > CLOSELY and slope < FLAT:
        found = "look like logarithms of the total counts. They are on the natural scale: pass exp"
    if found is not None:
        warnings.warn(
            f"The size factors `adata.obs[{key!r}]` {found}, or leave `size_factor_key` out.",
            UserWarning,
            stacklevel=caller_level(),
        )


def check_clusters(adata: AnnData, key: str | None, treatment_key: str) -> None:
    """Refuse fewer than three clusters in an arm; warn about three."""
    if key is None:
        return
    check_categorical(adata, key, "cluster_key")
    pairs = adata.obs[[treatment_key, key]].drop_duplicates()
    counts = pairs.groupby(treatment_key, observed=True).size()
    fewest = int(counts.min())
    if fewest < MIN_CLUSTERS:
        raise ValueError(
            f"`adata.obs[{key!r}]` has {counts.to_dict()} clusters in the arms of "
            f"{treatment_key!r}. P-values need at least {MIN_CLUSTERS} in each arm (and can be "
            "relied on from 6). Add donors; without `cluster_key` the cells are taken to be "
            "independent, which p-values of donors' cells do not survive."
        )
    _check_shares(adata, key, treatment_key)
    if fewest < FEW_CLUSTERS:
        warnings.warn(
            f"`adata.obs[{key!r}]` has {counts.to_dict()} clusters in the arms of "
            f"{treatment_key!r}: with {fewest} in an arm, p-values are exploratory.",
            UserWarning,
            stacklevel=caller_level(),
        )


def _check_shares(adata: AnnData, key: str, treatment_key: str) -> None:
    r"""Refuse arms whose cells are nearly all of one cluster; warn about unequal clusters.

    A cluster counts by its cells, so that in effect there are :math:`(\sum n)^2 / \sum n^2`.
    """
    sizes = adata.obs.groupby([treatment_key, key], observed=True).size().astype(float)
    arms = sizes.groupby(level=0, observed=True)
    effective = arms.sum() ** 2 / (sizes**2).groupby(level=0, observed=True).sum()
    arm = effective.idxmin()
    largest = sizes[arm].idxmax()
    share = sizes[arm].max() / sizes[arm].sum()
    found = (
        f"Of the cells of {str(arm)!r}, {share:.0%} are of the cluster {largest!r} of "
        f"`adata.obs[{key!r}]`, so that {sizes[arm].size} clusters count for {effective[arm]:.1f}"
    )
    remedy = f"Leave out clusters of few cells, or keep fewer cells of {largest!r}"
    if effective[arm] < FEWEST_EFFECTIVE:
        raise ValueError(f"{found}, and p-values need {FEWEST_EFFECTIVE} at least. {remedy}.")
    if (effective / arms.size()).min() < UNEQUAL:
        warnings.warn(
            f"{found}. With clusters as unequal as these p-values are too small. {remedy}, or "
            "compare with pseudobulk.",
            UserWarning,
            stacklevel=caller_level(),
        )


def warn_about_clusters(adata: AnnData, treatment_key: str, others: Collection[str]) -> None:
    """Warn about columns that look like donors or samples that were treated as a whole."""
    arms, n_arms = adata.obs[treatment_key], adata.obs[treatment_key].nunique()
    low, high = CLUSTER_LEVELS
    found = {}
    for key in adata.obs.columns.difference([treatment_key, *others], sort=False):
        column = adata.obs[key]
        is_ours = str(key).startswith("_scvi_") or pd.api.types.is_float_dtype(column)
        n_levels = 0 if is_ours else column.nunique()
        if max(low, n_arms + 1) <= n_levels <= high:
            per_level = arms.groupby(column, observed=True).nunique()
            per_arm = column.groupby(arms, observed=True).nunique()
            if (per_level <= 1).all():
                found[key] = (per_arm.min() < MIN_CLUSTERS, n_levels)
    if found:
        named = ", ".join(f"`adata.obs[{key!r}]` ({n} levels)" for key, (_, n) in found.items())
        warnings.warn(
            f"The treatment is the same in all cells of each level of {named}. If these are "
            "donors or samples, their cells are not independent and p-values are too small: pass "
            f"`cluster_key={min(found, key=found.get)!r}`.",
            UserWarning,
            stacklevel=caller_level(),
        )


def warn_about_leakage(leakage: float) -> None:
    """Warn when a confounder that was inferred from the treatment is close to a copy of it."""
    if leakage > HIGH_LEAKAGE:
        warnings.warn(
            f"A confounder has a correlation of {leakage:.2f} with the treatment, given the "
            "covariates (`get_leakage()`): the generator saw the treatment and may have copied "
            "it, and then effects mean nothing. Train with `scale='joint'`, or with "
            "`solver='full_batch'`, whose confounders do not see the treatment.",
            UserWarning,
            stacklevel=caller_level(),
        )


def check_latents(n_latent: object, z_type: str, limit: int) -> None:
    """Refuse a number of latent confounders that the data or the kind do not allow."""
    if n_latent == "auto":
        return
    if isinstance(n_latent, str):
        raise ValueError(f"`n_latent={n_latent!r}` is not known. Pass 'auto' or a whole number.")
    check_number("n_latent", n_latent, 0, whole=True)
    if z_type == "binary" and n_latent > MAX_BINARY:
        raise ValueError(
            f"`n_latent={n_latent}` with `z_type='binary'` means {2**n_latent} states. Pass at "
            f"most {MAX_BINARY}, or `z_type='continuous'`."
        )
    if n_latent > limit:
        raise ValueError(
            f"`n_latent={n_latent}` is more than these data can tell apart. Pass at most {limit}, "
            "or 'auto'."
        )


def check_controls(controls: object, var: pd.DataFrame, tested: NDArray) -> NDArray:
    """Return which genes are negative controls; refuse unknown and too few.

    Parameters
    ----------
    controls
        Names of genes, or a boolean column of ``adata.var``.
    var
        Genes of the model.
    tested
        Genes with an effect to look at, shape ``(n_genes,)``.
    """
    if isinstance(controls, str):
        if controls not in var or not pd.api.types.is_bool_dtype(var[controls]):
            raise KeyError(
                f"`negative_controls={controls!r}` is not a boolean column of `adata.var`. Name "
                "one, or pass a list of genes."
            )
        is_control = var[controls].to_numpy(bool)
    else:
        names = pd.Index(controls)
        unknown = names.difference(var.index)
        if len(unknown):
            raise ValueError(
                f"`negative_controls` holds {len(unknown)} names that are no genes of the model, "
                f"such as {some_of(unknown)}. Pass names from `adata.var_names`."
            )
        is_control = var.index.isin(names)
    n = int((is_control & tested).sum())
    if n < MIN_CONTROLS:
        raise ValueError(
            f"`negative_controls` holds {n} genes with counts enough in both arms. At least "
            f"{MIN_CONTROLS} are needed, {FEW_CONTROLS} or more are better: add genes that the "
            "treatment leaves alone, such as housekeeping genes."
        )
    return is_control


def warn_about_controls(n: int) -> None:
    """Warn about few negative controls with counts enough."""
    if n < FEW_CONTROLS:
        warnings.warn(
            f"`negative_controls` holds {n} genes with counts enough: with fewer than "
            f"{FEW_CONTROLS}, effects are less certain than their errors say.",
            UserWarning,
            stacklevel=caller_level(),
        )
