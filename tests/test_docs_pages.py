"""The examples of the pages run as they stand, in their order, on files like those they name."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.io
from anndata import AnnData

import scovert

DOCS = Path(__file__).parents[1] / "docs"
NOT_OURS = ("biom", "mudata", "pydeseq2", "skbio")
"""What a page imports and scovert does not: examples with it run where it is installed."""


def examples(page: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(page: str, **variables: object) -> dict[str, object]:
    """Run the examples of a page, but those that need a package that is missing."""
    matplotlib.use("agg")
    for example in examples(page):
        needed = re.findall(r"^(?:from|import) (\w+)", example, re.MULTILINE)
        if all(name not in NOT_OURS or find_spec(name) for name in needed):
            exec(example, variables)
    return variables


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_10x(adata: AnnData, folder: Path) -> None:
    """Write the files of Cell Ranger, by genes x cells."""
    folder.mkdir()
    scipy.io.mmwrite(folder / "matrix.mtx", adata.X.T.astype(int))
    genes = pd.DataFrame({"id": adata.var_names, "symbol": adata.var_names})
    genes["kind"] = "Gene Expression"
    for table, name in ((genes, "features"), (pd.DataFrame(adata.obs_names), "barcodes")):
        table.to_csv(folder / f"{name}.tsv.gz", sep="\t", header=False, index=False)
    (folder / "matrix.mtx.gz").write_bytes(gzipped(folder / "matrix.mtx"))
    (folder / "matrix.mtx").unlink()


def gzipped(path: Path) -> bytes:
    import gzip

    return gzip.compress(path.read_bytes())


def write_microbiomes() -> None:
    """Write samples with names like numbers, a tree, and distances in another order."""
    if not find_spec("biom"):
        return
    from biom import Table
    from biom.util import biom_open

    names, taxa = ["1.10", "1.2"], ["a", "b", "c"]
    with biom_open("table.biom", "w") as file:
        Table(np.array([[1, 2], [3, 4], [0, 1]]), taxa, names).to_hdf5(file, "a test")
    Path("tree.nwk").write_text("((a:1,b:1):2,c:3);")
    matrix = pd.DataFrame([[0, 0.5], [0.5, 0]], names[::-1], names[::-1])
    matrix.to_csv("distances.tsv", sep="\t")


@pytest.mark.slow
def test_from_your_own_files(folder: Path) -> None:
    cells = scovert.data.two_batches(scovert.data.pbmc68k())
    del cells.uns, cells.obsm
    for batch, name in (("a", "sample_1"), ("b", "sample_2")):
        write_10x(cells[cells.obs["batch"] == batch], folder / name)
    scipy.io.mmwrite("counts.mtx", cells.X.T)
    (folder / "genes.txt").write_text("\n".join(cells.var_names))
    cells.obs.assign(x=0.0, y=1.0).to_csv("cells.csv")
    cells.to_df().iloc[:50].to_csv("counts.csv")
    with_raw = cells.copy()
    with_raw.raw = cells
    with_raw.X = np.log1p(cells.X)
    with_raw.obs["disease"] = np.where(np.arange(cells.n_obs) % 2, "normal", "lupus")
    with_raw.obs["donor_id"] = [f"d{i % 8 // 2}" for i in range(cells.n_obs)]
    with_raw.write_h5ad("cellxgene.h5ad")
    apart = cells.copy()
    del apart.obs["batch"]  # which the names of the files are to be in
    apart[:100].write_h5ad("atlas.h5ad")
    apart[100:, :500].write_h5ad("panel.h5ad")
    write_microbiomes()
    if find_spec("mudata"):
        import mudata

        with mudata.set_options(pull_on_update=False):
            rna = cells.copy()
            rna.obs["x"] = rna.obs["y"] = 0.0
            mudata.MuData({"rna": rna}).write("several.h5mu")
    found = run("your_files")
    assert found["samples"]["sample_1"].n_obs + found["samples"]["sample_2"].n_obs == cells.n_obs
    assert found["model"].is_trained
    assert found["joined"].varm["measured"].sum().tolist() == [cells.n_vars, 500]
    if find_spec("biom"):
        assert found["cohort"].X.toarray().tolist() == [[1, 3, 0], [2, 4, 1]]
        assert found["cohort"].obsp["distances"].tolist() == [[0, 0.5], [0.5, 0]]
    assert found["adata"].obsm["spatial"].shape[1] == 2


def backed_cells(folder: Path) -> AnnData:
    cells = scovert.data.two_batches(scovert.data.pbmc68k())[:200].copy()
    cells.write_h5ad(folder / "cells.h5ad", compression="gzip")
    return cells


@pytest.mark.slow
def test_larger_than_memory(folder: Path) -> None:
    cells = backed_cells(folder)
    assert run("howto/larger_than_memory")["latent"].shape == (cells.n_obs, 10)


@pytest.mark.slow
def test_script_of_a_cluster(folder: Path) -> None:
    backed_cells(folder)
    run("howto/cluster")
    assert (folder / "model" / "model.scovert").exists()


@pytest.mark.slow
def test_answers_of_the_faq(seed: int) -> None:
    cells = scovert.data.pbmc68k()
    cells.obsm["X_paired"] = scovert.anchors.principal_components(cells.X, 10)
    assert "rank_genes_groups" in run("faq", adata=cells)["logged"].uns


@pytest.mark.slow
def test_page_of_paired(seed: int) -> None:
    adata = run("models/paired")["adata"]
    assert {"X_paired", "paired", "paired_support"} <= {*adata.obsm, *adata.layers, *adata.obs}


@pytest.mark.slow
def test_page_of_imputation(seed: int) -> None:
    adata = run("models/imputation")["adata"]
    assert {"X_imputation", "imputation"} <= {*adata.obsm, *adata.layers}


@pytest.mark.slow
def test_first_example_of_bulk(seed: int) -> None:
    matplotlib.use("agg")
    variables: dict = {}
    exec(examples("models/bulk")[0], variables)
    assert variables["result"].proportions.shape == (8, 10)


# On the public files that the pages name


@pytest.mark.slow
@pytest.mark.needs_data
def test_one_type(folder: Path, read_shared: Callable[[str], AnnData]) -> None:
    read_shared("kang_ifnb_pbmc").write_h5ad("kang.h5ad")
    found = run("one_type")
    assert found["effects"].attrs["identification"] == "none"
    assert found["counts"].shape == (16, 1000)
    scale = found["nk"].obs["size_factor"]
    assert scale.mean() == pytest.approx(1)


@pytest.mark.slow
@pytest.mark.needs_data
def test_perturb_seq(folder: Path, read_shared: Callable[[str], AnnData]) -> None:
    read_shared("confounding_papalexi_perturbseq").write_h5ad("papalexi.h5ad")
    found = run("howto/perturb_seq")
    n_called = found["called"].groupby("arm").size()
    assert n_called["IFNGR1"] > 50 < n_called["JAK2"]
    assert set(found["effects"].attrs["identification"].values()) == {"randomised"}


@pytest.mark.slow
@pytest.mark.needs_data
def test_map_a_sample(folder: Path, read_shared: Callable[[str], AnnData]) -> None:
    cells = read_shared("integration_cellbench")
    batch = cells.obs["batch"].astype(str)
    is_new = batch == "celseq2_5cl_p3"
    known = batch.isin(["celseq2_3cl", "dropseq_3cl"])
    cells[known.to_numpy()].copy().write_h5ad("two_samples.h5ad")
    cells[is_new.to_numpy()].copy().write_h5ad("third_sample.h5ad")
    new = run("howto/map_sample")["new"]
    shared = new.obs["cell_line"].isin(["H1975", "H2228", "HCC827"])
    right = new.obs["cell_line_mapped"].astype(str) == new.obs["cell_line"].astype(str)
    assert right[shared].mean() > 0.95
    support = new.obs["paired_support"]
    assert support[shared].mean() > support[~shared].mean()


@pytest.mark.slow
@pytest.mark.needs_data
def test_measured_sample(folder: Path, read_shared: Callable[[str], AnnData]) -> None:
    read_shared("deconv_ref_hao_pbmc").write_h5ad("reference.h5ad")
    bulk = read_shared("deconv_bulk_finotello_pbmc")
    bulk.to_df().T.to_csv("bulk.csv")
    columns = {
        "frac_b": "B cells",
        "frac_monocyte": "Monocytes",
        "frac_nk": "NK cells",
        "frac_cd8_t": "T cells CD8",
        "frac_cd4_t": "CD4 T",
    }
    truth = bulk.obs[list(columns)].rename(columns=columns).astype(float)
    truth.iloc[:2].to_csv("flow.csv")
    found = run("howto/measured_sample")
    widths = [(r.upper - r.lower).mean(axis=None) for r in (found["corrected"], found["result"])]
    assert widths[0] < widths[1]
    assert (found["corrected"].proportions != found["result"].proportions).any(axis=None)
    assert Path("proportions.csv").exists()
