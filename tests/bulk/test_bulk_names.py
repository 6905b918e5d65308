"""What genes, types and columns may be called in a deconvolution, and what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scovert.core._minibatch import check_new_genes
from scovert.data import read_bulk
from scovert.model import BulkBudget, BulkDeconvolution, BulkResult

SHORT = BulkBudget(n_steps=10)
OPTIONS = {"kind": "counts", "cell_size": "none", "interval": None, "budget": SHORT}
TYPES = ["B", "T/CD4", "T/CD8", "tumour"]
Make = Callable[[], AnnData]

pytestmark = pytest.mark.usefixtures("seed")


def fit(adata: AnnData) -> BulkDeconvolution:
    BulkDeconvolution.setup_anndata(adata, "kind")
    model = BulkDeconvolution(adata)
    model.train()
    return model


def named(adata: AnnData, write: Callable[[int], str], **columns: object) -> AnnData:
    adata.var_names = [write(i) for i in range(adata.n_vars)]
    adata.var = adata.var[[]].assign(**columns)
    return adata


def said(call: Callable[[], object]) -> str:
    """Return the warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return "\n".join(str(warning.message) for warning in caught)


@pytest.fixture(scope="module")
def symbols(make_reference: Make) -> BulkDeconvolution:
    """Fit a model of genes that are called GA0-1, GA1-1, ..."""
    return fit(named(make_reference(), "GA{}-1".format))


@pytest.fixture(scope="module")
def expected(symbols: BulkDeconvolution, make_bulk: Make) -> pd.DataFrame:
    return symbols.get_proportions(named(make_bulk(), "GA{}-1".format), **OPTIONS)


# Genes

ALIKE = {
    "third in lower case": lambda i: f"GA{i}-1".lower() if i % 3 == 0 else f"GA{i}-1",
    "lower case": "ga{}-1".format,
    "underscores": "GA{}_1".format,
    "points": "GA{}.1".format,
    "NCBI": "gene-GA{}-1".format,
    "genome": "GRCh38-GA{}-1".format,
    "Entrez in brackets": lambda i: f"GA{i}-1 ({7 * i})",
    "identifier in brackets": lambda i: f"GA{i}-1 (ENSG{i:011d})",
    "identifier first": lambda i: f"ENSG{i:011d}-GA{i}-1",
}


@pytest.mark.parametrize("case", ALIKE)
def test_no_gene_is_lost_by_its_spelling(
    symbols: BulkDeconvolution, expected: pd.DataFrame, make_bulk: Make, case: str
) -> None:
    bulk, found = named(make_bulk(), ALIKE[case])[:, ::-1].copy(), []
    text = said(lambda: found.append(symbols.get_proportions(bulk, **OPTIONS)))
    pd.testing.assert_frame_equal(found[0], expected, atol=1e-5)
    assert "307 of 307 and 307 are in both" in text
    assert "matched by" in text


@pytest.mark.parametrize("case", ALIKE)
def test_tables_are_read_in_any_spelling(
    symbols: BulkDeconvolution, expected: pd.DataFrame, make_bulk: Make, case: str, tmp_path: Path
) -> None:
    named(make_bulk(), ALIKE[case]).to_df().astype(int).T.to_csv(tmp_path / "b.csv")
    for genes in (symbols.adata.var_names, symbols.adata):
        bulk = read_bulk(tmp_path / "b.csv", genes)
        found = symbols.get_proportions(bulk, **OPTIONS)
        pd.testing.assert_frame_equal(found, expected, atol=1e-5)


@pytest.mark.parametrize("suffix", ["{}.1", "{}-1", "{}_1"])
def test_rows_that_were_made_unique_are_added_up(
    make_reference: Make, make_bulk: Make, suffix: str
) -> None:
    model, bulk = fit(named(make_reference(), "GENE{}".format)), make_bulk()
    named(bulk, "GENE{}".format)
    expected = model.get_proportions(bulk, **OPTIONS)
    half = np.floor(bulk.X[:, :200] / 2)
    x = np.hstack([bulk.X, half])
    x[:, :200] -= half
    names = [*bulk.var_names, *map(suffix.format, bulk.var_names[:200])]
    split = AnnData(x, obs=bulk.obs, var=pd.DataFrame(index=names))
    found = []
    text = said(lambda: found.append(model.get_proportions(split, **OPTIONS)))
    pd.testing.assert_frame_equal(found[0], expected, atol=1e-5)
    assert "The counts of 200 genes are added to those of another" in text


def test_identifiers_of_which_half_have_versions(make_reference: Make, make_bulk: Make) -> None:
    model = fit(named(make_reference(), "ENSG{:011d}".format))
    expected = model.get_proportions(named(make_bulk(), "ENSG{:011d}".format), **OPTIONS)
    bulk = named(make_bulk(), lambda i: f"ENSG{i:011d}" + (f".{i}" if i % 2 else ""))
    found = model.get_proportions(bulk, **OPTIONS)
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)


def test_numbers_that_count_genes_are_refused(make_reference: Make, make_bulk: Make) -> None:
    model = fit(named(make_reference(), str))
    reversed_ = named(make_bulk()[:, ::-1].copy(), str)
    for bulk in (reversed_, reversed_[:, 40:]):
        with pytest.raises(ValueError, match="numbers that count them.*'gene_name'"):
            model.deconvolve(bulk, **OPTIONS)
    names = [f"GENE{i}" for i in range(307)]
    model = fit(named(make_reference(), str, gene_name=names))
    bulk = named(make_bulk()[:, ::-1].copy(), str, gene_name=names[::-1])
    other = named(make_bulk(), "GENE{}".format)
    found, expected = (model.get_proportions(b, **OPTIONS) for b in (bulk, other))
    pd.testing.assert_frame_equal(found, expected, atol=1e-5)


def test_new_cells_are_not_matched_by_position(make_reference: Make) -> None:
    adata = named(make_reference(), str)
    with pytest.raises(ValueError, match="'0', '1', ..., by their place.*set them up and fit"):
        check_new_genes(adata, adata.var_names)
    adata.var_names = [f"{7 * i + 7}" for i in range(307)]  # as Entrez does
    check_new_genes(adata, adata.var_names)


def test_other_species_are_told(
    symbols: BulkDeconvolution, make_reference: Make, make_bulk: Make
) -> None:
    model = fit(named(make_reference(), "ENSG{:011d}".format))
    bulk = named(make_bulk(), "ENSMUSG{:011d}".format)
    with pytest.raises(ValueError, match="two species, ENSG and ENSMUSG.*orthologues"):
        model.deconvolve(bulk, **OPTIONS)
    with pytest.raises(ValueError, match="bulk has Ensembl transcripts.*tximport"):
        model.deconvolve(named(make_bulk(), "ENST{:011d}.4".format), **OPTIONS)
    with pytest.raises(ValueError, match="differ in case, such as 'GA0-1' and 'Ga0-1'.*species"):
        symbols.deconvolve(named(make_bulk(), "Ga{}-1".format), **OPTIONS)


def test_dates_are_named(make_reference: Make, make_bulk: Make, tmp_path: Path) -> None:
    def write(i: int) -> str:
        return {3: "1-Mar", 5: "2021-09-02", 6: "43891"}.get(i, f"GENE{i}")

    text = said(lambda: fit(named(make_reference(), write)))
    assert "3 genes of the reference are called like a date, such as '1-Mar'" in text
    model, bulk = fit(named(make_reference(), "GENE{}".format)), named(make_bulk(), write)
    text = said(lambda: model.get_proportions(bulk, **OPTIONS))
    assert "3 genes of the bulk are called like a date, such as '1-Mar', '2021-09-02'" in text
    table = bulk.to_df().astype(int).T.rename({"2021-09-02": "1-Mar"})
    table.to_csv(tmp_path / "b.csv")
    read = []
    text = said(lambda: read.append(read_bulk(tmp_path / "b.csv", model.adata.var_names)))
    assert "3 genes called like a date left out, such as '1-Mar'" in text
    assert read[0].n_vars == 304
    assert "added up" not in text


def test_a_table_of_symbols_and_a_reference_of_identifiers(
    make_reference: Make, make_bulk: Make, tmp_path: Path
) -> None:
    names = [f"GENE{i}" for i in range(307)]
    model = fit(named(make_reference(), "ENSG{:011d}".format, feature_name=names))
    bulk = named(make_bulk(), "GENE{}".format)
    bulk.to_df().astype(int).T.to_csv(tmp_path / "b.csv")
    expected = model.get_proportions(bulk, **OPTIONS)
    for genes in (model.adata, model.adata.var):
        found = read_bulk(tmp_path / "b.csv", genes)
        assert "genes called as in var['feature_name'] of the reference" in found.uns["source"]
        proportions = model.get_proportions(found, **OPTIONS)
        pd.testing.assert_frame_equal(proportions, expected, atol=1e-5)
    with pytest.raises(ValueError, match="'feature_name' or 'gene_ids', pass `genes=reference`"):
        read_bulk(tmp_path / "b.csv", model.adata.var_names)
    bulk.obs_names.name = None
    bulk.write_h5ad(tmp_path / "b.h5ad")
    assert read_bulk(tmp_path / "b.h5ad", model.adata).n_vars == 307


def test_hyphens_for_symbols_that_lack(make_bulk: Make, tmp_path: Path) -> None:
    table = make_bulk().to_df().astype(int).T
    names = [f"GENE{i}" if i % 4 else "-" for i in range(307)]
    table.insert(0, "gene_name", names)
    table.index = [f"ENSG{i:011d}" for i in range(307)]
    table.to_csv(tmp_path / "b.csv", index_label="gene_id")
    bulk = read_bulk(tmp_path / "b.csv", [f"GENE{i}" for i in range(307)])
    assert list(bulk.var_names) == [name for name in names if name != "-"]
    bulk = read_bulk(tmp_path / "b.csv", table.index)
    assert bulk.n_vars == 307


# Types


def relabelled(adata: AnnData, names: dict[str, str], part: slice = slice(None)) -> AnnData:
    own = adata.obs["kind"].astype(str).to_numpy()
    own[part] = [names.get(kind, kind) for kind in own[part]]
    adata.obs["kind"] = own
    return adata


@pytest.mark.parametrize("other", ["tumour ", "Tumour", " tumour", "tumours", "TUMOUR"])
def test_a_type_that_is_spelt_in_two_ways(make_reference: Make, other: str) -> None:
    adata = relabelled(make_reference(), {"tumour": other}, slice(None, None, 2))
    text = said(lambda: BulkDeconvolution.setup_anndata(adata, "kind"))
    assert "look like one that is spelt in two ways (1 such pairs)" in text
    exec(text.split("for example `")[1].split("`")[0], {"reference": adata})
    assert len(set(adata.obs["kind"])) == len(TYPES)
    assert said(lambda: BulkDeconvolution.setup_anndata(adata, "kind")) == ""


@pytest.mark.parametrize("argument", ["batch_key", "subject_key"])
def test_studies_and_donors_that_are_spelt_in_two_ways(
    make_reference: Make, argument: str
) -> None:
    adata = make_reference()
    adata.obs["place"] = np.where(np.arange(103) % 2, "Lab_1", "lab 1")
    text = said(lambda: BulkDeconvolution.setup_anndata(adata, "kind", **{argument: "place"}))
    assert "'Lab_1' and 'lab 1' of `reference.obs['place']` look like one" in text


def test_conditions_that_are_spelt_in_two_ways(make_reference: Make, make_bulk: Make) -> None:
    model, bulk = fit(make_reference()), make_bulk()
    bulk.obs["arm"] = ["Control", "control", "treated", "treated", "control"]
    text = said(lambda: model.get_cell_type_expression(bulk, "arm", **OPTIONS))
    assert "'Control' and 'control' of `bulk.obs['arm']` look like one" in text


def test_genes_that_most_of_a_table_loses_are_named(
    symbols: BulkDeconvolution, make_bulk: Make
) -> None:
    bulk = named(make_bulk(), lambda i: f"GA{i}-1" if i % 9 < 4 else f"ENSG{i:011d}")
    text = said(lambda: symbols.deconvolve(bulk, **OPTIONS))
    assert "share 137 genes, and have 307 and 307. Only the reference has such as 'GA4-1'" in text
    assert "only the bulk such as 'ENSG00000000004'" in text


def test_types_that_differ_are_not_alike(make_reference: Make) -> None:
    names = {"B": "CD4+ T", "T/CD4": "CD4- T", "T/CD8": "CD4-CD8+ T", "tumour": "T1"}
    adata = relabelled(make_reference(), names)
    assert said(lambda: BulkDeconvolution.setup_anndata(adata, "kind")) == ""


@pytest.mark.parametrize(
    "name", ["nan", "NA", "Doublet", "Doublets", "Unassigned", "unknown", "low-quality", "None"]
)
def test_names_that_are_no_type(make_reference: Make, name: str) -> None:
    adata = relabelled(make_reference(), {"tumour": name})
    text = said(lambda: BulkDeconvolution.setup_anndata(adata, "kind"))
    assert f"{name!r} of the reference look like no type of cells" in text
    line = text.split("`")[1]
    scope = {"reference": adata}
    exec(line, scope)
    assert set(scope["reference"].obs["kind"]) == set(TYPES[:3])


def test_references_that_spell_a_type_differently(make_reference: Make, make_bulk: Make) -> None:
    models = [
        fit(relabelled(make_reference(), {"tumour": name}))
        for name in ("hepatocyte", "Hepatocytes")
    ]
    results = [model.deconvolve(make_bulk(), **OPTIONS) for model in models]
    text = said(lambda: BulkResult.average(results))
    assert "References name types differently: 'hepatocyte' and 'Hepatocytes'" in text


@pytest.mark.parametrize("write_layer", [True, False])
def test_types_that_a_slash_makes_one(
    make_reference: Make, make_bulk: Make, tmp_path: Path, write_layer: bool
) -> None:
    model = fit(relabelled(make_reference(), {"T/CD8": "T_CD4"}))
    bulk = make_bulk()
    model.annotate(bulk, write_layer=write_layer, **OPTIONS)
    bulk.write_h5ad(tmp_path / "b.h5ad")
    read = ad.read_h5ad(tmp_path / "b.h5ad")
    found, expected = read.obsm["bulk_proportions"], model.get_proportions(bulk, **OPTIONS)
    assert (
        read.uns["bulk"]["types"].index.tolist()
        == list(expected)
        == ["B", "T/CD4", "T_CD4", "tumour"]
    )
    assert list(found) == ["B", "T_CD4_2", "T_CD4", "tumour"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if write_layer:
        table = model.get_cell_type_expression(bulk, **OPTIONS).expression.loc["all"]
        for slot, kind in (("bulk_T_CD4_2", "T/CD4"), ("bulk_T_CD4", "T_CD4")):
            assert read.uns["bulk"]["layers"][slot] == kind
            own = pd.DataFrame(read.layers[slot], columns=read.var_names)[table.columns]
            np.testing.assert_allclose(own.iloc[0], table.loc[kind], rtol=1e-4)


# What names types


def test_sizes_as_a_series(make_reference: Make, make_bulk: Make) -> None:
    model, bulk = fit(make_reference()), make_bulk()
    sizes = {kind: 1.0 + i for i, kind in enumerate(TYPES)}
    options = OPTIONS | {"cell_size": sizes}
    expected = model.get_proportions(bulk, **options)
    options["cell_size"] = pd.Series(sizes)[::-1]
    pd.testing.assert_frame_equal(model.get_proportions(bulk, **options), expected)
    options["cell_size"] = pd.Series([1.0, 2.0], ["B", "B"])
    with pytest.raises(TypeError, match="`cell_size` is a Series.*each type once"):
        model.deconvolve(bulk, **options)


@pytest.mark.parametrize("hold", [np.array, pd.Index, pd.Series, tuple, set, iter, pd.Categorical])
def test_groups_in_whatever_holds_them(
    make_reference: Make, make_bulk: Make, hold: Callable[[list[str]], object]
) -> None:
    model, bulk = fit(make_reference()), make_bulk()
    measured = pd.DataFrame({"T": [0.4, 0.5], "B": [0.3, 0.2]}, bulk.obs_names[:2])
    options = OPTIONS | {"measured": measured}
    expected = model.get_proportions(bulk, groups={"T": TYPES[1:3]}, **options)
    found = model.get_proportions(bulk, groups={"T": hold(TYPES[1:3])}, **options)
    pd.testing.assert_frame_equal(found, expected)
    for none in (np.array([]), []):
        with pytest.raises(ValueError, match="names no type"):
            model.get_proportions(bulk, groups={"T": none}, **options)
    for wrong in ("B", 3):
        with pytest.raises(TypeError, match="Pass a list of types"):
            model.get_proportions(bulk, groups={"T": wrong}, **options)


def test_types_of_other_references(make_reference: Make, make_bulk: Make) -> None:
    adata = make_reference()
    model = fit(adata[adata.obs["kind"] != "tumour"].copy())
    bulk = make_bulk()
    measured = pd.DataFrame({"B": [0.4, 0.5], "tumour": [0.3, 0.2], "T/CD4": [0.1, 0.1]})
    measured.index = bulk.obs_names[:2]
    sizes = {kind: 1.0 + i for i, kind in enumerate(TYPES)}
    options = OPTIONS | {"cell_size": sizes}
    with pytest.raises(ValueError, match="'tumour'"):
        model.deconvolve(bulk, measured=measured, **options)
    options["other_types"] = TYPES
    found = model.get_proportions(bulk, measured=measured, **options)
    own = OPTIONS | {"cell_size": {kind: sizes[kind] for kind in TYPES[:3]}}
    expected = model.get_proportions(bulk, measured=measured.drop(columns="tumour"), **own)
    pd.testing.assert_frame_equal(found, expected)
    groups = {"T": ["T/CD4", "T/CD8"], "rest": ["tumour", "B"]}
    measured = measured.set_axis(["rest", "tumour", "T"], axis=1).drop(columns="tumour")
    assert model.get_proportions(bulk, measured=measured, groups=groups, **options).shape == (5, 3)
    with pytest.raises(ValueError, match="'DC'"):
        model.deconvolve(bulk, **options | {"cell_size": {"DC": 1.0}})
