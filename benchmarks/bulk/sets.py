"""Data of the benchmark of deconvolution: a reference, bulks, and what was measured of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.data import read

__all__ = [
    "CELLBENCH",
    "CELL_MIX",
    "COARSE",
    "FILES",
    "KANG",
    "RNA_MIX",
    "Case",
    "annotated",
    "blood",
    "fractions",
    "hao",
    "newman",
    "words",
]

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
