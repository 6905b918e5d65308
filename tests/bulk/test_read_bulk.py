"""Tables of bulk samples: which way round they are, and what is refused."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scovert.data import read_bulk

GENES = [f"GENE{g}" for g in range(30)]
SAMPLES = ["P 1", "NA", "007", "ü"]


@pytest.fixture
def table() -> pd.DataFrame:
    """Counts of genes x samples; the reference has some other genes too."""
    values = np.random.default_rng(0).poisson(50, (len(GENES), len(SAMPLES)))
    return pd.DataFrame(values, index=[*GENES[:20], *(f"EXTRA{g}" for g in range(10))]).set_axis(
        SAMPLES, axis=1
    )


def matches(bulk: ad.AnnData, table: pd.DataFrame) -> bool:
    return (
        list(bulk.obs_names) == list(table.columns)
        and list(bulk.var_names) == list(table.index)
        and np.array_equal(bulk.X, table.to_numpy(np.float32).T)
        and bulk.X.dtype == np.float32
    )


FORMS = {
    "bulk.csv": {"sep": ","},
    "bulk.csv.gz": {"sep": ","},
    "bulk.CSV": {"sep": ";"},
    "bulk.tsv": {"sep": "\t"},
    "bulk.tsv.gz": {"sep": "\t"},
    "bulk.txt": {"sep": "\t", "index_label": "gene id", "quoting": 2},
    "with.bom.csv": {"encoding": "utf-8-sig"},
    "as.R.tab": {"sep": "\t", "index_label": False},  # no name above the first column
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("axes", [("rows", "columns"), ("columns", "rows")])
def test_tables_are_read_either_way_round(
    name: str, axes: tuple[str, str], table: pd.DataFrame, tmp_path: Path
) -> None:
    written = table if axes[0] == "rows" else table.T
    written.to_csv(tmp_path / name, **FORMS[name])
    bulk = read_bulk(tmp_path / name, GENES)
    assert matches(bulk, table)
    assert bulk.uns["source"] == f"{name}: 30 genes in {axes[0]}, 4 samples in {axes[1]}"


def test_it_says_which_way_round(
    table: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table.to_csv(tmp_path / "bulk.csv")
    with caplog.at_level(logging.INFO, logger="scovert"):
        read_bulk(str(tmp_path / "bulk.csv"), pd.Index(GENES))
    assert caplog.messages == ["bulk.csv: 30 genes in rows, 4 samples in columns."]


def test_a_sample_may_be_called_like_a_gene(table: pd.DataFrame, tmp_path: Path) -> None:
    table = table.rename(columns={"P 1": GENES[25]})
    table.to_csv(tmp_path / "bulk.csv")
    assert matches(read_bulk(tmp_path / "bulk.csv", GENES), table)


def test_one_sample_and_fractions(table: pd.DataFrame, tmp_path: Path) -> None:
    table = (table[["ü"]] / 7).round(6)
    table.to_csv(tmp_path / "bulk.csv")
    bulk = read_bulk(tmp_path / "bulk.csv", GENES)
    assert bulk.shape == (1, 30)
    np.testing.assert_allclose(bulk.X[0], table["ü"], rtol=1e-6)


def test_anndata_is_read_as_it_is(table: pd.DataFrame, tmp_path: Path) -> None:
    adata = ad.AnnData(table.T.astype(float))
    adata.layers["tpm"] = adata.X / 3
    adata.write_h5ad(tmp_path / "bulk.h5ad")
    bulk = read_bulk(tmp_path / "bulk.h5ad", GENES)
    assert list(bulk.layers) == ["tpm"]
    np.testing.assert_array_equal(bulk.X, adata.X)
    assert not bulk.uns
    np.testing.assert_array_equal(read_bulk(tmp_path / "bulk.h5ad").X, adata.X)
    adata.T.write_h5ad(tmp_path / "turned.h5ad")
    with pytest.raises(ValueError, match=r"holds genes in `obs` .*write `adata\.T`"):
        read_bulk(tmp_path / "turned.h5ad", GENES)
    with pytest.raises(ValueError, match=r"has none of the 1 genes \(such as 'other'\)"):
        read_bulk(tmp_path / "bulk.h5ad", ["other"])


def edited(table: pd.DataFrame, **columns: object) -> str:
    return table.astype(object).assign(**columns).to_csv()


def texts(table: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """Name of a file, what is in it, and how it is refused."""
    one_bad = table.astype(object)
    one_bad.iloc[6, 2] = "n.d."
    gap = table.astype(object)
    gap.iloc[4, 1] = ""
    infinite = table.astype(float)
    infinite.iloc[3, 3] = np.inf
    both = table.iloc[:4].set_axis(GENES[10:14], axis=1)
    ensembl = table.set_axis([f"ENSG{g:011d}" for g in range(30)])
    versions = table.set_axis([f"ENSMUSG{g:011d}.{g}" for g in range(30)])
    lines = table.to_csv().splitlines()
    return {
        "other names": (
            "bulk.csv", table.rename(index=lambda g: f"x{g}").to_csv(),
            r"none of the 30 genes \(such as 'GENE0', 'GENE1', 'GENE2'\): neither in its rows "
            r"\(such as 'xGENE0', .*nor in its columns \(such as 'P 1', 'NA', '007'\). Name them",
        ),
        "other case": (
            "bulk.csv", table.rename(index=str.title).to_csv(), "upper and lower case",
        ),
        "Ensembl": (
            "bulk.csv", ensembl.to_csv(), "Ensembl identifiers, and symbols are expected",
        ),
        "Ensembl in columns": ("b.csv", ensembl.T.to_csv(), "seems to have Ensembl ident"),
        "versions": ("b.csv", versions.to_csv(), "Ensembl identifiers with versions"),
        "Entrez": ("b.csv", table.set_axis(range(100, 130)).to_csv(), "have numbers, and"),
        "both axes": ("bulk.csv", both.to_csv(), "genes in 4 rows and 4 columns"),
        "no numbers": (
            "bulk.csv", table.map(lambda n: f"{n} reads").to_csv(),
            r"has no numbers: its first entry is '\d+ reads' \(row 'GENE0', column 'P 1'\)",
        ),
        "one word": (
            "bulk.csv", one_bad.to_csv(), r"holds 'n\.d\.' \(row 'GENE6', column '007'; 1 such",
        ),
        "a column of words": (
            "bulk.csv", edited(one_bad, chromosome="chr1"),
            r"holds 'n\.d\.' \(row 'GENE6', column '007'; 1 such entries in 1 columns",
        ),
        "missing": ("bulk.csv", gap.to_csv(), r"holds '' \(row 'GENE4', column 'NA'; 1 such"),
        "infinite": ("bulk.csv", infinite.to_csv(), r"holds 'inf' \(row 'GENE3', column 'ü'"),
        "decimal comma": (
            "bulk.csv", (table / 7).to_csv(sep=";", decimal=","), "has no numbers",
        ),
        "samples twice": (
            "bulk.csv", table.set_axis(["a", "b", "a", "c"], axis=1).to_csv(),
            "holds 1 name of columns more than once, such as 'a'",
        ),
        "samples twice in rows": (
            "bulk.csv", table.set_axis(["a", "b", "a", "c"], axis=1).T.to_csv(),
            "holds 1 name of rows more than once, such as 'a'",
        ),
        "ragged": ("b.csv", "\n".join([lines[0] + ",x,y", *lines[1:]]), "7 names in the first"),
        "broken": ("b.csv", "\n".join([*lines, "a,1,2,3,4,5,6,7"]), "not a table that can be"),
        "empty": ("b.csv", "", "not a table that can be read"),
        "only a header": ("b.csv", lines[0] + "\n", "not a table that can be read"),
        "one column": ("b.csv", "\n".join(GENES), "its first row is 'GENE0'"),
        "spreadsheet": ("bulk.xlsx", "x", r"none of the files that are read"),
        "not h5ad": ("bulk.h5ad", "x", r"not an \.h5ad file"),
    }  # fmt: skip


NAMES = list(texts(pd.DataFrame(1, index=GENES, columns=SAMPLES)))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_refused(name: str, table: pd.DataFrame, tmp_path: Path) -> None:
    file, text, match = texts(table)[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=match) as caught:
        read_bulk(tmp_path / file, GENES)
    assert str(caught.value).startswith(str(tmp_path / file))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"bulk\.csv is not a file"):
        read_bulk(tmp_path / "bulk.csv", GENES)
    with gzip.open(tmp_path / "bulk.tsv.gz", "wb") as file:
        file.write(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a table that can be read"):
        read_bulk(tmp_path / "bulk.tsv.gz", GENES)


@pytest.mark.needs_data
def test_real_samples_are_read_either_way_round(
    read_shared: Callable[[str], ad.AnnData], tmp_path: Path
) -> None:
    bulk = read_shared("deconv_bulk_hoek_pbmc_tpm")[:, ::4]
    bulk.to_df().to_csv(tmp_path / "samples.csv")
    bulk.to_df().T.to_csv(tmp_path / "genes.tsv.gz", sep="\t")
    for reference in ("hao_pbmc", "wholeblood_newman"):
        genes = read_shared(f"deconv_ref_{reference}").var_names
        for file in ("samples.csv", "genes.tsv.gz"):
            found = read_bulk(tmp_path / file, genes)
            assert list(found.obs_names) == list(bulk.obs_names)
            assert list(found.var_names) == list(bulk.var_names)
            np.testing.assert_allclose(found.X, bulk.X, rtol=1e-6)


def test_descriptions_of_genes_are_no_samples(table: pd.DataFrame, tmp_path: Path) -> None:
    table.assign(Length=1000).to_csv(tmp_path / "counts.csv")
    bulk = read_bulk(tmp_path / "counts.csv", GENES)
    assert matches(bulk, table)
    assert (bulk.var["Length"] == 1000).all()
    table.assign(Length=1000).T.to_csv(tmp_path / "turned.csv")
    with pytest.raises(ValueError, match="a sample called 'Length'.*Leave it out"):
        read_bulk(tmp_path / "turned.csv", GENES)


def test_the_content_tells_what_is_compressed(table: pd.DataFrame, tmp_path: Path) -> None:
    """Browsers unpack files and leave their names."""
    (tmp_path / "bulk.csv.gz").write_text(table.to_csv())
    assert matches(read_bulk(tmp_path / "bulk.csv.gz", GENES), table)
