"""The command that deconvolves: what it writes and says, and what it refuses."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from functools import partialmethod
from hashlib import sha256
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner, Result

from scovert.cli import _deconvolve, app
from scovert.model import BulkBudget, BulkDeconvolution
from scovert.simulate import bulk

TYPES = {"CD4 T cells": 61, "CD8 T": 47, "Monocytes": 53}
N_GENES, N_SAMPLES = 403, 5


@pytest.fixture(autouse=True, scope="module")
def few_steps() -> Iterator[None]:
    """Fit in a quarter of the steps, which the command has no option for."""
    budget = BulkBudget(n_steps=60, n_bootstrap=10, n_cohorts=1, n_cohort_bootstrap=5)
    short = partialmethod(BulkDeconvolution.deconvolve, budget=budget)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BulkDeconvolution, "deconvolve", short)
        yield


def make_reference(seed: int) -> AnnData:
    """Make cells of three types that most genes tell apart, with columns of a study."""
    profile = np.random.default_rng(0).gamma(0.4, 6.0, (len(TYPES), N_GENES))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(TYPES)), list(TYPES.values())))
    obs = {
        "kind": np.array(list(TYPES))[labels],
        "study": rng.choice(["s1", "s2"], len(labels)),
        "donor": rng.choice(["d1", "d2", "d3"], len(labels)),
        "species": "human",
    }
    cells = AnnData(
        sparse.csr_matrix(rng.poisson(profile[labels]).astype(np.float32)),
        obs=pd.DataFrame(obs, index=[f"cell {i}" for i in range(len(labels))]),
        var=pd.DataFrame(index=[f"gene {g}" for g in range(N_GENES)]),
    )
    cells.layers["raw"] = cells.X.copy()
    return cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two references, and samples as a table both ways round and as .h5ad."""
    folder = tmp_path_factory.mktemp("bulk")
    for seed in (1, 2):
        make_reference(seed).write_h5ad(folder / f"ref{seed}.h5ad")
    samples = bulk(make_reference(3), "kind", n_samples=N_SAMPLES, n_cells=300)
    table = samples.to_df().astype(int)
    table.to_csv(folder / "samples.csv")
    table.T.to_csv(folder / "genes.tsv.gz", sep="\t")
    samples.layers["tpm"] = samples.X / samples.X.sum(axis=1, keepdims=True) * 1e6
    samples.write_h5ad(folder / "bulk.h5ad")
    (folder / "other_intervals.csv").touch()
    (folder / "others.csv").write_text("CD8 T,1\nDC,2\n")
    (folder / "twice.csv").write_text("CD8 T,1\nMonocytes,2\nCD8 T,3\n")
    truth = samples.obsm["truth_proportions"]
    measured = truth.iloc[:2].rename(columns={"Monocytes": "Mono"})
    measured.insert(0, "T", measured.pop("CD4 T cells") + measured.pop("CD8 T"))
    measured.to_csv(folder / "measured.csv")
    return folder


def run(folder: Path, output: Path, *arguments: object, source: object = "samples.csv") -> Result:
    """Deconvolve with the first reference, unless `source` names others."""
    files = source if isinstance(source, tuple) else ("ref1.h5ad", source)
    options = ("--labels-key", "kind", "-o", output, "--interval", 0, *arguments)
    names = [*(folder / file for file in files), *options]
    return CliRunner().invoke(app, ["deconvolve", *map(str, names)])


def found_in(output: Path) -> pd.DataFrame:
    return ad.read_h5ad(output).obsm["bulk_proportions"]


def truth_of(folder: Path) -> pd.DataFrame:
    return ad.read_h5ad(folder / "bulk.h5ad").obsm["truth_proportions"]


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, pd.DataFrame]:
    """Run with a table and no other option: what it said, and the proportions."""
    output = tmp_path_factory.mktemp("plain") / "o.h5ad"
    places = ("--table", output.with_name("p.csv"), "--report", output.with_name("r.html"))
    result = run(folder, output, *places)
    assert result.exit_code == 0, result.output
    return result, found_in(output)


def test_it_writes_what_the_model_finds(folder: Path, tmp_path: Path) -> None:
    before = {f.name: sha256(f.read_bytes()).digest() for f in folder.iterdir()}
    output, table, saved = (tmp_path / name for name in ("o.h5ad", "tables/p.csv", "model"))
    options = ("--table", table, "--save-model", saved, "--kind", "counts", "--interval", 0.8)
    options += ("--subject-key", "donor", "--layer", "raw", "--cell-size", "reference")
    result = run(folder, output, *options)
    assert result.exit_code == 0, result.output
    assert {f.name: sha256(f.read_bytes()).digest() for f in folder.iterdir()} == before
    written, proportions = ad.read_h5ad(output), pd.read_csv(table, index_col="sample")
    assert written.shape == (N_SAMPLES, N_GENES)
    pd.testing.assert_frame_equal(written.obsm["bulk_proportions"], proportions, check_names=False)
    assert (written.obsm["bulk_lower"] <= proportions).all(axis=None)
    assert (written.obsm["bulk_upper"] >= proportions).all(axis=None)
    assert (proportions - truth_of(folder)[proportions.columns]).abs().max(axis=None) < 0.05
    rows = pd.read_csv(tmp_path / "tables" / "p_intervals.csv")
    assert len(rows) == N_SAMPLES * len(TYPES)
    for column, expected in {"proportion": "bulk_proportions", "upper": "bulk_upper"}.items():
        wide = rows.pivot(index="sample", columns="type", values=column)
        pd.testing.assert_frame_equal(wide, written.obsm[expected], check_names=False)
    ends = rows[["relative_lower", "proportion", "relative_upper"]]
    assert (ends.diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    assert f"{output}, {table}, {tmp_path / 'tables' / 'p_intervals.csv'}." in result.stdout
    model = BulkDeconvolution.load(saved, ad.read_h5ad(folder / "ref1.h5ad"))
    again = model.get_proportions(
        ad.read_h5ad(folder / "bulk.h5ad"), kind="counts", cell_size="reference"
    )
    np.testing.assert_allclose(again, proportions, atol=1e-6)


def test_genes_are_found_by_other_names(folder: Path, plain: tuple, tmp_path: Path) -> None:
    identifiers = [f"ENSG{g:011d}" for g in range(N_GENES)]
    reference = make_reference(1)
    reference.var["gene_ids"] = identifiers
    reference.write_h5ad(tmp_path / "reference.h5ad")
    table = pd.read_csv(folder / "samples.csv", index_col=0)
    table.set_axis(identifiers, axis=1).to_csv(tmp_path / "samples.csv")
    other = run(tmp_path, tmp_path / "other.h5ad", source=("reference.h5ad", "samples.csv"))
    assert other.exit_code == 0, other.output
    assert "matched by reference.var['gene_ids'] and bulk.var_names" in other.stderr
    assert "matched by" not in plain[0].output
    pd.testing.assert_frame_equal(found_in(tmp_path / "other.h5ad"), plain[1])


def test_it_says_what_was_assumed_and_found(folder: Path, plain: tuple) -> None:
    result, found = plain
    said = result.stdout
    assert "ref1.h5ad: 161 cells of 3 types, 403 genes." in said
    assert "samples.csv: 403 genes in columns, 5 samples in rows." in said
    assert re.search(
        r"share \d+ genes with enough counts, of which \d+ tell the types apart; taken as counts",
        said,
    )
    assert "RNA per cell: table (CD4 T cells as CD4 T, Monocytes as monocyte)." in said
    assert re.search(
        r"Residual sd of a sample: 0\.\d\d \(median\), at most 0\.\d\d \(sample_", said
    )
    assert re.search(r"Sd of the shift of genes: 0\.\d\d\.\n", said)
    (output, table, page) = re.search(r"Written to (.*), (.*), (.*)\.\n", said).groups()
    assert "3 cell types in 5 bulk samples" in Path(page).read_text()
    pd.testing.assert_frame_equal(found_in(output), found)
    mean = pd.read_csv(table, index_col="sample").mean()
    for label in TYPES:
        assert re.search(rf"{label} +{100 * mean[label]:.1f}\n", said)
    assert f"warning: X of {folder / 'samples.csv'} is taken as --kind counts" in result.stderr
    assert "`kind" not in result.output


def test_types_that_the_table_does_not_know_are_named(folder: Path, tmp_path: Path) -> None:
    cells = make_reference(1)
    cells.obs["kind"] = cells.obs["kind"].replace({"Monocytes": "hepatocyte"})
    cells.write_h5ad(tmp_path / "ref.h5ad")
    result = run(folder, tmp_path / "o.h5ad", source=(tmp_path / "ref.h5ad", "samples.csv"))
    assert result.exit_code == 0, result.output
    assert "(CD4 T cells as CD4 T, by their counts in the reference: hepatocyte)." in result.stdout
    assert "has no number for ['hepatocyte'], but for ['CD4 T cells', 'CD8 T']" in result.stderr
    assert "(a mapping), --cell-size reference for counts of all" in result.stderr
    types = ad.read_h5ad(tmp_path / "o.h5ad").uns["bulk"]["types"]
    assert types["cell_size_origin"].to_dict() == {
        "CD4 T cells": "table", "CD8 T": "table", "hepatocyte": "reference"
    }  # fmt: skip


def test_it_is_quiet_reproducible_and_takes_any_table(
    folder: Path, plain: tuple, tmp_path: Path
) -> None:
    for source, kind in (("genes.tsv.gz", "auto"), ("bulk.h5ad", "Counts")):
        options = ("--quiet", "--kind", kind)  # kinds may be capital
        result = run(folder, tmp_path / f"{source}.h5ad", *options, source=source)
        assert result.exit_code == 0, result.output
        assert result.output == ""
        written = ad.read_h5ad(tmp_path / f"{source}.h5ad")
        assert "bulk_lower" not in written.obsm
        np.testing.assert_array_equal(written.obsm["bulk_proportions"], plain[1])
    assert "truth_proportions" in written.obsm  # what was there is kept


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_progress_is_shown_unless_quiet(
    quiet: tuple, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scovert.core._progress import stage

    is_hidden = []

    def shown(*arguments: object, **options: object) -> object:
        bar = stage(*arguments, **options)
        is_hidden.append(bar.disable)
        return bar

    monkeypatch.setattr("scovert.model.bulk._deconvolve.stage", shown)
    assert run(folder, tmp_path / "o.h5ad", *quiet).exit_code == 0
    assert is_hidden == [bool(quiet)]


def test_references_are_read_like_any_cells(folder: Path, plain: tuple, tmp_path: Path) -> None:
    packed = gzip.compress((folder / "ref1.h5ad").read_bytes())
    (tmp_path / "ref.h5ad.gz").write_bytes(packed)
    files = (tmp_path / "ref.h5ad.gz", "samples.csv")
    result = run(folder, tmp_path / "o.h5ad", source=files)
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(found_in(tmp_path / "o.h5ad"), plain[1])


def test_samples_that_are_not_there_are_missed_before_the_fit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_deconvolve, "read", lambda *_: pytest.fail("a reference was read"))
    result = run(folder, tmp_path / "o.h5ad", source="no.csv")
    assert "no.csv is not a file. Name a table or an .h5ad file" in result.stderr


def test_what_is_where_results_go_is_said_before_they_are_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = ad.read_h5ad(folder / "bulk.h5ad")
    samples.obsm["bulk_proportions"] = samples.obsm["truth_proportions"]
    samples.write_h5ad(tmp_path / "bulk.h5ad")
    monkeypatch.setattr(_deconvolve, "_average", lambda *_: pytest.fail("it was deconvolved"))
    result = run(folder, tmp_path / "o.h5ad", source=tmp_path / "bulk.h5ad")
    assert result.exit_code == 1
    assert "error: The input holds ['obsm/bulk_proportions'] already" in result.stderr


def test_several_references_are_averaged(folder: Path, plain: tuple, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "2.h5ad", source=("ref2.h5ad", "samples.csv")).exit_code == 0
    single = plain[1], found_in(tmp_path / "2.h5ad")
    files = ("ref1.h5ad", "ref2.h5ad", "samples.csv")
    result = run(folder, tmp_path / "o.h5ad", "--save-model", tmp_path / "both", source=files)
    assert result.exit_code == 0, result.output
    mean = np.exp((np.log(single[0] + 0.001) + np.log(single[1] + 0.001)) / 2) - 0.001
    found = found_in(tmp_path / "o.h5ad")
    np.testing.assert_allclose(found, mean.div(mean.sum(axis=1), axis=0), atol=1e-6)
    assert "The references disagree on" in result.stdout
    assert result.stderr.count("is taken as --kind counts") == 1
    assert "ref2.h5ad: 161 cells" in result.stdout
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"ref1", "ref2"}


def test_measured_samples_correct_the_others(folder: Path, plain: tuple, tmp_path: Path) -> None:
    """The simulated types do not differ in RNA as those of the table do."""
    arguments = ("--measured", folder / "measured.csv", "--group", "T=CD4 T cells, CD8 T")
    result = run(folder, tmp_path / "o.h5ad", *arguments, "--group", "Mono=Monocytes")
    assert result.exit_code == 0, result.output
    error, before = (
        (found - truth_of(folder)).iloc[2:]["Monocytes"].abs().mean()
        for found in (found_in(tmp_path / "o.h5ad"), plain[1])
    )
    assert error < 0.5 * before


def test_empty_fields_were_not_measured(folder: Path, tmp_path: Path) -> None:
    table, file = truth_of(folder)[:3], tmp_path / "measured.csv"
    table.iloc[0, 1] = table.iloc[2] = np.nan
    table.to_csv(file)
    result = run(folder, tmp_path / "o.h5ad", "--measured", file)
    assert result.exit_code == 0, result.output
    assert f"warning: '{table.index[2]}' of --measured (1 in all) left out" in result.stderr
    assert ad.read_h5ad(tmp_path / "o.h5ad").uns["bulk"]["n_measured"] == 2


def test_expression_by_condition(folder: Path, tmp_path: Path) -> None:
    samples = ad.read_h5ad(folder / "bulk.h5ad")
    samples.obs["arm"] = ["a", "b", "a", "b", "b"]
    samples.write_h5ad(tmp_path / "bulk.h5ad")
    options = ("--condition-key", "arm", "--save-model", tmp_path / "model")
    result = run(folder, tmp_path / "o.h5ad", *options, source=tmp_path / "bulk.h5ad")
    assert result.exit_code == 0, result.output
    layers = ad.read_h5ad(tmp_path / "o.h5ad").layers
    assert {f"bulk_{kind}" for kind in TYPES} <= set(layers)
    profiles = layers["bulk_Monocytes"]
    np.testing.assert_array_equal(profiles[0], profiles[2])
    assert not np.array_equal(profiles[0], profiles[1], equal_nan=True)


def test_sizes_can_come_from_a_file(folder: Path, plain: tuple, tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("type,rna\nCD4 T cells,1\nCD8 T,1\nMonocytes,4\n")
    result = run(folder, tmp_path / "o.h5ad", "--cell-size", sizes)
    assert result.exit_code == 0, result.output
    by_file, by_table = (
        shares["Monocytes"] / shares["CD8 T"]
        for shares in (found_in(tmp_path / "o.h5ad"), plain[1])
    )
    np.testing.assert_allclose(by_file * 4, by_table * 2.13 / 0.98)


def test_names_are_text_in_all_tables(folder: Path, tmp_path: Path) -> None:
    """Samples that look like numbers, types with commas, and sizes without a first row."""
    kinds = {"CD4 T cells": "CD4-positive, alpha-beta T cell", "CD8 T": "T, CD8"}
    reference = ad.read_h5ad(folder / "ref1.h5ad")
    reference.obs["kind"] = reference.obs["kind"].astype(str).replace(kinds)
    reference.write_h5ad(tmp_path / "ref.h5ad")
    names = ["1.1", "1.10", "001", "NA", "1"]
    samples = ad.read_h5ad(folder / "bulk.h5ad")
    samples.obs_names = names
    samples.to_df().astype(int).T.to_csv(tmp_path / "bulk.tsv", sep="\t")
    measured = truth_of(folder).set_axis(names).rename(columns=kinds).loc[["1.10", "001", "NA"]]
    mono = measured.pop("Monocytes")
    sizes = dict.fromkeys(measured, 1.0) | {"Monocytes": 4.0}
    pd.DataFrame({"T": measured.sum(axis=1), "Monocytes": mono}).to_csv(tmp_path / "measured.csv")
    pd.Series(sizes).to_csv(tmp_path / "sizes.csv", header=False)
    source = (tmp_path / "ref.h5ad", tmp_path / "bulk.tsv")
    options = ("--measured", tmp_path / "measured.csv", "--cell-size", tmp_path / "sizes.csv")
    options += ("--group", f"T={','.join(measured)}", "--table", tmp_path / "p.csv")
    result = run(folder, tmp_path / "o.h5ad", *options, source=source)
    assert result.exit_code == 0, result.output
    written = ad.read_h5ad(tmp_path / "o.h5ad")
    assert written.uns["bulk"]["n_measured"] == 3
    assert "has no number" not in result.stderr
    table = pd.read_csv(tmp_path / "p.csv", dtype={"sample": str}, keep_default_na=False)
    assert table["sample"].tolist() == written.obs_names.tolist() == names
    assert table.columns[1:].tolist() == sorted(sizes)
    samples.write_h5ad(tmp_path / "bulk.h5ad")  # which has its names from elsewhere
    again = run(
        folder, tmp_path / "o.h5ad", *options, "--overwrite", source=(source[0], "bulk.h5ad")
    )
    assert again.exit_code == 1
    assert "--measured has samples '1.10', '001', 'NA', of which 3 are unknown" in again.stderr


def test_tables_with_identifiers_beside_symbols(
    folder: Path, plain: tuple, tmp_path: Path
) -> None:
    table = pd.read_csv(folder / "samples.csv", index_col=0).T
    table.insert(0, "gene_id", [f"ENSG{g:011d}" for g in range(len(table))])
    table.set_index("gene_id", append=True).swaplevel().to_csv(
        tmp_path / "bulk.csv", index_label=["gene_id", "gene_name"]
    )
    for arguments in ((), ("--gene-column", "gene_name")):
        output, source = tmp_path / "o.h5ad", tmp_path / "bulk.csv"
        result = run(folder, output, "--overwrite", *arguments, source=source)
        assert result.exit_code == 0, result.output
        assert "genes by column 'gene_name', descriptions of genes in 'gene" in result.stdout
        pd.testing.assert_frame_equal(found_in(output), plain[1])


def test_other_options_arrive(folder: Path, tmp_path: Path) -> None:
    options = ("--bulk-layer", "tpm", "--kind", "tpm", "--unknown", "--n-states", 1)
    options += ("--min-cells-per-type", 7)
    result = run(folder, tmp_path / "o.h5ad", *options, "--batch-key", "study", source="bulk.h5ad")
    assert result.exit_code == 0, result.output
    written = ad.read_h5ad(tmp_path / "o.h5ad")
    assert written.obsm["bulk_proportions"].columns[-1] == "unknown"
    assert written.uns["bulk"]["params"]["n_states"] == 1
    assert written.uns["bulk"]["params"]["min_cells_per_type"] == 7
    assert "taken as tpm" in result.stdout
    assert "disagree" in result.stdout  # one fit for each study


REFUSED: dict[str, tuple[dict, tuple[object, ...], str]] = {
    "one file": ({"source": ("samples.csv",)}, (), "is the only file. Name the annotated cells"),
    "twice": ({"source": ("ref1.h5ad", "ref1.h5ad", "samples.csv")}, (), "are called 'ref1'"),
    "no reference": ({"source": ("no.h5ad", "samples.csv")}, (), "no.h5ad is not a file"),
    "no samples": ({"source": "no.csv"}, (), "no.csv is not a file"),
    "other genes": ({"source": "measured.csv"}, (), "has none of the 403 genes"),
    "key": (
        {},
        ("--labels-key", "x"),
        "--labels-key x is not a column of obs of {folder}/ref1.h5ad (columns: ['kind', 'study', "
        "'donor', 'species']). Name the annotated cells first, and the bulk samples at last",
    ),
    "swapped": (
        {"source": ("bulk.h5ad", "ref1.h5ad")},
        (),
        "of {folder}/bulk.h5ad (columns: []). Name the annotated cells first",
    ),
    "swapped table": (
        {"source": ("samples.csv", "ref1.h5ad")},
        (),
        "{folder}/samples.csv is a table, and annotated cells are .h5ad files. Name the",
    ),
    "layer": ({}, ("--layer", "x"), "--layer x is not in layers of {folder}/ref1.h5ad"),
    "bulk layer": (
        {"source": "bulk.h5ad"},
        ("--bulk-layer", "x"),
        "--bulk-layer x is not in layers of {folder}/bulk.h5ad",
    ),
    "donor": ({}, ("--subject-key", "x"), "is not a column of obs of {folder}/ref1.h5ad"),
    "condition": (
        {},
        ("--condition-key", "x"),
        "--condition-key x is not a column of obs of {folder}/samples.csv",
    ),
    "kind": (
        {"source": "bulk.h5ad"},
        ("--kind", "tpm"),
        "error: X of {folder}/bulk.h5ad does not look like TPM: ",
    ),
    "kind, way out": ({"source": "bulk.h5ad"}, ("--kind", "tpm"), "Pass --kind counts"),
    "one type": (
        {},
        ("--labels-key", "species"),
        "error: obs['species'] of {folder}/ref1.h5ad holds one type only",
    ),
    "few cells": (
        {},
        ("--min-cells-per-type", 50),
        "The types {{'CD8 T': 47}} of obs['kind'] of {folder}/ref1.h5ad have fewer than "
        "--min-cells-per-type 50 cells",
    ),
    "sizes": ({}, ("--cell-size", "{folder}/measured.csv"), "has 2 columns of numbers. Types in"),
    "sizes of others": ({}, ("--cell-size", "{folder}/others.csv"), "--cell-size names ['DC']"),
    "sizes twice": (
        {},
        ("--cell-size", "{folder}/twice.csv"),
        "twice.csv has more than one number for ['CD8 T']",
    ),
    "group twice": (
        {},
        ("--measured", "{folder}/measured.csv", "--group", "T=CD8 T", "--group", "T=Monocytes"),
        "--group T=Monocytes names 'T' a second time",
    ),
    "gene column": (
        {},
        ("--gene-column", "x"),
        "--gene-column x is not a column of {folder}/samples.csv (columns: '', 'gene 0',",
    ),
    "gene column of .h5ad": (
        {"source": "bulk.h5ad"},
        ("--gene-column", "x"),
        "--gene-column x is for tables",
    ),
    "measured": ({}, ("--measured", "{folder}/measured.csv"), "--measured has types 'T', 'Mono'"),
    "measured and groups": (
        {},
        ("--measured", "{folder}/measured.csv"),
        "--group can name several types together",
    ),
    "group of others": (
        {},
        ("--measured", "{folder}/measured.csv", "--group", "T=CD8"),
        "--group T names ['CD8']",
    ),
    "table of intervals exists": (
        {},
        ("--table", "{folder}/other.csv", "--interval", 0.9),
        "other_intervals.csv exists. Name another output",
    ),
    "size": ({}, ("--cell-size", "big"), "--cell-size big is neither one of auto, table"),
    "group": ({}, ("--group", "T"), "--group T is no group"),
    "groups alone": (
        {},
        ("--group", "T=CD8 T"),
        "--group names columns of --measured, which is missing",
    ),
    "no measured": ({}, ("--measured", "no.csv"), "no.csv is not a file"),
    "words": ({}, ("--measured", __file__), "is not a table that can be read"),
    "table exists": ({}, ("--table", __file__), "exists. Name another output"),
    "one output": ({}, ("--table", "o.h5ad"), "is the output of the samples too"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_with_one_line(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    keywords, arguments, message = REFUSED[name]
    arguments = [str(argument).format(folder=folder) for argument in arguments]
    result = run(folder, Path("o.h5ad"), *arguments, **keywords)
    assert result.exit_code == 1
    assert message.format(folder=folder) in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_is_measured_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    """Nor the table of RNA content per cell: all inputs stay."""
    for option in ("--measured", "--cell-size"):
        file = tmp_path / "p.csv"
        file.write_bytes((folder / "measured.csv").read_bytes())
        before = file.read_bytes()
        for table in (file, tmp_path / "." / "p.csv"):
            result = run(
                folder, tmp_path / "o.h5ad", option, file, "--table", table, "--overwrite"
            )
            assert result.exit_code == 1
            assert "is the input. Name another output" in result.stderr
        assert file.read_bytes() == before


def test_messages_are_not_in_python(folder: Path, tmp_path: Path) -> None:
    pd.read_csv(folder / "measured.csv", index_col=0).T.to_csv(tmp_path / "turned.csv")
    options = ("--measured", tmp_path / "turned.csv", "--group", "T=CD8 T")
    turned = run(folder, tmp_path / "o.h5ad", *options)
    assert "looks transposed" in turned.stderr
    assert "exchange rows and columns" in turned.stderr
    column = run(folder, tmp_path / "o.h5ad", "--gene-column", "x", source="bulk.h5ad")
    assert "var['x'] as names of genes" in column.stderr
    for result in (turned, column):
        assert ".T`" not in result.stderr
        assert "adata." not in result.stderr


def test_the_input_is_not_overwritten(folder: Path) -> None:
    result = run(folder, folder / "ref1.h5ad", "--overwrite")
    assert result.exit_code == 1
    assert "is the input. Name another output" in result.stderr


def test_types_that_one_of_several_references_lacks(folder: Path, tmp_path: Path) -> None:
    """What names types may name those of any reference."""
    cells = make_reference(2)
    cells[cells.obs["kind"] != "Monocytes"].copy().write_h5ad(tmp_path / "part.h5ad")
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("CD4 T cells,1\nCD8 T,1.1\nMonocytes,2\n")
    truth = truth_of(folder).iloc[:2]
    truth.to_csv(tmp_path / "types.csv")
    files = ("ref1.h5ad", tmp_path / "part.h5ad", "samples.csv")
    groups = ("--group", "T=CD4 T cells, CD8 T", "--group", "Mono=Monocytes")
    for options, sources in (
        (("--cell-size", sizes, "--measured", tmp_path / "types.csv"), files),
        (("--measured", folder / "measured.csv", *groups), (files[1], files[0], files[2])),
    ):
        result = run(folder, tmp_path / "o.h5ad", "--overwrite", *options, source=sources)
        assert result.exit_code == 0, result.output
        assert set(found_in(tmp_path / "o.h5ad")) == set(TYPES)
    sizes.write_text("CD4 T cells,1\nDC,2\n")
    result = run(folder, tmp_path / "p.h5ad", "--cell-size", sizes, source=files)
    assert result.exit_code == 1
    assert "names ['DC']" in result.stderr
    assert "Monocytes" in result.stderr
