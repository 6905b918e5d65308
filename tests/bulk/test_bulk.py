"""What BulkDeconvolution claims, on bulks mixed of real cells that the reference does not hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from scipy import optimize, sparse, stats

from scovert.data import pbmc68k
from scovert.model import BulkBudget, BulkDeconvolution, BulkResult
from scovert.model.bulk._rna_per_cell import RNA_PER_CELL
from scovert.simulate import Platform
from scovert.simulate import bulk as mix

TYPES = ["B", "DC", "Mono/cyte", "NK", "T"]
FEW = BulkBudget(
    n_steps=120,
    n_bootstrap=10,
    n_bootstrap_steps=60,
    n_cohorts=1,
    n_cohort_bootstrap=8,
    n_cohort_bootstrap_steps=40,
)
SHORT = replace(FEW, n_steps=12)
WHOLE = replace(FEW, n_steps=BulkBudget.n_steps)
QUICK = {"kind": "counts", "cell_size": "reference", "budget": FEW}
BRIEF = QUICK | {"budget": SHORT}  # where it matters only that two fits are the same
NAMES = {
    "CD14+ Monocyte": "Mono/cyte",
    "CD19+ B": "B",
    "CD56+ NK": "NK",
    "Dendritic": "DC",
}

pytestmark = pytest.mark.usefixtures("seed")


@dataclass
class Data:
    """A reference, a bulk of other cells, and what it holds."""

    reference: AnnData
    others: AnnData
    bulk: AnnData

    @property
    def truth(self) -> pd.DataFrame:
        return self.bulk.obsm["truth_proportions"][TYPES]


def split() -> tuple[AnnData, AnnData]:
    cells = pbmc68k()
    cells.obs["kind"] = [NAMES.get(kind, "T") for kind in cells.obs["cell_type"]]
    cells = cells[cells.obs["cell_type"] != "CD34+"].copy()
    is_reference = np.random.default_rng(0).permutation(cells.n_obs) % 2 == 0
    return cells[is_reference].copy(), cells[~is_reference].copy()


@pytest.fixture(scope="module")
def data() -> Data:
    """Seven samples on another platform."""
    reference, others = split()
    platform = Platform(depth=2e6, shift_sd=0.8)
    bulk = mix(others, "kind", n_samples=7, n_cells=400, platform=platform, seed=2)
    return Data(reference, others, bulk)


def train(reference: AnnData, setup: dict | None = None, **init: object) -> BulkDeconvolution:
    reference = reference.copy()
    BulkDeconvolution.setup_anndata(reference, "kind", **(setup or {}))
    model = BulkDeconvolution(reference, **init)
    model.train()
    return model


@pytest.fixture(scope="module")
def model(data: Data) -> BulkDeconvolution:
    return train(data.reference)


@pytest.fixture(scope="module")
def brief_result(model: BulkDeconvolution, data: Data) -> BulkResult:
    return model.deconvolve(data.bulk, **BRIEF)


@pytest.fixture(scope="module")
def result(model: BulkDeconvolution, data: Data) -> BulkResult:
    return model.deconvolve(data.bulk, **QUICK | {"budget": WHOLE})


def error(found: pd.DataFrame, truth: pd.DataFrame) -> float:
    return float(np.sqrt(((found[truth.columns] - truth) ** 2).to_numpy().mean()))


def least_squares(reference: AnnData, bulk: AnnData) -> pd.DataFrame:
    """Non-negative least squares with the mean profile of every type."""
    counts = pd.DataFrame(reference.X.toarray()).groupby(reference.obs["kind"].to_numpy())
    content = counts.sum().sum(axis=1) / counts.size()
    profiles = (counts.sum().T / counts.sum().sum(axis=1)).to_numpy()
    samples = np.asarray(bulk.X.todense() if sparse.issparse(bulk.X) else bulk.X)
    rna = [optimize.nnls(profiles, y / y.sum())[0] for y in samples]
    cells = pd.DataFrame(rna, bulk.obs_names, content.index) / content
    return cells.div(cells.sum(axis=1), axis=0)


# Fractions


def test_fractions_are_found_across_platforms(result: BulkResult, data: Data) -> None:
    found = error(result.proportions, data.truth)
    assert found < 0.08
    assert found < 0.6 * error(least_squares(data.reference, data.bulk), data.truth)
    for kind in TYPES:
        assert np.corrcoef(result.proportions[kind], data.truth[kind])[0, 1] > 0.9, kind


def test_a_result_is_labelled(result: BulkResult, data: Data, model: BulkDeconvolution) -> None:
    tables = [result.proportions, result.mrna_fractions, result.lower, result.upper]
    for table in [*tables, result.relative_lower, result.relative_upper]:
        assert table.columns.tolist() == TYPES == model.types
        assert table.index.equals(data.bulk.obs_names)
        assert (table >= 0).all(axis=None)
        assert (table <= 1).all(axis=None)
    for table in tables[:2]:
        np.testing.assert_allclose(table.sum(axis=1), 1, rtol=1e-6)
    assert result.cell_sizes.index.tolist() == TYPES
    assert result.quality.index.equals(data.bulk.obs_names)
    objective = result.history["objective"]["objective"]
    assert objective.index.tolist() == list(range(250))
    assert objective.iloc[-1] < objective.iloc[0]


def test_residuals_are_what_the_mixture_leaves_of_a_sample(result: BulkResult) -> None:
    (fit,) = result.fits
    joint, at = fit.joint, fit.profiles.informative
    factor = np.exp(joint.shift + joint.scale[:, None])
    mixed = joint.weights @ fit.profiles.shares[:, at] * 1e6 * factor
    left = np.log(fit.cpm[:, at] + 10) - np.log(mixed + 10)
    expected = 1.4826 * np.median(np.abs(left), axis=1)
    np.testing.assert_allclose(result.quality["residual_sd"], expected, rtol=1e-3)


def test_fractions_of_cells_are_those_of_rna_by_its_content(
    result: BulkResult, data: Data
) -> None:
    cells = result.mrna_fractions / result.cell_sizes
    cells = cells.div(cells.sum(axis=1), axis=0)
    pd.testing.assert_frame_equal(cells, result.proportions)
    counts = pd.Series(np.asarray(data.reference.X.sum(1)).ravel())
    by_hand = counts.groupby(data.reference.obs["kind"].to_numpy()).mean()
    ratio = result.cell_sizes / by_hand
    assert ratio.max() / ratio.min() < 1.3  # ribosomal genes are left out


def test_it_is_shown_in_a_few_lines(
    brief_result: BulkResult, singles: list[BulkResult], data: Data
) -> None:
    shown = repr(brief_result).splitlines()
    assert shown[0] == "BulkResult: 7 samples, 5 types, 1 reference"
    assert shown[1].strip() == "types: B, DC, Mono/cyte, NK, T"
    assert "90% intervals; method='joint', kind='counts', cell_size='reference'" in shown[2]
    residual = brief_result.quality["residual_sd"].mean()
    assert shown[3].strip() == f"mean residual sd {residual:.2f}"
    assert shown[4].strip() == "next: .proportions, .lower and .upper, .quality"
    average = BulkResult.average(singles)
    assert "2 references" in repr(average)
    assert f"disagreement {average.quality['disagreement'].mean():.0%}" in repr(average)
    assert len(repr(average)) < 300
    plain = repr(replace(brief_result, lower=None, upper=None, draws=None, interval=None))
    assert "no intervals; " in plain
    assert ".lower" not in plain


def test_the_summary_says_what_was_assumed_and_found(
    brief_result: BulkResult, singles: list[BulkResult]
) -> None:
    text, quality = brief_result.summary(), brief_result.quality
    numbers = (quality.attrs[name] for name in ("n_shared_genes", "n_informative_genes"))
    assert "share {} genes with enough counts, of which {} tell".format(*numbers) in text
    assert "taken as counts.\nRNA per cell: reference.\n" in text
    tables = (brief_result.proportions, brief_result.lower, brief_result.upper)
    means = [100 * table.mean() for table in tables]
    frequent = means[0].sort_values(ascending=False).index
    at = [text.index(f"\n{kind} ") for kind in frequent]
    assert at == sorted(at)  # the most frequent type first
    for kind in TYPES:
        row = " +".join([kind, *(f"{mean[kind]:.1f}" for mean in means)])
        assert re.search(row, text), kind
    worst = quality["residual_sd"]
    assert f"at most {worst.max():.2f} ({worst.idxmax()})" in text
    assert "disagree" not in text
    average = BulkResult.average(singles)
    found = average.quality["disagreement"]
    assert f"disagree on {found.median():.0%} of the cells of a sample" in average.summary()
    plain = replace(brief_result, lower=None, upper=None, draws=None, interval=None)
    assert "mean lower %" in text
    assert "mean lower %" not in plain.summary()


def test_a_tidy_table_has_a_row_for_every_sample_and_type(brief_result: BulkResult) -> None:
    tidy = brief_result.to_frame()
    proportions = brief_result.proportions
    assert tidy["type"][:5].tolist() == TYPES
    assert tidy["sample"][::5].tolist() == proportions.index.tolist()
    columns = {"proportion": proportions} | {
        name: getattr(brief_result, name)
        for name in ("lower", "upper", "relative_lower", "relative_upper")
    }
    assert list(tidy) == ["sample", "type", *columns]
    for name, table in columns.items():
        wide = tidy.pivot(index="sample", columns="type", values=name)
        pd.testing.assert_frame_equal(wide.loc[table.index], table, check_names=False)
    names = dict.fromkeys(("lower", "upper", "relative_lower", "relative_upper"))
    plain = replace(brief_result, **names, interval=None)
    assert list(plain.to_frame()) == ["sample", "type", "proportion"]


def test_the_quality_says_what_was_done(result: BulkResult, data: Data) -> None:
    facts = result.quality.attrs
    is_housekeeping = data.bulk.var_names.str.contains("^(?:RPL|RPS|MT-)")
    assert 50 < facts["n_informative_genes"] < facts["n_shared_genes"]
    assert facts["n_shared_genes"] <= (~is_housekeeping).sum()
    assert facts["kind"] == "counts"
    assert facts["cell_size"] == "reference"
    assert facts["shift_sd"] == pytest.approx(0.8, rel=0.4)
    assert 0 < facts["residual_sd"] < 0.3
    assert facts["multiplier"] >= 1


def test_missing_types_do_not_break_the_others(data: Data) -> None:
    for missing in ("NK", "B"):
        kept = data.reference[data.reference.obs["kind"] != missing].copy()
        found = train(kept).get_proportions(data.bulk, **QUICK)
        assert missing not in found
        others = data.truth.drop(columns=missing)
        others = others.div(others.sum(axis=1), axis=0)
        assert error(found, others) < 0.15
        naive = error(least_squares(kept, data.bulk), others)
        assert error(found, others) < 0.75 * naive


def test_one_sample_works_and_says_so(model: BulkDeconvolution, data: Data) -> None:
    with pytest.warns(UserWarning, match="one sample"):
        result = model.deconvolve(data.bulk[:1].copy(), **QUICK)
    assert result.proportions.shape == (1, 5)
    assert error(result.proportions, data.truth[:1]) < 0.15
    assert np.isfinite(result.draws).all()


def test_the_scale_of_a_sample_does_not_matter(
    model: BulkDeconvolution, data: Data, result: BulkResult
) -> None:
    tpm = data.bulk.copy()
    tpm.X = in_millions(tpm)
    shares = tpm.copy()
    shares.X = shares.X * np.random.default_rng(0).uniform(0.1, 30, (7, 1))
    options = QUICK | {"kind": "tpm", "budget": WHOLE}
    found = [model.get_proportions(b, **options) for b in (tpm, shares)]
    pd.testing.assert_frame_equal(found[0], found[1], atol=1e-4)
    # counts say how deep they are, which is all the difference
    assert (found[0] - result.proportions).abs().max(axis=None) < 0.03


def in_millions(bulk: AnnData) -> NDArray:
    counts = np.asarray(bulk.X.todense() if sparse.issparse(bulk.X) else bulk.X, float)
    return counts / counts.sum(1, keepdims=True) * 1e6


def test_the_kind_is_told(model: BulkDeconvolution, data: Data, brief_result: BulkResult) -> None:
    options = {"cell_size": "reference", "interval": None, "budget": SHORT}
    with pytest.warns(UserWarning, match="kind='counts'.*whole numbers"):
        found = model.deconvolve(data.bulk, **options)
    pd.testing.assert_frame_equal(found.proportions, brief_result.proportions)
    tpm = data.bulk.copy()
    tpm.X = in_millions(tpm)
    with pytest.warns(UserWarning, match="kind='tpm'"):
        assert model.deconvolve(tpm, **options).quality.attrs["kind"] == "tpm"


def test_the_order_and_number_of_genes_do_not_matter(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult
) -> None:
    rng = np.random.default_rng(0)
    extra = AnnData(
        rng.poisson(900, (7, 20)).astype(np.float32),
        obs=pd.DataFrame(index=data.bulk.obs_names),
        var=pd.DataFrame(index=[f"extra {i}" for i in range(20)]),
    )
    both = ad.concat([extra, data.bulk], axis=1, merge="first")
    both = both[:, rng.permutation(both.n_vars)].copy()
    pd.testing.assert_frame_equal(model.get_proportions(both, **BRIEF), brief_result.proportions)


def test_samples_in_another_order(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult
) -> None:
    found = model.get_proportions(data.bulk[::-1], **BRIEF)  # a view
    pd.testing.assert_frame_equal(found[::-1], brief_result.proportions, atol=1e-3)


FORMS = {
    "dense": lambda x: x,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr array": sparse.csr_array,
    "int": lambda x: x.astype(np.int64),
    "uint32": lambda x: x.astype(np.uint32),
    "sparse int": lambda x: sparse.csr_matrix(x.astype(np.int32)),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_matrix(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult, form: str, tmp_path: Path
) -> None:
    counts = np.asarray(data.bulk.X.todense() if sparse.issparse(data.bulk.X) else data.bulk.X)
    bulk = data.bulk.copy()
    bulk.X = FORMS[form](counts)
    before = bulk.copy()
    found = model.get_proportions(bulk, **BRIEF)
    pd.testing.assert_frame_equal(found, brief_result.proportions)
    assert type(bulk.X) is type(before.X)
    if form in ("dense", "csr"):
        bulk.write_h5ad(tmp_path / "bulk.h5ad")
        backed = ad.read_h5ad(tmp_path / "bulk.h5ad", backed="r")
        pd.testing.assert_frame_equal(
            model.get_proportions(backed, **BRIEF), brief_result.proportions
        )


def test_layers(model: BulkDeconvolution, data: Data, brief_result: BulkResult) -> None:
    bulk = data.bulk.copy()
    bulk.layers["counts"] = bulk.X.copy()
    bulk.X = np.log1p(in_millions(bulk))
    found = model.get_proportions(bulk, layer="counts", **BRIEF)
    pd.testing.assert_frame_equal(found, brief_result.proportions)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, np.asarray, "backed"])
def test_any_reference(
    data: Data, brief_result: BulkResult, form: Callable | str, tmp_path: Path
) -> None:
    reference = data.reference.copy()
    if form == "backed":
        reference.write_h5ad(tmp_path / "reference.h5ad")
        reference = ad.read_h5ad(tmp_path / "reference.h5ad", backed="r")
        BulkDeconvolution.setup_anndata(reference, "kind")
        model = BulkDeconvolution(reference)
        model.train()
    else:
        reference.layers["raw"] = form(reference.X.toarray())
        reference.X = reference.X.log1p()
        model = train(reference, {"layer": "raw"})
    pd.testing.assert_frame_equal(
        model.get_proportions(data.bulk, **BRIEF), brief_result.proportions
    )


# RNA content


def test_content_of_the_table(data: Data) -> None:
    reference = data.reference.copy()
    reference.obs["kind"] = reference.obs["kind"].replace({"Mono/cyte": "Monocytes"})
    model = train(reference)
    table = model.deconvolve(data.bulk, kind="counts", interval=None, budget=SHORT)
    rest = model.deconvolve(
        data.bulk, kind="counts", interval=None, budget=SHORT, cell_size="table"
    )
    pd.testing.assert_frame_equal(table.proportions, rest.proportions)
    assert table.quality.attrs["cell_size"] == "table"
    matched = {"B": "B", "DC": "DC", "Monocytes": "monocyte", "NK": "NK", "T": "T"}
    assert table.quality.attrs["matched_types"] == matched
    # all genes but the ribosomal ones and the rarest are shared
    expected = pd.Series({kind: RNA_PER_CELL[key] for kind, key in matched.items()})
    np.testing.assert_allclose(table.cell_sizes, expected / stats.gmean(expected), rtol=0.005)


def test_content_as_given(model: BulkDeconvolution, data: Data, brief_result: BulkResult) -> None:
    none = model.deconvolve(
        data.bulk, kind="counts", cell_size="none", interval=None, budget=SHORT
    )
    pd.testing.assert_frame_equal(none.proportions, none.mrna_fractions)
    assert (none.cell_sizes == 1).all()
    given = dict(zip(TYPES, (1, 2, 3, 4, 5), strict=True))
    found = model.deconvolve(
        data.bulk, kind="counts", cell_size=given, interval=None, budget=SHORT
    )
    cells = none.mrna_fractions / pd.Series(given)
    cells = cells.div(cells.sum(axis=1), axis=0)
    np.testing.assert_allclose(found.proportions, cells, atol=1e-3)
    part = {"T": 1.0, "B": brief_result.cell_sizes["B"] / brief_result.cell_sizes["T"]}
    with pytest.warns(UserWarning, match=r"no number for \['DC', 'Mono/cyte', 'NK'\].*reference"):
        found = model.get_proportions(
            data.bulk, kind="counts", cell_size=part, interval=None, budget=SHORT
        )
    pd.testing.assert_frame_equal(found, brief_result.proportions, atol=1e-3)


@pytest.mark.parametrize("cell_size", ["auto", "table"])
def test_content_of_two_kinds_is_said(data: Data, cell_size: str) -> None:
    reference = data.reference.copy()
    names = {"Mono/cyte": "CD14-positive monocyte", "DC": "APC", "NK": "innate", "T": "T cell"}
    reference.obs["kind"] = reference.obs["kind"].replace(names)
    model = train(reference)
    options = {"kind": "counts", "interval": None, "cell_size": cell_size, "budget": SHORT}
    known = ["B", "CD14-positive monocyte", "T cell"]
    message = rf"no number for \['APC', 'innate'\], but for {known}".replace("for [", r"for \[")
    message += r".*in the reference.*Pass a number for every type"
    with pytest.warns(UserWarning, match=message):
        found = model.deconvolve(data.bulk, **options, unknown=True)
    origins = {kind: "table" if kind in known else "reference" for kind in model.types}
    assert found.quality.attrs["cell_size_origins"] == origins | {"unknown": "mean of the types"}
    assert found.counted_in_reference == ["APC", "innate"]
    assert "cell_size='table' but 'reference' for APC, innate\n" in repr(found)
    assert (
        found.record()["types"]["cell_size_origin"].to_dict()
        == found.quality.attrs["cell_size_origins"]
    )
    sizes = dict.fromkeys(model.types, 1.0)
    with warnings.catch_warnings(action="error"):
        whole = model.deconvolve(data.bulk, **options | {"cell_size": sizes})
    assert whole.counted_in_reference == []
    assert set(whole.quality.attrs["cell_size_origins"].values()) == {"mapping"}


def test_references_with_content_of_two_kinds_are_said(
    model: BulkDeconvolution, brief_result: BulkResult
) -> None:
    quality = brief_result.quality.copy()
    origins = dict.fromkeys(model.types, "table")
    quality.attrs = quality.attrs | {"cell_size": "table", "cell_size_origins": origins}
    with pytest.warns(UserWarning, match=r"RNA per cell from \['reference', 'table'\].*same num"):
        found = BulkResult.average([brief_result, replace(brief_result, quality=quality)])
    assert set(found.quality.attrs["cell_size_origins"].values()) == {"reference and table"}
    assert found.counted_in_reference == model.types
    with warnings.catch_warnings(action="error"):
        alike = BulkResult.average([brief_result, brief_result])
    assert set(alike.quality.attrs["cell_size_origins"].values()) == {"reference"}
    assert alike.counted_in_reference == []


def test_content_that_is_not_known_comes_from_the_reference(
    data: Data, brief_result: BulkResult
) -> None:
    reference = data.reference.copy()
    reference.obs["kind"] = reference.obs["kind"].replace({"T": "tumour", "DC": "stroma"})
    model = train(reference)
    with pytest.warns(UserWarning, match="'stroma', 'tumour'.*not in the table.*cell_size"):
        found = model.deconvolve(data.bulk, kind="counts", interval=None, budget=SHORT)
    assert found.quality.attrs["cell_size"] == "reference"
    found = found.proportions.rename(columns={"tumour": "T", "stroma": "DC"})[TYPES]
    pd.testing.assert_frame_equal(found, brief_result.proportions, atol=1e-3)


# Measured fractions


def test_measured_samples_correct_the_others(model: BulkDeconvolution, data: Data) -> None:
    """Cells have other RNA contents than those of the reference."""
    platform = Platform(2e6, shift_sd=0.8, rna_content={"B": 3.0, "DC": 0.5})
    bulk = mix(data.others, "kind", n_samples=7, n_cells=400, platform=platform, seed=2)
    truth = bulk.obsm["truth_proportions"]
    plain = model.deconvolve(bulk, **QUICK)
    measured = truth[:2]
    found = model.deconvolve(bulk, **QUICK, measured=measured)
    others = truth[2:]
    assert error(found.proportions[2:], others) < 0.7 * error(plain.proportions[2:], others)
    width, plain_width = ((r.upper - r.lower)[2:].mean(axis=None) for r in (found, plain))
    assert width < 0.9 * plain_width
    assert not np.allclose(found.proportions[:2], measured[TYPES])  # estimates stay estimates
    np.testing.assert_allclose(found.proportions.sum(axis=1), 1)
    np.testing.assert_allclose(found.draws.sum(-1), 1)


def test_measured_fractions_with_gaps(model: BulkDeconvolution, data: Data) -> None:
    """A type that was not measured in one of the samples is corrected by the others."""
    platform = Platform(2e6, shift_sd=0.8, rna_content={"B": 3.0, "DC": 0.5})
    bulk = mix(data.others, "kind", n_samples=9, n_cells=400, platform=platform, seed=3)
    truth = bulk.obsm["truth_proportions"]
    gaps = truth[:3].copy()
    gaps.iloc[0, 0] = gaps.iloc[1, 3] = np.nan
    options = {**QUICK, "interval": None}
    errors = [
        error(model.get_proportions(bulk, **options, measured=measured)[3:], truth[3:])
        for measured in (None, truth[:3], gaps)
    ]
    assert errors[2] < 1.25 * errors[1]
    assert errors[2] < 0.6 * errors[0]


def test_measured_groups(model: BulkDeconvolution, data: Data, brief_result: BulkResult) -> None:
    measured = pd.DataFrame(
        {
            "lymphocytes": data.truth[["B", "NK", "T"]].sum(axis=1) / 2,
            "Mono/cyte": data.truth["Mono/cyte"],
        }
    )[3:5]
    groups = {"lymphocytes": ["B", "NK", "T"]}
    found = model.get_proportions(data.bulk, **BRIEF, measured=measured, groups=groups)
    plain = brief_result.proportions
    pd.testing.assert_series_equal(found["DC"], plain["DC"])
    lymphocytes = ["B", "NK", "T"]
    ratio = found[lymphocytes] / plain[lymphocytes]
    np.testing.assert_allclose(ratio.to_numpy(), ratio[["T"]].to_numpy() + np.zeros((1, 3)))
    assert (ratio["T"] < 0.98).all()
    np.testing.assert_allclose(found[[*lymphocytes, "Mono/cyte"]].sum(axis=1), 1 - plain["DC"])


# Intervals


def test_intervals_hold_what_is_there(result: BulkResult, data: Data) -> None:
    inside = (result.lower <= data.truth) & (data.truth <= result.upper)
    assert inside.mean(axis=None) > 0.7
    relative = (result.relative_upper - result.relative_lower).mean(axis=None)
    assert relative < 0.8 * (result.upper - result.lower).mean(axis=None)


def test_intervals_are_quantiles_of_the_draws(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult
) -> None:
    result = brief_result
    assert result.draws.shape == (600, 7, 5)
    np.testing.assert_allclose(result.draws.sum(-1), 1)
    low, high = np.quantile(result.draws, [0.05, 0.95], axis=0)
    np.testing.assert_allclose(result.lower, np.minimum(low, result.proportions))
    np.testing.assert_allclose(result.upper, np.maximum(high, result.proportions))
    narrow = model.deconvolve(data.bulk, **BRIEF, interval=0.5)
    assert (narrow.upper - narrow.lower <= result.upper - result.lower + 1e-12).all(axis=None)
    np.testing.assert_array_equal(narrow.draws, result.draws)  # the same seed


def test_intervals_can_be_left_out(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult
) -> None:
    found = model.deconvolve(data.bulk, **BRIEF, interval=None)
    pd.testing.assert_frame_equal(found.proportions, brief_result.proportions)
    for name in ("lower", "upper", "relative_lower", "relative_upper", "draws"):
        assert getattr(found, name) is None, name
    assert found.quality.attrs["multiplier"] is None


@pytest.mark.parametrize("options", [{}, {"interval": None}, {"method": "network"}])
def test_progress_counts_what_the_budget_allows(
    model: BulkDeconvolution, data: Data, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    class Bar:
        def __init__(self, _title: str, total: int, **_: object) -> None:
            self.total, self.done = total, 0

        def __enter__(self) -> Bar:
            bars.append(self)
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: int) -> None:
            self.done += n

    bars = []
    monkeypatch.setattr("scovert.model.bulk._deconvolve.stage", Bar)
    budget = BulkBudget(6, 3, 2, 2, 5, 2, 2, n_network_steps=9)
    found = model.deconvolve(data.bulk, **QUICK | options | {"budget": budget})
    expected = {"interval": 1, "method": 9}.get(next(iter(options), ""), budget.n_fits)
    assert bars[0].done == bars[0].total == expected
    n_steps = 9 if "method" in options else 6
    assert len(found.history["objective"]) == n_steps


# Other likelihoods and components


def test_negative_binomial_counts(model: BulkDeconvolution, data: Data) -> None:
    """On a bulk of the same protocol, for which it is meant."""
    same = mix(data.others, "kind", n_samples=5, n_cells=400, platform=Platform(2e6), seed=3)
    found = model.deconvolve(same, **QUICK, likelihood="nb", interval=None)
    assert error(found.proportions, same.obsm["truth_proportions"][TYPES]) < 0.07
    robust = model.get_proportions(same, **QUICK)
    assert not np.allclose(found.proportions, robust, atol=1e-4)


def test_an_unknown_component(model: BulkDeconvolution, data: Data, result: BulkResult) -> None:
    found = model.deconvolve(data.bulk, **BRIEF, unknown=True)
    assert found.proportions.columns.tolist() == [*TYPES, "unknown"]
    assert found.lower.columns.tolist() == [*TYPES, "unknown"]
    assert found.draws.shape == (600, 7, 6)
    np.testing.assert_allclose(found.proportions.sum(axis=1), 1)
    assert np.isfinite(found.draws).all()
    measured = data.truth[:1]
    corrected = model.get_proportions(data.bulk, **BRIEF, unknown=True, measured=measured)
    pd.testing.assert_series_equal(corrected["unknown"], found.proportions["unknown"])


# Several references


@pytest.fixture(scope="module")
def studies(data: Data) -> AnnData:
    """Two studies, one of which lacks a type."""
    both = data.reference.copy()
    both.obs["study"] = np.where(np.arange(both.n_obs) % 2 == 0, "p", "q")
    lacks = (both.obs["study"] == "p") & (both.obs["kind"] == "B")
    return both[~lacks].copy()


@pytest.fixture(scope="module")
def of_studies(studies: AnnData) -> list[BulkDeconvolution]:
    parts = [studies[studies.obs["study"] == name].copy() for name in ("p", "q")]
    return [train(part, min_cells_per_type=5) for part in parts]


@pytest.fixture(scope="module")
def of_both(studies: AnnData) -> BulkDeconvolution:
    return train(studies, {"batch_key": "study"}, min_cells_per_type=5)


@pytest.fixture(scope="module")
def singles(of_studies: list[BulkDeconvolution], data: Data) -> list[BulkResult]:
    return [m.deconvolve(data.bulk, **BRIEF) for m in of_studies]


@pytest.mark.slow
def test_an_average_is_better_than_its_parts(
    of_studies: list[BulkDeconvolution], data: Data
) -> None:
    results = [m.deconvolve(data.bulk, **QUICK, interval=None) for m in of_studies]
    tables = [r.proportions.reindex(columns=TYPES, fill_value=0) for r in results]
    average = BulkResult.average(results)
    assert error(average.proportions, data.truth) < np.mean([error(t, data.truth) for t in tables])


def test_studies_are_averaged(
    of_both: BulkDeconvolution, singles: list[BulkResult], data: Data
) -> None:
    found = of_both.deconvolve(data.bulk, **BRIEF)
    expected = BulkResult.average(singles)
    for name in ("proportions", "lower", "upper", "mrna_fractions", "quality"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.draws, expected.draws)
    assert found.proportions.columns.tolist() == TYPES == of_both.types
    assert found.draws.shape == (1200, 7, 5)


def test_measured_types_that_a_study_lacks(
    of_both: BulkDeconvolution, of_studies: list[BulkDeconvolution], data: Data
) -> None:
    options = BRIEF | {"interval": None}
    found = of_both.deconvolve(data.bulk, **options, measured=data.truth[:2])
    singles = []
    for single in of_studies:
        measured = data.truth[:2][single.types]
        singles.append(single.deconvolve(data.bulk, **options, measured=measured))
    expected = BulkResult.average(singles)
    pd.testing.assert_frame_equal(found.proportions, expected.proportions)


def test_the_average_is_a_geometric_mean(singles: list[BulkResult]) -> None:
    p, q = (r.proportions.reindex(columns=TYPES).to_numpy() for r in singles)
    mean = np.sqrt((p + 0.001) * (q + 0.001)) - 0.001
    mean[:, 0] = q[:, 0]  # of B, which the first lacks
    mean /= mean.sum(1, keepdims=True)
    average = BulkResult.average(singles)
    np.testing.assert_allclose(average.proportions, mean)
    distance = [np.abs(np.nan_to_num(x) - mean).sum(1) / 2 for x in (p, q)]
    np.testing.assert_allclose(average.quality["disagreement"], np.max(distance, 0))
    residual = np.mean([r.quality["residual_sd"] for r in singles], axis=0)
    np.testing.assert_allclose(average.quality["residual_sd"], residual)
    assert average.quality.attrs["shift_sd"] == [r.quality.attrs["shift_sd"] for r in singles]
    np.testing.assert_allclose(average.draws.sum(-1), 1)
    assert (average.lower <= average.proportions).all(axis=None)
    objective = sum(r.history["objective"] for r in singles)
    pd.testing.assert_frame_equal(average.history["objective"], objective)


def test_the_average_of_one_is_itself(result: BulkResult) -> None:
    assert BulkResult.average([result]) is result
    twice = BulkResult.average([result, result])
    pd.testing.assert_frame_equal(twice.proportions, result.proportions)
    np.testing.assert_allclose(twice.quality["disagreement"], 0, atol=1e-12)
    pd.testing.assert_frame_equal(twice.lower, result.lower)


def test_what_cannot_be_averaged(result: BulkResult) -> None:
    with pytest.raises(ValueError, match="`results` is empty"):
        BulkResult.average([])
    with pytest.raises(TypeError, match="is one BulkResult. Pass a list"):
        BulkResult.average(result)
    with pytest.raises(TypeError, match="holds a DataFrame.*results of"):
        BulkResult.average([result, result.proportions])
    other = replace(result, proportions=result.proportions[::-1])
    with pytest.raises(ValueError, match="different samples.*same order"):
        BulkResult.average([result, other])
    other = replace(result, interval=0.5)
    with pytest.raises(ValueError, match="intervals of 0.9 and 0.5.*same `interval`"):
        BulkResult.average([result, other])


def test_a_bad_reference_shows_as_disagreement(data: Data, result: BulkResult) -> None:
    """A reference with the labels of two types exchanged disagrees with a good one."""
    bad = data.reference.copy()
    bad.obs["kind"] = bad.obs["kind"].replace({"Mono/cyte": "T", "T": "Mono/cyte"})
    wrong = train(bad).deconvolve(data.bulk, **QUICK, interval=None)
    good = replace(result, draws=None, interval=None)
    distance = BulkResult.average([good, wrong]).quality["disagreement"]
    same = train(data.reference, n_states=1).deconvolve(data.bulk, **QUICK, interval=None)
    agreed = BulkResult.average([good, same]).quality["disagreement"]
    assert distance.mean() > 3 * agreed.mean()


# Views of a result


def test_a_result_is_read_without_another_fit(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, found = brief_result, model.get_proportions(data.bulk, **BRIEF)
    monkeypatch.setattr(BulkDeconvolution, "deconvolve", None)
    assert model.get_proportions(result) is result.proportions
    assert model.get_mrna_fractions(result) is result.mrna_fractions
    assert model.get_fit_quality(result) is result.quality
    pd.testing.assert_frame_equal(found, result.proportions)
    with pytest.raises(ValueError, match=r"\['cell_size'\] are options of `deconvolve`"):
        model.get_proportions(result, cell_size="none")


def test_views_of_a_bulk(model: BulkDeconvolution, data: Data, brief_result: BulkResult) -> None:
    pd.testing.assert_frame_equal(
        model.get_mrna_fractions(data.bulk, **BRIEF), brief_result.mrna_fractions
    )
    pd.testing.assert_frame_equal(model.get_fit_quality(data.bulk, **BRIEF), brief_result.quality)


# Annotation

SLOTS = ["proportions", "lower", "upper", "mrna_fractions"]


def test_annotate_writes_the_result(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult, tmp_path: Path
) -> None:
    bulk = data.bulk.copy()
    assert model.annotate(bulk, **BRIEF) is None
    for name in SLOTS:
        written = bulk.obsm[f"bulk_{name}"]
        expected = getattr(brief_result, name)
        assert written.columns.tolist() == ["B", "DC", "Mono_cyte", "NK", "T"]
        np.testing.assert_array_equal(written, expected)
        assert written.index.equals(bulk.obs_names)
    record = bulk.uns["bulk"]
    assert record["model"] == "BulkDeconvolution"
    assert record["types"].index.tolist() == TYPES
    assert record["params"]["kind"] == "counts"
    assert record["params"]["n_states"] == 3
    assert record["interval"] == 0.9
    assert record["cell_size"] == "reference"
    assert set(record["versions"]) >= {"scovert", "scvi-tools", "torch"}
    assert set(bulk.obsm) - set(data.bulk.obsm) == {f"bulk_{name}" for name in SLOTS}

    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = ad.read_h5ad(tmp_path / "bulk.h5ad")
    for name in SLOTS:
        slot = f"bulk_{name}"
        pd.testing.assert_frame_equal(read.obsm[slot], bulk.obsm[slot])
    assert read.uns["bulk"]["types"].index.tolist() == TYPES
    pd.testing.assert_frame_equal(read.uns["bulk"]["quality"], bulk.uns["bulk"]["quality"])
    model.annotate(read, result=brief_result)  # its own slots, also after a file


def test_annotate_takes_a_result(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BulkDeconvolution, "deconvolve", None)
    bulk = data.bulk.copy()
    model.annotate(bulk, result=brief_result, key_added="mine")
    assert set(bulk.obsm) - set(data.bulk.obsm) == {f"mine_{name}" for name in SLOTS}
    assert "bulk" not in bulk.uns
    without = replace(brief_result, lower=None, upper=None, interval=None)
    model.annotate(bulk, result=without, key_added="mine")  # drops what is no more
    assert set(bulk.obsm) - set(data.bulk.obsm) == {"mine_proportions", "mine_mrna_fractions"}
    with pytest.raises(ValueError, match=r"\['kind'\] are options of `deconvolve`"):
        model.annotate(bulk, result=brief_result, kind="counts")
    with pytest.raises(ValueError, match="`result` is of other samples"):
        model.annotate(bulk[::-1].copy(), result=brief_result)


def test_annotate_overwrites_only_its_own(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult
) -> None:
    bulk = data.bulk.copy()
    bulk.obsm["bulk_lower"] = np.ones((7, 2))
    with pytest.raises(ValueError, match="already holds.*obsm/bulk_lower.*overwrite=True"):
        model.annotate(bulk, result=brief_result)
    assert "bulk_proportions" not in bulk.obsm
    model.annotate(bulk, result=brief_result, overwrite=True)
    model.annotate(bulk, result=brief_result)
    assert bulk.obsm["bulk_lower"].shape == (7, 5)


def test_averaged_results_are_written(
    model: BulkDeconvolution, data: Data, singles: list[BulkResult], tmp_path: Path
) -> None:
    bulk = data.bulk.copy()
    model.annotate(bulk, result=BulkResult.average(singles))
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = ad.read_h5ad(tmp_path / "bulk.h5ad").uns["bulk"]
    assert list(read["quality"]) == ["residual_sd", "disagreement"]
    np.testing.assert_allclose(read["shift_sd"], bulk.uns["bulk"]["shift_sd"])


# The reference


def test_check_names_what_deserves_a_look(data: Data, model: BulkDeconvolution) -> None:
    table = model.check()
    assert list(table) == ["value", "verdict", "advice"]
    sizes = data.reference.obs["kind"].value_counts()
    assert table.loc["cells of the smallest type", "value"] == sizes.min()
    assert repr(sizes.idxmin()) in table.loc["cells of the smallest type", "advice"]
    assert table.loc["informative genes", "verdict"] == "ok"
    twins = data.reference[data.reference.obs["kind"] == "DC"].copy()
    twins.obs["kind"] = "DC twin"
    alike = ad.concat([data.reference, twins], index_unique="-")
    table = train(alike).check()
    row = table.loc[next(name for name in table.index if name.endswith("the closest types"))]
    assert row["verdict"] == "look"
    assert "'DC' and 'DC twin' express almost alike" in row["advice"]
    row = table.loc[next(name for name in table.index if name.endswith("the fewest"))]
    assert row["value"] < 3
    assert "Few genes tell 'DC" in row["advice"]


def test_the_number_of_genes_and_states(data: Data, model: BulkDeconvolution) -> None:
    few = train(data.reference, n_genes_per_type=30, n_states=1)
    result = few.deconvolve(data.bulk, **QUICK, interval=None)
    assert 60 < result.quality.attrs["n_informative_genes"] <= 150
    assert error(result.proportions, data.truth) < 0.12
    assert result.fits[0].joint.weights.shape == (7, 5)
    kept = data.reference[data.reference.obs["kind"] != "NK"].copy()
    of_four = train(kept).deconvolve(data.bulk, **QUICK, interval=None)
    assert of_four.quality.attrs["n_informative_genes"] <= 400  # 100 for up to four types


@pytest.mark.slow
def test_fractions_are_found_on_any_platform() -> None:
    """Of several seeds, against least squares with the same cells."""
    found, naive = [], []
    for seed in range(4):
        reference, others = split()
        platform = Platform(depth=2e6, shift_sd=0.8, jitter_sd=0.2, noise_sd=0.15)
        bulk = mix(others, "kind", n_samples=12, n_cells=300, platform=platform, seed=seed)
        truth = bulk.obsm["truth_proportions"]
        found.append(error(train(reference).get_proportions(bulk, **QUICK), truth))
        naive.append(error(least_squares(reference, bulk), truth))
    assert np.mean(found) < 0.1
    assert np.mean(found) < 0.6 * np.mean(naive)


def renamed(result: BulkResult, names: dict[str, str]) -> BulkResult:
    """Call types otherwise in the tables that an average looks at."""
    tables = {
        k: getattr(result, k).rename(columns=names) for k in ("proportions", "mrna_fractions")
    }
    return replace(result, **tables, cell_sizes=result.cell_sizes.rename(names))


def test_references_must_name_types_alike(singles: list[BulkResult]) -> None:
    first, second = singles
    everything = {kind: f"my {kind}" for kind in second.proportions}
    with pytest.raises(ValueError, match="no type in common.*call them alike"):
        BulkResult.average([first, renamed(second, everything)])
    shared = next(k for k in second.proportions if k in first.proportions and k in ("B", "NK"))
    other = renamed(second, {shared: f"{shared} cells"})
    with pytest.warns(UserWarning, match=rf"'{shared}' and '{shared} cells' look like one"):
        BulkResult.average([first, other])


def test_fractions_of_rna_are_not_averaged_with_those_of_cells(singles: list[BulkResult]) -> None:
    first, second = singles
    quality = second.quality.copy()
    quality.attrs = second.quality.attrs | {"cell_size": "none"}
    with pytest.raises(ValueError, match="`cell_size`.*'none'.*cannot be averaged"):
        BulkResult.average([first, replace(second, quality=quality)])


def test_a_large_unknown_component_is_said() -> None:
    from scovert.model.bulk._checks import warn_about_unknown

    with pytest.warns(UserWarning, match="73% of sample 'b' .above 25% in 1 sample"):
        warn_about_unknown(pd.Series([0.02, 0.73], ["a", "b"]))
    warn_about_unknown(pd.Series([0.02, 0.2], ["a", "b"]))


def test_figures_take_an_average(singles: list[BulkResult]) -> None:
    from matplotlib import pyplot as plt

    from scovert.pl import residuals

    axes = residuals(BulkResult.average(singles).quality)
    assert len(axes) == 2
    plt.close("all")


def test_what_was_asked_is_kept(
    model: BulkDeconvolution, data: Data, brief_result: BulkResult
) -> None:
    asked = {"method": "joint", "likelihood": "robust", "unknown": False, "n_measured": 0}
    assert asked.items() <= brief_result.quality.attrs.items()
    found = model.deconvolve(data.bulk, **BRIEF, interval=None, measured=data.truth[:2])
    assert found.quality.attrs["n_measured"] == 2
