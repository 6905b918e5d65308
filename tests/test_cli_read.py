"""What the command line reads, by values, and what it says of anything else."""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import io, sparse
from typer.testing import CliRunner

from scovert.cli import app
from scovert.cli._read import read

COUNTS = np.array([[1, 0, 2, 7], [0, 3, 0, 0], [5, 0, 0, 1]])  # 3 cells, 4 genes
CELLS = ["AAA-1", "CCC-1", "GGG-1"]
GENES = ["CD3E", "nan", "NA", "LYZ"]  # nan is a gene of the fly
IDS = ["ENSG1", "ENSG2", "ENSG3", "ENSG4"]
KIND = "Gene Expression"


def make_cells() -> AnnData:
    adata = AnnData(sparse.csr_matrix(COUNTS, dtype=np.float32))
    adata.obs_names, adata.var_names = CELLS, GENES
    adata.obs["batch"] = pd.Categorical(["a", "b", "a"])
    return adata


def write_10x_h5(
    file: Path,
    *,
    counts: np.ndarray = COUNTS,
    names: list[str] = GENES,
    kinds: list[str] | None = None,
) -> Path:
    matrix = sparse.csr_matrix(counts.astype(np.int32))
    with h5py.File(file, "w") as f:
        group = f.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(counts.T.shape)
        group["barcodes"] = np.array(CELLS, "S")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i + 1}" for i in range(len(names))], "S")
        features["name"] = np.array(names, "S")
        features["feature_type"] = np.array(kinds or [KIND] * len(names), "S")
        features["genome"] = np.array(["GRCh38"] * len(names), "S")
    return file


def write_10x_legacy_h5(file: Path) -> Path:
    matrix = sparse.csr_matrix(COUNTS.astype(np.int32))
    with h5py.File(file, "w") as f:
        group = f.create_group("GRCh38")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = np.array(COUNTS.T.shape)
        group["barcodes"] = np.array(CELLS, "S")
        group["genes"], group["gene_names"] = np.array(IDS, "S"), np.array(GENES, "S")
    return file


def write_text(file: Path, text: str) -> None:
    (gzip.open if file.suffix == ".gz" else open)(file, "wt").write(text)


def write_10x_folder(
    folder: Path,
    *,
    prefix: str = "",
    packed: str = ".gz",
    columns: int = 3,
    names: list[str] = GENES,
    counts: np.ndarray = COUNTS,
    kinds: list[str] | None = None,
) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    io.mmwrite(folder / "m.mtx", sparse.coo_matrix(counts.T))
    text = (folder / "m.mtx").read_text()
    (folder / "m.mtx").unlink()
    write_text(folder / f"{prefix}matrix.mtx{packed}", text)
    write_text(folder / f"{prefix}barcodes.tsv{packed}", "\n".join(CELLS) + "\n")
    kinds = kinds or [KIND] * len(names)
    rows = zip([f"ENSG{i + 1}" for i in range(len(names))], names, kinds, strict=True)
    table = "".join("\t".join(row[:columns]) + "\n" for row in rows)
    write_text(folder / f"{prefix}{'features' if columns > 2 else 'genes'}.tsv{packed}", table)
    return folder


def write_h5ad(file: Path) -> Path:
    make_cells().write_h5ad(file)
    return file


def write_h5mu(file: Path, *names: str) -> Path:
    import mudata

    with mudata.set_options(pull_on_update=False):
        together = mudata.MuData({name: make_cells() for name in names})
        together.obs["donor"] = ["d1", "d2", "d3"]
        together.write(file)
    return file


def pack(file: Path) -> Path:
    with file.open("rb") as plain, gzip.open(f"{file}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    file.unlink()
    return Path(f"{file}.gz")


def write_zarr(folder: Path) -> Path:
    make_cells().write_zarr(folder)
    return folder


READ: dict[str, Callable[[Path], Path]] = {
    "h5ad": lambda d: write_h5ad(d / "cells.h5ad"),
    "h5ad.gz": lambda d: pack(write_h5ad(d / "cells.h5ad")),
    "h5ad in name of another": lambda d: write_h5ad(d / "cells.h5"),
    "10x h5": lambda d: write_10x_h5(d / "filtered_feature_bc_matrix.h5"),
    "10x h5.gz": lambda d: pack(write_10x_h5(d / "GSM1_filtered.h5")),
    "10x h5 of version 2": lambda d: write_10x_legacy_h5(d / "filtered.h5"),
    "10x h5 in name of another": lambda d: write_10x_h5(d / "cells.h5ad"),
    "10x folder": lambda d: write_10x_folder(d / "filtered_feature_bc_matrix"),
    "10x folder of version 2": lambda d: write_10x_folder(d / "hg19", packed="", columns=2),
    "10x folder of version 2, packed": lambda d: write_10x_folder(d / "hg19", columns=2),
    "folder of STARsolo": lambda d: write_10x_folder(d / "raw", packed=""),
    "10x folder of GEO": lambda d: write_10x_folder(d / "GSM1", prefix="GSM1_pbmc_"),
    "10x matrix": lambda d: write_10x_folder(d / "GSM1") / "matrix.mtx.gz",
    "10x matrix of GEO": lambda d: (
        write_10x_folder(write_10x_folder(d / "GSE", prefix="A_", columns=2), prefix="B_")
        / "B_matrix.mtx.gz"
    ),
    "h5mu": lambda d: write_h5mu(d / "cells.h5mu", "gex"),
    "zarr": lambda d: write_zarr(d / "cells.zarr"),
    "modality of a zarr": lambda d: write_zarr(d / "cells.zarr" / "mod" / "rna"),
}


@pytest.mark.parametrize("name", READ)
def test_the_same_cells_come_from_every_kind(
    name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    place = READ[name](tmp_path)
    recwarn.clear()
    adata = read(place)
    assert list(adata.obs_names) == CELLS
    assert list(adata.var_names) == GENES
    np.testing.assert_array_equal(sparse.csr_matrix(adata.X).toarray(), COUNTS)
    if "10x" in name or "STAR" in name:
        assert list(adata.var["gene_ids"]) == IDS
    ours = [w for w in recwarn if issubclass(w.category, UserWarning)]
    assert [str(w.message) for w in ours] == []


@pytest.mark.parametrize("kind", ["h5", "folder"])
def test_features_that_are_no_genes_are_left_out_aloud(kind: str, tmp_path: Path) -> None:
    kinds = [KIND, "Antibody Capture", KIND, "CRISPR Guide Capture"]
    write = write_10x_h5 if kind == "h5" else write_10x_folder
    place = write(tmp_path / f"cells.{kind}", kinds=kinds)
    with pytest.warns(UserWarning, match="1 Antibody Capture, 1 CRISPR Guide Capture"):
        adata = read(place)
    assert list(adata.var["gene_ids"]) == ["ENSG1", "ENSG3"]
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS[:, [0, 2]])
    write(place, kinds=["Peaks"] * 4)
    with pytest.raises(ValueError, match=r"None of the features.*'Peaks'.*counts of genes"):
        read(place)


@pytest.mark.parametrize("kind", ["h5", "folder"])
def test_genes_that_share_a_symbol_are_all_kept(kind: str, tmp_path: Path) -> None:
    write = write_10x_h5 if kind == "h5" else write_10x_folder
    place = write(tmp_path / f"cells.{kind}", names=["A", "B", "A", "RP11-34"])
    with pytest.warns(UserWarning, match="1 gene symbols occur more than once") as said:
        adata = read(place)
    assert len(said) == 1
    assert list(adata.var_names) == ["A", "B", "A-1", "RP11-34"]
    assert list(adata.var["gene_ids"]) == IDS
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    kinds = [KIND, "Antibody Capture", KIND, KIND]  # an antibody called as its gene is no other
    write(place, names=["A", "A", "B", "B"], kinds=kinds)
    with pytest.warns(UserWarning, match=f"{place.name}, such as 'B'|left out: 1 A") as said:
        adata = read(place)
    assert len(said) == 2
    assert list(adata.var_names) == ["A", "B", "B-1"]


def test_messages_about_a_packed_file_name_it(tmp_path: Path) -> None:
    kinds = [KIND, "Antibody Capture", KIND, KIND]
    file = pack(write_10x_h5(tmp_path / "c.h5", names=["A", "B", "C", "C"], kinds=kinds))
    with pytest.warns(UserWarning, match=re.escape(f"{file}")) as said:
        read(file)
    assert [str(file) in str(each.message) for each in said] == [True, True]
    file = pack(write_h5mu(tmp_path / "c.h5mu", "rna", "prot"))
    np.testing.assert_array_equal(read(Path(f"{file}:prot")).X.toarray(), COUNTS)


def test_a_gene_without_symbol_has_its_identifier(tmp_path: Path) -> None:
    adata = read(write_10x_folder(tmp_path / "f", names=["A", "", "B", "C"]))
    assert list(adata.var_names) == ["A", "ENSG2", "B", "C"]


def test_the_main_matrix_of_a_loom_is_read(tmp_path: Path) -> None:
    loompy = pytest.importorskip("loompy")
    file = tmp_path / "cells.loom"
    layers = {"": COUNTS.T.astype(float), "spliced": 0.0 * COUNTS.T}
    loompy.create(str(file), layers, {"Gene": np.array(GENES)}, {"CellID": np.array(CELLS)})
    adata = read(file)
    assert list(adata.var_names) == GENES
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)


def write_loom(file: Path) -> Path:
    with h5py.File(file, "w") as f:
        f["matrix"] = COUNTS.T
        for name in ("row_attrs", "col_attrs"):
            f.create_group(name)
    return file


def test_without_loompy_the_way_to_an_h5ad_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "loompy", None)
    file = write_loom(tmp_path / "cells.loom")
    with pytest.raises(ValueError, match=r"pip install loompy.*read_loom\(.*cells.h5ad"):
        read(file)


# Modalities


def test_of_several_modalities_rna_is_read_or_the_one_named(tmp_path: Path) -> None:
    file = write_h5mu(tmp_path / "cells.h5mu", "rna", "prot")
    with h5py.File(file, "a") as f:
        f["mod/prot/X/data"][...] = 9
    with pytest.warns(UserWarning, match=r"'rna' is read, and \['prot'\] left out.*h5mu:prot"):
        rna = read(file)
    np.testing.assert_array_equal(rna.X.toarray(), COUNTS)
    assert list(rna.obs["donor"]) == ["d1", "d2", "d3"]  # a column that all modalities share
    assert set(read(Path(f"{file}:prot")).X.data) == {9}


def test_a_modality_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = write_h5mu(tmp_path / "cells.h5mu", "gex", "prot")
    message = r"no modality {!r} \(it has \['gex', 'prot'\]\)\. Name one.*cells.h5mu:gex"
    for place, name in ((file, "rna"), (Path(f"{file}:x"), "x")):
        with pytest.raises(ValueError, match=message.format(name)):
            read(place)


# What is refused


def text(name: str, content: str = "cell,gene\n1,2\n") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_text(folder / name, content)
        return folder / name

    return write


def cut(file: Path, share: float = 0.5) -> Path:
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    return file


def without(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def without_x(file: Path) -> Path:
    with h5py.File(file, "a") as f:
        del f["X/indptr"]
    return file


def broken_10x_h5(folder: Path) -> Path:
    file = write_10x_h5(folder / "filtered.h5")
    with h5py.File(file, "a") as f:
        del f["matrix/features/feature_type"]
    return file


def outs(folder: Path) -> Path:
    write_10x_folder(folder / "run" / "outs" / "filtered_feature_bc_matrix")
    write_10x_h5(folder / "run" / "outs" / "filtered_feature_bc_matrix.h5")
    return folder / "run"


def other_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "weights.h5", "w") as f:
        f["layer_1"] = [1.0]
    return folder / "weights.h5"


def two_of_geo(folder: Path) -> Path:
    return write_10x_folder(write_10x_folder(folder / "GSE", prefix="A_"), prefix="B_")


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda d: d / "no.h5ad", r"no\.h5ad is not a file, nor a folder\. Name an"),
    "nothing there, modality": (lambda d: d / "no.h5mu:rna", r"no\.h5mu is not a file"),
    "table": (text("t.csv"), r"rows are cells or genes.*read_csv\('.*t\.csv', index_col=0\)\)"),
    "table of tabs": (text("t.tsv.gz"), r"index_col=0, sep='\\t'\)\)\.write_h5ad"),
    "of R": (text("seurat.rds"), "file of R.*anndataR::write_h5ad"),
    "of R, HDF5": (
        lambda d: other_hdf5(d).rename(d / "s.h5seurat"),
        r"holds \['layer_1'\].*anndataR::write_h5ad",
    ),
    "text": (text("cells.h5ad"), "is not an .h5ad file.*damaged or cut off"),
    "empty": (text("cells.h5ad", ""), "cells.h5ad is empty. Copy it again"),
    "cut": (lambda d: cut(write_h5ad(d / "c.h5ad")), "c.h5ad cannot be read by.*cut off"),
    "cut, packed": (lambda d: cut(pack(write_h5ad(d / "c.h5ad"))), r"c\.h5ad\.gz.*cut off"),
    "text, packed": (text("c.h5ad.gz", "x"), r"/c\.h5ad\.gz is not an .h5ad file"),
    "other HDF5": (other_hdf5, r"weights.h5 holds \['layer_1'\], and is not an .h5ad file"),
    "half an h5ad": (
        lambda d: without_x(write_h5ad(d / "c.h5ad")),
        r"c\.h5ad cannot be read by `anndata.read_h5ad`: .*copy it again",
    ),
    "modality of an h5ad": (
        lambda d: Path(f"{write_h5ad(d / 'c.h5mu')}:rna"),
        "has no modalities. Name it without :rna",
    ),
    "10x h5": (broken_10x_h5, r"by `scanpy\.read_10x_h5`: File is missing.*copy it again"),
    "10x folder, no features": (
        lambda d: without(write_10x_folder(d / "f"), "features.tsv.gz"),
        r"f cannot be read by `scanpy.read_10x_mtx`: there is no features\.tsv\.gz beside matrix",
    ),
    "10x folder, no barcodes": (
        lambda d: without(write_10x_folder(d / "f"), "barcodes.tsv.gz"),
        "there is no barcodes.tsv.gz beside matrix.mtx.gz",
    ),
    "10x folder, empty matrix": (
        lambda d: [write_10x_folder(d / "f"), (d / "f/matrix.mtx.gz").write_bytes(b"")][0],
        "scanpy.read_10x_mtx",
    ),
    "10x matrix, cut": (
        lambda d: cut(write_10x_folder(d / "f") / "matrix.mtx.gz", 0.7),
        "scanpy.read_10x_mtx.*cut off",
    ),
    "10x folder, features of another": (
        lambda d: write_10x_folder(d / "f", names=["A"], counts=COUNTS, columns=2),
        "has 4 rows and 3 columns, and there are 1 features and 3 barcodes",
    ),
    "10x folders of several": (
        two_of_geo,
        r"holds 2 that could be read. Name one.*A_matrix.mtx.gz, .*B_matrix.mtx.gz",
    ),
    "outs of Cell Ranger": (
        outs,
        r"run is a folder and holds 2.*outs/filtered_feature_bc_matrix, .*_matrix\.h5\.",
    ),
    "no cells": (
        lambda d: make_cells()[:0].copy().write_h5ad(d / "c.h5ad") or d / "c.h5ad",
        "c.h5ad holds 0 cells and 4 genes. Name a file with both",
    ),
    "empty folder": (lambda d: made(d / "f"), "holds none of what is read. Name an .h5ad"),
    "zarr of modalities": (
        lambda d: (write_zarr(write_zarr(d / "c.zarr") / "mod" / "rna"), d / "c.zarr")[1],
        r"c\.zarr holds modalities\. Name one: .*c\.zarr/mod/rna\.",
    ),
    "zarr of another": (
        lambda d: text("zarr.json", "{}")(made(d / "c.zarr")).parent,
        "c.zarr cannot be read by `anndata.io.read_zarr`",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_said_with_what_to_do(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        read(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert "/tmp/tmp" not in str(caught.value)  # where it was unpacked


def test_the_call_that_is_named_for_a_table_works(tmp_path: Path) -> None:
    for name, separator in (("t.csv", ","), ("t.tsv.gz", "\t")):
        make_cells().to_df().to_csv(tmp_path / name, sep=separator)
        with pytest.raises(ValueError, match="It is a table") as caught:
            read(tmp_path / name)
        call = re.search("`(anndata.*?)` makes", str(caught.value))[1]
        exec(
            call.replace("'cells.h5ad'", f"'{tmp_path}/cells.h5ad'"), {"anndata": ad, "pandas": pd}
        )
        np.testing.assert_array_equal(read(tmp_path / "cells.h5ad").X, COUNTS)


@pytest.mark.parametrize(("method", "inner"), [("open", "cells.h5ad"), ("iterdir", "folder")])
def test_what_may_not_be_read(
    method: str, inner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = write_h5ad(tmp_path / "cells.h5ad") if method == "open" else made(tmp_path / "folder")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / inner))

    monkeypatch.setattr(Path, method, refuse)
    monkeypatch.setattr(os, "access", lambda _, mode, **__: not mode & os.R_OK)
    options = ["--batch-key", "batch", "-o", str(tmp_path / "o.h5ad")]
    result = CliRunner().invoke(app, ["integrate", str(place), *options])
    assert result.exit_code == 1
    expected = f"error: {tmp_path / inner} cannot be opened: you may not read it. Ask its owner"
    assert expected in result.stderr
