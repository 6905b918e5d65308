"""Neighbours, likelihoods and the map against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from scovert.core._losses import SparseCounts
from scovert.core.dataloaders._cells import Cells
from scovert.model.niche._data import around, split_patches
from scovert.model.niche._diagnostics import separation_row
from scovert.model.niche._energy import energy_map
from scovert.model.niche._expression import draw_cells
from scovert.model.niche._features import choose_transform, moments_of, transform_values
from scovert.model.niche._graph import nearest_neighbors
from scovert.model.niche._likelihood import gaussian_by_state, negative_binomial_by_state
from scovert.model.niche._module import mixture_nll, pool
from scovert.model.niche.variants._matching import match

RNG = np.random.default_rng(0)


def brute_force(positions: np.ndarray, sample: np.ndarray, k: int) -> list[list[int]]:
    distance = cdist(positions, positions)
    found = []
    for i, row in enumerate(distance):
        others = np.flatnonzero((sample == sample[i]) & (np.arange(len(sample)) != i))
        order = np.lexsort((others, row[others].round(9)))
        found.append(sorted(others[order][:k].tolist()))
    return found


def as_sets(graph: np.ndarray) -> list[list[int]]:
    return [sorted(row[row >= 0].tolist()) for row in graph]


@pytest.mark.parametrize("n_dims", [2, 3])
def test_neighbours_are_the_nearest_of_the_same_sample(n_dims: int) -> None:
    positions, sample = RNG.normal(size=(301, n_dims)), RNG.integers(0, 3, 301)
    graph = nearest_neighbors(positions, sample, 7)
    assert graph.dtype == np.int32
    assert as_sets(graph) == brute_force(positions, sample, 7)
    assert (sample[graph] == sample[:, None]).all()
    first, last = (np.linalg.norm(positions - positions[graph[:, j]], axis=1) for j in (0, -1))
    assert (first <= last).all()


def test_of_equally_far_cells_the_first_rows_are_neighbours_in_any_position() -> None:
    grid = np.stack(np.meshgrid(np.arange(17), np.arange(13)), -1).reshape(-1, 2).astype(float)
    sample = np.zeros(len(grid), int)
    expected = brute_force(grid, sample, 6)  # 4 next to a cell, then 2 of 4 diagonal ones
    assert as_sets(nearest_neighbors(grid, sample, 6)) == expected
    for angle in (0.3, 1.1, 2.5):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for moved in (grid @ turn.T, grid @ turn.T * 1e-3 + 5, grid * [1, -1] - 1e3):
            assert as_sets(nearest_neighbors(moved, sample, 6)) == expected


def test_small_samples_and_cells_on_one_spot() -> None:
    sample = np.repeat([0, 1, 2], [5, 1, 40])
    positions = np.r_[RNG.normal(size=(6, 2)), np.zeros((30, 2)), RNG.normal(size=(10, 2))]
    graph = nearest_neighbors(positions, sample, 7)
    assert (graph[:5] >= 0).sum(1).tolist() == [4] * 5
    assert (graph[5] == -1).all()
    assert (graph[6:] >= 6).all()
    assert not (graph == np.arange(46)[:, None]).any()
    assert all(len(set(row)) == 7 for row in graph[6:].tolist())


def test_the_map_has_the_energy_distance() -> None:
    centers = RNG.normal(size=(9, 13))
    distance, (p, q) = cdist(centers, centers), RNG.dirichlet(np.ones(9), 2)
    expected = 2 * p @ distance @ q - p @ distance @ p - q @ distance @ q
    axes = energy_map(centers)
    assert np.square((p - q) @ axes).sum() == pytest.approx(expected, rel=1e-9)
    # The same from draws, of the definition
    x, y = (centers[RNG.choice(9, 4000, p=shares)] for shares in (p, q))
    drawn = 2 * cdist(x, y).mean() - cdist(x, x).mean() - cdist(y, y).mean()
    assert np.square((p - q) @ axes).sum() == pytest.approx(drawn, rel=0.1)


def test_equal_centres_are_one_place() -> None:
    centers = RNG.normal(size=(3, 5))[[0, 1, 2, 0]]
    axes = energy_map(centers)
    assert axes.shape == (4, 2)
    np.testing.assert_allclose(axes[0], axes[3], atol=1e-6)


def test_gaussian_is_that_of_scipy() -> None:
    f, centers = RNG.normal(size=(7, 5)), RNG.normal(size=(3, 5))
    log_sd, is_used = RNG.normal(0, 0.3, 5), np.array([1, 1, 0, 1, 1.0])
    arguments = (torch.tensor(a) for a in (f, centers, log_sd, is_used))
    found = gaussian_by_state(*arguments).numpy()
    each = stats.norm(centers, np.exp(log_sd)).logpdf(f[:, None])  # (7, 3, 5)
    np.testing.assert_allclose(found, (each * is_used).sum(-1), rtol=1e-10)


@pytest.mark.parametrize("theta_at", [0.3, 50.0])
def test_negative_binomial_is_that_of_scipy(theta_at: float) -> None:
    theta = theta_at * RNG.lognormal(0, 1, 31)
    share = RNG.dirichlet(np.ones(31), (2, 5))
    library, batch = RNG.lognormal(5, 1.5, 211), RNG.integers(0, 2, 211)
    mean = library[:, None] * share[batch, 0]
    x = RNG.negative_binomial(theta, theta / (theta + mean)).astype(float)
    total = np.maximum(x.sum(1), 1)
    found = negative_binomial_by_state(
        SparseCounts.of(torch.tensor(x)),
        *(torch.tensor(a) for a in (total, batch, np.log(share), np.log(theta))),
    )
    mean = total[:, None, None] * share[batch]
    expected = stats.nbinom(theta, theta / (theta + mean)).logpmf(x[:, None]).sum(-1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)


def test_gradient_of_the_negative_binomial() -> None:
    x = torch.tensor(RNG.poisson(2.0, (6, 4)).astype(float))
    counts, total, batch = SparseCounts.of(x), x.sum(1), torch.zeros(6, dtype=torch.long)
    states = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    log_theta = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def compute(states: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
        return negative_binomial_by_state(counts, total, batch, states.log_softmax(-1), log_theta)

    assert torch.autograd.gradcheck(compute, (states, log_theta))


def test_mixture_is_free_of_the_order_and_number_of_neighbours() -> None:
    log_pi = torch.randn(2, 5).double().log_softmax(-1)
    by_state = torch.randn(9, 5).double()
    neighbors = torch.tensor([[3, 8, 1], [4, 0, 0]])
    is_neighbor = torch.tensor([[True, True, True], [True, False, False]])
    found = mixture_nll(log_pi, by_state, neighbors, is_neighbor)
    joint = (log_pi[:, None].exp() * by_state.exp()[neighbors]).sum(-1).log()
    assert found[0] == pytest.approx(-joint[0].mean().item())
    assert found[1] == pytest.approx(-joint[1, 0].item())
    turned = mixture_nll(log_pi, by_state, neighbors.flip(1), is_neighbor.flip(1))
    torch.testing.assert_close(turned, found)
    assert mixture_nll(log_pi, by_state, neighbors, torch.zeros(2, 3, dtype=torch.bool)).sum() == 0


def test_pooling_is_the_mean_over_the_cell_and_its_neighbours() -> None:
    hidden = torch.randn(9, 4)
    neighbors = torch.tensor([[3, 8], [4, 0]])
    is_neighbor = torch.tensor([[True, True], [False, False]])
    found = pool(hidden, torch.tensor([2, 5]), neighbors, is_neighbor)
    torch.testing.assert_close(found[0], hidden[[2, 3, 8]].mean(0))
    torch.testing.assert_close(found[1], hidden[5])


def test_slots_are_matched_at_least_cost() -> None:
    slots, f = torch.randn(1, 5, 3), torch.randn(1, 5, 3)
    chosen = match(slots, f, torch.ones(1, 5, dtype=torch.bool))[0].numpy()
    cost = cdist(f[0], slots[0]) ** 2
    assert cost[np.arange(5), chosen].sum() == pytest.approx(
        cost[linear_sum_assignment(cost)].sum(), rel=1e-5
    )
    order = torch.randperm(5)
    again = match(slots, f[:, order], torch.ones(1, 5, dtype=torch.bool))[0].numpy()
    np.testing.assert_array_equal(again, chosen[order])


def test_features_have_mean_0_and_sd_1_in_each_batch() -> None:
    x = RNG.poisson(RNG.gamma(2, 2, 7), (97, 7)).astype(np.float32)
    x[:, 3] = 0
    batch = RNG.integers(0, 2, 97)
    cells = Cells(sparse.csr_matrix(x), {})
    transform, median = choose_transform(cells)
    assert transform == "log1p"
    assert median == np.median(x.sum(1))
    found = moments_of(cells, batch, 2, transform, 1.0, median)
    values = transform_values(torch.tensor(x), transform, 1.0, median).numpy()
    np.testing.assert_allclose(values, np.log1p(x / x.sum(1, keepdims=True) * median), rtol=1e-5)
    f = (values - found.mean[batch]) * found.scale[batch]
    for b in range(2):
        np.testing.assert_allclose(f[batch == b].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(f[batch == b].std(0), [1, 1, 1, 0, 1, 1, 1], atol=1e-5)
    assert choose_transform(Cells(RNG.random((9, 3), np.float32), {}))[0] == "none"
    assert choose_transform(Cells(7 * RNG.random((9, 3), np.float32), {}))[0] == "arcsinh"


def test_each_cell_of_a_minibatch_is_read_once() -> None:
    graph = nearest_neighbors(RNG.normal(size=(200, 2)), np.zeros(200, int), 9)
    graph[7, 5:] = -1
    centers = np.array([7, 150, 3])
    members, own, near, is_neighbor = around(graph, centers)
    assert len(set(members)) == len(members)
    np.testing.assert_array_equal(members[own], centers)
    np.testing.assert_array_equal(members[near][is_neighbor], graph[centers][is_neighbor])
    assert is_neighbor.sum(1).tolist() == [5, 9, 9]


def test_validation_cells_are_patches() -> None:
    positions = RNG.uniform(size=(3000, 2))
    graph = nearest_neighbors(positions, np.zeros(3000, int), 20)
    held_out = split_patches(graph, 0.1, np.random.default_rng(0))
    assert 200 < held_out.sum() <= 310
    assert held_out[graph[held_out, :5]].mean() > 0.7  # scattered cells have .1
    assert not split_patches(graph, 0.0, np.random.default_rng(0)).any()


def test_cells_are_drawn_by_state_and_batch() -> None:
    states, pool_batch = RNG.integers(0, 3, 400), RNG.integers(0, 2, 400)
    pi = np.array([[0.7, 0.3, 0.0], [0.0, 0.2, 0.8]])
    drawn = draw_cells(pi, np.array([0, 1]), states, pool_batch, 3000, np.random.default_rng(0))
    assert (pool_batch[drawn] == np.array([[0], [1]])).all()
    for row, expected in zip(states[drawn], pi, strict=True):
        np.testing.assert_allclose(np.bincount(row, minlength=3) / 3000, expected, atol=0.03)


@pytest.mark.parametrize("has_batches", [False, True])
def test_samples_that_lie_apart_are_seen(has_batches: bool) -> None:
    rng = np.random.default_rng(0)
    sample = np.repeat(["a", "b", "c"], [200, 300, 100])
    mixed = rng.normal(size=(600, 3))
    apart = mixed + 20 * (sample == "a")[:, None] - 20 * (sample == "b")[:, None]
    rows = [separation_row(x, sample, has_batches=has_batches) for x in (mixed, apart)]
    assert rows[0].value == pytest.approx(0, abs=0.05)
    assert rows[1].value == pytest.approx(1)
    assert rows[0].advice == ""
    assert ("`batch_key`" in rows[1].advice) is not has_batches
