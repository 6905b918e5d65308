"""What samples hold, and how conditions differ, over donors and never over cells."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from scovert.core._checks import caller_level

__all__ = ["compare_conditions", "in_order", "shares_by_group", "warn_about_subjects"]

LEAST_CELLS = 0.5
"""Cells that a donor without any of a niche counts as, so that the logarithm of its share is
finite."""


def shares_by_group(composition: pd.DataFrame, groups: pd.Series) -> pd.DataFrame:
    """Mean composition over the cells of each group, groups x columns; rows sum to one."""
    shares = composition.groupby(in_order(groups), observed=True).mean()
    return shares.set_axis(shares.index.astype(str)).rename_axis(index=groups.name)


def in_order(values: pd.Series) -> pd.Categorical:
    """Return names as text in the order of their categories, in which 10 is not before 2."""
    names = values.astype("category").cat.remove_unused_categories().cat.categories.astype(str)
    return pd.Categorical(values.astype(str), names.unique())


def compare_conditions(
    composition: pd.DataFrame, condition: pd.Series, subject: pd.Series, reference: object
) -> pd.DataFrame:
    """Compare shares between conditions by Welch's t-test over subjects, on the logit scale.

    Parameters
    ----------
    composition
        Shares of each cell, cells x niches; rows sum to one.
    condition, subject
        Condition and subject of each cell.
    reference
        Condition that the others are compared with.

    Returns
    -------
    DataFrame with a row for each other condition and niche: ``share`` and ``share_reference``
    (means over subjects), ``log_odds_ratio``, ``se``, ``df``, ``p_value`` and, by
    Benjamini-Hochberg over the rows, ``q_value``.
    """
    shares = shares_by_group(composition, subject)
    table = pd.DataFrame({"of": condition.astype(str).to_numpy()}, index=composition.index)
    table["subject"] = subject.astype(str).to_numpy()
    each = table.drop_duplicates()
    _check_subjects(each, str(condition.name), str(subject.name), str(reference))
    of = each.set_index("subject")["of"].reindex(shares.index)
    n_cells = table["subject"].value_counts().reindex(shares.index).to_numpy()[:, None]
    least = LEAST_CELLS / n_cells
    clipped = shares.clip(lower=least, upper=1 - least)
    logit = np.log(clipped / (1 - clipped)).to_numpy()
    rows = [
        _compare(name, shares, logit, of, str(reference))
        for name in sorted(set(of) - {str(reference)})
    ]
    found = pd.concat(rows)
    found["q_value"] = stats.false_discovery_control(found["p_value"])
    return found


def warn_about_subjects(obs: pd.DataFrame, sample_key: str, condition_key: str) -> None:
    """Warn about a column that looks like donors with several samples each.

    Parameters
    ----------
    obs
        Of the cells.
    sample_key, condition_key
        Its columns with the samples, which are taken for subjects, and with the conditions.
    """
    each = obs.drop_duplicates(sample_key)
    n_samples, n_conditions = len(each), each[condition_key].nunique()
    for key in obs.columns.difference([sample_key, condition_key], sort=False):
        if pd.api.types.is_float_dtype(obs[key]) or str(key).startswith("_scvi_"):
            continue
        if not n_conditions < each[key].nunique() < n_samples:
            continue
        is_of_samples = (obs.groupby(sample_key, observed=True)[key].nunique() <= 1).all()
        if (
            is_of_samples
            and (each.groupby(key, observed=True)[condition_key].nunique() <= 1).all()
        ):
            warnings.warn(
                f"The {n_samples} samples are of {each[key].nunique()} levels of "
                f"`adata.obs[{key!r}]`. If these are donors or animals, samples of one are no "
                f"replicates and p-values are too small: pass `subject_key={key!r}`.",
                UserWarning,
                stacklevel=caller_level(),
            )
            return


def _compare(
    name: str, shares: pd.DataFrame, logit: NDArray, of: pd.Series, reference: str
) -> pd.DataFrame:
    ours, theirs = (of == name).to_numpy(), (of == reference).to_numpy()
    test = stats.ttest_ind(logit[ours], logit[theirs], equal_var=False)
    difference = logit[ours].mean(0) - logit[theirs].mean(0)
    variance = sum(logit[rows].var(0, ddof=1) / rows.sum() for rows in (ours, theirs))
    index = pd.MultiIndex.from_product([[name], shares.columns], names=["condition", "niche"])
    return pd.DataFrame(
        {
            "share": shares[ours].mean().to_numpy(),
            "share_reference": shares[theirs].mean().to_numpy(),
            "log_odds_ratio": difference,
            "se": np.sqrt(variance),
            "df": test.df,
            "p_value": np.where(variance > 0, test.pvalue, 1.0),  # alike in all subjects
        },
        index=index,
    )


def _check_subjects(each: pd.DataFrame, condition: str, subject: str, reference: str) -> None:
    several = each["subject"][each["subject"].duplicated()].tolist()
    if several:
        raise ValueError(
            f"Subject {several[0]!r} of `adata.obs[{subject!r}]` has cells of several conditions. "
            "Each subject has one: name the column of the samples in `subject_key`."
        )
    sizes = each["of"].value_counts()
    if reference not in sizes:
        raise ValueError(
            f"`reference={reference!r}` is not in `adata.obs[{condition!r}]`, which holds "
            f"{sorted(sizes.index)}. Name one of these."
        )
    if len(sizes) < 2 or sizes.min() < 2:
        raise ValueError(
            f"`adata.obs[{condition!r}]` has {sizes.to_dict()} subjects. Two conditions and two "
            f"subjects of each are needed: cells and images of one subject are no replicates."
        )
