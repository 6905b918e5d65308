"""Ordinary experiments: one type of cells at a time, donors with cells in both arms."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.confounder.cases import KANG, N_CELLS, N_DONOR_GENES, Case, Columns, drawn, load
from benchmarks.confounder.cases import MIN_DETECTED as DETECTED
from benchmarks.confounder.pseudobulk import fit_samples
from scovert.simulate import hidden_covariate

__all__ = [
    "KANG_TYPES",
    "STRENGTHS",
    "all_types",
    "hidden_in_donors",
    "one_type",
    "without_effect",
]

KANG_TYPES = {  # as in the file, and variable genes: fewer for few cells
    "NK": ("NK cells", 1000),
    "CD8": ("CD8+ T cells", 1000),
    "T": ("T", 1000),
    "B": ("B", 1000),
    "DC": ("DC", 1000),
    "CD16": ("CD16+ Monocytes", 1000),
    "CD4": ("CD4+ T cells", 2000),
    "CD14": ("CD14+ Monocytes", 2000),
}
STRENGTHS = (0.0, 0.15, 0.3, 0.5, 0.7, 1.0)  # standard deviation of log odds over hidden types
UNCHANGED_P = 0.2  # p-value by pseudobulk from which a gene counts as one without effect
N_ALL_GENES = 2000


def one_type(_: int, name: str) -> Case:
    """All cells of a type, with and without interferon beta, of eight donors."""
    label, n_genes = KANG_TYPES[name]
    adata = load(KANG)
    return _stimulated(adata[(adata.obs["cell_type"] == label).to_numpy()], n_genes)


def all_types(_: int, *, is_known: bool) -> Case:
    """All cells of all types, whose type is a covariate or hidden."""
    case = _stimulated(load(KANG), N_ALL_GENES)
    columns = Columns(("cell_type",))
    return Case(
        case.adata,
        known=columns if is_known else Columns(),
        hidden=Columns() if is_known else columns,
        cluster_key="donor",
    )


def _stimulated(adata: AnnData, n_genes: int) -> Case:
    part = adata.copy()
    sc.experimental.pp.highly_variable_genes(part, n_top_genes=n_genes)
    part = part[:, part.var["highly_variable"].to_numpy()].copy()
    part.var = part.var[[]]
    part.obs["size_factor"] *= _composition(part)
    part.obs["size_factor"] /= part.obs["size_factor"].mean()
    part.obs["treatment"] = (part.obs["stim"] == "stim").to_numpy()
    return Case(part, cluster_key="donor")


def _composition(adata: AnnData) -> NDArray:
    """Return by how much the median gene of a cell's sample exceeds what totals make it.

    Interferon beta makes monocytes express a few genes so strongly that all others lose half a
    doubling of their share of the total: pydeseq2 scales by the median of ratios, and so do we.
    """
    codes = adata.obs.groupby(["donor", "stim"], observed=True).ngroup().to_numpy()
    member = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    counts = (member @ adata.X).toarray()
    totals = member @ adata.obs["size_factor"].to_numpy()
    share = np.log(counts[:, (counts > 0).all(0)] / totals[:, None])
    return np.exp(np.median(share - share.mean(0), axis=1))[codes]


def without_effect(seed: int, name: str, kind: Literal["halved", "swapped"]) -> Case:
    """Cells of a type with a treatment that did nothing, at least to the genes without truth.

    ``"halved"``: the untreated cells of every donor are split at random. ``"swapped"``: the arms
    of half of the donors are exchanged, so that samples differ as they do; genes that pseudobulk
    finds to respond are marked, as their effects need not cancel.
    """
    rng, case = np.random.default_rng(seed), one_type(seed, name)
    donors = np.unique(case.adata.obs["donor"].astype(str))
    if kind == "halved":
        part = case.adata[~case.adata.obs["treatment"].to_numpy()].copy()
        order = pd.Series(rng.permutation(part.n_obs), part.obs_names)
        rank = order.groupby(part.obs["donor"].to_numpy()).rank()
        part.obs["treatment"] = (rank % 2 == 0).to_numpy()
        part.var["truth_log2_fc"] = 0.0
        return Case(part, cluster_key="donor")
    real, _ = fit_samples(case)
    swapped = case.adata.obs["donor"].isin(rng.permutation(donors)[: len(donors) // 2])
    case.adata.obs["treatment"] ^= swapped.to_numpy()
    is_unchanged = (real["p_value"] > UNCHANGED_P) | real["p_value"].isna()
    case.adata.var["truth_log2_fc"] = real["log2_fc"].where(~is_unchanged, 0.0).fillna(0.0)
    return case


def hidden_in_donors(seed: int, strength: float) -> Case:
    """Unstimulated PBMC whose types are hidden; treated cell by cell, in all donors."""
    rng, adata = np.random.default_rng(seed), load(KANG)
    unstimulated = np.flatnonzero(adata.obs["stim"] == "ctrl")
    cells = np.sort(rng.choice(unstimulated, N_CELLS, replace=False))
    part = drawn(adata, cells, N_DONOR_GENES, rng, DETECTED)
    options = {"effect_fraction": 0.1, "seed": rng.integers(2**31)}
    fake = hidden_covariate(part, "cell_type", strength=strength, **options)
    return Case(fake, hidden=Columns(("cell_type",)), cluster_key="donor")
