"""Figures: what they hold is read back from the axes."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes

from scovert import metrics, pl

mpl.use("agg")
N_EPOCHS = 40
KEYS = {"batch_key": "batch", "labels_key": "cell_type", "use_rep": "X_mixed"}
SIZES = {  # cells of each type in datasets x, y, z
    "B": (40, 37, 11),
    "NK": (3, 30, 20),
    "T": (60, 6, 35),
    "mono": (0, 4, 25),
}


pytestmark = pytest.mark.usefixtures("leaves_no_traces")


@pytest.mark.parametrize("name", pl.__all__)
def test_the_first_line_says_what_is_returned(name: str) -> None:
    figure = getattr(pl, name)
    is_one = figure.__annotations__["return"] == "Axes"
    first = inspect.getdoc(figure).splitlines()[0]
    assert first.endswith(" (Axes)." if is_one else " (array of Axes).")


def test_lines_are_seen_on_a_dark_ground() -> None:
    table = pd.DataFrame({"singular_value": [9.0, 4.0], "threshold": [5.0, 5.0]})
    effects = pd.DataFrame({"p_value": np.linspace(0.01, 1, 50)})
    with plt.style.context("dark_background"):
        drawn = [pl.scree(table), pl.p_values(effects)]
    for ax in drawn:
        assert ax.lines
        colours = [np.mean(mpl.colors.to_rgb(line.get_color())) for line in ax.lines]
        assert min(colours) > 0.3


# history


def trained(**values: np.ndarray) -> SimpleNamespace:
    index = pd.RangeIndex(N_EPOCHS, name="epoch")
    return SimpleNamespace(history={k: pd.DataFrame({k: v}, index) for k, v in values.items()})


@pytest.fixture
def model() -> SimpleNamespace:
    """Model with the names a training with a discriminator leaves behind."""
    epochs, rng = np.arange(N_EPOCHS), np.random.default_rng(0)
    terms = ["reconstruction_loss", "kl_local", "elbo", "pull", "discriminator"]
    values = {f"{t}_{m}": rng.random(N_EPOCHS) for t in terms for m in ("validation", "train")}
    chance = np.full(N_EPOCHS, np.log(3))
    return trained(
        **values,
        train_loss=500 + 1e4 * np.exp(-3.0 * epochs),
        validation_loss=510 + rng.random(N_EPOCHS),
        discriminator_chance_train=chance,
        discriminator_chance_validation=chance,
        kl_global_train=np.zeros(N_EPOCHS),
        kl_weight=np.minimum(1, epochs / 10),
        alignment_strength=np.minimum(1, epochs / 20),
    )


def lines(ax: Axes) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.get_lines()}


def test_history_has_a_panel_for_each_term(model: SimpleNamespace) -> None:
    axes = pl.history(model)
    assert isinstance(axes, np.ndarray)
    assert [(ax.get_title(), ax.get_ylabel(), list(lines(ax))) for ax in axes] == [
        ("Loss", "nats per cell", ["train", "validation"]),
        ("Negative ELBO", "nats per cell", ["train", "validation"]),
        ("Reconstruction", "nats per cell", ["train", "validation"]),
        ("KL divergence", "nats per cell", ["train", "validation"]),
        (
            "Pull between anchored cells",
            "squared latent distance per cell",
            ["train", "validation"],
        ),
        (
            "Cross-entropy of the discriminator",
            "nats per cell",
            ["train", "validation", "chance"],
        ),
        ("Weights", "weight", ["KL weight", "alignment strength"]),
    ]
    assert {ax.get_xlabel() for ax in axes} == {"epoch"}
    assert {ax.figure for ax in axes} == {axes[0].figure}
    assert axes[0].figure.axes == list(axes)  # no empty panels


def test_history_draws_every_value(model: SimpleNamespace) -> None:
    axes = pl.history(model)
    for term, ax in zip(
        ["elbo", "reconstruction_loss", "kl_local", "pull"], axes[1:5], strict=True
    ):
        for mode, values in lines(ax).items():
            np.testing.assert_array_equal(values, model.history[f"{term}_{mode}"].iloc[:, 0])
    np.testing.assert_array_equal(lines(axes[0])["train"], model.history["train_loss"].iloc[:, 0])
    np.testing.assert_array_equal(axes[0].get_lines()[0].get_xdata(), np.arange(N_EPOCHS))
    np.testing.assert_array_equal(
        lines(axes[6])["KL weight"], model.history["kl_weight"]["kl_weight"]
    )


def test_chance_is_a_dashed_line_in_sight(model: SimpleNamespace) -> None:
    ax = pl.history(model)[5]
    assert np.unique(lines(ax)["chance"]) == pytest.approx(np.log(3))
    assert ax.get_lines()[2].get_linestyle() == "--"
    assert ax.get_ylim()[0] < np.log(3) < ax.get_ylim()[1]


def test_first_epochs_do_not_flatten_the_rest(model: SimpleNamespace) -> None:
    low, high = pl.history(model)[0].get_ylim()
    assert 490 < low < 500
    assert 511 < high < 600


def test_a_short_training_is_shown_as_a_whole() -> None:
    deviance = pd.DataFrame({"deviance": [350.6, 350.1, 350.0, 349.7, 349.5, 349.4]})
    low, high = pl.history({"deviance": deviance})[0].get_ylim()
    assert low < 349.4
    assert high > 350.6


def test_the_last_epoch_is_shown_where_the_first_are_not() -> None:
    loss = np.r_[1e6, 1e5, np.linspace(20, 10, 60), 2.0]
    low, high = pl.history({"train_loss": pd.DataFrame({"train_loss": loss})})[0].get_ylim()
    assert low < 2
    assert high < 100


def test_limits_cover_a_straight_line() -> None:
    (ax,) = pl.history(trained(train_loss=np.linspace(7, 3, N_EPOCHS)))
    low, high = ax.get_ylim()
    assert low < 3
    assert high > 7


def test_history_of_other_models_and_odd_values() -> None:
    values = np.linspace(1.0, 2.0, N_EPOCHS)
    broken = np.where(values > 1.9, np.inf, values)
    model = trained(objective=values, dbpr_train=broken, validation_loss=values * np.nan)
    axes = pl.history(model)
    assert [ax.get_title() for ax in axes] == ["Objective", "Dbpr"]
    assert axes[1].get_ylim()[1] < 2.1


def test_history_of_alternating_phases_is_by_round() -> None:
    table, values = {}, np.linspace(3.0, 2.0, N_EPOCHS)
    for name, first in (("treatment_loss", 1), ("outcome_loss", 1), ("generator_loss", 2)):
        rounds = pd.Index(np.arange(first, first + 2 * N_EPOCHS, 2), name="round")
        table[name] = pd.DataFrame({name: values}, rounds)
    axes = pl.history(SimpleNamespace(history=dict(reversed(table.items()))))
    assert [ax.get_title() for ax in axes] == [
        "Treatment (odd rounds)",
        "Counts (odd rounds)",
        "Generator (even rounds)",
    ]
    for ax, (name, frame) in zip(axes, table.items(), strict=True):
        assert ax.get_xlabel() == "round"
        assert ax.get_legend() is None  # the title says it
        np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), frame.index)
        np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), frame[name])


def test_history_of_one_epoch_is_visible() -> None:
    model = SimpleNamespace(history={"train_loss": pd.DataFrame({"train_loss": [3.0]})})
    (ax,) = pl.history(model)
    assert ax.get_lines()[0].get_marker() == "."


def test_history_by_itself_is_drawn_as_that_of_its_model() -> None:
    deviance = np.array([9.0, 5.0, 4.0])
    frame = pd.DataFrame({"deviance": deviance}, pd.RangeIndex(3, name="round"))
    for given in ({"deviance": frame}, SimpleNamespace(history={"deviance": frame})):
        (ax,) = pl.history(given)
        assert (ax.get_title(), ax.get_xlabel()) == ("Deviance", "round")
        np.testing.assert_array_equal(lines(ax)["deviance"], deviance)


@pytest.mark.parametrize("value", [None, {}, {"kl_global_train": pd.DataFrame({"x": [0.0]})}])
def test_history_needs_a_trained_model(value: dict | None) -> None:
    with pytest.raises(RuntimeError, match=r"no history .* Call `model.train\(\)` first"):
        pl.history(SimpleNamespace(history=value))
    if value is not None:
        with pytest.raises(RuntimeError, match="This dict has no history of training"):
            pl.history(value)
    assert plt.get_fignums() == []


# support


def test_support_is_the_share_of_cells_with_a_counterpart() -> None:
    nan = np.nan
    table = pd.DataFrame(
        [[nan, 0.9, 0.1], [nan, 0.2, 0.69], [0.7, nan, 0.0], [0.1, 0.2, nan]], columns=list("abc")
    )
    ax = pl.support(table, ["T", "T", "T", "B"])
    rows, columns = (
        [t.get_text() for t in labels] for labels in (ax.get_yticklabels(), ax.get_xticklabels())
    )
    assert rows == ["B", "T"]
    assert columns == ["a", "b", "c"]
    shares = np.asarray(ax.images[0].get_array().filled(nan))
    np.testing.assert_array_equal(shares, [[nan, nan, 0.0], [0.5, 1.0, nan]])
    assert sorted(text.get_text() for text in ax.texts) == ["0.00\n(1)", "0.50\n(2)", "1.00\n(1)"]
    assert ax.get_xlabel() == "dataset"
    _, own = plt.subplots()
    assert pl.support(table, ["T"] * 4, ax=own, min_support=0.6) is own
    assert np.asarray(own.images[0].get_array())[0, 0] == 1.0


def test_support_needs_a_label_and_a_dataset_for_each_cell() -> None:
    table = pd.DataFrame({"a": [np.nan, 0.2], "b": [0.1, 0.3]})
    with pytest.raises(ValueError, match=r"2 rows, of which 1 have NaN.*`labels` has 2"):
        pl.support(table, ["T", "B"])
    with pytest.raises(ValueError, match="`labels` has 0 values"):
        pl.support(table.iloc[:1].assign(c=0.1), [])


# batch_mixing


@pytest.fixture
def cells() -> AnnData:
    """Three datasets in two embeddings: mixed within each type, and apart."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(t, sum(n)) for t, n in SIZES.items()])
    batch = np.concatenate([np.repeat(["x", "y", "z"], n) for n in SIZES.values()])
    order = rng.permutation(len(labels))
    obs = pd.DataFrame({"batch": batch[order], "cell_type": labels[order]})
    obs.index = obs.index.astype(str)
    adata = AnnData(np.zeros((len(obs), 2), np.float32), obs=obs)
    mixed = rng.normal(size=(len(obs), 5))
    mixed[:, 0] += 20 * pd.factorize(obs["cell_type"])[0]
    apart = mixed + 100 * pd.factorize(obs["batch"])[0][:, None]
    adata.obsm["X_mixed"], adata.obsm["X_apart"] = mixed, apart
    return adata


def scores(ax: Axes) -> pd.DataFrame:
    """Types x representations as drawn."""
    names = [text.get_text().split(" (")[0] for text in ax.get_yticklabels()]
    drawn = {
        line.get_label().split(" (")[0]: pd.Series(
            line.get_xdata(), [names[int(y)] for y in line.get_ydata()]
        )
        for line in ax.get_lines()
    }
    return pd.DataFrame(drawn)


def test_batch_mixing_draws_the_score_of_metrics(cells: AnnData) -> None:
    ax = pl.batch_mixing(cells, **KEYS | {"use_rep": ["X_mixed", "X_apart"]}, n_neighbors=8)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    labels = cells.obs["batch"], cells.obs["cell_type"]
    for i, slot in enumerate(["X_mixed", "X_apart"], start=1):
        drawn = scores(ax)[slot]
        assert set(drawn.index) == {"B", "T"}  # with 5 cells in every dataset
        mean = metrics.batch_mixing(cells.obsm[slot], *labels, n_neighbors=8)
        assert drawn.mean() == pytest.approx(mean)
        assert legend[i] == f"{slot} (mean {mean:.2f})"


def test_datasets_apart_are_drawn_where_they_score(cells: AnnData) -> None:
    drawn = scores(pl.batch_mixing(cells, **KEYS | {"use_rep": "X_apart"}, n_neighbors=5))
    for label in ("B", "T"):
        shares = np.array(SIZES[label]) / sum(SIZES[label])
        assert drawn.loc[label, "datasets apart"] == pytest.approx((shares**2).sum())
    np.testing.assert_allclose(drawn["X_apart"], drawn["datasets apart"], atol=1e-6)


def test_batch_mixing_says_what_is_missing(cells: AnnData) -> None:
    ax = pl.batch_mixing(cells, **KEYS)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert sorted(labels[:2]) == ["B (88)", "T (101)"]
    assert labels[2:] == ["NK (53; few in x)", "mono (29; not in x; few in y)"]
    assert not {"NK", "mono"} & set(scores(ax).index)
    assert [patch.get_y() for patch in ax.patches] == [1.5, 2.5]  # their rows are grey


def test_batch_mixing_axes(cells: AnnData) -> None:
    _, own = plt.subplots()
    ax = pl.batch_mixing(cells, **KEYS | {"use_rep": ["X_mixed", "X_apart"]}, ax=own)
    assert ax is own
    assert ax.get_xlabel() == "batch mixing (1: shuffled within the type)"
    markers = [each.get_marker() for each in ax.get_lines()]
    assert len(set(markers)) == 3  # told apart without colours
    first = scores(ax)["X_mixed"]
    assert list(first.index) == list(first.sort_values().index)


def test_batch_mixing_leaves_the_data_alone(cells: AnnData) -> None:
    before = cells.copy()
    pl.batch_mixing(cells, **KEYS)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert cells.uns == before.uns
    np.testing.assert_array_equal(cells.obsm["X_mixed"], before.obsm["X_mixed"])


@pytest.mark.parametrize(
    ("change", "exception", "match"),
    [
        ({"batch_key": "lane"}, KeyError, "`batch_key='lane'` is not a column"),
        ({"labels_key": "type"}, KeyError, "`labels_key='type'` is not a column"),
        ({"use_rep": "X_paired"}, KeyError, r"slots: \['X_mixed'.* `model.annotate\(\)`"),
        ({"use_rep": ["X_mixed", "X_nan"]}, ValueError, "`adata.obsm.'X_nan'.` .* not a finite"),
        ({"n_neighbors": 0}, ValueError, "`n_neighbors=0` is out of range"),
        ({"n_neighbors": 2.5}, TypeError, "Pass a whole number"),
        ({"n_neighbors": 189}, ValueError, r"in \[1, 188\]"),
        ({"batch_key": "one"}, ValueError, r"`batch` holds \['1'\]"),
        ({"labels_key": "holes"}, ValueError, "has no value in 1 cell,"),
        ({"labels_key": "unique"}, ValueError, "No type has 5 cells in every batch"),
    ],
)
def test_batch_mixing_refuses(
    cells: AnnData, change: dict, exception: type[Exception], match: str
) -> None:
    cells.obs["one"] = 1
    cells.obs["holes"] = cells.obs["cell_type"].where(np.arange(cells.n_obs) != 3)
    cells.obs["unique"] = "of " + cells.obs["batch"]
    cells.obsm["X_nan"] = np.full((cells.n_obs, 2), np.nan)
    with pytest.raises(exception, match=match):
        pl.batch_mixing(cells, **KEYS | change)
    assert plt.get_fignums() == []


def test_import_is_light() -> None:
    heavy = ["matplotlib.pyplot", "scanpy", "sklearn", "torch"]
    code = f"import sys, scovert.pl; sys.exit(bool(set({heavy}) & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "draw",
    [lambda m, c: pl.history(m, show=True), lambda m, c: pl.batch_mixing(c, **KEYS, show=True)],
    ids=["history", "batch_mixing"],
)
def test_show(
    draw: Callable, model: SimpleNamespace, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    draw(model, cells)
    assert calls == [1]
