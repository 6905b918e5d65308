"""What a DistanceEmbedding accepts as distances, and what it warns about."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import caller_level
from scovert.core._words import a_kind_of

__all__ = [
    "SMALL",
    "check_distances",
    "check_taxa",
    "distances_of",
    "is_small",
    "warn_about_depth",
    "warn_about_distances",
    "warn_about_empty",
    "warn_about_samples",
]

FEWEST = 10
"""Samples that a model needs."""
FEW = 50
"""Samples below which results are uncertain."""
SMALL = 100
"""Samples below which the whole cohort is fitted, and cross-validation says how well."""
UNEVEN, ROUNDING = 1e-3, 1e-6
"""Of the largest distance: an asymmetry that is an error, and one that is rounding."""
N_TRIPLES, BROKEN = 10_000, 0.01
"""Triples of samples that are looked at, and the share that breaks the triangle inequality."""
SPREAD = 100.0
"""Ratio of the largest to the smallest total count from which presence tells depth."""


def is_small(n_samples: int) -> bool:
    """Whether a cohort is too small to hold samples out for good."""
    return n_samples < SMALL


def distances_of(adata: AnnData, key: str) -> NDArray:
    """Return the distances that `check_distances` has looked at, the mean of both halves."""
    found = np.asarray(adata.obsp[key], dtype=float)
    found = (found + found.T) / 2
    np.fill_diagonal(found, 0)
    return found


def check_distances(adata: AnnData, key: str) -> None:
    """Refuse what is no matrix of distances between different samples."""
    if not isinstance(key, str):
        raise TypeError(
            f"`distances_key` is {a_kind_of(key)}. Pass the name of a slot of `adata.obsp`; "
            "`scovert.pp.distances(adata, matrix, key_added=...)` puts a matrix there."
        )
    if key not in adata.obsp:
        raise KeyError(
            f"`distances_key={key!r}` is not in `adata.obsp` (there are: {list(adata.obsp)}). Add "
            f"the distances between samples: `scovert.pp.distances(adata, matrix, "
            f"key_added={key!r})`."
        )
    where, matrix = f"`adata.obsp[{key!r}]`", adata.obsp[key]
    if sp.issparse(matrix):
        raise TypeError(
            f"{where} is sparse, as the graph of `sc.pp.neighbors`, which holds distances to "
            "neighbours only. Pass the distances of all pairs, as an array."
        )
    matrix = np.asarray(matrix)
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"{where} has dtype {matrix.dtype}. Distances are numbers: convert them.")
    if len(matrix) < FEWEST:
        raise ValueError(
            f"`adata` has {len(matrix)} samples, and an embedding needs at least {FEWEST}. Add "
            "samples, or look at the principal coordinates alone."
        )
    _check_halves(matrix, where)
    _check_values(matrix, where, adata)
    _check_form(matrix, where, adata)


def _check_halves(matrix: NDArray, where: str) -> None:
    """Refuse a matrix of which half is empty, as mothur and R write distances."""
    row, column = np.tril_indices(len(matrix), -1)
    halves = [matrix[row, column], matrix[column, row]]
    is_empty = [bool((np.isnan(half) | (half == 0)).all()) for half in halves]
    if is_empty[0] != is_empty[1]:
        raise ValueError(
            f"{where} holds the distances {'above' if is_empty[0] else 'below'} its diagonal, and "
            "nothing on the other side. Fill in both: `d = np.nan_to_num(d)`, then `d + d.T`."
        )


def _check_values(matrix: NDArray, where: str, adata: AnnData) -> None:
    is_bad = ~(matrix >= 0) | ~np.isfinite(matrix)
    if is_bad.any():
        i, j = np.argwhere(is_bad)[0]
        raise ValueError(
            f"{where} holds {matrix[i, j]} between {adata.obs_names[i]!r} and "
            f"{adata.obs_names[j]!r} ({int(is_bad.sum())} such values). Distances are finite and "
            "not negative: compute them again, or leave out the samples without."
        )


def _check_form(matrix: NDArray, where: str, adata: AnnData) -> None:
    largest, own = matrix.max(), np.diagonal(matrix)
    if largest == 0:
        raise ValueError(f"{where} holds nothing but zeros. Pass distances between the samples.")
    if own.max() > ROUNDING * largest:
        at = int(own.argmax())
        looks = ""
        if (own >= matrix.max(1)).all():
            looks = (
                " It is the largest value of its row, as in a matrix of similarities: if these "
                "are in [0, 1], distances are 1 less them."
            )
        raise ValueError(
            f"{where} holds {own[at]:.6g} on its diagonal (sample {adata.obs_names[at]!r}). A "
            f"sample is at distance 0 from itself.{looks} Pass distances."
        )
    uneven = np.abs(matrix - matrix.T)
    if uneven.max() > UNEVEN * largest:
        i, j = np.unravel_index(int(uneven.argmax()), uneven.shape)
        raise ValueError(
            f"{where} is not symmetric: it holds {matrix[i, j]:.6g} from {adata.obs_names[i]!r} "
            f"to {adata.obs_names[j]!r} and {matrix[j, i]:.6g} back. Pass distances, or their "
            "mean, `(d + d.T) / 2`, if both directions mean the same."
        )
    between = matrix[np.triu_indices(len(matrix), 1)]
    if np.ptp(between) <= ROUNDING * largest:
        raise ValueError(
            f"{where} holds {largest:.6g} between all samples: all distances are equal, and there "
            "is nothing to reproduce. Pass distances that tell samples apart."
        )


def warn_about_distances(adata: AnnData, key: str) -> None:
    """Warn about a matrix that is not quite symmetric, or breaks the triangle inequality."""
    matrix, where = np.asarray(adata.obsp[key], float), f"`adata.obsp[{key!r}]`"
    uneven = np.abs(matrix - matrix.T).max() / matrix.max()
    if uneven > ROUNDING:
        _warn(
            f"{where} is not quite symmetric (by {uneven:.1e} of the largest distance): the mean "
            "of both directions is taken."
        )
    broken = _broken_share(matrix)
    if broken > BROKEN:
        _warn(
            f"{broken:.0%} of the triples of samples in {where} break the triangle inequality: "
            "positions cannot reproduce such distances well. Their square roots often keep it."
        )


def _broken_share(matrix: NDArray) -> float:
    """Return the share of triples with a side that is longer than the two others."""
    rng, n = np.random.default_rng(0), len(matrix)
    i = rng.integers(n, size=N_TRIPLES)
    j, k = (i + rng.integers(1, n, N_TRIPLES)) % n, (i + rng.integers(1, n, N_TRIPLES)) % n
    sides = np.sort([matrix[i, j], matrix[j, k], matrix[i, k]], axis=0)
    is_broken = sides[2] > (sides[0] + sides[1]) * (1 + ROUNDING)
    return float(is_broken[j != k].mean())


def warn_about_samples(adata: AnnData, totals: NDArray) -> None:
    """Warn about few samples, samples without counts, and names that occur twice."""
    if adata.n_obs < FEW:
        _warn(
            f"Few samples ({adata.n_obs}, under {FEW}): positions of new samples are uncertain. "
            "`model.get_agreement()` says how much, by cross-validation."
        )
    warn_about_empty(totals)
    if not adata.obs_names.is_unique:
        _warn(
            "`adata.obs_names` are not unique, so tables of distances are ambiguous. "
            "`adata.obs_names_make_unique()` mends it."
        )


def warn_about_empty(totals: NDArray) -> None:
    """Warn about samples without counts."""
    n_empty = int((totals == 0).sum())
    if n_empty:
        _warn(
            f"{n_empty} sample{'s have' if n_empty > 1 else ' has'} no counts: placed at the "
            "centre, with the largest uniqueness. `sc.pp.filter_cells(adata, min_counts=1)` "
            "removes such samples."
        )


def check_taxa(adata: AnnData, taxa: pd.Index) -> None:
    """Refuse samples that lack some of the taxa of a model; of all, names are of another kind."""
    is_there = taxa.isin(adata.var_names)
    if is_there.any() and not is_there.all():
        lacking = taxa[~is_there]
        raise ValueError(
            f"`adata` lacks {len(lacking)} of the {len(taxa)} taxa of the model, such as "
            f"{lacking[0]!r}. Pass samples with all of them, in any order, or `fill_missing=True` "
            "to take these as not counted."
        )


def warn_about_depth(totals: NDArray, kinds: tuple[str, ...]) -> None:
    """Warn where depth differs so much that the presence of taxa tells of it."""
    some = totals[totals > 0]
    spread = some.max() / some.min()
    if spread > SPREAD and any("presence" in kind for kind in kinds):
        _warn(
            f"Total counts of samples differ by a factor of {spread:.0f}, and the features tell "
            "which taxa are there, which depends on the depth. Look at `model.check()`; "
            "rarefying, or features without presence, frees positions of it."
        )


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=caller_level())
