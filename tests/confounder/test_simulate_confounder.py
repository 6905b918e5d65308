"""A treatment with hidden confounders, simulated and on real counts."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, special, stats

from scovert.data import pbmc68k
from scovert.simulate import confounder, confounder_large, hidden_covariate

SETTINGS = ("normal", "extreme", "null", "sparse")
SMALL = {"n_cells": 411, "n_genes": 73}
LARGE = {"n_cells": 607, "n_genes": 211}
KINDS = {
    **{s: lambda seed, s=s: confounder(s, **SMALL, n_confounders=2, seed=seed) for s in SETTINGS},
    "continuous": lambda seed: confounder(
        **SMALL, z_type="continuous", loading_scale=0.4, seed=seed
    ),
    **{
        e: lambda seed, e=e: confounder_large(**LARGE, effects=e, effect_fraction=0.3, seed=seed)
        for e in ("added", "thinned", "aligned")
    },
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def simulated(kind: str) -> ad.AnnData:
    return KINDS[kind](3)


def covariates(adata: ad.AnnData) -> np.ndarray:
    return adata.obs.filter(regex="covariate_").to_numpy()


def treated(adata: ad.AnnData) -> np.ndarray:
    return adata.obs["treatment"].to_numpy()


def mean_of(adata: ad.AnnData) -> np.ndarray:
    """Mean of the counts by loops over the formula, from the parameters alone."""
    x, z, d = covariates(adata), adata.obsm["truth_confounder"], treated(adata)
    log_mean = np.empty(adata.shape)
    for j in range(adata.n_vars):
        gene = adata.var.iloc[j]
        log_mean[:, j] = gene["truth_intercept"] + np.log(adata.obs["size_factor"])
        log_mean[:, j] += d * gene["truth_log2_fc"] * np.log(2)
        log_mean[:, j] += (x * adata.varm["truth_covariate_effects"][j]).sum(1)
        log_mean[:, j] += (z * adata.varm["truth_loadings"][j]).sum(1)
    return np.exp(log_mean)


# confounder and confounder_large


def test_slots(kind: str, simulated: ad.AnnData) -> None:
    is_large = kind in ("added", "thinned", "aligned")
    n_covariates, k = (3, 3) if is_large else (4, 1 if kind == "continuous" else 2)
    assert simulated.shape == ((607, 211) if is_large else (411, 73))
    assert isinstance(simulated.X, sparse.csr_matrix)
    assert simulated.X.dtype == np.float32
    columns = [f"covariate_{i + 1}" for i in range(n_covariates)]
    assert list(simulated.obs) == ["treatment", *columns, "size_factor", "truth_logit"]
    assert simulated.obs["treatment"].dtype == bool
    assert simulated.var["truth_is_de"].dtype == bool
    assert simulated.obsm["truth_confounder"].shape == (simulated.n_obs, k)
    assert simulated.varm["truth_loadings"].shape == (simulated.n_vars, k)
    assert simulated.varm["truth_covariate_effects"].shape == (simulated.n_vars, n_covariates)


def test_log_mean_is_that_of_the_formula(simulated: ad.AnnData) -> None:
    np.testing.assert_allclose(simulated.layers["truth_log_mean"], np.log(mean_of(simulated)))


def test_counts_follow_the_formula(simulated: ad.AnnData) -> None:
    # Randomised probability integral transform: uniform if and only if the whole law is right
    mean, x = mean_of(simulated), simulated.X.toarray()
    theta = simulated.var["truth_inverse_dispersion"].to_numpy()
    law = stats.nbinom(theta, theta / (theta + mean))
    pit = law.cdf(x - 1) + np.random.default_rng(0).random(x.shape) * law.pmf(x)
    assert stats.kstest(pit.ravel(), "uniform").pvalue > 0.01
    z = (x - mean).sum(0) / np.sqrt((mean + mean**2 / theta).sum(0))
    assert np.abs(z).max() < 6  # of up to 211 genes, with long tails


def test_treatment_follows_its_logit(kind: str) -> None:
    several = [KINDS[kind](seed) for seed in range(4)]
    for adata in several:
        truth = adata.uns["truth"]
        logit = truth["treatment_intercept"] + covariates(adata) @ truth["covariate_weights"]
        logit += adata.obsm["truth_confounder"] @ truth["confounder_weights"]
        np.testing.assert_allclose(adata.obs["truth_logit"], logit)
    d = np.concatenate([treated(adata) for adata in several])
    p = special.expit(np.concatenate([adata.obs["truth_logit"] for adata in several]))
    u = np.random.default_rng(0).random(len(p))
    pit = np.where(d, 1 - p + u * p, u * (1 - p))
    assert stats.kstest(pit, "uniform").pvalue > 0.01


@pytest.mark.parametrize("z_type", ["binary", "continuous"])
@pytest.mark.parametrize("z_ratio", [0.0, 0.3, 2.0])
def test_strength_on_the_treatment(z_type: str, z_ratio: float) -> None:
    adata = confounder(**SMALL, n_confounders=3, z_type=z_type, z_ratio=z_ratio)
    truth = adata.uns["truth"]
    known = covariates(adata) @ truth["covariate_weights"]
    hidden = adata.obsm["truth_confounder"] @ truth["confounder_weights"]
    assert known.std() == pytest.approx(0.8)
    assert hidden.var() == pytest.approx(z_ratio * 0.64)


def test_settings() -> None:
    of = {s: confounder(s, n_cells=97, n_genes=1003, seed=1) for s in SETTINGS}
    beta = {s: adata.var["truth_log2_fc"].to_numpy() for s, adata in of.items()}
    assert stats.kstest(beta["normal"] * np.log(2), "norm").pvalue > 0.01
    assert not beta["null"].any()
    assert not beta["extreme"].any()
    assert np.unique(beta["sparse"]).tolist() == [0, 1]
    assert (beta["sparse"] > 0).sum() == 200
    for setting, adata in of.items():
        np.testing.assert_array_equal(adata.var["truth_is_de"], beta[setting] != 0)
        effects = adata.varm["truth_covariate_effects"].ravel()
        if setting == "extreme":
            assert not effects.any()
        else:
            assert stats.kstest(effects, "norm").pvalue > 0.01


def test_laws_of_the_parameters() -> None:
    adata = confounder(n_cells=501, n_genes=2003, loading_scale=0.7, seed=1)
    assert stats.kstest(adata.varm["truth_loadings"].ravel() / 0.7, "norm").pvalue > 0.01
    excess = 1 / adata.var["truth_inverse_dispersion"] - 0.5
    assert stats.kstest(excess, "halfnorm").pvalue > 0.01
    assert (adata.obs["size_factor"] == 1).all()
    assert not adata.var["truth_intercept"].any()
    for binary in (covariates(adata), adata.obsm["truth_confounder"]):
        assert np.unique(binary).tolist() == [0, 1]
        assert np.abs(binary.mean(0) - 0.5).max() < 0.07
    options = {"n_cells": 2003, "n_genes": 7, "n_confounders": 3, "z_type": "continuous"}
    normal = confounder(**options, seed=1).obsm["truth_confounder"]
    assert stats.kstest(normal.ravel(), "norm").pvalue > 0.01


def test_laws_of_the_large_parameters() -> None:
    options = {"n_cells": 1501, "n_genes": 1003, "z_types": ["continuous", "binary"]}
    adata = confounder_large(**options, loading_scale=0.5, z_log_odds=0.9, seed=1)
    normal, binary = adata.obsm["truth_confounder"].T
    assert stats.kstest(normal, "norm").pvalue > 0.01
    assert np.unique(binary).tolist() == [-1, 1]
    assert stats.kstest(np.log(adata.obs["size_factor"]) / 0.4, "norm").pvalue > 0.01
    loadings = adata.varm["truth_loadings"]
    assert stats.kstest(loadings.ravel() / 0.5, "norm").pvalue > 0.01
    effects = adata.varm["truth_covariate_effects"]
    assert stats.kstest(effects.ravel() / 0.3, "norm").pvalue > 0.01
    excess = 1 / adata.var["truth_inverse_dispersion"] - 0.05
    assert stats.kstest(excess, stats.gamma(2, scale=0.25).cdf).pvalue > 0.01
    base = np.exp(adata.var["truth_intercept"] + (loadings**2).sum(1) / 2 + 0.135)
    assert stats.kstest(base, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01
    assert np.abs(adata.uns["truth"]["confounder_weights"]).tolist() == [0.9, 0.9]
    assert [*map(len, map(np.unique, covariates(adata).T))] == [2, 2, 1501]


def test_large_counts_are_sparse_and_near_their_base() -> None:
    adata = confounder_large(effect_fraction=0)
    assert (adata.X.toarray() == 0).mean() == pytest.approx(0.6, abs=0.03)
    base = np.exp(
        adata.var["truth_intercept"] + (adata.varm["truth_loadings"] ** 2).sum(1) / 2 + 0.135
    )
    size = adata.obs["size_factor"].mean()
    ratio = np.asarray(adata.X.mean(0)).ravel() / base / size
    assert np.median(ratio) == pytest.approx(1, abs=0.15)


def test_genes_with_few_counts_are_left_out() -> None:
    adata = confounder_large(n_cells=60, n_genes=301)
    assert 100 < adata.n_vars < 301
    assert adata.X.sum(0).min() >= 20
    np.testing.assert_allclose(adata.layers["truth_log_mean"], np.log(mean_of(adata)))


@pytest.mark.parametrize("effects", ["added", "thinned", "aligned"])
def test_large_effects(effects: str) -> None:
    var = confounder_large(**LARGE, effects=effects, effect_fraction=0.4).var
    assert var["truth_is_de"].sum() == 84  # of 211
    assert np.unique(var["truth_log2_fc"]).tolist() == [-1, 0, 1]
    np.testing.assert_array_equal(var["truth_is_de"], var["truth_log2_fc"] != 0)


def test_aligned_effects_follow_the_first_confounder() -> None:
    adata = confounder_large(**LARGE, effects="aligned", effect_fraction=0.4)
    loading, effect = adata.varm["truth_loadings"][:, 0], adata.var["truth_log2_fc"].to_numpy()
    assert np.abs(loading[effect == 0]).max() < np.abs(loading[effect != 0]).min()
    assert np.array_equal(np.sign(loading[effect != 0]), effect[effect != 0])


def assert_thinned(
    before: np.ndarray, after: np.ndarray, d: np.ndarray, direction: np.ndarray, fold: float
) -> None:
    """Only the right arm of affected genes lost counts, as many as a binomial says."""
    for is_loser, loses in ((~d, direction > 0), (d, direction < 0)):
        assert loses.any()
        block = np.ix_(is_loser, loses)
        total, kept = before[block].sum(0), after[block].sum(0)
        z = (kept - total / fold) / np.sqrt(total / fold * (1 - 1 / fold) + 1e-9)
        assert np.abs(z).max() < 5
        assert abs(z.sum()) / np.sqrt(len(z)) < 3.5
        np.testing.assert_array_equal(
            before[np.ix_(is_loser, ~loses)], after[np.ix_(is_loser, ~loses)]
        )


@pytest.mark.parametrize("effects", ["thinned", "aligned"])
def test_thinning_halves_the_right_arm(effects: str) -> None:
    plain = confounder_large(**LARGE, effect_fraction=0)
    thin = confounder_large(**LARGE, effects=effects, effect_fraction=0.3)
    assert np.array_equal(treated(plain), treated(thin))
    direction = thin.var["truth_log2_fc"].to_numpy()
    assert_thinned(plain.X.toarray(), thin.X.toarray(), treated(thin), direction, 2)


def test_the_confounder_confounds() -> None:
    # Nothing else moves the counts: the ratio of the arms is the loading times the shift of Z
    adata = confounder("extreme", n_cells=4001, n_genes=97, z_ratio=1.0, seed=2)
    d, z, x = treated(adata), adata.obsm["truth_confounder"][:, 0], adata.X.toarray()
    loading = adata.varm["truth_loadings"][:, 0]
    unadjusted = np.log(x[d].mean(0) / x[~d].mean(0))
    adjusted = np.log(x[d & (z > 0)].mean(0) / x[~d & (z > 0)].mean(0))
    assert abs(np.corrcoef(unadjusted, loading)[0, 1]) > 0.9
    assert abs(np.corrcoef(adjusted, loading)[0, 1]) < 0.3


def test_without_a_confounder_nothing_is_confounded() -> None:
    adata = confounder("extreme", **SMALL, z_ratio=0, loading_scale=0)
    assert not adata.layers["truth_log_mean"].any()
    assert not adata.varm["truth_loadings"].any()


def test_the_seed_decides(kind: str) -> None:
    one, same, other = (KINDS[kind](seed) for seed in [5, 5, 6])
    assert np.array_equal(one.X.toarray(), same.X.toarray())
    pd.testing.assert_frame_equal(one.obs, same.obs)
    pd.testing.assert_frame_equal(one.var, same.var)
    assert one.shape != other.shape or not np.array_equal(one.X.toarray(), other.X.toarray())


def test_the_truth_survives_a_file(kind: str, simulated: ad.AnnData, tmp_path: Path) -> None:
    simulated.write_h5ad(tmp_path / "simulated.h5ad")
    read = ad.read_h5ad(tmp_path / "simulated.h5ad")
    np.testing.assert_array_equal(mean_of(read), mean_of(simulated))
    assert read.uns["truth"].keys() == simulated.uns["truth"].keys()
    assert read.uns["truth"]["seed"] == 3


@pytest.mark.parametrize(
    ("simulate", "options", "exception", "match"),
    [
        (
            confounder,
            {"setting": "large"},
            ValueError,
            r"`setting='large'` .*'normal', 'extreme'",
        ),
        (confounder, {"z_type": "normal"}, ValueError, "`z_type='normal'` is not known"),
        (confounder, {"n_cells": 19}, ValueError, "`n_cells=19` is out of range"),
        (confounder, {"n_genes": 4}, ValueError, "`n_genes=4` is out of range"),
        (confounder, {"n_confounders": 0}, ValueError, "`n_confounders=0` is out of range"),
        (confounder, {"n_confounders": 1.5}, TypeError, "Pass a whole number"),
        (confounder, {"z_ratio": -1}, ValueError, "`z_ratio=-1` is out of range"),
        (confounder, {"loading_scale": -1}, ValueError, "`loading_scale=-1` is out of range"),
        (confounder_large, {"n_cells": 3}, ValueError, "`n_cells=3` is out of range"),
        (confounder_large, {"z_types": "binary"}, ValueError, "is not a list of kinds"),
        (confounder_large, {"z_types": ()}, ValueError, "is not a list of kinds"),
        (confounder_large, {"z_types": ["c"]}, ValueError, "`z_types='c'` is not known"),
        (confounder_large, {"effects": "dense"}, ValueError, "`effects='dense'` is not known"),
        (confounder_large, {"effect_fraction": 2}, ValueError, "`effect_fraction=2` is out"),
        (confounder_large, {"z_log_odds": -1}, ValueError, "`z_log_odds=-1` is out of range"),
        (confounder_large, {"loading_scale": -1}, ValueError, "`loading_scale=-1` is out"),
    ],
)
def test_wrong_options_are_refused(
    simulate: object, options: dict, exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=match):
        simulate(**options)


# hidden_covariate


@pytest.fixture(scope="module")
def blood() -> ad.AnnData:
    """Real counts with two hidden labels, a hidden number and donors."""
    adata, rng = pbmc68k(), np.random.default_rng(0)
    adata.obs["programme"] = rng.normal(2, 3, adata.n_obs)
    adata.obs["lane"] = rng.choice([1, 2, 3], adata.n_obs)
    adata.obs["donor"] = pd.Categorical(rng.choice(list("abcdefg"), adata.n_obs))
    adata.obs["one"] = "same"
    adata.obs["level"] = 0.5
    adata.obs["holes"] = adata.obs["cell_type"].where(np.arange(adata.n_obs) != 3)
    adata.obs["endless"] = np.where(np.arange(adata.n_obs) == 3, np.inf, 0.5)
    return adata


def by_label(adata: ad.AnnData, key: str) -> pd.Series:
    """Logit of each label; all cells of a label have the same."""
    logits = adata.obs.groupby(key, observed=True)["truth_logit"]
    assert (logits.max() - logits.min()).max() < 1e-12
    return logits.first()


def test_treatment_depends_on_the_label(blood: ad.AnnData) -> None:
    several = [hidden_covariate(blood, "cell_type", strength=1.7, seed=s) for s in range(8)]
    for adata in several:
        logits = by_label(adata, "cell_type")
        assert len(logits) == 10
        assert logits.mean() == pytest.approx(0)
        assert logits.std(ddof=0) == pytest.approx(1.7)
    d = np.concatenate([treated(adata) for adata in several])
    p = special.expit(np.concatenate([adata.obs["truth_logit"] for adata in several]))
    u = np.random.default_rng(0).random(len(p))
    pit = np.where(d, 1 - p + u * p, u * (1 - p))
    assert stats.kstest(pit, "uniform").pvalue > 0.01
    assert d.dtype == bool


def test_whole_numbers_are_labels(blood: ad.AnnData) -> None:
    assert by_label(hidden_covariate(blood, "lane"), "lane").std(ddof=0) == pytest.approx(1)


def test_a_numeric_column_and_several_columns(blood: ad.AnnData) -> None:
    value = stats.zscore(blood.obs["programme"])
    number = hidden_covariate(blood, "programme", strength=0.6).obs["truth_logit"]
    np.testing.assert_allclose(number, 0.6 * value)
    both = hidden_covariate(blood, ["cell_type", "programme"], strength=[2, 0.5])
    both.obs["truth_logit"] -= 0.5 * value
    assert by_label(both, "cell_type").std(ddof=0) == pytest.approx(2)
    assert both.uns["truth"]["key"] == ["cell_type", "programme"]


def test_no_strength_is_a_treatment_at_random(blood: ad.AnnData) -> None:
    assert not hidden_covariate(blood, "cell_type", strength=0).obs["truth_logit"].any()


@pytest.mark.parametrize("fold", [2.0, 3.5])
def test_effects_thin_the_right_arm(blood: ad.AnnData, fold: float) -> None:
    adata = hidden_covariate(blood, "cell_type", effect_fraction=0.3, fold_change=fold, seed=4)
    effect = adata.var["truth_log2_fc"].to_numpy()
    assert adata.var["truth_is_de"].sum() == 230  # 0.3 x 765, rounded to even
    np.testing.assert_array_equal(adata.var["truth_is_de"], effect != 0)
    assert np.unique(effect).tolist() == pytest.approx([-np.log2(fold), 0, np.log2(fold)])
    assert 80 < (effect > 0).sum() < 150
    before, after = blood.X.toarray(), adata.X.toarray()
    assert_thinned(before, after, treated(adata), effect, fold)
    np.testing.assert_array_equal(after, np.rint(after))


def test_effects_leave_the_treatment_as_it_is(blood: ad.AnnData) -> None:
    null, dense = (hidden_covariate(blood, "lane", effect_fraction=f, seed=7) for f in (0, 0.5))
    assert np.array_equal(treated(null), treated(dense))
    assert np.array_equal(null.X.toarray(), blood.X.toarray())
    assert not null.var["truth_log2_fc"].any()


def test_clusters_have_one_treatment(blood: ad.AnnData) -> None:
    drawn = set()
    for seed in range(6):
        adata = hidden_covariate(blood, "cell_type", cluster_key="donor", seed=seed)
        arms = adata.obs.groupby("donor", observed=True)["treatment"].agg(["min", "max"])
        assert (arms["min"] == arms["max"]).all()
        assert arms["max"].sum() == 3  # of seven
        np.testing.assert_allclose(special.expit(adata.obs["truth_logit"]), 3 / 7)
        drawn.add(tuple(arms["max"]))
    assert len(drawn) > 3


def test_the_seed_decides_the_hidden_treatment(blood: ad.AnnData) -> None:
    one, same, other = (
        hidden_covariate(blood, "cell_type", effect_fraction=0.2, seed=s) for s in [5, 5, 6]
    )
    assert np.array_equal(one.X.toarray(), same.X.toarray())
    assert np.array_equal(treated(one), treated(same))
    assert not np.array_equal(treated(one), treated(other))
    assert not np.array_equal(one.var["truth_log2_fc"], other.var["truth_log2_fc"])


def test_the_input_stays_as_it_is(blood: ad.AnnData) -> None:
    before = blood.copy()
    result = hidden_covariate(blood, "cell_type", effect_fraction=0.5)
    pd.testing.assert_frame_equal(blood.obs, before.obs)
    pd.testing.assert_frame_equal(blood.var, before.var)
    assert (blood.X != before.X).nnz == 0
    assert np.array_equal(blood.X.indices, before.X.indices)
    pd.testing.assert_frame_equal(result.obs[list(before.obs)], before.obs)


def test_storage_does_not_matter(blood: ad.AnnData, tmp_path: Path) -> None:
    options = {"key": "cell_type", "effect_fraction": 0.3}
    expected = hidden_covariate(blood, **options)
    blood.write_h5ad(tmp_path / "blood.h5ad")
    layered = blood.copy()
    layered.layers["counts"], layered.X = layered.X, layered.X / 2
    forms = [
        blood[np.arange(blood.n_obs)],
        ad.AnnData(blood.X.toarray(), blood.obs, blood.var),
        ad.AnnData(blood.X.tocsc(), blood.obs, blood.var),
        ad.AnnData(blood.X.astype(np.int64), blood.obs, blood.var),
        ad.read_h5ad(tmp_path / "blood.h5ad", backed="r"),
    ]
    found = [hidden_covariate(form, **options) for form in forms]
    found.append(hidden_covariate(layered, **options, layer="counts"))
    for result in found:
        assert isinstance(result.X, sparse.csr_matrix)
        assert result.X.dtype == np.float32
        assert np.array_equal(result.X.toarray(), expected.X.toarray())
        assert np.array_equal(treated(result), treated(expected))


def test_the_hidden_truth_survives_a_file(blood: ad.AnnData, tmp_path: Path) -> None:
    keep = ["cell_type", "programme", "donor"]
    for options in ({"strength": [1, 2], "key": keep[:2]}, {"key": "donor"}):
        adata = hidden_covariate(ad.AnnData(blood.X, blood.obs[keep], blood.var), **options)
        adata.write_h5ad(tmp_path / "hidden.h5ad")
        read = ad.read_h5ad(tmp_path / "hidden.h5ad")
        assert read.uns["truth"].keys() == adata.uns["truth"].keys()
        assert np.array_equal(treated(read), treated(adata))


@pytest.mark.parametrize(
    ("options", "exception", "match"),
    [
        ({"key": "type"}, KeyError, "`key='type'` is not a column"),
        ({"key": []}, ValueError, "names no column"),
        ({"key": "one"}, ValueError, "is 'same' in all cells"),
        ({"key": "level"}, ValueError, "is 0.5 in all cells"),
        ({"key": "holes"}, ValueError, "has no value in 1 cell"),
        ({"key": "endless"}, ValueError, "is infinite in 1 cell"),
        ({"layer": "raw"}, KeyError, "`layer='raw'` is not in"),
        ({"layer": "log"}, ValueError, r"adata.layers\['log'\]` holds .* look log-normalised"),
        ({"strength": -1}, ValueError, "`strength=-1` is out of range"),
        ({"strength": [1, 2]}, ValueError, r"has 2 numbers for the 1 columns \['cell_type'\]"),
        ({"strength": 2, "cluster_key": "donor"}, ValueError, "plays no part"),
        ({"effect_fraction": 1.5}, ValueError, "`effect_fraction=1.5` is out of range"),
        ({"fold_change": 1}, ValueError, "`fold_change=1` is out of range.*above 1"),
        ({"fold_change": 0.5}, ValueError, "`fold_change=0.5` is out of range.*above 1"),
        ({"fold_change": np.inf}, ValueError, "`fold_change=inf` is out of range"),
        ({"fold_change": "2"}, TypeError, "Pass a number"),
        ({"cluster_key": "sample"}, KeyError, "`cluster_key='sample'` is not a column"),
        ({"cluster_key": "one"}, ValueError, "holds one cluster only, 'same'"),
    ],
)
def test_wrong_input_is_refused(
    blood: ad.AnnData, options: dict, exception: type[Exception], match: str
) -> None:
    adata = blood.copy()
    adata.layers["log"] = np.log1p(adata.X)
    with pytest.raises(exception, match=match):
        hidden_covariate(adata, **{"key": "cell_type"} | options)


def test_a_treatment_that_exists_is_refused(blood: ad.AnnData) -> None:
    twice = hidden_covariate(blood, "cell_type")
    with pytest.raises(ValueError, match="exists, but the result writes this column. Rename it"):
        hidden_covariate(twice, "cell_type")
    with pytest.raises(TypeError, match="Pass an AnnData"):
        hidden_covariate(blood.X, "cell_type")
