"""Several files of cells in one command: what becomes of genes, cells and columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner, Result

from scovert.cli import app
from scovert.cli._several import names_of, read_cells

SHORT = ("--max-epochs", 3, "--accelerator", "cpu")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def make(genes: str, prefix: str = "", seed: int = 0, **obs: object) -> AnnData:
    """Make three cells; the genes are single letters, and their counts tell them apart."""
    counts = [[10 * i + ord(gene) - ord("a") + 100 * seed for gene in genes] for i in range(3)]
    adata = AnnData(sparse.csr_matrix(np.array(counts, np.float32)))
    adata.obs_names = [f"{prefix}AAA-{i}" for i in range(3)]
    adata.var_names = list(genes)
    adata.obs = adata.obs.assign(**obs)
    return adata


def joined(
    folder: Path, parts: dict[str, AnnData], key: str | None = None, layer: str | None = None
) -> tuple[AnnData, str, list[str]]:
    """Write files, read them as a command does, and return what was said too."""
    for name, part in parts.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        part.write_h5ad(folder / name)
    said, context = [], SimpleNamespace(meta={})
    options = {"key": key, "argument": "batch_key", "layer": layer}
    files = [folder / name for name in parts]
    adata, key = read_cells(context, files, said.append, **options)
    return adata, key, said


def test_genes_that_all_have_and_every_cell_are_kept(tmp_path: Path) -> None:
    parts = {"s.h5ad": make("abcd", "x"), "t.h5ad": make("dbxa", "y", seed=1)}
    adata, key, said = joined(tmp_path, parts)
    assert key == "file"
    assert list(adata.obs["file"]) == ["s"] * 3 + ["t"] * 3
    assert set(adata.var_names) == {"a", "b", "d"}
    assert list(adata.obs_names[:4]) == ["xAAA-0", "xAAA-1", "xAAA-2", "yAAA-0"]
    for rows, part in ((slice(0, 3), parts["s.h5ad"]), (slice(3, 6), parts["t.h5ad"])):
        np.testing.assert_array_equal(
            adata.X[rows].toarray(), part[:, adata.var_names].X.toarray()
        )
    assert said[0] == f"{tmp_path / 's.h5ad'}: 3 cells, 4 genes."
    assert f"3 genes that all files have (left out: 1 of {tmp_path / 's.h5ad'}, 1 of" in said[-1]


def with_identifiers(adata: AnnData, identifiers: str) -> AnnData:
    adata.var["gene_ids"] = [f"ENSG{identifier}.1" for identifier in identifiers]
    return adata


def test_genes_are_matched_by_identifier_where_names_stand_for_others(tmp_path: Path) -> None:
    """Two genes share a symbol, which is numbered in the order of each file."""
    parts = {
        "s.h5ad": with_identifiers(make("abcd", "x"), "1234"),
        "t.h5ad": with_identifiers(make("abdc", "y", seed=1), "2143"),  # a and b the other way
    }
    adata, _, said = joined(tmp_path, parts)
    assert set(adata.var_names) == {"ENSG1", "ENSG2", "c", "d"}
    assert any("2 names, such as 'a', stand for different genes in the files" in s for s in said)
    first, second = (adata[cells].to_df() for cells in (slice(0, 3), slice(3, 6)))
    assert first.iloc[0][["ENSG1", "ENSG2"]].tolist() == [0, 1]
    assert second.iloc[0][["ENSG1", "ENSG2"]].tolist() == [101, 100]
    mouse = {
        "s.h5ad": with_identifiers(make("abc", "x"), "123"),
        "t.h5ad": with_identifiers(make("abc", "y"), "789"),
    }
    with pytest.raises(
        ValueError, match="3 of 3 genes.*different identifiers, such as 'a': ENSG1"
    ):
        joined(tmp_path, mouse)


def test_names_of_cells_stay_unless_they_clash(tmp_path: Path) -> None:
    adata, _, said = joined(tmp_path, {"s.h5ad": make("ab"), "t.h5ad": make("ab")})
    assert adata.obs_names.is_unique
    assert list(adata.obs_names[2:4]) == ["AAA-2_s", "AAA-0_t"]
    assert "have the file behind them" in said[-1]


def test_columns_of_any_file_are_kept_and_can_be_written(tmp_path: Path) -> None:
    columns = {
        "text": ["u", "v", "w"],
        "flag": [True, False, True],
        "number": [1, 2, 3],
        "kind": pd.Categorical(["A", "B", "A"]),
    }
    parts = {"s.h5ad": make("ab", **columns), "t.h5ad": make("ab", kind=["C", "A", "A"])}
    adata, _, _ = joined(tmp_path, parts)
    adata.write_h5ad(tmp_path / "o.h5ad")
    obs = ad.read_h5ad(tmp_path / "o.h5ad").obs
    assert list(obs["kind"]) == ["A", "B", "A", "C", "A", "A"]
    for name, values in list(columns.items())[:3]:
        assert list(obs[name][:3]) == values
        assert obs[name][3:].isna().all()


def test_what_annotates_genes_alike_and_layers_of_all_are_kept(tmp_path: Path) -> None:
    parts = {"s.h5ad": make("ab"), "t.h5ad": make("ba", seed=1)}
    for part in parts.values():
        part.var["gene_ids"] = [f"ENSG{gene}" for gene in part.var_names]
        part.layers["counts"] = part.X + sparse.csr_matrix(np.ones(part.shape))
        part.raw = part.copy()
    parts["s.h5ad"].layers["other"] = parts["s.h5ad"].X
    adata, _, _ = joined(tmp_path, parts, layer="counts")
    assert list(adata.var["gene_ids"]) == [f"ENSG{gene}" for gene in adata.var_names]
    assert list(adata.layers) == ["counts"]
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), adata.X.toarray() + 1)
    assert adata.raw.shape == (6, 2)


def test_a_column_of_all_files_is_used(tmp_path: Path) -> None:
    parts = {"s.h5ad": make("ab", run=[1, 1, 2]), "t.h5ad": make("ab", run=[2, 3, 3])}
    adata, key, said = joined(tmp_path, parts, "run")
    assert (key, list(adata.obs["run"])) == ("run", [1, 1, 2, 2, 3, 3])
    assert "file" not in adata.obs
    expected = "All files have obs['run'], which tells their cells apart, not the file"
    assert f"{expected} (in several files: 2)." in said


def test_a_column_of_no_file_receives_their_names(tmp_path: Path) -> None:
    adata, key, said = joined(tmp_path, {"s.h5ad": make("ab"), "t.h5ad": make("ab")}, "arm")
    assert (key, list(adata.obs["arm"])) == ("arm", ["s"] * 3 + ["t"] * 3)
    assert "obs['arm'] tells the files apart: s, t." in said


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x/a.h5ad", "x/b.rep1.h5ad.gz", "c.zarr"], ["a", "b.rep1", "c"]),
        (["x/outs/f.h5", "y/outs/f.h5"], ["x", "y"]),
        (["x/outs/f.h5", "y/f.h5", "y/g.h5"], ["x/outs/f.h5", "y/f.h5", "y/g.h5"]),
        (["x/a.h5ad", "x/a.h5"], ["a.h5ad", "a.h5"]),
        (["x/f", "x/f/f"], ["f", "f/f"]),
        (["GSE/A_matrix.mtx.gz", "GSE/B.matrix.mtx"], ["A", "B"]),
        (["x/matrix.mtx.gz", "y/matrix.mtx.gz"], ["x", "y"]),
        (["a.h5mu:rna", "a.h5mu:prot"], ["a.h5mu:rna", "a.h5mu:prot"]),
    ],
)
def test_names_of_files_are_short_and_differ(files: list[str], names: list[str]) -> None:
    assert names_of([Path(file) for file in files]) == names
    assert names_of([Path("/data") / file for file in files]) == names


def with_twice(adata: AnnData) -> AnnData:
    adata.var_names = ["a", "a"]
    return adata


REFUSED: dict[str, tuple[dict[str, AnnData], dict, str]] = {
    "no gene of both": (
        {"s.h5ad": make("ab"), "t.h5ad": make("xy")},
        {},
        r"share no gene: .*s.h5ad has 'a', 'b'; .*t.h5ad has 'x', 'y'\. Genes are matched by name",
    ),
    "key of some": (
        {"s.h5ad": make("ab", run=1), "t.h5ad": make("ab")},
        {"key": "run"},
        r"`batch_key='run'` is a column of obs of .*s.h5ad, and not of .*t.h5ad\. All files need",
    ),
    "column of the file is taken": (
        {"s.h5ad": make("ab"), "t.h5ad": make("ab", file=1)},
        {},
        "t.h5ad has a column 'file' of obs already.*Name a column: `batch_key`",
    ),
    "layer of some": (
        {"s.h5ad": make("ab"), "t.h5ad": make("ab")},
        {"layer": "counts"},
        "`layer='counts'` is not in `adata.layers`",
    ),
    "gene twice": (
        {"s.h5ad": make("ab"), "t.h5ad": with_twice(make("ab"))},
        {},
        "holds 1 name more than once",
    ),
}


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("name", REFUSED)
def test_files_that_do_not_go_together(name: str, tmp_path: Path) -> None:
    parts, options, message = REFUSED[name]
    with pytest.raises((ValueError, KeyError), match=message):
        joined(tmp_path, parts, **options)


# The commands


@pytest.fixture
def halves(tmp_path: Path, toy: AnnData) -> list[Path]:
    files = [tmp_path / "first.h5ad", tmp_path / "second.h5ad"]
    for file, (_, rows) in zip(files, toy.obs.groupby("batch", observed=True), strict=True):
        toy[rows.index].copy().write_h5ad(file)
    return files


def test_several_files_are_integrated_as_their_concatenation(
    halves: list[Path], tmp_path: Path
) -> None:
    result = run("integrate", *halves, "-o", tmp_path / "o.h5ad", *SHORT)
    assert result.exit_code == 0, result.output
    assert "obs['file'] tells the files apart: first, second." in result.stdout
    parts = {file.stem: ad.read_h5ad(file) for file in halves}
    ad.concat(parts, label="file").write_h5ad(tmp_path / "one.h5ad")
    one = ("integrate", tmp_path / "one.h5ad", "--batch-key", "file")
    assert run(*one, "-o", tmp_path / "p.h5ad", *SHORT).exit_code == 0
    found, expected = (ad.read_h5ad(tmp_path / f"{name}.h5ad") for name in "op")
    np.testing.assert_array_equal(found.obsm["X_paired"], expected.obsm["X_paired"])
    assert list(found.obs["file"]) == list(expected.obs["file"])


def test_the_arms_of_a_treatment_may_be_files(
    make_treated: Callable[[], AnnData], tmp_path: Path
) -> None:
    cells = make_treated()
    cells.obs["arm"] = np.where(cells.obs["treatment"], "stim", "ctrl")
    cells.obs["dose"] = cells.obs["arm"]
    for arm in ("stim", "ctrl"):
        part = cells[cells.obs["arm"] == arm].copy()
        del part.obs["dose"]
        part.write_h5ad(tmp_path / f"{arm}.h5ad")
    order = [
        *np.flatnonzero(cells.obs["arm"] == "stim"),
        *np.flatnonzero(cells.obs["arm"] == "ctrl"),
    ]
    cells[order].copy().write_h5ad(tmp_path / "all.h5ad")
    options = ("--treatment-key", "dose", "--reference", "ctrl", "--n-latent", 0, "--effects")
    tables = []
    for name, files in {"one": ("all",), "two": ("stim", "ctrl")}.items():
        places = [tmp_path / f"{file}.h5ad" for file in files]
        output = ("-o", tmp_path / f"{name}_out.h5ad")
        result = run("deconfound", *places, *options, tmp_path / f"{name}.csv", *output)
        assert result.exit_code == 0, result.output
        tables.append(pd.read_csv(tmp_path / f"{name}.csv", index_col="gene")["log2_fc"])
    pd.testing.assert_series_equal(*tables)
    without = [tmp_path / "stim.h5ad", tmp_path / "ctrl.h5ad"]
    result = run("deconfound", *without, "-o", tmp_path / "x.h5ad")
    assert result.exit_code == 1
    assert "such as --reference ctrl" in result.stderr


NOT_TOGETHER: dict[str, tuple[Callable[[list[Path]], list[object]], str]] = {
    "not there": (
        lambda f: [f[0], f[0].with_name("b.h5ad"), "-o", "o.h5ad"],
        "b.h5ad is not a file, nor a folder. Name an .h5ad file, Cell Ranger's .h5 file or "
        "folder, or an .h5mu, .loom or .zarr. Several files are concatenated (`anndata.concat`)",
    ),
    "twice": (
        lambda f: [f[0], f[0].parent / "." / f[0].name, "-o", "o.h5ad"],
        "first.h5ad is named twice. Several files are concatenated",
    ),
    "output is one of them": (lambda f: [*f, "-o", f[1], "--overwrite"], "h5ad is the input"),
    "one and no key": (
        lambda f: [f[0], "-o", "o.h5ad"],
        "--batch-key is missing, and {folder}/first.h5ad is the only file. Name the column of obs",
    ),
    "no such layer": (
        lambda f: [*f, "-o", "o.h5ad", "--layer", "x"],
        "--layer x is not in layers of {folder}/first.h5ad",
    ),
}


@pytest.mark.parametrize("name", NOT_TOGETHER)
def test_it_refuses_with_one_line(
    name: str, halves: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = NOT_TOGETHER[name]
    result = run("integrate", *arguments(halves))
    assert result.exit_code == 1
    assert message.format(folder=tmp_path) in result.stderr
    assert result.stderr.startswith("error: ")
    assert {path.name for path in tmp_path.iterdir()} == {"first.h5ad", "second.h5ad"}


def test_a_column_of_text_and_of_numbers_is_refused_before_the_fit(
    halves: list[Path], tmp_path: Path
) -> None:
    second = ad.read_h5ad(halves[1])
    second.obs["lane"] = 2
    second.write_h5ad(halves[1])
    result = run("integrate", *halves, "-o", tmp_path / "o.h5ad")
    assert result.exit_code == 1
    assert "error: `adata.obs['lane']` cannot be written into an .h5ad file" in result.stderr
    assert "and no mix of them: convert it" in result.stderr
    assert "Epoch" not in result.output


def test_a_name_that_is_nearly_a_column_is_refused(tmp_path: Path) -> None:
    parts = {name: make("abc", name[0], cell_type="T") for name in ("s.h5ad", "t.h5ad")}
    with pytest.raises(KeyError, match="`batch_key='cell_typ'` is in no file.*Did you mean that"):
        joined(tmp_path, parts, key="cell_typ")


def test_arms_that_are_files_are_doubted(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("ctrl.h5ad", "stim.h5ad")]
    for file in files:
        make("abc", file.stem).write_h5ad(file)
    options = {"key": None, "argument": "treatment_key", "layer": None}
    with pytest.warns(UserWarning, match="Every arm is one file.*p-values are as if nothing did"):
        read_cells(SimpleNamespace(meta={}), files, lambda _: None, **options)
