"""The mask of MaskedImputation is a closed form: unmeasured genes have no term and no gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scvi import REGISTRY_KEYS

from scovert.core._losses import SparseCounts
from scovert.core.dataloaders._cells import COUNTS_KEY
from scovert.model.imputation._module import ImputationModule

N_CELLS, N_GENES, N_LATENT = 7, 11, 3
LEARNT = torch.ones(2, N_GENES, dtype=torch.bool)
LEARNT[1, 6:] = False
GENES = torch.arange(N_GENES)


@pytest.fixture
def module() -> ImputationModule:
    """Make a module whose second dataset learns six of eleven genes."""
    torch.manual_seed(0)
    log_mean = torch.randn(N_GENES).log_softmax(0)
    sizes = {"n_latent": N_LATENT, "n_hidden": 5, "n_layers": 1, "dropout_rate": 0.1}
    module = ImputationModule(log_mean, LEARNT, LEARNT.all(0).expand(2, -1).clone(), **sizes)
    module.px_r.data.normal_()
    return module.double().eval()


@pytest.fixture
def tensors() -> dict:
    """Make a minibatch; the second dataset has counts of genes that were held back from it."""
    x = torch.from_numpy(np.random.default_rng(0).poisson(3.0, (N_CELLS, N_GENES))).double()
    x[3:, 8:] = 0  # not measured
    batch = torch.tensor([0, 0, 0, 1, 1, 1, 1])[:, None]
    return {
        REGISTRY_KEYS.X_KEY: x,
        REGISTRY_KEYS.BATCH_KEY: batch,
        COUNTS_KEY: SparseCounts.of(x),
    }


def test_the_likelihood_is_that_of_the_learnt_genes_with_shares_over_them(module, tensors) -> None:
    inference, generative, loss = module(tensors)
    z, x = inference["z"], tensors[REGISTRY_KEYS.X_KEY].numpy()
    with torch.no_grad():
        hidden = module.decoder.px_decoder(z, cont=z[:, :0])
        logits = module.decoder.px_scale_decoder(hidden).numpy()
    theta = module.px_r.detach().exp().numpy()
    (nll,) = loss.reconstruction_loss.values()
    for i, n_learnt in enumerate([11] * 3 + [6] * 4):
        weights = np.exp(logits[i, :n_learnt])
        mean = x[i, :n_learnt].sum() * weights / weights.sum()
        own = theta[:n_learnt]
        expected = -stats.nbinom.logpmf(x[i, :n_learnt], own, own / (own + mean)).sum()
        np.testing.assert_allclose(nll[i].item(), expected, rtol=1e-6)
        np.testing.assert_allclose(generative["px"].scale[i].sum().item(), 1, rtol=1e-9)


def test_what_is_not_learnt_has_no_gradient(module, tensors) -> None:
    own = {k: v[3:] for k, v in tensors.items() if k != COUNTS_KEY}  # of the second dataset
    module(own)[2].loss.backward()
    for gradient in (module.px_r.grad, module.decoder.px_scale_decoder.bias.grad):
        assert gradient[:6].abs().min() > 1e-6
        assert gradient[6:].abs().max() < 1e-12


def test_counts_that_are_held_back_change_nothing(module, tensors) -> None:
    def outcome() -> tuple[torch.Tensor, ...]:
        torch.manual_seed(1)
        loss = module(tensors)[2].loss
        return loss, module.posterior_mean(tensors), module.imputed(tensors, GENES)

    before = outcome()
    x = tensors[REGISTRY_KEYS.X_KEY]
    x[3:, 6:8] += 5
    tensors[COUNTS_KEY] = SparseCounts.of(x)
    for a, b in zip(before, outcome(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_imputed_counts_add_up_to_the_library_over_what_is_learnt(module, tensors) -> None:
    imputed, x = module.imputed(tensors, GENES), tensors[REGISTRY_KEYS.X_KEY]
    torch.testing.assert_close(imputed[3:, :6].sum(1), x[3:, :6].sum(1))
    torch.testing.assert_close(imputed[:3].sum(1), x[:3].sum(1))
    assert (imputed[3:, 6:] > 0).all()  # beyond it, not a part of it


def test_levels_are_of_what_is_imputed_and_not_of_what_is_learnt(module, tensors) -> None:
    before = module.imputed(tensors, GENES)
    module.level[1, 6:] = np.log(2)
    ratio = module.imputed(tensors, GENES) / before
    torch.testing.assert_close(ratio[3:, 6:], torch.full_like(ratio[3:, 6:], 2))
    torch.testing.assert_close(ratio[:, :6], torch.ones_like(ratio[:, :6]))
    torch.testing.assert_close(ratio[:3], torch.ones_like(ratio[:3]))
    torch.manual_seed(1)
    changed = module(tensors)[2].loss
    module.level.zero_()
    torch.manual_seed(1)
    torch.testing.assert_close(module(tensors)[2].loss, changed, rtol=0, atol=0)


def test_a_cell_shows_no_more_than_another_dataset_would_while_it_is_trained(module) -> None:
    module.visible = LEARNT.clone()
    x = torch.ones(400, N_GENES, dtype=torch.double)
    batch = torch.zeros(400, 1, dtype=torch.int64)
    seen = []
    module.z_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0] > 0))
    module.train().inference(x, batch)
    module.eval().inference(x, batch)
    shown = seen[0].sum(1)
    assert set(shown.tolist()) == {6, 11}
    assert 0.4 < (shown == 6).double().mean() < 0.6
    assert seen[1].all()


def test_moments_over_the_posterior_are_those_of_draws(module, tensors) -> None:
    module.z_encoder.var_encoder.bias.data.fill_(-3.0)
    moments = module.imputed_moments(tensors, GENES).detach()
    torch.testing.assert_close(moments[..., 0], module.imputed(tensors, GENES))
    qz = module.inference(**module._get_inference_input(tensors))["qz"]
    with torch.no_grad():
        draws = torch.stack([module._rates(qz.sample(), tensors) for _ in range(4000)])
    centre = module._rates(qz.mean, tensors).detach()
    torch.testing.assert_close(moments[..., 1], (draws / centre).var(0), rtol=0.2, atol=1e-4)
