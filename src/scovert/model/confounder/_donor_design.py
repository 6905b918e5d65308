"""How the treatment was given: within donors, to whole donors, or to cells of no known donor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["DonorDesign", "read_design"]

MIN_CELLS = 5
"""Cells of a donor in an arm from which it is compared within: their mean has an error of its
own of less than half a standard deviation."""

MIN_DONORS, MIN_SHARE = 3, 0.8
"""Donors that have to hold both arms, and the share of the cells of both that has to be theirs,
for the arms to be compared within donors: as many donors as an arm has to have, and few cells
that go unused."""

WITHIN, BETWEEN, SAMPLES, UNKNOWN = "within donors", "between donors", "within samples", "unknown"


class DonorDesign(NamedTuple):
    """Design of an experiment, as far as the columns tell.

    Attributes
    ----------
    kinds
        Of every arm: ``"within donors"``, ``"between donors"``, ``"within samples"`` (no donors
        are named, and every level of the categorical covariates holds both arms) or
        ``"unknown"``.
    sentences
        The same of every arm, in words.
    blocks
        Donors that arms are compared within, if that holds of all arms; else none.
    held
        Covariates that are constant within the donors, which blocks hold already.
    """

    kinds: list[str]
    sentences: list[str]
    blocks: list[object]
    held: list[str]

    def block_columns(self, donors: pd.Series) -> NDArray:
        """Return columns that hold the donors of cells, shape ``(n_cells, n_blocks - 1)``.

        Their effects sum to zero over the donors, so that cells of another donor are taken to be
        of an average one.
        """
        codes = pd.Index(self.blocks).get_indexer(np.asarray(donors))
        effects = np.vstack([np.eye(len(self.blocks)), np.zeros(len(self.blocks))])
        return (effects[:, :-1] - effects[:, [-1]])[codes]


def read_design(
    obs: pd.DataFrame,
    treatment_key: str,
    levels: Sequence[object],
    *,
    cluster_key: str | None,
    categorical: list[str],
    continuous: list[str],
) -> DonorDesign:
    """Look how the levels of a treatment are spread over donors or samples.

    Parameters
    ----------
    obs
        Table of the cells.
    treatment_key
        Column with the treatment.
    levels
        Its levels, the reference first.
    cluster_key
        Column with the donors, if they are known.
    categorical, continuous
        Columns with covariates.
    """
    arm = pd.Categorical(obs[treatment_key], categories=levels).codes
    pairs = [f"{level} v. {levels[0]}" for level in levels[1:]]
    if cluster_key is None:
        keys = [_crossed(obs[categorical], arm, i) for i in range(1, len(levels))]
        kinds = [SAMPLES if found else UNKNOWN for found in keys]
        said = [_without_donors(found) for found in keys]
        return DonorDesign(kinds, _joined(pairs, said), [], [])
    donors = np.asarray(obs[cluster_key])
    sizes = pd.crosstab(donors, arm)
    found = [_compare(sizes[[0, i]], cluster_key) for i in range(1, len(levels))]
    kinds, said = ([each[at] for each in found] for at in (0, 1))
    if set(kinds) != {WITHIN}:
        return DonorDesign(kinds, _joined(pairs, said), [], [])
    varies = obs[[*categorical, *continuous]].groupby(donors).nunique().max() > 1
    held = varies.index[~varies].tolist()
    return DonorDesign(kinds, _joined(pairs, said), sizes.index.tolist(), held)


def _joined(pairs: list[str], said: list[str]) -> list[str]:
    return [f"{pair}: {text}" for pair, text in zip(pairs, said, strict=True)]


def _compare(sizes: pd.DataFrame, key: str) -> tuple[str, str]:
    """Return the kind of one comparison, by the cells of the donors in both arms, and why."""
    holds_both = (sizes >= MIN_CELLS).all(axis=1)
    n_both, n_donors = int(holds_both.sum()), int((sizes.sum(axis=1) > 0).sum())
    share = float((sizes[holds_both].sum() / sizes.sum()).min())
    if n_both >= MIN_DONORS and share >= MIN_SHARE:
        return (
            WITHIN,
            f"compared within donors: {n_both} of the {n_donors} of {key!r} hold both arms",
        )
    if n_both == 0:
        own = (sizes > 0).sum().to_list()
        return BETWEEN, (
            f"compared between donors: none of {key!r} holds both arms ({own[1]} v. {own[0]})"
        )
    return BETWEEN, (
        f"compared between donors: only {n_both} of the {n_donors} of {key!r} hold both arms, "
        f"with {share:.0%} of the cells of one of them"
    )


def _crossed(obs: pd.DataFrame, arm: NDArray, level: int) -> list[str]:
    """Return the columns of which every level holds an arm and the reference."""
    rows = (arm == 0) | (arm == level)
    tables = {key: pd.crosstab(np.asarray(obs[key])[rows], arm[rows]) for key in obs}
    return [key for key, table in tables.items() if (table > 0).all(axis=None)]


def _without_donors(crossed: list[str]) -> str:
    where = f"every level of {crossed} holds both arms" if crossed else "no samples are named"
    return f"cells count as independent, as `cluster_key` names no donors; {where}"
