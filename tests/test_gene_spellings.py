"""Genes that tables spell differently: gene by gene, and what cannot be matched is told."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import scipy
from anndata import AnnData
from scipy import sparse

from scovert.core.genes import (
    GeneNames,
    Match,
    advice_on_duplicates,
    are_dates,
    are_positions,
    match_genes,
    species_of,
)

SYMBOLS = ["HES4", "HLA-A", "CD3E", "NKX2-1", "C1orf112", "AL627309.1", "7SK", "MS4A1"]
IDS = [f"ENSG0000000000{i}" for i in range(len(SYMBOLS))]


def matched(reference: pd.DataFrame | list, bulk: pd.DataFrame | list) -> Match:
    tables = (
        table if isinstance(table, pd.DataFrame) else pd.DataFrame(index=table)
        for table in (reference, bulk)
    )
    return match_genes(*map(GeneNames.of, tables))


def partners(match: Match, reference: list[str]) -> list[str | None]:
    """Return the gene of the bulk of each of the reference."""
    called = [match.called.get(name, name) for name in reference]
    return [name if name in match.own else None for name in called]


SPELLINGS = {
    "identifier in brackets": [f"{s} ({i})" for s, i in zip(SYMBOLS, IDS, strict=True)],
    "Entrez in brackets": [f"{s} ({17 * i + 1})" for i, s in enumerate(SYMBOLS)],
    "NCBI": [f"gene-{s}" for s in SYMBOLS],
    "Ensembl GFF": [f"gene:{s}" for s in SYMBOLS],
    "genome and hyphen": [f"GRCh38-{s}" for s in SYMBOLS],
    "two genomes": [f"GRCh38______{s}" for s in SYMBOLS],
    "identifier, hyphen": [f"{i}-{s}" for s, i in zip(SYMBOLS, IDS, strict=True)],
    "identifier, point": [f"{i}.{s}" for s, i in zip(SYMBOLS, IDS, strict=True)],
    "version, point": [f"{i}.12.{s}" for s, i in zip(SYMBOLS, IDS, strict=True)],
    "symbol, point": [f"{s}.{i}" for s, i in zip(SYMBOLS, IDS, strict=True)],
    "symbol, hyphen, version": [f"{s}-{i}.3" for s, i in zip(SYMBOLS, IDS, strict=True)],
    "lower case": [s.lower() for s in SYMBOLS],
    "upper case": [s.upper() for s in SYMBOLS],
    "underscores": [s.replace("-", "_") for s in SYMBOLS],
    "R": [("X" if s[0].isdigit() else "") + s.replace("-", ".") for s in SYMBOLS],
    "R, lower case": [s.replace("-", ".").lower() for s in SYMBOLS],
    "spaces": [f"{s} " for s in SYMBOLS],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_symbols_in_any_spelling(spelling: str) -> None:
    names = SPELLINGS[spelling]
    for n in (len(names), 4):  # all of them, or half
        bulk = [*names[:n], *SYMBOLS[n:]]
        found = matched(SYMBOLS, bulk[::-1])
        assert partners(found, SYMBOLS) == bulk
        assert (found.n_shared, found.n_added) == (len(SYMBOLS), 0)
        back = matched(bulk, SYMBOLS[::-1])
        assert partners(back, bulk) == SYMBOLS


@pytest.mark.parametrize("spelling", [k for k in SPELLINGS if "identifier" in k or "version" in k])
def test_identifiers_in_any_spelling(spelling: str) -> None:
    found = matched(IDS, SPELLINGS[spelling][::-1])
    assert partners(found, IDS) == SPELLINGS[spelling]
    bare = [f"gene:{i}" for i in IDS]
    assert partners(matched(IDS, bare), IDS) == bare
    lower = [i.lower() for i in IDS]
    assert partners(matched(IDS, lower), IDS) == lower


def test_half_of_the_identifiers_have_versions() -> None:
    bulk = [f"{name}.{i}" if i % 2 else name for i, name in enumerate(IDS)]
    found = matched(IDS, bulk[::-1])
    assert partners(found, IDS) == bulk
    assert found.source == "reference.var_names and bulk.var_names without versions"
    assert partners(matched(bulk, IDS[::-1]), bulk) == IDS


@pytest.mark.parametrize("names", ["var_names", "gene_name"])
def test_some_symbols_are_identifiers(names: str) -> None:
    """As where a symbol is lacking and the identifier stands in."""
    mixed = [i if at % 2 else s for at, (s, i) in enumerate(zip(SYMBOLS, IDS, strict=True))]
    own = mixed if names == "var_names" else [f"g{i}" for i in range(len(mixed))]
    bulk = pd.DataFrame({"gene_name": mixed}, index=own)[[names][names == "var_names" :]]
    by_symbol = pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS)
    by_identifier = pd.DataFrame({"feature_name": SYMBOLS}, index=IDS)
    for reference in (by_symbol, by_identifier):
        found = matched(reference, bulk[::-1])
        assert partners(found, list(reference.index)) == own
        assert found.n_shared == len(SYMBOLS)


@pytest.mark.parametrize("suffix", [".1", "-1", "_1", "_dup1", "_PAR_Y"])
def test_what_was_made_unique_is_added_up(suffix: str) -> None:
    bulk = [*SYMBOLS, *(s + suffix for s in SYMBOLS[:3])]
    found = matched(SYMBOLS, bulk)
    assert list(found.names) == [*SYMBOLS, *SYMBOLS[:3]]
    assert (found.n_shared, found.n_added, found.is_plain) == (len(SYMBOLS), 3, False)
    found = matched(bulk, SYMBOLS)
    assert [found.called.get(name, name) for name in bulk] == [*SYMBOLS, *SYMBOLS[:3]]
    assert found.n_added == 3
    assert matched(bulk, bulk).is_plain  # genes of these names


def test_both_copies_of_a_gene_with_and_without_a_version() -> None:
    bulk = [*IDS, f"{IDS[0]}.5_PAR_Y"]
    assert list(matched(IDS, bulk).names) == [*IDS, IDS[0]]


def test_names_like_copies_are_genes() -> None:
    reference = ["NKX2-1", "AC000001.1", "AC000001.2", "HLA-DRB1", "KRTAP5-1"]
    found = matched(reference, reference[:2])
    assert found.is_plain
    assert found.n_shared == 2


def test_only_what_is_meant_by_one_gene_of_both() -> None:
    found = matched(["CD3E", "HLA-A", "MS4A1"], ["cd3e", "Cd3e", "HLA.A", "HLA_A", "MS4A1"])
    assert found.n_shared == 1
    assert found.called == {}


def test_other_species_are_not_matched_by_case() -> None:
    mouse = [s.capitalize() for s in SYMBOLS if "orf" not in s]
    assert matched([s.upper() for s in mouse], mouse).n_shared <= 1  # 7SK is no word
    both = [*SYMBOLS[:4], "Gata3", "Spi1", "Tcf7"]
    assert matched([*SYMBOLS, "GATA3", "SPI1", "TCF7"], both).n_shared == 4
    assert species_of(pd.Index(IDS)) == "ENS"
    assert species_of(pd.Index([f"X_ENSMUSG0000000000{i}.2" for i in range(3)])) == "ENSMUS"
    assert species_of(pd.Index(SYMBOLS)) == ""


def test_exact_names_come_first() -> None:
    found = matched(["CD3E", "cd3e"], ["cd3e", "CD3E"])
    assert found.is_plain
    reference = pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS)
    bulk = pd.DataFrame({"gene_ids": [*IDS[:6], IDS[7], IDS[6]]}, index=SYMBOLS)
    assert matched(reference, bulk).is_plain


def test_a_match_says_how_many_by_what() -> None:
    bulk = [*SYMBOLS[:2], "cd3e", "NKX2.1", "c1ORF112", *SYMBOLS[5:], "HES4-1"]
    found = matched(SYMBOLS, bulk)
    assert found.source == "var_names, 2 by upper and lower case, 1 by punctuation"
    assert (found.n_shared, found.n_added) == (8, 1)


# Columns


@pytest.mark.parametrize(
    "column",
    [
        "GeneSymbol",
        "Gene.Symbol",
        "gene.name",
        "hgnc",
        "features",
        "external_gene_id",
        "Associated Gene Name",
        "gene_symbol_y",
        "original_name",
        "x",
    ],
)
def test_any_column_of_symbols(column: str) -> None:
    described = {column: SYMBOLS, "chromosome": ["1", "2"] * 4, "length": [7.0] * 8}
    table = pd.DataFrame(described, index=IDS)
    found = matched(SYMBOLS, table[::-1])
    assert partners(found, SYMBOLS) == IDS
    assert found.source == f"reference.var_names and bulk.var[{column!r}]"
    assert partners(matched(table, SYMBOLS[::-1]), IDS) == SYMBOLS
    renamed = table.set_axis([f"g{i}" for i in range(8)])  # no names, columns on both sides
    assert matched(table[[column]], renamed[[column]]).n_shared == 8


def test_columns_of_other_identifiers() -> None:
    numbers = [f"HGNC:{i}" for i in range(8)]
    reference = pd.DataFrame({"hgnc_id": numbers}, index=SYMBOLS)
    assert partners(matched(reference, numbers[::-1]), SYMBOLS) == numbers


def test_descriptions_do_not_join_genes() -> None:
    words = ["a", "b", "c", "d", "e", "novel transcript", "novel transcript", "novel transcript"]
    tables = [pd.DataFrame({"description": words}, index=i) for i in (IDS, SYMBOLS)]
    found = matched(*tables)
    assert (found.n_shared, found.n_added) == (5, 0)
    names = GeneNames.of(pd.DataFrame({"description": [f"RPL{i} kinase" for i in range(8)]}, IDS))
    assert not names.is_housekeeping().any()
    assert not names.has_symbols


@pytest.mark.parametrize("nothing", ["-", ".", "---", "NA", "nan", "", None, np.nan])
def test_genes_without_a_symbol_keep_their_names(nothing: object) -> None:
    table = pd.DataFrame({"gene_name": [*SYMBOLS[:6], nothing, nothing]}, index=IDS)
    found = matched(SYMBOLS, table)
    assert partners(found, SYMBOLS) == [*IDS[:6], None, None]
    assert (found.n_shared, found.n_added) == (6, 0)
    assert list(found.names) == IDS


def test_remedies_of_names_that_occur_twice() -> None:
    x = np.arange(24, dtype=np.float32).reshape(3, 8)
    names = [*SYMBOLS[:6], "HES4", "CD3E"]
    for var in (pd.DataFrame(index=names), pd.DataFrame({"gene_ids": IDS}, index=names)):
        for matrix in (x, sparse.csr_matrix(x)):
            adata = AnnData(matrix, obs=pd.DataFrame({"a": list("xyz")}, list("abc")), var=var)
            scope = {"adata": adata, "AnnData": AnnData, "np": np, "pd": pd, "scipy": scipy}
            *keep, codes, sums = re.findall("`([^`]*)`", advice_on_duplicates(var, "adata"))
            exec(f"{codes}\n{sums}", scope)
            summed = scope["adata"].to_df()
            pd.testing.assert_frame_equal(
                summed,
                pd.DataFrame(x, list("abc"), names).T.groupby(level=0, sort=False).sum().T,
                check_names=False,
            )
            assert scope["adata"].obs["a"].tolist() == list("xyz")
            for line in keep:
                exec(line, {"adata": adata})
                assert adata.var_names.tolist() == IDS
            assert len(keep) == var.shape[1]


# Positions and dates


def test_numbers_that_count_genes() -> None:
    assert are_positions(pd.Index(map(str, range(30))))
    assert are_positions(pd.Index(map(str, range(1, 31))))  # rows of R
    assert are_positions(pd.Index(map(str, [0, 5, 17, 29])))  # some of them
    entrez = pd.Index(["1", "2", "9", "10", "12", "915", "930", "3105", "100130426"])
    assert not are_positions(entrez)
    assert not are_positions(pd.Index(SYMBOLS))
    assert not are_positions(pd.Index([*map(str, range(300)), "CD3E"]))


@pytest.mark.parametrize(
    "name",
    [
        "1-Mar",
        "2-Sep",
        "01-Mar",
        "Mar-01",
        "2021-09-02",
        "2021-09-02 00:00:00",
        "43891",
        "44256.0",
        "1-Dec-21",
        "3/1/2020",
        "X1.Mar",
        "1. Mrz",
        "4-Oct",
        "1 mars",
        "01/03/21",
    ],
)
def test_dates_are_told(name: str) -> None:
    assert are_dates(pd.Index([*SYMBOLS, name])).tolist() == [False] * len(SYMBOLS) + [True]


def test_what_only_looks_like_a_date() -> None:
    names = ["MARCH1", "MARCHF1", "SEPT2", "DEC1", "MAR1", "1060P11.3", "43892x", "44000", "5S"]
    names += ["AC2020-09.1", "100130426", "A1BG-AS1", "OCT4", "RP11-34P13.7", "99999"]
    assert not are_dates(pd.Index(names)).any()
    assert not are_dates(pd.Index(map(str, range(43880, 43900)))).any()  # Entrez
