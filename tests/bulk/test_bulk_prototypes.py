"""Prototypes of cell types: the terms of the loss, training, and what is decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from scvi.distributions import NegativeBinomial
from torch.distributions import Normal, kl_divergence

from scovert.core._losses import SparseCounts
from scovert.model.bulk._signature import Signature, sum_states
from scovert.model.bulk.variants import _prototype_module as prototypes
from scovert.model.bulk.variants import _prototypes as training
from scovert.model.bulk.variants._prototype_module import PrototypeModule
from scovert.model.bulk.variants._prototypes import learn_prototypes

N_CELLS, N_GENES, N_LATENT = 67, 11, 3
KIND = torch.tensor([0, 0, 1, 2, 2])


@pytest.fixture
def module() -> PrototypeModule:
    torch.manual_seed(0)
    log_mean = torch.randn(N_GENES).log_softmax(-1)
    return PrototypeModule(log_mean, KIND, n_latent=N_LATENT, n_hidden=7, dropout_rate=0.0)


@pytest.fixture
def tensors() -> dict:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.poisson(2.0, (N_CELLS, N_GENES)).astype(np.float32))
    label = torch.from_numpy(rng.integers(0, 2, (N_CELLS, 1)))  # type 2 is not in the minibatch
    return {"X": x, "labels": label, "counts": SparseCounts.of(x)}


def test_loss_is_the_sum_of_its_terms(module: PrototypeModule, tensors: dict) -> None:
    weights = {"kl_weight": 0.3, "prototype_weight": 0.7}
    inference, generative, losses = module(tensors, loss_kwargs=weights)
    px = NegativeBinomial(mu=generative["px"].mu, theta=module.px_r.exp())
    reconstruction = -px.log_prob(tensors["X"]).sum(-1)
    torch.testing.assert_close(losses.reconstruction_loss["reconstruction_loss"], reconstruction)
    qz = inference["qz"]
    kl = kl_divergence(qz, Normal(torch.zeros_like(qz.mean), torch.ones_like(qz.mean)))
    kl = kl.clamp(min=prototypes.FREE_BITS).sum(-1)
    # By hand
    mean, label = qz.mean.detach().numpy(), tensors["labels"].squeeze(-1).numpy()
    places, kind = module.prototypes.detach().numpy(), KIND.numpy()
    squared = ((mean[:, None] - places) ** 2).sum(-1)
    nearest = [min(squared[i, m] for m in np.flatnonzero(kind == label[i])) for i in range(67)]
    back = [min(squared[i, m] for i in np.flatnonzero(label == kind[m])) for m in range(3)]
    near = np.mean(nearest) + np.mean(back)
    expected = (reconstruction + 0.3 * kl).mean() + 0.7 * near
    assert losses.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses.extra_metrics["prototype"].item() == pytest.approx(np.mean(nearest), rel=1e-5)


def test_gradient_of_every_parameter(module: PrototypeModule, tensors: dict) -> None:
    *_, losses = module(tensors)
    losses.loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    of_absent = module.prototypes.grad[KIND == 2]
    assert of_absent.eq(0).all()
    assert module.prototypes.grad[KIND < 2].abs().sum(1).gt(0).all()


def test_decoded_shares_sum_to_one(module: PrototypeModule, tensors: dict) -> None:
    shares = module.eval().prototype_shares()
    assert shares.shape == (5, N_GENES)
    assert (shares > 0).all()
    torch.testing.assert_close(shares.sum(-1), torch.ones(5))
    sample = module.sample(tensors)
    assert sample.shape == (N_CELLS, N_GENES)
    outputs = module.inference(tensors["X"])
    px = module.generative(outputs["z"], outputs["library"])["px"]
    torch.testing.assert_close(px.mu.sum(-1), tensors["X"].sum(-1))


@pytest.fixture(scope="module")
def blood() -> tuple[sp.csr_matrix, pd.Index, pd.Categorical, pd.Categorical]:
    """Counts, genes, labels that join B cells and monocytes, and the labels before."""
    from scovert import data

    adata = data.pbmc68k()
    kinds = ["CD14+ Monocyte", "CD19+ B", "CD56+ NK"]
    adata = adata[adata.obs["cell_type"].isin(kinds)].copy()
    fine = adata.obs["cell_type"].cat.remove_unused_categories()
    coarse = fine.astype(str).replace({kinds[0]: "other", kinds[1]: "other"})
    return sp.csr_matrix(adata.X), adata.var_names, pd.Categorical(coarse), fine.array


@pytest.fixture(scope="module")
def fit(blood: tuple) -> training.PrototypeFit:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "WARMUP_STEPS", 150)
        return learn_prototypes(blood[0], blood[2], 2, enable_progress_bar=False)


def test_prototypes_find_the_kinds_within_a_type(blood: tuple, fit: object) -> None:
    _, _, coarse, fine = blood
    is_other = np.asarray(coarse) == "other"
    table = pd.crosstab(fit.states[is_other], np.asarray(fine)[is_other])
    assert table.shape == (2, 2)
    largest = table.to_numpy().max(1).sum() / is_other.sum()
    baseline = table.to_numpy().sum(0).max() / is_other.sum()
    assert baseline < 0.6
    assert largest > 0.9
    assert set(fit.states[~is_other]) == {0}  # 31 cells have one prototype


def test_decoded_profiles_are_those_of_the_cells(blood: tuple, fit: object) -> None:
    counts, genes, coarse, _ = blood
    np.testing.assert_allclose(fit.shares.sum(1), 1)
    learned = Signature.of(counts, genes, coarse, fit.states, None)
    assert fit.shares.shape == learned.counts.shape == (3, len(genes))
    means = learned.counts / learned.counts.sum(1, keepdims=True)
    at = means.mean(0) > 2e-4
    logs = np.log(means[:, at] + 1e-5), np.log(fit.shares[:, at] + 1e-5)
    r = np.corrcoef(*logs)[:3, 3:]
    assert (r.argmax(1) == np.arange(3)).all()
    assert np.diag(r).min() > 0.85
    signature = learned.with_shares(fit.shares)
    np.testing.assert_allclose(signature.counts.sum(1), learned.counts.sum(1))
    np.testing.assert_allclose(signature.counts[1] / signature.counts[1].sum(), fit.shares[1])


def test_training_stops_early_with_the_best_state(fit: object) -> None:
    history = fit.history
    assert {"elbo_train", "elbo_validation", "prototype_validation"} <= set(history)
    elbo = history["elbo_validation"]["elbo_validation"]
    assert np.isfinite(elbo).all()
    assert len(elbo) < training.MAX_EPOCHS
    assert elbo.min() < 0.95 * elbo.iloc[0]
    terms = (history[f"{k}_train"][f"{k}_train"] for k in ("reconstruction_loss", "kl_local"))
    np.testing.assert_allclose(sum(terms), history["elbo_train"]["elbo_train"], rtol=1e-6)


def tiny() -> tuple[sp.csr_matrix, pd.Categorical]:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(1.0, 1.0, (2, N_GENES)).repeat([60, 7], 0)) + 1
    return sp.csr_matrix(counts.astype(np.float32)), pd.Categorical(["a"] * 60 + ["b"] * 7)


def test_cells_are_nearest_to_their_own_type(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, labels = tiny()
    plans = []

    class Watched(training.PrototypePlan):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            plans.append(self)

    monkeypatch.setattr(training, "PrototypePlan", Watched)
    learn_prototypes(counts, labels, 2, max_epochs=60, enable_progress_bar=False)
    mean, label = plans[0].means()
    to_own = plans[0].module.distances(mean, label).min(1).values
    to_other = plans[0].module.distances(mean, 1 - label).min(1).values
    assert (to_own < to_other).float().mean() > 0.95


def test_same_seed_same_prototypes() -> None:
    counts, labels = tiny()
    before = torch.get_rng_state()
    one, two, other = (
        learn_prototypes(counts, labels, 3, seed=seed, max_epochs=4, enable_progress_bar=False)
        for seed in (3, 3, 4)
    )
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(one.shares, two.shares)
    np.testing.assert_array_equal(one.states, two.states)
    assert not np.allclose(one.shares, other.shares)
    assert len(one.history["elbo_train"]) == 4
    assert one.history["elbo_train"].index.name == "epoch"


def test_a_loss_that_is_not_finite_is_told() -> None:
    counts, labels = tiny()
    counts.data[::50] = 1e38
    with pytest.raises(FloatingPointError, match="`reconstruction_loss` .* in epoch 0, step 0"):
        learn_prototypes(counts, labels, 2, max_epochs=3, enable_progress_bar=False)


@pytest.fixture(scope="module")
def reference() -> AnnData:
    from scovert import data

    adata = data.pbmc68k()
    kinds = ["CD14+ Monocyte", "CD19+ B", "CD56+ NK"]
    adata = adata[adata.obs["cell_type"].isin(kinds)].copy()
    adata.obs["study"] = np.resize(["x", "y"], adata.n_obs)
    return adata


@pytest.fixture
def bulk(reference: AnnData) -> AnnData:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, reference.n_obs, (3, 200))
    counts = np.stack([np.asarray(reference.X[r].sum(0)).ravel() for r in rows])
    return AnnData(100 * counts, var=reference.var)


def test_model_takes_prototypes_and_keeps_them(
    reference: AnnData, bulk: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scovert.model import BulkDeconvolution

    monkeypatch.setattr(training, "MAX_EPOCHS", 20)
    BulkDeconvolution.setup_anndata(reference, labels_key="cell_type", batch_key="study")
    by_cells, model = (
        BulkDeconvolution(reference, signature=signature, n_states=2)
        for signature in ("states", "prototype_vae")
    )
    by_cells.train()
    model.train(enable_progress_bar=False)
    assert {"x/elbo_validation", "y/prototype_train"} <= set(model.history)
    assert len(model.history["x/elbo_train"]) <= 20
    for study in ("0", "1"):
        sums, decoded = (m.module.tables[f"{study}/counts"] for m in (by_cells, model))
        assert np.corrcoef(np.log(sums.sum(0) + 1), np.log(decoded.sum(0) + 1))[0, 1] > 0.9
        assert not np.allclose(decoded, np.rint(decoded))
    found = model.get_proportions(bulk, kind="counts", cell_size="reference")
    np.testing.assert_allclose(found.sum(1), 1)
    model.save(tmp_path / "model")
    loaded = BulkDeconvolution.load(tmp_path / "model", reference)
    assert set(loaded.history) == set(model.history)
    for name, table in model.module.tables.items():
        np.testing.assert_array_equal(loaded.module.tables[name], table)


def test_model_reads_bulks_by_network(reference: AnnData, bulk: AnnData) -> None:
    from scovert.model import BulkBudget, BulkDeconvolution

    budget = BulkBudget(n_network_steps=100)
    BulkDeconvolution.setup_anndata(reference, labels_key="cell_type")
    model = BulkDeconvolution(reference)
    model.train()
    options = {"kind": "counts", "cell_size": "reference"}
    result = model.deconvolve(bulk, **options, method="network", budget=budget)
    np.testing.assert_allclose(result.proportions.sum(1), 1)
    assert (result.lower <= result.proportions).all(axis=None)
    assert (result.proportions <= result.upper).all(axis=None)
    assert len(result.history["objective"]) == 100
    joint = model.deconvolve(bulk, **options, interval=None)
    assert (result.proportions - joint.proportions).abs().max(axis=None) < 0.3
    assert result.fits[0].joint.weights.shape == joint.fits[0].joint.weights.shape
    np.testing.assert_allclose(
        sum_states(result.fits[0].joint.weights, result.fits[0].profiles.state_type),
        result.mrna_fractions,
        atol=1e-3,
    )
    for wrong in ({"unknown": True}, {"likelihood": "nb"}):
        with pytest.raises(ValueError, match="belong to the joint fit"):
            model.deconvolve(bulk, kind="counts", method="network", **wrong)
    with pytest.raises(ValueError, match="method"):
        model.deconvolve(bulk, method="mean")
    with pytest.raises(ValueError, match="signature"):
        BulkDeconvolution(reference, signature="vae")
