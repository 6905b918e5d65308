"""Data of the benchmark of deconvolution: a reference, bulks, and what was measured of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from _deconvolution_simulated import mixtures_of
from anndata import AnnData, read_h5ad
from numpy.typing import NDArray

__all__ = [
    "DATA",
    "Case",
    "blood",
    "cell_lines",
    "kang",
    "kang_controls",
    "missing_file",
    "newman",
    "simulated",
]

DATA = Path(
    os.environ.get("SCOVERT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
HAO, KANG, NEWMAN = "deconv_ref_hao_pbmc", "kang_ifnb_pbmc", "deconv_ref_wholeblood_newman"
PBMC3K, ZHENG = "deconv_ref_pbmc3k", "deconv_ref_zheng_sorted_pbmc"
HOEK, FINOTELLO = "deconv_bulk_hoek_pbmc_tpm", "deconv_bulk_finotello_pbmc"
NEWMAN_BULK = "deconv_bulk_newman_wholeblood_tpm"
CELL_MIX, RNA_MIX = "deconv_cellmix_9cell", "deconv_rnamix_celseq2"
CELLBENCH = "integration_cellbench"
FILES = (
    *(HAO, KANG, NEWMAN, PBMC3K, ZHENG, HOEK, FINOTELLO, NEWMAN_BULK),
    *(CELL_MIX, RNA_MIX, CELLBENCH),
)

MAX_CELLS = 300  # of a type, in a reference
COARSE = ("B", "CD4 T", "CD8 T", "DC", "Monocyte", "NK")
HAO_GROUPS = {
    "T": ["T cells CD4 conv", "T cells CD8", "Tregs"],
    "CD4": ["T cells CD4 conv", "Tregs"],
    "CD8": ["T cells CD8"],
    "NK": ["NK cells", "ILC"],
    "B": ["B cells", "Plasma cells"],
    "Mono": ["Monocytes"],
    "DC": ["mDC", "pDC"],
}
COARSE_GROUPS = {
    "T": ["CD4 T", "CD8 T"],
    "CD4": ["CD4 T"],
    "CD8": ["CD8 T"],
    "NK": ["NK"],
    "B": ["B"],
    "Mono": ["Monocyte"],
    "DC": ["DC"],
}
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
HOEK_TRUTH = {
    "T": "frac_t",
    "Mono": "frac_monocyte",
    "B": "frac_b",
    "DC": "frac_dc",
    "NK": "frac_nk",
}
FINOTELLO_TRUTH = {
    "CD4": "frac_cd4_t",
    "CD8": "frac_cd8_t",
    "NK": "frac_nk",
    "B": "frac_b",
    "Mono": "frac_monocyte",
    "DC": "frac_mdc",
}
NEWMAN_TRUTH = {
    "Neutrophil": "frac_neutrophil",
    "Monocyte": "frac_monocyte",
    "CD8 T": "frac_cd8_t",
    "CD4 T": "frac_cd4_t",
    "B": "frac_b",
    "NK": "frac_nk",
}
LINES = {"H1975": "frac_h1975", "H2228": "frac_h2228", "HCC827": "frac_hcc827"}
MIN_WELLS = 5  # with nine cells, of a mixture that is kept

REFERENCE_DONORS = ("donor_1015", "donor_1256", "donor_1016", "donor_101")
MAX_DONOR_CELLS, N_MIXED, N_REPLICATES = 400, 400, 3
BASE, CONCENTRATION = np.array([0.10, 0.34, 0.12, 0.04, 0.28, 0.12]), 15  # in the order of COARSE
SHIFT, DEPTH = 0.7, 1e7


@dataclass
class Case:
    """Bulks, a reference, and the fractions that are known.

    Attributes
    ----------
    reference
        Counts; ``obs["cell_type"]``; ``obs["subject"]``, drawn at random where none are known.
    bulk
        Samples x genes; ``obs["condition"]`` if there are conditions.
    truth
        Known fractions, samples x groups of types.
    groups
        Types of the reference that make a column of `truth`.
    kind
        What `bulk` holds: ``"counts"`` or ``"tpm"``.
    cell_size
        Argument of ``deconvolve``: the truth counts cells, molecules or RNA.
    has_subjects
        Whether the subjects are known.
    profiles
        Mean counts of the cells that were mixed, by condition and type.
    """

    reference: AnnData
    bulk: AnnData
    truth: pd.DataFrame
    groups: dict[str, list[str]]
    kind: str
    cell_size: str = "auto"
    has_subjects: bool = False
    profiles: dict[tuple[str, str], NDArray] = field(default_factory=dict)


class Reference(NamedTuple):
    """Annotated cells, and whether their subjects are known."""

    adata: AnnData
    has_subjects: bool


def read(file: str) -> AnnData:
    return read_h5ad(DATA / f"{file}.h5ad")


def annotated(adata: AnnData, labels: NDArray, subjects: NDArray) -> AnnData:
    """Keep the counts, the labels and the subjects."""
    obs = pd.DataFrame({"cell_type": labels, "subject": subjects}, adata.obs_names)
    counts = sp.csr_matrix(adata.X)
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=adata.var_names))


def words(adata: AnnData, key: str) -> NDArray:
    return np.asarray(adata.obs[key]).astype(str)


def capped(labels: NDArray, rows: NDArray, rng: np.random.Generator) -> NDArray:
    """At most so many rows of a type, sorted."""
    types = np.unique(labels[rows])
    kept = [rng.permutation(rows[labels[rows] == t])[:MAX_CELLS] for t in types]
    return np.sort(np.concatenate(kept))


@lru_cache(maxsize=1)
def references() -> dict[str, Reference]:
    """Five references of blood; one generator draws the cells of four of them in turn."""
    found, rng = {}, np.random.default_rng(0)
    for name, file in {"Hao": HAO, "pbmc3k": PBMC3K, "Zheng": ZHENG, "Kang": KANG}.items():
        adata = read(file)
        adata = adata[words(adata, "stim") == "ctrl"].copy() if name == "Kang" else adata
        labels = words(adata, "cell_type_coarse")
        rows = capped(labels, np.flatnonzero(np.isin(labels, (*COARSE, "Platelet"))), rng)
        if name == "Hao":
            found[name] = hao()
            continue
        kept, known = adata[rows], name == "Kang"
        subjects = words(kept, "donor") if known else rng.integers(0, 3, len(rows)).astype(str)
        found[name] = Reference(annotated(kept, labels[rows], subjects), known)
    found["Newman, 10x"] = newman_10x()
    return found


def hao(names: dict[str, str] | None = None) -> Reference:
    """All cells; lanes stand for subjects."""
    adata = read(HAO)
    labels = pd.Series(words(adata, "cell_type")).replace(names or {}).to_numpy()
    return Reference(annotated(adata, labels, words(adata, "lane")), True)


def newman_10x() -> Reference:
    adata, rng = read(NEWMAN), np.random.default_rng(0)
    adata = adata[words(adata, "source") == "pbmc_10x"].copy()
    labels = words(adata, "cell_type")
    rows = capped(labels, np.arange(adata.n_obs), rng)
    subjects = rng.integers(0, 3, len(rows)).astype(str)
    return Reference(annotated(adata[rows], labels[rows], subjects), False)


def bulk_of(adata: AnnData, values: NDArray | None = None) -> AnnData:
    values = adata.X if values is None else values
    values = values.toarray() if sp.issparse(values) else np.asarray(values)
    index = pd.DataFrame(index=adata.obs_names)
    return AnnData(values.astype(float), obs=index, var=pd.DataFrame(index=adata.var_names))


def fractions(adata: AnnData, columns: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({k: adata.obs[v].astype(float) for k, v in columns.items()})


@lru_cache(maxsize=1)
def bulks() -> dict[str, tuple[AnnData, str, pd.DataFrame]]:
    """Bulks of two studies, the kind of their values, and the measured fractions."""
    hoek, finotello = read(HOEK), read(FINOTELLO)
    finotello = finotello[finotello.obs["has_full_panel"].to_numpy(bool)].copy()
    truth = fractions(finotello, FINOTELLO_TRUTH)
    tpm = bulk_of(finotello, finotello.layers["tpm"])
    return {
        "hoek": (bulk_of(hoek), "tpm", fractions(hoek, HOEK_TRUTH)),
        "finotello TPM": (tpm, "tpm", truth),
        "finotello counts": (bulk_of(finotello), "counts", truth),
    }


def blood(seed: int, *, bulk: str, reference: str) -> Case:
    """Bulk of one study, reference of another."""
    del seed
    values, kind, truth = bulks()[bulk]
    cells, has_subjects = references()[reference]
    groups = HAO_GROUPS if reference == "Hao" else COARSE_GROUPS
    if reference == "Hao" and bulk != "hoek":
        groups = groups | {"DC": ["mDC"]}  # what was measured
    if reference in ("Zheng", "Newman, 10x"):
        truth = truth.drop(columns="DC")
    groups = {k: groups[k] for k in truth}
    return Case(cells, values, truth, groups, kind, has_subjects=has_subjects)


def newman(seed: int) -> Case:
    """Whole blood, with the reference of its authors."""
    del seed
    adata, bulk = read(NEWMAN), read(NEWMAN_BULK)
    subjects = np.random.default_rng(0).integers(0, 4, adata.n_obs).astype(str)
    cells = annotated(adata, words(adata, "cell_type"), subjects)
    truth = fractions(bulk, NEWMAN_TRUTH)
    return Case(cells, bulk_of(bulk), truth, {k: [k] for k in truth}, "tpm")


def kang(seed: int, *, is_shifted: bool = True) -> Case:
    """Pseudo-bulks of four donors, controls and stimulated; reference: controls of four others."""
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
    """Control pseudo-bulks as they were counted; another study and chemistry for reference."""
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


def missing_file() -> Path | None:
    """First file that is not there."""
    paths = [DATA / f"{file}.h5ad" for file in FILES]
    return next((path for path in paths if not path.exists()), None)
