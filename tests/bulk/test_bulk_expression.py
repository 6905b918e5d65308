"""Expression of cell types in a bulk, against simulated truth and an allocation to all alike."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray

from scovert.model import BulkBudget, BulkDeconvolution, BulkResult, TypeExpression
from scovert.model.bulk._expression_fit import CohortProfiles, fit_expression

N_TYPES, N_GENES, N_SAMPLES = 5, 700, 28
SHIFT_SD, RESIDUAL_SD = 0.6, 0.2


@dataclass(frozen=True)
class Truth:
    """Samples, with the log changes (conditions x types x genes) and profiles behind them."""

    cohort: CohortProfiles
    conditions: NDArray
    change: NDArray
    cpm: NDArray

    @property
    def specific(self) -> NDArray:
        return self.change - self.change.mean(1, keepdims=True)

    @property
    def is_expressed(self) -> NDArray:
        return np.broadcast_to(self.cohort.profiles > 20, self.change.shape)


def mix(
    change: NDArray, seed: int, *, shift_sd: float = SHIFT_SD, shares: float | NDArray = 2.0
) -> Truth:
    """Draw samples: reads of shifted mixtures of profiles, conditions in turn."""
    rng = np.random.default_rng(seed)
    n_conditions, n_types, n_genes = change.shape
    level = rng.normal(4, 1.0, n_genes) + rng.normal(0, 0.8, (n_types, n_genes))
    profiles = as_cpm(np.exp(level))
    conditions = np.arange(N_SAMPLES) % n_conditions
    weights = rng.dirichlet(np.broadcast_to(shares, n_types), N_SAMPLES)
    cpm = profiles * np.exp(change)
    noise = RESIDUAL_SD * rng.standard_t(4, (N_SAMPLES, n_genes))
    mean = np.einsum("bk,bkg->bg", weights, cpm[conditions])
    mean *= np.exp(shift_sd * rng.normal(size=n_genes) + noise)
    reads = as_cpm(rng.poisson(as_cpm(mean) * 20))
    variance = np.full(profiles.shape, 0.02)
    known = as_cpm(profiles * np.exp(rng.normal(0, np.sqrt(variance))))
    scale = np.median(np.log((reads + 10) / (weights @ known + 10)), axis=1)
    cohort = CohortProfiles(reads, 20.0, weights, known, variance, scale, shift_sd, RESIDUAL_SD)
    return Truth(cohort, conditions, change, as_cpm(cpm))


def as_cpm(values: NDArray) -> NDArray:
    return values / values.sum(-1, keepdims=True) * 1e6


def sparse_change(seed: int) -> NDArray:
    """Change a tenth of the genes in all types and a tenth in each type, in condition 1 only."""
    rng = np.random.default_rng(seed)
    change = np.zeros((2, N_TYPES, N_GENES))
    change[1] += (rng.random(N_GENES) < 0.1) * rng.normal(0, 1.5, N_GENES)
    size = rng.normal(0, 1.5, (N_TYPES, N_GENES))
    change[1] += (rng.random((N_TYPES, N_GENES)) < 0.1) * size
    return change


def dense_change(seed: int, n_conditions: int = 2) -> NDArray:
    """Change all genes, as the prior has it: a common part and one of the type, heavy tails."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, np.sqrt(0.5), (n_conditions, 1, N_GENES))
    own = rng.normal(0, np.sqrt(0.15), (n_conditions, N_TYPES, N_GENES))
    change = (common + own) * np.sqrt(4 / rng.chisquare(4, (n_conditions, 1, N_GENES)))
    return np.clip(change, -3, 3)  # so that no gene takes most of the reads


def allocate(truth: Truth) -> NDArray:
    """Share reads out by what the reference expects of the types, summed over a condition."""
    cohort = truth.cohort
    ratio = cohort.cpm / (cohort.weights @ cohort.profiles)
    found = [
        cohort.profiles * (cohort.weights[own].T @ ratio[own])
        for own in (truth.conditions == c for c in range(2))
    ]
    return as_cpm(np.stack(found))


def fold_change(cpm: NDArray) -> NDArray:
    return np.log((cpm[1] + 10) / (cpm[0] + 10))


def correlation(a: NDArray, b: NDArray) -> float:
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


def own_part(change: NDArray) -> NDArray:
    return change - change.mean(-2, keepdims=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fold_changes_are_closer_than_those_of_equal_allocation(seed: int) -> None:
    truth = mix(sparse_change(seed), seed)
    found = fit_expression(truth.cohort, truth.conditions).cpm
    wanted, ours, theirs = map(fold_change, (truth.cpm, found, allocate(truth)))
    expressed = truth.is_expressed[0]
    error, baseline = (np.sqrt(((x - wanted)[expressed] ** 2).mean()) for x in (ours, theirs))
    assert error < 0.92 * baseline
    r, r_baseline = (correlation(x[expressed], wanted[expressed]) for x in (ours, theirs))
    assert r > r_baseline + 0.08
    wanted, ours, theirs = (
        own_part(np.log(x[1] / x[0]))[expressed] for x in (truth.cpm, found, allocate(truth))
    )
    assert correlation(ours, wanted) > max(0.45, correlation(theirs, wanted) + 0.1)


def test_profiles_are_closer_than_the_reference() -> None:
    truth = mix(sparse_change(3), 3)
    found = fit_expression(truth.cohort, truth.conditions).cpm
    np.testing.assert_allclose(found.sum(-1), 1e6)
    error, baseline = (
        np.abs(np.log(x + 10) - np.log(truth.cpm[1] + 10)).mean()
        for x in (found[1], truth.cohort.profiles)
    )
    assert error < 0.9 * baseline


@pytest.mark.parametrize("seed", [0, 1])
def test_reliability_is_the_squared_correlation(seed: int) -> None:
    truth = mix(dense_change(seed), seed)
    found = fit_expression(truth.cohort, truth.conditions)
    estimated, reliability = own_part(found.change), found.reliability
    assert 0 <= reliability.min() < 0.02
    assert 0.7 < reliability.max() <= 1
    ends = [0.1, 0.25, 0.4, 0.55, 1.0]
    for low, high in zip(ends[:-1], ends[1:], strict=True):
        chosen = (reliability >= low) & (reliability < high)
        assert chosen.sum() > 200
        wanted, got = truth.specific[chosen], estimated[chosen]
        assert abs(correlation(wanted, got) ** 2 - reliability[chosen].mean()) < 0.12
        # neither shrunk too much nor too little
        assert abs((wanted * got).sum() / (got**2).sum() - 1) < 0.3


def test_the_higher_the_reliability_the_smaller_the_error() -> None:
    truth = mix(dense_change(4), 4)
    found = fit_expression(truth.cohort, truth.conditions)
    error = np.abs(own_part(found.change) - truth.specific)
    size = np.abs(truth.specific)
    few, much = found.reliability < 0.05, found.reliability > 0.5
    assert error[much].mean() / size[much].mean() < 0.75
    assert error[few].mean() / size[few].mean() > 0.9


def test_without_change_types_stay_as_in_the_reference() -> None:
    truth = mix(np.zeros((2, N_TYPES, N_GENES)), 5)
    found = fit_expression(truth.cohort, truth.conditions)
    expressed = truth.is_expressed
    difference = np.log(found.cpm / truth.cohort.profiles)[expressed]
    # a tenth of the shift of the platform, sd .6, is taken for a change of all types
    assert np.sqrt((difference**2).mean()) < 0.25
    # samples scatter by .28 around the mixture, 14 in a condition
    assert np.abs(fold_change(found.cpm)[expressed[0]]).mean() < 0.2
    assert correlation(found.shift, truth_shift(truth)) > 0.95


def truth_shift(truth: Truth) -> NDArray:
    cohort = truth.cohort
    expected = cohort.weights @ cohort.profiles
    return np.log(np.median(cohort.cpm / expected, axis=0))


def test_a_change_everywhere_is_a_change_if_there_are_no_shifts() -> None:
    change = np.zeros((1, N_TYPES, N_GENES))
    change[:, :, ::10] = 1.0
    for shift_sd, low, high in ((0.05, 0.75, 1.1), (0.6, 0.0, 0.3)):
        truth = mix(change, 6, shift_sd=shift_sd)
        found = fit_expression(truth.cohort, truth.conditions)
        expressed = truth.is_expressed[0, :, ::10].all(0)
        assert low < np.median(found.change[0].mean(0)[::10][expressed]) < high


def test_an_absent_type_follows_the_others() -> None:
    truth = mix(sparse_change(7), 7)
    weights = truth.cohort.weights.copy()
    weights[:, 0] = 1e-6
    weights /= weights.sum(1, keepdims=True)
    mean = np.einsum("bk,bkg->bg", weights, truth.cpm[truth.conditions])
    cpm = as_cpm(np.random.default_rng(0).poisson(mean * 20))
    absent = replace(truth.cohort, cpm=cpm, weights=weights, scale=np.zeros(N_SAMPLES))
    found = fit_expression(absent, truth.conditions)
    assert found.reliability[:, 0].mean() < 0.01
    assert found.reliability[:, 1:].mean() > 0.2
    common = found.change[1, 1:].mean(0)
    assert correlation(found.change[1, 0], common) > 0.9
    own = found.change[1] - found.change[1].mean(0)
    assert np.abs(own[0]).mean() < 0.3 * np.abs(own[1:]).mean()


def test_one_condition_tells_types_apart_but_not_shift_from_change() -> None:
    truth = mix(dense_change(8, n_conditions=1), 8)
    found = fit_expression(truth.cohort, truth.conditions)
    assert found.change.shape == (1, N_TYPES, N_GENES)
    expressed = truth.is_expressed
    assert correlation(own_part(found.change)[expressed], truth.specific[expressed]) > 0.4


def test_every_sample_can_be_a_condition() -> None:
    truth = mix(sparse_change(9), 9)
    found = fit_expression(truth.cohort, np.arange(N_SAMPLES))
    assert found.change.shape == (N_SAMPLES, N_TYPES, N_GENES)
    assert np.isfinite(found.change).all()
    assert found.reliability.mean() < 0.03
    treated = truth.conditions == 1
    mean = found.change[treated].mean((0, 1)) - found.change[~treated].mean((0, 1))
    assert correlation(mean, truth.change[1].mean(0)) > 0.8


def test_order_of_genes_samples_and_types_does_not_matter() -> None:
    truth = mix(sparse_change(10), 10)
    rng = np.random.default_rng(0)
    genes, samples, types = (rng.permutation(n) for n in (N_GENES, N_SAMPLES, N_TYPES))
    m = truth.cohort
    permuted = replace(
        m,
        cpm=m.cpm[np.ix_(samples, genes)],
        weights=m.weights[np.ix_(samples, types)],
        profiles=m.profiles[np.ix_(types, genes)],
        variance=m.variance[np.ix_(types, genes)],
        scale=m.scale[samples],
    )
    found = fit_expression(m, truth.conditions)
    again = fit_expression(permuted, truth.conditions[samples])
    for name in ("change", "reliability", "cpm"):
        wanted = getattr(found, name)[:, types][:, :, genes]
        np.testing.assert_allclose(getattr(again, name), wanted, rtol=1e-6, atol=1e-6)


def test_blocks_of_genes_do_not_matter() -> None:
    truth = mix(sparse_change(11), 11)
    whole = fit_expression(truth.cohort, truth.conditions)
    parts = fit_expression(truth.cohort, truth.conditions, genes_at_once=97)
    np.testing.assert_allclose(parts.change, whole.change, rtol=1e-8, atol=1e-10)


def test_an_outlying_sample_hardly_matters() -> None:
    truth = mix(sparse_change(12), 12)
    cpm = truth.cohort.cpm.copy()
    cpm[3] *= np.random.default_rng(0).choice([1, 20], N_GENES, p=[0.9, 0.1])
    clean, odd = (
        fold_change(fit_expression(m, truth.conditions).cpm)
        for m in (truth.cohort, replace(truth.cohort, cpm=cpm))
    )
    wanted, expressed = fold_change(truth.cpm), truth.is_expressed[0]
    errors = [np.abs(x - wanted)[expressed].mean() for x in (clean, odd)]
    assert errors[1] < 1.15 * errors[0]


def test_many_genes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    n_types, n_genes, n_samples = 8, 12_000, 24
    profiles = as_cpm(rng.gamma(0.5, size=(n_types, n_genes)) + 0.01)
    weights = rng.dirichlet(np.ones(n_types), n_samples)
    cpm = as_cpm(rng.poisson(weights @ profiles))
    variance, scale = np.full(profiles.shape, 0.05), np.zeros(n_samples)
    cohort = CohortProfiles(cpm, 1.0, weights, profiles, variance, scale, 0.3, 0.2)
    start = time.process_time()
    fit_expression(cohort, np.arange(n_samples) % 2)
    assert time.process_time() - start < 5


TYPES = ["B", "CD4/T", "NK", "mono"]
QUIET = {"kind": "counts", "cell_size": "reference", "interval": None}
BRIEF = QUIET | {"budget": BulkBudget(n_steps=20)}  # where two fits need only be the same


@dataclass(frozen=True)
class Study:
    reference: AnnData
    bulk: AnnData
    model: BulkDeconvolution
    result: BulkResult
    profiles: NDArray


@pytest.fixture(scope="module")
def study() -> Study:
    """Fit 16 samples of four types; 20 genes rise eightfold in the B cells of treated samples."""
    rng = np.random.default_rng(0)
    genes = pd.Index([f"g{i}" for i in range(403)])
    profiles = as_cpm(np.exp(rng.normal(4, 1, 400) + rng.normal(0, 1.2, (4, 400))))
    labels = np.repeat(np.arange(4), [41, 59, 37, 73])
    cells = rng.poisson(profiles[labels] * 0.005).astype(np.float32)
    obs = pd.DataFrame({"type": np.array(TYPES)[labels], "study": np.arange(len(labels)) % 2})
    obs.index = [f"cell {i}" for i in range(len(labels))]
    reference = AnnData(cells, obs, pd.DataFrame(index=genes[:400]))
    treated = np.arange(16) % 2 == 1
    changed = np.stack([profiles, profiles])
    changed[1, 0, :20] *= 8
    weights = rng.dirichlet(np.full(4, 2.0), 16)
    mean = np.einsum("bk,bkg->bg", weights, changed[treated.astype(int)])
    reads = np.column_stack([rng.poisson(as_cpm(mean) * 5), rng.poisson(50, (16, 3))])
    obs = pd.DataFrame({"treated": treated, "arm": np.where(treated, "drug", "none")})
    obs.index = [f"s{i}" for i in range(16)]
    bulk = AnnData(reads.astype(np.float32), obs, pd.DataFrame(index=genes))
    model = fitted(reference)
    return Study(reference, bulk, model, model.deconvolve(bulk, **QUIET), profiles)


def fitted(reference: AnnData, **keys: str) -> BulkDeconvolution:
    BulkDeconvolution.setup_anndata(reference, "type", **keys)
    model = BulkDeconvolution(reference)
    model.train()
    return model


@pytest.fixture(scope="module")
def expression(study: Study) -> TypeExpression:
    return study.model.get_cell_type_expression(study.result, "arm")


def test_the_type_that_changed_is_found(study: Study, expression: TypeExpression) -> None:
    change = expression.log2_fold_change("drug", "none")
    assert list(change.index) == TYPES
    marked = [f"g{i}" for i in range(20) if study.profiles[0, i] > 20]
    assert change.loc["B", marked].median() > 2
    assert change.loc[["CD4/T", "NK", "mono"], marked].median().median() < 1
    rest = [f"g{i}" for i in range(20, 400)]
    assert change[rest].abs().to_numpy().mean() < 0.3


def test_tables_have_conditions_types_and_shared_genes(
    study: Study, expression: TypeExpression
) -> None:
    wanted = pd.MultiIndex.from_product([["drug", "none"], TYPES], names=["condition", "type"])
    for table in (expression.expression, expression.reliability):
        pd.testing.assert_index_equal(table.index, wanted)
        assert table.columns.isin(study.reference.var_names).all()
        assert table.notna().all(axis=None)
    np.testing.assert_allclose(expression.expression.sum(axis=1), 1e6)
    assert expression.reliability.min(axis=None) >= 0
    assert expression.reliability.max(axis=None) <= 1
    assert (expression.condition.astype(str) == study.bulk.obs["arm"].astype(str)).all()


def test_a_bulk_and_its_result_say_the_same(study: Study, expression: TypeExpression) -> None:
    again = study.model.get_cell_type_expression(study.bulk, "arm", **QUIET)
    pd.testing.assert_frame_equal(again.expression, expression.expression)


@pytest.mark.parametrize("key", ["treated", "arm", "category", "number"])
def test_conditions_of_any_kind(study: Study, key: str) -> None:
    obs = study.bulk.obs.copy()
    obs["category"] = pd.Categorical(obs["arm"], ["unused", "none", "drug"])
    obs["number"] = obs["treated"].astype(int)
    found = study.model.get_cell_type_expression(replace(study.result, obs=obs), key)
    labels = obs[key].unique()[obs["treated"].to_numpy()[:2].argsort()]
    change = found.log2_fold_change(labels[1], labels[0])
    assert change.loc["B"].iloc[:20].mean() > 1


def test_without_a_key_all_samples_are_one_condition(study: Study) -> None:
    found = study.model.get_cell_type_expression(study.result)
    assert list(found.expression.index.unique("condition")) == ["all"]
    assert found.expression.shape[0] == 4


def test_one_sample_is_said_to_tell_little(study: Study) -> None:
    one = study.bulk[:1].copy()
    with pytest.warns(UserWarning, match="one sample only of 'all'"):
        found = study.model.get_cell_type_expression(one, **QUIET)
    assert found.reliability.mean(axis=None) < 0.05


def test_an_unknown_component_has_no_profile(study: Study) -> None:
    found = study.model.get_cell_type_expression(study.bulk, "arm", unknown=True, **QUIET)
    assert list(found.expression.index.unique("type")) == TYPES
    change = found.log2_fold_change("drug", "none")
    assert change.loc["B"].iloc[:20].mean() > 1


def test_several_references_are_averaged(study: Study) -> None:
    reference = study.reference.copy()
    reference = reference[(reference.obs["study"] == 0) | (reference.obs["type"] != "NK")].copy()
    model = fitted(reference, batch_key="study")
    found = model.get_cell_type_expression(study.bulk, "arm", **BRIEF)
    single = []
    for number in (0, 1):
        own = fitted(reference[reference.obs["study"] == number].copy())
        single.append(own.get_cell_type_expression(study.bulk, "arm", **BRIEF))
    assert sorted(found.expression.index.unique("type")) == TYPES
    genes = single[0].expression.columns.intersection(single[1].expression.columns)
    assert set(found.expression.columns) == set(genes)
    row = ("drug", "B")
    mean = sum(s.expression.loc[row, genes] for s in single) / 2
    np.testing.assert_allclose(
        found.expression.loc[row, genes], mean * 1e6 / mean.sum(), rtol=1e-4
    )
    np.testing.assert_allclose(
        found.reliability.loc[("drug", "NK"), genes],
        single[0].reliability.loc[("drug", "NK"), genes],
        atol=1e-4,
    )


def test_layers_repeat_the_profile_of_the_condition(
    study: Study, expression: TypeExpression, tmp_path: Path
) -> None:
    bulk = study.bulk.copy()
    study.model.annotate(bulk, result=study.result, condition_key="arm")
    names = {f"bulk_{p}{t}" for p in ("", "reliability_") for t in ("B", "CD4_T", "NK", "mono")}
    assert set(bulk.layers) == names == set(bulk.uns["bulk"]["layers"])
    assert bulk.uns["bulk"]["layers"]["bulk_reliability_CD4_T"] == "CD4/T"
    for layer, table in (
        ("bulk_CD4_T", expression.expression),
        ("bulk_reliability_CD4_T", expression.reliability),
    ):
        values = bulk.to_df(layer)
        assert values.iloc[:, 400:].isna().all(axis=None)
        for sample in ("s0", "s1"):
            wanted = table.loc[(bulk.obs.loc[sample, "arm"], "CD4/T")]
            np.testing.assert_allclose(values.loc[sample, wanted.index], wanted, rtol=1e-5)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    np.testing.assert_array_equal(read.layers["bulk_mono"], bulk.layers["bulk_mono"])
    assert bulk.uns["bulk"]["n_genes_without_profile"] == values.isna().all().sum()
    study.model.annotate(bulk, result=study.result, write_layer=False)
    assert not set(bulk.layers)
    assert "layers" not in bulk.uns["bulk"]


def test_without_a_condition_all_samples_have_one_profile(study: Study) -> None:
    bulk = study.bulk.copy()
    study.model.annotate(bulk, result=study.result)
    values = bulk.to_df("bulk_mono").dropna(axis=1)
    assert (values.nunique() == 1).all()
    expected = study.model.get_cell_type_expression(study.result).expression
    np.testing.assert_allclose(values.iloc[0], expected.loc[("all", "mono")], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "key", "error", "match"),
    [
        ({}, "dose", KeyError, r"`condition_key='dose'` is not a column"),
        (
            {"dose": [np.nan, *range(15)]},
            "dose",
            ValueError,
            "no value in 1 sample, such as 's0'",
        ),
    ],
)
def test_bad_conditions_are_refused(
    study: Study, change: dict, key: str, error: type[Exception], match: str
) -> None:
    bulk = study.bulk.copy()
    bulk.obs = bulk.obs.assign(**change)
    result = replace(study.result, obs=bulk.obs)
    with pytest.raises(error, match=match):
        study.model.get_cell_type_expression(result, key)
    with pytest.raises(error, match=match):
        study.model.annotate(bulk, result=result, condition_key=key)
    assert "bulk" not in bulk.uns


def test_unknown_conditions_of_a_fold_change_are_named(expression: TypeExpression) -> None:
    with pytest.raises(KeyError, match=r"no condition 'other'. Pass two of \['drug', 'none'\]"):
        expression.log2_fold_change("other", "none")


def test_foreign_layers_are_not_overwritten(study: Study) -> None:
    bulk = study.bulk.copy()
    bulk.layers["bulk_B"] = np.zeros(bulk.shape)
    with pytest.raises(ValueError, match="layers/bulk_B"):
        study.model.annotate(bulk, result=study.result, condition_key="arm")


def test_layers_that_do_not_fit_are_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Free", (), {"available": 10}))
    with pytest.raises(MemoryError, match=r"and 7 more.*Pass `write_layer=False`"):
        study.model.annotate(study.bulk.copy(), result=study.result, condition_key="arm")
