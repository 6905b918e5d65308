"""Every term against a closed form, an independent library or autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.metrics import log_loss
from torch.distributions import Categorical, Normal, kl_divergence

from scovert.losses import (
    balanced_cross_entropy,
    confusion,
    kl_standard_normal,
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
