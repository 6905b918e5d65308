"""Slides and fields of view that lie on one another, as each has coordinates of its own."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import caller_level
from scovert.model.niche._graph import nearest_neighbors

__all__ = ["warn_about_slides"]

_OF_FIELDS = frozenset("slide section slice image tile fov roi field core puck library".split())
"""Columns of what may have coordinates of its own, within a sample too; but for id or name."""
_OF_SLIDES = _OF_FIELDS | set(
    "sample donor patient subject mouse animal batch dataset file".split()
)
"""And of what is not all on one slide."""
N_LOOKED_AT = 4096
"""Cells whose nearest ones, among them, are looked at."""
MIXED = 0.5
"""Share of the nearest cells that are of another level, of what it would be by chance, from which
on levels lie on one another; of slides side by side it is near zero."""


def warn_about_slides(
    adata: AnnData, positions: NDArray, sample: NDArray, sample_key: str | None
) -> None:
    """Warn about levels of a column that is called as one of slides, and lie on one another.

    Parameters
    ----------
    adata
        The cells.
    positions
        Their positions, shape ``(n_cells, 2)`` or ``(n_cells, 3)``.
    sample
        Number of the sample of each cell, shape ``(n_cells,)``.
    sample_key
        Column of ``adata.obs`` with the samples, if there are any.
    """
    rows = np.random.default_rng(0).permutation(adata.n_obs)[:N_LOOKED_AT]
    sample, near, found = sample[rows], None, {}
    known = _OF_SLIDES if sample_key is None else _OF_FIELDS
    for name in (name for name in adata.obs if _plain(name) in known):
        level = pd.factorize(adata.obs[name].astype(str))[0][rows]
        by_chance = _share_of_others(level, sample)
        if by_chance == 0:
            continue
        if near is None:
            near = nearest_neighbors(positions[rows], sample, 1)[:, 0]
        share = float((level[near] != level)[near >= 0].mean())
        if share > MIXED * by_chance:
            found[name] = adata.obs[name].nunique(), share
    if found:
        name = max(found, key=found.get)  # of a slide and its fields of view these
        _warn(name, found[name][1], sample_key)


def _plain(name: object) -> str:
    """Return ``sample`` for ``Sample_ID`` and the like."""
    return re.sub(r"(ids?|names?|s)$", "", re.sub(r"[^a-z]", "", str(name).lower()))


def _share_of_others(level: NDArray, sample: NDArray) -> float:
    """Share of the pairs of cells of one sample that are of two levels."""
    n_cells = pd.crosstab(sample, level).to_numpy(float)
    of_sample = n_cells.sum(1)
    same = ((n_cells / of_sample[:, None]) ** 2).sum(1)
    return float(((1 - same) * of_sample).sum() / len(level))


def _warn(name: str, share: float, sample_key: str | None) -> None:
    remedy = f"Pass `sample_key={name!r}`"
    if sample_key is not None:
        parts = " + '_' + ".join(f"adata.obs[{k!r}].astype(str)" for k in (sample_key, name))
        remedy = f"Name in `sample_key` a column that tells them apart, such as `{parts}`"
    warnings.warn(
        f"The levels of `adata.obs[{name!r}]` lie on one another: of {share:.0%} of the cells the "
        "nearest one is of another level. If each level has coordinates of its own, as slides and "
        f"fields of view have, neighbours mean nothing. {remedy}.",
        UserWarning,
        stacklevel=caller_level(),
    )
