"""The data of the integration benchmark: counts, batches, cell types and test cells."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.data import read
from scovert.data import pbmc68k, two_batches

__all__ = ["SCENARIOS", "Scenario", "prepared"]

KANG, CELLBENCH = "kang_ifnb_pbmc", "integration_cellbench"
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


def cellbench(batches: tuple[str, ...] = ()) -> AnnData:
    adata = _relabelled(CELLBENCH, "batch", "cell_line")
    return adata[adata.obs["batch"].isin(batches)].copy() if batches else adata


def _relabelled(file: str, batch_key: str, labels_key: str) -> AnnData:
    adata = read(file)
    obs = adata.obs[[batch_key, labels_key]].astype(str)
    obs.columns = ["batch", "cell_type"]
    return AnnData(adata.X, obs=obs, var=pd.DataFrame(index=adata.var_names))


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
