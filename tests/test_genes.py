"""What a gene is called: kinds, ribosomal and mitochondrial genes, names that match."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scovert.core.genes import (
    GeneNames,
    advice_on_names,
    are_known,
    has_left_out_prefix,
    is_housekeeping,
    kind_of_genes,
    match_genes,
)
from scovert.core.genes._kinds import identifiers, symbols

KINDS = {
    "symbols": ["CD3E", "HLA-A", "AL627309.1", "Gm1992", "7SK"],
    "Ensembl identifiers": [
        "ENSG00000198851",
        "ENSMUSG00000090137",
        "ENSG00000182378_PAR_Y",
        "ENSG00000198851_at",
    ],
    "Ensembl identifiers with versions": ["ENSG00000198851.10", "ENSG00000182378.15_PAR_Y"],
    "Ensembl transcripts": ["ENST00000456328", "ENSMUST00000456328.2"],
    "symbols joined with identifiers": [
        "CD3E_ENSG00000198851",
        "ENSG00000198851.10|CD3E",
        "CD3E|916",
        "GRCh38_ENSG00000198851",
    ],
    "RefSeq transcripts": ["NM_000733", "XR_001737835.2"],
    "probes": ["205456_at", "ILMN_1739794"],
    "identifiers of other databases": ["HGNC:1674", "MGI:88332", "FBgn0000001", "YAL001C"],
    "numbers": ["916", "0"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_names(kind: str) -> None:
    for name in KINDS[kind]:
        assert kind_of_genes(pd.Index([name])) == kind
    assert kind_of_genes(pd.Index([*KINDS[kind] * 3, "CD19", "916"])) == kind  # what most are


def test_parts_of_names() -> None:
    parts = {
        "ENSG00000198851.10": ("ENSG00000198851", ""),
        "ensg00000198851": ("ENSG00000198851", ""),
        "ENSG00000182378.15_PAR_Y": ("ENSG00000182378", ""),
        "ENSG00000223972.5_2": ("ENSG00000223972", ""),
        "CD3E_ENSG00000198851": ("ENSG00000198851", "CD3E"),
        "ENSG00000198851.10|CD3E": ("ENSG00000198851", "CD3E"),
        "ENST00000456328.2|ENSG00000223972.5|-|DDX11L1": ("ENSG00000223972", "ENST00000456328.2"),
        "CD3E|916": ("", "CD3E"),
        "?|100130426": ("", ""),
        "GRCh38_CD3E": ("", "CD3E"),
        "mm10___Cd3e": ("", "Cd3e"),
        "HLA-A": ("", "HLA-A"),
        "Y_RNA": ("", "Y_RNA"),
    }
    names = pd.Index(parts)
    assert list(zip(identifiers(names), symbols(names), strict=True)) == list(parts.values())


def test_known_names() -> None:
    genes = pd.Index(["CD3E", "ENSG00000198851.10"])
    names = pd.Index(["CD3E", "ENSG00000198851", "ENSG00000198851.3", "CD19", "", "916"])
    assert are_known(names, genes).tolist() == [True] * 3 + [False] * 3


# Ribosomal and mitochondrial genes

LARGE = [*range(3, 7), "7", "7A", 8, 9, 10, "10A", 11, 12, 13, "13A", 14, 15, 17, 18, "18A", 19]
LARGE += [21, 22, 23, "23A", 24, 26, 27, "27A", 28, 29, 30, 31, 32, 34, 35, "35A", 36, "36A"]
LARGE += [37, "37A", 38, 39, 41, "P0", "P1", "P2"]
SMALL = [2, 3, "3A", "4X", *range(5, 16), "15A", 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, "27A"]
SMALL += [28, 29, "A"]
PROTEINS = [*(f"RPL{i}" for i in LARGE), *(f"RPS{i}" for i in SMALL), "UBA52", "FAU"]
"""The proteins of the ribosome; UBA52 is RPL40, FAU RPS30."""
GENOME = ["ND1", "ND2", "ND3", "ND4", "ND4L", "ND5", "ND6", "CYB", "CO1", "CO2", "CO3"]
GENOME = [f"MT-{gene}" for gene in [*GENOME, "ATP6", "ATP8", "RNR1", "RNR2"]]
TABLE = pd.read_csv(files("scovert.core.genes") / "housekeeping.csv", comment="#")


def test_the_table_holds_ribosome_and_mitochondrion() -> None:
    assert len(PROTEINS) == 79
    for species, n_genes in (("homo_sapiens", 1795), ("mus_musculus", 457)):
        own = TABLE.loc[TABLE["species"] == species, "symbol"].str.upper()
        wanted = [*PROTEINS, *GENOME]
        if species == "mus_musculus":
            wanted[wanted.index("RPS3A")] = "RPS3A1"
            wanted[wanted.index("MT-CYB")] = "MT-CYTB"
        assert set(wanted) - set(own) == set()
        assert own.str.startswith("MT-").sum() == 37
        assert len(own) == n_genes
    assert TABLE["ensembl_id"].is_unique
    assert is_housekeeping(pd.Index(TABLE["symbol"])).all()  # names and table say the same
    assert is_housekeeping(pd.Index(TABLE["ensembl_id"])).all()


@pytest.mark.parametrize(
    "spell",
    [
        str,
        str.lower,
        str.title,
        lambda s: s.replace("-", "."),
        lambda s: s.replace("-", "_"),
        lambda s: s.replace("-", ""),
        "GRCh38_{}".format,
        "{}_ENSG00000000000".format,
        "{}|1".format,
    ],
)
def test_symbols_however_they_are_written(spell: object) -> None:
    assert is_housekeeping(pd.Index([spell(name) for name in [*PROTEINS, *GENOME]])).all()


def test_identifiers() -> None:
    ribosomal = ["ENSG00000142937", "ENSG00000198034", "ENSMUSG00000060036"]  # RPS8, RPS4X, Rpl3
    mitochondrial = ["ENSG00000198888", "ENSMUSG00000064341"]  # ND1 of human and mouse
    for write in ("{}", "{}.12", "{}.1_PAR_Y", "X_{}", "{}|X"):
        assert is_housekeeping(pd.Index(map(write.format, ribosomal + mitochondrial))).all()
        others = ["ENSG00000117676", "ENSG00000198851"]  # RPS6KA1, CD3E
        assert not is_housekeeping(pd.Index(map(write.format, others))).any()


def test_what_only_looks_ribosomal_or_mitochondrial() -> None:
    kinases = ["RPS6KA1", "Rps6kb2", "RPS6KC1", "RPS6KL1"]
    others = ["RPS19BP1", "RPL34-AS1", "RPL34.DT", "RPS6KA2-IT1", "MRPL3", "MRPS12", "MTOR"]
    others += ["MTTP", "MT1A", "MT-", "MTRNR2L1", "PTGS1", "RRPS1", "AMT-1", "CD3E", "", "916"]
    assert not is_housekeeping(pd.Index(kinases + others)).any()


def test_what_is_left_out_beside_the_proteins() -> None:
    names = ["RPL23AP42", "RPS27L", "Rpl13-ps3", "RPL17-C18orf32", "RPL34-1", "RPL22L1", "mt:CoI"]
    names += ["MT-TF", "mt-Tl1", "ND1", "COX1", "CYTB"]  # the last three: RefSeq
    assert is_housekeeping(pd.Index(names)).all()


def test_old_files_left_out_a_prefix() -> None:
    names = ["RPL3", "rps6", "MT-CO1", "RPS6KA1", "FAU", "MT.ND1", "CD3E"]
    assert has_left_out_prefix(pd.Index(names)).tolist() == [True] * 4 + [False] * 3


# Names in columns


def var(names: list[str], **columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=names)


IDS = [f"ENSG0000000000{i}" for i in range(4)]
SYMBOLS = ["A", "B", "C", "D"]
JOINED = [f"{a}_{b}" for a, b in zip(SYMBOLS, IDS, strict=True)]
V7 = [f"{i}.7" for i in IDS]


def sources(frame: pd.DataFrame) -> dict[str, list[str]]:
    return {s.source: list(s.names) for s in GeneNames.of(frame).spellings}


def test_names_in_columns() -> None:
    found = sources(var(SYMBOLS, n_cells=[1, 2, 3, 4], gene_ids=IDS, biotype=["x"] * 4))
    assert found == {"var_names": SYMBOLS, "var['gene_ids']": IDS}
    versions = [f"{name}.3" for name in IDS]
    categories = pd.Categorical(["A", "B", None, "B"])
    found = sources(var(versions, feature_name=categories, feature_type=["protein_coding"] * 4))
    assert found["var_names without versions"] == IDS
    assert found["var['feature_name']"] == ["A", "B", versions[2], "B"]  # one has no symbol
    assert list(sources(var(JOINED)).values()) == [IDS, SYMBOLS]
    assert sources(var(["5", "6", "7", "8"])) == {}


@pytest.mark.parametrize(
    "column",
    [
        "feature_name",
        "gene_symbols",
        "gene_name",
        "Symbol",
        "hgnc_symbol",
        "gene_short_name",
        "gene_symbol",
        "external_gene_name",
    ],
)
def test_columns_of_symbols(column: str) -> None:
    names = GeneNames.of(pd.DataFrame({column: ["RPL3", "CD3E", "MT-ND1", "x"]}, index=IDS))
    assert names.has_symbols
    assert names.is_housekeeping().tolist() == [True, False, True, False]


def test_names_are_kept_as_lists() -> None:
    names = GeneNames.of(var(SYMBOLS, gene_ids=IDS))
    again = GeneNames.restored(names.names, names.stored())
    assert again.stored() == names.stored()
    assert match_genes(again, GeneNames.of(var(IDS))).n_shared == 4
    assert list(names.known()) == SYMBOLS + IDS


# Matching


OTHER = "ENSG00000000077"
BY_ID, BY_SYMBOL = dict(zip(IDS, SYMBOLS, strict=True)), dict(zip(SYMBOLS, IDS, strict=True))
MATCHES = {  # reference, bulk, what the bulk calls the genes of the reference
    "column of the reference": (
        var(SYMBOLS, gene_ids=IDS),
        var([IDS[2], OTHER, IDS[0]]),
        {"A": IDS[0], "C": IDS[2]},
    ),
    "column of the bulk": (
        var(IDS),
        var(["D", "x", "B"], gene_id=[IDS[3], OTHER, IDS[1]]),
        {IDS[1]: "B", IDS[3]: "D"},
    ),
    "symbols of the reference": (var(IDS, feature_name=SYMBOLS), var(SYMBOLS[::-1]), BY_ID),
    "symbols of the bulk": (var(SYMBOLS), var(IDS[::-1], gene_name=SYMBOLS[::-1]), BY_SYMBOL),
    "versions of the bulk": (var(IDS), var(V7), dict(zip(IDS, V7, strict=True))),
    "versions of the reference": (var(V7), var(IDS), dict(zip(V7, IDS, strict=True))),
    "other versions": (
        var([f"{i}.8" for i in IDS]),
        var(V7),
        {f"{i}.8": f"{i}.7" for i in IDS},
    ),
    "joined": (var(SYMBOLS), var(JOINED), dict(zip(SYMBOLS, JOINED, strict=True))),
    "Entrez": (var(SYMBOLS), var(["7", "8"], symbol=["B", "A"]), {"A": "8", "B": "7"}),
    "TCGA": (var(SYMBOLS), var(["A|1", "?|5", "D|9"]), {"A": "A|1", "D": "D|9"}),
    "positions": (
        var(["0", "1"], gene_name=["A", "B"]),
        var(["0", "1"], gene_name=["B", "A"]),
        {"0": "1", "1": "0"},
    ),
    "no names": (
        var(["g0", "g1"], gene_name=["A", "B"]),
        var(["B", "A"]),
        {"g0": "A", "g1": "B"},
    ),
}


def test_a_gene_that_is_lacking_may_have_the_name_of_another() -> None:
    names = [str(i) for i in range(3)]
    reference = GeneNames.of(var(names, gene_name=["A", "B", "C"]))
    bulk = GeneNames.of(var(names, gene_name=["B", "A", "D"]))
    assert match_genes(reference, bulk).called == {"0": "1", "1": "0", "2": "2 of the reference"}


def test_names_that_have_been_through_r() -> None:
    names = ["HLA-A", "7SK", "NKX2-1", "AL627309.1", "CD3E"]
    written = ["HLA.A", "X7SK", "NKX2.1", "AL627309.1", "CD3E"]
    reference, bulk = GeneNames.of(var(names)), GeneNames.of(var(written))
    found = match_genes(reference, bulk)
    pairs = list(zip(names, written, strict=True))
    assert found.called == dict(pairs[:3])
    assert found.source == "var_names, 3 by punctuation"
    assert match_genes(bulk, reference).called == {theirs: mine for mine, theirs in pairs[:3]}
    assert match_genes(reference, GeneNames.of(var([*written, "HLA-B"]))).n_shared == 5
    assert match_genes(reference, GeneNames.of(var(["CD3E", "AL627309.1", "MS4A1"]))).is_plain


@pytest.mark.parametrize("case", MATCHES)
def test_genes_are_matched(case: str) -> None:
    reference, bulk, called = MATCHES[case]
    found = match_genes(GeneNames.of(reference), GeneNames.of(bulk))
    assert found.called == called
    assert found.names.tolist() == bulk.index.tolist()  # none is added to another
    assert (found.n_shared, found.n_added) == (len(called), 0)
    assert not found.is_plain


ADDED = {  # and for every gene of the bulk, the one that takes its counts
    "two of the bulk": (
        var(["A", "B"]),
        var(IDS, gene_name=["A", "B", "A", "x"]),
        {"A": IDS[0], "B": IDS[1]},
        [IDS[0], IDS[1], IDS[0], IDS[3]],
        1,
    ),
    "both copies of a gene": (
        var(IDS),
        var([V7[0], f"{V7[0]}_PAR_Y"]),
        {IDS[0]: V7[0]},
        [V7[0], V7[0]],
        1,
    ),
    "two of the reference": (
        var(IDS, gene_symbols=["A", "B", "A", "C"]),
        var(["A", "C"]),
        {IDS[0]: "A", IDS[2]: "A", IDS[3]: "C"},
        ["A", "C"],
        1,
    ),
    "made unique": (
        var(IDS, gene_symbols=["A", "B", "A", "C"]),
        var(["A", "A-1", "C", "D-1"]),
        {IDS[0]: "A", IDS[2]: "A", IDS[3]: "C"},
        ["A", "A", "C", "D-1"],
        2,
    ),
    "made unique in the reference": (
        var(["A", "A-1", "B"]),
        var(IDS[:2], gene_name=["B", "A"]),
        {"A": IDS[1], "A-1": IDS[1], "B": IDS[0]},
        IDS[:2],
        1,
    ),
}


@pytest.mark.parametrize("case", ADDED)
def test_genes_of_one_name(case: str) -> None:
    reference, bulk, called, names, n_added = ADDED[case]
    found = match_genes(GeneNames.of(reference), GeneNames.of(bulk))
    assert found.called == called
    assert found.names.tolist() == names
    assert (found.n_shared, found.n_added) == (len(set(called.values())), n_added)


@pytest.mark.parametrize(
    ("reference", "bulk"),
    [
        (var(SYMBOLS), var(["D", "A", "x"])),
        (var(SYMBOLS, gene_ids=IDS), var(SYMBOLS, gene_ids=IDS[::-1])),
        (var(IDS, gene_name=SYMBOLS), var(IDS, gene_name=SYMBOLS[::-1])),
        (var(V7), var(V7)),
        (var(["7", "8"]), var(["8", "7"])),
        (var(SYMBOLS), var(IDS)),
        (var(SYMBOLS, gene_ids=IDS), var([OTHER])),
        (var(["A", "A-1"]), var(["A", "A-1"])),
    ],
)
def test_names_that_agree_or_share_nothing_are_left_alone(
    reference: pd.DataFrame, bulk: pd.DataFrame
) -> None:
    found = match_genes(GeneNames.of(reference), GeneNames.of(bulk))
    assert found.is_plain
    assert (found.called, found.n_added) == ({}, 0)
    assert found.names.equals(bulk.index)
    assert found.n_shared == reference.index.isin(bulk.index).sum()


def test_a_match_says_what_it_took() -> None:
    names = GeneNames.of(var(SYMBOLS, gene_ids=IDS)), GeneNames.of(var(V7))
    assert match_genes(*names).source == (
        "reference.var['gene_ids'] and bulk.var_names without versions"
    )


# Advice


@pytest.mark.parametrize(
    ("frame", "genes"),
    [
        (var(SYMBOLS, gene_ids=IDS), IDS),
        (var(SYMBOLS, gene_ids=pd.Categorical(IDS)), IDS),
        (var(IDS, feature_name=SYMBOLS), SYMBOLS),
        (var([f"{i}.2" for i in IDS]), IDS),
        (var(SYMBOLS, id=[f"{i}.2" for i in IDS]), IDS),
        (var(JOINED), IDS),
        (var(JOINED), SYMBOLS),
        (var([f"{b}.1|{a}" for a, b in zip(SYMBOLS, IDS, strict=True)]), SYMBOLS),
        (var([f"GRCh38_{a}" for a in SYMBOLS]), SYMBOLS),
    ],
)
def test_advice_works(frame: pd.DataFrame, genes: list[str]) -> None:
    adata = AnnData(np.ones((2, 4)), var=frame)
    advice = advice_on_names(adata.var, pd.Index(genes), "adata")
    assert "has 4 of them: set `adata.var_names = " in advice
    exec(advice.split("set `")[1].split("`")[0], {"adata": adata})
    assert adata.var_names.tolist() == genes


def test_advice_says_what_was_found() -> None:
    advice = advice_on_names(var(IDS), pd.Index(SYMBOLS), "bulk")
    assert "`bulk.var_names` are Ensembl identifiers, such as 'ENSG00000000000'" in advice
    assert "genes of the model are symbols" in advice
    assert "all of them, in any order and named alike" in advice
    assert "same species" in advice_on_names(var(["a", "b"]), pd.Index(["A", "B"]), "adata")
