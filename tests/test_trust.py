"""Fits that break off, go on, are watched, and run in several processes or in half precision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import anndata
import lightning.pytorch as pl
import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch.loggers import TensorBoardLogger

from scovert import simulate
from scovert.core.training._finite import FiniteWatch
from scovert.model import PairedVAE

MODES = ("anchors", "adversarial", "grl", "none")
OPTIONS = {"accelerator": "cpu", "batch_size": 16, "enable_progress_bar": False}
MAX_EPOCHS = 6

pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def make(toy: AnnData) -> Callable[..., PairedVAE]:
    def make_model(alignment: str = "anchors", **init: object) -> PairedVAE:
        scvi.settings.seed = 0
        PairedVAE.setup_anndata(toy, batch_key="batch")
        return PairedVAE(toy, n_latent=3, n_hidden=7, alignment=alignment, **init)

    return make_model


def train(model: PairedVAE, *callbacks: pl.Callback, **options: object) -> None:
    model.train(**{"max_epochs": MAX_EPOCHS, "callbacks": list(callbacks), **OPTIONS, **options})


class Break(pl.Callback):
    """Put NaN into the networks, or break off, in a step of an epoch."""

    def __init__(self, epoch: int, act: Callable[[pl.LightningModule], None]) -> None:
        self.epoch, self.act = epoch, act

    def on_train_batch_start(
        self, trainer: pl.Trainer, plan: pl.LightningModule, batch: dict, step: int
    ) -> None:
        if (trainer.current_epoch, step) == (self.epoch, 2):
            self.act(plan)


@torch.no_grad()
def spoil(plan: pl.LightningModule) -> None:
    plan.module.px_r.fill_(torch.nan)


# What is not a number


@pytest.mark.parametrize("alignment", MODES)
def test_training_stops_at_a_nan_and_keeps_the_last_good_state(
    make: Callable, alignment: str
) -> None:
    model = make(alignment)
    with pytest.raises(FloatingPointError, match=r"`reconstruction_loss`.*epoch 3, step 2") as e:
        train(model, Break(3, spoil), max_epochs=100)
    assert set(e.value.cells) <= set(model.adata.obs_names)
    assert len(e.value.cells) >= 16
    assert len(model.history["train_loss"]) == 4
    assert model.is_trained
    assert np.isfinite(model.get_latent_representation()).all()


def test_training_that_stops_in_the_best_epochs_keeps_the_best(make: Callable) -> None:
    model = make("none")
    states = []

    class Look(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
            value = float(trainer.callback_metrics["elbo_validation"])
            states.append((value, plan.module.px_r.detach().clone()))

    with pytest.raises(FloatingPointError, match="best epoch"):
        train(model, Look(), Break(4, spoil), plan_kwargs={"kl_ramp": 0.0})
    best = min((s for s in states if np.isfinite(s[0])), key=lambda s: s[0])
    assert torch.equal(model.module.px_r, best[1])


def test_a_gradient_that_is_no_number_is_named(make: Callable) -> None:
    def spoil_gradient(plan: pl.LightningModule) -> None:
        plan.module.px_r.register_hook(lambda gradient: gradient * torch.inf)

    with pytest.raises(FloatingPointError, match="`gradient_norm` became NaN"):
        train(make("none"), Break(1, spoil_gradient))


def test_a_gpu_is_asked_every_fifty_steps_and_the_first_step_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = FiniteWatch()
    good = {"a": torch.zeros((), device="meta"), "n_cells": 3}
    for step in range(49):
        assert not watch.sees(good, None, (0, step), False)
    assert len(watch.steps) == 49, "looked before it was time"
    watch = FiniteWatch()
    watch.steps = [_noted(torch.tensor([0.0, 1.0]), step) for step in range(20)]
    watch.steps[7] = _noted(torch.tensor([0.0, torch.inf]), 7)
    watch.steps[9] = _noted(torch.tensor([torch.nan, torch.inf]), 9)
    watch._look()
    assert watch.found[:3] == ("b", 2, 7)
    assert watch.found.cells == [7]


def _noted(values: torch.Tensor, step: int) -> object:
    from scovert.core.training._finite import _Step

    return _Step((2, step), ["a", "b"], values, torch.tensor([[step]]))


# Ctrl-C


def test_an_interrupt_ends_training_with_the_best_state(make: Callable) -> None:
    model = make("none")
    stop = Break(4, lambda _: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match=r"interrupted in epoch 4.*the best state, of epoch"):
        train(model, stop, max_epochs=50, plan_kwargs={"kl_ramp": 0.0})
    assert signal.getsignal(signal.SIGINT) is before
    assert len(model.history["train_loss"]) == 5
    assert np.isfinite(model.get_latent_representation()).all()


def test_an_early_interrupt_says_that_nothing_was_best_yet(make: Callable) -> None:
    model = make("none")
    stop = Break(0, lambda _: os.kill(os.getpid(), signal.SIGINT))
    with pytest.warns(UserWarning, match="no epoch counted as the best yet"):
        train(model, stop, max_epochs=50)


# Going on


SCRIPT = """
    import os, signal, sys
    import anndata, lightning.pytorch as pl, numpy as np, scvi, torch
    from scovert.model import PairedVAE

    folder, alignment, encoder, killed_in = sys.argv[1:]

    class Kill(pl.Callback):
        def on_train_batch_start(self, trainer, plan, batch, step):
            if (trainer.current_epoch, step) == (int(killed_in), 1):
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    scvi.settings.seed = 0
    adata = anndata.read_h5ad(folder + "/toy.h5ad")
    PairedVAE.setup_anndata(adata, batch_key="batch")
    model = PairedVAE(adata, n_latent=3, n_hidden=7, alignment=alignment, encoder=encoder)
    plan_kwargs = {"reduce_lr_on_plateau": True, "lr_patience": 1, "lr_threshold": 1e9}
    model.train(
        9, accelerator="cpu", batch_size=16, enable_progress_bar=False, callbacks=[Kill()],
        checkpoint_dir=folder + "/run", plan_kwargs=plan_kwargs, early_stopping_patience=3,
    )
    np.save(folder + "/latent.npy", model.get_latent_representation())
    np.save(folder + "/elbo.npy", model.history["elbo_validation"].to_numpy(float))
    """


def in_a_process(*args: object) -> int:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), *map(str, args)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alignment", "encoder"),
    [("anchors", "shared"), ("adversarial", "per_dataset")],
)
def test_killed_training_goes_on_to_the_same_result(
    toy: AnnData, tmp_path: Path, alignment: str, encoder: str
) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        toy.write_h5ad(tmp_path / name / "toy.h5ad")
    assert in_a_process(tmp_path / "whole", alignment, encoder, -1) == 0
    for epoch in (2, 7):
        assert in_a_process(tmp_path / "killed", alignment, encoder, epoch) == -signal.SIGKILL
    assert (tmp_path / "killed" / "run" / "training.scovert").exists()
    assert in_a_process(tmp_path / "killed", alignment, encoder, -1) == 0
    for file in ("latent.npy", "elbo.npy"):
        whole, killed = (np.load(tmp_path / name / file) for name in ("whole", "killed"))
        np.testing.assert_array_equal(whole, killed)
    assert [f.name for f in (tmp_path / "killed" / "run").iterdir()] == ["model.scovert"]


class Stop(Exception):
    """What cuts training off in the tests below."""


def cut_off(_: pl.LightningModule) -> None:
    raise Stop


def test_training_goes_on_after_an_error(make: Callable, tmp_path: Path) -> None:
    whole = make("anchors")
    train(whole)
    cut = make("anchors")
    with pytest.raises(Stop):
        train(cut, Break(4, cut_off), checkpoint_dir=tmp_path)
    loaded = PairedVAE.load(tmp_path, whole.adata)
    assert np.isfinite(loaded.get_latent_representation()).all()
    again = make("anchors")
    train(again, checkpoint_dir=tmp_path)
    latents = [m.get_latent_representation() for m in (whole, again)]
    np.testing.assert_array_equal(*latents)
    for name in ("train_loss", "elbo_validation", "pull_train"):
        assert again.history[name].equals(whole.history[name])
    kept = PairedVAE.load(tmp_path, whole.adata)
    np.testing.assert_array_equal(kept.get_latent_representation(), latents[1])
    assert kept.check().equals(again.check())


def test_other_training_does_not_go_on(make: Callable, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(make("none"), Break(2, cut_off), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match=r"asked for otherwise \(max_epochs: 6 then, 7 now\)"):
        train(make("none"), checkpoint_dir=tmp_path, max_epochs=7)
    with pytest.raises(ValueError, match="asked for otherwise"):
        train(make("grl"), checkpoint_dir=tmp_path)


def test_a_finished_model_is_not_trained_over(make: Callable, tmp_path: Path) -> None:
    train(make("none"), checkpoint_dir=tmp_path)
    with pytest.raises(FileExistsError, match="holds a model that has been trained"):
        train(make("none"), checkpoint_dir=tmp_path)


# TensorBoard


def test_training_and_validation_share_a_chart(make: Callable, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = make("anchors")
    train(model, logger=TensorBoardLogger(tmp_path, name="fit", version=0))
    for term in ("elbo", "reconstruction_loss", "kl_local", "pull"):
        for mode in ("train", "validation"):
            events = EventAccumulator(str(tmp_path / "fit" / "version_0" / f"{term}_{mode}"))
            events.Reload()
            assert events.Tags()["scalars"] == [term], "one chart is one tag"
            values = [event.value for event in events.Scalars(term)]
            recorded = model.history[f"{term}_{mode}"].to_numpy(float).ravel()
            np.testing.assert_allclose(values, recorded, rtol=1e-5)


# Health


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return simulate.paired((180, 150), n_genes=60, n_types=4, seed=3)


def fit(adata: AnnData, **options: object) -> PairedVAE:
    PairedVAE.setup_anndata(adata, batch_key="batch")
    model = PairedVAE(adata, n_latent=5, n_hidden=32, alignment="none")
    model.train(**{"max_epochs": 40, **OPTIONS, "batch_size": 64, **options})
    return model


def test_a_healthy_fit_gets_no_advice(cells: AnnData) -> None:
    found = fit(cells.copy()).check()
    assert (found["verdict"] == "ok").all(), found
    assert found.loc["held-out deviance explained", "value"] > 0.1


def test_a_collapsed_fit_is_seen(cells: AnnData) -> None:
    found = fit(cells.copy(), plan_kwargs={"max_kl_weight": 50.0}).check()
    assert found.loc["active latent dimensions", "verdict"] == "look", found


def test_a_diverging_fit_is_seen(cells: AnnData) -> None:
    try:
        found = fit(cells.copy(), plan_kwargs={"lr": 10.0}).check()
    except FloatingPointError:
        return
    assert "look" in found.loc[["fall of the loss", "growth of the gradient"], "verdict"].tolist()


def test_counts_without_structure_are_seen(cells: AnnData) -> None:
    shuffled = cells.copy()
    counts = np.asarray(shuffled.X.todense()) if hasattr(shuffled.X, "todense") else shuffled.X
    rng = np.random.default_rng(0)
    for batch in shuffled.obs["batch"].unique():
        rows = np.flatnonzero(shuffled.obs["batch"] == batch)
        for gene in range(counts.shape[1]):
            counts[rows, gene] = counts[rng.permutation(rows), gene]
    shuffled.X = counts
    found = fit(shuffled).check()
    assert found.loc["held-out deviance explained", "verdict"] == "look", found


# Precision and processes


@pytest.mark.parametrize("alignment", MODES)
def test_half_precision_trains(make: Callable, alignment: str) -> None:
    model = make(alignment)
    train(model, precision="bf16-mixed")
    assert all(np.isfinite(frame.to_numpy(float)).all() for frame in model.history.values())
    whole = make(alignment)
    train(whole)
    last = [m.history["elbo_validation"].to_numpy(float)[-1] for m in (model, whole)]
    assert last[0] == pytest.approx(last[1], rel=0.05)


DDP = """
    import sys
    import anndata, numpy as np, scvi, torch
    from scovert.model import PairedVAE

    folder, alignment, strategy, train_size = sys.argv[1:]
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    adata = anndata.read_h5ad(folder + "/toy.h5ad")
    PairedVAE.setup_anndata(adata, batch_key="batch")
    model = PairedVAE(adata, n_latent=3, n_hidden=7, alignment=alignment)
    model.train(
        3, accelerator="cpu", devices=2, strategy=strategy, batch_size=16,
        train_size=float(train_size), enable_progress_bar=False,
    )
    rank = torch.distributed.get_rank()
    state = torch.cat([t.flatten() for t in model.module.state_dict().values()])
    np.savez(
        f"{folder}/{rank}.npz", state=state, n_history=len(model.history),
        n_steps=model.trainer.global_step,
    )
    """


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alignment", "strategy", "train_size"),
    [
        ("anchors", "ddp", 0.9),
        ("none", "ddp", 0.9),
        ("none", "ddp", 1.0),
        ("grl", "ddp", 0.9),
        ("adversarial", "ddp_find_unused_parameters_true", 0.9),
    ],
)
def test_two_processes_end_with_the_same_networks_and_statistics(
    toy: AnnData, tmp_path: Path, alignment: str, strategy: str, train_size: float
) -> None:
    toy.write_h5ad(tmp_path / "toy.h5ad")
    script = tmp_path / "fit.py"  # a file: the second process runs it too
    script.write_text(textwrap.dedent(DDP))
    environment = os.environ | {"PL_TORCH_DISTRIBUTED_BACKEND": "gloo"}
    arguments = [tmp_path, alignment, strategy, str(train_size)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in range(2))
    np.testing.assert_array_equal(first["state"], second["state"])
    assert first["n_history"] > 5
    assert second["n_history"] == 0


def test_processes_that_would_not_agree_are_refused(make: Callable, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in one process"):
        train(make("none"), strategy="ddp", devices=2, checkpoint_dir=tmp_path)
    model = make("none")
    scvi.settings.seed = None
    with pytest.raises(ValueError, match=r"Set `scvi\.settings\.seed`"):
        train(model, strategy="ddp", devices=2)


# From disk


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[[AnnData], AnnData]:
    def write(adata: AnnData) -> AnnData:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        return anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")

    return write


@pytest.mark.parametrize(
    "alignment",
    [mode if mode == "anchors" else pytest.param(mode, marks=pytest.mark.slow) for mode in MODES],
)
def test_training_from_a_file_learns_as_from_memory(
    cells: AnnData, on_disk: Callable, monkeypatch: pytest.MonkeyPatch, alignment: str
) -> None:
    from scovert.core.dataloaders import _cells, _windows

    for module in (_cells, _windows):
        monkeypatch.setattr(module, "WINDOW", 200)
    monkeypatch.setattr(_windows, "BLOCK", 16)
    models = []
    for adata in (cells.copy(), on_disk(cells)):
        scvi.settings.seed = 0  # the start decides more than the way the cells are read
        PairedVAE.setup_anndata(adata, batch_key="batch")
        model = PairedVAE(adata, n_latent=5, n_hidden=32, alignment=alignment)
        model.train(15, **(OPTIONS | {"batch_size": 64}))
        models.append(model)
    in_memory, from_file = models
    assert from_file.adata.isbacked
    last = [m.history["elbo_validation"].to_numpy(float).min() for m in models]
    first = in_memory.history["elbo_validation"].to_numpy(float)[0]
    assert last[1] - last[0] < 0.1 * (first - last[0])
    # One model gives the same of a file and of memory, in any order
    rows = np.array([300, 3, 201, 3, 199])
    of_file = from_file.get_latent_representation(indices=rows)
    of_memory = from_file.get_latent_representation(cells.copy(), indices=rows)
    np.testing.assert_allclose(of_file, of_memory, atol=1e-5)
