"""BulkDeconvolution finds the same fractions whatever the genes are called, and says how."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from scovert.data import pbmc68k
from scovert.model import (
    BulkBudget,
    BulkDeconvolution,
    BulkResult,
    LatentConfounder,
    PairedVAE,
)

SHORT = BulkBudget(n_steps=12)  # it matters only that two fits are the same
OPTIONS = {"kind": "counts", "cell_size": "none", "interval": None, "budget": SHORT}
TABLE = pd.read_csv(files("scovert.core.genes") / "housekeeping.csv", comment="#")
N_SAMPLES, N_RIBOSOMAL = 7, 90

pytestmark = pytest.mark.usefixtures("seed")


class Cohort:
    """Blood cells with ribosomal genes that every sample of the bulk lost some of."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        cells = pbmc68k()
        own = cells.var_names
        is_kept = cells.obs["cell_type"] != "CD34+"
        cells = cells[is_kept, ~own.str.contains("^(?:RPL|RPS|MT-|FAU|UBA52)")].copy()
        table = TABLE[(TABLE["species"] == "homo_sapiens")]
        table = table[~table["symbol"].str.contains(r"P\d+$|^MT-T")].head(N_RIBOSOMAL)
        types = cells.obs["cell_type"].cat.remove_unused_categories()
        level = rng.uniform(0.3, 2.5, len(types.cat.categories))
        x = cells.X.toarray()
        totals = x.sum(1)
        share = (level[types.cat.codes] * totals / totals.mean())[:, None]
        ribosomal = rng.poisson(rng.gamma(2, 4, len(table)) * share)
        self.is_ribosomal = np.r_[np.zeros(x.shape[1], bool), np.ones(len(table), bool)]
        self.symbols = pd.Index([*cells.var_names, *table["symbol"]])
        invented = [f"ENSG9{i:010d}" for i in range(x.shape[1])]
        self.identifiers = pd.Index([*invented, *table["ensembl_id"]])
        self.counts = np.hstack([x, ribosomal]).astype(np.float32)
        self.types = types.to_numpy().astype(str)
        names = np.unique(self.types)
        mean = np.stack([self.counts[self.types == kind].mean(0) for kind in names])
        fractions = rng.dirichlet(np.ones(len(names)), N_SAMPLES)
        expected = fractions @ mean
        lost = np.exp(rng.normal(-1.5, 1, (N_SAMPLES, len(table))))
        expected[:, self.is_ribosomal] *= lost
        self.bulk_counts = rng.poisson(expected / expected.sum(1, keepdims=True) * 3e6)
        truth = fractions * mean[:, ~self.is_ribosomal].sum(1)
        self.truth = pd.DataFrame(truth / truth.sum(1, keepdims=True), columns=names)

    def reference(self, names: object, **columns: object) -> AnnData:
        obs = pd.DataFrame({"kind": self.types}, index=[f"c{i}" for i in range(len(self.types))])
        var = pd.DataFrame(columns, index=pd.Index(names))
        return AnnData(sparse.csr_matrix(self.counts), obs=obs, var=var)

    def bulk(self, names: object, **columns: object) -> AnnData:
        obs = pd.DataFrame(index=[f"s{i}" for i in range(N_SAMPLES)])
        var = pd.DataFrame(columns, index=pd.Index(names))
        return AnnData(self.bulk_counts.astype(float), obs=obs, var=var)

    def error(self, result: BulkResult) -> float:
        found = result.mrna_fractions[self.truth.columns].to_numpy()
        return float(np.sqrt(((found - self.truth.to_numpy()) ** 2).mean()))


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort()


def train(reference: AnnData) -> BulkDeconvolution:
    BulkDeconvolution.setup_anndata(reference, "kind")
    model = BulkDeconvolution(reference, min_cells_per_type=8, n_states=1)
    model.train()
    return model


def ask(
    reference: AnnData, bulk: AnnData, budget: BulkBudget = SHORT
) -> tuple[BulkResult, list[str]]:
    """Return the result, and what was said about names of genes."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = train(reference).deconvolve(bulk, **OPTIONS | {"budget": budget})
    texts = [str(warning.message) for warning in said]
    return result, [text for text in texts if "genes of the reference" in text]


# The same genes are left out


def mouse(names: pd.Index) -> pd.Index:
    return names.str.title().str.replace("^Mt-", "mt-", regex=True)


ALIKE = {
    "symbols of mice": lambda c: (mouse(c.symbols), {}),
    "lower case": lambda c: (c.symbols.str.lower(), {}),
    "names of R": lambda c: (c.symbols.str.replace("-", "."), {}),
    "underscores": lambda c: (c.symbols.str.replace("-", "_"), {}),
    "identifiers": lambda c: (c.identifiers, {}),
    "versions": lambda c: (c.identifiers + ".4", {}),
    "both in one": lambda c: (c.symbols + "_" + c.identifiers, {}),
    "unknown identifiers": lambda c: (
        [f"ENSRNOG{i:011d}" for i in range(len(c.symbols))],
        {"gene_symbols": c.symbols},
    ),
    "numbers": lambda c: (
        [f"{7 * i + 7}" for i in range(len(c.symbols))],
        {"feature_name": c.symbols},
    ),
}


@pytest.fixture(scope="module")
def expected(cohort: Cohort) -> BulkResult:
    return ask(cohort.reference(cohort.symbols), cohort.bulk(cohort.symbols))[0]


def assert_same(result: BulkResult, expected: BulkResult) -> None:
    facts = ("n_shared_genes", "n_informative_genes")
    assert [result.quality.attrs[f] for f in facts] == [expected.quality.attrs[f] for f in facts]
    pd.testing.assert_frame_equal(result.mrna_fractions, expected.mrna_fractions, atol=1e-6)


def test_ribosomal_genes_are_left_out(cohort: Cohort, expected: BulkResult) -> None:
    genes = expected.fits[0].profiles.genes
    assert not genes.isin(cohort.symbols[cohort.is_ribosomal]).any()
    assert len(genes) > 500
    assert expected.quality.attrs["genes_matched_by"] == "var_names"


@pytest.mark.parametrize("case", ALIKE)
def test_fractions_do_not_depend_on_names(cohort: Cohort, expected: BulkResult, case: str) -> None:
    names, columns = ALIKE[case](cohort)
    result, said = ask(cohort.reference(names, **columns), cohort.bulk(names))
    assert_same(result, expected)
    assert said == []


def test_what_cannot_be_known_is_said(cohort: Cohort) -> None:
    """Once, and it matters."""
    names = [f"ENSRNOG{i:011d}" for i in range(len(cohort.symbols))]
    whole = BulkBudget()
    unknown, said = ask(cohort.reference(names), cohort.bulk(names), whole)
    assert len(said) == 1
    assert "Ensembl identifiers, such as 'ENSRNOG00000000000'" in said[0]
    assert "ribosomal or mitochondrial gene. If there are any, they stay in" in said[0]
    names = cohort.identifiers
    known, said = ask(cohort.reference(names), cohort.bulk(names), whole)
    assert said == []
    assert cohort.error(known) < 0.01
    assert cohort.error(unknown) > 3 * cohort.error(known)


def test_names_of_the_bulk_tell_what_those_of_the_reference_do_not(
    cohort: Cohort, expected: BulkResult
) -> None:
    names = [f"ENSRNOG{i:011d}" for i in range(len(cohort.symbols))]
    result, said = ask(cohort.reference(names), cohort.bulk(names, gene_name=cohort.symbols))
    assert result.quality.attrs["n_shared_genes"] == expected.quality.attrs["n_shared_genes"]
    covered = [r.fits[0].profiles.covered for r in (result, expected)]
    np.testing.assert_allclose(*covered)
    np.testing.assert_allclose(result.mrna_fractions, expected.mrna_fractions, atol=1e-6)
    assert "stay in unless names of the bulk tell them" in said[0]


# Other names in the bulk

MATCHED = {
    "identifiers in a column of the reference": (
        lambda c: (c.symbols, {"gene_ids": c.identifiers}),
        lambda c: (c.identifiers, {}),
        "reference.var['gene_ids'] and bulk.var_names",
    ),
    "with versions": (
        lambda c: (c.symbols, {"gene_ids": c.identifiers}),
        lambda c: (c.identifiers + ".11", {}),
        "reference.var['gene_ids'] and bulk.var_names without versions",
    ),
    "symbols in a column of the reference": (
        lambda c: (c.identifiers, {"feature_name": pd.Categorical(c.symbols)}),
        lambda c: (c.symbols, {}),
        "reference.var['feature_name'] and bulk.var_names",
    ),
    "symbols in a column of the bulk": (
        lambda c: (c.symbols, {}),
        lambda c: (c.identifiers, {"gene_name": c.symbols}),
        "reference.var_names and bulk.var['gene_name']",
    ),
    "versions on one side": (
        lambda c: (c.identifiers, {}),
        lambda c: (c.identifiers + ".2", {}),
        "reference.var_names and bulk.var_names without versions",
    ),
    "other versions": (
        lambda c: (c.identifiers + ".1", {}),
        lambda c: (c.identifiers + ".2", {}),
        "reference.var_names without versions and bulk.var_names without versions",
    ),
    "names of R": (
        lambda c: (c.symbols, {}),
        lambda c: (c.symbols.str.replace("-", "."), {}),
        "var_names, 42 by punctuation",
    ),
    "both in one": (
        lambda c: (c.symbols + "_" + c.identifiers, {}),
        lambda c: (c.symbols, {}),
        "reference.var_names without identifiers and bulk.var_names",
    ),
}


@pytest.mark.parametrize("case", MATCHED)
def test_genes_are_matched_by_other_names(cohort: Cohort, expected: BulkResult, case: str) -> None:
    ours, theirs, source = MATCHED[case]
    (own, columns), (other, others) = ours(cohort), theirs(cohort)
    result, said = ask(cohort.reference(own, **columns), cohort.bulk(other, **others))
    assert_same(result, expected)
    assert result.quality.attrs["genes_matched_by"] == source
    assert result.record()["genes_matched_by"] == source
    assert len(said) == 1
    assert f"matched by {source}: {len(other)} of" in said[0]


def halves(adata: AnnData, names: pd.Index) -> AnnData:
    """Split the counts of twenty genes over two that have one name."""
    first, second = adata[:, :20].copy(), adata.copy()
    half = np.floor(first.X.toarray() / 2) if sparse.issparse(first.X) else np.floor(first.X / 2)
    dense = second.X.toarray() if sparse.issparse(second.X) else second.X.copy()
    dense[:, :20] -= half
    var = pd.concat([second.var, first.var.set_axis(names)])
    return AnnData(np.hstack([dense, half]), obs=adata.obs, var=var)


def test_genes_of_one_name_are_added_up(cohort: Cohort, expected: BulkResult) -> None:
    more = pd.Index([f"ENSG8{i:010d}" for i in range(20)])
    reference = cohort.reference(cohort.symbols)
    bulk = halves(cohort.bulk(cohort.identifiers, gene_name=cohort.symbols), more)
    result, said = ask(reference, bulk)
    assert_same(result, expected)
    assert "The counts of 20 genes are added to those of another of that name" in said[0]
    reference = halves(cohort.reference(cohort.identifiers, feature_name=cohort.symbols), more)
    result, said = ask(reference, cohort.bulk(cohort.symbols))
    found, wanted = result.mrna_fractions, expected.mrna_fractions
    assert result.quality.attrs["n_shared_genes"] == expected.quality.attrs["n_shared_genes"]
    # States are found from the genes as they were, and a half is detected in fewer cells.
    np.testing.assert_allclose(found, wanted, atol=0.05)
    assert "The counts of 20 genes are added" in said[0]


def test_layers_are_those_of_the_genes_of_the_bulk(cohort: Cohort) -> None:
    model = train(cohort.reference(cohort.symbols, gene_ids=cohort.identifiers))
    alike, other = cohort.bulk(cohort.symbols), cohort.bulk(cohort.identifiers + ".1")[:, ::-1]
    other = other.copy()
    for bulk in (alike, other):
        model.annotate(bulk, **OPTIONS)
    for name in alike.layers:
        np.testing.assert_allclose(other.layers[name][:, ::-1], alike.layers[name], rtol=1e-4)
    assert (
        other.uns["bulk"]["n_genes_without_profile"]
        == alike.uns["bulk"]["n_genes_without_profile"]
    )
    assert "gene_ids" in other.uns["bulk"]["genes_matched_by"]


def test_references_of_other_names_are_averaged(cohort: Cohort) -> None:
    """Genes of a result go by the names of the bulk, whatever a reference calls them."""
    by_identifier = train(cohort.reference(cohort.identifiers))
    by_symbol = train(cohort.reference(cohort.symbols, gene_ids=cohort.identifiers))
    bulk = cohort.bulk(cohort.identifiers)
    results = [model.deconvolve(bulk, **OPTIONS) for model in (by_identifier, by_symbol)]
    average = BulkResult.average(results)
    pd.testing.assert_frame_equal(average.proportions, results[0].proportions, atol=1e-6)
    alone, of_both = (by_symbol.get_cell_type_expression(r) for r in (results[0], average))
    pd.testing.assert_frame_equal(of_both.expression, alone.expression, rtol=1e-4)
    assert of_both.expression.columns.isin(bulk.var_names).all()
    assert average.quality.attrs["genes_matched_by"] == [
        "var_names",
        "reference.var['gene_ids'] and bulk.var_names",
    ]


def test_a_saved_model_knows_the_names(cohort: Cohort, tmp_path: Path) -> None:
    reference = cohort.reference(cohort.symbols, gene_ids=cohort.identifiers)
    model = train(reference)
    model.save(tmp_path / "model")
    bulk = cohort.bulk(cohort.identifiers)
    again = BulkDeconvolution.load(tmp_path / "model", cohort.reference(cohort.symbols))
    results = [m.deconvolve(bulk, **OPTIONS) for m in (model, again)]
    pd.testing.assert_frame_equal(results[0].proportions, results[1].proportions)


def test_a_model_saved_before_keeps_its_genes(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file does not say which genes were left out: those that began with RPL, RPS or MT-."""
    symbols = pd.Index(["RPS6KA1", *cohort.symbols[1:]])  # FAU is among them
    model = train(cohort.reference(symbols))
    monkeypatch.setattr(
        "scovert.core.genes._names.is_housekeeping",
        lambda names: names.str.upper().str.startswith(("RPL", "RPS", "MT-")),
    )
    old = train(cohort.reference(symbols))
    expected = old.deconvolve(cohort.bulk(symbols), **OPTIONS)
    monkeypatch.undo()
    del old.is_kept_, old.gene_names_
    old.save(tmp_path / "old")
    again = BulkDeconvolution.load(tmp_path / "old", cohort.reference(symbols))
    found = again.deconvolve(cohort.bulk(symbols), **OPTIONS)
    pd.testing.assert_frame_equal(found.proportions, expected.proportions)
    genes = found.fits[0].profiles.genes
    assert "FAU" in genes
    assert "RPS6KA1" not in genes
    genes = model.deconvolve(cohort.bulk(symbols), **OPTIONS).fits[0].profiles.genes
    assert "FAU" not in genes


def test_other_names_without_a_way_are_refused(cohort: Cohort) -> None:
    model = train(cohort.reference(cohort.symbols))
    with pytest.raises(ValueError, match="share 0 genes.*no column of `var`.*'gene_ids'"):
        model.deconvolve(cohort.bulk(cohort.identifiers), **OPTIONS)


def test_a_transposed_bulk_of_other_names(cohort: Cohort) -> None:
    model = train(cohort.reference(cohort.symbols, gene_ids=cohort.identifiers))
    with pytest.raises(ValueError, match="looks transposed.*are genes of the reference"):
        model.deconvolve(cohort.bulk(cohort.identifiers + ".3").T, **OPTIONS)


# New data of the other models


def cells(names: list[str], **columns: object) -> AnnData:
    rng = np.random.default_rng(3)
    counts = rng.poisson(2.0, (120, len(names))).astype(np.float32)
    obs = pd.DataFrame({"batch": ["a", "b"] * 60, "arm": [0, 0, 1] * 40})
    return AnnData(counts, obs=obs.set_axis(map(str, obs.index)), var=pd.DataFrame(columns, names))


SYMBOLS = [f"GENE{i}" for i in range(11)]
IDS = [f"ENSG{i:011d}" for i in range(11)]


def paired(adata: AnnData) -> Callable[[AnnData], object]:
    PairedVAE.setup_anndata(adata, "batch")
    model = PairedVAE(adata, alignment="none", n_latent=2, n_hidden=8)
    model.train(max_epochs=1, accelerator="cpu")
    return model


def confounder(adata: AnnData) -> Callable[[AnnData], object]:
    LatentConfounder.setup_anndata(adata, "arm", reference=0)
    model = LatentConfounder(adata, n_latent=0)
    model.train()
    return model


@pytest.mark.parametrize("make", [paired, confounder])
def test_new_data_must_have_the_names_of_the_model(make: Callable, tmp_path: Path) -> None:
    """The message says what was found, and the way out works."""
    model = make(cells(SYMBOLS))
    model.save(tmp_path / "model")
    other = cells(IDS, feature_name=SYMBOLS)
    way_out = (
        r"lacks 11 of the 11 genes.*are Ensembl identifiers, such as 'ENSG00000000000'.*genes of "
        r"the model are symbols.*has 11 of them: set `adata.var_names = "
        r"adata.var\['feature_name'\]`"
    )
    with pytest.raises(ValueError, match=way_out):
        model.get_normalized_expression(other)
    with pytest.raises(ValueError, match=way_out):
        type(model).load(tmp_path / "model", other)
    other.var_names = other.var["feature_name"]
    assert np.isfinite(np.asarray(model.get_normalized_expression(other))).all()


def test_a_file_of_the_shared_data(read_shared: Callable[[str], AnnData]) -> None:
    """Symbols and identifiers of a file of Cell Ranger leave out the same genes."""
    from scovert.core.genes import is_housekeeping

    for name in ("deconv_ref_pbmc3k", "integration_cellbench", "deconv_rnamix_celseq2"):
        var = read_shared(name).var
        var = var[var["gene_id"].notna() & (var["gene_id"] != "")]
        by_symbol = is_housekeeping(var.index)
        by_identifier = is_housekeeping(pd.Index(var["gene_id"].astype(str)))
        differ = var.index[by_symbol != by_identifier]
        assert by_symbol.sum() > 70
        assert len(differ) < 0.1 * by_symbol.sum(), list(differ)
