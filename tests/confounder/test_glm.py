"""Negative binomial regressions against statsmodels, scipy and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.special import digamma, gammaln, logsumexp, polygamma
from statsmodels.discrete.discrete_model import NegativeBinomial

from scovert.model.confounder.glm import (
    CountBlocks,
    Regression,
    choose_rank,
    cluster_variance,
    fit_factors,
    fit_regression,
    fit_states,
    gene_deviance,
    independent_components,
    project_scores,
    state_probabilities,
)
from scovert.model.confounder.glm import _rank as rank_file
from scovert.model.confounder.glm._blocks import TailCounts
from scovert.model.confounder.glm._sums import LongSum, Triangle

N, P = 331, 13
TIGHT = {"tolerance": 1e-9, "max_steps": 200}


def draw_counts(rng: np.random.Generator, mean: NDArray, dispersion: NDArray) -> NDArray:
    r = 1 / dispersion
    return rng.negative_binomial(r, r / (r + mean))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> tuple[NDArray, NDArray, NDArray]:
    """Counts, design with intercept and log size factors; some counts are above 64."""
    rng = np.random.default_rng(0)
    design = np.c_[np.ones(N), rng.integers(0, 2, N), rng.normal(size=(N, 2))]
    b = np.vstack([rng.uniform(-1, 3.5, P), rng.normal(0, 0.4, (3, P))])
    log_size = rng.normal(0, 0.4, N)
    mean = np.exp(design @ b + log_size[:, None])
    counts = draw_counts(rng, mean, rng.uniform(0.1, 1.0, P))
    assert (counts > 64).any()
    return counts, design, log_size


def in_blocks(counts: NDArray, log_size: object = 0.0, **options: object) -> CountBlocks:
    options = {"dtype": torch.float64, **options}
    log_size = np.zeros(len(counts)) + log_size
    return CountBlocks(sparse.csr_matrix(counts), log_size, **options)


@pytest.fixture(scope="module")
def fit(data: tuple) -> Regression:
    counts, design, log_size = data
    return fit_regression(in_blocks(counts, log_size), design, penalty=0.0, **TIGHT)


# Sums


def test_sums_of_many_products_are_those_in_double_precision() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.random((50, 4, 9)), rng.random((50, 9, 7))
    total = LongSum(torch.zeros(4, 7, dtype=torch.float64), torch.float32)
    for a, b in zip(left, right, strict=True):
        total.add(*(torch.tensor(v, dtype=torch.float32) for v in (a, b)))
    np.testing.assert_allclose(total.value, (left @ right).sum(0), rtol=1e-5)
    np.testing.assert_array_equal(total.value, total.value)


def test_a_triangle_is_that_of_all_products() -> None:
    x = torch.tensor(np.random.default_rng(0).normal(size=(5, 3)))
    triangle = Triangle(3, x.device)
    products = triangle.products(x)
    assert products.shape == (5, len(triangle))
    np.testing.assert_array_equal(triangle.matrices(products), x[:, :, None] * x[:, None])


# Regression


def test_coefficients_and_dispersions_are_those_of_statsmodels(
    data: tuple, fit: Regression
) -> None:
    counts, design, log_size = data
    for j in range(P):
        model = NegativeBinomial(counts[:, j], design, offset=log_size)
        start = np.append(fit.coefficients[:, j], fit.dispersion[j]) + 0.05
        theirs = model.fit(start, method="bfgs", maxiter=500, gtol=1e-7, disp=0).params
        np.testing.assert_allclose(fit.coefficients[:, j], theirs[:-1], atol=2e-5)
        np.testing.assert_allclose(fit.dispersion[j], theirs[-1], rtol=1e-4)


def test_covariances_are_those_of_statsmodels(data: tuple, fit: Regression) -> None:
    counts, design, log_size = data
    for j in range(P):
        family = sm.families.NegativeBinomial(alpha=fit.dispersion[j])
        model = sm.GLM(counts[:, j], design, family=family, offset=log_size)
        plain, robust = model.fit(tol=1e-12), model.fit(tol=1e-12, cov_type="HC1")
        np.testing.assert_allclose(fit.coefficients[:, j], plain.params, atol=1e-8)
        bread, scores = plain.cov_params(), model.score_obs(plain.params)
        np.testing.assert_allclose(fit.covariance[j], bread, rtol=1e-6, atol=1e-10)
        hc1 = bread @ scores.T @ scores @ bread * N / (N - 4)
        np.testing.assert_allclose(fit.sandwich[j], hc1, rtol=1e-6, atol=1e-10)
        # theirs differs by the observed in place of the expected information
        np.testing.assert_allclose(fit.sandwich[j].diagonal(), robust.bse**2, rtol=0.25)


@pytest.mark.parametrize("penalty", [1e-4, 1.0])
def test_genes_of_which_few_cells_have_most_counts_settle(penalty: float) -> None:
    """Steps by the expected information left two of these sixty up to four errors away."""
    rng = np.random.default_rng(0)
    n_cells, n_genes, n_factors = 600, 60, 6
    design = np.c_[np.ones(n_cells), rng.normal(size=(n_cells, n_factors))]
    loadings = rng.normal(0, 0.8, (n_factors, n_genes))
    counts = draw_counts(rng, np.exp(design[:, 1:] @ loadings - 3), np.full(n_genes, 8.0))
    found = fit_regression(in_blocks(counts), design, penalty=penalty)
    mean = np.exp(design @ found.coefficients)
    residual = (counts - mean) / (1 + found.dispersion * mean)
    gradient = design.T @ residual - penalty * found.coefficients
    away = np.sqrt(np.einsum("ip,pij,jp->p", gradient, found.covariance, gradient))
    assert away.max() < 0.05  # standard errors


def test_single_precision_is_close(data: tuple, fit: Regression) -> None:
    counts, design, log_size = data
    blocks = in_blocks(counts, log_size, dtype=torch.float32)
    single = fit_regression(blocks, design, penalty=0.0, tolerance=1e-6, max_steps=200)
    se = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2)).T
    assert np.abs((single.coefficients - fit.coefficients) / se).max() < 1e-3
    np.testing.assert_allclose(single.dispersion, fit.dispersion, rtol=5e-3)
    np.testing.assert_allclose(single.covariance, fit.covariance, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(single.sandwich, fit.sandwich, rtol=2e-3, atol=1e-6)


def test_deviance_is_minus_twice_the_log_likelihood(data: tuple, fit: Regression) -> None:
    counts, design, log_size = data
    mean, r = np.exp(design @ fit.coefficients + log_size[:, None]), 1 / fit.dispersion
    expected = -2 * stats.nbinom.logpmf(counts, r, r / (r + mean)).sum() / N
    np.testing.assert_allclose(fit.deviance[-1], expected, rtol=1e-10)
    assert (np.diff(fit.deviance)[1:] < 1e-9).all()


def test_the_deviance_of_genes_is_the_closed_form(data: tuple, fit: Regression) -> None:
    counts, design, log_size = data
    mean = np.exp(design @ fit.coefficients + log_size[:, None])
    expected = [
        sm.families.NegativeBinomial(alpha=alpha).deviance(y, mu)
        for y, mu, alpha in zip(counts.T, mean.T, fit.dispersion, strict=True)
    ]
    blocks = in_blocks(counts, log_size)
    found = gene_deviance(blocks, design, fit.coefficients, fit.dispersion)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_penalty_is_that_of_a_normal_prior(data: tuple) -> None:
    counts, design, log_size = data
    penalty = np.array([0.0, 50.0, 5.0, 0.0])
    blocks = in_blocks(counts, log_size)
    found = fit_regression(blocks, design, penalty=penalty, **TIGHT)
    mean = np.exp(design @ found.coefficients + log_size[:, None])
    score = design.T @ ((counts - mean) / (1 + found.dispersion * mean))
    np.testing.assert_allclose(score, penalty[:, None] * found.coefficients, atol=1e-5)
    information = np.einsum("ia,ij,ib->jab", design, mean / (1 + found.dispersion * mean), design)
    expected = np.linalg.inv(information + np.diag(penalty))
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-8)


def test_the_variance_of_a_contrast_is_the_larger_one(fit: Regression) -> None:
    contrast = np.array([0.0, 1.0, -0.5, 0.25])
    plain = [contrast @ cov @ contrast for cov in fit.covariance]
    robust = [contrast @ cov @ contrast for cov in fit.sandwich]
    np.testing.assert_allclose(fit.variance(contrast), np.maximum(plain, robust))
    assert (np.array(plain) > robust).any()
    assert (np.array(plain) < robust).any()
    of_genes = fit.of_genes(np.array([7, 2]))
    np.testing.assert_array_equal(of_genes.variance(contrast), fit.variance(contrast)[[7, 2]])


@pytest.mark.parametrize("size", [11, 50, None, 1000])
def test_a_regression_is_free_of_the_blocks(data: tuple, fit: Regression, size: int) -> None:
    counts, design, log_size = data
    found = fit_regression(in_blocks(counts, log_size, size=size), design, penalty=0.0, **TIGHT)
    np.testing.assert_allclose(found.coefficients, fit.coefficients, atol=1e-9)


def test_genes_without_variation_stay_finite() -> None:
    counts = np.zeros((40, 4), int)
    counts[:20, 1] = 3  # all in one arm
    counts[:, 2] = 2  # the same everywhere
    counts[7, 3] = 100_000
    design = np.c_[np.ones(40), np.repeat([0, 1], 20)]
    for dtype in (torch.float32, torch.float64):
        found = fit_regression(in_blocks(counts, dtype=dtype), design)
        for values in (found.coefficients, found.dispersion, found.covariance, found.sandwich):
            assert np.isfinite(values).all()


def test_stored_zeros_are_zeros() -> None:
    dense = np.array([[3, 0, 70], [0, 1, 0], [5, 0, 2]], float)
    stored = (dense.ravel(), np.tile([0, 1, 2], 3), [0, 3, 6, 9])
    a, b = (CountBlocks(sparse.csr_matrix(v), np.zeros(3)) for v in (stored, dense))
    assert a.counts.nnz > b.counts.nnz
    r = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)
    np.testing.assert_array_equal(a.tails.log_gamma(r), b.tails.log_gamma(r))
    assert a.log_factorials == pytest.approx(b.log_factorials)


# Sums over tails


def test_tails_are_sums_of_gamma_functions() -> None:
    rng = np.random.default_rng(0)
    counts = np.c_[rng.poisson(2, 90), rng.poisson(60, 90), rng.poisson(900, 90), np.zeros(90)]
    counts[3, 1] = 64
    counts[4, 1] = 65
    tails = TailCounts(sparse.csr_matrix(counts), torch.device("cpu"))
    for r in (0.05, 0.8, 30.0, 1000.0):
        r4 = torch.full((4,), r, dtype=torch.float64)
        logs = (gammaln(counts + r) - gammaln(r)).sum(0)
        np.testing.assert_allclose(tails.log_gamma(r4), logs, rtol=1e-12, atol=1e-9)
        first, second = tails.digamma(r4)
        np.testing.assert_allclose(first, (digamma(counts + r) - digamma(r)).sum(0), atol=90e-5)
        trigamma = (polygamma(1, counts + r) - polygamma(1, r)).sum(0)
        np.testing.assert_allclose(second, trigamma, rtol=1e-5, atol=90e-6)


# Factors


def simulate_factors(
    n: int, p: int, k: int, seed: int, *, log_mean: float = 0.5
) -> tuple[NDArray, NDArray, NDArray]:
    """Counts, a design with a treatment that depends on Z, and Z."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    treated = rng.random(n) < 1 / (1 + np.exp(-z.sum(1))) if k else rng.random(n) < 0.5
    design = np.c_[np.ones(n), treated]
    b = np.vstack([rng.normal(log_mean, 0.6, p), rng.normal(0, 0.3, p)])
    mean = np.exp(design @ b + z @ rng.normal(0, 0.6, (k, p)))
    return draw_counts(rng, mean, rng.uniform(0.1, 0.5, p)), design, z


def given(values: NDArray, design: NDArray) -> NDArray:
    return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]


def correlation(found: NDArray, truth: NDArray) -> float:
    """Smallest canonical correlation."""
    bases = [np.linalg.qr(v - v.mean(0))[0] for v in (found, truth)]
    return float(np.linalg.svd(bases[0].T @ bases[1])[1].min())


@pytest.fixture(scope="module")
def cells() -> tuple[NDArray, NDArray, NDArray]:
    return simulate_factors(613, 89, 3, seed=0)


def test_scores_are_white_and_orthogonal_to_the_design(cells: tuple) -> None:
    counts, design, _ = cells
    for dtype, atol in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        u = fit_factors(in_blocks(counts, dtype=dtype), design, 3).scores
        np.testing.assert_allclose(u.T @ design / len(u), 0, atol=atol)
        np.testing.assert_allclose(u.T @ u / len(u), np.eye(3), atol=atol)


def test_the_deviance_falls_and_is_that_of_the_counts(cells: tuple) -> None:
    counts, design, _ = cells
    seen = []
    found = fit_factors(in_blocks(counts), design, 3, on_round=lambda i, d: seen.append((i, d)))
    assert [i for i, _ in seen] == list(range(len(seen)))
    np.testing.assert_array_equal([d for _, d in seen], found.deviance[: len(seen)])
    assert (np.diff(found.deviance) < 1e-3).all()
    without = fit_regression(in_blocks(counts), design).deviance[-1]
    assert found.deviance[-1] < found.deviance[0] < without
    columns, r = np.hstack([design, found.scores]), 1 / found.regression.dispersion
    mean = np.exp(columns @ found.regression.coefficients)
    expected = -2 * stats.nbinom.logpmf(counts, r, r / (r + mean)).sum() / len(counts)
    np.testing.assert_allclose(found.deviance[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_factors_are_recovered_better_than_by_principal_components(seed: int) -> None:
    counts, design, z = simulate_factors(613, 211, 3, seed=seed, log_mean=-1)
    u = fit_factors(in_blocks(counts, dtype=torch.float32), design, 3).scores
    truth = given(z, design)
    logs = given(np.log1p(counts), design)
    baseline = np.linalg.svd(logs / logs.std(0), full_matrices=False)[0][:, :3]
    found, by_components = (1 - correlation(v, truth) ** 2 for v in (u, baseline))
    assert found < 0.06  # of the variance of the worst axis is not found
    assert found < 0.8 * by_components


def test_factors_are_free_of_blocks_and_precision(cells: tuple) -> None:
    counts, design, _ = cells
    expected = fit_factors(in_blocks(counts), design, 3)
    for options in ({"size": 17}, {"size": 1000}, {"dtype": torch.float32}):
        found = fit_factors(in_blocks(counts, **options), design, 3)
        assert correlation(found.scores, expected.scores) > 1 - 1e-6
        variance = expected.regression.variance([0, 1, 0, 0, 0])
        difference = found.regression.coefficients[1] - expected.regression.coefficients[1]
        assert np.abs(difference / np.sqrt(variance)).max() < 0.01


def test_projected_scores_are_the_fitted_ones(cells: tuple) -> None:
    counts, design, _ = cells
    found = fit_factors(in_blocks(counts), design, 3)
    again = project_scores(in_blocks(counts), design, found.regression)
    assert np.corrcoef(again.T, found.scores.T)[:3, 3:].diagonal().min() > 0.995
    assert np.sqrt(np.mean((again - found.scores) ** 2)) < 0.1
    some = project_scores(in_blocks(counts[[5, 3]]), design[[5, 3]], found.regression)
    np.testing.assert_allclose(some, again[[5, 3]], atol=1e-10)


def test_projected_scores_are_most_probable(cells: tuple) -> None:
    counts, design, _ = cells
    fit = fit_factors(in_blocks(counts), design, 3).regression
    u = project_scores(in_blocks(counts), design, fit)
    mean = np.exp(np.hstack([design, u]) @ fit.coefficients)
    v, loadings = 1 / (1 + fit.dispersion * mean), fit.coefficients[2:]
    gradient = ((counts - mean) * v) @ loadings.T - u
    information = 1 + (mean * v) @ (loadings**2).T
    assert np.abs(gradient / information).max() < 0.02  # what another step would change
    assert np.mean(np.abs(gradient / information) < 1e-3) > 0.99


def test_many_cells_start_from_some(monkeypatch: pytest.MonkeyPatch, cells: tuple) -> None:
    counts, design, _ = cells
    expected = fit_factors(in_blocks(counts), design, 3, tolerance=1e-4)
    monkeypatch.setattr("scovert.model.confounder.glm._factors.MAX_FEW_CELLS", 500)
    monkeypatch.setattr("scovert.model.confounder.glm._factors.N_START_CELLS", 300)
    found = fit_factors(in_blocks(counts), design, 3, tolerance=1e-4)
    assert correlation(found.scores, expected.scores) > 0.999


def test_no_factors_are_a_regression(cells: tuple) -> None:
    counts, design, _ = cells
    found = fit_factors(in_blocks(counts), design, 0)
    assert found.scores.shape == (613, 0)
    expected = fit_regression(in_blocks(counts), design)
    np.testing.assert_array_equal(found.regression.coefficients, expected.coefficients)


# Number of factors


@pytest.mark.parametrize("seed", range(6))
def test_no_factor_is_found_where_there_is_none(seed: int) -> None:
    counts, design, _ = simulate_factors(307, 71, 0, seed=seed)
    found = choose_rank(in_blocks(counts, dtype=torch.float32), design, seed=seed)
    assert found.n_factors == 0
    assert found.singular_value.shape == found.threshold.shape == (1,)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_as_many_factors_are_found_as_there_are(k: int) -> None:
    counts, design, _ = simulate_factors(613, 89, k, seed=k)
    seen = []
    blocks = in_blocks(counts, dtype=torch.float32)
    found = choose_rank(blocks, design, on_factor=lambda n, most: seen.append(n))
    assert found.n_factors == k
    assert (seen[0], seen[-1]) == (0, k)
    assert seen == sorted(seen)
    assert (found.singular_value[:-1] > found.threshold[:-1]).all()
    assert found.singular_value[-1] < found.threshold[-1]
    assert found.factors.scores.shape == (613, k)


def test_the_number_of_factors_by_some_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scovert.model.confounder.glm._rank.MAX_CELLS", 400)
    counts, design, _ = simulate_factors(613, 89, 2, seed=2)
    blocks = in_blocks(counts, dtype=torch.float32)
    found = choose_rank(blocks, design)
    assert found.n_factors == 2
    assert found.factors.scores.shape == (613, 2)
    warm = fit_factors(blocks, design, 2, start=found.factors)
    cold = fit_factors(blocks, design, 2)
    assert correlation(warm.scores, cold.scores) > 0.999


@pytest.mark.parametrize("p", [1, 2, 4])
def test_few_genes_hold_no_factors(p: int) -> None:
    counts, design, _ = simulate_factors(101, p, 0, seed=0)
    assert choose_rank(in_blocks(counts), design).n_factors == 0


# States


def simulate_states(
    n: int, p: int, n_bits: int, seed: int, loading: float
) -> tuple[NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 2, (n, n_bits))
    design = np.c_[np.ones(n), rng.random(n) < 1 / (1 + np.exp(0.5 - z.sum(1)))]
    b = np.vstack([rng.uniform(0, 1, p), rng.normal(0, 0.3, p)])
    mean = np.exp(design @ b + z @ rng.normal(0, loading, (n_bits, p)))
    return draw_counts(rng, mean, rng.uniform(0.2, 0.5, p)), design, z


def log_joint(
    counts: NDArray, design: NDArray, b: NDArray, alpha: NDArray, probability: NDArray
) -> NDArray:
    """Log probability of counts and every combination of bits, written out."""
    n_bits, r = len(probability), 1 / alpha
    columns = []
    for bits in itertools.product((0, 1), repeat=n_bits):
        bits = np.array(bits[::-1])  # the first bit runs fastest
        mean = np.exp(design @ b[:-n_bits] + bits @ b[-n_bits:])
        prior = np.log(np.where(bits, probability, 1 - probability)).sum()
        columns.append(prior + stats.nbinom.logpmf(counts, r, r / (r + mean)).sum(1))
    return np.stack(columns, 1)


@pytest.mark.parametrize("n_bits", [1, 2, 3])
def test_posteriors_are_those_of_an_enumeration(n_bits: int) -> None:
    counts, design, z = simulate_states(403, 53, n_bits, seed=n_bits, loading=0.6)
    found = fit_states(in_blocks(counts), design, n_bits, tolerance=1e-9, max_rounds=300)
    regression = found.regression
    tables = (regression.coefficients, regression.dispersion)
    probability = found.probabilities.mean(0)
    joint = log_joint(counts, design, *tables, probability)
    evidence = logsumexp(joint, axis=1)
    posterior = np.exp(joint - evidence[:, None])
    np.testing.assert_allclose(found.combinations, posterior, atol=1e-3)
    np.testing.assert_allclose(found.combinations.sum(1), 1)
    bits = np.arange(2**n_bits)[:, None] >> np.arange(n_bits) & 1
    np.testing.assert_allclose(found.probabilities, found.combinations @ bits)
    np.testing.assert_allclose(found.deviance[-1], -2 * evidence.mean(), rtol=1e-6)
    assert found.deviance[-1] < found.deviance[0]
    frequency = found.combinations.mean(0)
    again = state_probabilities(in_blocks(counts), design, regression, frequency)
    np.testing.assert_allclose(again, posterior, atol=1e-6)
    match = np.abs(np.corrcoef(found.probabilities.T, z.T)[:n_bits, n_bits:])
    assert (match.max(0) > 0.93).all()


@pytest.mark.parametrize(
    "probability", [(0.5, 0.5), (0.2, 0.2), (0.1, 0.4), (0.3,) * 3, (0.5,) * 4]
)
def test_axes_are_turned_to_binary_confounders(probability: tuple) -> None:
    """From every rotation, also that by 45 degrees, at which a fixed-point iteration stays."""
    n, k = 1000, len(probability)
    for seed in range(8):
        rng = np.random.default_rng(seed)
        z = rng.binomial(1, probability, (n, k))
        noise = rng.gamma(2.0, 0.2, (n, k))  # skewed, as that of counts
        white = np.linalg.qr(stats.zscore(stats.zscore(z) + stats.zscore(noise) * 0.3))[0]
        turn = stats.ortho_group.rvs(k, random_state=rng) if seed else np.eye(k)
        if k == 2 and seed == 1:
            turn = np.array([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5
        found = independent_components(white @ turn * n**0.5)
        agreement = np.abs(np.corrcoef(found.T, z.T)[:k, k:])
        assert (agreement.max(0) > 0.93).all(), seed
        assert sorted(agreement.argmax(0)) == list(range(k))
        assert (found.max(0) >= -found.min(0)).all()


def test_one_axis_is_only_given_a_sign() -> None:
    one = np.array([[-3.0], [1.0], [2.0]])
    np.testing.assert_array_equal(independent_components(one), -one)
    assert independent_components(one[:, :0]).shape == (3, 0)


def test_factors_do_not_depend_on_signs_of_singular_vectors(
    cells: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, design = in_blocks(cells[0]), cells[1]
    expected = fit_factors(blocks, design, 2).scores
    svd = torch.linalg.svd

    def turned(*args: object, **kwargs: object) -> tuple:
        left, size, right = svd(*args, **kwargs)
        return -left, size, -right

    monkeypatch.setattr(torch.linalg, "svd", turned)
    np.testing.assert_allclose(fit_factors(blocks, design, 2).scores, expected, atol=1e-6)


def test_genes_with_equal_totals_are_taken_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a sort does with ties, which is another thing on another processor."""
    rng = np.random.default_rng(0)
    column = rng.poisson(3.0, (300, 1))
    counts = np.hstack([rng.permuted(column, axis=0) for _ in range(40)]).astype(np.float32)
    blocks, looked_at = CountBlocks(sparse.csr_matrix(counts), np.zeros(300)), []
    genes = CountBlocks.genes
    monkeypatch.setattr(rank_file, "MAX_GENES", 17)
    monkeypatch.setattr(
        CountBlocks, "genes", lambda self, at: looked_at.append(at) or genes(self, at)
    )
    choose_rank(blocks, np.ones((300, 1)))
    np.testing.assert_array_equal(looked_at[0], np.arange(17))


def test_covariances_of_states_know_what_is_missing() -> None:
    """The information of a gene's coefficients is the curvature of its marginal likelihood."""
    counts, design, z = simulate_states(4_001, 7, 1, seed=4, loading=0.6)
    blocks = in_blocks(counts)
    found = fit_states(blocks, design, 1, tolerance=1e-10, max_rounds=500)
    b, alpha = found.regression.coefficients, found.regression.dispersion
    probability = found.probabilities.mean(0)

    def likelihood(change: NDArray, gene: int) -> float:
        changed = b.copy()
        changed[:, gene] += change
        return logsumexp(log_joint(counts, design, changed, alpha, probability), axis=1).sum()

    gene, h = 4, 1e-3
    steps = np.eye(3) * h
    curvature = np.array(
        [
            [
                likelihood(s + t, gene)
                - likelihood(s - t, gene)
                - likelihood(t - s, gene)
                + likelihood(-s - t, gene)
                for s in steps
            ]
            for t in steps
        ]
    ) / (4 * h**2)
    expected = np.linalg.inv(-curvature)
    complete = fit_regression(blocks, np.c_[design, z]).covariance[gene]
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    np.testing.assert_allclose(
        found.regression.covariance[gene] / scale, expected / scale, atol=0.02
    )
    assert found.regression.covariance[gene][2, 2] > 1.2 * complete[2, 2]
    sandwich = found.regression.sandwich[gene]
    np.testing.assert_allclose(sandwich.diagonal(), expected.diagonal(), rtol=0.1)


# Clusters


def dense_cr2(
    counts: NDArray, design: NDArray, fit: Regression, clusters: NDArray, contrast: NDArray
) -> NDArray:
    """CR2 variance with hat matrices of cells x cells."""
    variance = []
    for j in range(counts.shape[1]):
        mean = np.exp(design @ fit.coefficients[:, j])
        weight = mean / (1 + fit.dispersion[j] * mean)
        x = design * np.sqrt(weight)[:, None]
        bread = np.linalg.inv(x.T @ x)
        hat = x @ bread @ x.T
        errors = (counts[:, j] - mean) / mean * np.sqrt(weight)
        total = 0.0
        for g in np.unique(clusters):
            own = clusters == g
            values, vectors = np.linalg.eigh(np.eye(own.sum()) - hat[np.ix_(own, own)])
            root = (vectors / np.sqrt(values)) @ vectors.T
            contribution = contrast @ bread @ x[own].T @ root
            total += (contribution @ errors[own]) ** 2
        variance.append(total)
    return np.array(variance)


@pytest.mark.parametrize("kind", ["between", "within", "single cells"])
def test_variances_by_cluster_are_those_of_dense_matrices(kind: str) -> None:
    counts, design, _ = simulate_factors(67, 5, 1, seed=3)
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 8, 67)
    if kind == "between":
        design[:, 1] = clusters % 2
    if kind == "single cells":
        clusters = rng.permutation(67)
    design = np.c_[design, rng.normal(size=67)]
    contrast = np.array([0.0, 1.0, -0.3])
    blocks = in_blocks(counts, size=16)
    fit = fit_regression(blocks, design, penalty=1e-9, **TIGHT)
    found = cluster_variance(blocks, design, fit, contrast, clusters)
    variance = dense_cr2(counts, design, fit, clusters, contrast)
    np.testing.assert_allclose(found.robust, variance, rtol=1e-6)
    expected = np.einsum("a,jab,b->j", contrast, fit.covariance, contrast)
    np.testing.assert_allclose(found.model, expected, rtol=1e-6)


def test_cells_as_clusters_are_hc2() -> None:
    counts, design, _ = simulate_factors(67, 5, 1, seed=3)
    blocks = in_blocks(counts)
    fit = fit_regression(blocks, design, penalty=1e-9, **TIGHT)
    mean = np.exp(design @ fit.coefficients)
    weight = mean / (1 + fit.dispersion * mean)
    errors = (counts - mean) / (1 + fit.dispersion * mean)
    expected = []
    for j in range(5):
        leverage = np.einsum("ia,ab,ib->i", design, fit.covariance[j], design) * weight[:, j]
        contributions = design @ fit.covariance[j] @ [0, 1] * errors[:, j]
        expected.append((contributions**2 / (1 - leverage)).sum())
    found = cluster_variance(blocks, design, fit, np.array([0.0, 1.0]), np.arange(67))
    np.testing.assert_allclose(found.robust, expected, rtol=1e-6)


def test_a_cluster_that_decides_alone_stays_finite() -> None:
    counts, design, _ = simulate_factors(67, 5, 1, seed=3)
    clusters = np.where(design[:, 1] == 1, 0, 1 + np.arange(67) % 3)  # one donor is an arm
    blocks = in_blocks(counts)
    found = cluster_variance(blocks, design, fit_regression(blocks, design), [0, 1], clusters)
    for values in found:
        assert np.isfinite(values).all()


def test_clusters_keep_their_errors_where_single_cells_do_not() -> None:
    """Donors differ: errors by cell are too small, those by cluster hold."""
    rng = np.random.default_rng(1)
    z, models = [], []
    for _ in range(12):
        donor = np.repeat(np.arange(10), 25)
        design = np.c_[np.ones(250), np.isin(donor, rng.permutation(10)[:5])]
        mean = np.exp(0.5 + rng.normal(0, 0.4, (10, 20))[donor])
        blocks = in_blocks(draw_counts(rng, mean, np.full(20, 0.3)), dtype=torch.float32)
        fit = fit_regression(blocks, design)
        variance = cluster_variance(blocks, design, fit, np.array([0.0, 1.0]), donor)
        z.append(fit.coefficients[1] / np.sqrt(variance.robust))
        models.append(fit.coefficients[1] / np.sqrt(variance.model))
    false = np.mean(np.abs(np.concatenate(z)) > stats.t.isf(0.025, 8))
    assert 0.02 < false < 0.08
    assert np.mean(np.abs(np.concatenate(models)) > stats.norm.isf(0.025)) > 0.3
