"""Every term against a closed form, an independent library or autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from scvi.distributions import NegativeBinomial
from sklearn.metrics import log_loss
from torch.distributions import Categorical, Normal, kl_divergence

from scovert.core._losses import (
    SparseCounts,
    balanced_cross_entropy,
    confusion,
    dirichlet,
    kl_standard_normal,
    negative_binomial,
    negative_binomial_deviance,
    squared_distance,
)

N_CELLS, N_LATENT, N_CLASSES = 67, 3, 5
TARGET = torch.arange(N_CELLS) ** 2 % 4  # classes 0 and 1 only, of unlike sizes, out of five


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(*shape: int, rng: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def test_kl_is_that_of_torch_and_of_the_integral(rng: torch.Generator) -> None:
    qz = Normal(normal(N_CELLS, N_LATENT, rng=rng), normal(N_CELLS, N_LATENT, rng=rng).exp())
    found = kl_standard_normal(qz)
    assert found.shape == (N_CELLS,)
    prior = Normal(torch.zeros(N_LATENT).double(), torch.ones(N_LATENT).double())
    torch.testing.assert_close(found, kl_divergence(qz, prior).sum(-1))
    one = Normal(*torch.tensor([[[0.7]], [[0.4]]], dtype=torch.float64))
    grid = np.linspace(-8, 8, 200_001)
    p = stats.norm.pdf(grid, 0.7, 0.4)
    integral = np.trapezoid(special.rel_entr(p, stats.norm.pdf(grid)), grid)
    assert kl_standard_normal(one).item() == pytest.approx(integral, rel=1e-8)


def test_kl_is_zero_at_the_prior_only(rng: torch.Generator) -> None:
    mean = torch.zeros(N_CELLS, N_LATENT)
    assert kl_standard_normal(Normal(mean, torch.ones_like(mean))).eq(0).all()
    moved = Normal(normal(N_CELLS, N_LATENT, rng=rng), torch.ones(N_CELLS, N_LATENT).double())
    assert kl_standard_normal(moved).gt(0).all()


def test_free_bits_are_a_floor_without_gradient(rng: torch.Generator) -> None:
    mean = (0.3 * normal(N_CELLS, N_LATENT, rng=rng)).requires_grad_()
    qz = Normal(mean, torch.ones_like(mean))
    terms = kl_divergence(qz, Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    found = kl_standard_normal(qz, free_bits=0.02)
    torch.testing.assert_close(found, terms.clamp(min=0.02).sum(-1))
    found.sum().backward()
    is_free = terms < 0.02
    assert 0.2 < is_free.double().mean() < 0.8
    assert mean.grad[is_free].eq(0).all()
    torch.testing.assert_close(mean.grad[~is_free], mean.detach()[~is_free])


def test_dirichlet_is_that_of_scipy_and_of_torch(rng: torch.Generator) -> None:
    concentration = normal(N_CELLS, N_CLASSES, rng=rng).exp().requires_grad_()
    shares = normal(N_CELLS, N_CLASSES, rng=rng).softmax(-1)
    found = dirichlet(concentration, shares)
    assert found.shape == (N_CELLS,)
    oracle = [
        -stats.dirichlet.logpdf(w, a)
        for w, a in zip(shares.numpy(), concentration.detach().numpy(), strict=True)
    ]
    np.testing.assert_allclose(found.detach().numpy(), oracle)
    (gradient,) = torch.autograd.grad(found.sum(), concentration)
    of_torch = -torch.distributions.Dirichlet(concentration).log_prob(shares).sum()
    torch.testing.assert_close(gradient, *torch.autograd.grad(of_torch, concentration))


def test_shares_may_be_zero_and_sum_to_anything(rng: torch.Generator) -> None:
    shares = normal(N_CELLS, N_CLASSES, rng=rng).softmax(-1)
    shares = shares.where(shares > 0.15, 0.0)
    prediction = (3 * normal(N_CELLS, N_CLASSES, rng=rng)).exp().requires_grad_()
    value = dirichlet(prediction, shares / shares.sum(-1, keepdim=True))
    assert shares.eq(0).any()
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), prediction)[0].isfinite().all()


def test_distance_is_euclidean(rng: torch.Generator) -> None:
    a, b = normal(2, N_CELLS, N_LATENT, rng=rng)
    found = squared_distance(a, b)
    assert found.shape == (N_CELLS,)
    expected = [np.linalg.norm(p - q) ** 2 for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(found, expected)
    assert squared_distance(a, a).eq(0).all()


def test_cross_entropy_is_that_of_balanced_classes(rng: torch.Generator) -> None:
    logits = normal(N_CELLS, N_CLASSES, rng=rng)
    target = torch.arange(N_CELLS) ** 2 % N_CLASSES  # classes 0, 1 and 4
    found = balanced_cross_entropy(logits, target)
    assert found.shape == (N_CELLS,)
    sizes = np.bincount(target, minlength=N_CLASSES)
    expected = log_loss(
        target,
        special.softmax(logits.numpy(), axis=1),
        labels=range(N_CLASSES),
        sample_weight=1 / sizes[target],
    )
    assert found.mean().item() == pytest.approx(expected, rel=1e-7)
    by_class = -Categorical(logits=logits).log_prob(target)
    per_class = [by_class[target == t].mean() for t in target.unique()]
    torch.testing.assert_close(found.mean(), torch.stack(per_class).mean())


def test_chance_is_the_log_of_the_classes_whatever_their_sizes() -> None:
    target = torch.tensor([0] * 60 + [1] * 5 + [2] * 2)
    blind = balanced_cross_entropy(torch.zeros(N_CELLS, 3), target).mean()
    assert blind.item() == pytest.approx(math.log(3), rel=1e-6)
    by_size = torch.tensor([60.0, 5.0, 2.0]).log().expand(N_CELLS, 3)
    assert balanced_cross_entropy(by_size, target).mean() > blind


def test_a_certain_right_guess_costs_nothing() -> None:
    logits = torch.full((N_CELLS, N_CLASSES), -1e4)
    logits[torch.arange(N_CELLS), TARGET] = 1e4
    assert balanced_cross_entropy(logits, TARGET).eq(0).all()


def test_confusion_is_the_divergence_from_uniform(rng: torch.Generator) -> None:
    logits = normal(N_CELLS, N_CLASSES, rng=rng)
    found = confusion(logits)
    assert found.shape == (N_CELLS,)
    uniform = Categorical(probs=torch.full((N_CLASSES,), 1 / N_CLASSES).double())
    torch.testing.assert_close(found, kl_divergence(uniform, Categorical(logits=logits)))
    expected = stats.entropy(
        np.full((N_CELLS, N_CLASSES), 1 / N_CLASSES), special.softmax(logits, axis=1), axis=1
    )
    np.testing.assert_allclose(found, expected)


def test_confusion_among_allowed_classes_is_that_divergence(rng: torch.Generator) -> None:
    logits = normal(N_CELLS, N_CLASSES, rng=rng)
    allowed = (torch.arange(N_CELLS)[:, None] >= torch.arange(N_CLASSES)).double()
    target = Categorical(probs=allowed / allowed.sum(1, keepdim=True))
    expected = kl_divergence(target, Categorical(logits=logits))
    torch.testing.assert_close(confusion(logits, allowed), expected)
    all_allowed = torch.ones_like(allowed)
    torch.testing.assert_close(confusion(logits, all_allowed), confusion(logits))


@pytest.mark.parametrize("shift", [0.0, -7.5])
def test_confusion_is_zero_for_uniform_guesses(shift: float) -> None:
    logits = torch.full((N_CELLS, N_CLASSES), shift).double()
    np.testing.assert_allclose(confusion(logits), 0, atol=1e-15)


def test_confusion_is_least_where_its_gradient_vanishes() -> None:
    logits = torch.zeros(N_CELLS, N_CLASSES, dtype=torch.float64, requires_grad=True)
    confusion(logits).sum().backward()
    np.testing.assert_allclose(logits.grad, 0, atol=1e-15)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (lambda m, s: kl_standard_normal(Normal(m, s.exp())), [(7, 3), (7, 3)]),
        (squared_distance, [(7, 3), (7, 3)]),
        (lambda x: balanced_cross_entropy(x, torch.tensor([0, 0, 0, 2, 2, 3, 3])), [(7, 5)]),
        (confusion, [(7, 5)]),
    ],
    ids=["kl_standard_normal", "squared_distance", "balanced_cross_entropy", "confusion"],
)
def test_gradients_are_those_of_finite_differences(
    loss: object, shapes: list[tuple], rng: torch.Generator
) -> None:
    inputs = [normal(*shape, rng=rng).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(loss, inputs)


def test_extreme_values_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], requires_grad=True)
    loss = confusion(logits).sum() + balanced_cross_entropy(logits, torch.tensor([1, 2])).sum()
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


# The negative binomial


def count_data(
    rng: torch.Generator, *, n_cells: int = 7, n_genes: int = 11, theta: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts with an empty cell, a gene without counts and a large count; means; dispersions."""
    x = torch.poisson(0.4 * torch.ones(n_cells, n_genes).double(), generator=rng)
    x[1, 2], x[-1], x[:, 4] = 5000, 0, 0
    share = normal(n_cells, n_genes, rng=rng).softmax(-1)
    inverse_dispersion = theta * normal(n_genes, rng=rng).exp()
    return x, x.sum(-1, keepdim=True) * share, inverse_dispersion


@pytest.mark.parametrize("n_cells", [3, 7, 128])
@pytest.mark.parametrize("theta", [1e-4, 1.0, 1e4])
def test_sparse_likelihood_is_that_of_scvi_tools(
    rng: torch.Generator, theta: float, n_cells: int
) -> None:
    x, mean, inverse_dispersion = count_data(rng, n_cells=n_cells, theta=theta)
    mean.requires_grad_()
    inverse_dispersion.requires_grad_()
    found = negative_binomial(mean, inverse_dispersion, SparseCounts.of(x))
    expected = -NegativeBinomial(mu=mean, theta=inverse_dispersion).log_prob(x).sum(-1)
    assert found.shape == (n_cells,)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = normal(n_cells, rng=rng)
    gradients = [
        torch.autograd.grad((weights * value).sum(), (mean, inverse_dispersion))
        for value in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_likelihood_is_the_same_on_a_gpu(rng: torch.Generator) -> None:
    x, mean, inverse_dispersion = count_data(rng)
    losses = [
        negative_binomial(mean.to(d), inverse_dispersion.to(d), SparseCounts.of(x.to(d))).cpu()
        for d in ("cpu", "cuda")
    ]
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)


def test_likelihood_is_that_of_scipy(rng: torch.Generator) -> None:
    x, mean, inverse_dispersion = count_data(rng)
    n, mean = inverse_dispersion.numpy(), mean.numpy() + 1e-8
    expected = -stats.nbinom.logpmf(x.numpy(), n, n / (n + mean)).sum(1)
    found = negative_binomial(torch.from_numpy(mean), inverse_dispersion, SparseCounts.of(x))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_gradient_of_the_likelihood_is_that_of_finite_differences(rng: torch.Generator) -> None:
    x = torch.poisson(torch.ones(5, 6).double(), generator=rng)
    mean = normal(5, 6, rng=rng).exp().requires_grad_()
    theta = normal(6, rng=rng).exp().requires_grad_()
    counts = SparseCounts.of(x)
    assert torch.autograd.gradcheck(lambda m, t: negative_binomial(m, t, counts), (mean, theta))


def test_likelihood_with_a_dispersion_for_each_cell(rng: torch.Generator) -> None:
    x, mean, inverse_dispersion = count_data(rng)
    theta = inverse_dispersion * normal(len(x), 1, rng=rng).exp()
    expected = -NegativeBinomial(mu=mean, theta=theta).log_prob(x).sum(-1)
    torch.testing.assert_close(negative_binomial(mean, theta, SparseCounts.of(x)), expected)


def test_counts_survive_their_sparse_form(rng: torch.Generator) -> None:
    x, _, _ = count_data(rng)
    assert torch.equal(SparseCounts.of(x).dense(*x.shape), x)
    empty = torch.zeros_like(x)
    assert torch.equal(SparseCounts.of(empty).dense(*x.shape), empty)


def test_an_empty_cell_has_a_finite_likelihood_and_gradient() -> None:
    mean = torch.zeros(3, 4, requires_grad=True)
    theta = torch.ones(4, requires_grad=True)
    loss = negative_binomial(mean, theta, SparseCounts.of(torch.zeros(3, 4)))
    loss.sum().backward()
    assert loss.eq(0).all()
    assert mean.grad.isfinite().all()
    assert theta.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(rng: torch.Generator, dtype: torch.dtype) -> None:
    x, mean, inverse_dispersion = (t.float() for t in count_data(rng))
    expected = negative_binomial(mean.to(dtype).float(), inverse_dispersion, SparseCounts.of(x))
    with torch.autocast("cpu", torch.bfloat16):
        found = negative_binomial(mean.to(dtype), inverse_dispersion, SparseCounts.of(x))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_single_precision_is_as_good_as_that_of_scvi_tools(rng: torch.Generator) -> None:
    x, mean, inverse_dispersion = count_data(rng, n_cells=128, n_genes=500)
    truth = negative_binomial(mean, inverse_dispersion, SparseCounts.of(x))
    x, mean, inverse_dispersion = x.float(), mean.float(), inverse_dispersion.float()
    ours = negative_binomial(mean, inverse_dispersion, SparseCounts.of(x)) - truth
    theirs = -NegativeBinomial(mu=mean, theta=inverse_dispersion).log_prob(x).sum(-1) - truth
    assert ours.abs().max() < 2 * theirs.abs().max() + 1e-6 * truth.abs().max()


def test_the_deviance_is_that_of_scipy_with_gradients_at_zero_counts() -> None:
    rng = np.random.default_rng(3)
    mean, theta = rng.gamma(2, 1, (5, 7)), rng.gamma(2, 1, 7)
    x = rng.poisson(1.5, (5, 7)).astype(float)

    def log_likelihood(at: np.ndarray) -> np.ndarray:
        at = np.maximum(at, 1e-12)
        return stats.nbinom.logpmf(x, theta, theta / (theta + at))

    tensor = torch.tensor(mean, requires_grad=True)
    ours = negative_binomial_deviance(tensor, torch.tensor(theta), torch.tensor(x))
    expected = 2 * (log_likelihood(x) - log_likelihood(mean))
    np.testing.assert_allclose(ours.detach(), expected, atol=1e-6)
    ours.sum().backward()
    slope = -2 * (x / mean - (x + theta) / (mean + theta))
    np.testing.assert_allclose(tensor.grad, slope, atol=1e-6)
