"""The data of the integration benchmark: counts, batches, cell types and test cells."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData, concat
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.data import read
from scovert.data import pbmc68k, two_batches

__all__ = ["SCENARIOS", "Scenario", "prepared"]

KANG, CELLBENCH = "kang_ifnb_pbmc", "integration_cellbench"
STARMAP = "spatial_starmap_mpfc"
BLOOD = ("deconv_ref_hao_pbmc", "deconv_ref_zheng_sorted_pbmc", "deconv_ref_pbmc3k")
MAX_GENES = 1000


def kang() -> AnnData:
    return _relabelled(KANG, "stim", "cell_type")


def kang_part(name: str) -> AnnData:
    """One of several sets of cells, drawn one after the other with one generator."""
    adata = kang()
    stim, types = adata.obs["batch"].to_numpy(), adata.obs["cell_type"].to_numpy()
    is_ctrl = stim == "ctrl"
    rng = np.random.default_rng(7)

    def draw(mask: NDArray, n_cells: int) -> NDArray:
        return np.sort(rng.choice(np.flatnonzero(mask), n_cells, replace=False))

    rows = {
        "kang4k": draw(np.ones(adata.n_obs, bool), 4000),
        "k_near": draw(~(is_ctrl & (types == "CD16+ Monocytes")), 3000),
        "k_far": draw(~(is_ctrl & (types == "B")), 3000),
        "k_unbal": np.r_[draw(~is_ctrl, 2000), draw(is_ctrl, 200)],
        "k_null": draw(~is_ctrl, 2000),
    }
    part = adata[rows[name]].copy()
    if name == "k_null":
        part.obs["batch"] = np.where(rng.random(part.n_obs) < 0.5, "r1", "r2")
    return part


def kang_hard() -> AnnData:
    """Four of eight types missing from one side each, with close relatives on the other."""
    adata = kang()
    lacking = _cells_of(adata, "ctrl", "CD4+ T cells", "CD16+ Monocytes")
    lacking |= _cells_of(adata, "stim", "CD14+ Monocytes", "NK cells")
    return _drawn(adata, ~lacking, 3000, seed=11)


def kang_shallow() -> AnnData:
    """4,000 cells, of which the stimulated keep a tenth of their counts."""
    adata = kang_part("kang4k")
    counts = csr_matrix(adata.X)
    is_thinned = np.repeat(adata.obs["batch"] == "stim", np.diff(counts.indptr))
    depth = counts.data.astype(int)
    depth[is_thinned] = np.random.default_rng(0).binomial(depth[is_thinned], 0.1)
    counts.data = depth.astype(np.float32)
    counts.eliminate_zeros()
    adata.X = counts
    return adata


def kang_sizes() -> AnnData:
    """200 control cells and 7,000 stimulated ones."""
    adata = kang()
    is_stim = (adata.obs["batch"] == "stim").to_numpy()
    parts = [_drawn(adata, is_stim, 7000, seed=3), _drawn(adata, ~is_stim, 200, seed=3)]
    return concat(parts)


def cellbench_lacking() -> AnnData:
    """Three more batches lack a line each."""
    adata = cellbench()
    lacking = _cells_of(adata, "celseq2_5cl_p3", "A549")
    lacking |= _cells_of(adata, "dropseq_3cl", "HCC827")
    lacking |= _cells_of(adata, "celseq2_3cl", "H2228")
    return adata[~lacking].copy()


def pbmc4() -> AnnData:
    """4,000 cells of four studies of blood; platelets and dendritic cells are not in all."""
    parts = [_relabelled(file, None, "cell_type_coarse") for file in BLOOD]
    cells = read(KANG)
    control = cells[cells.obs["stim"].astype(str) == "ctrl"].copy()
    parts.append(_drawn(_labelled(control, KANG, "cell_type_coarse"), None, 2000, seed=0))
    adata = concat(parts, join="inner")
    adata.obs_names_make_unique()
    return _drawn(adata, ~adata.obs["cell_type"].isin(["ILC", "T other"]), 4000, seed=7)


def starmap() -> AnnData:
    """Three slices of cortex, 166 genes measured in place: little that tells types apart."""
    adata = _relabelled(STARMAP, "batch", "cell_type")
    return adata[~adata.obs["cell_type"].isin(["NA", "nan"])].copy()


def _cells_of(adata: AnnData, batch: str, *types: str) -> NDArray:
    return ((adata.obs["batch"] == batch) & adata.obs["cell_type"].isin(types)).to_numpy()


def _drawn(adata: AnnData, among: NDArray | None, n_cells: int, seed: int) -> AnnData:
    rows = np.arange(adata.n_obs) if among is None else np.flatnonzero(among)
    return adata[np.sort(np.random.default_rng(seed).choice(rows, n_cells, replace=False))].copy()


def cellbench(batches: tuple[str, ...] = ()) -> AnnData:
    adata = _relabelled(CELLBENCH, "batch", "cell_line")
    return adata[adata.obs["batch"].isin(batches)].copy() if batches else adata


def _relabelled(file: str, batch_key: str | None, labels_key: str) -> AnnData:
    adata = read(file)
    adata.var_names_make_unique()
    return _labelled(adata, file if batch_key is None else adata.obs[batch_key], labels_key)


def _labelled(adata: AnnData, batch: object, labels_key: str) -> AnnData:
    obs = pd.DataFrame({"batch": batch, "cell_type": adata.obs[labels_key]}, adata.obs_names)
    var = pd.DataFrame(index=adata.var_names)
    return AnnData(csr_matrix(adata.X), obs=obs.astype(str), var=var)


class Scenario(NamedTuple):
    """Data of one table: file, description, and how cells with batch and cell type are made."""

    file: str | None
    about: str
    make: Callable[[], AnnData]


SCENARIOS = {
    "kang4k": Scenario(KANG, "control v. stimulated, 4,000 cells", partial(kang_part, "kang4k")),
    "k_null": Scenario(KANG, "stimulated, split at random", partial(kang_part, "k_null")),
    "two_batches": Scenario(
        None, "bundled cells, gene-wise capture effect", lambda: two_batches(pbmc68k())
    ),
    "cellbench2": Scenario(
        CELLBENCH, "CEL-seq2 v. Drop-seq", partial(cellbench, ("celseq2_3cl", "dropseq_3cl"))
    ),
    "cellbench5": Scenario(CELLBENCH, "two of five batches lack two of five lines", cellbench),
    "kang": Scenario(KANG, "control v. stimulated, all cells", kang),
    "k_near": Scenario(KANG, "CD16+ monocytes only stimulated", partial(kang_part, "k_near")),
    "k_far": Scenario(KANG, "B cells only stimulated", partial(kang_part, "k_far")),
    "k_unbal": Scenario(KANG, "2,000 stimulated v. 200 control", partial(kang_part, "k_unbal")),
    "k_hard": Scenario(KANG, "each side lacks two types that are close to others", kang_hard),
    "k_depth": Scenario(KANG, "stimulated at a tenth of the depth", kang_shallow),
    "k_sizes": Scenario(KANG, "7,000 stimulated v. 200 control", kang_sizes),
    "cellbench5_lacking": Scenario(CELLBENCH, "all batches but one lack lines", cellbench_lacking),
    "pbmc4": Scenario(KANG, "blood of four studies", pbmc4),
    "starmap": Scenario(STARMAP, "three slices of cortex", starmap),
}


@lru_cache(maxsize=1)
def prepared(scenario: str) -> AnnData:
    """Return counts of at most 1,000 variable genes, and their log-normalised values.

    A tenth of the cells are test cells, ``obs["test"]``.
    """
    adata = SCENARIOS[scenario].make()
    adata.X = csr_matrix(adata.X, dtype=np.float32)
    sc.pp.filter_genes(adata, min_cells=10)
    log = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
    adata.layers["log"] = log.X
    if adata.n_vars > MAX_GENES:
        sc.pp.highly_variable_genes(log, n_top_genes=MAX_GENES, batch_key="batch")
        adata = adata[:, log.var["highly_variable"]]
    adata = adata[np.asarray(adata.X.sum(1)).ravel() > 0].copy()
    test = np.random.default_rng(0).choice(adata.n_obs, adata.n_obs // 10, replace=False)
    adata.obs["test"] = np.isin(np.arange(adata.n_obs), test)
    return adata
