"""The order of steps, the ramps, and which state is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from torch.optim.optimizer import register_optimizer_step_post_hook

from scovert.anchors import find_anchors
from scovert.model import PairedVAE
from scovert.model.paired import _alignment as plan_file
from scovert.model.paired import _model as model_file

MODES = ("anchors", "adversarial", "grl", "none")
MAX_EPOCHS = 10

pytestmark = pytest.mark.usefixtures("seed")


class Watch(pl.Callback):
    """Record the plan's weights after every step and the networks after every validation."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, plan: pl.LightningModule, *_: object
    ) -> None:
        step = {"t": plan.progress, "training": plan.module.training, **plan.loss_kwargs}
        self.steps.append(step)

    def on_validation_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        self.states.append(copy.deepcopy(plan.module.state_dict()))

    def of(self, name: str) -> np.ndarray:
        return np.array([step[name] for step in self.steps])


class WatchSteps(pl.Callback):
    """Record before each step which optimiser is at it, all parameters and what is frozen."""

    def __init__(self) -> None:
        self.optimised: list[set[str]] = []
        self.values: list[dict[str, torch.Tensor]] = []
        self.frozen: list[set[str]] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, plan: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        named = dict(plan.module.named_parameters())
        ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.optimised.append({name for name, p in named.items() if id(p) in ids})
        self.values.append({name: p.detach().clone() for name, p in named.items()})
        self.frozen.append({name for name, p in named.items() if not p.requires_grad})

    def changed(self) -> list[set[str]]:
        """Return what each step changed."""
        pairs = zip(self.values[:-1], self.values[1:], strict=True)
        return [{n for n in a if not torch.equal(a[n], b[n])} for a, b in pairs]


class SetFooled(pl.Callback):
    """Say from a given step on, or up to it, that the discriminator is fooled."""

    def __init__(self, fooled: Callable[[int], bool]) -> None:
        self.fooled, self.n_steps = fooled, 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, plan: pl.LightningModule, *_: object
    ) -> None:
        plan.is_fooled = self.fooled(self.n_steps)
        self.n_steps += 1


@pytest.fixture
def make(toy: AnnData) -> Callable[..., PairedVAE]:
    def make_model(alignment: str = "anchors", **init: object) -> PairedVAE:
        PairedVAE.setup_anndata(toy, batch_key="batch")
        return PairedVAE(toy, n_latent=3, n_hidden=7, alignment=alignment, **init)

    return make_model


def train(model: PairedVAE, *callbacks: pl.Callback, **options: object) -> Watch:
    watch = Watch()
    defaults = {"accelerator": "cpu", "batch_size": 16, "enable_progress_bar": False}
    options = {"max_epochs": MAX_EPOCHS, **defaults, **options}
    model.train(callbacks=[*callbacks, watch], **options)
    return watch


@dataclass
class Usual:
    """A model trained with the defaults of `train`, what was seen of it, and its history."""

    model: PairedVAE
    watch: Watch
    steps: WatchSteps

    @cached_property
    def history(self) -> dict[str, np.ndarray]:
        return history_of(self.model)


@pytest.fixture(scope="module")
def usual(make_toy: Callable[[int], AnnData]) -> Callable[[str], Usual]:
    """Train once with each alignment, for all tests that only look at what comes out.

    No discriminator counts as fooled, so that all weights rise.
    """

    @cache
    def fit(alignment: str) -> Usual:
        adata, steps = make_toy(2), WatchSteps()
        PairedVAE.setup_anndata(adata, batch_key="batch")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plan_file, "FOOLED", math.inf)
            patch.setattr(scvi.settings, "seed", 0)
            model = PairedVAE(adata, n_latent=3, n_hidden=7, alignment=alignment)
            return Usual(model, train(model, steps), steps)

    return fit


def catch_length(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let models note how long they would train, and do nothing."""
    chosen = []

    def run(model: PairedVAE, plan: object, data: object, max_epochs: int, **_: object) -> None:
        chosen.append(max_epochs)
        model.is_trained_, model.history_ = True, {}

    monkeypatch.setattr(model_file, "run", run)
    return chosen


def history_of(model: PairedVAE) -> dict[str, np.ndarray]:
    return {name: frame.iloc[:, 0].to_numpy(float) for name, frame in model.history.items()}


def rise(t: np.ndarray, start: float, ramp: float) -> np.ndarray:
    return np.clip((t - start) / ramp, 0, 1)


# Ramps


@pytest.fixture
def never_fooled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_file, "FOOLED", math.inf)


@pytest.mark.parametrize("alignment", MODES)
def test_weights_rise_with_the_share_of_training_done(usual: Callable, alignment: str) -> None:
    model, watch = usual(alignment).model, usual(alignment).watch
    n_steps = len(watch.steps) // MAX_EPOCHS
    assert n_steps > 2
    t = np.arange(len(watch.steps)) / n_steps / MAX_EPOCHS
    np.testing.assert_allclose(watch.of("t"), t)
    np.testing.assert_allclose(watch.of("kl_weight"), np.minimum(1, 4 * t))
    if alignment == "anchors":
        full = 10 if model.anchor_clarity_ >= 0.53 else 1
        np.testing.assert_allclose(watch.of("alignment_weight"), full * np.minimum(1, 5 * t))
    elif alignment != "none":
        np.testing.assert_allclose(watch.of("alignment_weight"), 30 * rise(t, 0.3, 0.3))


@pytest.mark.usefixtures("never_fooled")
@pytest.mark.parametrize("alignment", ["adversarial", "grl"])
def test_ramps_can_be_chosen(make: Callable, alignment: str) -> None:
    chosen = {
        "adversarial_weight": 7.0,
        "adversarial_start": 0.5,
        "adversarial_ramp": 0.0,
        "kl_ramp": 0.5,
        "max_kl_weight": 0.8,
    }
    watch = train(make(alignment), plan_kwargs=chosen)
    t = watch.of("t")
    np.testing.assert_allclose(watch.of("alignment_weight"), 7 * (t >= 0.5))
    np.testing.assert_allclose(watch.of("kl_weight"), 0.8 * rise(t, 0, 0.5))


def test_the_ramps_are_in_the_history(usual: Callable) -> None:
    watch, history = usual("grl").watch, usual("grl").history
    last = watch.of("kl_weight").reshape(MAX_EPOCHS, -1)[:, -1]
    np.testing.assert_allclose(history["kl_weight"], last, rtol=1e-5)
    last = watch.of("alignment_weight").reshape(MAX_EPOCHS, -1)[:, -1]
    np.testing.assert_allclose(30 * history["alignment_strength"], last, rtol=1e-5)


@pytest.mark.parametrize("encoder", ["shared", "per_dataset"])
def test_distrusted_anchors_pull_with_a_tenth(
    make: Callable, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.setattr("scovert.anchors._find.MIN_CONSISTENCY", 0.0)
    for least, share in ((0.0, 1.0), (1.1, 0.1)):
        monkeypatch.setattr("scovert.anchors._find.MIN_CLARITY", least)
        last = train(make(encoder=encoder, anchor_weight=20), max_epochs=4).steps[-1]
        assert last["alignment_weight"] == pytest.approx(20 * share)
        assert last["component_weight"] == pytest.approx(0.3 * share)
        if encoder == "per_dataset":
            assert last["cross_weight"] == pytest.approx(0.5 * share)


def test_positions_do_not_count_where_classes_and_anchors_disagree(
    make: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("scovert.anchors._find.MIN_CONSISTENCY", 1.1)
    latent = []
    for weight in (0.3, 0.0):
        caplog.clear()
        scvi.settings.seed = 0
        model = make(component_weight=weight)
        assert train(model, max_epochs=4).steps[-1]["alignment_weight"] > 0
        assert ("Aligned components do not count" in caplog.text) == (weight > 0)
        latent.append(model.get_latent_representation())
    np.testing.assert_array_equal(*latent)


def test_positions_move_the_latent_space(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scovert.anchors._find.MIN_CONSISTENCY", 0.0)
    explained = []
    for weight in (0.0, 30.0):
        scvi.settings.seed = 0
        model = make(component_weight=weight)
        train(model)
        latent = model.get_latent_representation()
        anchors = find_anchors(model.adata.X, model.adata.obs["batch"].cat.codes)
        design = np.c_[latent, np.ones(len(latent))]
        rest = anchors.positions - design @ np.linalg.lstsq(design, anchors.positions)[0]
        explained.append(1 - rest.var() / anchors.positions.var())
    assert explained[1] > explained[0]


# The discriminator


@pytest.mark.parametrize("alignment", ["adversarial", "grl"])
def test_the_weight_is_not_raised_while_the_discriminator_is_fooled(
    make: Callable, alignment: str
) -> None:
    plan_kwargs = {"adversarial_start": 0.0, "adversarial_ramp": 1.0}
    watch = train(
        make(alignment), SetFooled(lambda step: 12 <= step < 24), plan_kwargs=plan_kwargs
    )
    t, weight = watch.of("t"), watch.of("alignment_weight")
    expected = 30 * t
    expected[12:24] = expected[11]
    np.testing.assert_allclose(weight, expected)


@pytest.mark.parametrize("alignment", ["adversarial", "grl"])
def test_the_last_epoch_says_whether_it_is_fooled(
    make: Callable, usual: Callable, monkeypatch: pytest.MonkeyPatch, alignment: str
) -> None:
    assert usual(alignment).watch.steps[-1]["alignment_weight"] == pytest.approx(30)
    monkeypatch.setattr(plan_file, "FOOLED", 0.0)
    assert train(make(alignment)).steps[-1]["alignment_weight"] == 0


@pytest.mark.parametrize("factor", [0.999, 1.001])
def test_a_discriminator_is_fooled_from_a_share_of_chance(
    make: Callable, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    scvi.settings.seed = 0
    model = make("grl")
    train(model, max_epochs=1)
    guess, chance = (
        history_of(model)[f"discriminator{name}_train"][-1] for name in ("", "_chance")
    )
    monkeypatch.setattr(plan_file, "FOOLED", factor * guess / chance)
    fooled = []

    class Look(pl.Callback):
        def on_train_end(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
            fooled.append(plan.is_fooled)

    scvi.settings.seed = 0
    train(make("grl"), Look(), max_epochs=1)
    assert fooled == [factor < 1]


def of_discriminator(model: PairedVAE) -> tuple[set[str], set[str]]:
    names = {name for name, _ in model.module.named_parameters()}
    own = {name for name in names if name.startswith("classifier")}
    return own, names - own


@pytest.mark.parametrize("d_steps", [1, 3])
@pytest.mark.parametrize("encoder", ["shared", "per_dataset"])
@pytest.mark.filterwarnings("ignore:`encoder='per_dataset'` with")
def test_discriminator_and_the_rest_learn_in_turn(
    make: Callable, d_steps: int, encoder: str
) -> None:
    model, watch = make("adversarial", encoder=encoder), WatchSteps()
    train(model, watch, plan_kwargs={"d_steps": d_steps}, max_epochs=4)
    own, rest = of_discriminator(model)
    turn = [own] * d_steps + [rest]
    assert watch.optimised == turn * (len(watch.optimised) // len(turn))
    for optimised, changed in zip(watch.optimised, watch.changed(), strict=False):
        assert changed
        assert changed <= optimised
    for optimised, frozen in zip(watch.optimised, watch.frozen, strict=True):
        assert own.isdisjoint(frozen) == (optimised == own)
    assert all(p.requires_grad for p in model.module.parameters())


def test_reversal_learns_in_one_step(usual: Callable) -> None:
    model, watch = usual("grl").model, usual("grl").steps
    own, rest = of_discriminator(model)
    assert watch.optimised == [own | rest] * len(watch.optimised)
    assert own <= set.union(*watch.changed())


@pytest.mark.parametrize("alignment", ["adversarial", "grl"])
def test_discriminator_learns_to_tell_the_datasets_apart(
    make: Callable, toy: AnnData, alignment: str
) -> None:
    first = (toy.obs["batch"] == "batch_0").to_numpy()
    counts = toy.X.toarray()
    counts[np.ix_(first, range(4))] += 90
    toy.X = counts
    model = make(alignment, support_weighted=False)
    train(model, max_epochs=40, plan_kwargs={"adversarial_weight": 0.0, "lr": 0.0})
    history = history_of(model)
    np.testing.assert_allclose(history["discriminator_chance_train"], math.log(2), rtol=1e-5)
    entropy = history["discriminator_train"]
    assert entropy[:3].mean() > 0.5 * math.log(2)
    assert entropy[-3:].mean() < 0.5 * entropy[:3].mean()


@pytest.mark.usefixtures("never_fooled")
def test_one_step_of_the_discriminator_lowers_its_loss(make: Callable) -> None:
    losses: list[tuple[float, float]] = []

    class Compare(pl.Callback):
        def on_train_batch_start(self, trainer, plan, batch, batch_idx) -> None:
            self.mean = plan.module.posterior_mean(batch | {"X": batch["X"].clone()}).detach()
            self.before = plan.module.discriminator_loss(self.mean, batch).item()

        def on_train_batch_end(self, trainer, plan, outputs, batch, batch_idx) -> None:
            after = plan.module.discriminator_loss(self.mean, batch).item()
            losses.append((self.before, after))

    train(make("adversarial", dropout_rate=0.0), Compare(), plan_kwargs={"lr": 0.0})
    before, after = np.array(losses).T
    assert (after < before).mean() > 0.9


# Clipping


@pytest.fixture
def gradient_norms() -> Iterator[list[float]]:
    norms: list[float] = []

    def collect(optimizer: torch.optim.Optimizer, *_: object) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    handle = register_optimizer_step_post_hook(collect)
    yield norms
    handle.remove()


@pytest.mark.parametrize("alignment", MODES)
def test_gradients_are_clipped_in_every_mode(
    make: Callable, gradient_norms: list[float], alignment: str
) -> None:
    train(make(alignment), max_epochs=1)
    without = list(gradient_norms)
    gradient_norms.clear()
    train(make(alignment), max_epochs=1, gradient_clip_val=0.01)
    assert min(without) > 0.01
    np.testing.assert_array_less(gradient_norms, 0.01 * 1.001)
    assert len(gradient_norms) == len(without)


@pytest.mark.parametrize("alignment", ["anchors", "adversarial"])
def test_gradients_can_be_clipped_by_value(
    make: Callable, gradient_norms: list[float], alignment: str
) -> None:
    options = {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"}
    model = make(alignment)
    train(model, max_epochs=1, **options)
    n_values = sum(p.numel() for p in model.module.parameters())
    np.testing.assert_array_less(gradient_norms, 1e-3 * math.sqrt(n_values) * 1.001)


# Early stopping and the best state


@pytest.mark.parametrize(
    ("alignment", "plan_kwargs", "full"),
    [
        ("anchors", {}, 0.25),
        ("anchors", {"kl_ramp": 0.1}, 0.2),
        ("none", {"kl_ramp": 0.1}, 0.1),
        ("adversarial", {}, 0.6),
        ("grl", {"adversarial_start": 0.1}, 0.4),
        ("grl", {"adversarial_start": 0.1, "kl_ramp": 0.5}, 0.5),
    ],
)
def test_stopping_counts_only_from_the_end_of_the_ramps(
    make: Callable, alignment: str, plan_kwargs: dict, full: float
) -> None:
    model = make(alignment)
    never_better = {"early_stopping_min_delta": 1e9, "early_stopping_patience": 2}
    train(model, plan_kwargs=plan_kwargs, **never_better)
    first = math.ceil(MAX_EPOCHS * full)
    assert len(model.history["train_loss"]) == first + 1 + 2


def test_patience_is_ten_epochs(make: Callable) -> None:
    model = make("none")
    train(model, max_epochs=40, early_stopping_min_delta=1e9)
    assert len(model.history["train_loss"]) == 10 + 1 + 10


def test_stopping_can_be_switched_off(make: Callable) -> None:
    model = make("none")
    train(model, max_epochs=20, early_stopping_min_delta=1e9, early_stopping=False)
    assert len(model.history["train_loss"]) == 20


@pytest.mark.parametrize(("alignment", "first"), [("anchors", 3), ("adversarial", 6), ("grl", 6)])
def test_the_best_state_after_the_ramps_is_restored(
    make: Callable, usual: Callable, alignment: str, first: int
) -> None:
    found = [(usual(alignment).model, usual(alignment).watch)]
    for early_stopping in (True, False):  # at a rate at which the last epoch is not the best
        model = make(alignment)
        watch = train(model, plan_kwargs={"lr": 0.3}, early_stopping=early_stopping)
        found.append((model, watch))
    for i, (model, watch) in enumerate(found):
        loss = history_of(model)["elbo_validation"]
        best = first + int(loss[first:].argmin())
        restored = model.module.state_dict()
        for name, value in watch.states[best].items():
            assert torch.equal(restored[name], value), f"{name}, fit {i}"


def test_a_worse_last_epoch_is_undone(make: Callable) -> None:
    model = make("none")
    watch = train(model, plan_kwargs={"lr": 0.3, "kl_ramp": 0.0})
    loss = history_of(model)["elbo_validation"]
    assert loss.argmin() < MAX_EPOCHS - 1, "choose another learning rate"
    last = watch.states[-1]
    assert not all(torch.equal(v, last[k]) for k, v in model.module.state_dict().items())


@pytest.mark.parametrize("alignment", MODES)
def test_what_is_watched_holds_no_alignment(usual: Callable, alignment: str) -> None:
    history = usual(alignment).history
    elbo = history["reconstruction_loss_validation"] + history["kl_local_validation"]
    np.testing.assert_allclose(history["elbo_validation"], elbo, rtol=1e-5)


# Lengths and splits


@pytest.mark.parametrize(("batch_size", "expected"), [(6, 300), (32, 400), (128, 400)])
def test_three_thousand_steps_in_at_most_400_epochs(
    make: Callable, monkeypatch: pytest.MonkeyPatch, batch_size: int, expected: int
) -> None:
    # 60 training cells make 10, 2 or 1 steps of 6, 32 or 128
    chosen = catch_length(monkeypatch)
    make("none").train(batch_size=batch_size)
    assert chosen == [expected]


def test_ten_epochs_are_the_least(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "N_STEPS", 5)
    chosen = catch_length(monkeypatch)
    make("none").train()
    assert chosen == [10]


@pytest.mark.parametrize("alignment", MODES)
def test_all_cells_can_be_trained_on(make: Callable, alignment: str) -> None:
    model = make(alignment)
    train(model, train_size=1.0, max_epochs=2)
    assert not [name for name in model.history if "validation" in name]
    assert np.isfinite(model.get_latent_representation()).all()
    assert (model.train_indices == np.arange(67)).all()


def test_the_split_is_remembered(make: Callable) -> None:
    model = make("none")
    train(model, train_size=0.8, max_epochs=1)
    both = np.sort([*model.train_indices, *model.validation_indices])
    np.testing.assert_array_equal(both, np.arange(67))
    assert len(model.train_indices) == round(0.8 * 40) + round(0.8 * 27)


TERMS = ("reconstruction_loss", "kl_local", "elbo")
EXTRA = {
    "anchors": ("pull",),
    "adversarial": ("confusion", "discriminator", "discriminator_chance"),
    "grl": ("discriminator", "discriminator_chance"),
    "none": (),
}


@pytest.mark.parametrize("alignment", MODES)
def test_history_has_every_term_of_both_halves(usual: Callable, alignment: str) -> None:
    model = usual(alignment).model
    terms = [*TERMS, *EXTRA[alignment]]
    names = {f"{term}_{half}" for term in terms for half in ("train", "validation")}
    names |= {"train_loss", "validation_loss", "kl_weight", "alignment_strength"}
    assert names <= set(model.history)
    for name in names:
        assert len(model.history[name]) == MAX_EPOCHS, name


def test_history_of_separate_networks_has_the_cross_reconstruction(make: Callable) -> None:
    model = make("anchors", encoder="per_dataset")
    train(model, max_epochs=1)
    assert {"cross_reconstruction_train", "cross_reconstruction_validation"} <= set(model.history)


def test_train_loss_is_the_weighted_sum(make: Callable) -> None:
    model = make("anchors")
    train(model, plan_kwargs={"kl_ramp": 0.0}, train_size=1.0)
    history = history_of(model)
    last = {name: values[-1] for name, values in history.items()}
    full = 10 if model.anchor_clarity_ >= 0.53 else 1
    expected = last["reconstruction_loss_train"] + last["kl_local_train"]
    expected += full * last["pull_train"] + last["components_train"]
    assert last["train_loss"] == pytest.approx(expected, rel=0.02)


# Trouble


@pytest.mark.parametrize("alignment", MODES)
def test_divergence_is_not_silent(make: Callable, alignment: str) -> None:
    model = make(alignment)
    stopped = False
    try:
        train(model, plan_kwargs={"lr": 1e6})
    except FloatingPointError:
        stopped = True
    assert stopped or (model.check()["verdict"] == "look").any()


@pytest.mark.parametrize("alignment", MODES)
def test_a_loss_that_is_no_number_stops_training(
    make: Callable, monkeypatch: pytest.MonkeyPatch, alignment: str
) -> None:
    model = make(alignment)
    with torch.no_grad():
        model.module.px_r.fill_(torch.nan)
    with pytest.raises(
        FloatingPointError, match="NaN or infinite in epoch 0, step 0.*plan_kwargs"
    ):
        train(model)
    assert not model.is_trained


# Training on


@pytest.mark.parametrize("alignment", ["anchors", "adversarial"])
def test_training_on_learns_as_before(make: Callable, alignment: str) -> None:
    model = make(alignment)
    train(model, max_epochs=3)
    model.get_latent_representation()
    watch = train(model, max_epochs=3)
    assert watch.of("training").all(), "dropout and batch normalisation are switched off"
    assert len(model.history["train_loss"]) == 2 * 3
    assert not model.module.training


@pytest.mark.parametrize("alignment", ["anchors", "adversarial", "grl"])
def test_the_learning_rate_can_fall(make: Callable, alignment: str) -> None:
    plan_kwargs = {"reduce_lr_on_plateau": True, "lr_patience": 0, "lr_threshold": 1e9}
    model = make(alignment)
    train(model, plan_kwargs=plan_kwargs)
    rates = [group["lr"] for group in model.trainer.optimizers[0].param_groups]
    assert rates[0] < 0.9e-3


@pytest.mark.parametrize("alignment", ["anchors", "adversarial", "grl"])
def test_another_optimiser_can_be_chosen(make: Callable, alignment: str) -> None:
    model = make(alignment)
    plan_kwargs = {"optimizer": "AdamW", "lr": 1e-2, "weight_decay": 0.1}
    train(model, plan_kwargs=plan_kwargs, max_epochs=1)
    (group, *_) = model.trainer.optimizers[0].param_groups
    assert isinstance(model.trainer.optimizers[0], torch.optim.AdamW)
    assert (group["lr"], group["weight_decay"], group["eps"]) == (1e-2, 0.1, 0.01)
