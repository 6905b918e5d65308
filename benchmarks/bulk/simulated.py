"""Mixtures of real cells with known fractions; the cells that are mixed are not in the reference.

Counts are added, so the types keep the RNA content that the reference knows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

__all__ = ["SETTINGS", "Mixed", "mixtures_of"]

N_BULKS, N_CELLS, DEPTH = 20, 500, 1e7
LIKE_BLOOD = {
    "Monocytes": 0.20,
    "T cells CD4 conv": 0.33,
    "T cells CD8": 0.18,
    "NK cells": 0.12,
    "B cells": 0.08,
    "Tregs": 0.02,
    "mDC": 0.02,
    "Platelet": 0.02,
    "pDC": 0.008,
    "Plasma cells": 0.01,
    "ILC": 0.004,
}
CONCENTRATION = 25


class Setting(NamedTuple):
    """How bulks are mixed, and what the reference lacks.

    Attributes
    ----------
    about
        In words.
    seed
        Added to the seed of the run.
    is_like_blood
        Fractions around those of blood, with rare types; otherwise uniform on the simplex.
    shift, jitter, noise
        Standard deviation of log factors by gene, by gene and type, by gene and bulk.
    missing
        Type without cells in the reference.
    """

    about: str
    seed: int
    is_like_blood: bool = False
    shift: float = 0.0
    jitter: float = 0.0
    noise: float = 0.0
    missing: str | None = None


SETTINGS = {
    "A": Setting("uniform fractions", 11),
    "B": Setting("like blood, rare types", 12, True),
    "C": Setting("uniform, gene shift .8", 13, shift=0.8, noise=0.1),
    "D": Setting("like blood, gene shift .8, jitter .3 by type", 14, True, 0.8, 0.3, 0.1),
    "E": Setting("uniform, no monocytes in the reference", 15, missing="Monocytes"),
    "F": Setting(
        "like blood, gene shift .8, no monocytes in the reference",
        16,
        True,
        shift=0.8,
        noise=0.1,
        missing="Monocytes",
    ),
}


class Mixed(NamedTuple):
    """Reference, bulks, and their fractions of the types that the reference has."""

    reference: AnnData
    bulk: AnnData
    truth: pd.DataFrame


def mixtures_of(cells: AnnData, setting: str, seed: int) -> Mixed:
    """Split the cells by type in two halves: a reference, and what is mixed.

    Parameters
    ----------
    cells
        Counts with ``obs["cell_type"]``.
    setting
        Name in `SETTINGS`.
    seed
        Seed.
    """
    how = SETTINGS[setting]
    labels = cells.obs["cell_type"].to_numpy(str)
    is_reference = half_of_each(labels, np.random.default_rng(seed))
    held_out = sp.csr_matrix(cells.X)[~is_reference].toarray().astype(float)
    bulk, truth = _mix(
        held_out, labels[~is_reference], how, np.random.default_rng(how.seed + seed)
    )
    bulk = AnnData(
        bulk, obs=pd.DataFrame(index=truth.index), var=pd.DataFrame(index=cells.var_names)
    )
    if how.missing is not None:
        is_reference &= labels != how.missing
        truth = truth.drop(columns=how.missing)
    return Mixed(cells[is_reference].copy(), bulk, truth)


def half_of_each(labels: NDArray, rng: np.random.Generator) -> NDArray:
    chosen = np.zeros(len(labels), bool)
    for name in np.unique(labels):
        rows = np.flatnonzero(labels == name)
        rng.shuffle(rows)
        chosen[rows[: (len(rows) + 1) // 2]] = True
    return chosen


def _mix(
    counts: NDArray, labels: NDArray, how: Setting, rng: np.random.Generator
) -> tuple[NDArray, pd.DataFrame]:
    types, n_genes = np.unique(labels), counts.shape[1]
    n = np.stack([rng.multinomial(N_CELLS, p) for p in _drawn_fractions(types, how, rng)])
    shift = np.exp(rng.normal(0, how.shift, n_genes))
    jitter = np.exp(rng.normal(0, how.jitter, (len(types), n_genes)))
    bulk = np.zeros((N_BULKS, n_genes))
    for b in range(N_BULKS):
        for k, name in enumerate(types):
            if n[b, k]:
                cells = rng.choice(np.flatnonzero(labels == name), n[b, k])
                bulk[b] += counts[cells].sum(0) * jitter[k]
        rate = bulk[b] * shift * np.exp(rng.normal(0, how.noise, n_genes))
        bulk[b] = rng.poisson(rate / rate.sum() * DEPTH)
    samples = [f"bulk_{b}" for b in range(N_BULKS)]
    return bulk, pd.DataFrame(n / N_CELLS, samples, types)


def _drawn_fractions(types: NDArray, how: Setting, rng: np.random.Generator) -> NDArray:
    if not how.is_like_blood:
        return rng.dirichlet(np.ones(len(types)), N_BULKS)
    base = np.array([LIKE_BLOOD[name] for name in types])
    return rng.dirichlet(base / base.sum() * CONCENTRATION, N_BULKS)
