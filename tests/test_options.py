"""Arguments of a model and of its training that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _every_model import SETUPS, make
from scovert.model import (
    BulkDeconvolution,
    DistanceEmbedding,
    LatentConfounder,
    MaskedImputation,
    NicheVAE,
    PairedVAE,
)

pytestmark = pytest.mark.usefixtures("seed")


def flat(tables: dict[type, list[tuple]]) -> list[tuple]:
    return [(cls, *row) for cls, rows in tables.items() for row in rows]


REFUSED_AT_INIT = {
    PairedVAE: [
        ({"n_latent": 0}, ValueError, r"`n_latent=0` is out of range.*\[1, "),
        ({"n_latent": 2.5}, TypeError, "`n_latent=2.5` is a float.*whole number"),
        ({"n_latent": "10"}, TypeError, "`n_latent='10'` is a str"),
        ({"n_hidden": True}, TypeError, "`n_hidden=True` is a bool"),
        ({"n_layers": 0}, ValueError, "`n_layers=0` is out of range"),
        ({"encoder": "both"}, ValueError, r"`encoder='both'`.*\['shared', 'per_dataset'\]"),
        (
            {"alignment": "ot"},
            ValueError,
            "`alignment='ot'`.*'anchors', 'adversarial', 'grl', 'none'",
        ),
        ({"alignment": None}, ValueError, "`alignment=None` is not known"),
        ({"dispersion": "cell"}, ValueError, r"`dispersion='cell'`.*'gene', 'gene-batch'"),
        ({"anchor_weight": -1}, ValueError, "`anchor_weight=-1` is out of range"),
        ({"anchor_weight": np.nan}, ValueError, "`anchor_weight=nan` is out of range"),
        ({"cross_weight": "a"}, TypeError, "`cross_weight='a'` is a str"),
        ({"dropout_rate": 1.0}, ValueError, r"`dropout_rate=1.0` is out of range"),
        ({"n_latents": 3}, TypeError, "n_latents"),
    ],
    LatentConfounder: [
        ({"n_latent": -1}, ValueError, r"`n_latent=-1` is out of range.*\[0"),
        ({"n_latent": 2.5}, TypeError, "`n_latent=2.5` is a float.*whole number"),
        ({"n_latent": True}, TypeError, "`n_latent=True` is a bool"),
        ({"n_latent": None}, TypeError, "`n_latent=None` is a NoneType"),
        ({"n_latent": "many"}, ValueError, "`n_latent='many'`.*'auto' or a whole number"),
        ({"n_latent": 100}, ValueError, "`n_latent=100` is more.*at most 44, or 'auto'"),
        ({"n_latent": 5, "z_type": "binary"}, ValueError, "means 32 states.*at most 4"),
        ({"z_type": "ordinal"}, ValueError, r"`z_type='ordinal'`.*\['continuous', 'binary'\]"),
        ({"n_latents": 3}, TypeError, "n_latents"),
    ],
    BulkDeconvolution: [
        ({"n_states": 0}, ValueError, r"`n_states=0`.*\[1, inf\]"),
        ({"n_states": 1.5}, TypeError, "`n_states=1.5`.*whole number"),
        ({"min_cells_per_type": 0}, ValueError, "`min_cells_per_type=0`"),
        ({"n_genes_per_type": 0}, ValueError, "`n_genes_per_type=0`"),
        ({"n_genes_per_type": "all"}, TypeError, "`n_genes_per_type='all'`"),
        ({"signature": "vae"}, ValueError, r"`signature='vae'`.*\['states'"),
    ],
}


@pytest.mark.parametrize(("cls", "init", "exception", "match"), flat(REFUSED_AT_INIT))
def test_no_model_is_made(cls: type, init: dict, exception: type[Exception], match: str) -> None:
    adata = make()
    cls.setup_anndata(adata, **SETUPS[cls])
    with pytest.raises(exception, match=match):
        cls(adata, **init)


REFUSED_AT_TRAIN = {
    PairedVAE: [
        ({"max_epochs": 0}, ValueError, "`max_epochs=0` is out of range"),
        ({"max_epochs": 2.0}, TypeError, "`max_epochs=2.0` is a float"),
        ({"train_size": 0}, ValueError, "`train_size=0` is out of range"),
        ({"train_size": 1.2}, ValueError, "`train_size=1.2` is out of range"),
        (
            {"train_size": 0.9, "validation_size": 0.2},
            ValueError,
            "validation_size=0.2` are more",
        ),
        ({"validation_size": -0.1}, ValueError, "`validation_size=-0.1`"),
        ({"batch_size": 2}, ValueError, "`batch_size=2` is out of range"),
        ({"plan_kwargs": {"n_epochs_kl_warmup": 5}}, TypeError, "n_epochs_kl_warmup.*`kl_ramp`"),
        ({"plan_kwargs": {"n_steps_kl_warmup": 5}}, TypeError, "n_steps_kl_warmup.*`kl_ramp`"),
        ({"plan_kwargs": {"learning_rate": 0.1}}, TypeError, "learning_rate"),
    ],
    LatentConfounder: [
        ({"solver": "exact"}, ValueError, "`solver='exact'`.*'full_batch'"),
        ({"max_epochs": 0}, ValueError, "`max_epochs=0` is out of range"),
        ({"max_epochs": 2.0}, TypeError, "`max_epochs=2.0` is a float"),
        ({"solver": "amortized", "batch_size": 0}, ValueError, "`batch_size=0` is out of range"),
        ({"batch_size": 64}, TypeError, "'full_batch'.*does not take `batch_size`"),
        ({"accelerator": "cuda"}, ValueError, "`accelerator='cuda'`.*'gpu'"),
        ({"accelerator": "tpu"}, ValueError, "`accelerator='tpu'`.*'auto', 'cpu'"),
        ({"train_size": 0.9}, TypeError, "train_size"),
    ],
}


@pytest.mark.parametrize(("cls", "options", "exception", "match"), flat(REFUSED_AT_TRAIN))
def test_no_model_is_trained(
    cls: type, options: dict, exception: type[Exception], match: str
) -> None:
    adata = make()
    cls.setup_anndata(adata, **SETUPS[cls])
    model = cls(adata, n_latent=1)
    with pytest.raises(exception, match=match):
        model.train(**{"accelerator": "cpu", "enable_progress_bar": False, **options})
    assert not model.is_trained


@pytest.mark.parametrize("cls", [PairedVAE, NicheVAE, MaskedImputation, DistanceEmbedding])
def test_options_of_the_plan_are_sent_there(cls: type) -> None:
    adata = make()
    cls.setup_anndata(adata, **SETUPS[cls])
    model = cls(adata, n_latent=1)
    with pytest.raises(TypeError, match=r"`lr`.*Pass `plan_kwargs=\{'lr': 0.1\}`"):
        model.train(lr=0.1)
    with pytest.raises(TypeError, match="`n_epochs`. Did you mean `max_epochs`"):
        model.train(n_epochs=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("cls", [PairedVAE, NicheVAE, MaskedImputation, DistanceEmbedding])
def test_accelerators_are_known_and_there(cls: type) -> None:
    adata = make()
    cls.setup_anndata(adata, **SETUPS[cls])
    model = cls(adata, n_latent=1)
    for name in ("gpu", "cuda"):
        match = f"`accelerator='{name}'`, and there is no (GPU|CUDA).*'cpu' or 'auto'"
        with pytest.raises(ValueError, match=match):
            model.train(accelerator=name)
    with pytest.raises(ValueError, match="`accelerator='cpus'` is not known.*'cpu', 'gpu'"):
        model.train(accelerator="cpus")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    adata = make()
    LatentConfounder.setup_anndata(adata, "treatment")
    with pytest.raises(ValueError, match="`accelerator='gpu'`.*no CUDA device.*'cpu'"):
        LatentConfounder(adata).train(accelerator="gpu")


def test_what_is_missing_or_has_no_name_is_named() -> None:
    with pytest.raises(TypeError, match="`BulkDeconvolution.report` needs `result`"):
        BulkDeconvolution.report(None)
    with pytest.raises(
        TypeError, match="`NicheVAE.get_composition_differences` needs `reference`"
    ):
        NicheVAE.get_composition_differences(None, "stage")
    with pytest.raises(
        TypeError, match="2 arguments without a name.*`adata`.*by name: `target`, `source`"
    ):
        PairedVAE.translate(None, "a", "b")
    with pytest.raises(TypeError, match="`PairedVAE.setup_anndata` needs `batch_key`"):
        PairedVAE.setup_anndata(make())


def test_options_are_refused_with_the_nearest_of_all() -> None:
    for name in ("annotate", "get_proportions", "get_cell_type_expression"):
        with pytest.raises(TypeError, match="`cell_sizes`. Did you mean `cell_size`"):
            getattr(BulkDeconvolution, name)(None, None, cell_sizes="none")
    adata = make()
    PairedVAE.setup_anndata(adata, **SETUPS[PairedVAE])
    with pytest.raises(TypeError, match="`deterministics`. Did you mean `deterministic`"):
        PairedVAE(adata).train(deterministics=True)
    with pytest.raises(TypeError, match="`dbpr_weigth`. Did you mean `dbpr_weight`"):
        LatentConfounder.train(None, "alternating", dbpr_weigth=1.0)
