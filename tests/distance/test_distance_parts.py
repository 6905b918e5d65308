"""Parts of DistanceEmbedding against closed forms and other packages."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import skbio
import torch
from scipy.spatial.distance import cdist
from sklearn.linear_model import Ridge

from scovert.core._diagnostics import check_table
from scovert.core.trees import read_branches
from scovert.model.distance import _linear
from scovert.model.distance._data import SampleData, split_samples
from scovert.model.distance._diagnostics import rows_of
from scovert.model.distance._features import KINDS, Features, candidates, project
from scovert.model.distance._held_out import Prediction, agreement, excess_of, fit_spread
from scovert.model.distance._linear import fit_linear, folds_of
from scovert.model.distance._module import ResidualMap, squared_distances, stress
from scovert.model.distance._pcoa import negative_share, pcoa
from scovert.model.distance._plan import FIRST_RATE, LAST_RATE, RISE, one_cycle
from scovert.simulate import distance


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def cohort():
    return distance(60, 40, distances=["unweighted_unifrac"], seed=2)


def test_pcoa_is_that_of_scikit_bio(cohort) -> None:
    d = cohort.obsp["unweighted_unifrac"]
    expected = skbio.stats.ordination.pcoa(skbio.DistanceMatrix(d), dimensions=5)
    np.testing.assert_allclose(np.abs(pcoa(d, 5)), np.abs(expected.samples.to_numpy()), atol=1e-8)
    values = skbio.stats.ordination.pcoa(skbio.DistanceMatrix(d), method="eigh", dimensions=0)
    assert values is not None
    assert 0 < negative_share(d) < 0.3


def test_pcoa_reproduces_euclidean_distances_and_large_cohorts_by_lanczos(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rng.normal(size=(31, 4))
    d = cdist(x, x)
    axes = pcoa(d, 10)
    assert axes.shape == (31, 4)
    np.testing.assert_allclose(cdist(axes, axes), d, atol=1e-8)
    assert negative_share(d) < 1e-9
    monkeypatch.setattr("scovert.model.distance._pcoa.LARGEST_DENSE", 10)
    np.testing.assert_allclose(pcoa(d, 4), axes, atol=1e-6)


def test_ridge_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(23, 5)), rng.normal(size=(23, 3))
    for penalty, (weight, bias) in zip(_linear.PENALTIES, _linear._path(x, y, 2.0), strict=True):
        expected = Ridge(2.0 * penalty).fit(x, y)
        np.testing.assert_allclose(weight, expected.coef_.T, atol=1e-9)
        np.testing.assert_allclose(bias, expected.intercept_, atol=1e-9)


def test_a_linear_map_finds_what_is_linear_and_what_is_private(rng: np.random.Generator) -> None:
    x = rng.normal(size=(150, 6))
    x -= x.mean(0)
    z = x @ rng.normal(size=(6, 3)) + 2
    private = np.sqrt(0.7) * (~np.eye(150, dtype=bool))
    d = np.sqrt(cdist(z, z, "sqeuclidean") + 2 * private**2)
    found = fit_linear(x, d, 3, np.arange(150), rng)
    placed = x @ found.weight + found.bias
    np.testing.assert_allclose(cdist(placed, placed), cdist(z, z), rtol=0.05, atol=0.05)
    assert found.uniqueness == pytest.approx(0.7, rel=0.1)
    assert found.held_out_r2 > 0.99


def test_axes_that_features_do_not_tell_are_not_stretched(rng: np.random.Generator) -> None:
    """Unbounded weights made of noise what distances lack: R2 of new samples below -10."""
    x, z = rng.normal(size=(40, 39)), rng.normal(size=(60, 40))
    x = np.vstack([x, rng.normal(size=(20, 39))])
    d = cdist(z, z)
    found = fit_linear(x[:40], d[:40, :40], 10, np.arange(40), rng)
    placed = x @ found.weight + found.bias
    squared = cdist(placed[40:], placed[:40], "sqeuclidean") + 2 * found.uniqueness
    assert np.median(squared) < 1.5 * np.median(d[40:, :40] ** 2)


def test_folds_hold_whole_groups_and_are_of_one_size(rng: np.random.Generator) -> None:
    groups = np.repeat(np.arange(20), rng.integers(1, 6, 20))
    folds = folds_of(groups, 5, rng)
    assert np.ptp(np.bincount(folds)) <= 2
    assert (pd.Series(folds).groupby(groups).nunique() == 1).all()
    train, held_out = split_samples(groups, 0.8, rng)
    assert not set(groups[train]) & set(groups[held_out])
    assert 0.1 * len(groups) < len(held_out) <= 0.25 * len(groups) + 1


def test_stress_leaves_the_diagonal_out_and_has_no_broken_gradient() -> None:
    d = torch.tensor([[9.0, 2.0, 1.0], [2.0, 9.0, 4.0], [1.0, 4.0, 9.0]])
    other = torch.zeros(3, 3)
    found = stress(other, d, among_themselves=True)
    torch.testing.assert_close(found, torch.tensor([2.5, 10.0, 8.5]))
    torch.testing.assert_close(
        stress(other[:2], d[:2], among_themselves=False)[0], d[0].square().mean()
    )
    assert not stress(d, d, among_themselves=True).any()
    z = torch.zeros(4, 2, requires_grad=True)  # all samples at one place
    squared = squared_distances(z, torch.zeros(4), 4)
    stress((squared + 1e-12).sqrt(), torch.ones(4, 4), among_themselves=True).sum().backward()
    assert z.grad.isfinite().all()


def test_distances_are_those_of_positions_with_a_private_axis_each() -> None:
    torch.manual_seed(0)
    z, u = torch.randn(5, 3), torch.rand(5)
    places = torch.cat([z, torch.diag(u.sqrt())], 1)
    expected = torch.cdist(places, places).square()
    off = ~torch.eye(5, dtype=torch.bool)
    torch.testing.assert_close(squared_distances(z, u, 5)[off], expected[off])
    torch.testing.assert_close(squared_distances(z, u, 2), expected[:2, 2:])


def test_the_network_starts_at_the_linear_map(rng: np.random.Generator) -> None:
    x = rng.normal(size=(30, 4))
    linear = fit_linear(x, cdist(x, x), 3, np.arange(30), rng)
    network = ResidualMap(4, 3, n_layers=2, n_hidden=5, dropout_rate=0.0)
    network.start(linear)
    z, u = network(torch.from_numpy(x).float())
    np.testing.assert_allclose(z.detach(), x @ linear.weight + linear.bias, atol=1e-5)
    np.testing.assert_allclose(u.detach(), linear.uniqueness, rtol=1e-5)


def test_the_learning_rate_rises_and_falls_once() -> None:
    rates = [one_cycle(p) for p in np.linspace(0, 1, 101)]
    assert rates[0] == pytest.approx(FIRST_RATE)
    assert rates[round(100 * RISE)] == pytest.approx(1)
    assert rates[-1] == pytest.approx(LAST_RATE, abs=1e-9)
    assert int(np.argmax(rates)) == round(100 * RISE)


def test_features_are_what_they_are_called(cohort) -> None:
    x = cohort.X.toarray()
    branches = read_branches(cohort, "tree")
    share = x / x.sum(1, keepdims=True)
    below, root = share @ branches.above.toarray(), np.sqrt(branches.length)
    expected = {
        "abundance": np.sqrt(share),
        "presence": x > 0,
        "branch_abundance": np.sqrt(below) * root,
        "branch_presence": (below > 0) * root,
    }
    features = Features(branches)
    for kind in KINDS:
        found = features.block(torch.from_numpy(x), kind).numpy()
        np.testing.assert_allclose(found, expected[kind], atol=2e-5)


def test_squared_lengths_of_branches_are_unifrac(cohort) -> None:
    """Of presence, squared distances count the length of branches that one sample has alone."""
    features = Features(read_branches(cohort, "tree"))
    block = (
        features.block(torch.from_numpy(cohort.X.toarray()), "branch_presence").double().numpy()
    )
    unique, length = cdist(block, block, "sqeuclidean"), np.square(block).sum(1)
    shared = (length[:, None] + length - unique) / 2
    expected = cohort.obsp["unweighted_unifrac"]
    np.testing.assert_allclose(unique / (unique + shared), expected, atol=1e-5)


def test_components_of_new_samples_are_those_of_the_projection(cohort) -> None:
    features = Features(read_branches(cohort, "tree"))
    x = torch.from_numpy(cohort.X.toarray())
    x[7] = 0
    blocks = {kind: features.block(x, kind).numpy() for kind in KINDS}
    own = {kind: block[:40] for kind, block in blocks.items()}
    projection = project(own, candidates(has_tree=True)[1:2])[0]
    features.take(projection)
    components, novelty = features(x)
    expected, of_numpy = projection.of(blocks, x.sum(1).numpy() > 0)
    np.testing.assert_allclose(components, expected, atol=2e-5)
    np.testing.assert_allclose(novelty, of_numpy, atol=2e-5)
    has_counts = np.arange(40) != 7
    np.testing.assert_allclose(
        expected[:40][has_counts], projection.components[has_counts], atol=1e-6
    )
    assert not components[7].any()
    assert (of_numpy[:40] < 1e-5).all()
    assert of_numpy[40:].min() > 0.01
    total = np.square(projection.components).sum() / 40
    assert total == pytest.approx(len(projection.kinds))


def test_minibatches_hold_two_samples_at_least(rng: np.random.Generator) -> None:
    d = cdist(*[rng.normal(size=(11, 2))] * 2)
    for batch_size in (2, 3, 4, 10, 500):
        data = SampleData(
            d, d, np.arange(9), np.arange(9, 11), names=pd.RangeIndex(11), batch_size=batch_size
        )
        seen = [batch["cells"].numpy() for batch in data.train_dataloader()]
        assert len(seen) == data.n_steps >= 50
        assert min(map(len, seen)) >= 2
        counts = np.bincount(np.concatenate(seen), minlength=11)
        assert counts[:9].tolist() == [data.n_passes] * 9
        assert all(len(set(rows)) == len(rows) for rows in seen)
        (validated,) = data.val_dataloader()
        np.testing.assert_allclose(validated["distances"], d[9:, :9], rtol=1e-6)
        assert len(validated["components"]) == 11


def test_agreement_against_definitions(rng: np.random.Generator) -> None:
    true = rng.uniform(1, 2, (13, 40))
    found = agreement([true], [true + 0.1])
    assert found["r"] == pytest.approx(1)
    assert found["r2"] == pytest.approx(1 - 0.01 / true.var())
    assert found["stress"] == pytest.approx(0.1 / np.sqrt(np.mean(true**2)))
    assert found["neighbor_overlap"] == 1
    assert agreement([true], [np.full_like(true, true.mean())])["r2"] == pytest.approx(0)
    by_chance = agreement([true], [rng.uniform(1, 2, (13, 40))])["neighbor_overlap"]
    assert by_chance == pytest.approx(0.25, abs=0.1)


def test_spread_learns_which_samples_are_wrong(rng: np.random.Generator) -> None:
    n, m = 300, 200
    traits = rng.normal(size=(n, 4))
    size = 0.05 * np.exp(traits[:, 0])
    predicted = rng.uniform(2, 3, (n, m))
    true = np.zeros((n + m, n + m))
    own = predicted + size[:, None] * rng.normal(size=(n, 1))  # errors belong to samples
    true[:n, n:] = own
    rows, others = np.arange(n), np.arange(n, n + m)
    held_out = Prediction(
        rows[:200], others, predicted[:200] ** 2, np.zeros((200, 200)), traits[:200]
    )
    assert excess_of([held_out], true) < 0.1
    spread = fit_spread([held_out], true)
    half = spread.factor(0.9) * spread.expected(traits[200:])
    hits = np.abs(own - predicted)[200:] <= half[:, None]
    assert 0.88 < hits.mean() < 0.985
    known = np.abs(own - predicted)[:200] / spread.expected(traits[:200])[:, None]
    of_samples = np.sort((known <= spread.factor(0.9)).mean(1))
    assert of_samples.mean() >= 0.89
    assert of_samples[:20].mean() >= 0.69
    assert spread.factor(0.5) < spread.factor(0.9) < spread.factor(0.99)
    constant = np.quantile(np.abs(own - predicted)[:200], 0.9)
    assert half.mean() < constant * 2
    large = traits[200:, 0] > 1.3
    assert hits[large].mean() > (np.abs(own - predicted)[200:][large] <= constant).mean() + 0.2


def test_presence_is_blamed_for_depth_where_it_was_read() -> None:
    facts = {"negative share": 0.0, "private share": 0.5, "depth and position": 0.0}
    facts["depth and uniqueness"] = -0.8
    for kinds, remedy in ((["presence"], "leave presence"), (["abundance"], "of like depth")):
        rows = rows_of(facts, {"r2": 0.9, "stress": 0.1}, kinds)
        assert remedy in check_table(rows)["advice"]["depth and uniqueness"]
