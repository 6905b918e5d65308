"""``scovert impute``: one file with several datasets, or a file for each."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

from scovert.cli import app
from scovert.model import MaskedImputation

SHORT = ["--max-epochs=2", "--accelerator=cpu"]


def run(*arguments: object) -> object:
    return CliRunner().invoke(app, ["impute", *map(str, arguments)])


@pytest.fixture
def source(make_panels, tmp_path: Path) -> Path:
    make_panels().write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def test_one_file_with_a_table(source: Path, tmp_path: Path) -> None:
    out, folder = tmp_path / "out.h5ad", tmp_path / "model"
    asked = ["--batch-key=batch", "--measured-key=measured", "--keep-measured", *SHORT]
    found = run(source, "-o", out, "--save-model", folder, *asked)
    assert found.exit_code == 0, found.output
    assert "make no test of them" in found.output
    before, after = ad.read_h5ad(source), ad.read_h5ad(out)
    np.testing.assert_array_equal(after.X.toarray(), before.X.toarray())
    first = (after.obs["batch"] == "batch_0").to_numpy()
    np.testing.assert_array_equal(after.layers["imputation"][first], after.X[first].toarray())
    assert (
        (after.layers["imputation"][~first] > 0).any(0)[~before.varm["measured"]["batch_1"]].all()
    )
    assert after.obsm["X_imputation"].shape == (97, 10)
    assert MaskedImputation.load(folder, before).is_trained


def test_zeros_need_a_word(source: Path, tmp_path: Path) -> None:
    found = run(source, "-o", tmp_path / "out.h5ad", "--batch-key=batch", *SHORT)
    assert found.exit_code == 1
    assert "have no count in a dataset" in found.output
    assert "--measured-key detect" in found.output
    assert not (tmp_path / "out.h5ad").exists()


def test_several_files_measured_what_they_hold(make_panels, tmp_path: Path) -> None:
    adata = make_panels()
    del adata.varm["measured"]
    for name in ("batch_0", "batch_1"):
        own = adata[adata.obs["batch"] == name]
        own = own[:, :50] if name == "batch_1" else own
        own.copy().write_h5ad(tmp_path / f"{name}.h5ad")
    files = [tmp_path / f"batch_{i}.h5ad" for i in range(2)]
    found = run(*files, "-o", tmp_path / "out.h5ad", "--no-write-layer", *SHORT)
    assert found.exit_code == 0, found.output
    assert "batch_1 lacks 21 of the 71 genes" in found.output
    after = ad.read_h5ad(tmp_path / "out.h5ad")
    assert after.shape == (97, 71)
    assert after.varm["imputation_measured"]["batch_1"].sum() == 50
    assert "imputation" not in after.layers
    found = run(*files, "-o", tmp_path / "two.h5ad", "--batch-key=batch", *SHORT)
    assert found.exit_code == 1
    assert "--batch-key is for one file" in found.output


def test_a_column_called_file_is_not_replaced(make_panels, tmp_path: Path) -> None:
    adata = make_panels()
    adata.obs["file"] = "scan_3"
    files = [tmp_path / f"{name}.h5ad" for name in "ab"]
    for file in files:
        adata.write_h5ad(file)
    found = run(*files, "-o", tmp_path / "out.h5ad", *SHORT)
    assert found.exit_code == 1
    assert "a.h5ad has a column 'file' of obs" in found.output
