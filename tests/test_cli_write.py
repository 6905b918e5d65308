"""Where the command line writes: looked at before the work, and nothing is lost after it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import pandas as pd
import pytest
from anndata import AnnData
from typer.testing import CliRunner, Result

from scovert.cli import _deconvolve, _several, app
from scovert.cli._write import write_table
from scovert.core import _saving

SHORT = ("--max-epochs", 3, "--accelerator", "cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def source(tmp_path: Path, toy: AnnData, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    toy.write_h5ad("in.h5ad")
    return Path("in.h5ad")


def integrate(source: Path, *arguments: object) -> Result:
    return run("integrate", source, "--batch-key", "batch", *SHORT, *arguments)


def refused_before_reading(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Run a command that must not read, and return what it says."""
    for module in (_several, _deconvolve):
        monkeypatch.setattr(module, "read", lambda *_: pytest.fail("the input was read"))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before
    return result.stderr


def with_model(name: str) -> None:
    Path(name).mkdir()
    (Path(name) / _saving.MODEL_FILE).touch()


PLACES: dict[str, tuple[Callable[[], object], tuple[object, ...], str]] = {
    "table": (int, ("-o", "out.csv"), "out.csv does not end in .h5ad, and nothing else is written "
              "there. Name it out.h5ad"),
    "packed": (int, ("-o", "out.h5ad.gz"), "does not end in .h5ad, and nothing else is written "
               "there. Name it out.h5ad"),
    "folder": (Path("out").mkdir, ("-o", "out"), "out is a folder. Name a file in it"),
    "folder in name of a file": (Path("o.h5ad").mkdir, ("-o", "o.h5ad", "--overwrite"),
                                 "o.h5ad is a folder"),
    "folder to come": (int, ("-o", "out/"), "out does not end in .h5ad"),
    "below a file": (Path("f").touch, ("-o", "f/x/o.h5ad"), "f is a file. Name another place"),
    "model in a file": (Path("f").touch, ("-o", "o.h5ad", "--save-model", "f"),
                        "f already holds a file"),
    "model below a file": (Path("f").touch, ("-o", "o.h5ad", "--save-model", "f/m"),
                           "f is a file. Name another place"),
    "model is there": (lambda: with_model("m"), ("-o", "o.h5ad", "--save-model", "m"),
                       "m already holds ['model.scovert']. Pass another path, or --overwrite"),
    "model and output": (int, ("-o", "o.h5ad", "--save-model", "o.h5ad"),
                         "o.h5ad is the output too. Name a folder for the model"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_will_not_do_is_said_before_reading(
    name: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, arguments, message = PLACES[name]
    make()
    said = refused_before_reading(
        monkeypatch, "integrate", source, "--batch-key", "batch", *arguments
    )
    assert message in said


OTHERS: dict[str, tuple[tuple[object, ...], str]] = {
    "effects": (
        ("deconfound", "in.h5ad", "--treatment-key", "batch", "--effects", "effects.xlsx"),
        "effects.xlsx does not end in .csv or .tsv or .txt or .csv.gz or .tsv.gz or .txt.gz",
    ),
    "effects below a file": (
        ("deconfound", "in.h5ad", "--treatment-key", "batch", "--effects", "in.h5ad/e.csv"),
        "in.h5ad is a file. Name another place",
    ),
    "effects over the input": (
        ("deconfound", "in.h5ad", "--treatment-key", "batch", "--effects", "in.h5ad"),
        "in.h5ad is the input",
    ),
    "table": (
        ("deconvolve", "in.h5ad", "in.h5ad", "--labels-key", "batch", "--table", "p.parquet"),
        "p.parquet does not end in .csv or",
    ),
    "models of references": (
        ("deconvolve", "in.h5ad", "b.h5ad", "in.h5ad", "--labels-key", "batch")
        + ("--save-model", "in.h5ad"),
        "in.h5ad is a file. Name another place",
    ),
    "demo": (("demo", "-o", "in.h5ad"), "in.h5ad is a file. Name another place"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_so_do_the_other_commands(
    name: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, message = OTHERS[name]
    shutil.copy(source, "b.h5ad")
    output = () if "-o" in arguments else ("-o", "o.h5ad")
    assert message in refused_before_reading(monkeypatch, *arguments, *output)


def test_a_folder_without_permission(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode, **__: not mode & os.W_OK)
    arguments = ("integrate", source, "--batch-key", "batch", "-o", "new/o.h5ad")
    said = refused_before_reading(monkeypatch, *arguments)
    assert "new/o.h5ad cannot be made: you may not write to " in said


def test_a_disk_too_small_is_said_before_the_fit(
    source: Path, toy: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = [toy.X, toy.layers["raw"]]
    there = sum(part.nbytes for x in counts for part in (x.data, x.indices, x.indptr))
    there += toy.obsm["X_user"].nbytes + toy.obsm["truth_latent"].nbytes
    layer = 4 * 67 * 11  # bytes of float32
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=there + layer - 1))
    result = integrate(source, "-o", "new/o.h5ad")
    assert result.exit_code == 1
    assert "o.h5ad would take more than 0.0 GB, and 0.0 GB are free there" in result.stderr
    assert "leave out the layer: --no-write-layer" in result.stderr
    assert "Epoch" not in result.output
    assert not Path("new").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=there + layer))
    result = integrate(source, "-o", "new/o.h5ad", "--save-model", "m")  # no room for X_paired
    assert "Make room and run the command again; --save-model keeps" in result.stderr
    assert Path("m").exists()
    assert not Path("new").exists()
    assert integrate(source, "-o", "new/o.h5ad", "--no-write-layer").exit_code == 0


def test_what_was_learnt_outlives_a_full_disk(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scovert.model import PairedVAE

    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_saving, "write_h5ad", fill)
    result = integrate(source, "-o", "o.h5ad", "--save-model", "m")
    assert result.exit_code == 1
    assert "error: o.h5ad could not be written: there is no space left. Make room" in result.stderr
    assert {path.name for path in Path().iterdir()} == {"in.h5ad", "m"}
    assert PairedVAE.load("m", ad.read_h5ad(source)).is_trained


TAKEN = {"integrate": "paired", "deconfound": "confounder"}


@pytest.mark.parametrize("command", TAKEN)
def test_what_is_where_results_go_is_said_before_the_fit(command: str, source: Path) -> None:
    cells = ad.read_h5ad(source)
    cells.obs["arm"] = ["a", "b"] * 33 + ["a"]
    cells.layers[TAKEN[command]] = cells.X
    cells.write_h5ad(source)
    option = {"integrate": ("--batch-key", "batch"), "deconfound": ("--treatment-key", "arm")}
    arguments = (command, source, *option[command], "-o", "o.h5ad")
    result = run(*arguments)
    assert result.exit_code == 1
    expected = f"error: The input holds ['layers/{TAKEN[command]}'] already, where results"
    assert result.stderr.startswith(expected)
    assert "Epoch" not in result.output
    more = SHORT if command == "integrate" else ("--reference", "a", "--n-latent", 0)
    result = run(*arguments, "--overwrite", *more)
    assert result.exit_code == 0, result.output
    again = run(command, "o.h5ad", *option[command], "-o", "p.h5ad", *more)  # its own results
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt.gz", "my.own.tsv.gz"])
def test_tables_are_separated_as_they_are_called(name: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"a": [1.5, 2.0]}, index=pd.Index(["x", "y"], name="gene"))
    write_table(table, tmp_path / "new" / name)
    separator = "," if "csv" in name else "\t"
    found = pd.read_csv(tmp_path / "new" / name, sep=separator, index_col="gene")
    pd.testing.assert_frame_equal(found, table)


@pytest.mark.parametrize(
    ("table", "beside"),
    [("p.csv", "p_intervals.csv"), ("my.p.tsv.gz", "my.p_intervals.tsv.gz")],
)
def test_the_table_of_intervals_is_called_alike(table: str, beside: str) -> None:
    assert _deconvolve._tables(Path("x") / table, 0.9) == [Path("x") / table, Path("x") / beside]


# Columns that no file holds

COLUMNS = {
    "text and numbers": ["a", 1, "b"],
    "text and nothing": ["a", None, "b"],
    "yes and nothing": [True, None, False],
    "categories of both": pd.Categorical(["a", 1, "a"]),
    "dates": pd.to_datetime(["2020-01-01"] * 3),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("slot", ["obs", "var"])
def test_a_column_that_no_file_holds_is_named(name: str, slot: str, tmp_path: Path) -> None:
    adata = AnnData(pd.DataFrame([[1.0] * 3] * 3))
    setattr(adata, slot, getattr(adata, slot).assign(good=["x", "y", "z"], bad=COLUMNS[name]))
    with pytest.raises(ValueError, match=rf"adata.{slot}\['bad'\]` cannot be written.*astype"):
        _saving.write_adata(adata, tmp_path / "o.h5ad")
    assert list(tmp_path.iterdir()) == []


def test_columns_that_files_hold_are_none_of_these(tmp_path: Path) -> None:
    good = {
        "text": ["a", "b", "c"],
        "kind": pd.Categorical(["a", None, "b"]),
        "number": [1.0, None, 2.0],
        "flag": pd.array([True, None, False], dtype="boolean"),
        "count": pd.array([1, None, 2], dtype="Int64"),
    }
    adata = AnnData(pd.DataFrame([[1.0] * 3] * 3))
    adata.obs = adata.obs.assign(**good)
    _saving.check_storable(adata)
    _saving.write_adata(adata, tmp_path / "o.h5ad")
    assert list(ad.read_h5ad(tmp_path / "o.h5ad").obs) == list(good)
