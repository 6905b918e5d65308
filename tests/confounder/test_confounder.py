"""What LatentConfounder claims, against simulated truth and the regression without confounders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray

from scovert import simulate
from scovert.model import LatentConfounder

pytestmark = pytest.mark.usefixtures("few_classes", "seed")
COVARIATES = [f"covariate_{i}" for i in range(1, 5)]


def fit(adata: AnnData, **options: object) -> LatentConfounder:
    setup = {"size_factor_key": "size_factor", "continuous_covariate_keys": COVARIATES}
    setup |= options.pop("setup", {})
    LatentConfounder.setup_anndata(adata, setup.pop("treatment_key", "treatment"), **setup)
    model = LatentConfounder(adata, **options)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


def given(values: NDArray, adata: AnnData) -> NDArray:
    design = np.c_[np.ones(adata.n_obs), adata.obs[COVARIATES]]
    values = np.asarray(values, float)
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def correlation(a: NDArray, b: NDArray) -> float:
    return float(abs(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]))


@pytest.fixture(scope="module")
def data() -> AnnData:
    return simulate.confounder("sparse", n_cells=601, n_genes=97, z_ratio=1.0, seed=2)


@pytest.fixture(scope="module")
def model(data: AnnData) -> LatentConfounder:
    return fit(data.copy())


def test_the_confounder_is_found(model: LatentConfounder, data: AnnData) -> None:
    z, found = data.obsm["truth_confounder"], model.get_latent_representation()
    assert model.n_latent == 1
    assert correlation(found, z) > 0.95
    # as far from the treatment as the truth is
    d = given(data.obs["treatment"], data)
    true_leakage = correlation(given(z, data), d)
    assert true_leakage > 0.2
    assert model.get_leakage() == pytest.approx(true_leakage, abs=0.06)
    assert model.get_leakage() == pytest.approx(correlation(given(found, data), d), abs=1e-5)


def test_a_model_says_how_many_it_found(
    model: LatentConfounder, data: AnnData, tmp_path: Path
) -> None:
    setup = {"size_factor_key": "size_factor", "continuous_covariate_keys": COVARIATES}
    other = data.copy()
    LatentConfounder.setup_anndata(other, "treatment", **setup)
    assert "n_latent=auto," in LatentConfounder(other).summary_string
    model.save(tmp_path / "model")
    for trained in (model, LatentConfounder.load(tmp_path / "model", other)):
        assert "n_latent=1," in trained.summary_string
        assert "auto" not in trained.summary_string


def test_classes_are_the_states(model: LatentConfounder, data: AnnData) -> None:
    probability = model.get_class_probabilities()
    z = data.obsm["truth_confounder"][:, 0]
    assert probability.columns.tolist() == ["class_1", "class_2"]
    assert correlation(probability["class_1"], z) > 0.97
    inference = model._inference
    fit, scores = inference.fit, inference.latents.infer(inference.cells)
    inferred = fit.classes.assign(scores, fit.arms)
    odds = np.log(probability["class_1"] / probability["class_2"])
    inferred_odds = np.log(inferred[:, 0] / inferred[:, 1])
    change = (odds - inferred_odds).groupby(data.obs["treatment"].to_numpy()).mean()
    frequency, overall = fit.classes.frequency, fit.classes.overall
    expected = np.log(overall[0] / overall[1]) - np.log(frequency[:, 0] / frequency[:, 1])
    np.testing.assert_allclose(change, expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_the_treatment_is_predicted_as_by_the_truth(
    model: LatentConfounder, data: AnnData
) -> None:
    found = model.get_treatment_probability()["True"]
    logit = np.log(found / (1 - found))
    assert correlation(logit, data.obs["truth_logit"]) > 0.9
    plain = fit(data.copy(), n_latent=0).get_treatment_probability()["True"]
    assert correlation(np.log(plain / (1 - plain)), data.obs["truth_logit"]) < 0.85


def test_stronger_confounders_explain_more(model: LatentConfounder) -> None:
    strong = model.get_partial_deviance()["dbpr"]
    weak = simulate.confounder("sparse", n_cells=601, n_genes=97, loading_scale=0.3, seed=2)
    found = fit(weak, n_latent=1).get_partial_deviance()["dbpr"]
    assert strong["counts"] > 0.05 > found["counts"]
    assert strong["treatment"] > found["treatment"] > -0.01


@pytest.mark.parametrize("options", [{}, {"n_latent": 1, "z_type": "binary"}])
def test_effects_are_those_of_the_truth(data: AnnData, options: dict) -> None:
    table = fit(data.copy(), **options).get_treatment_effects()
    truth, is_de = data.var["truth_log2_fc"], data.var["truth_is_de"]
    assert table.attrs["identification"] == "classes"

    def error(column: str) -> float:
        return float(np.sqrt(np.mean((table[column] - truth) ** 2)))

    assert error("log2_fc") < 0.7 * error("log2_fc_naive")
    called, unadjusted = table["q_value"] < 0.05, table["q_value_naive"] < 0.05
    assert (called & ~is_de).sum() <= 0.1 * called.sum()
    assert (unadjusted & ~is_de).sum() > 0.3 * unadjusted.sum()
    assert (called & is_de).sum() > 0.9 * is_de.sum()
    assert np.mean(np.abs(table["log2_fc"] - truth) < 1.96 * table["se"]) > 0.9


def test_no_confounder_is_found_where_there_is_none() -> None:
    adata = simulate.confounder("sparse", n_cells=401, loading_scale=0, z_ratio=0, seed=1)
    model = fit(adata)
    assert model.n_latent == 0
    assert model.get_leakage() == 0
    table = model.get_treatment_effects()
    np.testing.assert_array_equal(table["log2_fc"], table["log2_fc_naive"])
    np.testing.assert_array_equal(table["q_value"], table["q_value_naive"])
    assert "no unmeasured confounder" in table.attrs["assumption"]


def test_means_are_those_at_the_average_of_the_confounders(data: AnnData) -> None:
    """Linear in the confounders, the log means of all cells have the average that was fitted."""
    adata = data.copy()
    second = np.random.default_rng(0).random(601) < 0.4
    arms = np.where(adata.obs["treatment"], np.where(second, "b", "a"), "none")
    adata.obs["arm"] = arms
    model = fit(adata, n_latent=1, setup={"treatment_key": "arm", "reference": "none"})
    assert {"b", "a"} < set(model.levels_)
    inference = model._inference
    fitted = inference.fit.design @ inference.fit.regression.coefficients[: inference.fit.n_design]
    fitted += inference.fit.scores @ inference.fit.regression.coefficients[-1:]
    logs = np.log(model.get_normalized_expression(identification="sparse"))
    np.testing.assert_allclose(logs.mean(), fitted.mean(0), atol=2e-3)
    shifts = [e.shift for e in model._estimate("sparse")]
    assert np.abs(shifts).min() > 0.1


def test_means_follow_covariates_and_size_factors(model: LatentConfounder) -> None:
    adata = model.adata.copy()
    means = model.get_normalized_expression()
    adata.obs["size_factor"] *= 3
    np.testing.assert_allclose(model.get_normalized_expression(adata), 3 * means, rtol=1e-5)
    adata = model.adata[[4, 5]].copy()
    adata.obs[COVARIATES] = adata.obs[COVARIATES].iloc[[0, 0]].to_numpy()
    adata.obs["covariate_1"] = [0.0, 1.0]
    logs = np.log(model.get_normalized_expression(adata, identification="sparse"))
    expected = model.adata.varm["truth_covariate_effects"][:, 0]
    assert correlation(logs.iloc[1] - logs.iloc[0], expected) > 0.95


def test_the_uncertainty_of_the_shift_is_in_the_errors(model: LatentConfounder) -> None:
    fit = model._inference.fit
    loadings = fit.regression.coefficients[fit.n_design :].T
    shift = fit.shift(1, fit.regression, fit.is_tested[0])
    contrast = np.zeros(fit.n_design + 1)
    contrast[[fit.column(1), -1]] = 1, -shift.mean[0]
    inner = fit.regression.variance(contrast)
    extra = loadings[:, 0] ** 2 * shift.covariance[0, 0]
    found = fit.adjusted(1, fit.scores, fit.regression, shift)
    np.testing.assert_allclose(found.se**2, inner + extra)
    (by_classes,) = model._estimate("classes")
    of_classes = loadings[:, 0] ** 2 * fit.classes.shift_covariance(0)[0, 0]
    contrast = np.eye(fit.n_design + fit.class_columns.shape[1])[fit.column(1)]
    inner = fit.class_regression.variance(contrast)
    np.testing.assert_allclose(by_classes.se**2, inner + of_classes)
    assert extra.max() > 1e-4


def test_donors_make_errors_larger() -> None:
    rng = np.random.default_rng(0)
    n_donors, n_genes = 14, 61
    donor = np.repeat(np.arange(n_donors), 25)
    treated = np.isin(donor, rng.permutation(n_donors)[:7])
    log_mean = 0.5 + rng.normal(0, 0.4, (n_donors, n_genes))[donor]
    counts = rng.poisson(rng.gamma(4.0, np.exp(log_mean) / 4)).astype(np.float32)
    obs = pd.DataFrame({"treatment": treated, "donor": donor.astype(str), "size_factor": 1.0})
    obs.index = [f"cell {i}" for i in range(len(obs))]

    def effects(**setup: object) -> pd.DataFrame:
        adata = AnnData(counts, obs=obs.copy())
        setup |= {"continuous_covariate_keys": None}
        return fit(adata, n_latent=0, setup=setup).get_treatment_effects()

    with pytest.warns(UserWarning, match="cluster_key='donor'"):
        plain = effects()
    by_donor = effects(cluster_key="donor")
    assert (plain["p_value"] < 0.05).mean() > 0.2
    assert (by_donor["p_value"] < 0.05).mean() < 0.12
    assert by_donor["se"].median() > 1.5 * plain["se"].median()
    np.testing.assert_allclose(by_donor["log2_fc"], plain["log2_fc"])


def test_unadjusted_effects_know_the_donors_too() -> None:
    adata = simulate.confounder("null", n_cells=601, n_genes=97, seed=3)
    arm = adata.obs["treatment"].astype(str)
    adata.obs["donor"] = arm + (np.arange(601) % 4).astype(str)
    shift = np.random.default_rng(0).normal(0, 0.7, (8, 97))[pd.factorize(adata.obs["donor"])[0]]
    mean = np.exp(adata.layers["truth_log_mean"] + shift)
    adata.X = np.random.default_rng(1).poisson(mean).astype(np.float32)
    with pytest.warns(UserWarning, match="cluster_key=.donor"):
        plain = fit(adata.copy(), n_latent=0).get_treatment_effects()
    model = fit(adata.copy(), n_latent=0, setup={"cluster_key": "donor"})
    by_donor = model.get_treatment_effects()
    pd.testing.assert_series_equal(by_donor["log2_fc_naive"], plain["log2_fc_naive"])
    assert (plain["q_value_naive"] < 0.05).sum() > 10
    assert (by_donor["q_value_naive"] < 0.05).sum() <= 2


def test_annotating_again_leaves_nothing_of_before(data: AnnData) -> None:
    adata = data.copy()
    fit(adata).annotate()
    assert "confounder_class" in adata.obs
    fit(adata, n_latent=0).annotate()
    assert "confounder_class" not in adata.obs
    assert adata.obsm["X_confounder"].shape == (601, 0)


def test_sparsity_that_does_not_hold_is_warned_of() -> None:
    adata = simulate.confounder_large(
        n_cells=801,
        n_genes=301,
        effects="aligned",
        effect_fraction=0.5,
        z_types=["continuous"] * 3,
        seed=0,
    )
    covariates = [c for c in adata.obs if c.startswith("covariate")]
    model = fit(adata, n_latent=3, setup={"continuous_covariate_keys": covariates})
    with pytest.warns(UserWarning, match="few genes respond does not hold"):
        model.get_treatment_effects(identification="sparse")


@pytest.mark.slow
@pytest.mark.parametrize("make", [simulate.confounder, simulate.confounder_large])
def test_auto_keeps_false_discoveries_low(make: Callable) -> None:
    rows = []
    for seed in range(20, 28):
        adata = make(seed=seed) if make is simulate.confounder_large else make("sparse", seed=seed)
        covariates = [c for c in adata.obs if c.startswith("covariate")]
        setup = {"continuous_covariate_keys": covariates}
        table = fit(adata, setup=setup).get_treatment_effects()
        called, is_de = table["q_value"] < 0.05, adata.var["truth_is_de"]
        unadjusted = table["q_value_naive"] < 0.05
        rows.append(
            {
                "fdp": (called & ~is_de).sum() / max(called.sum(), 1),
                "power": (called & is_de).sum() / is_de.sum(),
                "unadjusted": (unadjusted & ~is_de).sum() / max(unadjusted.sum(), 1),
            }
        )
    mean = pd.DataFrame(rows).mean()
    assert mean["fdp"] < 0.08
    assert mean["power"] > 0.95
    assert mean["unadjusted"] > 0.3
