"""Pairs of datasets of which one is taken not to have measured some genes; the truth is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.data import read

__all__ = ["SETS", "Hidden", "hidden"]

N_CELLS, N_GENES = 3000, 750
"""Cells and genes that are drawn: two thirds of the genes vary, the others have high means."""
FEWEST_COUNTS = 10
"""Counts of a cell that is kept, at least."""
TYPE_CELLS = 20
"""Cells of a type that has markers, at least."""


class Hiding(NamedTuple):
    """Which genes a dataset is taken not to have measured.

    Attributes
    ----------
    share
        Share of the genes that the second dataset misses, drawn at random.
    share_of_first
        Share that the first one misses, others than these.
    panel
        The second one measured only so many, drawn by the root of their mean.
    markers
        The second one misses so many markers of every type.
    """

    share: float = 0.0
    share_of_first: float = 0.0
    panel: int = 0
    markers: int = 0


class Source(NamedTuple):
    """Where a set comes from.

    Attributes
    ----------
    file, about
        A file that has to be there, and the set in words.
    make
        Returns cells with ``obs["second"]`` (bool) and ``obs["type"]``.
    hiding
        What is hidden.
    n_cells, n_genes
        Cells and genes that are drawn, at most.
    """

    file: str
    about: str
    make: Callable[[], AnnData]
    hiding: Hiding
    n_cells: int = N_CELLS
    n_genes: int | None = N_GENES


@dataclass(frozen=True)
class Hidden:
    """Counts of two datasets and what they are taken to have measured.

    Attributes
    ----------
    x
        Counts of all genes, with the hidden truth, shape ``(n_cells, n_genes)``, float32.
    second
        Whether a cell is of the second dataset.
    measured
        Shape ``(2, n_genes)``.
    labels
        Type of each cell.
    genes
        Names.
    """

    x: NDArray
    second: NDArray
    measured: NDArray
    labels: NDArray
    genes: NDArray

    @property
    def shared(self) -> NDArray:
        """Genes that both measured."""
        return self.measured.all(0)

    @property
    def asked(self) -> NDArray:
        """Numbers of the genes that only the first dataset measured."""
        return np.flatnonzero(self.measured[0] & ~self.measured[1])

    def adata(self) -> AnnData:
        """Return what a user has: hidden counts are 0, and a table says what was measured."""
        batch = np.array(["first", "second"])[self.second.astype(int)]
        obs = pd.DataFrame({"batch": batch, "type": self.labels})
        adata = AnnData(sp.csr_matrix(self.x * self.measured[self.second.astype(int)]), obs)
        adata.obs_names = [f"cell {i}" for i in range(len(obs))]
        adata.var_names = self.genes
        adata.varm["measured"] = pd.DataFrame(
            self.measured.T, adata.var_names, ["first", "second"]
        )
        return adata


def kang(*, treated: bool) -> AnnData:
    """Return controls and stimulated cells, or the controls of two times four donors."""
    adata = read("kang_ifnb_pbmc")
    adata.obs["type"] = adata.obs["cell_type"]
    if treated:
        adata.obs["second"] = adata.obs["stim"] == "stim"
        return adata
    adata = adata[adata.obs["stim"] == "ctrl"].copy()
    first = np.unique(adata.obs["donor"])[:4]
    adata.obs["second"] = ~adata.obs["donor"].isin(first)
    return adata


def studies(first: str, second: str) -> AnnData:
    parts = [read(first), read(second)]
    genes = parts[0].var_names.intersection(parts[1].var_names)
    cut = [part[:, genes] for part in parts]
    adata = ad.concat(cut, label="study", keys=["0", "1"], index_unique="-")
    adata.obs["second"] = adata.obs["study"] == "1"
    adata.obs["type"] = adata.obs["cell_type_coarse"]
    return adata


def cellbench() -> AnnData:
    adata = read("integration_cellbench")
    wanted = ["celseq2_3cl", "dropseq_3cl", "celseq2_5cl_p3"]
    adata = adata[adata.obs["batch"].isin(wanted)].copy()
    adata.obs["second"] = adata.obs["batch"] == "dropseq_3cl"
    adata.obs["type"] = adata.obs["cell_line"]
    return adata


def starmap() -> AnnData:
    adata = read("spatial_starmap_mpfc")
    adata = adata[adata.obs["batch"].isin(["batch_0", "batch_1"])].copy()
    adata.obs["second"] = adata.obs["batch"] == "batch_1"
    adata.obs["type"] = adata.obs["cell_type"]
    return adata


def osmfish() -> AnnData:
    adata = read("spatial_osmfish_cortex")
    adata.obs["second"] = np.random.default_rng(9).random(adata.n_obs) < 0.5
    adata.obs["type"] = adata.obs["cell_type"]
    return adata


PBMC3K, ZHENG, HAO = "deconv_ref_pbmc3k", "deconv_ref_zheng_sorted_pbmc", "deconv_ref_hao_pbmc"
KANG = "kang_ifnb_pbmc"
MANY = Hiding(share=0.4)
SETS = {
    "donors": Source(
        KANG, "blood, four donors to four others", lambda: kang(treated=False), MANY, 2500
    ),
    "treatment": Source(
        KANG, "blood, controls to stimulated", lambda: kang(treated=True), MANY, 2500
    ),
    "studies": Source(
        PBMC3K, "blood, pbmc3k to sorted cells of Zheng", lambda: studies(PBMC3K, ZHENG), MANY
    ),
    "chemistry": Source(
        "integration_cellbench", "cell lines, CEL-seq2 to Drop-seq", cellbench, MANY
    ),
    "panel": Source(
        KANG,
        "donors, only 100 genes measured",
        lambda: kang(treated=False),
        Hiding(panel=100),
        2500,
    ),
    "markers": Source(
        KANG,
        "donors, 25 markers of every type hidden",
        lambda: kang(treated=False),
        Hiding(markers=25),
        2500,
    ),
    "technologies": Source(
        HAO, "blood, Hao to sorted cells of Zheng", lambda: studies(HAO, ZHENG), MANY
    ),
    "mosaic": Source(
        KANG,
        "treatment, each misses 30 %",
        lambda: kang(treated=True),
        Hiding(share=0.3, share_of_first=0.3),
        2500,
    ),
    "starmap": Source(
        "spatial_starmap_mpfc", "cortex, 158 genes, two sections", starmap, MANY, n_genes=None
    ),
    "osmfish": Source(
        "spatial_osmfish_cortex", "cortex, 33 genes, halves at random", osmfish, MANY, n_genes=None
    ),
}


@lru_cache(maxsize=1)
def hidden(name: str, seed: int) -> Hidden:
    """Draw cells and genes of a set, and hide some of its counts."""
    source = SETS[name]
    rng = np.random.default_rng(seed)
    adata = source.make()
    adata = adata[np.sort(rng.permutation(adata.n_obs)[: source.n_cells])].copy()
    sc.pp.filter_genes(adata, min_cells=max(10, int(0.01 * adata.n_obs)))
    if source.n_genes is not None and source.n_genes < adata.n_vars:
        adata = adata[:, _chosen(adata, source.n_genes)].copy()
    x = sp.csr_matrix(adata.X).toarray().astype(np.float32)
    kept = x.sum(1) > FEWEST_COUNTS
    x, obs = x[kept], adata.obs[kept]
    labels = obs["type"].astype(str).to_numpy()
    measured = _measured(x, labels, source.hiding, rng)
    genes = adata.var_names.astype(str).to_numpy()
    return Hidden(x, obs["second"].to_numpy(bool), measured, labels, genes)


def _chosen(adata: AnnData, n: int) -> NDArray:
    """Choose genes that vary within the datasets, and those with the highest means of the rest."""
    logs = adata.copy()
    logs.obs["second"] = pd.Categorical(logs.obs["second"].astype(str))
    sc.pp.normalize_total(logs, target_sum=1e4)
    sc.pp.log1p(logs)
    sc.pp.highly_variable_genes(logs, n_top_genes=2 * n // 3, batch_key="second")
    chosen = logs.var["highly_variable"].to_numpy()
    means = np.where(chosen, -1, np.asarray(logs.X.mean(0)).ravel())
    chosen[np.argsort(-means, kind="stable")[: n - chosen.sum()]] = True
    return chosen


def _measured(x: NDArray, labels: NDArray, hiding: Hiding, rng: np.random.Generator) -> NDArray:
    n_genes = x.shape[1]
    measured = np.ones((2, n_genes), bool)
    if hiding.markers:
        measured[1, _markers(x, labels, hiding.markers)] = False
    elif hiding.panel:
        root = np.sqrt(x.mean(0))
        weights = 0.5 * root / root.sum() + 0.5 / n_genes
        measured[1] = False
        measured[1, rng.choice(n_genes, hiding.panel, replace=False, p=weights)] = True
    else:
        order = rng.permutation(n_genes)
        end = int(hiding.share * n_genes)
        end_of_first = int((hiding.share + hiding.share_of_first) * n_genes)
        measured[1, order[:end]] = False
        measured[0, order[end:end_of_first]] = False
    return measured


def _markers(x: NDArray, labels: NDArray, n: int) -> NDArray:
    """Return the genes whose mean in a type is furthest above that in every other."""
    logs = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    types = [t for t in np.unique(labels) if (labels == t).sum() > TYPE_CELLS]
    means = np.stack([logs[labels == t].mean(0) for t in types])
    lead = [means[k] - np.delete(means, k, 0).max(0) for k in range(len(types))]
    return np.unique(np.argsort(-np.array(lead), axis=1, kind="stable")[:, :n])
