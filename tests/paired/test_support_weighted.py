"""A discriminator before which cells without counterparts have no part."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch
from scvi import REGISTRY_KEYS
from torch.nn import functional as F

from scovert import data
from scovert.metrics import label_transfer
from scovert.model import PairedVAE
from scovert.model.paired._module import BALANCE_KEY, COUNTERPARTS_KEY, PairedModule

N_CELLS, N_DATASETS, N_GENES = 12, 3, 5


@pytest.fixture
def module() -> PairedModule:
    torch.manual_seed(0)
    return PairedModule(
        torch.zeros(N_DATASETS, N_GENES),
        n_cats_per_cov=[],
        n_continuous_cov=0,
        n_latent=4,
        n_hidden=6,
        n_layers=1,
        encoder="shared",
        alignment="adversarial",
        dispersion="gene",
        dropout_rate=0.0,
    )


@pytest.fixture
def cells() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Positions and columns; the first cell has no counterpart, the second in one dataset."""
    batch = torch.arange(N_CELLS) % N_DATASETS
    counterparts = torch.ones(N_CELLS, N_DATASETS)
    counterparts[0] = torch.tensor([1.0, 0.0, 0.0])
    counterparts[1] = torch.tensor([0.0, 1.0, 1.0])
    balance = torch.linspace(0.5, 2, N_CELLS) * (counterparts.sum(1) > 1)
    mean = torch.randn(N_CELLS, 4, generator=torch.Generator().manual_seed(1))
    columns = {
        REGISTRY_KEYS.X_KEY: torch.ones(N_CELLS, N_GENES),
        REGISTRY_KEYS.BATCH_KEY: batch[:, None],
        COUNTERPARTS_KEY: counterparts,
        BALANCE_KEY: balance[:, None],
    }
    return mean.requires_grad_(), columns


def test_the_discriminator_learns_from_weighted_cells(module: PairedModule, cells: tuple) -> None:
    mean, columns = cells
    weight = columns[BALANCE_KEY].ravel()
    entropy = F.cross_entropy(
        module.classifier(mean), columns[REGISTRY_KEYS.BATCH_KEY].ravel(), reduction="none"
    )
    found = module.discriminator_loss(mean, columns)
    torch.testing.assert_close(found, (weight * entropy).sum() / weight.sum())
    (gradient,) = torch.autograd.grad(found, mean)
    assert gradient[0].eq(0).all()
    assert gradient[1:].ne(0).any(1).all()


def test_the_encoder_hides_cells_among_their_counterparts(
    module: PairedModule, cells: tuple
) -> None:
    mean, columns = cells
    loss, terms = module._alignment(columns, mean, 30.0)
    log = module.classifier(mean).log_softmax(1)
    target = columns[COUNTERPARTS_KEY] / columns[COUNTERPARTS_KEY].sum(1, keepdim=True)
    divergence = (torch.xlogy(target, target) - target * log).sum(1)
    torch.testing.assert_close(loss, 30 * divergence[1:].sum() / N_CELLS)
    (gradient,) = torch.autograd.grad(loss, mean)
    assert gradient[0].eq(0).all()
    weight = columns[BALANCE_KEY].ravel()
    chance = weight[1] * np.log(2) + weight[2:].sum() * np.log(3)
    torch.testing.assert_close(terms["discriminator_chance"], chance / weight.sum())


def test_where_all_have_counterparts_it_is_the_plain_form(
    module: PairedModule, cells: tuple
) -> None:
    mean, columns = cells
    columns[COUNTERPARTS_KEY], columns[BALANCE_KEY] = torch.ones(12, 3), torch.ones(12, 1)
    plain = {k: v for k, v in columns.items() if k not in (COUNTERPARTS_KEY, BALANCE_KEY)}
    for found, expected in zip(
        module._alignment(columns, mean, 30.0)[1].values(),
        module._alignment(plain, mean, 30.0)[1].values(),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_missing_type_is_told_and_the_others_are_joined(seed: int) -> None:
    adata = data.two_batches(
        data.pbmc68k(), missing={"b": ["Dendritic"]}, capture_sd=1.0, seed=seed
    )
    transfer = {}
    for weighted in (True, False):
        scvi.settings.seed = seed
        PairedVAE.setup_anndata(adata, batch_key="batch")
        model = PairedVAE(adata, alignment="adversarial", support_weighted=weighted)
        model.train(150, accelerator="cpu", enable_progress_bar=False)
        labels = (model.get_latent_representation(), adata.obs["batch"], adata.obs["cell_type"])
        transfer[weighted] = label_transfer(*labels)
        assert (model.support_ is None) is not weighted
        if weighted:
            support = (
                model.get_support()["b"].groupby(adata.obs["cell_type"], observed=True).mean()
            )
            assert support.pop("Dendritic") < 0.3
            assert support.min() > 0.8
    assert transfer[True] > transfer[False] - 0.02
