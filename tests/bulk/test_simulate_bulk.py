"""Bulk samples mixed of real cells: their law, their truth, and what is refused."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from scovert.simulate import Platform, bulk

N_GENES = 211
SIZES = {"B": 23, "Mono": 17, "NK": 5, "T/CD4 ü": 31}
RNA = {"T/CD4 ü": 1.0, "B": 1.0, "Mono": 8.0, "NK": 2.0}  # relative, of the cells
KEY = "cell_type"


def make_reference() -> ad.AnnData:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    profile = {t: rng.gamma(0.5, 1.0, N_GENES) for t in SIZES}
    mean = np.stack([3 * RNA[t] * profile[t] / profile[t].mean() for t in labels])
    return ad.AnnData(
        sparse.csr_matrix(rng.poisson(mean).astype(np.float32)),
        obs=pd.DataFrame(
            {KEY: pd.Categorical(labels, categories=["absent", *reversed(SIZES)])},
            index=[f"cell {i}" for i in range(len(labels))],
        ),
        var=pd.DataFrame(index=[f"gene {g}" for g in range(N_GENES)]),
    )


@pytest.fixture(scope="module")
def reference() -> ad.AnnData:
    return make_reference()


def means_of(reference: ad.AnnData) -> pd.DataFrame:
    """Mean counts of each type, types x genes."""
    labels = reference.obs[KEY].astype(str)
    return pd.DataFrame({t: reference[labels == t].X.toarray().mean(0) for t in SIZES}).T


def test_slots(reference: ad.AnnData) -> None:
    samples = bulk(reference, KEY, n_samples=7)
    assert samples.shape == (7, N_GENES)
    assert samples.X.dtype == np.float32
    assert list(samples.obs_names) == [f"sample_{i}" for i in range(7)]
    assert list(samples.var_names) == list(reference.var_names)
    for name in ("truth_proportions", "truth_mrna_fractions"):
        assert list(samples.obsm[name].columns) == list(SIZES)  # sorted by name
        np.testing.assert_allclose(samples.obsm[name].sum(axis=1), 1)
    assert "condition" not in samples.obs
    assert "truth_log2_fc" not in samples.varm
    assert not samples.var["truth_shift"].any()
    assert not samples.varm["truth_jitter"].to_numpy().any()


def test_samples_hold_whole_cells(reference: ad.AnnData) -> None:
    numbers = 50 * bulk(reference, KEY, n_cells=50).obsm["truth_proportions"].to_numpy()
    np.testing.assert_allclose(numbers, np.rint(numbers), atol=1e-9)


def test_one_cell_is_one_cell(reference: ad.AnnData) -> None:
    # The expected counts of a sample of one cell are those of a cell of the named type, scaled
    samples = bulk(reference, KEY, n_samples=30, n_cells=1, platform=Platform(depth=1e6))
    truth = samples.obsm["truth_proportions"]
    labels, cells = reference.obs[KEY].astype(str).to_numpy(), reference.X.toarray()
    for i, label in enumerate(truth.columns[truth.to_numpy().argmax(axis=1)]):
        own = cells[labels == label]
        expected = 1e6 * own / own.sum(axis=1, keepdims=True)
        z = (samples.X[i] - expected) / np.sqrt(np.maximum(expected, 1))
        assert np.abs(z).max(axis=1).min() < 5


def test_mean_of_many_cells_is_the_linear_mixture(reference: ad.AnnData) -> None:
    samples = bulk(reference, KEY, n_samples=5, n_cells=200_000)
    mixed = samples.obsm["truth_proportions"].to_numpy() @ means_of(reference).to_numpy()
    expected = 1e7 * mixed / mixed.sum(axis=1, keepdims=True)
    assert np.abs(samples.X / expected - 1)[expected > 1e4].max() < 0.05
    np.testing.assert_allclose(samples.X.sum(axis=1), 1e7, rtol=0.002)


def test_rna_content_is_that_of_the_cells_and_of_the_factor(reference: ad.AnnData) -> None:
    platform = Platform(rna_content={"NK": 3.0})
    samples = bulk(reference, KEY, n_samples=6, n_cells=200_000, platform=platform)
    size = means_of(reference).sum(axis=1) * pd.Series({**dict.fromkeys(SIZES, 1.0), "NK": 3.0})
    expected = samples.obsm["truth_proportions"] * size
    expected = expected.div(expected.sum(axis=1), axis=0)
    np.testing.assert_allclose(samples.obsm["truth_mrna_fractions"], expected, atol=0.002)


def test_counts_are_poisson(reference: ad.AnnData) -> None:
    # The same cells, mixed twice with another depth, differ by nothing but the draws
    low, high = (
        bulk(reference, KEY, n_samples=40, platform=Platform(depth=depth)) for depth in (1e4, 1e9)
    )
    mean = high.X / 1e5
    u = np.random.default_rng(1).random(mean.shape)
    pit = stats.poisson.cdf(low.X - 1, mean) + u * stats.poisson.pmf(low.X, mean)
    assert stats.kstest(pit.ravel(), "uniform").pvalue > 0.01


def test_platform_multiplies(reference: ad.AnnData) -> None:
    plain = bulk(reference, KEY, n_samples=3, n_cells=100, platform=Platform(depth=1e9))
    given = Platform(depth=1e9, shift_sd=0.8)
    moved = bulk(reference, KEY, n_samples=3, n_cells=100, platform=given)
    pd.testing.assert_frame_equal(  # the same cells
        plain.obsm["truth_mrna_fractions"], moved.obsm["truth_mrna_fractions"]
    )
    expected = plain.X * np.exp(moved.var["truth_shift"].to_numpy())
    expected = 1e9 * expected / expected.sum(axis=1, keepdims=True)
    assert np.abs(moved.X / np.maximum(expected, 1) - 1)[expected > 1e5].max() < 0.03


def test_jitter_is_of_gene_and_type(reference: ad.AnnData) -> None:
    one = pd.DataFrame(np.eye(4), columns=list(SIZES), index=list("abcd"))
    plain, moved = (
        bulk(reference, KEY, proportions=one, platform=Platform(depth=1e9, jitter_sd=sd))
        for sd in (0.0, 0.3)
    )
    expected = plain.X * np.exp(moved.varm["truth_jitter"].to_numpy().T)
    expected = 1e9 * expected / expected.sum(axis=1, keepdims=True)
    assert np.abs(moved.X / np.maximum(expected, 1) - 1)[expected > 1e5].max() < 0.03


def test_standard_deviations() -> None:
    rng = np.random.default_rng(0)
    n = 4001
    cells = ad.AnnData(
        np.full((6, n), 50.0, np.float32), obs={KEY: rng.permutation(list("aabbcc"))}
    )
    cells.obs_names, cells.var_names = list("uvwxyz"), [f"g{i}" for i in range(n)]
    platform = Platform(depth=1e9, shift_sd=0.8, jitter_sd=0.3, noise_sd=0.1)
    samples = bulk(cells, KEY, platform=platform, n_samples=3)
    shift, jitter = samples.var["truth_shift"].to_numpy(), samples.varm["truth_jitter"].to_numpy()
    assert stats.kstest(shift / 0.8, "norm").pvalue > 0.01
    assert stats.kstest(jitter.ravel() / 0.3, "norm").pvalue > 0.01
    clean = np.exp(jitter) @ samples.obsm["truth_proportions"].to_numpy().T  # (n_genes, n_samples)
    noise = np.log(samples.X) - np.log(clean.T) - shift
    noise -= noise.mean(axis=1, keepdims=True)
    assert stats.kstest(noise.ravel() / 0.1, "norm").pvalue > 0.01


def test_proportions_are_dirichlet(reference: ad.AnnData) -> None:
    alpha = {"B": 2.0, "NK": 0.5, "Mono": 5.0}
    samples = bulk(reference, KEY, proportions=alpha, n_samples=2000, n_cells=10_000)
    truth = samples.obsm["truth_proportions"]
    assert not truth["T/CD4 ü"].any()  # not named, so absent
    for label, a in alpha.items():
        law = stats.beta(a, 7.5 - a)
        assert stats.kstest(truth[label], law.cdf).pvalue > 0.005, label


def test_proportions_can_be_given(reference: ad.AnnData) -> None:
    table = pd.DataFrame({"Mono": [30, 0, 100], "B": [70, 2, 0]}, index=["s/1", "two", "3"])
    samples = bulk(reference, KEY, proportions=table, n_cells=100_000)
    truth = samples.obsm["truth_proportions"]
    assert list(samples.obs_names) == list(table.index)
    expected = table.div(table.sum(axis=1), axis=0)
    np.testing.assert_allclose(truth[["Mono", "B"]], expected, atol=0.01)
    assert not truth[["T/CD4 ü", "NK"]].any(axis=None)
    assert truth.loc["3", "B"] == truth.loc["two", "Mono"] == 0
    assert not samples.obsm["truth_mrna_fractions"].to_numpy()[truth.to_numpy() == 0].any()


def test_a_condition_changes_some_genes_of_one_type(reference: ad.AnnData) -> None:
    pure = pd.DataFrame(0.0, index=list("abcdefgh"), columns=list(SIZES))
    pure.loc[["a", "b", "e", "f"], "B"] = pure.loc[["c", "d", "g", "h"], "Mono"] = 1
    options = {"proportions": pure, "n_cells": 50_000, "platform": Platform(depth=1e9)}
    samples = bulk(reference, KEY, fold_changes={"B": 2.5}, **options)
    assert list(samples.obs["condition"]) == ["ctrl", "stim"] * 4
    log2_fc = samples.varm["truth_log2_fc"]
    assert not log2_fc.drop(columns="B").any(axis=None)
    assert log2_fc["B"].ne(0).sum() == round(0.1 * N_GENES)
    np.testing.assert_allclose(np.abs(log2_fc["B"][log2_fc["B"] != 0]), np.log2(2.5))
    rates = samples.X / samples.X.sum(axis=1, keepdims=True)
    for ctrl, stim, label in ((0, 1, "B"), (2, 3, "Mono")):
        is_high = rates[ctrl] > 1e-4
        found = np.log2(rates[stim][is_high] / rates[ctrl][is_high])
        expected = log2_fc[label].to_numpy()[is_high]
        np.testing.assert_allclose(found - np.median(found), expected, atol=0.1)


def test_the_seed_decides(reference: ad.AnnData) -> None:
    platform = Platform(shift_sd=0.5, jitter_sd=0.2, noise_sd=0.1)
    one, same, other = (
        bulk(reference, KEY, n_samples=3, platform=platform, seed=seed) for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(one.X, same.X)
    pd.testing.assert_frame_equal(one.obsm["truth_proportions"], same.obsm["truth_proportions"])
    assert not np.array_equal(one.X, other.X)


def test_the_reference_is_untouched_and_its_storage_does_not_matter(tmp_path: Path) -> None:
    reference = make_reference()
    before = reference.copy()
    expected = bulk(reference, KEY, n_samples=3).X
    np.testing.assert_array_equal(reference.X.toarray(), before.X.toarray())
    pd.testing.assert_frame_equal(reference.obs, before.obs)
    assert not reference.uns
    before.write_h5ad(tmp_path / "reference.h5ad")
    backed = ad.read_h5ad(tmp_path / "reference.h5ad", backed="r")
    dense = before.copy()
    dense.X = dense.X.toarray().astype(int)
    for form in (backed, dense, ad.concat([before, before], index_unique="-", merge="same")[:76]):
        np.testing.assert_array_equal(bulk(form, KEY, n_samples=3).X, expected)


FULL = {
    "platform": Platform(shift_sd=0.5, rna_content={"T CD4 ü": 2.0}),
    "fold_changes": {"T CD4 ü": 3.0, "B": 2.0},
}


@pytest.mark.parametrize("options", [{}, FULL], ids=["plain", "full"])
def test_the_truth_survives_a_file(reference: ad.AnnData, tmp_path: Path, options: dict) -> None:
    renamed = reference.copy()
    renamed.obs[KEY] = renamed.obs[KEY].cat.rename_categories({"T/CD4 ü": "T CD4 ü"})
    samples = bulk(renamed, KEY, n_samples=4, **options)
    samples.write_h5ad(tmp_path / "bulk.h5ad")
    read = ad.read_h5ad(tmp_path / "bulk.h5ad")
    np.testing.assert_array_equal(read.X, samples.X)
    for name in samples.obsm:
        pd.testing.assert_frame_equal(read.obsm[name], samples.obsm[name])
    for name in samples.varm:
        pd.testing.assert_frame_equal(read.varm[name], samples.varm[name])
    truth = read.uns["truth"]
    assert (truth["labels_key"], truth["n_cells"], truth["depth"]) == (KEY, 500, 1e7)
    assert truth["shift_sd"] == (0.5 if options else 0)
    found = dict(zip(*truth["fold_changes"][["type", "factor"]].to_numpy().T, strict=True))
    assert found == options.get("fold_changes", {})


def test_scenarios_of_blood(reference: ad.AnnData) -> None:
    """Uniform and rare types, shift and jitter, and a type that the reference lacks."""
    rare = {"T/CD4 ü": 15.0, "B": 9.0, "Mono": 0.9, "NK": 0.1}
    shifted = Platform(shift_sd=0.8, jitter_sd=0.3, noise_sd=0.1)
    samples = bulk(reference, KEY, proportions=rare, n_samples=400, platform=shifted)
    mean = samples.obsm["truth_proportions"].mean()
    np.testing.assert_allclose(mean, pd.Series(rare)[mean.index] / 25, atol=0.02)
    lacking = reference[reference.obs[KEY] != "Mono"]
    assert "Mono" not in bulk(lacking, KEY, n_samples=2).obsm["truth_proportions"]


REFUSED = {
    "key": ({"labels_key": "x"}, KeyError, "`labels_key='x'` is not a column"),
    "unknown type": ({"proportions": {"Mast": 1}}, ValueError, "'Mast', which no cell of"),
    "unknown column": (
        {"proportions": pd.DataFrame({"Mast": [1]})}, ValueError, "`proportions` names 'Mast'",
    ),
    "negative": ({"proportions": {"B": 1, "NK": -1}}, ValueError, "at least 0 are accepted"),
    "nothing": ({"proportions": {"B": 0}}, ValueError, "some above 0"),
    "empty sample": (
        {"proportions": pd.DataFrame({"B": [1.0, 0.0]})}, ValueError, r"holds \{'B': 0\.0\}",
    ),
    "no sample": ({"proportions": pd.DataFrame({"B": []})}, ValueError, "holds no row"),
    "samples twice": (
        {"proportions": pd.DataFrame({"B": [1, 1]}, index=["a", "a"])}, ValueError, "samples 'a'",
    ),
    "missing share": (
        {"proportions": pd.DataFrame({"B": [np.nan]})}, ValueError, r"holds \{'B': nan\}",
    ),
    "n_samples": ({"n_samples": 0}, ValueError, "`n_samples=0` is out of range"),
    "n_cells": ({"n_cells": 2.5}, TypeError, "`n_cells=2.5` is a float"),
    "platform": ({"platform": {"shift_sd": 1}}, TypeError, "`platform` is a dict"),
    "fold change": ({"fold_changes": {"B": 1}}, ValueError, r"`fold_changes\['B'\]=1` is out of"),
    "responding type": ({"fold_changes": {"Mast": 2}}, ValueError, "`fold_changes` names 'Mast'"),
    "rna_content": (
        {"platform": Platform(rna_content={"Mast": 2})}, ValueError, "`rna_content` names 'Mast'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_options_are_refused(name: str, reference: ad.AnnData) -> None:
    options, exception, match = REFUSED[name]
    with pytest.raises(exception, match=match):
        bulk(reference, **{"labels_key": KEY, **options})


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 0},
        {"shift_sd": -1},
        {"jitter_sd": np.nan},
        {"noise_sd": np.inf},
        {"rna_content": {"B": 0}},
        {"rna_content": {"B": np.inf}},
    ],
)
def test_wrong_platforms_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Platform(**options)


def test_wrong_references_are_refused(reference: ad.AnnData) -> None:
    logs, empty, twice = reference.copy(), reference.copy(), reference.copy()
    logs.X = np.log1p(logs.X.toarray())
    with pytest.raises(ValueError, match="look log-normalised"):
        bulk(logs, KEY)
    empty.X = empty.X.toarray() * (np.arange(76) != 41)[:, None]
    with pytest.raises(ValueError, match=r"No counts in 1 cell .* 'cell 41'.*filter_cells"):
        bulk(empty, KEY)
    twice.var_names = ["gene"] * N_GENES
    with pytest.raises(ValueError, match="more than once"):
        bulk(twice, KEY)
