"""Tables that could be read with another gene's numbers, or with descriptions as samples."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scovert.data import read_bulk

N_GENES = 120
GENES = [f"GENE{g}" for g in range(N_GENES)]
DESCRIPTIONS = {
    "an inch": {3: 'tube 5"', 90: '5" tube'},
    "one that opens": {3: '"beta-like'},
    "one that closes": {3: 'beta-like"'},
    "far apart": {3: '"beta-like', 90: 'kinase"'},
    "neighbours": {3: '"beta-like', 4: 'kinase"'},
    "apostrophes": {3: "'beta", 90: "5'-3' exonuclease"},
    "two words in quotes": {3: '"a" or "b"'},
    "only quotes": {3: '"', 5: '""', 7: '"""'},
}
DESCRIBING = (
    "GeneID;Entrez Gene ID;ENTREZID;NCBI_GeneID;HGNC_ID;transcript_length;exonic.length;GeneLength"
    ";Length(bp);Length [bp];percent_gc;GC_content;gene_start;start_position;MedianLength"
    ";Unnamed: 0;baseMean;log2FoldChange;pvalue;P.Value;adj.P.Val;effLength"
    ";gene_length_kb;Transcript length (including UTRs and CDS);Gene start (bp);Gene % GC content"
    ";NCBI gene (formerly Entrezgene) ID;Chromosome/scaffold name;Strand (1/-1);Locus ID;TSS"
).split(";")


def counts(samples: list[str]) -> pd.DataFrame:
    values = np.random.default_rng(0).negative_binomial(1, 0.01, (N_GENES, len(samples)))
    return pd.DataFrame(values, GENES, samples)


def rows(table: pd.DataFrame, separator: str = "\t") -> str:
    """Write entries as they are, without any quotes."""
    lines = [["gene", *table], *([gene, *map(str, row)] for gene, *row in table.itertuples())]
    return "".join(f"{separator.join(line)}\n" for line in lines)


def assert_holds(file: Path, table: pd.DataFrame) -> None:
    with warnings.catch_warnings(action="error"):
        bulk = read_bulk(file, GENES)
    assert bulk.obs_names.tolist() == list(table)
    assert bulk.var_names.tolist() == GENES
    np.testing.assert_allclose(bulk.X, table.to_numpy().T, rtol=1e-6)


def described(texts: dict[int, str]) -> pd.DataFrame:
    table = counts(["a", "b"])
    table.insert(0, "description", [texts.get(g, "protein") for g in range(N_GENES)])
    return table


# Quotes


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_a_quote_between_tabs_opens_nothing(case: str, tmp_path: Path) -> None:
    table = described(DESCRIPTIONS[case])
    (tmp_path / "bulk.tsv").write_text(rows(table))
    assert_holds(tmp_path / "bulk.tsv", counts(["a", "b"]))
    found = read_bulk(tmp_path / "bulk.tsv", GENES).var["description"]
    if case not in ("only quotes", "two words in quotes"):
        assert found.tolist() == table["description"].tolist()
    (tmp_path / "first.tsv").write_text(rows(table[["a", "b", "description"]]))
    assert_holds(tmp_path / "first.tsv", counts(["a", "b"]))


@pytest.mark.parametrize("escape", ['""', '\\"'])
def test_quotes_around_entries_between_tabs_are_taken_off(escape: str, tmp_path: Path) -> None:
    """Also those within, as pandas and R write them, and around numbers."""
    table = described({3: "5", 90: 'a "b" c'})
    lines = [
        "\t".join(f'"{str(entry).replace(chr(34), escape)}"' for entry in line)
        for line in [["gene", *table], *table.itertuples()]
    ]
    (tmp_path / "bulk.tsv").write_text("\n".join(lines))
    assert_holds(tmp_path / "bulk.tsv", counts(["a", "b"]))
    found = read_bulk(tmp_path / "bulk.tsv", GENES).var["description"]
    assert found.iloc[90] == 'a "b" c'


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("case", ["one that opens", "far apart", "neighbours"])
def test_a_quote_over_the_end_of_a_line_is_refused(
    case: str, separator: str, tmp_path: Path
) -> None:
    (tmp_path / "bulk.csv").write_text(rows(described(DESCRIPTIONS[case]), separator))
    with pytest.raises(ValueError, match="not a table that can be read"):
        read_bulk(tmp_path / "bulk.csv", GENES)


def test_the_entry_over_the_end_of_a_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "bulk.csv").write_text(rows(described(DESCRIPTIONS["far apart"]), ","))
    with pytest.raises(ValueError, match=r"a quote before 'beta-like.*take it off, or end it"):
        read_bulk(tmp_path / "bulk.csv", GENES)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_other_quotes_beside_commas_are_letters(separator: str, tmp_path: Path) -> None:
    table = described(DESCRIPTIONS["apostrophes"] | DESCRIPTIONS["one that closes"])
    (tmp_path / "bulk.csv").write_text(rows(table, separator))
    assert_holds(tmp_path / "bulk.csv", counts(["a", "b"]))


# Descriptions in numbers


@pytest.mark.parametrize("label", DESCRIBING)
def test_a_description_in_numbers_is_no_sample(label: str, tmp_path: Path) -> None:
    table = counts(["s1", "s2"])
    table.insert(0, label, np.random.default_rng(1).permutation(N_GENES) + 5)
    table.to_csv(tmp_path / "bulk.tsv", sep="\t", index_label="gene")
    assert_holds(tmp_path / "bulk.tsv", counts(["s1", "s2"]))
    assert label.replace("/", "_") in read_bulk(tmp_path / "bulk.tsv", GENES).var


@pytest.mark.parametrize("label", ["Total", "SUM", "Mean", "row_means", "Average", "rank", "No."])
@pytest.mark.parametrize("turned", [False, True])
def test_what_may_be_a_summary_is_refused(label: str, turned: bool, tmp_path: Path) -> None:
    table = counts(["s1", "s2", label])
    (table.T if turned else table).to_csv(tmp_path / "bulk.csv", index_label="name")
    with pytest.raises(
        ValueError, match=f"a sample called '{label}'.*or rename it if it is a sam"
    ):
        read_bulk(tmp_path / "bulk.csv", GENES)


@pytest.mark.parametrize("turned", [False, True])
def test_identifiers_of_any_name_are_refused(turned: bool, tmp_path: Path) -> None:
    """All different and none zero, unlike the samples; all samples may be so."""
    rng = np.random.default_rng(0)
    genes = [f"GENE{g}" for g in range(600)]
    table = pd.DataFrame(rng.negative_binomial(1, 0.01, (600, 2)), genes, ["a", "b"])
    identifiers = rng.permutation(10_000)[:600] + 1
    file = tmp_path / "bulk.tsv"
    for name, values in (("my numbers", identifiers), ("x", np.sort(identifiers))):
        whole = table.assign(**{name: values})
        (whole.T if turned else whole).to_csv(file, sep="\t", index_label="name")
        with pytest.raises(ValueError, match=f"a sample '{name}' with another number in each gen"):
            read_bulk(file, genes)
    deep = pd.DataFrame({"a": identifiers, "b": rng.permutation(identifiers)}, genes)
    (deep.T if turned else deep).to_csv(file, sep="\t", index_label="name")
    np.testing.assert_array_equal(read_bulk(file, genes).X, deep.T)


SAMPLES = (
    "GC;CV;SD;Max;start_1;Total RNA;mean 2;count_1;S1_counts;Chr1;TPM_1;length 5;unnamed;raw;F;t;B"
    ";Reads;total 1;total RNA (1);norm;full_length_1;log phase;pos;X;ID;V1"
).split(";")


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_may_be_called_nearly_so(name: str, tmp_path: Path) -> None:
    table = counts([name, "other"])
    table.to_csv(tmp_path / "bulk.tsv", sep="\t", index_label="gene")
    assert_holds(tmp_path / "bulk.tsv", table)
    table.T.to_csv(tmp_path / "turned.tsv", sep="\t", index_label="sample")
    assert_holds(tmp_path / "turned.tsv", table)


MIXED = {
    "tximport": ["abundance.s1", "abundance.s2", "counts.s1", "counts.s2", "length.s1"],
    "Novogene": ["s1_count", "s2_count", "s1_FPKM", "s2_FPKM"],
    "before": ["TPM.s1", "count.s1"],
    "in brackets": ["s 1 (raw counts)", "s 1 (TPM)"],
    "of one sample": ["counts", "TPM", "FPKM"],
    "with a length": ["Length", "Reads", "RPKM"],
    "counts without a word": ["s1", "s2", "s1_TPM", "s2_TPM"],
    "raw and normalised": ["s1 raw counts", "s1 normalised counts"],
    "normalised beside": ["s1", "s2", "s1.norm", "s2.norm"],
    "logarithms beside": ["s1", "s2", "log2_s1", "log2_s2"],
    "without a gap": ["s1TPM", "s1Counts"],
    "CLC": ["s1 Unique gene reads", "s1 Total gene reads", "s1 RPKM"],
}


@pytest.mark.parametrize("case", MIXED)
@pytest.mark.parametrize("turned", [False, True])
def test_two_measures_of_a_sample_are_refused(case: str, turned: bool, tmp_path: Path) -> None:
    table = counts(MIXED[case])
    if turned:
        table = table.drop(columns=["Length"], errors="ignore").T
    table.to_csv(tmp_path / "bulk.tsv", sep="\t", index_label="gene")
    with pytest.raises(ValueError, match="two measures of one sample.*keep the counts"):
        read_bulk(tmp_path / "bulk.tsv", GENES)


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_no_expression_is_refused(turned: bool, tmp_path: Path) -> None:
    for values, match in (
        (1500, "a sample 'x' with 1500 in all genes, as identifiers .* Leave it out"),
        (np.arange(N_GENES), "a sample 'x' with another number in each gene"),
        (np.arange(N_GENES) + 7, "a sample 'x' with another number in each gene"),
    ):
        table = counts(["a", "b"]).assign(x=values)
        file = tmp_path / "bulk.tsv"
        (table.T if turned else table).to_csv(file, sep="\t", index_label="name")
        with pytest.raises(ValueError, match=match):
            read_bulk(file, GENES)


def test_what_describes_samples_is_named(tmp_path: Path) -> None:
    table = counts(["a", "b", "c"]).T
    table.insert(0, "age", [34, 45, 61])
    table["RIN"] = [7.5, 8.0, 9.1]
    table.to_csv(tmp_path / "bulk.csv", index_label="sample")
    with pytest.warns(UserWarning, match="'age', 'RIN' in its first row.*are read as genes"):
        read_bulk(tmp_path / "bulk.csv", GENES)


def test_rows_that_describe_samples_in_gct_files(tmp_path: Path) -> None:
    table = counts(["a", "b"])
    table.insert(0, "Description", "protein")
    head, below = table.to_csv(sep="\t", index_label="id").split("\n", 1)
    about = "age\tna\t34\t45\nsex\tna\tf\tm\n"
    text = f"#1.3\n{N_GENES}\t2\t1\t2\n{head}\n{about}{below}"
    (tmp_path / "bulk.gct").write_text(text)
    assert_holds(tmp_path / "bulk.gct", counts(["a", "b"]))


# Points for thousands


@pytest.mark.parametrize("separator", ["\t", ",", ";", " "])
@pytest.mark.parametrize("quoting", [0, 1])
def test_points_for_thousands(separator: str, quoting: int, tmp_path: Path) -> None:
    table = (counts(["a", "b"]) * 97).map(lambda n: f"{n:,}".replace(",", "."))
    table.to_csv(tmp_path / "bulk.txt", sep=separator, quoting=quoting, index_label="gene")
    with pytest.raises(ValueError, match="a point seems to stand for thousands"):
        read_bulk(tmp_path / "bulk.txt", GENES)


@pytest.mark.parametrize("decimals", ["%.1f", "%.2f", "%.3f", "%.4f"])
def test_points_for_decimals(decimals: str, tmp_path: Path) -> None:
    """Zero and what is below one have decimals too."""
    table = counts(["a", "b"]) / 7.3
    table.to_csv(tmp_path / "bulk.tsv", sep="\t", float_format=decimals, index_label="gene")
    assert_holds(tmp_path / "bulk.tsv", table.map(lambda value: float(decimals % value)))


# Files by their names and by other programs


@pytest.mark.parametrize("name", ["B.CSV", "B.CSV.GZ", "b.csv.GZ", "B.Tsv.Gz"])
def test_endings_may_be_capital(name: str, tmp_path: Path) -> None:
    table = counts(["a", "b"])
    text = table.to_csv(index_label="gene").encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith("gz") else text)
    assert_holds(tmp_path / name, table)


CUFFLINKS = ["tracking_id", "gene_id", "gene_short_name", "locus", "length", "coverage"]


@pytest.mark.parametrize("samples", [[""], ["q1_", "q2_"]])
def test_files_of_cufflinks_are_named(samples: list[str], tmp_path: Path) -> None:
    first = pd.DataFrame("-", range(N_GENES), CUFFLINKS).assign(gene_short_name=GENES)
    ends = ("FPKM", "FPKM_conf_lo") if samples == [""] else ("FPKM", "conf_lo", "conf_hi")
    values = {f"{sample}{end}": 1.5 for sample in samples for end in ends}
    status = {f"{sample}status": "OK" for sample in samples}
    table = first.assign(**values, **status)
    table.to_csv(tmp_path / "genes.tsv", sep="\t", index=False)
    with pytest.raises(ValueError, match="what (Cufflinks writes for one|Cuffdiff writes, with)"):
        read_bulk(tmp_path / "genes.tsv", GENES)


def test_a_series_matrix_of_geo_is_named(tmp_path: Path) -> None:
    text = (
        '!Series_title\t"A study"\n!Series_geo_accession\t"GSE1"\n\n'
        '!Sample_title\t"a"\t"b"\n!series_matrix_table_begin\n"ID_REF"\t"GSM1"\t"GSM2"\n'
        '"1007_s_at"\t1.5\t2.5\n!series_matrix_table_end\n'
    )
    (tmp_path / "GSE1_series_matrix.txt").write_text(text)
    with pytest.raises(ValueError, match="a series matrix of GEO.*supplementary files"):
        read_bulk(tmp_path / "GSE1_series_matrix.txt", GENES)
