"""Mixtures that are made or were pipetted: donors, cell lines, held-out cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.bulk.sets import (
    CELL_MIX,
    CELLBENCH,
    COARSE,
    KANG,
    RNA_MIX,
    Case,
    annotated,
    fractions,
    hao,
    words,
)
from benchmarks.bulk.simulated import mixtures_of
from benchmarks.data import read

__all__ = ["cell_lines", "kang", "kang_controls", "simulated"]

HAO_COARSE = {
    "T cells CD4 conv": "CD4 T",
    "Tregs": "CD4 T",
    "T cells CD8": "CD8 T",
    "NK cells": "NK",
    "ILC": "NK",
    "B cells": "B",
    "Plasma cells": "Plasma",
    "Monocytes": "Monocyte",
    "mDC": "DC",
    "pDC": "DC",
    "Platelet": "Platelet",
}
LINES = {"H1975": "frac_h1975", "H2228": "frac_h2228", "HCC827": "frac_hcc827"}
MIN_WELLS = 5  # with nine cells, of a mixture that is kept

REFERENCE_DONORS = ("donor_1015", "donor_1256", "donor_1016", "donor_101")
MAX_DONOR_CELLS, N_MIXED, N_REPLICATES = 400, 400, 3
BASE, CONCENTRATION = np.array([0.10, 0.34, 0.12, 0.04, 0.28, 0.12]), 15  # in the order of COARSE
SHIFT, DEPTH = 0.7, 1e7


def kang(seed: int, *, is_shifted: bool = True) -> Case:
    """Pseudobulks of four donors, controls and stimulated; reference: controls of four others."""
    adata, rng = read(KANG), np.random.default_rng(seed)
    labels, donors, arms = (words(adata, k) for k in ("cell_type_coarse", "donor", "stim"))
    counts = sp.csr_matrix(adata.X)
    is_reference = np.isin(labels, COARSE) & np.isin(donors, REFERENCE_DONORS) & (arms == "ctrl")
    rows = np.flatnonzero(is_reference)
    rows = [rng.permutation(rows[labels[rows] == t])[:MAX_DONOR_CELLS] for t in COARSE]
    rows = np.concatenate(rows)
    samples, values, truth, profiles = [], [], [], {}
    for donor in sorted(set(donors) - set(REFERENCE_DONORS)):
        for arm in ("ctrl", "stim"):
            of_type = [
                np.flatnonzero((labels == t) & (donors == donor) & (arms == arm)) for t in COARSE
            ]
            for replicate in range(N_REPLICATES):
                mixed, n = mix_cells(counts, of_type, rng)
                samples.append((f"{donor}_{arm}_{replicate}", donor, arm))
                values.append(mixed)
                truth.append(n / n.sum())
            for t, cells in zip(COARSE, of_type, strict=True):
                profiles.setdefault((arm, t), []).append(total(counts, cells))
    obs = pd.DataFrame(samples, columns=["sample", "donor", "condition"]).set_index("sample")
    values = shifted(np.array(values), rng) if is_shifted else np.array(values)
    return Case(
        annotated(adata[rows], labels[rows], donors[rows]),
        AnnData(values, obs=obs, var=pd.DataFrame(index=adata.var_names)),
        pd.DataFrame(truth, obs.index, COARSE),
        {t: [t] for t in COARSE},
        "counts",
        cell_size="reference",
        has_subjects=True,
        profiles={k: np.sum(v, axis=0) for k, v in profiles.items()},
    )


def total(counts: sp.csr_matrix, rows: NDArray) -> NDArray:
    return np.asarray(counts[rows].sum(0)).ravel()


def mix_cells(
    counts: sp.csr_matrix, of_type: list[NDArray], rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Sum of cells drawn by type, and how many of each; none of a type without cells."""
    n = rng.multinomial(N_MIXED, rng.dirichlet(BASE * CONCENTRATION))
    mixed = np.zeros(counts.shape[1])
    for k, cells in enumerate(of_type):
        if n[k] and len(cells):
            mixed += total(counts, rng.choice(cells, n[k]))
    return mixed, np.where([len(cells) > 0 for cells in of_type], n, 0)


def shifted(values: NDArray, rng: np.random.Generator) -> NDArray:
    """Another platform: a factor for each gene, and Poisson counts."""
    rate = values * np.exp(rng.normal(0, SHIFT, values.shape[1]))
    rate *= DEPTH / rate.sum(1, keepdims=True)
    return np.stack([rng.poisson(row) for row in rate]).astype(float)


def kang_controls(seed: int) -> Case:
    """Control pseudobulks as they were counted; another study and chemistry for reference."""
    case, (cells, has_subjects) = kang(seed, is_shifted=False), hao(HAO_COARSE)
    bulk = case.bulk[(case.bulk.obs["condition"] == "ctrl").to_numpy()].copy()
    truth = case.truth.loc[bulk.obs_names]
    groups = {t: [t] for t in COARSE}
    return Case(cells, bulk, truth, groups, "counts", "reference", has_subjects)


def cell_lines(seed: int, *, what: str, batch: str) -> Case:
    """Mixtures of three cell lines, as cells or as RNA; one batch of single cells."""
    adata = read(CELLBENCH)
    kept = (words(adata, "batch") == batch) & np.isin(words(adata, "cell_line"), list(LINES))
    adata = adata[kept].copy()
    subjects = np.random.default_rng(seed).integers(0, 3, adata.n_obs).astype(str)
    cells = annotated(adata, words(adata, "cell_line"), subjects)
    bulk, truth = nine_cells() if what == "cells" else rna()
    size = "reference" if what == "cells" else "none"
    return Case(cells, bulk, truth, {line: [line] for line in LINES}, "counts", size)


def nine_cells() -> tuple[AnnData, pd.DataFrame]:
    """Wells with nine cells, summed by batch and mixture."""
    adata = read(CELL_MIX)
    truth = fractions(adata, LINES)
    key = words(adata, "batch") + "|" + truth.round(3).astype(str).agg("/".join, axis=1)
    key = key[(adata.obs["n_cells"] == 9).to_numpy()]
    key = key[key.groupby(key).transform("size") >= MIN_WELLS]
    return summed(adata[key.index], key), truth.loc[key.index].groupby(key).first()


def rna() -> tuple[AnnData, pd.DataFrame]:
    """Wells summed by mixture and amount of RNA."""
    adata = read(RNA_MIX)
    key = adata.obs["mix"].astype(str) + "|" + adata.obs["mrna_amount_pg"].astype(str)
    return summed(adata, key), fractions(adata, LINES).groupby(key).first()


def summed(adata: AnnData, key: pd.Series) -> AnnData:
    values = pd.DataFrame(adata.X.toarray(), adata.obs_names, adata.var_names)
    values = values.groupby(key).sum().astype(float)
    values.index.name = None
    return AnnData(values)


def simulated(seed: int, *, setting: str) -> Case:
    """Mixtures of one half of the cells, with the other half as reference."""
    cells, _ = hao()
    mixed = mixtures_of(cells, setting, seed)
    groups = {t: [t] for t in mixed.truth}
    return Case(mixed.reference, mixed.bulk, mixed.truth, groups, "counts", "reference", True)
