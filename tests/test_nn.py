"""Blocks, and the networks of PairedVAE put together from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scvi import REGISTRY_KEYS
from scvi.distributions import NegativeBinomial
from torch import nn

from scovert.core._nn import CountDecoder, Discriminator, PerDataset, reverse_gradient
from scovert.model.paired._module import PairedModule

N_CELLS, N_GENES, N_LATENT, N_HIDDEN = 67, 11, 3, 7

pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def shares() -> torch.Tensor:
    """Mean share of each gene in two datasets."""
    return torch.tensor(np.random.default_rng(0).dirichlet(np.ones(N_GENES), 2)).float()


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    return {
        REGISTRY_KEYS.X_KEY: torch.from_numpy(rng.poisson(5, (N_CELLS, N_GENES))).float(),
        REGISTRY_KEYS.BATCH_KEY: torch.from_numpy(rng.integers(0, 2, (N_CELLS, 1))),
        REGISTRY_KEYS.CAT_COVS_KEY: torch.from_numpy(rng.integers(0, 4, (N_CELLS, 1))),
        REGISTRY_KEYS.CONT_COVS_KEY: torch.from_numpy(rng.normal(size=(N_CELLS, 2))).float(),
    }


def make_module(shares: torch.Tensor, **options: object) -> PairedModule:
    defaults = {
        "n_cats_per_cov": [4],
        "n_continuous_cov": 2,
        "n_latent": N_LATENT,
        "n_hidden": N_HIDDEN,
        "n_layers": 1,
        "encoder": "shared",
        "alignment": "none",
        "dispersion": "gene",
        "dropout_rate": 0.1,
    }
    return PairedModule(shares.log(), **{**defaults, **options}).eval()


# reverse_gradient


@pytest.mark.parametrize("weight", [0.0, 1.0, 30.0])
def test_reversal_keeps_values_and_turns_gradients(weight: float) -> None:
    x = torch.randn(N_CELLS, N_LATENT, dtype=torch.float64, requires_grad=True)
    w = torch.randn(N_LATENT, dtype=torch.float64)
    y = reverse_gradient(x, weight)
    assert torch.equal(y, x)
    (y @ w).sum().backward()
    torch.testing.assert_close(x.grad, -weight * w.expand_as(x))


def test_reversal_turns_only_what_is_before_it() -> None:
    before, after = nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False)
    x = torch.randn(5, 2)
    after(before(x)).sum().backward()
    plain = before.weight.grad.clone(), after.weight.grad.clone()
    before.zero_grad()
    after.zero_grad()
    after(reverse_gradient(before(x), 0.5)).sum().backward()
    torch.testing.assert_close(before.weight.grad, -0.5 * plain[0])
    torch.testing.assert_close(after.weight.grad, plain[1])


# PerDataset


class Mark(nn.Module):
    """Return the inputs shifted, and which network it was."""

    def __init__(self, mark: int) -> None:
        super().__init__()
        self.mark = mark

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 100 * self.mark, y.sum(-1) * 0 + self.mark


@pytest.mark.parametrize("batch", [[2, 0, 1, 0, 2, 2], [1] * 6, [0, 0, 0, 2, 2, 2], [2]])
def test_every_cell_goes_through_its_own_network_and_keeps_its_place(batch: list[int]) -> None:
    batch = torch.tensor(batch)
    x, y = torch.arange(len(batch)).float(), torch.randn(len(batch), 4)
    moved, mark = PerDataset(Mark(b) for b in range(3))(batch, x, y)
    torch.testing.assert_close(moved, x + 100 * batch)
    torch.testing.assert_close(mark, batch.float())


def test_one_output_is_a_tuple_of_one() -> None:
    networks = PerDataset(nn.Linear(4, 2) for _ in range(3))
    batch, x = torch.tensor([2, 0, 2]), torch.randn(3, 4)
    (found,) = networks(batch, x)
    for i, b in enumerate(batch):
        torch.testing.assert_close(found[i], networks[b](x[i]))


def test_gradients_reach_only_the_networks_in_use() -> None:
    networks = PerDataset(nn.Linear(4, 2) for _ in range(3))
    networks(torch.tensor([2, 0]), torch.randn(2, 4))[0].sum().backward()
    assert [n.weight.grad is not None for n in networks] == [True, False, True]


# CountDecoder, Discriminator


def make_decoder(log_mean: torch.Tensor) -> CountDecoder:
    sizes = {"n_layers": 1, "n_hidden": N_HIDDEN}
    return CountDecoder(N_LATENT, log_mean, n_cat_list=[2, 4], n_cont=2, **sizes)


def test_decoder_starts_at_the_mean_of_the_data(shares: torch.Tensor) -> None:
    decoder = make_decoder(shares[0].log()).eval()
    torch.testing.assert_close(decoder.px_scale_decoder.bias, shares[0].log())
    with torch.no_grad():
        decoder.px_scale_decoder.weight.zero_()
    categories = torch.zeros(N_CELLS, 2, dtype=torch.long)
    found = decoder(torch.randn(N_CELLS, N_LATENT), categories, torch.randn(N_CELLS, 2))
    torch.testing.assert_close(found, shares[0].expand(N_CELLS, -1))


def test_decoder_returns_shares_that_depend_on_every_input(shares: torch.Tensor) -> None:
    decoder = make_decoder(shares[0].log()).eval()
    z, continuous = torch.randn(N_CELLS, N_LATENT), torch.randn(N_CELLS, 2)
    categories = torch.zeros(N_CELLS, 2, dtype=torch.long)
    found = decoder(z, categories, continuous)
    assert found.shape == (N_CELLS, N_GENES)
    torch.testing.assert_close(found.sum(-1), torch.ones(N_CELLS))
    for others in (
        (z + 1, categories, continuous),
        (z, categories + torch.tensor([1, 0]), continuous),
        (z, categories + torch.tensor([0, 3]), continuous),
        (z, categories, continuous + 1),
    ):
        assert not torch.allclose(decoder(*others), found)


def test_discriminator_returns_one_logit_per_dataset() -> None:
    network = Discriminator(N_LATENT, 5)
    assert network(torch.randn(N_CELLS, N_LATENT)).shape == (N_CELLS, 5)


# The likelihood


@pytest.mark.parametrize("encoder", ["shared", "per_dataset"])
def test_an_untrained_model_expects_the_mean_of_the_data(
    shares: torch.Tensor, tensors: dict[str, torch.Tensor], encoder: str
) -> None:
    module = make_module(shares, encoder=encoder)
    decoders = [module.decoder] if encoder == "shared" else module.decoder
    with torch.no_grad():
        for decoder in decoders:
            decoder.px_scale_decoder.weight.zero_()
    _, outputs = module(tensors, compute_loss=False)
    total = tensors[REGISTRY_KEYS.X_KEY].sum(-1, keepdim=True)
    batch = tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)
    expected = shares.mean(0) if encoder == "shared" else shares[batch]
    torch.testing.assert_close(outputs["px"].mean, total * expected)


@pytest.mark.parametrize("encoder", ["shared", "per_dataset"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch"])
def test_likelihood_is_that_of_scipy(
    shares: torch.Tensor, tensors: dict[str, torch.Tensor], encoder: str, dispersion: str
) -> None:
    module = make_module(shares, encoder=encoder, dispersion=dispersion)
    with torch.no_grad():
        module.px_r.normal_()
    inferred, generated, losses = module(tensors)
    x, mean = tensors[REGISTRY_KEYS.X_KEY], generated["px"].mean
    batch = tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)
    theta = module.px_r.exp().expand(2, -1)[batch]
    found = -losses.reconstruction_loss["reconstruction_loss"]
    assert found.shape == (N_CELLS,)
    theirs = NegativeBinomial(mu=mean, theta=theta).log_prob(x).sum(-1)
    torch.testing.assert_close(found, theirs)
    n, p = theta.detach().numpy().astype(float), (theta / (theta + mean)).detach().numpy()
    np.testing.assert_allclose(
        found.detach(), stats.nbinom.logpmf(x.numpy(), n, p.astype(float)).sum(-1), rtol=1e-4
    )
    torch.testing.assert_close(inferred["library"].squeeze(-1), x.sum(-1))


def test_loss_is_the_weighted_sum_of_its_terms(
    shares: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> None:
    tensors["anchored"] = torch.tensor([4, 0, 31])
    n = N_CELLS - 3
    weights = {"kl_weight": 0.3, "alignment_weight": 7.0, "cross_weight": 0.2}
    module = make_module(shares, encoder="per_dataset", alignment="anchors")
    inferred, _, losses = module(tensors, loss_kwargs=weights)
    mean = inferred["qz"].mean
    nll = losses.reconstruction_loss["reconstruction_loss"]
    kl = losses.kl_local["kl_local"]
    assert nll.shape == kl.shape == (n,)
    pull = sum((mean[n + a] - mean[i]).square().sum() for a, i in enumerate([4, 0, 31])) / n
    terms = losses.extra_metrics
    torch.testing.assert_close(terms["pull"], pull)
    expected = nll.mean() + 0.3 * kl.mean() + 7 * pull + 0.2 * terms["cross_reconstruction"]
    torch.testing.assert_close(losses.loss, expected)


def test_aligned_components_are_predicted_from_the_posterior_mean(
    shares: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> None:
    tensors["anchored"] = torch.tensor([4, 0, 31])
    n, n_components = N_CELLS - 3, 5
    tensors["positions"] = torch.randn(N_CELLS, n_components, dtype=shares.dtype)
    module = make_module(shares, alignment="anchors", n_components=n_components)
    linear = module.component_decoder
    nn.init.normal_(linear.weight)
    inferred, _, losses = module(tensors, loss_kwargs={"component_weight": 0.4})
    predicted = inferred["qz"].mean[:n] @ linear.weight.T + linear.bias
    nats = -torch.distributions.Normal(predicted, 1.0).log_prob(tensors["positions"][:n])
    constant = n_components / 2 * math.log(2 * math.pi)
    expected = nats.sum(-1).mean() - constant
    torch.testing.assert_close(losses.extra_metrics["components"], expected)
    elbo = (losses.reconstruction_loss["reconstruction_loss"] + losses.kl_local["kl_local"]).mean()
    torch.testing.assert_close(losses.loss, elbo + expected)
    mean, terms = inferred["qz"].mean, losses.extra_metrics
    felt = torch.autograd.grad(terms["components"], mean, retain_graph=True)[0]
    torch.testing.assert_close(felt, 0.4 * torch.autograd.grad(expected, mean)[0])


def test_cross_reconstruction_decodes_a_partner_as_its_cell(
    shares: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> None:
    tensors["anchored"] = torch.tensor([4, 0, 31])
    n, anchored = N_CELLS - 3, [4, 0, 31]
    module = make_module(shares, encoder="per_dataset", alignment="anchors")
    inferred, generated, losses = module(tensors)
    x, batch = tensors[REGISTRY_KEYS.X_KEY], tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)
    nll = []
    for a, i in enumerate(anchored):
        share = module.decoder[batch[i]](
            inferred["z"][[n + a]],
            tensors[REGISTRY_KEYS.CAT_COVS_KEY][[i]],
            tensors[REGISTRY_KEYS.CONT_COVS_KEY][[i]],
        )
        px = NegativeBinomial(mu=x[i].sum() * share, theta=module.px_r.exp())
        nll.append(-px.log_prob(x[i]).sum())
    assert len(generated["px"].mean) == N_CELLS
    expected = torch.stack(nll).sum() / n
    torch.testing.assert_close(losses.extra_metrics["cross_reconstruction"], expected)


@pytest.mark.parametrize("encoder", ["shared", "per_dataset"])
def test_partners_do_not_count_as_data(
    shares: torch.Tensor, tensors: dict[str, torch.Tensor], encoder: str
) -> None:
    module = make_module(shares, encoder=encoder, alignment="anchors")
    alone = {k: v[:-3] for k, v in tensors.items()}
    drawn = []
    for some in (alone, tensors | {"anchored": torch.tensor([4, 0, 31])}):
        torch.manual_seed(0)
        drawn.append(module(some)[2].kl_local["kl_local"])
    torch.testing.assert_close(*drawn)


def test_sample_has_the_mean_and_variance_of_the_likelihood(
    shares: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> None:
    module = make_module(shares)
    with torch.no_grad():
        module.decoder.px_scale_decoder.weight.zero_()
    one = {k: v[:1].expand(20_000, -1) for k, v in tensors.items()}
    drawn = module.sample(one)
    mean = tensors[REGISTRY_KEYS.X_KEY][0].sum() * shares.mean(0)
    variance = mean + mean.square()  # inverse dispersion 1
    error = (variance / 20_000).sqrt()
    assert ((drawn.mean(0) - mean).abs() < 5 * error).all()
    torch.testing.assert_close(drawn.var(0), variance, rtol=0.15, atol=0.05)
