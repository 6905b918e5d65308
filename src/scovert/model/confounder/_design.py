"""Checks of covariates against a treatment: cells must be comparable between the arms."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from scipy.optimize import linprog

from scovert.core._checks import caller_level, some_of
from scovert.core._designs import one_hot, rank_of, standardised

__all__ = ["check_design", "warn_about_overlap"]

N_FIRST, N_MORE = 500, 500
"""Cells of an arm that a plane is first sought for, and those on its wrong side that are added."""

MIN_MARGIN = 1e-6
"""Margin of a plane, in standard deviations of a covariate; ten times that solvers tolerate."""

MAX_NAMED = 8
"""Levels that a message names, in two lines."""

FEW_SHARED = 20
"""Cells of an arm among values of both, as few as an arm may have."""


def check_design(
    adata: AnnData,
    treatment_key: str,
    levels: Sequence[object],
    categorical: Sequence[str] | None,
    continuous: Sequence[str] | None,
) -> None:
    """Refuse covariates that are constant or collinear, or that tell the arm of every cell.

    Parameters
    ----------
    adata
        The cells.
    treatment_key
        Column with the treatment.
    levels
        Its levels, the reference first.
    categorical, continuous
        Columns with covariates.
    """
    columns = _columns(adata, categorical, continuous)
    design = [np.ones((adata.n_obs, 1)), one_hot(adata.obs[treatment_key])]
    before = [treatment_key]
    for key, added in columns.items():
        values = adata.obs[key].unique().tolist()
        if len(values) < 2:
            raise ValueError(
                f"The covariate `adata.obs[{key!r}]` is {some_of(values)} in every cell, so there "
                "is nothing to adjust for. Leave it out."
            )
        gain = rank_of([*design, added]) - rank_of(design)
        if gain < max(1, added.shape[1] - 1):
            raise ValueError(
                f"The covariate `adata.obs[{key!r}]` is collinear with {before}: "
                f"{_why_collinear(adata, key, treatment_key)}Leave {key!r} out. If it names "
                "donors or samples that were treated as a whole, "
                f"pass it as `cluster_key={key!r}`."
            )
        design.append(added)
        before.append(key)
    found = [
        (arm, keys)
        for arm, rows, is_treated in _comparisons(adata, treatment_key, levels)
        if (keys := _separating({k: c[rows] for k, c in columns.items()}, is_treated))
    ]
    if found:
        _refuse_separated(adata, treatment_key, levels, found)


def _columns(
    adata: AnnData, categorical: Sequence[str] | None, continuous: Sequence[str] | None
) -> dict[str, sp.csr_matrix]:
    """Return the covariates as columns of a design."""
    columns = {key: one_hot(adata.obs[key]) for key in categorical or []}
    return columns | {key: sp.csr_matrix(standardised(adata.obs[key])) for key in continuous or []}


def _why_collinear(adata: AnnData, key: str, treatment_key: str) -> str:
    """Say whether a covariate alone tells the treatment of every cell."""
    levels = adata.obs.groupby(key, observed=True)[treatment_key].nunique()
    if (levels == 1).all():
        return (
            f"it separates the arms of {treatment_key!r} perfectly, so that its effect and the "
            "treatment's cannot be told apart. "
        )
    return "its effect cannot be told from theirs. "


def _comparisons(
    adata: AnnData, treatment_key: str, levels: Sequence[object]
) -> Iterator[tuple[object, NDArray, NDArray]]:
    """Return every arm with the rows of its cells and the reference's, and which are its own."""
    codes = pd.Categorical(adata.obs[treatment_key], categories=levels).codes
    for arm, level in enumerate(levels[1:], 1):
        rows = np.flatnonzero((codes == 0) | (codes == arm))
        yield level, rows, codes[rows] == arm


def _separating(columns: dict[str, sp.csr_matrix], is_treated: NDArray) -> list[str]:
    """Return the fewest covariates that separate an arm from the reference, none if none do."""
    keys = list(columns)
    for key in keys:
        if _separates(columns[key], is_treated):
            return [key]
    if len(keys) < 2 or not _is_separated(list(columns.values()), is_treated):
        return []
    for key in list(keys):
        rest = [k for k in keys if k != key]
        if len(rest) > 1 and _is_separated([columns[k] for k in rest], is_treated):
            keys = rest
    return keys


def _separates(column: sp.csr_matrix, is_treated: NDArray) -> bool:
    """Whether one covariate has no level, or no range of numbers, with cells of both arms."""
    own, other = column[is_treated], column[~is_treated]
    if column.shape[1] == 1:
        return bool(own.max() < other.min() or other.max() < own.min())
    return not (own.getnnz(axis=0) * other.getnnz(axis=0)).any()


def _is_separated(columns: list[sp.csr_matrix], is_treated: NDArray) -> bool:
    """Whether a plane in the space of covariates has the cells of each arm on a side of its own.

    It is sought for some cells. If there is none, there is none for all; if there is one, cells on
    its wrong side are added until there are none left.
    """
    design = sp.hstack([np.ones((len(is_treated), 1)), *columns]).tocsr()
    side = np.where(is_treated, 1.0, -1.0)
    rng = np.random.default_rng(0)
    arms = (rng.permutation(np.flatnonzero(side == s))[:N_FIRST] for s in (1, -1))
    rows = np.concatenate(list(arms))
    while (plane := _plane(design[rows].toarray(), side[rows])) is not None:
        margin = side * (design @ plane)
        wrong = np.flatnonzero(margin <= MIN_MARGIN / 2)
        if len(wrong) == 0:
            return True
        rows = np.concatenate([rows, wrong[np.argsort(margin[wrong])[:N_MORE]]])
    return False


def _plane(design: NDArray, side: NDArray) -> NDArray | None:
    """Return coefficients of a plane between cells, with the widest margin, if there is one."""
    cells = np.unique(side[:, None] * design, axis=0)
    n, q = cells.shape
    found = linprog(
        np.append(np.zeros(q), -1.0),  # coefficients, and the margin to be maximised
        A_ub=np.hstack([-cells, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        bounds=[(-1, 1)] * q + [(0, None)],
    )
    return found.x[:q] if found.success and found.x[q] > MIN_MARGIN else None


def _refuse_separated(
    adata: AnnData,
    treatment_key: str,
    levels: Sequence[object],
    found: list[tuple[object, list[str]]],
) -> None:
    arm, keys = found[0]
    named = ", ".join(f"`adata.obs[{key!r}]`" for key in keys)
    who = f"The covariate {named} separates" if len(keys) == 1 else f"Together, {named} separate"
    arms = [level for level, _ in found]
    remedy = f"Leave {' or '.join(map(repr, keys))} out, or pass cells of both that are alike."
    if len(arms) < len(levels) - 1:
        remedy += f" Or leave these arms out: `adata[~adata.obs[{treatment_key!r}].isin({arms})]`."
    raise ValueError(
        f"{who} {arm!r} from the reference {levels[0]!r} of `adata.obs[{treatment_key!r}]` "
        f"perfectly{_ranges(adata, treatment_key, keys, (arm, levels[0]))}. No cell has a "
        "counterpart in the other arm, so that the effect of the treatment cannot be told from "
        f"what goes with {' and '.join(map(repr, keys))}, and no p-value can be right. {remedy}"
    )


def _ranges(
    adata: AnnData, treatment_key: str, keys: list[str], arms: tuple[object, object]
) -> str:
    """Say which values each arm has, of one numeric covariate."""
    if len(keys) > 1 or not pd.api.types.is_numeric_dtype(adata.obs[keys[0]]):
        return ""
    values = (adata.obs.loc[adata.obs[treatment_key] == arm, keys[0]] for arm in arms)
    own, other = (f"{v.min():.6g} to {v.max():.6g}" for v in values)
    return f" ({own} against {other})"


def warn_about_overlap(
    adata: AnnData,
    treatment_key: str,
    levels: Sequence[object],
    categorical: Sequence[str] | None,
    continuous: Sequence[str] | None,
) -> None:
    """Warn where covariates leave few cells of the arms to compare; arguments as above."""
    arms = adata.obs[treatment_key]
    said = [_levels_of_one_arm(adata.obs[key], arms) for key in categorical or []]
    for level, rows, is_treated in _comparisons(adata, treatment_key, levels):
        obs, pair = adata.obs.iloc[rows], f"{level!r} and the reference {levels[0]!r}"
        said += [_few_shared(obs[key], is_treated, pair) for key in continuous or []]
        if len(categorical or []) > 1:
            said.append(_no_shared_combination(obs[list(categorical)], is_treated, pair))
    for text in filter(None, said):
        warnings.warn(text, UserWarning, stacklevel=caller_level())


def _levels_of_one_arm(column: pd.Series, arms: pd.Series) -> str:
    n_cells = pd.crosstab(column, arms)
    alone = n_cells[(n_cells > 0).sum(axis=1) == 1].sum(axis=1)
    if len(alone) == 0:
        return ""
    named = ", ".join(f"{level!r} ({n} cells)" for level, n in alone[:MAX_NAMED].items())
    return (
        f"`adata.obs[{column.name!r}]` has {len(alone)} levels with cells in one arm of "
        f"{arms.name!r} only: {named}{', ...' if len(alone) > MAX_NAMED else ''}. These "
        f"{alone.sum()} of {len(column)} cells say nothing about the effect of the treatment, "
        "which rests on the others. Merge levels that are alike, leave the covariate out if it "
        f"does not matter, or, if it names donors, pass it as `cluster_key={column.name!r}`."
    )


def _few_shared(column: pd.Series, is_treated: NDArray, pair: str) -> str:
    values = column.to_numpy(float)
    own, other = values[is_treated], values[~is_treated]
    low, high = max(own.min(), other.min()), min(own.max(), other.max())
    n_cells = [int(((v >= low) & (v <= high)).sum()) for v in (own, other)]
    if min(n_cells) >= FEW_SHARED:
        return ""
    return (
        f"`adata.obs[{column.name!r}]` nearly separates {pair}: {n_cells[0]} and {n_cells[1]} of "
        f"their cells lie where both have values ({low:.6g} to {high:.6g}). The effect of the "
        "treatment is told from the covariate's by these cells, or by a straight line through "
        "values that one arm has alone. Leave the covariate out, or pass cells that are alike."
    )


def _no_shared_combination(obs: pd.DataFrame, is_treated: NDArray, pair: str) -> str:
    both = obs.groupby(list(obs), observed=True).ngroup().to_numpy()
    if np.intersect1d(both[is_treated], both[~is_treated]).size:
        return ""
    return (
        f"No combination of levels of {list(obs)} has cells of {pair}: effects hold only if those "
        "of the covariates simply add up (on the log scale). Leave one out if it does not matter."
    )
