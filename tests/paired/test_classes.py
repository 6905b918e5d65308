"""The mixture of classes against scipy and a dense solution, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from scovert.anchors import _mixture
from scovert.anchors._classes import Classes
from scovert.anchors._mixture import ClassMixture, climb

N_CLASSES, N_DATASETS, N_COMPONENTS = 4, 3, 2


def draw_mixture(seed: int = 0) -> ClassMixture:
    rng = np.random.default_rng(seed)
    return ClassMixture(
        means=rng.normal(0, 5, (N_CLASSES, N_COMPONENTS)),
        shifts=rng.normal(0, 1, (N_DATASETS, N_COMPONENTS)),
        own_shifts=rng.normal(0, 0.3, (N_CLASSES, N_DATASETS, N_COMPONENTS)),
        variances=rng.uniform(0.5, 2, (N_CLASSES, N_COMPONENTS)),
        within=rng.uniform(0.5, 2, N_COMPONENTS),
        weights=rng.dirichlet(np.ones(N_CLASSES), N_DATASETS).T,
    )


def test_the_density_is_that_of_scipy() -> None:
    mixture, x, b = draw_mixture(), np.random.default_rng(1).normal(0, 4, (7, N_COMPONENTS)), 2
    centre = mixture.means + mixture.shifts[b] + mixture.own_shifts[:, b]
    expected = np.stack(
        [
            np.log(mixture.weights[k, b])
            + multivariate_normal.logpdf(x, centre[k], np.diag(mixture.variances[k]))
            for k in range(N_CLASSES)
        ],
        axis=1,
    )
    constant = N_COMPONENTS / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(mixture.log_joint(x, b) - constant, expected)
    classes = np.exp(expected - logsumexp(expected, axis=1, keepdims=True))
    np.testing.assert_allclose(mixture.classes(x, b), classes)
    place = x - mixture.shifts[b] - classes @ mixture.own_shifts[:, b]
    np.testing.assert_allclose(mixture.place(x, b), place)


@pytest.mark.parametrize("slope", [0.0, 0.025])
def test_the_centres_minimise_the_penalised_squares(slope: float) -> None:
    """Against a numerical minimum over means, shifts and own shifts together."""
    rng, before = np.random.default_rng(2), draw_mixture(3)
    parts = [rng.normal(0, 5, (n, N_COMPONENTS)) for n in (40, 30, 50)]
    classes = [rng.dirichlet(np.full(N_CLASSES, 0.3), len(part)) for part in parts]
    classes[1][:, 3] = 0  # a class that a dataset lacks
    moments = _mixture._Moments.of(parts, classes)
    found = _mixture._centres(moments, before.means, before.within, before.variances, slope)
    n = moments.n
    for j in range(N_COMPONENTS):
        scale = np.sqrt(before.within[j])
        y = moments.sums[:, :, j] / n / scale
        weight = np.where(n < 2, 0, n * before.within[j] / before.variances[:, [j]])
        u = before.means / np.sqrt(before.within)
        u = u - n.sum(1) @ u / n.sum()
        own = 1e-4 + (0.05**2 if slope else 0)
        inverse = np.linalg.inv(slope**2 * u @ u.T + own * np.eye(N_CLASSES))

        def loss(theta: np.ndarray, y=y, weight=weight, inverse=inverse) -> float:
            mu, delta, epsilon = np.split(theta, [N_CLASSES, N_CLASSES + N_DATASETS])
            epsilon = epsilon.reshape(N_CLASSES, N_DATASETS)
            rest = y - mu[:, None] - delta - epsilon
            penalty = np.einsum("kb,kl,lb", epsilon, inverse, epsilon)
            return (weight * rest**2).sum() + penalty + 1e-6 * mu @ mu + 1e-2 * delta @ delta

        size = N_CLASSES + N_DATASETS + N_CLASSES * N_DATASETS
        best = minimize(loss, np.zeros(size), method="BFGS", options={"gtol": 1e-7}).x
        mu, delta, epsilon = np.split(best, [N_CLASSES, N_CLASSES + N_DATASETS])
        expected = mu[:, None] + delta + epsilon.reshape(N_CLASSES, N_DATASETS)
        centre = (found[0][:, None] + found[1] + found[2])[:, :, j] / scale
        kept = n >= 2
        np.testing.assert_allclose(centre[kept], expected[kept], atol=2e-3)
        np.testing.assert_allclose(found[1][:, j] / scale, delta - delta.mean(), atol=2e-3)


def test_the_likelihood_rises() -> None:
    x, batch, types = cells()
    parts = [x[batch == b] for b in (0, 1)]
    classes = [np.eye(5)[types[batch == b]] * 0.9 + 0.02 for b in (0, 1)]
    mixture, _ = climb(parts, classes, 0.0)
    before = _mixture._maximise(_mixture._Moments.of(parts, classes), None, x.var(0), 0.0)
    gain = _mixture.log_likelihood(mixture, parts) - _mixture.log_likelihood(before, parts)
    assert gain > 0


def cells(missing: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Components of five types; the second dataset is moved, stretched, and lacks a type."""
    rng = np.random.default_rng(0)
    types, batch = rng.integers(0, 5, 1500), rng.integers(0, 2, 1500)
    x = 6 * rng.normal(size=(5, 6))[types] + rng.normal(size=(1500, 6))
    x[batch == 1] = 1.1 * x[batch == 1] + [3, -2, 0, 1, 4, -5]
    kept = (batch == 0) | (types > 0) | (not missing)
    return x[kept].astype(np.float32), batch[kept], types[kept]


def test_shifts_are_taken_out_and_a_missing_type_stays_alone() -> None:
    x, batch, types = cells()
    classes = Classes.fit(x, batch, seed=0)
    assert classes.explained > 0.9
    found = classes.corrected(x, batch)
    apart = [
        np.linalg.norm(
            found[(types == t) & (batch == 0)].mean(0) - found[(types == t) & (batch == 1)].mean(0)
        )
        for t in range(1, 5)
    ]
    assert max(apart) < 1  # a standard deviation within types; 8 before
    centres = np.stack([found[(types == t)].mean(0) for t in range(5)])
    assert np.linalg.norm(centres[0] - centres[1:], axis=1).min() > 5


def test_positions_are_directions_of_all_mixtures() -> None:
    x, batch, _ = cells()
    classes = Classes.fit(x, batch, seed=0)
    found = classes.place(x, batch).reshape(len(x), 3, 6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1 / np.sqrt(3), rtol=1e-5)
    for m, mixture in enumerate(classes.mixtures):
        expected = mixture.place(x[batch == 1], 1)
        length = np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found[batch == 1, m], expected / length / np.sqrt(3), atol=1e-5)


def test_a_bad_start_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types joined at random in two of six starts: the others are likelier."""
    from scovert.anchors import _classes

    x, batch, _ = cells()
    good, starts = Classes.fit(x, batch, seed=0), _classes._starts

    def spoil(parts: list, seed: int) -> list:
        for i, start in enumerate(starts(parts, seed)):
            rng = np.random.default_rng(i)
            yield [rng.permuted(s, axis=0) for s in start] if i in (0, 3) else start

    monkeypatch.setattr(_classes, "_starts", spoil)
    found = Classes.fit(x, batch, seed=0)
    np.testing.assert_allclose(found.explained, good.explained, atol=0.01)


def test_agreement_is_that_of_the_nearest_beyond_chance() -> None:
    x, batch, _ = cells()
    classes = Classes.fit(x, batch, seed=0)
    rows = [np.flatnonzero(batch == b) for b in (0, 1)]
    near = [cdist(x[r], x[r]).argsort(1)[:, :15] for r in rows]
    expected = []
    for b, (r, own) in enumerate(zip(rows, near, strict=True)):
        for mixture in classes.mixtures:
            p = mixture.classes(x[r].astype(float), b)
            same = np.mean([[p[i] @ p[j] for j in own[i, 1:6]] for i in range(len(r))])
            chance = (p.mean(0) ** 2).sum()
            expected.append((same - chance) / (1 - chance))
    assert classes.agreement(near, rows, x) == pytest.approx(np.mean(expected))
    noise = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    blurred = Classes.fit(noise, batch, seed=0)
    assert blurred.agreement(near, rows, noise) < 0.1


def test_components_count_as_far_as_they_stand_out() -> None:
    rng = np.random.default_rng(0)
    sd = np.concatenate([np.linspace(9, 2, 24), np.ones(6)])
    x, batch = rng.normal(size=(900, 30)) * sd, rng.integers(0, 2, 900)
    assert Classes.fit(x, batch, seed=0).n_components == 24
    assert Classes.fit(x[:, 10:] / x[:, 10:].std(0), batch, seed=0).n_components == 20
    assert Classes.fit(x[:, :7], batch, seed=0).n_components == 7


def test_the_fit_needs_not_all_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    x, batch, _ = cells()
    full = Classes.fit(x, batch, seed=0).corrected(x, batch)
    monkeypatch.setattr("scovert.anchors._classes.MAX_CELLS_TO_FIT", 600)
    part = Classes.fit(x, batch, seed=0).corrected(x, batch)
    assert np.sqrt(np.square(part - full).mean()) < 0.3  # of a standard deviation within types
