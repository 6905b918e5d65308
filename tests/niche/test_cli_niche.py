"""The command `scovert niches`."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
from anndata import AnnData
from click.testing import Result
from typer.testing import CliRunner

from scovert.cli import app
from scovert.model import NicheVAE
from scovert.simulate import niche

SHORT = (
    "--max-epochs",
    "2",
    "--accelerator",
    "cpu",
    "--n-neighbors",
    "5",
    "--n-niches",
    "3",
    "--n-states",
    "8",
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["niches", *map(str, arguments)])


@pytest.fixture(scope="module")
def tissue() -> AnnData:
    return niche(200, 2, n_genes=7)


@pytest.fixture(scope="module")
def source(tissue: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("niches") / "in.h5ad"
    tissue.write_h5ad(file)
    return file


def test_niches_are_written_with_a_report(source: Path, tmp_path: Path) -> None:
    output, report = tmp_path / "out.h5ad", tmp_path / "pages" / "report.html"
    keys = ("--sample-key", "sample", "--labels-key", "cell_type", "--likelihood", "nb")
    model = ("--save-model", tmp_path / "model")
    result = run(source, *keys, *SHORT, "-o", output, "--report", report, *model)
    assert result.exit_code == 0, result.output
    found = ad.read_h5ad(output)
    assert found.obs["niche"].nunique() == 3
    assert {"X_niche", "niche_composition"} <= set(found.obsm)
    assert list(found.obsm["niche_composition"]) == [f"type_{k + 1}" for k in range(6)]
    assert found.layers["niche"].shape == found.shape
    assert "3 niches on 2 slides" in report.read_text()
    assert f"Written to {output}, {report}." in result.output
    shares = pd.crosstab(found.obs["sample"], found.obs["niche"], normalize="index")
    for sample, row in shares.iterrows():
        cells = "".join(f"<td>{share:.3g}</td>" for share in row)
        assert f"<tr><td>{sample}</td>{cells}</tr>" in report.read_text()
    loaded = NicheVAE.load(tmp_path / "model", found)
    assert loaded.n_neighbors == 5
    again = run(source, *keys, *SHORT, "-o", output)
    assert again.exit_code == 1
    assert "exists" in again.output


def test_one_file_without_a_sample_is_one_slide(tissue: AnnData, tmp_path: Path) -> None:
    source, output = tmp_path / "in.h5ad", tmp_path / "out.h5ad"
    one = tissue[:200].copy()
    one.X = one.X.toarray() + 0.5
    one.write_h5ad(source)
    result = run(source, "--likelihood", "gaussian", *SHORT, "-o", output, "--no-write-layer")
    assert result.exit_code == 0, result.output
    found = ad.read_h5ad(output)
    assert found.obs["niche"].nunique() == 3
    assert "niche" not in found.layers
    refused = run(source, "--likelihood", "nb", *SHORT, "-o", tmp_path / "again.h5ad")
    assert refused.exit_code == 1
    assert "--likelihood gaussian" in refused.output


def test_several_files_are_slides(tissue: AnnData, tmp_path: Path) -> None:
    files = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    for file, name in zip(files, ("section_0", "section_1"), strict=True):
        tissue[tissue.obs["sample"] == name].copy().write_h5ad(file)
    output = tmp_path / "out.h5ad"
    result = run(*files, "--likelihood", "nb", *SHORT, "-o", output, "--quiet")
    assert result.exit_code == 0, result.output
    assert ad.read_h5ad(output).obs["file"].value_counts().tolist() == [200, 200]


def test_a_store_of_spatialdata_is_read_for_its_table(tissue: AnnData, tmp_path: Path) -> None:
    store = tmp_path / "slide.zarr"
    (store / "tables").mkdir(parents=True)
    tissue.write_zarr(store / "tables" / "table")
    output = tmp_path / "out.h5ad"
    keys = ("--likelihood", "nb", "--sample-key", "sample")
    result = run(store, *keys, *SHORT, "-o", output, "--quiet")
    assert result.exit_code == 0, result.output
    assert "niche" in ad.read_h5ad(output).obs
    tissue.write_zarr(store / "tables" / "other")
    result = run(store, *keys, *SHORT, "-o", tmp_path / "again.h5ad")
    assert result.exit_code == 1
    assert "tables ['other', 'table']" in result.output
    assert "write_h5ad" in result.output
