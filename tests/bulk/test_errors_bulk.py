"""What BulkDeconvolution refuses, what it warns about and what it takes without a word."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from _input import assert_points_at, column, no_warning, nothing, with_value
from scovert.model import BulkBudget, BulkDeconvolution

TYPES = ["B cells", "NK", "T/4", "tumour"]
N_CELLS, N_GENES, N_SAMPLES = 137, 419, 6

pytestmark = pytest.mark.usefixtures("seed")


def means() -> np.ndarray:
    """Means of four types; every gene has one in which it is high."""
    rng = np.random.default_rng(0)
    mean = np.tile(rng.gamma(2.0, 0.5, N_GENES), (4, 1))
    mean[np.arange(N_GENES) % 4, np.arange(N_GENES)] *= 8
    return mean


def make() -> AnnData:
    """Cells of four types."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), [60, 40, 25, 12])
    counts = rng.poisson(means()[labels]).astype(np.float32)
    obs = pd.DataFrame(
        {
            "kind": np.array(TYPES)[labels],
            "study": np.where(np.arange(N_CELLS) % 2, "p", "q"),
            "donor": rng.choice(["d1", "d2", "d3", "d4"], N_CELLS),
        },
        index=[f"cell {i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"G{g}" for g in range(N_GENES)])
    adata = AnnData(sparse.csr_matrix(counts), obs=obs, var=var)
    adata.layers["raw"] = adata.X.copy()
    return adata


def make_bulk() -> AnnData:
    rng = np.random.default_rng(2)
    mean = rng.dirichlet(np.full(4, 3.0), N_SAMPLES) @ means() * 500
    obs = pd.DataFrame({"arm": ["x", "y"] * 3}, index=[f"sample {i}" for i in range(N_SAMPLES)])
    var = pd.DataFrame(index=[f"G{g}" for g in range(N_GENES)])
    bulk = AnnData(rng.poisson(mean).astype(np.float64), obs=obs, var=var)
    bulk.layers["tpm"] = bulk.X / bulk.X.sum(1, keepdims=True) * 1e6
    return bulk


@pytest.fixture
def adata() -> AnnData:
    return make()


@pytest.fixture
def bulk() -> AnnData:
    return make_bulk()


def fit(adata: AnnData, *, setup: dict | None = None, **init: object) -> BulkDeconvolution:
    BulkDeconvolution.setup_anndata(adata, **{"labels_key": "kind", **(setup or {})})
    model = BulkDeconvolution(adata, **init)
    model.train()
    return model


@pytest.fixture(scope="module")
def model() -> BulkDeconvolution:
    return fit(make())


SHORT = BulkBudget(n_steps=10)
QUIET = {"kind": "counts", "cell_size": "reference", "interval": None, "budget": SHORT}


# Refused when a reference is set up: what is done to it, the options, exception and message


def twice(adata: AnnData) -> None:
    adata.var_names = ["G1", "G1", *adata.var_names[2:]]


REFUSED_AT_SETUP = {
    "one type": (
        column("kind", lambda a: "B"),
        {},
        ValueError,
        "one type only, 'B'.*two or more.*name another column",
    ),
    "one type with cells": (
        column("kind", lambda a: pd.Categorical(["B"] * a.n_obs, ["A", "B"])),
        {},
        ValueError,
        "one type only, 'B'",
    ),
}


@pytest.mark.parametrize("case", REFUSED_AT_SETUP)
def test_a_reference_that_does_not_suffice(adata: AnnData, case: str) -> None:
    change, options, error, match = REFUSED_AT_SETUP[case]
    change(adata)
    before = adata.obs.copy()
    with pytest.raises(error, match=match):
        BulkDeconvolution.setup_anndata(adata, **{"labels_key": "kind", **options})
    pd.testing.assert_frame_equal(adata.obs, before)


def test_something_else_than_an_anndata(model: BulkDeconvolution) -> None:
    with pytest.raises(TypeError, match="`adata` is a DataFrame. Pass an AnnData"):
        BulkDeconvolution.setup_anndata(pd.DataFrame(), "kind")
    for call in (model.deconvolve, model.get_proportions, model.annotate):
        with pytest.raises(TypeError, match="`bulk` is a DataFrame. Pass an AnnData"):
            call(pd.DataFrame())


def test_small_types_are_named(adata: AnnData) -> None:
    adata = adata[:-5].copy()
    BulkDeconvolution.setup_anndata(adata, "kind")
    with pytest.raises(ValueError, match=r"\{'tumour': 7\}.*`min_cells_per_type=10`.*merge"):
        BulkDeconvolution(adata)
    BulkDeconvolution(adata, min_cells_per_type=7)


def test_studies_without_enough_cells(adata: AnnData) -> None:
    """Twelve cells of a type are six in either study."""
    BulkDeconvolution.setup_anndata(adata, "kind", batch_key="study")
    with pytest.raises(ValueError, match="No study.*10 cells of 'tumour'.*or leave `batch_key`"):
        BulkDeconvolution(adata).train()
    model = BulkDeconvolution(adata, min_cells_per_type=6)
    model.train()
    assert model.types == TYPES
    adata.obs["study"] = np.where(np.arange(N_CELLS) < 61, "p", "q")
    with pytest.raises(ValueError, match="Study 'p' .*fewer than two types of 10 cells.*Leave it"):
        fit(adata, setup={"batch_key": "study"})


def test_the_wrong_order(adata: AnnData, bulk: AnnData) -> None:
    BulkDeconvolution.setup_anndata(adata, "kind")
    model = BulkDeconvolution(adata)
    for call in (model.deconvolve, model.get_cell_type_expression):
        with pytest.raises(RuntimeError, match=r"not trained.*train\(\)"):
            call(bulk)


# Refused bulks


in_sample = partial(with_value, cell=4, gene=7)


def scaled(bulk: AnnData) -> None:
    bulk.X = (bulk.X - bulk.X.mean(0)) / (bulk.X.std(0) + 1)


def rename(pattern: str) -> Callable[[AnnData], None]:
    def change(bulk: AnnData) -> None:
        bulk.var_names = [pattern.format(i) for i in range(bulk.n_vars)]

    return change


def zeros(rows: object, columns: object = slice(None)) -> Callable[[AnnData], None]:
    def change(bulk: AnnData) -> None:
        bulk.X[rows, columns] = 0

    return change


def other_genes_only(bulk: AnnData) -> None:
    """The second sample has counts of genes that the reference lacks."""
    names = bulk.var_names.to_numpy().copy()
    names[:100] = [f"other {i}" for i in range(100)]
    bulk.var_names = names
    bulk.X[1, 100:] = 0


WHERE = r"`bulk\.X`"
AT = r"sample 'sample 4', gene 'G7'"
REFUSED_BULKS = {
    "log": (
        lambda b: setattr(b, "X", np.log1p(b.X)),
        {},
        ValueError,
        f"{WHERE} looks log-transformed: its largest value is .*Pass counts or TPM",
    ),
    "log of tpm": (
        lambda b: b.layers.update(log=np.log2(b.layers["tpm"] + 1)),
        {"layer": "log", "kind": "tpm"},
        ValueError,
        r"`bulk.layers\['log'\]` looks log-transformed.*np.expm1",
    ),
    "scaled": (
        scaled,
        {},
        ValueError,
        f"{WHERE} holds -.*looks like a logarithm, or scaled.*pass",
    ),
    "negative": (
        in_sample(-2),
        {},
        ValueError,
        rf"{WHERE} holds -2 \({AT}; 1 such",
    ),
    "nan": (
        in_sample(np.nan),
        {},
        ValueError,
        rf"{WHERE} holds nan \({AT}.*leave the sample",
    ),
    "infinite": (
        in_sample(np.inf),
        {},
        ValueError,
        rf"{WHERE} holds inf \({AT}.*finite",
    ),
    "tpm as counts": (
        nothing,
        {"layer": "tpm", "kind": "counts"},
        ValueError,
        r"layers\['tpm'\]` does not look like counts.*sum to a million.*kind='tpm'",
    ),
    "tpm of some genes as counts": (
        lambda b: b.layers.update(tpm=b.layers["tpm"] * np.linspace(0.5, 0.9, 6)[:, None]),
        {"layer": "tpm", "kind": "counts"},
        ValueError,
        "does not look like counts: samples sum to 5e.05 up to 9e.05, as TPM.*kind='tpm'",
    ),
    "shares as counts": (
        lambda b: b.layers.update(tpm=b.layers["tpm"] / 1e6),
        {"layer": "tpm", "kind": "counts"},
        ValueError,
        "does not look like counts: samples sum to one at most.*kind='tpm'",
    ),
    "percentages as counts": (
        lambda b: b.layers.update(tpm=b.layers["tpm"] / 1e4),
        {"layer": "tpm", "kind": "counts"},
        ValueError,
        "does not look like counts: samples sum to a hundred.*kind='tpm'",
    ),
    "counts as tpm": (
        nothing,
        {"kind": "tpm"},
        ValueError,
        "does not look like TPM: all values are whole.*kind='counts'",
    ),
    "all zero": (zeros(slice(None)), {}, ValueError, r"'sample 0' .*no counts at all \(6 such"),
    "one of zeros": (
        zeros(3),
        {},
        ValueError,
        r"'sample 3' .*no counts at all \(1 .*Leave it out",
    ),
    "nothing shared": (
        other_genes_only,
        {},
        ValueError,
        r"'sample 1' has no counts of the genes that bulk and reference share \(1 such",
    ),
    "samples twice": (
        lambda b: setattr(b, "obs_names", ["a", "a", "b", "c", "d", "d"]),
        {},
        ValueError,
        r"`bulk.obs_names` holds 'a', 'd' more than once.*bulk.obs_names_make_unique\(\)",
    ),
    "genes twice": (twice, {}, ValueError, r"`bulk.var_names`.*'G1'.*groupby\(level=0\).sum"),
    "ensembl": (
        rename("ENSG{:011d}"),
        {},
        ValueError,
        "share 0 genes.*reference are symbols and those of the bulk Ensembl identifiers, such as "
        "'G0' and 'ENSG00000000000'.*same names",
    ),
    "ensembl with versions": (
        rename("ENSG{:011d}.2"),
        {},
        ValueError,
        "bulk Ensembl identifiers with versions",
    ),
    "numbers": (rename("{}"), {}, ValueError, "the bulk numbers, such as 'G0' and '0'"),
    "other names": (rename("x{}"), {}, ValueError, r"share 0 genes.*at least 50.*Pass all genes"),
    "missing layer": (nothing, {"layer": "fpkm"}, KeyError, r"`bulk.layers` .*\['tpm'\]"),
    "no values": (lambda b: setattr(b, "X", None), {}, ValueError, r"`bulk.X` is empty"),
    "kind": (nothing, {"kind": "fpkm"}, ValueError, r"`kind='fpkm'`.*\['auto', 'counts', 'tpm'\]"),
    "method": (nothing, {"method": "vae"}, ValueError, r"`method='vae'`.*\['joint', 'network'\]"),
    "likelihood": (nothing, {"likelihood": "t"}, ValueError, r"\['robust', 'nb'\]"),
    "network of counts": (
        nothing,
        {"method": "network", "likelihood": "nb"},
        ValueError,
        "`likelihood='nb'`.*method='joint'",
    ),
    "interval": (nothing, {"interval": 90}, ValueError, r"`interval=90`.*\[0.01, 0.999\]"),
    "no interval": (nothing, {"interval": False}, TypeError, "`interval=False` is a bool"),
    "unknown": (nothing, {"unknown": "yes"}, TypeError, "`unknown='yes'` is a str. Pass a bool"),
    "size": (
        nothing,
        {"cell_size": "epic"},
        ValueError,
        r"`cell_size='epic'`.*\['auto', 'table', 'reference', 'none'\], or a mapping",
    ),
    "size list": (nothing, {"cell_size": [1, 2]}, TypeError, "`cell_size` is a list"),
    "size of others": (
        nothing,
        {"cell_size": {"NK": 1, "DC": 2}},
        ValueError,
        r"names \['DC'\].*\['B cells', 'NK', 'T/4', 'tumour'\]",
    ),
    "size of none": (nothing, {"cell_size": {}}, ValueError, "names no type"),
    "size of numbers": (
        nothing,
        {"cell_size": {1: 1.0}},
        ValueError,
        r"names \[1\], and the types .* are text: pass '1'",
    ),
    "size zero": (nothing, {"cell_size": {"NK": 0.0}}, ValueError, r"\{'NK': 0.0\}.*positive"),
    "size nan": (nothing, {"cell_size": {"NK": np.nan}}, ValueError, r"\{'NK': nan\}"),
    "size text": (nothing, {"cell_size": {"NK": "big"}}, ValueError, r"\{'NK': 'big'\}"),
    "groups alone": (
        nothing,
        {"groups": {"x": ["NK"]}},
        ValueError,
        "`groups` names columns of `measured`, which is missing",
    ),
}


@pytest.mark.parametrize("case", REFUSED_BULKS)
def test_a_bulk_that_does_not_suffice(model: BulkDeconvolution, bulk: AnnData, case: str) -> None:
    change, options, error, match = REFUSED_BULKS[case]
    change(bulk)
    before = bulk.copy()
    for call in (model.deconvolve, model.get_proportions, model.annotate):
        with pytest.raises(error, match=match):
            call(bulk, **{**QUIET, **options})
    assert not set(bulk.obsm) - set(before.obsm)
    assert "bulk" not in bulk.uns


def test_a_transposed_bulk(model: BulkDeconvolution, bulk: AnnData) -> None:
    turned = bulk.T.copy()
    for call in (model.deconvolve, model.get_proportions, model.annotate):
        with pytest.raises(ValueError, match=r"`bulk` looks transposed: 419 .*pass `bulk.T`"):
            call(turned, **QUIET)
    with no_warning():
        model.get_proportions(turned.T, **QUIET)


def test_genes_in_several_columns_are_added_up(model: BulkDeconvolution, bulk: AnnData) -> None:
    """As the refusal says."""
    expected = model.get_proportions(bulk, **QUIET)
    half = AnnData(bulk.X // 2, obs=bulk.obs, var=bulk.var)
    rest = AnnData(bulk.X - bulk.X // 2, obs=bulk.obs, var=bulk.var)
    both = ad.concat([half, rest], axis=1, merge="same")
    with pytest.raises(ValueError, match="419 names more than once") as caught:
        model.deconvolve(both, **QUIET)
    scope = {"bulk": both, "AnnData": AnnData}
    exec(re.search("`(bulk = [^`]*)`", str(caught.value))[1], scope)
    assert scope["bulk"].obs["arm"].tolist() == bulk.obs["arm"].tolist()
    found = model.get_proportions(scope["bulk"], **QUIET)
    pd.testing.assert_frame_equal(found, expected, atol=1e-3)


@pytest.mark.parametrize(("factor", "part"), [(1e-6, 1), (1e-4, 1), (1e-6, 0.7), (1, 1)])
def test_shares_are_tpm_up_to_a_factor(
    model: BulkDeconvolution, bulk: AnnData, factor: float, part: float
) -> None:
    bulk = bulk[:, : int(part * N_GENES)].copy()
    expected = model.get_proportions(bulk, **{**QUIET, "kind": "tpm"}, layer="tpm")
    bulk.layers["tpm"] *= factor
    for kind in ("tpm", "auto"):
        with warnings.catch_warnings(action="ignore"):
            found = model.deconvolve(bulk, **{**QUIET, "kind": kind}, layer="tpm")
        assert found.quality.attrs["kind"] == "tpm"
        pd.testing.assert_frame_equal(found.proportions, expected, atol=1e-4)


def test_a_bulk_without_samples_or_genes(model: BulkDeconvolution, bulk: AnnData) -> None:
    with pytest.raises(ValueError, match="has 0 samples and 419 genes. Both are needed"):
        model.deconvolve(bulk[:0].copy(), **QUIET)
    with pytest.raises(ValueError, match="has 6 samples and 0 genes"):
        model.deconvolve(bulk[:, :0].copy(), **QUIET)


def test_types_that_the_table_lacks(adata: AnnData, bulk: AnnData) -> None:
    adata.obs["kind"] = adata.obs["kind"].map(dict(zip(TYPES, "abcd", strict=True))).add(" line")
    with pytest.raises(ValueError, match="None of the types .*'a line'.*cell_size='reference'"):
        fit(adata).deconvolve(bulk, kind="counts", cell_size="table", interval=None)


def test_a_type_called_unknown(adata: AnnData, bulk: AnnData) -> None:
    adata.obs["kind"] = adata.obs["kind"].replace({"NK": "unknown"})
    model = fit(adata)
    assert "unknown" in model.get_proportions(bulk, **QUIET)
    with pytest.raises(ValueError, match="has a type 'unknown'.*rename the type"):
        model.deconvolve(bulk, **QUIET, unknown=True)


# Measured fractions


def fractions(
    samples: tuple[str, ...] = ("sample 2", "sample 0"), **types: object
) -> pd.DataFrame:
    values = types or {"NK": [0.2, 0.3], "T/4": [0.5, 0.1]}
    return pd.DataFrame(values, index=list(samples))


def changed(row: int, column: int, value: float) -> pd.DataFrame:
    frame = fractions()
    frame.iloc[row, column] = value
    return frame


REFUSED_MEASURED = {
    "samples of numbers": (
        fractions((1.1, 2.0)),
        None,
        TypeError,
        r"`measured.index` holds 1.1, 2.0, of type float, .*text here, such as 'sample 0'.*"
        r"1.1 for '1.10', 1 for '001'.*dtype=.*astype\(str\)",
    ),
    "a sample called NA": (
        fractions(("sample 1", np.nan)),
        None,
        TypeError,
        "`measured.index` holds nan, of type float",
    ),
    "types of numbers": (
        fractions().set_axis([0, 1], axis=1),
        None,
        TypeError,
        "`measured.columns` holds 0, 1, of type int.* such as 'B cells'",
    ),
    "array": (np.ones((2, 2)), None, TypeError, "`measured` is a ndarray. Pass a DataFrame"),
    "unknown sample": (
        fractions(("sample 2", "sample 9")),
        None,
        ValueError,
        "of which 1 is unknown, such as 'sample 9'.*'sample 0', 'sample 1'",
    ),
    "sample twice": (
        fractions(("sample 2", "sample 2")),
        None,
        ValueError,
        "samples 'sample 2', 'sample 2'.*each once",
    ),
    "no sample": (fractions()[:0], None, ValueError, "It takes samples among"),
    "unknown type": (
        fractions(NK=[0.1, 0.2], DC=[0.3, 0.3]),
        None,
        ValueError,
        "of which 1 is unknown, such as 'DC'.*'B cells', 'NK'.*`groups` can name",
    ),
    "one type": (fractions(NK=[0.1, 0.2]), None, ValueError, "one type only, 'NK'.*two or more"),
    "negative": (
        changed(1, 0, -0.1),
        None,
        ValueError,
        r"holds -0.1 \(sample 'sample 0', type 'NK'\).*between 0 and 1",
    ),
    "percent": (changed(0, 1, 50), None, ValueError, "holds 50 .*divide percentages by 100"),
    "infinite": (changed(0, 1, np.inf), None, ValueError, "holds inf .*'sample 2', type 'T/4'"),
    "all nan": (
        fractions(NK=[np.nan, 0.2], **{"T/4": [0.1, np.nan]}),
        None,
        ValueError,
        "No sample in `measured` has fractions of two types or more",
    ),
    "all zero": (
        fractions(NK=[0.0, 0.2], **{"T/4": [0.0, 0.2]}),
        None,
        ValueError,
        r"of sample 'sample 2' in `measured` are all zero \(1 such samples\)",
    ),
    "all zero but nan": (
        fractions(NK=[0, 0.2], tumour=[np.nan, 0.2], **{"T/4": [0, 0.2]}),
        None,
        ValueError,
        "'sample 2' in `measured` are all zero",
    ),
    "text of per cent": (
        fractions(NK=["10%", "20%"]).assign(tumour=0.1),
        None,
        TypeError,
        r"columns \['NK'\] of `measured` are not numbers",
    ),
    "sum with nan": (
        fractions(NK=[np.nan, 0.2], tumour=[0.6, 0.2], **{"T/4": [0.7, 0.2]}),
        None,
        ValueError,
        "sample 'sample 2' .* sum to 1.3.*sum to 1 at",
    ),
    "transposed": (
        fractions().T,
        None,
        ValueError,
        r"looks transposed: its rows are types \('NK', 'T/4'\).*samples.*`measured.T`",
    ),
    "sum": (changed(1, 1, 0.8), None, ValueError, "sample 'sample 0' .* sum to 1.1.*sum to 1 at"),
    "text": (
        fractions(NK=["a", "b"], **{"T/4": [0.1, 0.2]}),
        None,
        TypeError,
        r"columns \['NK'\] of `measured` are not numbers",
    ),
    "groups overlap": (
        fractions(x=[0.1, 0.2], y=[0.1, 0.2]),
        {"x": ["NK", "T/4"], "y": ["T/4", "tumour"]},
        ValueError,
        "`groups` hold 'T/4' twice, in 'x' and 'y'.*one group at most",
    ),
    "group and type overlap": (
        fractions(x=[0.1, 0.2], NK=[0.1, 0.2]),
        {"x": ["NK", "T/4"]},
        ValueError,
        "hold 'NK' more than once, in a group and on its own",
    ),
    "group of others": (
        fractions(x=[0.1, 0.2], NK=[0.1, 0.2]),
        {"x": ["DC"]},
        ValueError,
        r"`groups\['x'\]` names \['DC'\].*\['B cells'",
    ),
    "empty group": (fractions(), {"x": []}, ValueError, r"`groups\['x'\]` names no type"),
    "group of a string": (fractions(), {"x": "NK"}, TypeError, r"`groups\['x'\]` is a str"),
    "list of groups": (fractions(), ["x"], TypeError, "`groups` is a list. Pass a mapping"),
}


@pytest.mark.parametrize("case", REFUSED_MEASURED)
def test_measured_fractions_that_are_none(
    model: BulkDeconvolution, bulk: AnnData, case: str
) -> None:
    measured, groups, error, match = REFUSED_MEASURED[case]
    with pytest.raises(error, match=match):
        model.deconvolve(bulk, **QUIET, measured=measured, groups=groups)


def test_measured_fractions_of_any_kind(model: BulkDeconvolution, bulk: AnnData) -> None:
    expected = model.get_proportions(bulk, **QUIET, measured=fractions())
    for measured in (fractions()[["T/4", "NK"]], fractions()[::-1], fractions().astype("f4")):
        found = model.get_proportions(bulk, **QUIET, measured=measured)
        pd.testing.assert_frame_equal(found, expected, atol=1e-6)
    for kind in (object, str, "Float64", "category"):  # of `.T`, of text, of pandas
        found = model.get_proportions(bulk, **QUIET, measured=fractions().astype(kind))
        pd.testing.assert_frame_equal(found, expected)
    whole = fractions(x=[1, 0], **{"T/4": [0, 1]})  # integers, and zeros
    groups = {"x": ["NK", "B cells"]}
    found = model.get_proportions(bulk, **QUIET, measured=whole, groups=groups)
    assert np.isfinite(found).all(axis=None)


def test_measured_fractions_may_be_rounded(model: BulkDeconvolution, bulk: AnnData) -> None:
    """The level of a sample does not matter: sums a little above one are not rescaled."""
    exact = fractions(NK=[0.325, 0.2], tumour=[0.275, 0.3], **{"T/4": [0.4, 0.5]})
    expected = model.get_proportions(bulk, **QUIET, measured=exact)
    rounded = exact.assign(NK=[0.33, 0.2], tumour=[0.28, 0.3])
    with no_warning():
        found = model.get_proportions(bulk, **QUIET, measured=rounded)
        more = model.get_proportions(bulk, **QUIET, measured=exact * 1.01)
    np.testing.assert_allclose(found, expected, atol=0.005)
    np.testing.assert_allclose(more, expected, atol=1e-4)


def test_what_was_not_measured_is_nan(model: BulkDeconvolution, bulk: AnnData) -> None:
    expected = model.deconvolve(bulk, **QUIET, measured=fractions())
    gaps = fractions(("sample 2", "sample 0"), NK=[0.2, 0.3], **{"T/4": [0.5, 0.1]}, tumour=np.nan)
    gaps.loc["sample 4"] = [np.nan, 0.3, np.nan]
    with pytest.warns(UserWarning, match="`measured`") as caught:
        found = model.deconvolve(bulk, **QUIET, measured=gaps)
    pd.testing.assert_frame_equal(found.proportions, expected.proportions)
    assert found.quality.attrs["n_measured"] == 2
    messages = [str(w.message) for w in caught]
    assert messages[0].startswith("'sample 4' of `measured` (1 in all) left out: fewer than two")
    assert messages[1] == "'tumour' of `measured` (1 in all) left out: no number."
    assert_points_at(__file__, caught)
    gaps = fractions(NK=[0.2, 0.3], **{"T/4": [0.5, 0.1]}, tumour=[np.nan, 0.1])
    with no_warning():
        found = model.deconvolve(bulk, **QUIET, measured=gaps)
        objects = gaps.astype(object).where(gaps.notna(), None)
        again = model.deconvolve(bulk, **QUIET, measured=objects)
        nullable = model.deconvolve(bulk, **QUIET, measured=gaps.astype("Float64"))
    for other in (again, nullable):
        pd.testing.assert_frame_equal(other.proportions, found.proportions)
    assert np.isfinite(found.proportions).all(axis=None)
    assert not np.allclose(found.proportions, expected.proportions)


# Results and slots


def test_results_that_do_not_fit(model: BulkDeconvolution, bulk: AnnData) -> None:
    result = model.deconvolve(bulk, **QUIET)
    with pytest.raises(ValueError, match="of other samples.*same order"):
        model.annotate(bulk[:4].copy(), result=result)
    with pytest.raises(ValueError, match=r"\['interval', 'kind'\] are options of `deconvolve`"):
        model.annotate(bulk, result=result, kind="tpm", interval=None)
    for name in ("get_proportions", "get_mrna_fractions", "get_fit_quality"):
        with pytest.raises(ValueError, match=r"\['cell_size'\] are options.*or pass the bulk"):
            getattr(model, name)(result, cell_size="none")


def test_files_of_another_model(model: BulkDeconvolution, tmp_path: Path) -> None:
    from scovert.model import PairedVAE

    model.save(tmp_path / "model")
    with pytest.raises(FileExistsError):
        model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds a BulkDeconvolution, not a PairedVAE"):
        PairedVAE.load(tmp_path / "model", make())
    with pytest.raises(ValueError, match="lacks 2 of the 419 genes"):
        BulkDeconvolution.load(tmp_path / "model", make()[:, 2:].copy())


# Warnings


def test_one_sample_warns(model: BulkDeconvolution, bulk: AnnData) -> None:
    for ask in (model.deconvolve, model.get_proportions, model.annotate):
        one = bulk[:1].copy()
        with pytest.warns(UserWarning, match="one sample.*together") as caught:
            ask(one, **QUIET)
        assert_points_at(__file__, caught)


def test_a_kind_that_was_found_warns(model: BulkDeconvolution, bulk: AnnData) -> None:
    options = {**QUIET, "kind": "auto"}
    with pytest.warns(UserWarning, match=r"`bulk.X` is taken as `kind='counts'`") as caught:
        model.deconvolve(bulk, **options)
    assert_points_at(__file__, caught)
    with pytest.warns(UserWarning, match=r"layers\['tpm'\]` is taken as `kind='tpm'`.*unknown"):
        model.deconvolve(bulk, **options, layer="tpm")


@pytest.mark.parametrize(("n_genes", "n_warnings"), [(120, 1), (419, 0)])
def test_few_genes_warn(
    model: BulkDeconvolution, bulk: AnnData, n_genes: int, n_warnings: int
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.deconvolve(bulk[:, :n_genes].copy(), **QUIET)
    assert len(caught) == n_warnings
    if n_warnings:
        message = "share 120 genes, .* of which.*fewer than 200, proportions are uncertain"
        assert re.search(message, str(caught[0].message))
        assert_points_at(__file__, caught)
    with pytest.raises(ValueError, match="share 49 genes.*at least 50"):
        model.deconvolve(bulk[:, :49].copy(), **QUIET)


def test_sizes_of_some_types_warn(model: BulkDeconvolution, bulk: AnnData) -> None:
    options = {**QUIET, "cell_size": {"NK": 1.0, "tumour": 2.0}}
    with pytest.warns(UserWarning, match=r"\['B cells', 'T/4'\].*in the reference") as caught:
        model.deconvolve(bulk, **options)
    assert_points_at(__file__, caught)
    with no_warning():
        model.deconvolve(bulk, **{**options, "cell_size": dict.fromkeys(TYPES, 1.0)})


def test_content_of_the_reference_warns(adata: AnnData, bulk: AnnData) -> None:
    adata.obs["kind"] = adata.obs["kind"].replace({"B cells": "stroma", "NK": "stroma 2"})
    with pytest.warns(UserWarning, match="'stroma', 'stroma 2', 'tumour'.*`cell_size`") as caught:
        fit(adata).deconvolve(bulk, kind="counts", interval=None)
    assert_points_at(__file__, caught)


def test_profiles_are_finite_with_cells_without_counts(adata: AnnData) -> None:
    dense = adata.X.toarray()
    dense[[3, 80]] = 0
    adata.X = dense
    with pytest.warns(UserWarning, match="2 cells have no counts"):
        model = fit(adata)
    assert all(np.isfinite(table).all() for table in model.module.tables.values())


def test_many_cells_without_counts_change_little(adata: AnnData, bulk: AnnData) -> None:
    """They are no state of their own: profiles rest on the cells with counts."""
    options = {"kind": "counts", "cell_size": "none"}
    expected = fit(adata.copy()).get_proportions(bulk, **options)
    dense = adata.X.toarray()
    dense[:35] = 0  # more than half of a type
    adata.X = dense
    with pytest.warns(UserWarning, match="35 cells have no counts"):
        found = fit(adata).get_proportions(bulk, **options)
    assert (found - expected).abs().max(axis=None) < 0.05


def test_a_budget_that_is_none(model: BulkDeconvolution, bulk: AnnData) -> None:
    with pytest.raises(ValueError, match="`n_steps=0`.*whole number"):
        BulkBudget(n_steps=0)
    with pytest.raises(TypeError, match="`n_bootstrap=2.5`"):
        BulkBudget(n_bootstrap=2.5)
    with pytest.raises(TypeError, match="`steps`. Did you mean `n_steps`"):
        BulkBudget(steps=20)
    with pytest.raises(TypeError, match="`budget` is an int. Pass a `scovert.model.BulkBudget`"):
        model.deconvolve(bulk, **QUIET | {"budget": 20})


def test_types_without_counts_are_named(adata: AnnData, bulk: AnnData) -> None:
    dense = adata.X.toarray()
    dense[-12:, :200] = 0
    adata.X = dense
    model = fit(adata)
    model.deconvolve(bulk, **QUIET)
    with pytest.raises(ValueError, match="cells of 'tumour' have no counts of the genes.*Leave"):
        model.deconvolve(bulk[:, :200].copy(), **QUIET)


# Taken without a word


LABELS = {
    "bool": (lambda k: k == "NK", ["False", "True"]),
    "int": (
        lambda k: k.map({"B cells": 3, "NK": 10, "T/4": 2, "tumour": 1}),
        ["1", "10", "2", "3"],
    ),
    "category": (lambda k: pd.Categorical(k, ["none", *TYPES[::-1], "z"]), TYPES),
    "string": (lambda k: k.astype("string"), TYPES),
    "odd": (
        lambda k: k.map(dict(zip(TYPES, ["a b", "T/CD4 ü\n'{}%", "!", "+-"], strict=True))),
        ["!", "+-", "T/CD4 ü\n'{}%", "a b"],
    ),
}


@pytest.mark.parametrize("kind", LABELS)
def test_any_labels(adata: AnnData, bulk: AnnData, kind: str, tmp_path: Path) -> None:
    change, types = LABELS[kind]
    adata.obs["kind"] = change(adata.obs["kind"])
    before = adata.obs.copy()
    with no_warning():
        model = fit(adata)
        found = model.get_proportions(bulk, **QUIET)
        model.save(tmp_path / "model")
        loaded = BulkDeconvolution.load(tmp_path / "model", adata.copy())
        again = loaded.get_proportions(bulk, **QUIET)
        model.annotate(bulk, **QUIET)
    assert found.columns.tolist() == model.types == loaded.types == types
    pd.testing.assert_frame_equal(again, found)
    pd.testing.assert_frame_equal(adata.obs[before.columns], before)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = ad.read_h5ad(tmp_path / "bulk.h5ad")
    assert read.uns["bulk"]["types"].index.tolist() == types


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float64"])
def test_any_dtype(adata: AnnData, bulk: AnnData, model: BulkDeconvolution, dtype: str) -> None:
    adata.X = adata.X.toarray().astype(dtype)
    bulk.X = bulk.X.astype("int64" if dtype in ("uint8", "float16") else dtype)
    with no_warning():
        found = fit(adata).get_proportions(bulk, **QUIET)
    expected = model.get_proportions(make_bulk(), **QUIET)
    pd.testing.assert_frame_equal(found, expected)


def test_expected_counts_are_counts(model: BulkDeconvolution, bulk: AnnData) -> None:
    """Reads that several genes share are split, so that some counts are no whole numbers."""
    expected = model.get_proportions(bulk, **QUIET)
    bulk.X[:, ::3] += 0.25
    with no_warning():
        found = model.get_proportions(bulk, **QUIET)
        low = bulk.copy()
        low.X = np.rint(bulk.X / bulk.X.sum(1, keepdims=True) * 7e5)
        low.X[:, ::3] += 0.25
        model.get_proportions(low, **QUIET)
    pd.testing.assert_frame_equal(found, expected, atol=0.01)


def test_views_genes_and_empty_genes(bulk: AnnData, model: BulkDeconvolution) -> None:
    expected = model.get_proportions(bulk, **QUIET)
    adata = make()
    with no_warning():
        found = fit(adata[:, ::-1]).get_proportions(bulk[:, ::-1], **QUIET)
    pd.testing.assert_frame_equal(found, expected, atol=1e-3)  # genes in another order
    bulk.X[:, 5] = 0
    with no_warning():
        found = model.get_proportions(bulk, **QUIET)
    assert (found - expected).abs().max(axis=None) < 0.05
