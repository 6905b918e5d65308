"""Tables of bulk samples as other programs write them."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scovert.data import read_bulk

N_GENES = 24
GENES = [f"GENE{g}" for g in range(N_GENES)]
IDS = [f"ENSG{g:011d}" for g in range(N_GENES)]
NO_FEATURE = ("__no_feature", "__ambiguous", "__not_aligned")
STAR = ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")


def counts(samples: list[str], genes: list[str] = GENES) -> pd.DataFrame:
    values = np.random.default_rng(0).poisson(50, (len(genes), len(samples)))
    values[0] = 7 + 2 * np.arange(len(samples))
    return pd.DataFrame(values, genes, samples)


def written(
    folder: Path, table: pd.DataFrame | str, name: str = "bulk.txt", **options: object
) -> Path:
    """Write a table by pandas, or what is in a file."""
    file = folder / name
    text = table if isinstance(table, str) else table.to_csv(**options)
    file.write_bytes(text.encode(options.get("encoding") or "utf-8"))
    return file


def assert_holds(file: Path, table: pd.DataFrame, **options: object) -> None:
    """Read without a warning, with the names and the numbers of genes x samples."""
    with warnings.catch_warnings(action="error"):
        bulk = read_bulk(file, **{"genes": GENES, **options})
    assert bulk.obs_names.tolist() == table.columns.tolist()
    assert bulk.var_names.tolist() == table.index.tolist()
    np.testing.assert_allclose(bulk.X, table.to_numpy().T, rtol=1e-6)


# Names and what separates them

NAMES = {
    "commas": [f"blood, donor {i}, 24h" for i in range(3)],
    "semicolons": [f"donor {i}; 24h; rep 1" for i in range(3)],
    "spaces": ["a b", "c d", "e f"],
    "numbers": ["1.1", "1.10", "001"],
    "whole numbers": ["1", "2", "10"],
    "missing": ["NA", "nan", "None"],
    "quotes": ['5" tube', "d'or", "x"],
    "truth": ["True", "False", "TRUE"],
    "dates": ["1-2", "SEPT9", "2024-01-01"],
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("separator", ["\t", ",", ";", " "])
@pytest.mark.parametrize("turned", [False, True])
def test_names_are_text(names: str, separator: str, turned: bool, tmp_path: Path) -> None:
    table = counts(NAMES[names])
    file = written(tmp_path, table.T if turned else table, sep=separator)
    assert_holds(file, table)


@pytest.mark.parametrize("label", ["gene", "Geneid", "SYMBOL", "#NAME", None, False])
def test_numbers_are_names_below_a_word(label: str | bool | None, tmp_path: Path) -> None:
    """Also if R left out the name of the first column."""
    table = counts(["1", "2", "10"])
    assert_holds(written(tmp_path, table, sep="\t", index_label=label), table)


def test_genes_may_look_like_numbers_or_gaps(tmp_path: Path) -> None:
    genes = ["007", "7", "1.10", "1.1", "NA", "nan", "1e5", "TRUE"]
    table = counts(["a", "b"], genes)
    assert_holds(written(tmp_path, table), table, genes=genes)
    assert_holds(written(tmp_path, table.T), table, genes=genes)


def test_quotes_around_and_spaces_beside(tmp_path: Path) -> None:
    table = counts(["a, b", "c"])
    assert_holds(written(tmp_path, table, quoting=1), table)
    lines = ['gene, "a, b", c', *(f"{g}, {r['a, b']}, {r['c']} " for g, r in table.iterrows())]
    assert_holds(written(tmp_path, "\n".join(lines)), table)
    rows = [f'{i}, "{g}", 5' for i, g in zip(IDS, GENES, strict=True)]
    file = written(tmp_path, "\n".join(["id, name, a", *rows]))
    assert_holds(file, pd.DataFrame({"a": 5}, GENES))


def test_a_semicolon_in_every_gene(tmp_path: Path) -> None:
    """It would separate as well, with names of R."""
    table = counts(["a"], [f"{g};1" for g in GENES])
    assert_holds(written(tmp_path, table, index_label="x"), table, genes=table.index)


TEXTS = {
    "comments": lambda t: "# by x, 1,2\n#\n# x, y, z\n" + t + "# end, of it\n",
    "a hint for Excel": lambda t: "sep=,\n" + t,
    "empty lines": lambda t: "\n\n" + t.replace("\n", "\n\n") + "\n\n",
    "rows of separators": lambda t: t + ",,\n,,\n",
    "columns of separators": lambda t: t.replace("\n", ",,\n"),
    "separators at the end of rows": lambda t: t.replace("\n", ",\n").replace(",\n", "\n", 1),
    "separators at the end of names": lambda t: t.replace("\n", ",\n", 1),
    "lines of Windows": lambda t: t.replace("\n", "\r\n"),
    "lines of old Macs": lambda t: t.replace("\n", "\r"),
    "no last line break": lambda t: t.rstrip(),
    "a column of row numbers": None,
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_around_a_table(name: str, tmp_path: Path) -> None:
    table = counts(["a", "ü"])
    if TEXTS[name] is None:  # pandas wrote its index
        file = written(tmp_path, table.rename_axis("gene").reset_index().to_csv())
        assert_holds(file, table)
        bulk = read_bulk(file, GENES)
        assert list(bulk.var) == ["column 1"]
        bulk.write_h5ad(tmp_path / "bulk.h5ad")
        return
    assert_holds(written(tmp_path, TEXTS[name](table.to_csv(index_label="gene"))), table)


@pytest.mark.parametrize("decimals", [1, 2, 3, 4])
def test_decimals_beside_semicolons(decimals: int, tmp_path: Path) -> None:
    """Points for thousands have three digits behind all of them, and there are none above."""
    table = counts(["a", "b"]) + 10.0**-decimals
    for other in (0.001, 1000.125) if decimals == 3 else (2,):
        table.iloc[0, 0] = other
        assert_holds(written(tmp_path, table, sep=";"), table)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    table = counts(["a", "ü"])
    file = tmp_path / "bulk.txt"
    table.to_csv(file, sep="\t", encoding=encoding)
    assert_holds(file, table)


REFUSED_FORMS = {
    "Latin-1": (lambda: counts(["ü"]).to_csv().encode("latin-1"), "utf-8: save it as UTF-8"),
    "UTF-16 without a mark": (lambda: counts(["a"]).to_csv().encode("utf-16-le"), "it is no text"),
    "a spreadsheet": (lambda: b"PK\x03\x04\xff\xff\0\0", "a spreadsheet.*save it as .csv"),
    "decimal commas": (
        lambda: (counts(["a", "b"]) / 7).to_csv(sep=";", decimal=",").encode(),
        "no numbers: its first entry is '1,0'.*with a point for decimals, without commas",
    ),
    "decimal commas of one sample": (
        lambda: (counts(["a"]) / 7).to_csv(sep=";", decimal=",").encode(),
        "has no numbers: its first entry is '1,0'",
    ),
    "decimal commas of one sample of R": (
        lambda: (counts(["a"]) / 7).to_csv(sep=";", decimal=",", index_label=False).encode(),
        "first entry is '1,0' .row 'GENE0', column 'a'",
    ),
    "decimal commas of R, commas in names": (
        lambda: (counts(["a, 1", "b, 2"]) / 7)
        .to_csv(sep="\t", decimal=",", index_label=False).encode(),
        "first entry is '1,0' .row 'GENE0', column 'a, 1'",
    ),
    "decimal commas between commas": (
        lambda: (counts(["a"]) / 7).to_csv(sep=";", decimal=",", index_label="gene")
        .replace(";", ",").encode(),
        "2 names in the first row, and 3 entries in the others",
    ),
    "a row of words": (
        lambda: pd.concat([pd.DataFrame({"a": "x", "b": "y"}, ["arm"]), counts(["a", "b"])])
        .to_csv().encode(),
        r"holds 'x' \(row 'arm', column 'a'; 2 such entries in 2 col.*rows and columns with any",
    ),
    "a sample with words for gaps": (
        lambda: counts(["a", "b"]).assign(b=["n.d."] * 18 + [*range(6)]).to_csv().encode(),
        "holds 'n.d.' .*column 'b'; 18 such",
    ),
    "some decimal commas": (
        lambda: (counts(["a", "b"]) / 7).assign(a=1).to_csv(sep="\t", decimal=",").encode(),
        r"holds '1,2857.*' \(row 'GENE0', column 'b'; 24 such entries in 1 columns.*point",
    ),
    "thousands": (
        lambda: counts(["a", "b"]).map(lambda n: f"{n * 97:,}").to_csv().encode(),
        r"holds '5,044'.*commas or other signs for thousands",
    ),
    "points for thousands": (
        lambda: counts(["a", "b"]).map(lambda n: f"{n * 97:,}".replace(",", ".")).to_csv(sep=";")
        .encode(),
        "such as 5.044, .*none above 1000: a point seems to stand for thous.*more digit, 5.0440",
    ),
    "per cent": (lambda: counts(["a"]).map("{}%".format).to_csv().encode(), "without per cent"),
    "a sample without a name": (
        lambda: counts(["a", "", "c"]).to_csv().encode(), "a sample without a name, number 2",
    ),
    "an empty column": (
        lambda: counts(["a", "b"]).to_csv(index_label="gene").replace("\nG", "\n,G")
        .replace("gene", ",gene").encode(), "its first column is empty",
    ),
    "a short row": (lambda: b"gene,a,b\nGENE0,1,2\nGENE1,1\n", "row 3 has 2 entries, and others"),
    "only words": (
        lambda: pd.DataFrame({"a": "x", "b": "y"}, GENES).to_csv().encode(), "has no numbers",
    ),
    "only lengths": (
        lambda: pd.DataFrame({"length": 5}, GENES).to_csv().encode(), "a sample called 'length'",
    ),
    "a start without a chromosome": (
        lambda: counts(["start", "b"]).to_csv().encode(), "a sample called 'start'.*rename",
    ),
    "names or numbers": (
        lambda: counts(["1", "2"]).to_csv(index_label="z").encode(),
        r"begins with 'z', '1', '2', which may be names of columns, or the numbers of 'z'\. Write",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_FORMS)
def test_what_cannot_be_told_is_refused(name: str, tmp_path: Path) -> None:
    make, match = REFUSED_FORMS[name]
    (tmp_path / "bulk.txt").write_bytes(make())
    with pytest.raises(ValueError, match=match) as caught:
        read_bulk(tmp_path / "bulk.txt", GENES)
    assert str(caught.value).startswith(str(tmp_path / "bulk.txt"))


# Tables without names of samples


@pytest.mark.parametrize("genes", [GENES, GENES[1:]])
@pytest.mark.parametrize("name", ["S 1.tsv", "S 1.counts", "S 1.txt.gz"])
def test_htseq_writes_one_sample(name: str, genes: list[str], tmp_path: Path) -> None:
    """Also if the reference does not have the first gene."""
    table = counts(["S 1"])
    whole = pd.concat([table, pd.DataFrame({"S 1": 100}, NO_FEATURE)])
    file = written(tmp_path, whole, name, sep="\t", header=False)
    assert_holds(file, table, genes=genes)
    assert_holds(file, table, genes=None)
    assert read_bulk(file, genes).uns["source"] == (
        f"{name}: 24 genes in rows, 1 sample in columns; no first row of names, so the sample is "
        "called like the file; reads outside of genes left out (__no_feature, __ambiguous, "
        "__not_aligned)"
    )


def test_htseq_is_told_by_its_last_rows(tmp_path: Path) -> None:
    table = counts(["S"], [f"gene {i}" for i in range(200)])
    whole = pd.concat([table, pd.DataFrame({"S": 1}, NO_FEATURE)])
    file = written(tmp_path, whole, "S.tsv", sep="\t", header=False)
    assert_holds(file, table, genes=table.index[1:])


def test_htseq_with_names_of_genes(tmp_path: Path) -> None:
    """`--additional-attr` writes a second column, empty for reads outside of genes."""
    table = counts(["S"], IDS)
    table.insert(0, "name", GENES)
    table.loc["__no_feature"] = ["", 5]
    table.loc["__ambiguous"] = ["", 5]
    file = written(tmp_path, table, "S.tsv", sep="\t", header=False)
    expected = counts(["S"])
    with warnings.catch_warnings(action="ignore"):
        bulk = read_bulk(file, GENES)
    assert bulk.var_names.tolist() == GENES
    np.testing.assert_array_equal(bulk.X, expected.T)
    assert bulk.var["column 1"].tolist() == IDS


@pytest.mark.parametrize("names", [NO_FEATURE, STAR, ("no_feature", "ambiguous")])
def test_reads_outside_of_genes_are_left_out(names: tuple[str, ...], tmp_path: Path) -> None:
    table = counts(["a", "b"])
    extra = pd.DataFrame({"a": 1000, "b": 2000}, names)
    for whole in (pd.concat([table, extra]), pd.concat([extra, table])):
        assert_holds(written(tmp_path, whole), table)
        assert_holds(written(tmp_path, whole.T), table)


def test_star_has_three_columns(tmp_path: Path) -> None:
    table = counts(["S1_ReadsPerGene.out", "forward", "reverse"])
    extra = pd.DataFrame(1000, STAR, table.columns)
    file = written(
        tmp_path, pd.concat([extra, table]), "S1_ReadsPerGene.out.tab", sep="\t", header=False
    )
    with pytest.warns(UserWarning, match="is of STAR.*The first is taken.*both strands") as caught:
        bulk = read_bulk(file, GENES)
    assert Path(caught[0].filename) == Path(__file__)
    assert bulk.obs_names.tolist() == ["S1_ReadsPerGene.out"]
    np.testing.assert_array_equal(bulk.X, table.iloc[:, :1].T)
    assert "counts of both strands, the first of three columns of STAR" in bulk.uns["source"]


@pytest.mark.parametrize("first", [(7, 9, 11), (0, 0, 0)])
@pytest.mark.parametrize("genes", [GENES, GENES[1:]])
def test_samples_need_names(first: tuple[int, ...], genes: list[str], tmp_path: Path) -> None:
    table = counts(["a", "b", "c"])
    table.iloc[0] = first
    file = written(tmp_path, table, header=False)
    match = (
        "no first row of names .*its 3 samples have none. Add a first row"
        if genes is GENES or first == (0, 0, 0)
        else "begins with 'GENE0', '7', '9', '11', which may be names"
    )
    with pytest.raises(ValueError, match=match):
        read_bulk(file, genes)


def test_identifiers_tell_a_row_of_numbers(tmp_path: Path) -> None:
    table = counts(["bulk"], IDS)
    assert_holds(written(tmp_path, table, header=False), table, genes=IDS[1:])
    entrez = counts(["a", "b"], [str(g) for g in range(1, N_GENES + 1)])
    assert_holds(written(tmp_path, entrez.T, index_label="x"), entrez, genes=list(entrez.index))


# Descriptions of genes


def features() -> pd.DataFrame:
    """What featureCounts writes before the samples."""
    return pd.DataFrame(
        {
            "Geneid": GENES,
            "Chr": ["1", "1;1", "X"] * 8,
            "Start": ["11", "11;50", "7"] * 8,
            "End": ["20", "20;60", "9"] * 8,
            "Strand": ["+", "+;+", "-"] * 8,
            "Length": np.arange(N_GENES),
        }
    )


@pytest.mark.parametrize("chromosome", [None, 1, "chr1"])
def test_feature_counts(chromosome: object, tmp_path: Path) -> None:
    table, description = counts(["/data/a b.bam", "sub/b.bam"]), features()
    if chromosome is not None:
        description["Chr"] = chromosome
        description["Start"] = description["End"] = 5
    command = '# Program:featureCounts v2.0.6; Command:"featureCounts" "-a" "x,y.gtf"\n'
    whole = pd.concat([description.set_index("Geneid"), table], axis=1)
    file = written(tmp_path, command + whole.to_csv(sep="\t", index_label="Geneid"))
    assert_holds(file, table)
    assert_holds(file, table, genes=None)
    bulk = read_bulk(file, GENES)
    assert list(bulk.var) == ["Chr", "Start", "End", "Strand", "Length"]
    assert bulk.var["Length"].tolist() == list(range(N_GENES))
    assert "descriptions of genes in 'Chr', 'Start', 'End', 'Strand', 'Len" in (bulk.uns["source"])
    bulk.write_h5ad(tmp_path / "bulk.h5ad")


def with_ids(**columns: object) -> pd.DataFrame:
    """A table of nf-core: identifiers, symbols, samples."""
    first = pd.DataFrame({"gene_id": IDS, "gene_name": GENES, **columns})
    return pd.concat([first, counts(["a", "b"]).reset_index(drop=True)], axis=1)


def test_the_column_with_most_genes_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path, with_ids(**{"GO/term": "cell, part"}), sep="\t", index=False)
    with caplog.at_level(logging.INFO, logger="scovert"):
        assert_holds(file, counts(["a", "b"]))
    assert "genes by column 'gene_name', descriptions of genes in 'gene_id'" in caplog.text
    assert_holds(file, counts(["a", "b"], IDS), genes=IDS)
    assert_holds(file, counts(["a", "b"], IDS), genes=None)
    assert_holds(file, counts(["a", "b"], IDS), gene_column="gene_id", genes=GENES)
    bulk = read_bulk(file, GENES)
    assert bulk.var["gene_id"].tolist() == IDS
    assert bulk.var["GO_term"].eq("cell, part").all()
    numbered = written(tmp_path, with_ids().drop(columns="gene_id"), index_label="gene")
    assert_holds(numbered, counts(["a", "b"]), genes=None)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")


def test_a_column_of_numbers_can_have_the_genes(tmp_path: Path) -> None:
    file = written(tmp_path, with_ids(entrez=[f"{g:03d}" for g in range(24)]), index=False)
    entrez = counts(["a", "b"], [f"{g:03d}" for g in range(24)])
    assert_holds(file, entrez, gene_column="entrez", genes=None)


def test_gct_files(tmp_path: Path) -> None:
    table = with_ids().rename(columns={"gene_id": "Name", "gene_name": "Description"})
    text = f"#1.2\n{N_GENES}\t2\n{table.to_csv(sep=chr(9), index=False)}"
    assert_holds(written(tmp_path, text, "bulk.gct"), counts(["a", "b"]))


def test_other_columns_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, with_ids(a2=["n.d.", *range(23)]), index=False)
    with pytest.raises(ValueError, match=r"holds 'n.d.' \(row 'GENE0', column 'a2'; 1 such"):
        read_bulk(file, GENES)
    with pytest.raises(KeyError, match=r"`gene_column='x'`.*\(columns: 'gene_id', 'gene_name',"):
        read_bulk(file, GENES, gene_column="x")
    turned = written(tmp_path, counts(["a", "b"]).T, index_label="s")
    with pytest.raises(
        ValueError, match="`gene_column='s'`.*such as 'a', 'b', none of them a gen"
    ):
        read_bulk(turned, GENES, gene_column="s")
    empty = written(tmp_path, with_ids(a2=""), index=False)
    with pytest.raises(ValueError, match=r"holds '' \(row 'GENE0', column 'a2'; 24 such"):
        read_bulk(empty, GENES)


def test_columns_of_an_anndata_are_named_in_python(tmp_path: Path) -> None:
    (tmp_path / "bulk.h5ad").touch()
    with pytest.raises(ValueError, match=r"adata.var_names = adata.var\['symbol'\]"):
        read_bulk(tmp_path / "bulk.h5ad", GENES, gene_column="symbol")


ONE_SAMPLE = {
    "salmon": ("quant.sf", "Name Length EffectiveLength TPM NumReads"),
    "kallisto": ("abundance.tsv", "target_id length eff_length est_counts tpm"),
    "the GDC": (
        "a.tsv",
        "gene_id unstranded stranded_first stranded_second tpm_unstranded fpkm_unstranded",
    ),
    "RSEM": (
        "a.genes.results",
        "gene_id transcript_id(s) length effective_length expected_count TPM FPKM",
    ),
}


@pytest.mark.parametrize("program", ONE_SAMPLE)
def test_files_of_one_sample_are_refused(program: str, tmp_path: Path) -> None:
    name, columns = ONE_SAMPLE[program]
    labels = columns.split()
    table = pd.DataFrame(np.ones((N_GENES, len(labels) - 1)), GENES, labels[1:])
    file = written(tmp_path, table, name, sep="\t", index_label=labels[0])
    with pytest.raises(ValueError, match=f"what {program} writes for one sample.*tximport"):
        read_bulk(file, GENES)


# Genes in several rows


@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_a_gene_are_added_up(turned: bool, tmp_path: Path) -> None:
    genes = [*GENES[:20], "GENE3", "GENE3", "other", "GENE5"]
    table = counts(["a", "b"], genes)
    file = written(tmp_path, table.T if turned else table)
    match = "2 genes that occur more than once added up, such as 'GENE3', 'GENE5'"
    with pytest.warns(UserWarning, match=match) as caught:
        bulk = read_bulk(file, GENES)
    assert Path(caught[0].filename) == Path(__file__)
    expected = table.groupby(level=0, sort=False).sum()
    assert bulk.var_names.tolist() == expected.index.tolist()
    np.testing.assert_array_equal(bulk.X, expected.T)
    assert re.search("; 2 genes that occur more than once added up$", bulk.uns["source"])


def test_genes_without_a_name_are_left_out(tmp_path: Path) -> None:
    table = with_ids()
    table.loc[[4, 9], "gene_name"] = ""
    file = written(tmp_path, table, index=False)
    with pytest.warns(UserWarning, match="2 genes without a name left out.*`gene_column`"):
        bulk = read_bulk(file, GENES)
    assert bulk.var_names.tolist() == [g for i, g in enumerate(GENES) if i not in (4, 9)]
    np.testing.assert_array_equal(bulk.X, counts(["a", "b"]).drop(["GENE4", "GENE9"]).T)


# Without a reference

TOLD: dict[str, tuple[Callable[[], pd.DataFrame], str | None, str]] = {
    "identifiers": (lambda: counts(["a", "b"], IDS), None, "by their Ensembl identifiers"),
    "a word": (lambda: counts(["a", "b"]), "Gene symbol", "by the word 'Gene symbol' above"),
    "their number": (
        lambda: counts(["a", "b"], [f"g{i}" for i in range(1001)]), None, "by their number",
    ),
    "HTSeq": (lambda: counts(["a", "b"], [*GENES, "__no_feature"]), None, "by rows that HTSeq"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_genes_are_told_without_a_reference(case: str, tmp_path: Path) -> None:
    make, label, why = TOLD[case]
    table = make()
    file = written(tmp_path, table, index_label=label)
    assert_holds(file, table.drop(index="__no_feature", errors="ignore"), genes=None)
    assert f"genes told {why}" in read_bulk(file).uns["source"]


def test_genes_in_columns_without_a_reference(tmp_path: Path) -> None:
    for genes in (IDS, [f"g{i}" for i in range(1001)]):
        table = counts(["a", "b"], genes)
        assert_holds(written(tmp_path, table.T, index_label="x"), table, genes=None)
    for label in ("x", "sample"):  # Xena writes it above genes
        file = written(tmp_path, counts(["a", "b"]), index_label=label)
        with pytest.raises(ValueError, match="nothing tells which are genes. Pass names of genes"):
            read_bulk(file)
