"""Training that was cut off goes on to the same numbers, whatever is trained."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import scvi
from anndata import AnnData

from _autoencoder import CountAutoencoder
from scovert.model import (
    BulkDeconvolution,
    DistanceEmbedding,
    LatentConfounder,
    MaskedImputation,
    NicheVAE,
    PairedVAE,
)

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}

pytestmark = [
    pytest.mark.usefixtures("seed"),
    pytest.mark.filterwarnings("ignore:A confounder has a correlation"),
    pytest.mark.filterwarnings("ignore:Little is known of each cell"),
]


class Cut(pl.Callback):
    """Break training off in an epoch, in its second step if it has one."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.current_epoch == self.epoch:
            raise ConnectionError


def paired(adata: AnnData) -> PairedVAE:
    PairedVAE.setup_anndata(adata, "batch")
    return PairedVAE(adata, n_latent=3, n_hidden=7)


def confounder(adata: AnnData) -> LatentConfounder:
    LatentConfounder.setup_anndata(adata, "treatment")
    return LatentConfounder(adata, n_latent=2, z_type="binary")


def niche(adata: AnnData) -> NicheVAE:
    NicheVAE.setup_anndata(adata, likelihood="nb", sample_key="sample", batch_key="sample")
    return NicheVAE(adata, n_neighbors=5, n_states=4, n_latent=3, n_hidden=7)


def bulk(adata: AnnData) -> BulkDeconvolution:
    BulkDeconvolution.setup_anndata(adata, "kind", batch_key="study")
    return BulkDeconvolution(adata, min_cells_per_type=6, signature="prototype_vae")


def distance(adata: AnnData) -> DistanceEmbedding:
    DistanceEmbedding.setup_anndata(adata, "weighted_unifrac", tree_key="tree")
    return DistanceEmbedding(adata, n_latent=3, n_hidden=7)


def autoencoder(adata: AnnData) -> CountAutoencoder:
    CountAutoencoder.setup_anndata(adata)
    return CountAutoencoder(adata)


def imputation(adata: AnnData) -> MaskedImputation:
    MaskedImputation.setup_anndata(adata, "batch", measured_key="measured")
    return MaskedImputation(adata, n_latent=3, n_hidden=7, encoder="panels")


TRAININGS = {
    "a model of a few lines": ("make_toy", autoencoder, {"max_epochs": 6}),
    "paired": ("make_toy", paired, {"max_epochs": 6, "batch_size": 16}),
    "amortized": ("make_treated", confounder, {"solver": "amortized", "max_epochs": 6}),
    "alternating": ("make_treated", confounder, {"solver": "alternating", "max_epochs": 4}),
    "niche": ("make_tissue", niche, {"max_epochs": 6, "batch_size": 32}),
    "distance": ("make_cohort", distance, {"max_epochs": 4, "train_size": 0.8}),
    "imputation": ("make_panels", imputation, {"max_epochs": 6, "batch_size": 16}),
    "prototypes": ("make_reference", bulk, {"max_epochs": 8}),
}


@pytest.mark.parametrize(("toy", "make", "options"), TRAININGS.values(), ids=TRAININGS.keys())
def test_training_that_was_cut_off_ends_with_the_same_numbers(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    toy: str,
    make: Callable[[AnnData], Any],
    options: dict,
) -> None:
    """Cut off past the middle: ramps have ended there, and prototypes are placed."""
    epoch = options["max_epochs"] // 2 + 1
    make_adata = request.getfixturevalue(toy)

    def train(**more: object) -> Any:
        scvi.settings.seed = 0
        model = make(make_adata())
        model.train(**options, **QUIET, **more)
        return model

    whole = train()
    with pytest.raises(ConnectionError):
        train(checkpoint_dir=tmp_path, callbacks=[Cut(epoch)])
    assert list(tmp_path.glob("*training.scovert"))
    again = train(checkpoint_dir=tmp_path, callbacks=[pl.Callback()])  # which changes nothing
    expected, found = whole.module.state_dict(), again.module.state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for name, frame in whole.history.items():
        np.testing.assert_array_equal(again.history[name], frame, err_msg=name)
    assert [file.name for file in tmp_path.iterdir()] == ["model.scovert"]
    assert type(again).load(tmp_path, make_adata()).history.keys() == whole.history.keys()


@pytest.mark.parametrize(("toy", "make", "options"), TRAININGS.values(), ids=TRAININGS.keys())
def test_a_folder_of_other_training_is_refused(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    toy: str,
    make: Callable[[AnnData], Any],
    options: dict,
) -> None:
    make_adata = request.getfixturevalue(toy)
    with pytest.raises(ConnectionError):
        make(make_adata()).train(**options, **QUIET, checkpoint_dir=tmp_path, callbacks=[Cut(1)])
    longer = options | {"max_epochs": options["max_epochs"] + 1}
    with pytest.raises(ValueError, match="asked for otherwise.*max_epochs"):
        make(make_adata()).train(**longer, **QUIET, checkpoint_dir=tmp_path)


class Interrupt(pl.Callback):
    """Press Ctrl-C in the second epoch."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize(("toy", "make", "options"), TRAININGS.values(), ids=TRAININGS.keys())
def test_ctrl_c_ends_training_with_a_model(
    request: pytest.FixtureRequest, toy: str, make: Callable[[AnnData], Any], options: dict
) -> None:
    model = make(request.getfixturevalue(toy)())
    with pytest.warns(UserWarning, match="interrupted in epoch 1"):
        model.train(**options, **QUIET, callbacks=[Interrupt()])
    assert model.is_trained
    assert max(len(frame) for frame in model.history.values()) < options["max_epochs"]
    model.check()
