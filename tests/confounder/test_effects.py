"""What tells effects from a shift of hidden confounders, against simulated truth."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.optimize import approx_fprime
from scipy.special import logit
from sklearn.metrics import adjusted_rand_score
from statsmodels.robust.norms import TukeyBiweight

from scovert import simulate
from scovert.model import LatentConfounder
from scovert.model.confounder._tables import warn_of_doubts
from scovert.model.confounder.effects import (
    Arms,
    ConfounderFit,
    Donors,
    Estimate,
    count_deviance,
    estimate_by_states,
    estimate_effects,
    propensity_scores,
    treatment_deviance,
)
from scovert.model.confounder.effects._donors import squeeze
from scovert.model.confounder.effects._identify import MAX_SHIFT, NOT_IDENTIFIED
from scovert.model.confounder.effects._mixture import Classes, _first_labels, find_classes
from scovert.model.confounder.effects._overlap import unmatched
from scovert.model.confounder.effects._robust import _loss, _weights, calibrate, robust_shift
from scovert.model.confounder.glm import (
    CountBlocks,
    fit_factors,
    fit_regression,
    fit_states,
    project_scores,
)
from scovert.model.confounder.variants import _aipw
from scovert.model.confounder.variants._aipw import doubly_robust

LOG_2 = np.log(2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for four classes at most, which takes a fifth of the time."""
    monkeypatch.setattr("scovert.model.confounder.effects._mixture.N_CLASSES", (1, 2, 3, 4))


# The robust shift


def simulate_effects(
    seed: int, *, p: int = 211, share: float = 0.2
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Effects that few genes have, in the direction of a confounder, and a shift of all."""
    rng = np.random.default_rng(seed)
    loadings, se = rng.normal(0, 0.6, (p, 3)), rng.uniform(0.05, 0.15, p)
    shift = np.array([0.8, -0.5, 0.3])
    responds = rng.random(p) < share
    effect = np.where(responds, np.sign(loadings[:, 0]), 0.0)
    return effect + loadings @ shift + se * rng.normal(size=p), se, loadings, shift


@pytest.mark.parametrize("seed", range(3))
def test_the_shift_is_found_where_least_squares_does_not(seed: int) -> None:
    effect, se, loadings, shift = simulate_effects(seed)
    found = robust_shift(effect, se, loadings)
    white = 1 / se[:, None]
    ordinary = np.linalg.lstsq(loadings * white, effect * white[:, 0], rcond=None)[0]
    assert np.abs(found.mean - shift).max() < 0.06
    assert np.linalg.norm(ordinary - shift) > 3 * np.linalg.norm(found.mean - shift)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_the_covariance_of_the_shift_holds(share: float) -> None:
    z = []
    for seed in range(100):
        effect, se, loadings, shift = simulate_effects(seed, share=share)
        found = robust_shift(effect, se, loadings)
        z.append((found.mean - shift) / np.sqrt(found.covariance.diagonal()))
    assert 0.85 < np.std(z) < 1.15


def test_the_noise_of_loadings_is_allowed_for() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for seed in range(10):
        effect, se, loadings, shift = simulate_effects(seed, p=501, share=0)
        noise = np.tile(0.3**2 * np.eye(3), (501, 1, 1))
        seen = loadings + 0.3 * rng.normal(size=loadings.shape)
        plain, allowed = (robust_shift(effect, se, seen, n).mean for n in (None, noise))
        ratios.append([plain @ shift, allowed @ shift] / (shift @ shift))
    attenuated, mended = np.mean(ratios, 0)
    assert attenuated < 0.85
    assert 0.95 < mended < 1.05


def test_no_confounders_have_no_shift() -> None:
    found = robust_shift(np.ones(5), np.ones(5), np.zeros((5, 0)))
    assert found.mean.shape == (0,)
    assert found.covariance.shape == (0, 0)


# Calibration


@pytest.mark.parametrize(("factor", "spread"), [(1.0, 0.0), (1.6, 0.0), (1.0, 0.15)])
def test_errors_are_widened_to_what_the_bulk_shows(factor: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    se = rng.uniform(0.05, 0.3, 2003)
    noise = factor * np.sqrt(se**2 + spread**2) * rng.normal(size=2003)
    found = calibrate(noise, se)
    assert np.std(noise / found.se) == pytest.approx(1, abs=0.15)
    if factor > 1:
        assert found.factor > 1.2
        assert np.std(noise / se) > 1.5
    else:
        assert found.factor == pytest.approx(1, abs=0.08)
        assert found.spread == pytest.approx(spread, abs=0.02)
    np.testing.assert_allclose(found.se, found.factor * np.sqrt(se**2 + found.spread**2))
    assert (found.se >= se).all()


def test_errors_of_one_size_grow_by_the_inflation() -> None:
    rng = np.random.default_rng(0)
    found = calibrate(1.6 * 0.1 * rng.normal(size=2003), np.full(2003, 0.1))
    np.testing.assert_allclose(found.se, 0.16, rtol=0.12)


def test_small_effects_everywhere_are_seen_beside_those_of_genes_that_respond() -> None:
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        se = rng.lognormal(np.log(0.13), 0.5, 1000)
        response = rng.normal(0, 0.6, 1000) * (rng.random(1000) < 0.1)
        found.append(calibrate(response + rng.normal(0, np.hypot(se, 0.05)), se).spread)
    # The quarter of genes with the smallest errors alone would tell it to .017
    assert np.std(found) < 0.012
    assert np.mean(found) == pytest.approx(0.05, abs=0.006)


def test_the_gradient_of_the_mixture_is_that_of_its_likelihood() -> None:
    rng = np.random.default_rng(0)
    se, at = rng.uniform(0.05, 0.3, 53), np.array([-2.5, -0.7, -1.4])
    effect = rng.normal(0, 2 * se)
    spread, response, share = np.exp(2 * at[0]), np.exp(2 * at[1]), 1 / (1 + np.exp(-at[2]))
    none = (1 - share) * stats.norm.pdf(effect, 0, np.sqrt(se**2 + spread))
    some = share * stats.norm.pdf(effect, 0, np.sqrt(se**2 + spread + response))
    expected = -np.log((none + some) * np.sqrt(2 * np.pi)).mean()
    assert _loss(at, effect, se)[0] == pytest.approx(expected)
    found = approx_fprime(at, lambda v: _loss(v, effect, se)[0])
    np.testing.assert_allclose(_loss(at, effect, se)[1], found, atol=1e-6)


def test_few_strong_effects_do_not_widen_errors() -> None:
    rng = np.random.default_rng(0)
    effect = 0.1 * rng.normal(size=2003) + (rng.random(2003) < 0.1) * rng.choice([-1, 1], 2003)
    assert np.median(calibrate(effect, np.full(2003, 0.1)).se) < 0.115


# Squeezing


@pytest.mark.parametrize(("df", "df_prior", "prior"), [(8, 5.0, 1.7), (4, 20.0, 0.3)])
def test_the_prior_of_variances_is_recovered(df: int, df_prior: float, prior: float) -> None:
    rng = np.random.default_rng(0)
    variance = prior * rng.f(df, df_prior, 20_011)
    squeezed, df_total = squeeze(variance, df)
    assert df_total - df == pytest.approx(df_prior, rel=0.15)
    weight = (df_total - df) / df_total
    found = (squeezed - (1 - weight) * variance) / weight  # one number for all
    np.testing.assert_allclose(found, np.median(found), rtol=1e-6)
    assert np.median(found) == pytest.approx(prior, rel=0.05)


def test_variances_that_vary_by_chance_become_one() -> None:
    rng = np.random.default_rng(1)
    equal = np.full(57, 0.7)
    squeezed, df = squeeze(equal * 0.9 ** rng.choice([-1, 1], 57), 6)
    assert df == np.inf
    np.testing.assert_array_equal(squeezed, squeezed[0])


def test_squeezed_t_statistics_are_calibrated_and_plain_ones_lose() -> None:
    rng = np.random.default_rng(0)
    n, df = 20_011, 4
    truth = 0.5 / rng.chisquare(6, n) * 6
    variance = truth * rng.chisquare(df, n) / df
    z = rng.normal(size=n) * np.sqrt(truth)
    squeezed, total = squeeze(variance, df)
    p = 2 * stats.t.sf(np.abs(z) / np.sqrt(squeezed), total)
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.006)
    assert np.mean(p < 1e-3) == pytest.approx(1e-3, abs=8e-4)


# Classes


def simulate_classes(
    seed: int, n: int = 701, n_arms: int = 1, spread: float = 0.1, noise: float = 0.5
) -> tuple[NDArray, Arms, NDArray, NDArray]:
    """Three classes in four dimensions, with arm-wise shifts and proportions."""
    rng = np.random.default_rng(seed)
    proportions = np.array([[0.2, 0.5, 0.3], [0.6, 0.2, 0.2], [0.3, 0.3, 0.4]])
    level = rng.integers(0, n_arms + 1, n)
    label = np.array([rng.choice(3, p=proportions[v]) for v in level])
    residual = np.eye(n_arms + 1)[level][:, 1:]
    residual -= residual.mean(0)
    means = 1.6 * np.array([[1, 0, 0, 0], [0, 1, 0, 1], [-1, -1, 1, 0]])
    shift = np.array([[1.0, 0.5, 0, -0.5], [-0.5, 0, 1, 0]])[:n_arms]
    own = shift + spread * rng.normal(size=(3, n_arms, 4))
    scores = means[label] - np.einsum("na,nak->nk", residual, own[label])
    return scores + noise * rng.normal(size=(n, 4)), Arms(level, residual), label, shift


@pytest.fixture(scope="module")
def three() -> tuple[NDArray, Arms, Classes]:
    """Scores and arms of `simulate_classes`, and what is found in them."""
    scores, arms, _, _ = simulate_classes(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scovert.model.confounder.effects._mixture.N_CLASSES", (1, 2, 3, 4))
        return scores, arms, find_classes(scores, arms)


@pytest.mark.parametrize("n_arms", [1, 2])
def test_classes_are_found_in_all_arms(n_arms: int, few_classes: None) -> None:
    scores, arms, label, shift = simulate_classes(n_arms, n_arms=n_arms)
    found = find_classes(scores, arms, seed=0)
    assert found.n_classes == 3
    assert adjusted_rand_score(label, found.probabilities.argmax(1)) > 0.95
    np.testing.assert_allclose(found.shift, shift, atol=0.25)
    assert (found.class_shift.shape, found.precision.shape) == ((3, n_arms, 4), (n_arms, 4, 4))
    crossed = pd.crosstab(arms.level, label, normalize="index").to_numpy()
    order = pd.crosstab(label, found.probabilities.argmax(1)).to_numpy().argmax(1)
    np.testing.assert_allclose(found.frequency[:, order], crossed, atol=0.03)
    np.testing.assert_allclose(found.proportions[:, order], crossed, atol=0.03)
    np.testing.assert_allclose(found.share(1)[order], crossed[1] / crossed[:2].sum(0), atol=0.05)


def test_classes_are_ordered_by_how_frequent_they_are(
    three: tuple[NDArray, Arms, Classes],
) -> None:
    """And not by the start that won, whose numbers mean nothing."""
    scores, arms, found = three
    assert (np.diff(found.overall) < 0).all()
    np.testing.assert_allclose(found.overall, found.probabilities.mean(0))
    np.testing.assert_allclose(found.assign(scores, arms), found.probabilities, atol=0.02)
    turned = found.take(np.array([2, 0, 1]))
    np.testing.assert_allclose(
        turned.put_back(scores, arms, turned.probabilities),
        found.put_back(scores, arms, found.probabilities),
    )
    np.testing.assert_allclose(turned.share(1), found.share(1)[[2, 0, 1]])
    np.testing.assert_allclose(turned.shift_covariance(0), found.shift_covariance(0))


def test_the_search_starts_from_splits_of_the_best_classes_before(
    three: tuple[NDArray, Arms, Classes],
) -> None:
    scores, arms, before = three
    labels = before.probabilities.argmax(1)
    splits = list(_first_labels(scores, arms, [], 4, before, seed=0))
    assert len(splits) == 3
    for split, divided in enumerate(splits):
        assert set(divided[labels == split]) == {split, 3}
        np.testing.assert_array_equal(divided[labels != split], labels[labels != split])
    assert list(_first_labels(scores, arms, [], 5, before, seed=0)) == []


def test_scores_get_their_shift_back(few_classes: None) -> None:
    scores, arms, _, shift = simulate_classes(1, spread=0)
    found = find_classes(scores, arms)
    back = found.put_back(scores, arms, found.probabilities)
    expected = scores + arms.residual @ shift
    assert np.sqrt(np.mean((back - expected) ** 2)) < 0.15 < np.sqrt(np.mean((scores - back) ** 2))


def test_equal_proportions_are_those_of_all(few_classes: None) -> None:
    """The probabilities of classes as if their prior were the same in both arms."""
    scores, arms, _, _ = simulate_classes(2, noise=1.2)
    found = find_classes(scores, arms)
    equal = found.equal_in_arms(found.probabilities, arms.level)
    same = replace(found, proportions=np.tile(found.overall, (2, 1)))
    np.testing.assert_allclose(equal, same.assign(scores, arms), atol=0.02)
    assert np.abs(equal - found.probabilities).max() > 0.05


def test_up_to_fifteen_classes_are_looked_for() -> None:
    rng = np.random.default_rng(0)
    level, label = rng.integers(0, 2, 181), rng.integers(0, 6, 181)
    scores = 3 * np.eye(6)[label][:, :5] + 0.4 * rng.normal(size=(181, 5))
    found = find_classes(scores, Arms(level, (level - level.mean())[:, None]))
    assert found.n_classes == 6
    assert adjusted_rand_score(label, found.probabilities.argmax(1)) > 0.98


@pytest.mark.parametrize("seed", range(2))
def test_a_gaussian_cloud_is_one_class(seed: int, few_classes: None) -> None:
    rng = np.random.default_rng(seed)
    level = rng.integers(0, 2, 503)
    scores = rng.normal(size=(503, 3))
    found = find_classes(scores, Arms(level, (level - level.mean())[:, None]), seed)
    assert found.n_classes == 1


def test_a_class_is_not_split_by_arm(few_classes: None) -> None:
    """A gap between the arms that no class explains is a shift, and not two classes."""
    rng = np.random.default_rng(0)
    level = rng.integers(0, 2, 503)
    d = (level - level.mean())[:, None]
    scores = rng.normal(size=(503, 3)) * 0.3 - d * [2.0, 0, 0]
    found = find_classes(scores, Arms(level, d))
    assert found.n_classes == 1
    np.testing.assert_allclose(found.shift[0], [2, 0, 0], atol=0.1)


def test_classes_of_some_cells_are_those_of_all(
    few_classes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, arms, label, _ = simulate_classes(3, n=1201)
    expected = find_classes(scores, arms)
    monkeypatch.setattr("scovert.model.confounder.effects._mixture.MAX_CELLS", 500)
    found = find_classes(scores, arms)
    assert found.n_classes == 3
    assert found.probabilities.shape == (1201, 3)
    labels = found.probabilities.argmax(1)
    assert adjusted_rand_score(labels, expected.probabilities.argmax(1)) > 0.97
    assert adjusted_rand_score(label, labels) > 0.95
    np.testing.assert_allclose(found.shift, expected.shift, atol=0.15)
    np.testing.assert_allclose(found.overall, found.probabilities.mean(0))
    np.testing.assert_allclose(found.frequency[1], found.probabilities[arms.level == 1].mean(0))


def test_small_arms_enter_the_subsample_whole() -> None:
    from scovert.model.confounder.effects._mixture import _some_cells

    level = np.repeat([0, 1, 2], [900, 40, 400])
    rows = _some_cells(Arms(level, np.zeros((1340, 2))), 300, seed=0)
    assert len(rows) == 300
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(np.bincount(level[rows]), [130, 40, 130])


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_cells_without_a_counterpart_are_found(share: float) -> None:
    rng = np.random.default_rng(0)
    treated = rng.random(1201) < share
    scores = rng.normal(size=(1201, 2))
    assert unmatched(scores, treated).mean() < 0.02
    alone = treated & (rng.random(1201) < 0.3)
    scores[alone] += [8, 0]
    found = unmatched(scores, treated)
    assert found[alone].mean() > 0.95
    assert found[~alone].mean() < 0.02


# Fits of simulated counts


def fit_of(adata: AnnData, n_latent: int, *, donors: NDArray | None = None) -> ConfounderFit:
    """Fit scores to a simulation whose covariates are known."""
    measured = adata.obs.filter(like="covariate").to_numpy(float)
    covariates = np.c_[np.ones(adata.n_obs), measured]
    level = np.asarray(adata.obs["treatment"]).astype(int)
    indicators = np.eye(level.max() + 1)[level][:, 1:]
    blocks = CountBlocks(adata.X, np.log(adata.obs["size_factor"].to_numpy(float)))
    factors = fit_factors(blocks, np.hstack([covariates, indicators]), n_latent)
    by_covariates = np.linalg.lstsq(covariates, indicators, rcond=None)[0]
    return ConfounderFit(
        blocks=blocks,
        covariates=covariates,
        arms=Arms(level, indicators - covariates @ by_covariates),
        scores=factors.scores,
        regression=factors.regression,
        is_tested=np.ones((indicators.shape[1], adata.n_vars), bool),
        donors=None if donors is None else Donors(donors),
    )


def unadjusted_of(fit: ConfounderFit) -> tuple[NDArray, NDArray]:
    """Effects of the first arm without confounders, and their standard errors."""
    regression = fit_regression(fit.blocks, fit.design)
    contrast = np.eye(fit.n_design)[fit.column(1)]
    return contrast @ regression.coefficients, np.sqrt(regression.variance(contrast))


def oracle_of(fit: ConfounderFit, adata: AnnData) -> tuple[NDArray, NDArray]:
    """Effects of the first arm given the true confounders, and their standard errors."""
    columns = np.hstack([fit.design, adata.obsm["truth_confounder"]])
    regression = fit_regression(fit.blocks, columns)
    contrast = np.eye(columns.shape[1])[fit.column(1)]
    return contrast @ regression.coefficients, np.sqrt(regression.variance(contrast))


def truth_of(adata: AnnData) -> NDArray:
    return adata.var["truth_log2_fc"].to_numpy() * LOG_2


def error(effect: NDArray, adata: AnnData) -> float:
    return float(np.sqrt(np.mean((effect - truth_of(adata)) ** 2)))


def discoveries(p: NDArray) -> NDArray:
    return stats.false_discovery_control(p) < 0.05


def large(seed: int, **options: object) -> AnnData:
    return simulate.confounder_large(n_cells=701, n_genes=307, seed=seed, **options)


GAUSSIAN = {"z_types": ["continuous"] * 2}
SCENARIOS = {
    "sparse, binary": ("classes", 1, lambda s: simulate.confounder("sparse", n_cells=601, seed=s)),
    "dense, binary": ("classes", 1, lambda s: simulate.confounder("normal", n_cells=601, seed=s)),
    "sparse, gaussian": ("sparse", 2, lambda s: large(s, **GAUSSIAN)),
    "sparse, both": ("hybrid", 3, large),
}


@pytest.mark.usefixtures("few_classes")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_rule_chooses_what_identifies(name: str, seed: int) -> None:
    choice, n_latent, make = SCENARIOS[name]
    adata = make(seed)
    fit = fit_of(adata, n_latent)
    (found,) = estimate_effects(fit, "auto")
    assert found.choice == choice
    assert not found.not_identified
    unadjusted, _ = unadjusted_of(fit)
    assert error(found.effect, adata) < 0.85 * error(unadjusted, adata)
    assert error(found.effect, adata) < 1.1 * error(oracle_of(fit, adata)[0], adata)
    covered = np.abs(found.effect - truth_of(adata)) < 1.96 * found.se
    assert 0.88 < covered.mean() <= 1
    called = discoveries(found.p_value)
    is_de = adata.var["truth_is_de"].to_numpy()
    if name != "dense, binary":
        assert (called & ~is_de).sum() <= 0.15 * called.sum()
        assert (called & is_de).sum() > 0.8 * is_de.sum()


@pytest.mark.usefixtures("few_classes")
@pytest.mark.parametrize("seed", [0, 1])
def test_p_values_are_refused_where_nothing_identifies(seed: int) -> None:
    adata = large(seed, **GAUSSIAN, effects="aligned", effect_fraction=0.5)
    fit = fit_of(adata, 2)
    (found,) = estimate_effects(fit, "auto")
    assert found.not_identified == NOT_IDENTIFIED
    assert found.facts["tau"] > 0.1
    assert error(found.effect, adata) > 2 * error(oracle_of(fit, adata)[0], adata)
    (sparse_one,) = estimate_effects(fit, "sparse")
    assert not sparse_one.not_identified  # what a user asks for is theirs


def as_cells(columns: dict) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    return frame.set_index("cell " + frame.index.astype(str))


def simulate_types(seed: int, n: int = 601, p: int = 151) -> tuple[AnnData, NDArray]:
    """Three cell types of unequal response to a treatment that all genes follow."""
    rng = np.random.default_rng(seed)
    treated = rng.random(n) < 0.5
    proportions = np.array([[0.2, 0.5, 0.3], [0.55, 0.2, 0.25]])
    label = np.array([rng.choice(3, p=proportions[int(v)]) for v in treated])
    profile = rng.normal(0, 0.9, (3, p))
    effect = rng.normal(0, 0.5, p) + 0.5 * (profile[0] - profile[1])
    own = 0.5 * rng.normal(size=(3, p))
    log_mean = 0.3 + profile[label] + treated[:, None] * (effect + own[label] - own.mean(0))
    counts = rng.poisson(rng.gamma(4.0, np.exp(log_mean) / 4))
    obs = {"treatment": treated, "size_factor": 1.0}
    adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=as_cells(obs))
    adata.var["truth_log2_fc"] = effect / LOG_2
    return adata, label


def test_dense_effects_are_told_and_kept_by_classes(few_classes: None) -> None:
    adata, label = simulate_types(0)
    fit = fit_of(adata, 4)
    (found,) = estimate_effects(fit, "auto")
    assert found.choice == "classes"
    assert "dense" in found.warning
    labels = fit.classes.probabilities.argmax(1)
    assert adjusted_rand_score(label, labels) > 0.9
    dummies = np.eye(3)[label][:, 1:]
    by_type = fit_regression(fit.blocks, np.hstack([fit.design, dummies])).coefficients[1]
    (by_sparsity,) = estimate_effects(fit, "sparse")
    unadjusted, _ = unadjusted_of(fit)
    agreement = {
        name: np.corrcoef(values, by_type)[0, 1]
        for name, values in {
            "auto": found.effect,
            "sparse": by_sparsity.effect,
            "unadjusted": unadjusted,
        }.items()
    }
    assert agreement["auto"] > 0.99
    assert 1 - agreement["auto"] < 0.2 * min(1 - agreement["sparse"], 1 - agreement["unadjusted"])


def simulate_relatives(seed: int, n: int = 901, p: int = 401) -> AnnData:
    """Two related types, each frequent in one arm, a third one, and few genes that respond."""
    rng = np.random.default_rng(seed)
    treated = rng.random(n) < 0.5
    proportions = np.array([[0.1, 0.5, 0.4], [0.5, 0.1, 0.4]])
    label = np.array([rng.choice(3, p=proportions[int(v)]) for v in treated])
    profile = rng.normal(0, 0.8, (3, p))
    profile[1] = profile[0] + rng.normal(0, 0.26, p)
    effect = np.where(rng.random(p) < 0.1, rng.choice([-1, 1], p), 0.0)
    log_mean = 0.3 + profile[label] + treated[:, None] * effect * LOG_2
    counts = rng.poisson(rng.gamma(4.0, np.exp(log_mean) / 4))
    obs = as_cells({"treatment": treated, "size_factor": 1.0})
    adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs)
    adata.var["truth_log2_fc"] = effect
    return adata


def test_classes_that_hold_two_types_are_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    one_too_few = (1, 2)
    monkeypatch.setattr("scovert.model.confounder.effects._mixture.N_CLASSES", one_too_few)
    adata = simulate_relatives(0)
    fit = fit_of(adata, 2)
    (found,), (by_classes,) = (estimate_effects(fit, name) for name in ("auto", "classes"))
    assert found.facts["n_classes"] == 2
    assert found.facts["tau"] < 0.05
    assert max(found.facts["heterogeneity"] / 0.15, found.facts["gap"] / 0.3) > 1
    assert found.choice == "sparse"
    assert error(found.effect, adata) < 0.8 * error(by_classes.effect, adata)


def test_controls_identify_dense_effects() -> None:
    adata = simulate.confounder("normal", n_genes=300, z_type="continuous", seed=3)
    adata.var["truth_log2_fc"] = np.where(np.arange(300) % 3, adata.var["truth_log2_fc"], 0.0)
    truth, rng = truth_of(adata), np.random.default_rng(0)
    mean = np.exp(
        np.c_[adata.obs.filter(like="covariate"), adata.obsm["truth_confounder"]]
        @ np.hstack([adata.varm["truth_covariate_effects"], adata.varm["truth_loadings"]]).T
        + np.outer(adata.obs["treatment"], truth)
    )
    adata.X = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    fit = fit_of(adata, 1)
    controls = np.arange(300) % 3 == 0
    (found,) = estimate_effects(fit, "controls", controls)
    assert found.choice == "controls"
    assert found.facts["n_controls"] == 100
    (by_sparsity,) = estimate_effects(fit, "sparse")
    assert error(found.effect, adata) < 0.5 * error(unadjusted_of(fit)[0], adata)
    assert error(found.effect, adata) <= error(by_sparsity.effect, adata)
    assert np.mean(np.abs(found.effect - truth) < 1.96 * found.se) > 0.9


def test_randomised_treatments_have_no_shift() -> None:
    adata = simulate.confounder("sparse", z_ratio=0.0, n_cells=801, seed=2)
    fit = fit_of(adata, 1)
    (found,) = estimate_effects(fit, "randomised")
    np.testing.assert_array_equal(found.shift, 0)
    assert found.choice == "randomised"
    assert np.mean(np.abs(found.effect - truth_of(adata)) < 1.96 * found.se) > 0.9


@pytest.mark.parametrize("identification", ["auto", "classes", "sparse", "randomised"])
def test_without_confounders_all_agree(identification: str) -> None:
    adata = simulate.confounder("sparse", n_cells=401, seed=1, loading_scale=0, z_ratio=0)
    fit = fit_of(adata, 0)
    (found,) = estimate_effects(fit, identification)
    unadjusted, se = unadjusted_of(fit)
    np.testing.assert_allclose(found.effect, unadjusted)
    if identification != "sparse":  # which is calibrated
        np.testing.assert_allclose(found.se, se)
    assert found.shift.shape == (0,)


# Several arms


@pytest.fixture(scope="module")
def twins() -> tuple[ConfounderFit, ConfounderFit]:
    """Fit one arm, and the same with a copy of the arm as another arm."""
    adata = simulate.confounder("sparse", n_cells=801, n_genes=97, seed=4)
    treated = np.flatnonzero(adata.obs["treatment"])
    rows = np.r_[np.arange(801), treated]
    double = adata[rows].copy()
    double.obs_names_make_unique()
    double.obs["treatment"] = np.r_[adata.obs["treatment"].astype(int), np.full(len(treated), 2)]
    return fit_of(adata, 1), fit_of(double, 1)


@pytest.mark.usefixtures("few_classes")
@pytest.mark.parametrize("identification", ["auto", "classes", "sparse", "randomised"])
def test_a_copied_arm_has_the_effects_of_its_twin(
    twins: tuple[ConfounderFit, ConfounderFit], identification: str
) -> None:
    single, double = twins
    (one,) = estimate_effects(single, identification)
    first, second = estimate_effects(double, identification)
    assert one.choice == first.choice == second.choice
    np.testing.assert_allclose(first.effect, second.effect, atol=5e-3)
    np.testing.assert_allclose(first.se, second.se, rtol=0.02)
    assert np.abs((first.effect - one.effect) / one.se).max() < 1
    assert np.sqrt(np.mean(((first.effect - one.effect) / one.se) ** 2)) < 0.25
    np.testing.assert_allclose(first.se, one.se, rtol=0.25)


# Binary confounders


def test_states_identify_dense_effects() -> None:
    adata = simulate.confounder("normal", n_cells=601, seed=5)
    fit = fit_of(adata, 0)
    states = fit_states(fit.blocks, fit.design, 1)
    fit = ConfounderFit(
        fit.blocks, fit.covariates, fit.arms, states.probabilities, states.regression,
        fit.is_tested,
    )  # fmt: skip
    (found,) = estimate_by_states(fit, states.combinations)
    assert found.choice == "classes"
    assert found.facts == {"n_classes": 2.0, "one_arm_share": 0.0}
    assert error(found.effect, adata) < 0.85 * error(unadjusted_of(fit)[0], adata)
    assert error(found.effect, adata) < 1.05 * error(oracle_of(fit, adata)[0], adata)
    assert np.mean(np.abs(found.effect - truth_of(adata)) < 1.96 * found.se) > 0.9


# Donors


def by_donors(seed: int, n_arms: int, per_arm: int, p: int = 121) -> tuple[AnnData, NDArray]:
    """Donors that differ, treated at random without effect."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange((n_arms + 1) * per_arm), 17)
    level = rng.permutation(np.repeat(np.arange(n_arms + 1), per_arm))[donor]
    log_mean = 0.5 + rng.normal(0, 0.4, (donor.max() + 1, p))[donor]
    counts = rng.poisson(rng.gamma(4.0, np.exp(log_mean) / 4))
    obs = as_cells({"treatment": level, "size_factor": 1.0})
    return AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs), donor


@pytest.mark.parametrize(("n_arms", "per_arm"), [(1, 6), (3, 4), (1, 3), (3, 3)])
def test_errors_by_donor_hold(n_arms: int, per_arm: int) -> None:
    p, unadjusted = [], []
    for seed in range(6):
        adata, donor = by_donors(seed, n_arms, per_arm)
        found = estimate_effects(fit_of(adata, 0, donors=donor), "randomised")
        plain = estimate_effects(fit_of(adata, 0), "randomised")
        p += [e.p_value for e in found]
        unadjusted += [e.p_value for e in plain]
        assert all(np.isinf(e.df) for e in plain)
        if per_arm == 3:
            assert all(e.df == 4 for e in found)
    assert 0.02 < np.mean(np.concatenate(p) < 0.05) < 0.075
    assert np.mean(np.concatenate(p) < 0.001) < 0.006
    assert np.mean(np.concatenate(unadjusted) < 0.05) > 0.2


def test_weights_of_residuals_are_those_of_tukey() -> None:
    """With the cut-off at which the estimate keeps 95 % of the efficiency of least squares."""
    z = np.random.default_rng(0).standard_t(3, 101)
    scale = np.median(np.abs(z)) / stats.norm.ppf(0.75)
    np.testing.assert_allclose(_weights(z, tukey=True), TukeyBiweight().weights(z / scale))


# Doubly robust effects


def test_doubly_robust_errors_know_donors() -> None:
    p, unadjusted = [], []
    for seed in range(4):
        adata, donor = by_donors(seed, 1, 8)
        fit, plain = fit_of(adata, 0, donors=donor), fit_of(adata, 0)
        none = np.zeros((adata.n_obs, 0))
        for some, values in ((fit, p), (plain, unadjusted)):
            (found,) = doubly_robust(some, none, estimate_effects(some, "randomised"))
            values.append(found.p_value)
    assert 0.02 < np.mean(np.concatenate(p) < 0.05) < 0.08
    assert np.mean(np.concatenate(unadjusted) < 0.05) > 0.2


def test_no_cell_counts_fifty_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def certain(x: NDArray, treated: NDArray, new: NDArray) -> NDArray:
        return np.tile([0.0, 1.0], (len(new), 1))

    def watched(*arguments: object) -> object:
        seen.append(arguments[3])
        return influence(*arguments)

    influence = _aipw._influence
    monkeypatch.setattr(_aipw, "propensity_scores", certain)
    monkeypatch.setattr(_aipw, "_influence", watched)
    fit = fit_of(by_donors(0, 1, 8)[0], 0)
    doubly_robust(fit, np.zeros((len(fit.scores), 0)), estimate_effects(fit, "randomised"))
    assert np.unique(np.concatenate(seen)) == pytest.approx([0.98])


def test_doubly_robust_effects_are_consistent() -> None:
    adata = simulate.confounder_large(n_cells=3001, n_genes=61, z_types=["continuous"], seed=0)
    fit = fit_of(adata, 1)
    plain = estimate_effects(fit, "sparse")
    (found,) = doubly_robust(fit, adata.obsm["truth_confounder"], plain)
    truth, (unadjusted, _) = truth_of(adata), unadjusted_of(fit)
    assert found.choice == plain[0].choice
    assert error(found.effect, adata) < 0.5 * error(unadjusted, adata)
    assert abs(np.mean(found.effect - truth)) < 0.04
    assert 0.88 < np.mean(np.abs(found.effect - truth) < 1.96 * found.se) <= 1
    z = (found.effect - truth) / found.se
    assert 0.75 < z.std() < 1.25


# What confounders explain


def project(fit: ConfounderFit) -> object:
    def infer(blocks: CountBlocks, genes: NDArray) -> NDArray:
        part = fit.regression.of_genes(genes)
        return project_scores(blocks, fit.design, part)

    return infer


def test_deviance_is_explained_only_if_there_is_a_confounder() -> None:
    found = {}
    for name, options in {"none": {"loading_scale": 0, "z_ratio": 0}, "some": {}}.items():
        adata = simulate.confounder("null", n_cells=801, n_genes=83, seed=0, **options)
        fit = fit_of(adata, 2)
        counts = count_deviance(fit.blocks, fit.design, project(fit), seed=0)
        predictors = np.hstack([fit.covariates[:, 1:], adata.obsm["truth_confounder"]])
        treatment = treatment_deviance(predictors, 4, fit.arms.level, seed=0)
        found[name] = counts, treatment
    assert np.abs(found["none"]).max() < 0.01
    assert found["some"][0] > 0.05
    assert found["some"][1] > 0.008


def test_the_treatment_is_predicted_by_what_drives_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4001, 2))
    level = (rng.random(4001) < 1 / (1 + np.exp(-x @ [1.0, -0.5]))).astype(int)
    points = np.array([[0.0, 0], [1, 0], [0, 1]])
    propensity = propensity_scores(x, level, points)
    np.testing.assert_allclose(logit(propensity[:, 1]), points @ [1.0, -0.5], atol=0.12)
    np.testing.assert_allclose(propensity.sum(1), 1)
    empty = propensity_scores(x[:, :0], level, points[:, :0])[:, 1]
    np.testing.assert_allclose(empty, level.mean(), atol=1e-3)
    assert propensity_scores(x, level, points[:0]).shape == (0, 2)


# Calibration over many draws


def rates(seed: int, n_latent: int, make: object) -> dict[str, float]:
    adata = make(seed)
    fit = fit_of(adata, n_latent)
    (found,) = estimate_effects(fit, "auto")
    unadjusted, unadjusted_se = unadjusted_of(fit)
    oracle, oracle_se = oracle_of(fit, adata)
    is_de, truth = adata.var["truth_is_de"].to_numpy(), truth_of(adata)
    called = discoveries(found.p_value)
    called_unadjusted = discoveries(2 * stats.norm.sf(np.abs(unadjusted) / unadjusted_se))
    return {
        "fpr": np.mean(found.p_value[~is_de] < 0.05),
        "fdp": (called & ~is_de).sum() / max(called.sum(), 1),
        "coverage": np.mean(np.abs(found.effect - truth) < 1.96 * found.se),
        "oracle coverage": np.mean(np.abs(oracle - truth) < 1.96 * oracle_se),
        "unadjusted fpr": np.mean(
            2 * stats.norm.sf(np.abs(unadjusted) / unadjusted_se)[~is_de] < 0.05
        ),
        "unadjusted fdp": (called_unadjusted & ~is_de).sum() / max(called_unadjusted.sum(), 1),
        "unadjusted coverage": np.mean(np.abs(unadjusted - truth) < 1.96 * unadjusted_se),
    }


CALIBRATED = {
    "classes": (1, lambda s: simulate.confounder("sparse", n_cells=801, seed=s)),
    "sparse": (2, lambda s: large(s, **GAUSSIAN)),
    "hybrid": (3, large),
}


@pytest.mark.slow
@pytest.mark.usefixtures("few_classes")
@pytest.mark.parametrize("name", CALIBRATED)
def test_p_values_are_calibrated(name: str) -> None:
    n_latent, make = CALIBRATED[name]
    mean = pd.DataFrame([rates(seed, n_latent, make) for seed in range(10, 22)]).mean()
    assert 0.02 < mean["fpr"] < 0.07
    assert mean["fdp"] < 0.08
    assert mean["oracle coverage"] - 0.01 < mean["coverage"] < 0.985
    assert mean["coverage"] > 0.92
    assert mean["unadjusted fpr"] > 0.2
    assert mean["unadjusted fdp"] > 0.3
    assert mean["unadjusted coverage"] < 0.8


def test_estimates_know_their_quantiles() -> None:
    empty = np.zeros((1, 3))
    normal = Estimate(np.ones(3), np.ones(3) / 2, np.inf, "sparse", empty, {}, np.zeros(0))
    np.testing.assert_allclose(normal.p_value, 2 * stats.norm.sf(2))
    student = normal.replace(df=5, facts={"tau": 1.0})
    np.testing.assert_allclose(student.p_value, 2 * stats.t.sf(2, 5))
    assert student.facts == {"tau": 1.0}
    assert normal.facts == {}


@pytest.mark.parametrize("shift", [1.5, 2.5])
def test_a_shift_that_may_be_the_response_is_warned_about(shift: float) -> None:
    called = {"none": 136.0, "sparse": 2.0}
    estimate = Estimate(
        np.ones(3),
        np.ones(3),
        np.inf,
        "sparse",
        np.zeros((1, 3)),
        {"shift": shift},
        np.zeros(0),
        limits={"shift": MAX_SHIFT},
        alternatives={name: {"genes_called": n} for name, n in called.items()},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_doubts(estimate, "a v. b")
    said = "differ by 2.5 standard deviations.*2 genes are called with it, 136 without"
    assert [bool(re.search(said, str(w.message))) for w in caught] == [True] * (shift > MAX_SHIFT)


@pytest.mark.slow
def test_a_knock_out_of_a_programme_is_no_confounder_in_silence(
    read_shared: Callable[[str], AnnData],
) -> None:
    """Without IFNGR1 hundreds of genes stay down together, in cells that chance assigned."""
    cells = read_shared("confounding_papalexi_perturbseq")
    cells = cells[cells.obs["perturbation"].isin(["non-targeting", "IFNGR1"])].copy()
    setup = {"reference": "non-targeting", "categorical_covariate_keys": ["replicate"]}
    LatentConfounder.setup_anndata(cells, "perturbation", **setup)
    model = LatentConfounder(cells)
    model.train(enable_progress_bar=False)
    known = model.get_treatment_effects(identification="randomised")
    assert (known["q_value"] < 0.05).sum() > 50
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        effects = model.get_treatment_effects()
    found = (effects["q_value"] < 0.05).sum()
    said = any("identification='randomised'" in str(w.message) for w in caught)
    assert found > 50 or said


def test_classes_have_a_shift_covariance_by_their_spread(few_classes: None) -> None:
    scores, arms, _, _ = simulate_classes(5)
    found: Classes = find_classes(scores, arms)
    v = found.spread[:, 0]
    expected = np.einsum("c,cab->ab", v, found.covariances) / v.sum() ** 2
    np.testing.assert_allclose(found.shift_covariance(0), expected)
