"""Pieces of a deconvolution against scipy, pandas, closed forms and simulated truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy import optimize, sparse, stats
from scipy.special import gammaln, softmax
from sklearn.metrics import adjusted_rand_score

from scovert.model import BulkBudget
from scovert.model.bulk import _joint_fit as _joint
from scovert.model.bulk._bootstrap import (
    add_sample_errors,
    add_shared_errors,
    bootstrap,
    coverage_multiplier,
    simulate_cohort,
    widen,
)
from scovert.model.bulk._cohort import Cohort, JointFit
from scovert.model.bulk._joint_fit import Mixture, fit_cohort, refit_cohort
from scovert.model.bulk._measured import Measured
from scovert.model.bulk._residual import robust_residual
from scovert.model.bulk._rna_per_cell import RNA_PER_CELL, RnaPerCell
from scovert.model.bulk._signature import Profiles, Signature, _between_subjects, sum_states
from scovert.model.bulk._states import find_states

N_SAMPLES, N_TYPES, N_GENES = 9, 5, 127
STATE_TYPE = np.array([0, 0, 1, 2, 3, 3, 4])  # seven states of five types
N_STATES = len(STATE_TYPE)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def draw_profiles(rng: np.random.Generator, n_genes: int = N_GENES) -> NDArray:
    """Draw states in counts per million; those of a type are alike."""
    base = rng.normal(4, 1, n_genes)
    of_type = rng.normal(0, 1.2, (N_TYPES, n_genes))[STATE_TYPE]
    return np.exp(base + of_type + rng.normal(0, 0.3, of_type.shape))


@dataclass
class Drawn:
    """A cohort, and what it was made of."""

    cohort: Cohort
    weights: NDArray
    shift: NDArray
    cpm: NDArray
    profiles: NDArray


def draw_cohort(
    seed: int,
    *,
    shift_sd: float = 0.6,
    residual_sd: float = 0.15,
    dtype: torch.dtype | None = None,
) -> Drawn:
    rng = np.random.default_rng(seed)
    profiles = draw_profiles(rng)
    weights = rng.dirichlet(np.full(N_STATES, 0.7), N_SAMPLES)
    shift = shift_sd * rng.standard_t(4, N_GENES).clip(-4, 4)
    residual = residual_sd * rng.standard_t(4, (N_SAMPLES, N_GENES)).clip(-4, 4)
    cpm = (weights @ profiles * np.exp(shift) + 10) * np.exp(residual) - 10
    cpm = rng.poisson(np.maximum(cpm, 0) * 20) / 20
    variance = np.full(profiles.shape, 1e-3)
    cohort = Cohort.of(cpm, profiles / 1e6, variance, 20.0, dtype or torch.float32)
    return Drawn(cohort, weights, shift, cpm, profiles)


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return draw_cohort(0)


@pytest.fixture(scope="module")
def joint(drawn: Drawn) -> JointFit:
    return fit_cohort(drawn.cohort)


def by_type(weights: NDArray) -> NDArray:
    return weights @ np.eye(N_TYPES)[STATE_TYPE]


# Residuals


def residual_inputs() -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, dtype=torch.float64)

    free = [
        uniform(1, 200, 2, 3, 5),
        uniform(-1, 1, 2, 1, 5),
        uniform(-0.5, 0.5, 2, 3, 1),
        uniform(-2, 0, 2, 1, 1),
    ]
    offset = torch.tensor(10.0, dtype=torch.float64)
    log_y = (uniform(0, 300, 3, 5) + offset).log()
    observed = (log_y, uniform(0.01, 0.3, 3, 5), uniform(0, 3, 2, 1, 5), offset)
    return free, observed


def test_residuals_are_those_of_scipy() -> None:
    free, observed = residual_inputs()
    mixed, shift, scale, log_sd = (x.numpy() for x in free)
    log_y, noise, weights, offset = (x.numpy() for x in observed)
    residual = log_y - np.log(mixed * np.exp(shift + scale) + offset)
    sd = np.sqrt(np.exp(2 * log_sd) + noise)
    constant = gammaln(2.5) - gammaln(2) - np.log(4 * np.pi) / 2 + 2.5 * np.log(4)
    expected = weights * (constant - stats.t.logpdf(residual, 4, scale=sd))
    found = robust_residual(*free, observed)
    assert float(found) == pytest.approx(expected.sum(), rel=1e-12)


def test_the_gradient_of_residuals() -> None:
    free, observed = residual_inputs()
    free = [x.requires_grad_() for x in free]
    assert torch.autograd.gradcheck(lambda *x: robust_residual(*x, observed), free)

    mixed, shift, scale, log_sd = free
    log_y, noise, weights, offset = observed
    residual = log_y - (mixed * (shift + scale).exp() + offset).log()
    variance = (2 * log_sd).exp() + noise
    t = torch.distributions.StudentT(torch.tensor(4.0, dtype=torch.float64), 0, variance.sqrt())
    plain = torch.autograd.grad(-(weights * t.log_prob(residual)).sum() * 3, free)
    own = torch.autograd.grad(robust_residual(*free, observed) * 3, free)
    for a, b in zip(own, plain, strict=True):
        torch.testing.assert_close(a, b)


# The joint objective


def random_mixture(seed: int, *, has_unknown: bool, n_fits: int = 2) -> Mixture:
    torch.manual_seed(seed)
    logits = torch.zeros(3, 4 + has_unknown, dtype=torch.float64)
    mixture = Mixture(logits, 7, n_fits=n_fits, has_unknown=has_unknown)
    for parameter in mixture.parameters():
        parameter.data.normal_(0, 0.4)
    return mixture


@pytest.mark.parametrize("has_unknown", [False, True])
def test_the_prior_is_that_of_scipy(has_unknown: bool) -> None:
    torch.manual_seed(7)
    variance = torch.rand(2, 1, 7, dtype=torch.float64)
    gene_weights = torch.rand(2, 1, 7, dtype=torch.float64)

    def expected(m: Mixture) -> float:
        p = {name: value.detach().numpy() for name, value in m.named_parameters()}
        sd = {k: p[f"log_sd.{k}"] for k in ("shift", "residual", "spread")}
        scale = np.sqrt(np.exp(2 * sd["shift"]) + variance.numpy())
        total = (gene_weights.numpy() * stats.t.logpdf(p["shift"], 4, scale=scale)).sum()
        total += stats.norm.logpdf(p["logits"], p["mean"], np.exp(sd["spread"])).sum()
        total += stats.norm.logpdf(p["mean"], 0, 3).sum()
        total += stats.norm.logpdf(p["scale"], 0, 0.5).sum()
        total += stats.norm.logpdf(sd["shift"], np.log(0.6), 1).sum()
        total += stats.norm.logpdf(sd["residual"], np.log(0.3), 1).sum()
        total += stats.norm.logpdf(sd["spread"], 0, 0.5).sum()
        if has_unknown:
            log_prob = stats.norm.logpdf(p["unknown"], 0, 1.5) - stats.norm.logpdf(0, 0, 1.5)
            total += (gene_weights.numpy() * log_prob).sum()
        return -total

    drawn = [random_mixture(seed, has_unknown=has_unknown) for seed in (0, 1)]
    found = [m.log_prior(variance, gene_weights).item() for m in drawn]
    wanted = [expected(m) for m in drawn]
    assert found[0] - found[1] == pytest.approx(wanted[0] - wanted[1], rel=1e-9)


def test_profiles_are_mixed_on_a_linear_scale() -> None:
    mixture = random_mixture(0, has_unknown=True, n_fits=1)
    profiles = torch.rand(4, 7, dtype=torch.float64) * 100
    found = mixture.mixed(profiles).detach().numpy()
    unknown = (profiles.numpy().mean(0) + 10) * np.exp(mixture.unknown[0].detach().numpy())
    weights = softmax(mixture.logits[0].detach().numpy(), -1)
    expected = weights @ np.concatenate([profiles.numpy(), unknown])
    np.testing.assert_allclose(found[0], expected)


def test_counts_are_negative_binomial() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(30, (3, 7))
    cohort = Cohort.of(counts / 2.0, rng.random((4, 7)), np.zeros((4, 7)), 2.0, torch.float64)
    mixture = random_mixture(0, has_unknown=False)
    weights = torch.rand(2, 1, 7, dtype=torch.float64)
    mixed = mixture.mixed(torch.rand(4, 7, dtype=torch.float64) * 30)
    found = _joint._count_term(cohort, weights)(mixture, mixed).item()
    mean = 2 * (mixed * (mixture.shift + mixture.scale).exp()).detach().numpy() + 0.1
    theta = np.exp(-2 * mixture.log_sd["residual"].detach().numpy())
    log_prob = stats.nbinom.logpmf(counts, theta, theta / (theta + mean))
    assert found == pytest.approx(-(weights.numpy() * log_prob).sum(), rel=1e-5)


def test_the_variance_of_a_mixture(drawn: Drawn) -> None:
    """Against the spread of the log of mixtures of redrawn profiles."""
    rng = np.random.default_rng(0)
    variance = rng.uniform(0, 0.01, drawn.profiles.shape)
    cohort = Cohort.of(drawn.cpm, drawn.profiles / 1e6, variance, 20.0, torch.float64)
    logits = torch.as_tensor(np.log(drawn.weights + 1e-5))
    mixture = Mixture(logits, N_GENES, n_fits=1, has_unknown=False)
    descent = _joint._Descent(mixture, cohort, _joint._robust_term, torch.ones(1, 1, N_GENES))
    found = descent._profile_variance(cohort.profiles).numpy().ravel()
    noise = rng.normal(size=(2000, *variance.shape)) * np.sqrt(variance)
    mixed = (drawn.weights.mean(0)[:, None] * drawn.profiles * np.exp(noise)).sum(1)
    np.testing.assert_allclose(found, np.log(mixed + 10).var(0), rtol=0.2)


# The joint fit


def test_precision_does_not_matter(joint: JointFit) -> None:
    double = fit_cohort(draw_cohort(0, dtype=torch.float64).cohort)
    assert np.abs(joint.weights - double.weights).max() < 1e-3
    assert joint.residual_sd == pytest.approx(double.residual_sd, rel=1e-3)


@pytest.mark.slow
def test_the_fit_has_converged(drawn: Drawn, joint: JointFit) -> None:
    long = fit_cohort(drawn.cohort, n_steps=2000)
    start, end, best = joint.objective[0], joint.objective[-1], long.objective[-1]
    assert end - best < 0.01 * (start - best)
    assert np.abs(joint.weights - long.weights).max() < 0.02


def test_a_fit_is_found_again_and_free_of_the_order(drawn: Drawn, joint: JointFit) -> None:
    again = fit_cohort(drawn.cohort)
    np.testing.assert_array_equal(again.weights, joint.weights)
    rng = np.random.default_rng(0)
    samples, genes = rng.permutation(N_SAMPLES), rng.permutation(N_GENES)
    states = rng.permutation(N_STATES)
    other = replace(
        drawn.cohort,
        cpm=drawn.cohort.cpm[samples][:, genes],
        profiles=drawn.cohort.profiles[states][:, genes],
        variance=drawn.cohort.variance[states][:, genes],
    )
    permuted = fit_cohort(other)
    np.testing.assert_allclose(permuted.weights, joint.weights[samples][:, states], atol=1e-3)
    np.testing.assert_allclose(permuted.shift, joint.shift[genes], atol=5e-3)


def test_the_objective_falls(joint: JointFit) -> None:
    objective = np.array(joint.objective)
    assert objective.shape == (250,)
    fall = objective[0] - objective[-1]
    assert fall > 100
    assert objective[-26] - objective[-1] < 0.01 * fall  # hardly anything in the last tenth


def test_fitted_numbers_are_those_of_the_simulation(drawn: Drawn, joint: JointFit) -> None:
    assert joint.weights.shape == (N_SAMPLES, N_STATES)
    np.testing.assert_allclose(joint.weights.sum(1), 1, atol=1e-5)
    assert np.corrcoef(joint.shift, drawn.shift)[0, 1] > 0.9
    assert joint.shift_sd == pytest.approx(0.6, rel=0.35)
    assert joint.residual_sd == pytest.approx(0.15, rel=0.35)
    assert np.abs(by_type(joint.weights) - by_type(drawn.weights)).mean() < 0.03
    mean = joint.weights @ drawn.profiles * np.exp(joint.shift + joint.scale[:, None])
    residuals = np.log(drawn.cpm + 10) - np.log(mean + 10)
    np.testing.assert_allclose(joint.residuals, residuals, atol=1e-3)


@pytest.mark.parametrize("likelihood", ["robust", "nb"])
def test_exact_mixtures_give_exact_shares(drawn: Drawn, likelihood: str) -> None:
    exact = drawn.weights @ drawn.profiles
    cohort = Cohort.of(exact, drawn.profiles / 1e6, np.zeros(drawn.profiles.shape), 20.0)
    joint = fit_cohort(cohort, likelihood=likelihood)
    assert np.abs(joint.weights - drawn.weights).max() < 0.02
    assert joint.residual_sd < 0.05
    assert joint.objective[-1] < joint.objective[0]


def nnls(cpm: NDArray, profiles: NDArray) -> NDArray:
    weights = np.array([optimize.nnls(profiles.T, sample)[0] for sample in cpm])
    return weights / weights.sum(1, keepdims=True)


def test_gene_shifts_hardly_matter_where_least_squares_breaks(drawn: Drawn) -> None:
    """The factors of the genes are the same in all samples, as between two protocols."""
    exact = drawn.weights @ drawn.profiles
    factors = np.exp(np.random.default_rng(5).normal(0, 0.7, N_GENES))
    found, naive = [], []
    for cpm in (exact, exact * factors):
        cohort = replace(drawn.cohort, cpm=drawn.cohort.cpm.new_tensor(cpm))
        found.append(by_type(fit_cohort(cohort).weights))
        naive.append(by_type(nnls(cpm, drawn.profiles)))
    change, naive_change = (np.abs(a - b).mean() for a, b in (found, naive))
    assert naive_change > 0.04
    assert change < 0.5 * naive_change
    error = np.abs(found[1] - by_type(drawn.weights)).mean()
    assert error < 0.5 * np.abs(naive[1] - by_type(drawn.weights)).mean()


def test_the_scale_of_a_sample_does_not_matter(drawn: Drawn, joint: JointFit) -> None:
    cpm = drawn.cohort.cpm.clone()
    cpm[3] = cpm[3] * 1.5
    scaled = fit_cohort(replace(drawn.cohort, cpm=cpm))
    assert np.abs(scaled.weights - joint.weights).max() < 0.015
    assert scaled.scale[3] - joint.scale[3] == pytest.approx(np.log(1.5), abs=0.1)


def test_an_unknown_component_takes_what_no_state_has(drawn: Drawn) -> None:
    rng = np.random.default_rng(9)
    foreign = np.exp(rng.normal(4, 1.6, N_GENES))
    share = rng.uniform(0.1, 0.5, (N_SAMPLES, 1))
    cpm = (1 - share) * (drawn.weights @ drawn.profiles) + share * foreign
    cohort = Cohort.of(cpm, drawn.profiles / 1e6, np.full(drawn.profiles.shape, 1e-3), 20.0)
    with_it = fit_cohort(cohort, has_unknown=True)
    assert with_it.weights.shape == (N_SAMPLES, N_STATES + 1)
    assert with_it.unknown.shape == (N_GENES,)
    assert np.corrcoef(with_it.weights[:, -1], share[:, 0])[0, 1] > 0.9
    assert fit_cohort(cohort).unknown is None


# Refits


def test_a_refit_stays_where_the_fit_was(drawn: Drawn, joint: JointFit) -> None:
    profiles = drawn.cohort.profiles.expand(2, -1, -1)
    weights = refit_cohort(drawn.cohort, joint, profiles, torch.ones(2, 1, N_GENES))
    assert weights.shape == (2, N_SAMPLES, N_STATES)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-5)
    assert np.abs(weights[0] - joint.weights).max() < 0.01


def test_a_gene_without_weight_says_nothing(drawn: Drawn, joint: JointFit) -> None:
    gene_weights = torch.ones(1, 1, N_GENES)
    gene_weights[..., :40] = 0
    cpm = drawn.cohort.cpm.clone()
    cpm[:, :40] = cpm[:, :40].flip(0) * 50
    found = [
        refit_cohort(c, joint, drawn.cohort.profiles[None], gene_weights)
        for c in (drawn.cohort, replace(drawn.cohort, cpm=cpm))
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


# Signatures


def cells(seed: int = 0, n_cells: int = 211, n_genes: int = 37) -> tuple:
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(rng.poisson(0.8, (n_cells, n_genes)).astype(np.float32))
    labels = pd.Categorical(rng.choice(["b", "c/d", "a"], n_cells))
    states = rng.integers(0, 2, n_cells)
    states[labels == "a"] = 0
    genes = pd.Index([f"g{i}" for i in range(n_genes)])
    return counts, genes, labels, states


def test_genes_of_one_name_become_one() -> None:
    counts, genes, labels, states = cells()
    signature = Signature.of(counts, genes, labels, states, np.arange(len(states)) % 7)
    renamed = signature.renamed({"g0": "x", "g5": "x", "g9": "y"})
    kept = genes.drop(["g0", "g5", "g9"])
    assert set(renamed.genes) == {"x", "y", *kept}
    for name in ("counts", "between", "detected"):
        own, new = getattr(signature, name), getattr(renamed, name)
        at, was = renamed.genes.get_indexer([*kept, "y"]), genes.get_indexer([*kept, "g9"])
        np.testing.assert_array_equal(new[:, at], own[:, was])
        expected = own[:, [0, 5]].sum(1) if name == "counts" else own[:, [0, 5]].max(1)
        np.testing.assert_array_equal(new[:, renamed.genes.get_loc("x")], expected)
    assert signature.renamed({}) is signature


def test_a_signature_sums_counts_as_pandas_does() -> None:
    counts, genes, labels, states = cells()
    signature = Signature.of(counts, genes, labels, states, None)
    frame = pd.DataFrame(counts.toarray(), columns=genes)
    expected = frame.groupby([np.asarray(labels), states]).sum()
    np.testing.assert_allclose(signature.counts, expected)
    assert signature.types == ("a", "b", "c/d")
    assert signature.state_type.tolist() == [0, 1, 1, 2, 2]
    detected = (frame > 0).groupby(np.asarray(labels)).mean()
    np.testing.assert_allclose(signature.detected, detected)
    assert signature.n_cells.tolist() == frame.groupby(np.asarray(labels)).size().tolist()
    assert (signature.between == 0).all()


@pytest.mark.parametrize("phi", [0.0, 0.05, 0.3])
def test_the_variance_between_subjects(phi: float) -> None:
    """Counts of a subject are negative binomial with a known squared variation."""
    rng = np.random.default_rng(1)
    n_subjects, n_genes, n_cells = 60, 50, 10
    share = rng.dirichlet(np.full(n_genes, 3.0))
    mean = share * 400 * n_cells
    factor = np.ones((n_subjects, n_genes))
    if phi:
        factor = rng.gamma(1 / phi, phi, factor.shape)
    of_cell = rng.poisson(np.repeat(mean * factor, n_cells, 0) / n_cells)
    subjects = np.repeat(np.arange(n_subjects), n_cells)
    codes = np.zeros(len(subjects), int)
    counts = sparse.csr_matrix(of_cell)
    found = _between_subjects(counts, codes, subjects, of_cell.sum(0, keepdims=True))
    assert found.shape == (1, n_genes)
    assert np.median(found) == pytest.approx(phi, rel=0.25, abs=0.005)


def test_few_subjects_have_no_variance() -> None:
    counts, genes, labels, states = cells()
    rng = np.random.default_rng(0)
    for n_subjects, is_known in ((2, False), (9, True)):
        subjects = rng.integers(0, n_subjects, len(labels)).astype(str)
        found = Signature.of(counts, genes, labels, states, subjects).between
        assert (found > 0).any() == is_known
    lonely = np.where(np.arange(len(labels)) < 4, np.arange(len(labels)), 9)  # of one cell each
    assert (Signature.of(counts, genes, labels, states, lonely).between == 0).all()


def planted(n_cells: int = 80) -> tuple[Signature, list[str]]:
    """Three types with twenty markers each, among genes that say nothing."""
    rng = np.random.default_rng(3)
    n_genes = 300
    mean = np.tile(rng.gamma(2.0, 0.5, n_genes), (3, 1))
    for kind in range(3):
        mean[kind, 20 * kind : 20 * kind + 20] *= 8
    labels = np.repeat([0, 1, 2], n_cells)
    counts = sparse.csr_matrix(rng.poisson(mean[labels]).astype(np.float32))
    genes = pd.Index([f"g{i}" for i in range(n_genes)])
    types = pd.Categorical.from_codes(labels, ["x", "y", "z"])
    states = np.tile([0, 1], 3 * n_cells // 2)
    return Signature.of(counts, genes, types, states, None), genes[:60].tolist()


def test_genes_that_tell_types_apart_are_found() -> None:
    signature, markers = planted()
    profiles = signature.restricted(signature.genes, 20)
    chosen = profiles.genes[profiles.informative]
    assert set(chosen) <= set(markers)
    assert len(chosen) > 55
    few = signature.restricted(signature.genes, 5)
    assert len(few.informative) == 15
    assert set(few.genes[few.informative]) <= set(markers)


def test_differences_by_sampling_tell_no_types_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    signature, markers = planted(n_cells=20)

    def chosen() -> set[str]:
        profiles = signature.restricted(signature.genes, 300)
        return set(profiles.genes[profiles.informative])

    found = chosen()
    n_others = len(signature.genes) - len(markers)
    assert len(found & set(markers)) > 50
    assert len(found - set(markers)) < 0.1 * n_others  # .023 by each of three types
    monkeypatch.setattr("scovert.model.bulk._signature.N_ERRORS", 0.0)
    naive = chosen()
    assert len(naive - set(markers)) > 0.15 * n_others


def test_genes_that_few_cells_have_say_nothing() -> None:
    signature, _ = planted()
    detected = signature.detected.copy()
    detected[:, :10] = 0.1
    profiles = replace(signature, detected=detected).restricted(signature.genes, 20)
    assert not set(profiles.genes[profiles.informative]) & {f"g{i}" for i in range(10)}


def test_profiles_of_some_genes() -> None:
    signature, _ = planted()
    genes = signature.genes[::2]
    profiles = signature.restricted(genes, 20)
    np.testing.assert_allclose(profiles.shares.sum(1), 1)
    np.testing.assert_allclose(profiles.type_shares.sum(1), 1)
    counts = signature.counts[:, ::2]
    of_type = np.array([counts[signature.state_type == k].sum(0) for k in range(3)])
    for found, summed in ((profiles.shares, counts), (profiles.type_shares, of_type)):
        raw = summed / summed.sum(1, keepdims=True)
        drawn = summed + 200 * raw.mean(0)
        np.testing.assert_allclose(found, drawn / drawn.sum(1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(profiles.variance, 1 / (counts + 1))
    np.testing.assert_allclose(profiles.rna_per_cell, of_type.sum(1) / 80)
    everything = np.array([signature.counts[signature.state_type == k].sum() for k in range(3)])
    np.testing.assert_allclose(profiles.covered, of_type.sum(1) / everything)
    by_pairs = profiles.shares[:, :1].reshape(3, 2).sum(1)
    summed = sum_states(profiles.shares[:, 0], profiles.state_type)
    np.testing.assert_allclose(summed, by_pairs)


def test_the_order_of_genes_does_not_matter() -> None:
    signature, _ = planted()
    order = np.random.default_rng(0).permutation(len(signature.genes))
    a = signature.restricted(signature.genes, 20)
    b = signature.restricted(pd.Index(["other", *signature.genes[order]]), 20)
    assert set(a.genes[a.informative]) == set(b.genes[b.informative])
    np.testing.assert_allclose(b.shares[:, b.genes.get_indexer(a.genes)], a.shares)
    np.testing.assert_allclose(b.rna_per_cell, a.rna_per_cell)


def test_genes_with_hardly_a_count_are_left_out() -> None:
    signature, _ = planted()
    counts = signature.counts.copy()
    counts[:, 4] = 0
    counts[0, 4] = 10
    counts[:, 7] = 0
    counts[2, 7] = 11
    genes = replace(signature, counts=counts).restricted(signature.genes, 20).genes
    assert "g4" not in genes
    assert "g7" in genes


def test_the_variance_of_a_profile_is_bounded() -> None:
    signature, _ = planted()
    profiles = replace(signature, between=signature.between + 7.0).restricted(signature.genes, 20)
    counts = signature.counts[:, signature.genes.get_indexer(profiles.genes)]
    np.testing.assert_allclose(profiles.variance, 1 + 1 / (counts + 1))


# States


def test_states_of_a_type_are_found() -> None:
    rng = np.random.default_rng(0)
    n_genes = 90
    base = rng.gamma(1.0, 1.0, n_genes)
    up = base * np.exp(rng.normal(0, 1.2, n_genes))
    truth = rng.permutation(np.repeat([0, 1], [60, 50]))
    counts = rng.poisson(np.where(truth[:, None], up, base))
    other = rng.poisson(base[::-1], (49, n_genes))
    labels = pd.Categorical(["two"] * 110 + ["few"] * 49)
    both = sparse.csr_matrix(np.vstack([counts, other]).astype(np.float32))
    states = find_states(both, labels, 2, 0)
    assert states.shape == (159,)
    assert adjusted_rand_score(truth, states[:110]) == 1
    assert (states[110:] == 0).all()  # fewer than 50 cells
    np.testing.assert_array_equal(find_states(both, labels, 2, 0), states)
    assert (find_states(both, labels, 1, 0) == 0).all()
    assert find_states(both, labels, 9, 0)[:110].max() == 3  # one for every 25 cells


def test_cells_without_counts_and_flat_genes_have_a_state() -> None:
    counts = np.ones((80, 9), np.float32)
    counts[:3] = 0
    labels = pd.Categorical(["a"] * 80)
    assert (find_states(sparse.csr_matrix(counts), labels, 3, 0) == 0).all()


def test_equal_cells_are_in_one_state() -> None:
    """Also when there are fewer kinds of cells than states."""
    rng = np.random.default_rng(0)
    for n_kinds in (2, 5, 40):
        kinds = rng.poisson(rng.gamma(0.5, 4.0, (n_kinds, 60)))
        of_cell = np.append(np.arange(n_kinds), rng.integers(0, n_kinds, 131))
        counts = sparse.csr_matrix(kinds[of_cell].astype(np.float32))
        labels = pd.Categorical(["a"] * len(of_cell))
        states = find_states(counts, labels, 3, 0)
        assert len(set(states)) == min(n_kinds, 3)
        assert all(len(set(states[of_cell == kind])) == 1 for kind in range(n_kinds))


def test_weights_of_equal_cells_are_their_number() -> None:
    rng = np.random.default_rng(1)
    base = rng.gamma(1.0, 3.0, 90)
    up = base * np.exp(rng.normal(0, 1.2, 90))
    truth = np.repeat([0, 1], [30, 20])
    kinds = rng.poisson(np.where(truth[:, None], up, base))
    counts = sparse.csr_matrix(np.repeat(kinds, 3, axis=0).astype(np.float32))
    states = find_states(counts, pd.Categorical(["a"] * 150), 2, 0)
    np.testing.assert_array_equal(states, np.repeat(truth, 3))


@pytest.mark.parametrize("seed", range(4))
def test_states_are_numbered_by_their_first_cell(seed: int) -> None:
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.5, 4.0, (3, 60))
    counts = rng.poisson(profiles[rng.permutation(np.repeat([0, 1, 2], 40))])
    states = find_states(sparse.csr_matrix(counts), pd.Categorical(["a"] * 120), 3, seed)
    assert pd.unique(states).tolist() == [0, 1, 2]


# RNA content


def profiles_of(types: list[str], rna: list[float], covered: list[float]) -> Profiles:
    n = len(types)
    empty = np.ones((n, 3)) / 3
    return Profiles(
        genes=pd.Index(["x", "y", "z"]),
        types=tuple(types),
        state_type=np.arange(n),
        shares=empty,
        type_shares=empty,
        variance=empty,
        informative=np.arange(3),
        rna_per_cell=np.array(rna),
        covered=np.array(covered),
    )


def rna_per_cell(profiles: Profiles, cell_size: str | dict[str, float]) -> RnaPerCell:
    return RnaPerCell.choose(profiles, np.ones(len(profiles.types)), cell_size)


@pytest.mark.filterwarnings("ignore:.*has no number")
def test_a_type_without_a_number_is_counted_in_the_unit_of_the_others() -> None:
    """Two types with 1 and 4 where the reference counts 100 and 900, and one without."""
    profiles = profiles_of(["p", "q", "r"], [50.0, 450.0, 120.0], [0.5, 0.5, 0.25])
    found = rna_per_cell(profiles, {"p": 1.0, "q": 4.0})
    unit = np.sqrt((1 / 100) * (4 / 900))
    np.testing.assert_allclose(found.values, [1 * 0.5, 4 * 0.5, 480 * unit * 0.25])
    assert found.origins == {"p": "mapping", "q": "mapping", "r": "reference"}


@pytest.mark.filterwarnings("ignore:.*has no number")
def test_the_unit_of_a_mapping_does_not_matter() -> None:
    profiles = profiles_of(["p", "q", "r"], [50.0, 450.0, 120.0], [0.5, 0.6, 0.25])
    rna = np.array([[0.2, 0.5, 0.3]])
    mappings = [{"p": f * 1.0, "q": f * 4.0} for f in (1, 1000)]
    cells = [rna_per_cell(profiles, mapping).to_cells(rna) for mapping in mappings]
    np.testing.assert_allclose(cells[0], cells[1])


@pytest.mark.filterwarnings("ignore:.*has no number")
def test_a_mapping_without_the_types_of_a_study_means_its_counts() -> None:
    profiles = profiles_of(["p", "q"], [50.0, 450.0], [0.5, 0.6])
    np.testing.assert_allclose(rna_per_cell(profiles, {"elsewhere": 3.0}).values, [50, 450])


def test_rna_becomes_cells() -> None:
    profiles = profiles_of(["p", "q", "r"], [1.0, 4.0, 2.0], [0.5, 0.6, 0.25])
    content = rna_per_cell(profiles, "reference")
    found = content.to_cells(np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6]]))
    np.testing.assert_allclose(found, [[0.8, 0.2, 0], [0.2 / 0.55, 0.05 / 0.55, 0.3 / 0.55]])
    same = rna_per_cell(profiles, "none")
    np.testing.assert_allclose(same.to_cells(np.ones((7, 2, 3))), 1 / 3)
    unknown = content.with_unknown().to_cells(np.ones(4))  # as large as the mean type
    np.testing.assert_allclose(unknown, np.array([4, 1, 2, 2]) / 9)


def test_the_table_is_that_of_its_sources() -> None:
    """Within the range of EPIC, quanTIseq and ABIS, by the types that each has."""
    cd4 = {"EPIC": 0.395, "quanTIseq": 63.9, "ABIS": 14262}
    sources = {
        "CD8 T": {"EPIC": 0.395, "quanTIseq": 70.3, "ABIS": 10661},
        "B": {"EPIC": 0.40, "quanTIseq": 65.7, "ABIS": 20838},
        "NK": {"EPIC": 0.44, "quanTIseq": 117.7, "ABIS": 21457},
        "monocyte": {"EPIC": 1.42, "quanTIseq": 130.7, "ABIS": 22824},
        "neutrophil": {"EPIC": 0.13, "quanTIseq": 27.7, "ABIS": 9547},
        "DC": {"quanTIseq": 140.8, "ABIS": 57322},
    }
    for kind, numbers in sources.items():
        ratios = [number / cd4[source] for source, number in numbers.items()]
        assert min(ratios) <= RNA_PER_CELL[kind] <= max(ratios), kind
    assert RNA_PER_CELL["CD4 T"] == 1


def test_types_that_are_wrong_together() -> None:
    types = ["CD8 T", "Tregs", "CD4 T", "memoryt", "NK", "ILC", "hepatocyte", "B"]
    profiles = profiles_of(types, [1.0] * 8, [1.0] * 8)
    groups = rna_per_cell(profiles, "reference").error_groups
    same = groups[:, None] == groups
    expected = np.eye(8, dtype=bool)
    expected[1:4, 1:4] = True
    expected[4:6, 4:6] = True
    np.testing.assert_array_equal(same, expected)
    each = rna_per_cell(profiles, dict.fromkeys(types, 1.0)).error_groups
    assert len(set(each)) == 8  # numbers of the user's own are wrong on their own


# Measured fractions


def test_one_measured_sample_by_hand() -> None:
    estimates = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    truth = np.array([[0.3, 0.4, 0.3]])
    measured = Measured(np.array([0]), truth, np.eye(3, dtype=bool))
    ratio = np.log([0.503 / 0.303, 0.303 / 0.403, 0.203 / 0.303])
    bias = (ratio - np.median(ratio)) * 0.35**2 / (0.35**2 + 0.25**2)
    expected = estimates / np.exp(bias)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(measured.correct(estimates), expected, rtol=1e-12)


def test_two_measured_samples_and_a_type_that_was_not_measured() -> None:
    estimates = np.array([[0.4, 0.2, 0.2, 0.2], [0.3, 0.3, 0.3, 0.1], [0.1, 0.2, 0.3, 0.4]])
    truth = np.array([[0.3, 0.5], [0.2, 0.7]])  # of the first, and of the next two together
    member = np.array([[True, False, False, False], [False, True, True, False]])
    measured = Measured(np.array([2, 0]), truth, member)
    ratio = np.log([[0.103, 0.503], [0.403, 0.403]]) - np.log([[0.303, 0.503], [0.203, 0.703]])
    ratio -= np.median(ratio, 1, keepdims=True)
    variance = (8 * 0.25**2 + ((ratio - ratio.mean(0)) ** 2).sum(0)) / (8 + 2 - 1)
    bias = ratio.mean(0) * 0.35**2 / (0.35**2 + variance / 2)
    expected = estimates[:, :3] / np.exp(bias[[0, 1, 1]])
    expected *= estimates[:, :3].sum(1, keepdims=True) / expected.sum(1, keepdims=True)
    found = measured.correct(estimates)
    np.testing.assert_allclose(found[:, :3], expected, rtol=1e-12)
    np.testing.assert_array_equal(found[:, 3], estimates[:, 3])
    np.testing.assert_allclose(found[:, 1] / found[:, 2], estimates[:, 1] / estimates[:, 2])
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_group_that_one_sample_lacks_by_hand() -> None:
    """The level of that sample is told from the groups that it has, given what the others say."""
    truth = np.array([[0.3, 0.4, 0.2, 0.1], [0.2, 0.2, 0.5, 0.1]])
    log_bias = np.log([1.7, 1.0, 1.0, 0.6])
    estimates = truth * np.exp(log_bias)
    estimates /= estimates.sum(1, keepdims=True)
    gap = truth.copy()
    gap[1, 1:3] = np.nan  # its median would be half way between the other two
    found = Measured.of(np.arange(2), gap, np.eye(4, dtype=bool)).correct(estimates)
    n = np.array([2, 1, 1, 2])  # samples with the group
    bias = log_bias * 0.35**2 / (0.35**2 + 0.25**2 * 8 / (8 + n - 1) / n)
    expected = estimates / np.exp(bias)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=0.01)
    full = Measured.of(np.arange(2), truth, np.eye(4, dtype=bool)).correct(estimates)
    assert np.abs(full - truth).mean() < np.abs(found - truth).mean()


def test_what_says_nothing_is_left_out() -> None:
    fractions = np.array([[0.2, np.nan, 0.3, 0.1], [np.nan, np.nan, 0.4, np.nan]])
    member = np.eye(4, dtype=bool)
    member[3] = False  # the reference lacks its types
    found = Measured.of(np.array([5, 3]), fractions, member)
    assert found.samples.tolist() == [5]
    np.testing.assert_array_equal(found.fractions, [[0.2, 0.3]])
    np.testing.assert_array_equal(found.member, member[[0, 2]])
    assert Measured.of(np.array([3]), fractions[1:], member) is None


def test_fractions_with_gaps_correct_nearly_as_well_as_without() -> None:
    """Samples that were not measured, over many cohorts with a bias that samples share."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        truth = rng.dirichlet(np.full(5, 3.0), 12)
        estimates = truth * np.exp(rng.normal(0, 0.45, 5) + rng.normal(0, 0.2, truth.shape))
        estimates /= estimates.sum(1, keepdims=True)
        gaps = truth[:3].copy()
        gaps[0, rng.choice(5, 2, replace=False)] = np.nan
        gaps[1, rng.integers(5)] = np.nan
        found = [Measured.of(np.arange(3), f, np.eye(5, dtype=bool)) for f in (truth[:3], gaps)]
        tables = [estimates, *(m.correct(estimates) for m in found)]
        errors.append([((table - truth)[3:] ** 2).mean() for table in tables])
    none, full, gaps = np.sqrt(np.mean(errors, axis=0))
    assert full < gaps < 1.1 * full
    assert gaps < 0.65 * none


def test_groups_measured_less_often_are_less_certain() -> None:
    """Of a sample that was not measured: what is left of the shared error, and its own."""
    rng = np.random.default_rng(0)
    truth = np.tile([0.3, 0.3, 0.4], (5, 1))
    fractions = truth[:4].copy()
    fractions[1:, 0] = np.nan
    measured = Measured.of(np.arange(4), fractions, np.eye(3, dtype=bool))
    draws = add_sample_errors(np.tile(truth, (20_000, 1, 1)), rng)
    logs = np.log(measured.correct(add_shared_errors(draws, np.arange(3), rng)))[:, 4]
    found = [(logs[:, k] - logs[:, 2]).var() for k in (0, 1)]
    n = np.array([1, 4, 4])
    shrinkage = 0.35**2 / (0.35**2 + 0.25**2 * 8 / (8 + n - 1) / n)
    both = (1 - shrinkage) ** 2 * 0.4**2 + (1 + shrinkage**2 / n) * 0.18**2
    expected = [both[k] + both[2] for k in (0, 1)]
    np.testing.assert_allclose(found, expected, rtol=0.2)  # levels by a median cost a little
    assert found[0] > 1.2 * found[1]


def test_a_fraction_near_zero_spoils_its_own_type_only() -> None:
    rng = np.random.default_rng(2)
    log_bias = np.array([0.5, -0.4, 0.0, 0.3, 0.0])
    truth = rng.dirichlet(np.full(5, 20.0), 3)
    estimates = truth * np.exp(log_bias)
    estimates /= estimates.sum(1, keepdims=True)
    wrong = truth.copy()
    wrong[0, 4] = 0.0

    def ratios(measured: np.ndarray) -> np.ndarray:
        found = Measured(np.arange(3), measured, np.eye(5, dtype=bool)).correct(estimates)
        return np.log(found[:, 0] / found[:, 1])

    np.testing.assert_allclose(ratios(wrong), ratios(truth), atol=0.03)
    assert np.abs(ratios(truth) - np.log(estimates[:, 0] / estimates[:, 1])).min() > 0.7


def test_no_bias_means_no_change() -> None:
    rng = np.random.default_rng(0)
    estimates = rng.dirichlet(np.ones(4), 6)
    measured = Measured(np.array([1, 4]), estimates[[1, 4]], np.eye(4, dtype=bool))
    np.testing.assert_allclose(measured.correct(estimates), estimates, rtol=1e-12)


def test_more_measured_samples_correct_more() -> None:
    """What a bias that all samples share leaves is what shrinkage holds back."""
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(5, 5.0), 12)
    bias = np.array([0.5, -0.4, 0.0, 0.3, -0.2])
    estimates = truth * np.exp(bias)
    estimates /= estimates.sum(1, keepdims=True)
    others = slice(4, None)
    errors = []
    for n in (0, 1, 2, 4):
        found = estimates
        if n:
            found = Measured(np.arange(n), truth[:n], np.eye(5, dtype=bool)).correct(estimates)
        errors.append(np.abs(found[others] - truth[others]).mean())
    assert errors == sorted(errors, reverse=True)
    variance = 8 * 0.25**2 / (8 + 3)  # the samples agree
    shrinkage = 0.35**2 / (0.35**2 + variance / 4)
    assert errors[-1] == pytest.approx((1 - shrinkage) * errors[0], rel=0.5)


def test_draws_carry_the_error_of_the_correction_and_of_a_sample() -> None:
    """Draws that have the errors of samples need no more: what all share is taken from them."""
    rng = np.random.default_rng(0)
    groups = np.arange(3)
    draws = add_sample_errors(np.tile([0.3, 0.3, 0.4], (5000, 2, 1)), rng)
    measured = Measured(np.array([0]), np.array([[0.3, 0.3, 0.4]]), np.eye(3, dtype=bool))
    drawn = measured.correct(add_shared_errors(draws, groups, rng))
    log_ratio = np.log(drawn[:, 1, 0] / drawn[:, 1, 1])
    left = 1 - 0.35**2 / (0.35**2 + 0.25**2)  # of the bias, as one measured sample is little
    moved = np.hypot(0.01, 0.005) / 0.3
    own = 2 * (1 + (1 - left) ** 2) * (0.18**2 + (0.005 / 0.3) ** 2)
    expected = np.sqrt(own + 2 * left**2 * (0.4**2 + moved**2))
    assert log_ratio.std() == pytest.approx(expected, rel=0.05)
    np.testing.assert_allclose(drawn.sum(-1), 1)


def test_samples_that_differ_are_trusted_less() -> None:
    truth = np.tile([0.2, 0.3, 0.5], (4, 1))
    biases = np.array([[0.8, 0, 0], [0.8, 0, 0], [0, 0, 0], [0, 0, 0]])
    found = []
    for sizes in (biases, np.array([[0.8, 0, 0], [0.8, 0, 0], [-0.6, 0, 0], [2.2, 0, 0]])):
        estimates = truth * np.exp(sizes)
        estimates /= estimates.sum(1, keepdims=True)
        rows = np.array([0, 1]) if sizes is biases else np.array([2, 3])
        corrected = Measured(rows, truth[:2], np.eye(3, dtype=bool)).correct(estimates)
        change = np.log(corrected / estimates)[0]
        found.append(change[0] - change[1])
    assert found[0] < found[1] < 0


# Draws


def spread(x: np.ndarray) -> float:
    return float(stats.iqr(x, scale="normal"))


def test_errors_are_as_large_as_documented() -> None:
    """By moments: log errors of a type, or of a group of types, and cells that moved."""
    rng = np.random.default_rng(0)
    cells = np.tile([0.2, 0.4, 0.4], (20_000, 2, 1))
    shared = add_shared_errors(cells, np.array([0, 1, 1]), rng)
    np.testing.assert_allclose(shared.sum(-1), 1)
    np.testing.assert_array_equal(shared[:, 0], shared[:, 1])  # the same in all samples
    logs = np.log(np.maximum(shared[:, 0], 1e-9))
    assert spread(logs[:, 0] - logs[:, 1]) == pytest.approx(0.4 * np.sqrt(2), rel=0.06)
    # Only what moved tells types of one group apart.
    assert spread(logs[:, 1] - logs[:, 2]) == pytest.approx(0.01 / 0.4 * np.sqrt(2), rel=0.1)
    own = np.log(add_sample_errors(cells, rng))
    assert spread(own[:, 0, 0] - own[:, 0, 1]) == pytest.approx(0.18 * np.sqrt(2), rel=0.05)
    assert np.corrcoef(own[:, 0, 0], own[:, 1, 0])[0, 1] == pytest.approx(0, abs=0.03)
    rare = np.tile([0.0, 0.5, 0.5], (20_000, 1, 1))
    for errors, sd in (
        (add_sample_errors(rare, rng), 0.005),
        (add_shared_errors(rare, np.arange(3), rng), 0.01),
    ):
        assert np.quantile(errors[:, 0, 0], 0.95) == pytest.approx(sd * 1.645, rel=0.05)


def test_widening_by_one_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    draws, centre = rng.dirichlet(np.ones(4), (30, 6)), rng.dirichlet(np.ones(4), 6)
    np.testing.assert_allclose(widen(draws, centre, 1.0), draws, atol=1e-6)


def test_widening_keeps_the_centre_and_scales_the_spread() -> None:
    centre = np.array([[0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
    np.testing.assert_allclose(widen(np.tile(centre, (5, 1, 1)), centre, 3.0)[2], centre)
    noise = np.random.default_rng(0).normal(0, 0.02, (4000, 2, 3))
    draws = centre * np.exp(noise)
    draws /= draws.sum(-1, keepdims=True)
    wide = widen(draws, centre, 3.0)
    np.testing.assert_allclose(wide.sum(-1), 1)
    ratio = np.log(wide).std(0) / np.log(draws).std(0)
    np.testing.assert_allclose(ratio, 3, rtol=0.05)
    assert (widen(draws, centre, 100.0) > 0).all()


def test_simulated_cohorts_are_mixtures_with_poisson_noise(drawn: Drawn, joint: JointFit) -> None:
    quiet = replace(joint, shift_sd=0.0, residual_sd=0.0)
    cohort = replace(drawn.cohort, variance=torch.zeros(N_STATES, N_GENES))
    rng = np.random.default_rng(0)
    z = []
    for _ in range(20):
        simulated, weights = simulate_cohort(cohort, quiet, STATE_TYPE, rng, type_jitter_sd=0)
        np.testing.assert_allclose(weights.sum(1), 1)
        mean = weights @ drawn.profiles * cohort.millions
        z.append((simulated.cpm.numpy() * cohort.millions - mean) / np.sqrt(mean))
    assert np.mean(z) == pytest.approx(0, abs=0.02)
    assert np.std(z) == pytest.approx(1, rel=0.02)


def test_simulated_cohorts_have_the_spread_of_the_fit(drawn: Drawn, joint: JointFit) -> None:
    """Medians of absolute values: of a t distribution with four degrees of freedom .741."""
    rng = np.random.default_rng(0)
    deep = replace(drawn.cohort, millions=1e4, variance=torch.zeros(N_STATES, N_GENES))
    shifts, residuals, logs = [], [], []
    for _ in range(20):
        simulated, weights = simulate_cohort(deep, joint, STATE_TYPE, rng)
        logs.append(np.log(weights / joint.weights))
        ratio = np.log(simulated.cpm.numpy() + 10) - np.log(weights @ drawn.profiles + 10)
        shifts.append(np.median(ratio, 0))
        residuals.append(ratio - shifts[-1])
    t_median = stats.t.ppf(0.75, 4)
    high = drawn.profiles.min(0) > 30  # where the offset matters little
    total = np.hypot(joint.shift_sd, 0.28 * np.sqrt((joint.weights**2).sum(1)).mean())
    found = np.median(np.abs(np.array(shifts)[:, high]))
    assert found == pytest.approx(t_median * total, rel=0.25)
    found = np.median(np.abs(np.array(residuals)[..., high]))
    assert t_median * joint.residual_sd < found < t_median * np.hypot(joint.residual_sd, 0.2)
    centred = np.array(logs) - np.median(logs, -1, keepdims=True)
    assert np.median(np.abs(centred)) == pytest.approx(0.3 * 0.6745, rel=0.25)


def test_draws_widen_with_the_residual() -> None:
    widths = []
    for residual_sd in (0.05, 0.2, 0.6):
        cohort = draw_cohort(1, residual_sd=residual_sd).cohort
        fit = fit_cohort(cohort, n_steps=120)
        draws = bootstrap(cohort, fit, np.random.default_rng(0), n_draws=10, n_steps=40)
        assert draws.shape == (10, N_SAMPLES, N_STATES)
        np.testing.assert_allclose(draws.sum(-1), 1, atol=1e-5)
        widths.append(by_type(draws).std(0).mean())
    assert widths[0] < 0.7 * widths[1]
    assert widths[1] < 0.7 * widths[2]


def test_draws_widen_with_the_variance_of_profiles(drawn: Drawn, joint: JointFit) -> None:
    widths = []
    for variance in (1e-4, 0.3):
        cohort = replace(drawn.cohort, variance=torch.full((N_STATES, N_GENES), variance))
        draws = bootstrap(cohort, joint, np.random.default_rng(0), n_draws=10, n_steps=40)
        widths.append(by_type(draws).std(0).mean())
    assert widths[0] < 0.8 * widths[1]


def test_draws_do_not_depend_on_how_many_are_made_at_once(drawn: Drawn, joint: JointFit) -> None:
    numbers = []
    draws = bootstrap(
        drawn.cohort,
        joint,
        np.random.default_rng(0),
        n_draws=5,
        n_steps=20,
        max_elements=2 * N_SAMPLES * N_GENES,
        on_fits=numbers.append,
    )
    assert numbers == [2, 2, 1]
    assert draws.shape[0] == 5
    together = bootstrap(drawn.cohort, joint, np.random.default_rng(0), n_draws=5, n_steps=20)
    again = bootstrap(drawn.cohort, joint, np.random.default_rng(0), n_draws=5, n_steps=20)
    np.testing.assert_array_equal(together, again)
    assert np.abs(draws.mean(0) - together.mean(0)).max() < 0.2  # other random numbers


def test_the_multiplier_is_the_ratio_of_errors_to_draws(drawn: Drawn, joint: JointFit) -> None:
    budget = BulkBudget(
        n_steps=100, n_cohorts=1, n_cohort_bootstrap=8, n_cohort_bootstrap_steps=40
    )
    multipliers = [
        coverage_multiplier(
            drawn.cohort,
            joint,
            STATE_TYPE,
            np.random.default_rng(0),
            budget=budget,
            type_jitter_sd=jitter_sd,
        )
        for jitter_sd in (0.28, 1.0)
    ]
    assert 1 <= multipliers[0] < 6
    assert multipliers[1] > 1.5 * multipliers[0]


@pytest.mark.slow
def test_intervals_cover_the_truth_of_the_model() -> None:
    """Of cohorts with gene shifts, residuals and profiles that differ by study."""
    covered, widths = [], []
    for seed in range(6):
        rng = np.random.default_rng(100 + seed)
        profiles = draw_profiles(rng)
        own = profiles * np.exp(rng.normal(0, 0.28, (N_TYPES, N_GENES)))[STATE_TYPE]
        own *= np.exp(rng.normal(0, np.sqrt(0.02), own.shape))
        truth = rng.dirichlet(np.full(N_STATES, 1.5), N_SAMPLES)
        shift = 0.6 * rng.standard_t(4, N_GENES).clip(-5, 5)
        residual = 0.2 * rng.standard_t(4, (N_SAMPLES, N_GENES)).clip(-5, 5)
        cpm = np.maximum((truth @ own * np.exp(shift) + 10) * np.exp(residual) - 10, 0)
        variance = np.full(profiles.shape, 0.02)
        cohort = Cohort.of(rng.poisson(cpm * 20) / 20, profiles / 1e6, variance, 20.0)
        fit = fit_cohort(cohort)
        raw = by_type(bootstrap(cohort, fit, rng))
        factor = coverage_multiplier(cohort, fit, STATE_TYPE, rng)
        low, high = np.quantile(widen(raw, by_type(fit.weights), factor), [0.05, 0.95], axis=0)
        inside = (low <= by_type(truth)) & (by_type(truth) <= high)
        covered.append(inside.mean())
        widths.append((high - low).mean())
    assert 0.8 <= np.mean(covered) <= 0.98
    assert np.mean(widths) < 0.3


def test_the_multiplier_of_a_large_cohort_is_that_of_some_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    profiles = draw_profiles(rng)
    weights = rng.dirichlet(np.ones(N_STATES), 13)
    cpm = rng.poisson(weights @ profiles * 20) / 20
    shares = profiles / 1e6
    cohort = Cohort.of(cpm, shares, np.full_like(shares, 0.01), 20.0)
    fit = fit_cohort(cohort, n_steps=30)
    fitted = []

    def count(simulated: Cohort, **options: object) -> JointFit:
        fitted.append(len(simulated.cpm))
        return fit_cohort(simulated, **options)

    monkeypatch.setattr("scovert.model.bulk._bootstrap.fit_cohort", count)
    budget = BulkBudget(n_steps=5, n_cohort_samples=7, n_cohort_bootstrap_steps=3)
    assert coverage_multiplier(cohort, fit, STATE_TYPE, rng, budget=budget) >= 1
    assert fitted == [7, 7]
