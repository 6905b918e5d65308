"""The solvers of LatentConfounder that train networks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pyro
import pytest
import torch
from anndata import AnnData
from numpy.typing import NDArray
from pyro.infer import TraceEnum_ELBO, TraceMeanField_ELBO
from scipy import sparse, stats
from scipy.special import expit, logsumexp
from sklearn.linear_model import LogisticRegression

from scovert import simulate
from scovert.core.dataloaders._cells import CellTensors
from scovert.model import LatentConfounder
from scovert.model.confounder._designed import design_of, designed_cells
from scovert.model.confounder.fit import _amortized as amortized_file
from scovert.model.confounder.fit._amortized import AmortizedPlan, fit_amortized, scores_by_network
from scovert.model.confounder.fit._amortized_module import AmortizedModule, CountVector
from scovert.model.confounder.glm import CountBlocks, fit_factors, fit_regression, fit_states
from scovert.model.confounder.variants import _alternating as alternating_file
from scovert.model.confounder.variants._alternating import (
    AlternatingOptions,
    _Rounds,
    _set_scale,
    fit_alternating,
)
from scovert.model.confounder.variants._alternating_module import (
    AlternatingModule,
    binarise,
)

pytestmark = pytest.mark.usefixtures("few_classes")
N_CELLS, N_GENES, N_COVARIATES = 61, 11, 2
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
SHORT = {"max_epochs": 2, "enable_progress_bar": False, "accelerator": "cpu"}


def make_cells(n_arms: int = 1, seed: int = 0, n_cells: int = N_CELLS) -> object:
    """Counts of two covariates, arms and size factors, without any effect."""
    rng = np.random.default_rng(seed)
    level = rng.integers(0, n_arms + 1, n_cells)
    x = np.stack([rng.normal(size=n_cells), rng.integers(0, 2, n_cells)], 1)
    design = np.hstack([np.ones((n_cells, 1)), x, np.eye(n_arms + 1)[level][:, 1:]])
    size = rng.normal(0, 0.3, n_cells)
    mean = np.exp(rng.normal(0, 1, N_GENES) + size[:, None])
    counts = sparse.csr_matrix(rng.negative_binomial(2, 2 / (2 + mean)).astype(np.float32))
    return designed_cells(counts, design, n_arms, size)


def regression_of(cells: object) -> object:
    blocks = CountBlocks(cells.counts, cells.columns["log_size"].ravel())
    return fit_regression(blocks, design_of(cells))


def cells_of(adata: AnnData) -> object:
    """Simulated cells as the solvers take them."""
    covariates = adata.obs.filter(like="covariate").to_numpy(float)
    treatment = adata.obs["treatment"].to_numpy(float)
    design = np.column_stack([np.ones(adata.n_obs), covariates, treatment])
    size = adata.obs["size_factor"].to_numpy(float)
    return designed_cells(sparse.csr_matrix(adata.X), design, 1, np.log(size))


def leak(adata: AnnData, scores: NDArray) -> float:
    """Largest correlation of scores with the treatment given covariates and true confounders."""
    covariates = adata.obs.filter(like="covariate").to_numpy(float)
    known = np.column_stack([np.ones(adata.n_obs), covariates, adata.obsm["truth_confounder"]])
    treatment = adata.obs["treatment"].to_numpy(float)
    z, d = (v - known @ np.linalg.lstsq(known, v, rcond=None)[0] for v in (scores, treatment))
    return max(abs(np.corrcoef(column, d)[0, 1]) for column in z.T)


def recovery(adata: AnnData, scores: NDArray) -> NDArray:
    """Multiple correlation of every true confounder with the scores."""
    truth = np.asarray(adata.obsm["truth_confounder"], float)
    columns = np.column_stack([np.ones(len(scores)), scores])
    rest = truth - columns @ np.linalg.lstsq(columns, truth, rcond=None)[0]
    return np.sqrt(1 - rest.var(0) / truth.var(0))


def negative_binomial(x: NDArray, mean: NDArray, theta: NDArray) -> NDArray:
    return stats.nbinom.logpmf(x, theta, theta / (theta + mean))


# --- pieces


def test_a_cut_has_the_gradient_of_the_sigmoid() -> None:
    logits = torch.tensor([-2.0, -0.1, 0.1, 3.0], dtype=torch.float64, requires_grad=True)
    cut = binarise(logits)
    assert cut.tolist() == [0, 0, 1, 1]
    (cut * torch.arange(1.0, 5.0)).sum().backward()
    probability = expit(logits.detach().numpy())
    np.testing.assert_allclose(logits.grad, probability * (1 - probability) * np.arange(1, 5))


def test_a_vector_of_counts_has_the_likelihood_of_scipy_for_all_states() -> None:
    rng = np.random.default_rng(1)
    mean, theta = rng.gamma(2, 1, (2, 3, 5, 7)), rng.gamma(2, 1, 7)
    x = rng.poisson(2, (5, 7)).astype(float)
    ours = CountVector(torch.tensor(mean), torch.tensor(theta)).log_prob(torch.tensor(x))
    assert ours.shape == (2, 3, 5)
    np.testing.assert_allclose(ours, negative_binomial(x, mean, theta).sum(-1), atol=1e-5)


# --- alternating


def alternating_module(cells: object, **options: object) -> AlternatingModule:
    torch.manual_seed(0)
    n_arms = cells.columns["arms"].shape[1]
    options = {"z_type": "binary"} | options
    return AlternatingModule(N_GENES, N_COVARIATES, n_arms, 2, **options)


@pytest.mark.parametrize("n_arms", [1, 3])
def test_predictors_start_at_the_regressions(n_arms: int) -> None:
    cells = make_cells(n_arms, n_cells=200)
    start = regression_of(cells)
    options = AlternatingOptions(n_rounds=0)
    held = {}

    class Stop(Exception):
        pass

    def stop(rounds: _Rounds) -> None:
        held["module"] = rounds.module
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Rounds, "train_predictors", stop)
        with pytest.raises(Stop):
            fit_alternating(cells, start, n_latent=2, options=options, enable_progress_bar=False)
    module = held["module"]
    batch = CellTensors(cells)[np.arange(200)]
    without = torch.zeros(200, 2)
    expected = np.exp(design_of(cells) @ start.coefficients + cells.columns["log_size"])
    np.testing.assert_allclose(module.mean(batch, without).detach(), expected, rtol=1e-4)
    np.testing.assert_allclose(module.log_theta.exp().detach(), 1 / start.dispersion, rtol=1e-5)
    # scikit-learn's penalty is half the sum of squares, once for the sum over cells
    ours = module.log_odds(batch, without).detach().numpy()
    x, level = cells.columns["covariates"], cells.columns["level"]
    if n_arms == 1:
        fit = LogisticRegression(C=1 / (2 * 200 * 1e-3), tol=1e-8).fit(x, level)
        np.testing.assert_allclose(ours[:, 0], fit.decision_function(x), atol=2e-3)
    else:
        probability = torch.softmax(torch.nn.functional.pad(torch.tensor(ours), (1, 0)), 1).mean(0)
        np.testing.assert_allclose(probability, np.bincount(level) / 200, atol=1e-3)


@pytest.mark.parametrize("scale", ["mean", "joint"])
@pytest.mark.parametrize("dbpr_weight", [0.0, 0.7])
def test_the_generator_minimises_the_documented_loss(scale: str, dbpr_weight: float) -> None:
    cells = make_cells()
    module = alternating_module(cells)
    start = regression_of(cells)
    module.warm_start(start.coefficients, start.dispersion)
    rounds = _Rounds(
        module, CellTensors(cells), AlternatingOptions(scale=scale, dbpr_weight=dbpr_weight), 0
    )
    rows = np.arange(17)
    batch = rounds.cells.minibatch(rows, len(rows))
    z = (torch.arange(34).view(17, 2) % 3 == 0).float()
    loss = module.loss(batch, z, **rounds.judgement).item()

    # The same with numpy and scipy
    level, theta = cells.columns["level"], 1 / start.dispersion
    counts = cells.counts.toarray()

    def predictions(some: NDArray, hidden: NDArray) -> tuple[NDArray, NDArray]:
        part = CellTensors(cells)[some]
        with torch.no_grad():
            hidden = torch.as_tensor(hidden, dtype=torch.float32)
            return module.log_odds(part, hidden).numpy()[:, 0], module.mean(part, hidden).numpy()

    def cross_entropy(log_odds: NDArray, d: NDArray) -> float:
        return float(np.mean(-np.log(np.where(d == 1, expit(log_odds), expit(-log_odds)))))

    def deviance(x: NDArray, mean: NDArray) -> NDArray:
        ratio = np.where(x > 0, x * np.log(np.maximum(x, 1) / mean), 0)
        return 2 * (ratio - (x + theta) * np.log((x + theta) / (mean + theta))).mean(0)

    trained = rounds.rows
    odds_0, mean_0 = predictions(trained, np.zeros((len(trained), 2)))
    odds, mean = predictions(rows, z.numpy())
    bce, bce_0 = cross_entropy(odds, level[rows]), cross_entropy(odds_0, level[trained])
    nb = -negative_binomial(counts[rows], mean, theta).sum(1).mean() / N_GENES
    dbpr = 1 - deviance(counts[rows], mean) / deviance(counts[trained], mean_0)
    weight = 1 if scale == "mean" else 1 / N_GENES
    reward = weight * (1 - bce / bce_0) + dbpr.mean()
    assert loss == pytest.approx(weight * bce + nb - dbpr_weight * reward, rel=1e-4)


def test_rounds_train_one_side_and_leave_the_other() -> None:
    cells = make_cells(n_arms=2)
    module = alternating_module(cells)
    _set_scale(module, cells)
    start = regression_of(cells)
    module.warm_start(start.coefficients, start.dispersion)
    options = AlternatingOptions(n_rounds=2)
    rounds = _Rounds(module, CellTensors(cells), options, 0)

    def changed(step: object) -> set[str]:
        before = {k: v.detach().clone() for k, v in module.named_parameters()}
        step()
        after = dict(module.named_parameters())
        return {k for k, v in before.items() if not torch.equal(v, after[k])}

    names = {name for name, _ in module.named_parameters()}
    generator = {name for name in names if name.startswith("generator.")}
    assert changed(rounds.train_predictors) == names - generator
    assert changed(rounds.train_generator) == generator
    assert all(p.requires_grad for p in module.parameters())


def test_predictors_stop_when_held_out_cells_gain_nothing() -> None:
    cells = make_cells(n_cells=150)
    module = alternating_module(cells)
    rounds = _Rounds(module, CellTensors(cells), AlternatingOptions(), 0)
    outputs, losses = rounds._outputs(), iter([3.0, 2.0, 1.9, 1.95, 1.9, 0.1])
    rounds._held_out_loss = lambda *_: next(losses)
    stopped = rounds._train_predictor(module.outcome_loss, rounds.optimizers[2], outputs)
    assert stopped == 1.9  # two epochs after the best one, before the one that would be better
    assert len(rounds.held_out) == 15
    assert not set(rounds.held_out) & set(rounds.rows)


@pytest.mark.parametrize("z_type", ["binary", "continuous"])
def test_alternating_is_the_same_for_a_seed_and_leaves_other_draws_alone(z_type: str) -> None:
    cells = make_cells()
    start = regression_of(cells)
    options = AlternatingOptions(z_type=z_type, n_rounds=2)

    def fit(seed: int) -> object:
        return fit_alternating(
            cells, start, n_latent=2, options=options, seed=seed, enable_progress_bar=False
        )

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = fit(0), fit(0), fit(1)
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(first.scores, again.scores)
    np.testing.assert_array_equal(first.effects, again.effects)
    assert not np.array_equal(first.effects, other.effects)
    assert (set(np.unique(first.scores)) <= {0, 1}) == (z_type == "binary")
    assert list(first.history["generator_loss"].index) == [2, 4]
    assert list(first.history["outcome_loss"].index) == [1, 3, 5]
    assert first.scores.shape == (N_CELLS, 2)
    assert first.effects.shape == (1, N_GENES)
    np.testing.assert_allclose(first.scores, scores_by_network(first.module, cells), atol=1e-6)


@pytest.mark.parametrize(("scale", "low", "high"), [("mean", 0.9, 1.0), ("joint", 0.0, 0.25)])
def test_the_mean_over_genes_copies_the_treatment_and_the_joint_likelihood_does_not(
    scale: str, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With 400 cells a correlation of .05 is chance, and .16 occurs among eight fits
    monkeypatch.setattr(alternating_file, "MAX_EPOCHS", 3)
    adata = simulate.confounder("null", n_cells=400, n_genes=60, seed=1)
    cells = cells_of(adata)
    options = AlternatingOptions(scale=scale, n_rounds=10, batch_size=16)
    fit = fit_alternating(
        cells, regression_of(cells), n_latent=1, options=options, enable_progress_bar=False
    )
    assert low <= leak(adata, fit.scores) <= high
    assert (fit.dbpr_treatment > 0.5) == (scale == "mean")
    if scale == "joint":
        assert recovery(adata, fit.scores)[0] > 0.8
        assert fit.dbpr_outcome.mean() > 0.03


# --- amortised


def amortized_module(cells: object, z_type: str, n_latent: int = 2) -> AmortizedModule:
    """Module with parameters that are no special case."""
    torch.manual_seed(0)
    module = AmortizedModule(N_GENES, design_of(cells).shape[1], n_latent, z_type=z_type)
    with torch.no_grad():
        for parameter in (module.coefficients, module.loadings, module.log_theta):
            parameter.normal_(std=0.5)
        if z_type == "binary":
            module.prior_logits.copy_(torch.tensor([0.4, -0.7, 0.2])[:n_latent])
    return module.double()


def arguments(module: AmortizedModule, cells: object) -> tuple[torch.Tensor, ...]:
    batch = CellTensors(cells)[np.arange(len(cells.columns["cells"]))]
    return tuple(v.double() for v in module._get_fn_args_from_batch(batch)[0])


def log_joint(module: AmortizedModule, cells: object, bits: NDArray) -> NDArray:
    """Log-probability of counts and bits, shape ``(n_cells,)``, with scipy."""
    b, g, log_theta, prior = (
        p.detach().numpy()
        for p in (module.coefficients, module.loadings, module.log_theta, module.prior_logits)
    )
    log_mean = design_of(cells) @ b + cells.columns["log_size"] + (bits - 0.5) @ g
    likelihood = negative_binomial(cells.counts.toarray(), np.exp(log_mean), np.exp(log_theta))
    log_prior = np.log(np.where(bits == 1, expit(prior), expit(-prior))).sum()
    return likelihood.sum(1) + log_prior


def test_the_bound_is_exact_when_the_guide_is_the_posterior() -> None:
    cells = make_cells()
    module = amortized_module(cells, "binary", n_latent=1)
    joint = np.stack([log_joint(module, cells, np.array([bit])) for bit in (0, 1)], 1)
    evidence = logsumexp(joint, axis=1).mean()
    elbo, inputs = TraceEnum_ELBO(max_plate_nesting=1), arguments(module, cells)
    log_odds = torch.tensor(joint[:, 1:] - joint[:, :1])
    module.encode = lambda *_: log_odds
    assert elbo.loss(module.model, module.guide, *inputs) == pytest.approx(-evidence, rel=1e-5)
    module.encode = lambda *_: log_odds * 0.5
    assert elbo.loss(module.model, module.guide, *inputs) > -evidence + 1e-3


def test_the_bound_sums_over_all_states_of_three_bits() -> None:
    cells = make_cells()
    module = amortized_module(cells, "binary", n_latent=3)
    inputs = arguments(module, cells)
    probability = expit(module.encode(*inputs).detach().numpy())
    expected = 0.0
    for state in range(8):
        bits = np.array([state >> j & 1 for j in range(3)])
        each = np.where(bits == 1, probability, 1 - probability)
        weight = each.prod(1)
        expected += (weight * (log_joint(module, cells, bits) - np.log(each).sum(1))).mean()
    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    assert elbo.loss(module.model, module.guide, *inputs) == pytest.approx(-expected, rel=1e-5)


def test_the_divergence_of_continuous_confounders_is_in_closed_form() -> None:
    cells = make_cells()
    module = amortized_module(cells, "continuous")
    with torch.no_grad():
        module.loadings.zero_()  # then nothing is left to chance
    inputs = arguments(module, cells)
    mean, log_variance = module.encode(*inputs).detach().numpy().reshape(-1, 2, 2).swapaxes(0, 1)
    log_mean = inputs[1] @ module.coefficients + inputs[2]
    means = log_mean.exp().detach().numpy()
    theta = module.log_theta.exp().detach().numpy()
    fit = negative_binomial(cells.counts.toarray(), means, theta).sum(1)
    divergence = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
    loss = TraceMeanField_ELBO().loss(module.model, module.guide, *inputs)
    assert loss == pytest.approx((divergence - fit).mean(), rel=1e-5)


def test_the_guide_sees_the_treatment_only_through_what_it_explains() -> None:
    cells = make_cells()
    module = amortized_module(cells, "continuous")
    x, design, log_size = arguments(module, cells)
    other = design.clone()
    other[:, -1] = 1 - other[:, -1]
    assert not torch.allclose(
        module.encode(x, design, log_size), module.encode(x, other, log_size)
    )
    with torch.no_grad():
        module.coefficients[-1] = 0
    assert torch.equal(module.encode(x, design, log_size), module.encode(x, other, log_size))


@pytest.mark.parametrize("z_type", ["binary", "continuous"])
def test_every_parameter_learns(z_type: str) -> None:
    cells = make_cells()
    module = amortized_module(cells, z_type)
    elbo = TraceEnum_ELBO(max_plate_nesting=1) if z_type == "binary" else TraceMeanField_ELBO()
    inputs = arguments(module, cells)
    elbo.differentiable_loss(module.model, module.guide, *inputs).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize("z_type", ["binary", "continuous"])
def test_amortized_is_the_same_for_a_seed_and_leaves_nothing_behind(z_type: str) -> None:
    cells = make_cells(n_arms=2)
    pyro.clear_param_store()
    pyro.param("of somebody else", torch.ones(1))

    def fit(seed: int) -> object:
        return fit_amortized(cells, n_latent=2, z_type=z_type, seed=seed, max_epochs=3, **QUIET)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = fit(0), fit(0), fit(1)
    assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store().keys()) == ["of somebody else"]
    np.testing.assert_array_equal(first.scores, again.scores)
    assert not np.array_equal(first.scores, other.scores)
    assert first.history["train_loss"].shape == (3, 1)
    np.testing.assert_allclose(first.scores, scores_by_network(first.module, cells), atol=1e-6)
    design = design_of(cells)
    if z_type == "continuous":
        np.testing.assert_allclose(first.scores.T @ design, 0, atol=1e-3)
        np.testing.assert_allclose(first.scores.T @ first.scores / N_CELLS, np.eye(2), atol=1e-4)
    else:
        assert ((first.scores >= 0) & (first.scores <= 1)).all()


def test_training_lowers_the_loss() -> None:
    cells = make_cells(n_cells=300)
    fit = fit_amortized(cells, n_latent=1, z_type="continuous", max_epochs=20, **QUIET)
    loss = fit.history["train_loss"].to_numpy().ravel()
    assert loss[-1] < loss[0] - 0.1


def test_the_rate_falls_to_zero_and_only_the_network_decays() -> None:
    module = amortized_module(make_cells(), "binary")
    plan = AmortizedPlan(module, n_steps=4, lr=0.02)
    config = plan.configure_optimizers()
    optimizer, schedule = config["optimizer"], config["lr_scheduler"]["scheduler"]
    assert config["lr_scheduler"]["interval"] == "step"
    network, rest = optimizer.param_groups
    assert {id(p) for p in network["params"]} == {id(p) for p in module.encoder.parameters()}
    assert sum(len(group["params"]) for group in (network, rest)) == len([*module.parameters()])
    assert network["weight_decay"] > 0
    assert rest["weight_decay"] == 0
    rates = []
    for _ in range(5):
        rates.append(rest["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [0.02, 0.015, 0.01, 0.005, 0], atol=1e-12)


def test_large_data_start_from_some_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the seeds of the fit, some turn the singular vectors by 45 degrees from the truth."""
    adata = simulate.confounder("sparse", n_cells=500, n_genes=60, n_confounders=2, seed=3)
    sizes = []

    def watched(blocks: CountBlocks, *args: object) -> object:
        sizes.append(blocks.n_cells)
        return start_from_residuals(blocks, *args)

    start_from_residuals = amortized_file.start_from_residuals
    monkeypatch.setattr(amortized_file, "MAX_START_CELLS", 300)
    monkeypatch.setattr(amortized_file, "start_from_residuals", watched)
    cells = cells_of(adata)
    blocks = CountBlocks(cells.counts, cells.columns["log_size"].ravel())
    exact = recovery(adata, fit_states(blocks, design_of(cells), 2).probabilities)
    assert exact.min() > 0.95
    for seed in (4, 12):
        options = {"z_type": "binary", "seed": seed, "max_epochs": 20}
        fit = fit_amortized(cells, n_latent=2, **options, **QUIET)
        assert (recovery(adata, fit.scores) > exact - 0.03).all(), seed
    assert sizes == [300] * 2


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize("solver", ["amortized", "alternating"])
def test_training_that_diverges_says_where(solver: str) -> None:
    cells = replace(make_cells(), names=pd.Index([f"cell {i}" for i in range(N_CELLS)]))
    start, options = regression_of(cells), AlternatingOptions(n_rounds=1)
    fits = {
        "amortized": partial(fit_amortized, z_type="binary", max_epochs=9, lr=1e30),
        "alternating": partial(fit_alternating, start=start, options=options),
    }
    if solver == "alternating":
        start.coefficients[:] = np.nan
    with pytest.raises(FloatingPointError, match="became NaN or infinite in epoch") as error:
        fits[solver](cells, n_latent=2, **QUIET)
    assert "extreme values" in str(error.value)
    assert all(name.startswith("cell ") for name in error.value.cells)


# --- in the model


@pytest.fixture
def adata() -> AnnData:
    adata = simulate.confounder("sparse", n_cells=300, n_genes=70, seed=2)
    LatentConfounder.setup_anndata(
        adata,
        "treatment",
        size_factor_key="size_factor",
        continuous_covariate_keys=["covariate_1", "covariate_2"],
    )
    return adata


@pytest.mark.filterwarnings("ignore:A confounder has a correlation")
@pytest.mark.filterwarnings("ignore:True v. False")
@pytest.mark.parametrize("solver", ["amortized", "alternating"])
@pytest.mark.parametrize("z_type", ["binary", "continuous"])
def test_networks_are_saved_and_infer_new_cells(
    adata: AnnData, solver: str, z_type: str, tmp_path: object, seed: int
) -> None:
    model = LatentConfounder(adata, n_latent=2, z_type=z_type)
    model.train(solver, **SHORT)
    latents, effects = model.get_latent_representation(), model.get_treatment_effects()
    assert latents.shape == (300, 2)
    assert np.isfinite(latents).all()
    assert np.isfinite(effects["log2_fc"][effects["reason"] == ""]).all()
    of_scores = {"classes", "sparse", "hybrid"} if z_type == "continuous" else {"classes"}
    expected = {"plug-in"} if solver == "alternating" else of_scores
    assert effects.attrs["identification"] in expected
    model.save(tmp_path)
    loaded = LatentConfounder.load(tmp_path, adata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), latents)
    np.testing.assert_allclose(loaded.get_treatment_effects()["se"], effects["se"], rtol=1e-6)
    some = adata[[7, 3, 250]].copy()
    np.testing.assert_allclose(
        loaded.get_latent_representation(some), latents[[7, 3, 250]], atol=1e-5
    )
    checked = model.check()
    assert checked.loc["leakage", "value"] == model.get_leakage()
    assert any(index.endswith(effects.attrs["identification"]) for index in checked.index)
    classes = model.get_class_probabilities()
    np.testing.assert_allclose(classes.sum(axis=1), 1)
    if solver == "amortized" and z_type == "binary":
        bits = np.arange(4)[:, None] >> np.arange(2) & 1
        np.testing.assert_allclose(classes.to_numpy() @ bits, latents, atol=1e-6)
    model.train("full_batch", enable_progress_bar=False)
    assert model.module.network is None
    assert "deviance" in model.history


def test_a_copy_of_the_treatment_is_warned_about(adata: AnnData, seed: int) -> None:
    model = LatentConfounder(adata, n_latent=1, z_type="binary")
    with pytest.warns(UserWarning, match="given the covariates") as caught:
        model.train("alternating", max_epochs=10, enable_progress_bar=False, accelerator="cpu")
    leakage = model.get_leakage()
    assert leakage > 0.3
    assert f"correlation of {leakage:.2f} with the treatment" in str(caught[0].message)
    for options in ({"identification": "sparse"}, {"negative_controls": adata.var_names[:60]}):
        with pytest.raises(ValueError, match="generator of `solver='alternating'` sees it"):
            model.get_treatment_effects(**options)


def test_no_confounder_needs_no_network(adata: AnnData, seed: int) -> None:
    full_batch = LatentConfounder(adata, n_latent=0)
    full_batch.train(enable_progress_bar=False)
    for solver in ("amortized", "alternating"):
        model = LatentConfounder(adata, n_latent=0)
        model.train(solver, **SHORT)
        assert model.get_latent_representation().shape == (300, 0)
        np.testing.assert_allclose(
            model.get_treatment_effects()["log2_fc"], full_batch.get_treatment_effects()["log2_fc"]
        )


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        ("alternating", {"scale": "sum"}, "`scale='sum'`"),
        ("alternating", {"dbpr_weight": -1}, "`dbpr_weight=-1`"),
        ("alternating", {"lr": 0.1}, "lr"),
        ("amortized", {"lr": -0.1}, "`lr=-0.1`"),
        ("neural", {}, "`solver='neural'`"),
    ],
)
def test_options_of_solvers_are_checked(
    adata: AnnData, solver: str, options: dict, message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        LatentConfounder(adata, n_latent=1).train(solver, **options)


# --- slow


@pytest.mark.slow
def test_amortized_finds_both_bits_of_ten_seeds() -> None:
    for seed in range(10):
        adata = simulate.confounder("sparse", n_confounders=2, seed=seed)
        cells = cells_of(adata)
        fit = fit_amortized(cells, n_latent=2, z_type="binary", max_epochs=40, **QUIET)
        assert recovery(adata, fit.scores).mean() >= 0.99, seed


@pytest.mark.slow
def test_amortized_ends_in_no_poor_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amortized_file, "MAX_START_CELLS", 300)
    for seed in range(30):
        adata = simulate.confounder("sparse", n_cells=500, n_genes=60, n_confounders=2, seed=seed)
        cells = cells_of(adata)
        blocks = CountBlocks(cells.counts, cells.columns["log_size"].ravel())
        exact = recovery(adata, fit_states(blocks, design_of(cells), 2).probabilities)
        options = {"z_type": "binary", "seed": seed, "max_epochs": 20}
        fit = fit_amortized(cells, n_latent=2, **options, **QUIET)
        assert (recovery(adata, fit.scores) > exact - 0.06).all(), seed


@pytest.mark.slow
def test_amortized_effects_are_as_good_as_those_of_the_full_batch() -> None:
    errors = []
    for seed in range(3):
        adata = simulate.confounder_large(n_genes=500, seed=seed)
        cells = cells_of(adata)
        blocks, design = (
            CountBlocks(cells.counts, cells.columns["log_size"].ravel()),
            design_of(cells),
        )
        fits = (
            fit_amortized(cells, n_latent=3, z_type="continuous", **QUIET).scores,
            fit_factors(blocks, design, 3).scores,
        )
        # Scores of the truth: what each leaves of the true confounders is all that differs
        truth = np.asarray(adata.obsm["truth_confounder"], float)
        truth -= design @ np.linalg.lstsq(design, truth, rcond=None)[0]
        rest = [truth - u @ np.linalg.lstsq(u, truth, rcond=None)[0] for u in fits]
        errors.append([np.square(r).mean() for r in rest])
    amortized, full_batch = np.mean(errors, axis=0)
    assert amortized <= 1.1 * full_batch


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_leak_of_both_scales(seed: int) -> None:
    adata = simulate.confounder("null", seed=seed)
    cells = cells_of(adata)
    for scale in ("mean", "joint"):
        fit = fit_alternating(
            cells,
            regression_of(cells),
            n_latent=1,
            options=AlternatingOptions(scale=scale, n_rounds=25),
            enable_progress_bar=False,
        )
        found = leak(adata, fit.scores)
        assert found > 0.9 if scale == "mean" else found <= 0.1
