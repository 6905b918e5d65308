"""The network that reads shares off a sample: its mixtures, its losses, what it is good for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from scovert.core._losses import dirichlet
from scovert.model.bulk._cohort import Cohort
from scovert.model.bulk._joint_fit import fit_cohort
from scovert.model.bulk._signature import Signature
from scovert.model.bulk._states import find_states
from scovert.model.bulk.variants import _network as network
from scovert.model.bulk.variants._network import fit_network

N_SAMPLES, N_GENES = 5, 13
STATE_TYPE = np.array([0, 0, 1, 2, 2, 2, 3])


@pytest.fixture
def cohort() -> Cohort:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(N_GENES), len(STATE_TYPE))
    cpm = rng.dirichlet(np.ones(len(STATE_TYPE)), N_SAMPLES) @ shares * 1e6
    return Cohort.of(cpm, shares, np.full(shares.shape, 0.1), None)


def blood_mixtures(
    n_samples: int, shift_sd: float, seed: int
) -> tuple[Cohort, np.ndarray, np.ndarray, np.ndarray]:
    """Mix held-out cells and shift genes: cohort, states, true shares, profiles of the types."""
    from scovert import data

    adata = data.pbmc68k()
    kinds = ["CD14+ Monocyte", "CD19+ B", "CD4+/CD25 T Reg", "CD56+ NK"]
    adata = adata[adata.obs["cell_type"].isin(kinds)].copy()
    labels = adata.obs["cell_type"].cat.remove_unused_categories().array
    rng = np.random.default_rng(seed)
    is_reference = rng.random(adata.n_obs) < 0.5
    counts, own = adata.X[is_reference], labels[is_reference]
    signature = Signature.of(counts, adata.var_names, own, find_states(counts, own, 2, 0), None)
    profiles = signature.restricted(adata.var_names, 100)
    genes = adata.var_names.get_indexer(profiles.genes)
    held_out = np.stack([_mean(adata.X[~is_reference & (labels == k)]) for k in profiles.types])[
        :, genes
    ]
    shares = rng.dirichlet(np.ones(len(kinds)), n_samples)
    held_out /= held_out.sum(1, keepdims=True)
    mean = shares @ held_out * np.exp(rng.normal(0, shift_sd, len(genes)))
    counts = rng.poisson(mean / mean.sum(1, keepdims=True) * 1e7)
    cpm = (counts / counts.sum(1, keepdims=True) * 1e6)[:, profiles.informative]
    at = profiles.informative
    cohort = Cohort.of(cpm, profiles.shares[:, at], profiles.variance[:, at], 10.0)
    return cohort, profiles.state_type, shares, profiles.type_shares[:, at]


def _mean(counts) -> np.ndarray:
    return np.asarray(counts.mean(0)).ravel()


def test_gradient_of_every_parameter(cohort: Cohort) -> None:
    torch.manual_seed(0)
    mixtures = network.SimulatedMixtures(cohort, STATE_TYPE)
    mixtures.renew()
    net = network.ShareNetwork(N_GENES, 4)
    x, shares = mixtures.draw(67)
    logits, log_total = net(x)
    assert logits.shape == (67, 4)
    assert log_total.shape == (67, 1)
    dirichlet(network.concentration_of(logits, log_total), shares).mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_without_noise_an_input_is_the_log_of_a_linear_mixture(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JITTER_SD", "SHIFT_SD", "SCALE_SD", "OUTLIER_SD", "MISSING"):
        monkeypatch.setattr(network, name, 0.0)
    kinds = np.arange(len(STATE_TYPE))  # a type of one state has one profile
    certain = Cohort(cohort.cpm, cohort.millions, cohort.profiles, 0 * cohort.variance)
    mixtures = network.SimulatedMixtures(certain, kinds)
    mixtures.renew()
    x, shares = mixtures.draw(67)
    mixed = shares.numpy() @ cohort.profiles.numpy()
    center = np.log(cohort.profiles.numpy().mean(0) + 10)
    np.testing.assert_allclose(x.numpy(), np.log(mixed + 10) - center, rtol=1e-4, atol=1e-4)


def test_simulated_shares_cover_the_simplex(cohort: Cohort) -> None:
    torch.manual_seed(0)
    shares = network.SimulatedMixtures(cohort, STATE_TYPE)._shares(4000)
    torch.testing.assert_close(shares.sum(-1), torch.ones(4000))
    assert (shares < 1e-6).float().mean() > 0.08  # types are absent
    assert shares.max() > 0.98
    np.testing.assert_allclose(shares.mean(0), 0.25, atol=0.02)  # no type is favoured


def test_profiles_of_types_keep_to_their_states(cohort: Cohort) -> None:
    torch.manual_seed(0)
    mixtures = network.SimulatedMixtures(cohort, STATE_TYPE)
    mixtures.variance = 0 * mixtures.variance
    mixtures.renew()
    assert mixtures.pools.shape == (4, network.N_POOLS, N_GENES)
    profile = cohort.profiles[2]  # of the only state of type 1
    ratio = (mixtures.pools[1] / profile).log()
    assert 0.1 < ratio.std() < 0.3
    assert ratio.mean().abs() < 0.05


def test_result_is_a_distribution_and_reproducible(cohort: Cohort) -> None:
    before = torch.get_rng_state()
    steps = []
    fit = fit_network(cohort, STATE_TYPE, n_steps=20, on_step=lambda: steps.append(1))
    assert torch.equal(before, torch.get_rng_state())
    assert len(steps) == len(fit.objective) == 20
    assert fit.concentration.shape == (N_SAMPLES, 4)
    assert (fit.concentration > 0).all()
    np.testing.assert_allclose(fit.weights.sum(1), 1)
    again = fit_network(cohort, STATE_TYPE, n_steps=20)
    np.testing.assert_array_equal(fit.concentration, again.concentration)
    other = fit_network(cohort, STATE_TYPE, n_steps=20, seed=1)
    assert not np.allclose(fit.concentration, other.concentration)
    one = Cohort(cohort.cpm[:1], cohort.millions, cohort.profiles, cohort.variance)
    alone = fit_network(one, STATE_TYPE, n_steps=20)
    np.testing.assert_allclose(alone.weights, fit.weights[:1], atol=1e-5)


def test_a_fit_without_a_bar_reports_no_devices(
    cohort: Cohort, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fit_network(cohort, STATE_TYPE, n_steps=3)
    assert [r.getMessage() for r in caplog.records if r.name.startswith("lightning")] == []


def test_draws_are_those_of_a_dirichlet_distribution(cohort: Cohort) -> None:
    fit = network.NetworkFit(np.array([[0.3, 2.0, 5.0], [9.0, 1.0, 0.5]]), [])
    draws = fit.draws(20_000, np.random.default_rng(0))
    assert draws.shape == (20_000, 2, 3)
    np.testing.assert_allclose(draws.sum(-1), 1)
    total = fit.concentration.sum(1, keepdims=True)
    np.testing.assert_allclose(draws.mean(0), fit.weights, atol=0.005)
    variance = fit.weights * (1 - fit.weights) / (total + 1)
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.05)


def test_states_share_what_their_type_has() -> None:
    fit = network.NetworkFit(np.array([[2.0, 3.0, 4.0, 1.0]]), [])
    weights = fit.by_state(STATE_TYPE)
    np.testing.assert_allclose(weights, [[0.1, 0.1, 0.3, 0.4 / 3, 0.4 / 3, 0.4 / 3, 0.1]])


def test_a_profile_that_is_not_finite_is_told(cohort: Cohort) -> None:
    bad = Cohort(cohort.cpm, cohort.millions, cohort.profiles * torch.inf, cohort.variance)
    with pytest.raises(FloatingPointError, match="`loss` became NaN .* step 0.* in the reference"):
        fit_network(bad, STATE_TYPE, n_steps=3)


def test_kept_weights_leave_the_shifts_to_be_fitted() -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(200), 3)
    weights = rng.dirichlet(np.ones(3), 12)
    shift = rng.normal(0, 0.5, 200)
    cohort = Cohort.of(weights @ shares * np.exp(shift) * 1e6, shares, 0 * shares, None)
    fit = fit_cohort(cohort, weights=weights)
    np.testing.assert_allclose(fit.weights, weights, atol=1e-4)
    assert np.corrcoef(fit.shift, shift)[0, 1] > 0.99
    assert fit.residual_sd < 0.05 < 0.3 < fit.shift_sd


@pytest.mark.parametrize("n_steps", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_shifted_genes_mislead_the_network_less_than_least_squares(n_steps: int) -> None:
    cohort, state_type, truth, profiles = blood_mixtures(30, shift_sd=0.7, seed=0)
    fit = fit_network(cohort, state_type, n_steps=n_steps)
    plain = np.stack([nnls(1e6 * profiles.T, y)[0] for y in cohort.cpm.double().numpy()])
    plain /= plain.sum(1, keepdims=True)
    errors = [np.sqrt(((w - truth) ** 2).mean()) for w in (fit.weights, plain)]
    assert errors[0] < 0.65 * errors[1]
    r = [np.corrcoef(fit.weights[:, k], truth[:, k])[0, 1] for k in range(4)]
    assert min(r) > 0.93
    low, high = np.quantile(fit.draws(400, np.random.default_rng(0)), [0.05, 0.95], axis=0)
    assert 0.7 < ((low <= truth) & (truth <= high)).mean() < 0.99
