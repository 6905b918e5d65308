"""The laws that every model keeps. A new model is one more entry in MODELS.

A law is a test that takes `fits`. It holds for all entries but those that name it in `exempt`,
with the reason.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import sparse

from _autoencoder import CountAutoencoder
from _input import SHORT, assert_same_anndata, with_other_genes
from scovert.core._registered import columns_of
from scovert.core._words import words_of
from scovert.model import (
    BulkBudget,
    BulkDeconvolution,
    BulkResult,
    DistanceEmbedding,
    LatentConfounder,
    MaskedImputation,
    NicheVAE,
    PairedVAE,
    TypeExpression,
)

LATENT, MEANS = "get_latent_representation", "get_normalized_expression"

pytestmark = [
    pytest.mark.usefixtures("seed", "few_classes"),
    pytest.mark.filterwarnings("ignore:`encoder='per_dataset'` with"),
    pytest.mark.filterwarnings("ignore:Little is known of each cell"),
    pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)"),
]


@dataclass(frozen=True)
class Case:
    """How a model is made, what its methods return, and which laws are not for it."""

    cls: type
    stem: str
    toy: str  # fixture that makes its cells
    setup: dict
    init: dict
    getters: dict  # get_* and columns of the result: a number, "genes", or None for any
    slots: dict  # what annotate writes first, and the get_* that returns it, if there is one
    toy_options: tuple = ()
    train: dict = field(default_factory=lambda: FEW_EPOCHS)
    batched: tuple[str, ...] = (LATENT,)  # get_* that take a `batch_size`
    part: tuple[str, object] = ("batch", "batch_1")  # cells that lack a level
    query: str | None = None  # fixture of what to ask about, if not the cells themselves
    options: dict = field(default_factory=dict)  # of every question
    objective: tuple[str | None, str] = (None, "train_loss")  # method with the history, its column
    rtol: float = 0.0  # of results from genes in another order
    results: tuple[type, ...] = ()  # classes of ours that its methods return
    with_nan: tuple[str, ...] = ()  # arrays whose NaN the documentation explains
    exempt: dict[str, str] = field(default_factory=dict)  # laws, and why they are not for it

    def set_up(self, adata: AnnData) -> AnnData:
        self.cls.setup_anndata(adata, **self.setup)
        return adata

    def make(self, adata: AnnData) -> Any:
        self.set_up(adata)
        return self.cls(adata, **self.init)


FEW_EPOCHS = {**SHORT, "max_epochs": 3}
AT_ONCE = {"accelerator": "cpu", "enable_progress_bar": False}
WITHOUT_MINIBATCHES = dict.fromkeys(
    [
        "test_every_parameter_gets_a_gradient",
        "test_history_has_a_row_for_every_epoch",
        "test_another_seed_gives_another_model",
        "test_training_on_continues_the_history",
        "test_results_are_free_of_the_batch_size",
    ],
    "fitted to all cells at once until it has converged",
)
COVARIATES = {
    "layer": "raw",
    "categorical_covariate_keys": ["donor", "lane"],
    "continuous_covariate_keys": ["cycle"],
}


def paired(n_datasets: int = 2, setup: dict | None = None, **init: object) -> Case:
    return Case(
        cls=PairedVAE,
        stem="paired",
        toy="make_toy",
        toy_options=(n_datasets,),
        setup={"batch_key": "batch", **(setup or {})},
        init={"n_latent": 3, "n_hidden": 7, **init},
        getters={LATENT: 3, MEANS: "genes"},
        slots={"obsm/X_{}": LATENT, "layers/{}": MEANS},
        batched=(LATENT, MEANS),
        with_nan=("support_",),
        exempt={"test_the_objective_gets_better": "weights of its terms rise while it trains"},
    )


def confounder(n_latent: int = 2, setup: dict | None = None, **init: object) -> Case:
    setup = {"treatment_key": "treatment", **(setup or {})}
    n_levels = 3 if setup["treatment_key"] == "arm" else 2
    return Case(
        cls=LatentConfounder,
        stem="confounder",
        toy="make_treated",
        setup=setup,
        init={"n_latent": n_latent, **init},
        train=AT_ONCE,
        getters={
            LATENT: n_latent,
            MEANS: "genes",
            "get_class_probabilities": None,
            "get_treatment_probability": n_levels,
        },
        slots={"obsm/X_{}": LATENT, "layers/{}": MEANS},
        part=("treatment", True),
        objective=(None, "deviance"),
        exempt=WITHOUT_MINIBATCHES,
    )


AROUND, AROUND_IN_GENES = "get_neighborhood_composition", "get_neighborhood_expression"


def niche(setup: dict | None = None, **init: object) -> Case:
    has_states = init.get("decoder") != "matching"
    of_states = {AROUND: 4, AROUND_IN_GENES: "genes"} if has_states else {}
    slots = {"obsm/X_{}": LATENT}
    if has_states:
        slots |= {"obsm/{}_composition": AROUND, "layers/{}": AROUND_IN_GENES}
    return Case(
        cls=NicheVAE,
        stem="niche",
        toy="make_tissue",
        setup={"sample_key": "sample", "likelihood": "nb", **(setup or {})},
        init={"n_neighbors": 5, "n_states": 4, "n_latent": 3, "n_hidden": 7, **init},
        getters={LATENT: None, **of_states},
        slots=slots,
        batched=(LATENT, *of_states),
        part=("sample", "section_1"),
        exempt={"test_the_objective_gets_better": "weights of its terms rise while it trains"},
    )


LITTLE = BulkBudget(
    n_steps=10,
    n_bootstrap=3,
    n_bootstrap_steps=5,
    n_cohorts=1,
    n_cohort_bootstrap=3,
    n_cohort_bootstrap_steps=5,
)


def bulk(
    setup: dict | None = None, options: dict | None = None, a_type: object = "B", **init: object
) -> Case:
    cells_are_not_asked_about = [
        "test_the_order_of_indices_is_kept",
        "test_masks_and_rows_are_accepted",
        "test_results_are_free_of_the_batch_size",
        "test_some_cells_can_come_in_another_anndata",
    ]
    return Case(
        cls=BulkDeconvolution,
        stem="bulk",
        toy="make_reference",
        setup={"labels_key": "kind", **(setup or {})},
        init={"min_cells_per_type": 6, **init},
        train={"enable_progress_bar": False},
        getters={"get_proportions": 4, "get_mrna_fractions": 4, "get_fit_quality": None},
        slots={
            "obsm/{}_proportions": "get_proportions",
            "obsm/{}_mrna_fractions": "get_mrna_fractions",
            f"layers/{{}}_{a_type}": None,
        },
        query="make_bulk",
        options={
            "kind": "counts",
            "cell_size": "reference",
            "budget": LITTLE,
            **(options or {}),
        },
        objective=("deconvolve", "objective"),
        rtol=2e-3,
        results=(BulkResult, TypeExpression),
        exempt={
            **WITHOUT_MINIBATCHES,
            **dict.fromkeys(cells_are_not_asked_about, "samples are deconvolved together"),
            "test_missing_genes_are_refused": "a bulk may lack genes of the reference",
            "test_check_sees_a_history_that_is_broken": "the history is that of a bulk",
        },
    )


def distance(setup: dict | None = None, **init: object) -> Case:
    return Case(
        cls=DistanceEmbedding,
        stem="distance",
        toy="make_cohort",
        setup={"distances_key": "weighted_unifrac", **(setup or {})},
        init={"n_latent": 3, "n_hidden": 7, **init},
        train={**FEW_EPOCHS, "train_size": 0.8, "method": "network"},
        getters={LATENT: 3},
        slots={"obsm/X_{}": LATENT},
        part=("site", "s1"),
        exempt={
            "test_annotate_can_leave_the_layer_out_and_take_another_name": "writes no layer",
        },
    )


def imputation(n_datasets: int = 2, setup: dict | None = None, **init: object) -> Case:
    imputed = "get_imputed"
    return Case(
        cls=MaskedImputation,
        stem="imputation",
        toy="make_panels",
        toy_options=(n_datasets,),
        setup={"batch_key": "batch", "measured_key": "measured", **(setup or {})},
        init={"n_latent": 3, "n_hidden": 7, **init},
        getters={LATENT: 3, imputed: "genes"},
        slots={"obsm/X_{}": LATENT, "layers/{}": imputed},
        batched=(LATENT, imputed),
        with_nan=("spread_", "explained_"),
        exempt={"test_the_objective_gets_better": "weights of its terms rise while it trains"},
    )


ARMS = {"treatment_key": "arm", "reference": "none"}
MODELS = {
    "paired": paired(),
    "paired, three datasets": paired(3),
    "paired, covariates": paired(setup=COVARIATES, dispersion="gene-batch", n_layers=2),
    "paired, per dataset": paired(3, setup=COVARIATES, encoder="per_dataset"),
    "paired, adversarial": paired(3, alignment="adversarial"),
    "paired, adversarial, per dataset": paired(alignment="adversarial", encoder="per_dataset"),
    "paired, grl": paired(alignment="grl", dispersion="gene-batch"),
    "paired, none": paired(alignment="none"),
    "confounder": confounder(),
    "confounder, covariates": confounder(3, setup=COVARIATES),
    "confounder, arms": confounder(setup=ARMS),
    "confounder, clusters, size factors": confounder(
        1, setup={"cluster_key": "donor", "size_factor_key": "depth"}
    ),
    "confounder, binary": confounder(2, z_type="binary", setup=ARMS),
    "confounder, none": confounder(0),
    "niche": niche(),
    "niche, layer, batches": niche(setup={"layer": "raw", "batch_key": "lane"}),
    "niche, gaussian": niche(setup={"likelihood": "gaussian", "batch_key": "sample"}),
    "niche, matching": niche(decoder="matching"),
    "distance": distance(features=["abundance"]),
    "distance, tree, layer": distance(setup={"layer": "raw", "tree_key": "tree"}),
    "bulk": bulk(),
    "bulk, integers, donors, layer": bulk(
        setup={"labels_key": "number", "layer": "raw", "subject_key": "donor"},
        options={"interval": None, "likelihood": "nb"},
        a_type=0,
        n_states=1,
    ),
    "bulk, studies": bulk(setup={"batch_key": "study"}),
    "bulk, prototypes": bulk(signature="prototype_vae"),
    "imputation": imputation(),
    "imputation, mosaic, panels, layer": imputation(
        3, setup={"layer": "raw"}, encoder="panels", n_layers=2
    ),
    "a model of a few lines": Case(
        cls=CountAutoencoder,
        stem="counts_ae",
        toy="make_toy",
        setup={},
        init={"n_latent": 3},
        getters={LATENT: 3, MEANS: "genes"},
        slots={"obsm/X_{}": LATENT, "layers/{}": MEANS},
        batched=(LATENT, MEANS),
    ),
}
TYPICAL = {
    name: MODELS[name]
    for name in {(c.cls, "layer" in c.setup): n for n, c in reversed(MODELS.items())}.values()
}
"""The first entry of every class, and its first with counts in a layer."""


@dataclass
class Fit:
    """A fitted model, its AnnData before anything was done to it, and what it is asked about."""

    case: Case
    model: Any
    before: AnnData
    query: AnnData | None
    with_gradient: set[int]  # parameters that had one, by their `id`
    again: Any = None

    def ask(
        self, name: str, model: Any = None, about: AnnData | None = None, **options: object
    ) -> Any:
        about = self.query if about is None else about
        asked = () if about is None else (about,)
        return getattr(model or self.model, name)(*asked, **self.case.options, **options)

    def get(self, name: str, *where: Any, **options: object) -> np.ndarray:
        return np.asarray(self.ask(name, *where, **options))

    def answers(self, *where: Any) -> dict[str, np.ndarray]:
        return {name: self.get(name, *where) for name in self.case.getters}

    @cached_property
    def expected(self) -> dict[str, np.ndarray]:
        """The first answers."""
        return self.answers()

    def history(self, model: Any = None) -> pd.DataFrame:
        asked, column = self.case.objective
        return (self.ask(asked, model) if asked else model or self.model).history[column]

    def annotate(self, adata: AnnData, **options: object) -> None:
        return self.model.annotate(adata, **self.case.options, **options)

    @cached_property
    def annotated(self) -> AnnData:
        """The cells with all that `annotate` writes; tests that change it copy it."""
        adata = self.target()
        assert self.annotate(adata) is None
        return adata

    def load(self, folder: Path) -> Any:
        """Save the model and load it."""
        self.model.save(folder / "model")
        return self.case.cls.load(folder / "model", self.before.copy())

    def trained_on(self, folder: Path) -> Any:
        """Return a model that was saved, loaded and trained once more, the same for all tests."""
        if self.again is None:
            self.again = self.load(folder)
            self.again.train(**self.case.train)
        return self.again

    def target(self) -> AnnData:
        """Copy what annotate writes to."""
        return (self.before if self.query is None else self.query).copy()

    def slots(self, key: str) -> dict[tuple[str, str], str | None]:
        """Container and name of what annotate writes, and the get_* that returns it."""
        return {tuple(s.format(key).split("/")): name for s, name in self.case.slots.items()}


class WatchGradients(pl.Callback):
    """Collect the parameters that any optimiser steps on with a gradient."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        for group in optimizer.param_groups:
            self.seen |= {id(p) for p in group["params"] if p.grad is not None and p.grad.any()}


def fit(case: Case, adata: AnnData, query: AnnData | None, *, seed: int = 0) -> Fit:
    scvi.settings.seed = seed
    before, watch = adata.copy(), WatchGradients()
    model = case.make(adata)
    has_minibatches = "test_every_parameter_gets_a_gradient" not in case.exempt
    model.train(**case.train, **({"callbacks": [watch]} if has_minibatches else {}))
    return Fit(case, model, before, query, watch.seen)


@pytest.fixture(scope="module", autouse=True)
def few_epochs() -> Iterator[None]:
    """Train prototypes for few epochs, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scovert.model.bulk.variants._prototypes.MAX_EPOCHS", 30)
        yield


@pytest.fixture(scope="module")
def fitted() -> dict[int, Fit]:
    """Keep the fit of every entry: a law for some of them would fit them again."""
    return {}


@pytest.fixture(scope="module")
def fits(request: pytest.FixtureRequest, fitted: dict[int, Fit]) -> Fit:
    case = request.param
    if id(case) not in fitted:
        query = case.query and request.getfixturevalue(case.query)()
        fitted[id(case)] = fit(case, cells_of(case, request), query)
    return fitted[id(case)]


typical = fits
"""As `fits`, for laws that do not depend on options of a model."""


def cells_of(case: Case, request: pytest.FixtureRequest) -> AnnData:
    return request.getfixturevalue(case.toy)(*case.toy_options)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a law for the entries that are not exempt from it."""
    for fixture, cases in (("fits", MODELS), ("typical", TYPICAL)):
        if fixture in metafunc.fixturenames:
            law = metafunc.function.__name__
            held = {name: case for name, case in cases.items() if law not in case.exempt}
            metafunc.parametrize(fixture, held.values(), ids=held, indirect=True, scope="module")


def test_what_a_model_is_exempt_from_is_a_law() -> None:
    laws = {name for name in vars(sys.modules[__name__]) if name.startswith("test_")}
    for name, case in MODELS.items():
        assert case.exempt.keys() <= laws, name
        assert all(case.exempt.values()), name


# Training


def test_every_parameter_and_number_of_a_short_fit_is_finite(fits: Fit) -> None:
    for name, value in fits.model.module.state_dict().items():
        assert value.isfinite().all(), name
    for name, value in vars(fits.model).items():
        if isinstance(value, np.ndarray) and name not in fits.case.with_nan:
            assert np.isfinite(value).all(), name
    for name, frame in fits.model.history.items():
        assert np.isfinite(frame.to_numpy(float)).all(), name


def test_every_parameter_gets_a_gradient(fits: Fit) -> None:
    named = dict(fits.model.module.named_parameters())
    assert [n for n, p in named.items() if id(p) not in fits.with_gradient] == []


def test_history_has_a_row_for_every_epoch(fits: Fit) -> None:
    loss = fits.history()
    assert isinstance(loss, pd.DataFrame)
    assert loss.shape == (fits.case.train["max_epochs"], 1)
    assert loss.index.tolist() == list(range(len(loss)))


def test_a_seed_gives_the_same_model(fits: Fit) -> None:
    again = fit(fits.case, fits.before.copy(), fits.query)
    states = zip(
        fits.model.module.state_dict().items(),
        again.model.module.state_dict().items(),
        strict=True,
    )
    assert [name for (name, a), (_, b) in states if not torch.equal(a, b)] == []
    for name, value in again.answers().items():
        np.testing.assert_array_equal(value, fits.expected[name])


def test_another_seed_gives_another_model(fits: Fit) -> None:
    other = fit(fits.case, fits.before.copy(), fits.query, seed=1)
    for name, value in other.answers().items():
        assert not np.array_equal(value, fits.expected[name]), name


def test_the_objective_gets_better(fits: Fit) -> None:
    objective = fits.history()
    assert isinstance(objective, pd.DataFrame)
    assert objective.index.tolist() == list(range(len(objective)))
    values = objective.to_numpy(float).ravel()
    assert len(values) > 2
    assert values[-1] < values[0]
    assert np.isfinite(values).all()


# What get_* returns


def test_shapes_and_finite_values(fits: Fit) -> None:
    for name, n_columns in fits.case.getters.items():
        value, target = fits.expected[name], fits.target()
        n_columns = target.n_vars if n_columns == "genes" else n_columns or value.shape[1]
        assert value.shape == (target.n_obs, n_columns), name
        assert np.isfinite(value).all(), name
        if name in (LATENT, MEANS):
            assert value.dtype == np.float32, name


def test_tables_are_labelled(fits: Fit) -> None:
    for name, n_columns in fits.case.getters.items():
        table = fits.ask(name)
        if isinstance(table, pd.DataFrame):
            assert table.index.tolist() == fits.target().obs_names.tolist()
            assert (
                n_columns != "genes" or table.columns.tolist() == fits.target().var_names.tolist()
            )
            assert table.columns.is_unique


def test_the_order_of_indices_is_kept(fits: Fit) -> None:
    for name, value in fits.expected.items():
        found = fits.ask(name, indices=[5, 3, 60])
        np.testing.assert_allclose(found, value[[5, 3, 60]], rtol=2e-5, atol=1e-6)
        if isinstance(found, pd.DataFrame):
            assert found.index.tolist() == fits.before.obs_names[[5, 3, 60]].tolist()


def test_masks_and_rows_are_accepted(fits: Fit) -> None:
    cells = np.arange(fits.before.n_obs)
    for indices in (cells % 3 == 0, [-1, 0, 0], [], np.array([], int), range(4, 9)):
        rows = cells[indices if isinstance(indices, np.ndarray) else list(indices)]
        for name, value in fits.expected.items():
            found = fits.get(name, indices=indices)
            np.testing.assert_allclose(found, value[rows], rtol=2e-5, atol=1e-6)


def test_results_are_free_of_the_batch_size(fits: Fit) -> None:
    for name in fits.case.batched:
        for batch_size in (1, 13, 10_000):
            found = fits.get(name, about=fits.before.copy(), batch_size=batch_size)
            np.testing.assert_allclose(found, fits.expected[name], rtol=2e-5, atol=1e-6)


def test_asking_again_gives_the_same(fits: Fit) -> None:
    expected = fits.expected
    for name, value in fits.answers().items():
        np.testing.assert_array_equal(value, expected[name])


def test_check_finds_nothing_broken(fits: Fit) -> None:
    table = fits.model.check()
    assert list(table) == ["value", "verdict", "advice"]
    assert table.index.is_unique
    assert set(table["verdict"]) <= {"ok", "look"}
    assert np.isfinite(table.loc[table["verdict"] == "look", "value"]).all()
    assert table["verdict"].get("finite loss terms", "ok") == "ok"


def test_check_sees_a_history_that_is_broken(fits: Fit, tmp_path) -> None:
    loaded = fits.load(tmp_path)
    loaded.history[fits.case.objective[1]].iloc[-1] = np.nan
    row = loaded.check().loc["finite loss terms"]
    assert row["value"] < 1
    assert row["verdict"] == "look"
    assert fits.case.objective[1] in row["advice"]


def test_some_cells_can_come_in_another_anndata(fits: Fit) -> None:
    key, level = fits.case.part
    rows = np.flatnonzero(fits.before.obs[key] == level)[::-1]
    for name, value in fits.expected.items():
        found = fits.get(name, about=fits.before[rows].copy())
        np.testing.assert_allclose(found, value[rows], rtol=2e-5, atol=1e-6)
        of_view = fits.get(name, about=fits.before[rows], indices=[2, 0])
        np.testing.assert_allclose(of_view, value[rows[[2, 0]]], rtol=2e-5, atol=1e-6)


# Genes


def test_genes_are_matched_by_name(fits: Fit) -> None:
    """They come in another order, among others, and in a view."""
    reordered, view = with_other_genes(fits.target()), fits.target()[:, ::-1]
    for other in (reordered, view):
        for name, value in fits.answers(None, other).items():
            expected = fits.expected[name]
            np.testing.assert_allclose(
                value, expected, rtol=fits.case.rtol, atol=fits.case.rtol / 20
            )


def test_missing_genes_are_refused(fits: Fit) -> None:
    fewer, genes = fits.before[:, :-2].copy(), fits.before.var_names
    for name in fits.case.getters:
        with pytest.raises(
            ValueError, match=f"lacks 2 of the {len(genes)} (genes|taxa).*'{genes[-2]}'"
        ):
            fits.ask(name, about=fewer)


# Files


def test_save_and_load_give_the_same(fits: Fit, tmp_path) -> None:
    loaded = fits.load(tmp_path)
    for name, value in fits.answers(loaded).items():
        np.testing.assert_array_equal(value, fits.expected[name])
    pd.testing.assert_frame_equal(loaded.check(), fits.model.check())
    assert loaded.history.keys() == fits.model.history.keys()
    for name, frame in fits.model.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], frame.astype(float))


def test_load_matches_genes_by_name(fits: Fit, tmp_path) -> None:
    fits.model.save(tmp_path / "model")
    loaded = fits.case.cls.load(tmp_path / "model", with_other_genes(fits.before))
    for name, value in fits.expected.items():
        found, table = fits.ask(name, loaded), fits.ask(name)
        np.testing.assert_array_equal(found, value)
        if isinstance(table, pd.DataFrame):
            assert found.columns.equals(table.columns)
    genes = words_of(loaded.registry["setup_args"]).columns
    with pytest.raises(ValueError, match=f"lacks 2 of the {fits.before.n_vars} {genes}"):
        fits.case.cls.load(tmp_path / "model", fits.before[:, 2:].copy())


def test_a_loaded_model_trains_on(fits: Fit, tmp_path) -> None:
    loaded = fits.trained_on(tmp_path)
    for name, value in fits.answers(loaded).items():
        assert np.isfinite(value).all(), name


def test_training_on_continues_the_history(fits: Fit, tmp_path) -> None:
    loaded = fits.trained_on(tmp_path)
    history, first = fits.history(loaded), fits.history()
    assert len(history) == 2 * len(first)
    pd.testing.assert_frame_equal(history[: len(first)].astype(float), first.astype(float))


# What changes after it was set up


def matrix_of(adata: AnnData, case: Case) -> Any:
    layer = case.setup.get("layer")
    return adata.X if layer is None else adata.layers[layer]


def column_of(adata: AnnData, case: Case) -> str:
    return next(key for key in case.setup.values() if isinstance(key, str) and key in adata.obs)


def log_normalised(adata: AnnData, case: Case) -> None:
    matrix_of(adata, case).data[:] = np.log1p(matrix_of(adata, case).data / 3)


def with_a_nan(adata: AnnData, case: Case) -> None:
    matrix_of(adata, case).data[-1] = np.nan


def with_one_count_more(adata: AnnData, case: Case) -> None:
    matrix_of(adata, case).data[len(matrix_of(adata, case).data) // 2] += 1


def with_counts_of_other_genes(adata: AnnData, case: Case) -> None:
    values = matrix_of(adata, case)
    values[:, [0, 1]] = values[:, [1, 0]]


def with_genes_renamed(adata: AnnData, case: Case) -> None:
    adata.var_names = [f"ENSG{i:011d}" for i in range(adata.n_vars)]


def with_genes_cut(adata: AnnData, case: Case) -> None:
    adata._inplace_subset_var(np.arange(adata.n_vars - 2))


def with_genes_turned(adata: AnnData, case: Case) -> None:
    adata._inplace_subset_var(np.arange(adata.n_vars)[::-1])


def with_cells_cut(adata: AnnData, case: Case) -> None:
    adata._inplace_subset_obs(np.arange(adata.n_obs - 2))


def with_cells_turned(adata: AnnData, case: Case) -> None:
    adata._inplace_subset_obs(np.arange(adata.n_obs)[::-1])


def with_labels_moved(adata: AnnData, case: Case) -> None:
    column = column_of(adata, case)
    adata.obs[column] = np.roll(adata.obs[column].to_numpy(), 1)


def without_the_column(adata: AnnData, case: Case) -> None:
    del adata.obs[column_of(adata, case)]


CHANGED = {
    log_normalised: "holds .*raw counts",
    with_a_nan: "holds nan",
    with_one_count_more: "other counts",
    with_counts_of_other_genes: "other counts",
    with_genes_renamed: "genes are gone, such as .* others, such as 'ENSG",
    with_genes_cut: "2 of its .* genes are gone",
    with_genes_turned: "genes are in another order",
    with_cells_cut: r"it had \d+ (cells|samples) and has \d+",
    with_cells_turned: "in another order|other values",
}
CHANGED_COLUMNS = {with_labels_moved: "holds other values", without_the_column: "is gone"}


def changes_of(case: Case) -> dict[Callable, str]:
    """Changes, and what is said of them."""
    return CHANGED | (CHANGED_COLUMNS if columns_of(case.setup) else {})


def refusal_of(call: Callable) -> str:
    """What a call is refused with; empty if it is not."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def test_what_changed_before_training_is_refused(typical: Fit) -> None:
    case, not_told = typical.case, {}
    for change, match in changes_of(case).items():
        adata = case.set_up(typical.before.copy())
        change(adata, case)
        model = case.make(typical.before.copy())
        change(model.adata, case)
        for call in (partial(case.cls, adata, **case.init), partial(model.train, **case.train)):
            said = refusal_of(call)
            if not re.search(f"is not as it was set up: .*({match})", said):
                not_told[change.__name__] = said
        assert not model.is_trained_
    assert not_told == {}


def test_what_changed_after_training_is_refused_or_changes_nothing(typical: Fit, tmp_path) -> None:
    """What is asked about a query rests on the cells as they were when the model was trained."""
    case, not_told = typical.case, {}
    typical.model.save(tmp_path / "model")
    for change, match in changes_of(case).items():
        loaded = case.cls.load(tmp_path / "model", typical.before.copy())
        change(loaded.adata, case)
        if typical.query is not None:
            for name, value in typical.answers(loaded).items():
                np.testing.assert_array_equal(value, typical.expected[name])
            continue
        slots = set(loaded.adata.obsm)
        calls = [partial(typical.ask, name, loaded) for name in case.getters]
        calls += [loaded.annotate, partial(loaded.save, tmp_path / "again", save_anndata=True)]
        not_told |= {
            (change.__name__, i): said
            for i, said in enumerate(map(refusal_of, calls))
            if not re.search(match, said)
        }
        assert set(loaded.adata.obsm) == slots
        loaded.save(tmp_path / "again", overwrite=True)
    assert not_told == {}


def test_what_is_not_read_may_change(typical: Fit, tmp_path) -> None:
    loaded = typical.load(tmp_path)
    adata, layer = loaded.adata, typical.case.setup.get("layer")
    if layer is None:
        adata.X = np.asarray(adata.X.todense()).astype(np.int64)  # the same counts
    else:
        adata.X = adata.X * 0.1
        adata.layers[layer] = sparse.csc_matrix(adata.layers[layer].astype(np.int16))
    adata.obs_names = [f"c{i}" for i in range(adata.n_obs)]
    adata.obs["new"], adata.var["new"] = 1, 2
    for name, value in typical.answers(loaded).items():
        np.testing.assert_allclose(value, typical.expected[name], rtol=1e-6)


# Arguments


def public_methods(cls: type) -> Iterator[tuple[str, Callable]]:
    """Go through the constructor and all methods of ours."""
    yield cls.__name__, cls
    for name, _ in inspect.getmembers(cls, callable):
        owner = next(base for base in cls.__mro__ if name in vars(base))
        if not name.startswith("_") and owner.__module__.startswith("scovert"):
            yield name, getattr(cls, name)


OURS = dict.fromkeys(cls for case in MODELS.values() for cls in (case.cls, *case.results))
LOOKED_AT = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@pytest.mark.parametrize("cls", OURS, ids=[cls.__name__ for cls in OURS])
def test_unknown_arguments_are_refused_with_the_nearest(cls: type) -> None:
    for name, method in public_methods(cls):
        parameters = inspect.signature(method).parameters.values()
        known = [p.name for p in parameters if p.kind in LOOKED_AT]
        itself = (object.__new__(cls),) if known[:1] == ["self"] else ()
        with pytest.raises(TypeError, match=f"`.*{name}.*` does not take `no_such_thing`"):
            method(*itself, no_such_thing=1)
        for argument in known[len(itself) :]:
            if argument.startswith("_"):
                continue
            for wrong in (f"{argument}s", argument.replace("_", ""), argument.upper()):
                if wrong not in known:
                    with pytest.raises(TypeError, match=f"`{wrong}`.*Did you mean `{argument}"):
                        method(*itself, **{wrong: 1})


@pytest.mark.parametrize("cls", [c for c in OURS if c.__module__.startswith("scovert")])
def test_every_argument_is_described(cls: type) -> None:
    for name, method in public_methods(cls):
        text = inspect.getdoc(method)
        for p in inspect.signature(method).parameters.values():
            if p.name != "self" and not p.name.startswith("_"):
                stars = {p.VAR_KEYWORD: "**"}.get(p.kind, "")
                listed = rf"^([\w*]+, )*{re.escape(stars + p.name)}(, [\w*]+)*$"
                assert re.search(listed, text, re.MULTILINE), (name, p.name)


# The AnnData


def test_the_data_are_untouched(fits: Fit, request: pytest.FixtureRequest, tmp_path) -> None:
    fits.answers()
    fits.model.check()
    fits.model.save(tmp_path / "model")
    assert_same_anndata(without_slots_of_scvi(fits.model.adata), fits.before)
    assert_same_anndata(fits.before, cells_of(fits.case, request))
    if fits.query is not None:
        assert_same_anndata(fits.query, request.getfixturevalue(fits.case.query)())


def without_slots_of_scvi(adata: AnnData) -> AnnData:
    """Copy an AnnData without what scvi-tools keeps under `_scvi_*`."""
    adata = adata.copy()
    for container in (adata.obs, adata.obsm, adata.uns):
        for name in [n for n in container if n.startswith("_scvi_")]:
            del container[name]
    return adata


def test_annotate_writes_what_get_returns(fits: Fit) -> None:
    adata, stem = fits.annotated, fits.case.stem
    for (container, slot), name in fits.slots(stem).items():
        written = getattr(adata, container)[slot]
        if name is not None:
            np.testing.assert_array_equal(written, fits.expected[name])
    record = adata.uns[stem]
    assert record["model"] == fits.case.cls.__name__
    assert record["params"].items() >= fits.case.init.items()
    assert set(record["versions"]) >= {"scovert", "scvi-tools", "torch"}
    assert {"slots", "time"} <= set(record)


def test_annotate_leaves_the_rest_alone(fits: Fit) -> None:
    adata = fits.annotated.copy()
    for slot in adata.uns.pop(fits.case.stem)["slots"]:
        container, name = slot.split("/")
        del getattr(adata, container)[name]
    assert_same_anndata(adata, fits.target())


def test_an_annotated_anndata_survives_a_file(fits: Fit, tmp_path) -> None:
    adata, stem = fits.annotated.copy(), fits.case.stem
    adata.write_h5ad(tmp_path / "annotated.h5ad")
    read = ad.read_h5ad(tmp_path / "annotated.h5ad")
    for slot in adata.uns[stem]["slots"]:
        container, name = slot.split("/")
        found, expected = (getattr(a, container)[name] for a in (read, adata))
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected, check_names=False)
        else:
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert read.uns[stem]["params"] == adata.uns[stem]["params"]
    fits.annotate(read)  # its own slots, also after a file


def test_annotate_overwrites_only_its_own(typical: Fit) -> None:
    expected, stem = typical.annotated, typical.case.stem
    typical.annotate(expected.copy())
    for container, slot in typical.slots(stem):
        foreign = typical.target()
        getattr(foreign, container)[slot] = np.ones((foreign.n_obs, foreign.n_vars))
        before = foreign.copy()
        told = f"already holds.*{container}/{slot}.*did not write.*overwrite=True"
        with pytest.raises(ValueError, match=told):
            typical.annotate(foreign)
        assert_same_anndata(foreign, before)
        typical.annotate(foreign, overwrite=True)
        found, own = (getattr(a, container)[slot] for a in (foreign, expected))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(own))


def test_a_record_that_is_not_its_own_gives_no_leave(typical: Fit) -> None:
    stem = typical.case.stem
    slots = ["/".join(slot) for slot in typical.slots(stem)]
    for record in ({"slots": slots}, {"slots": slots, "model": "Another"}, "a string"):
        adata = typical.target()
        adata.uns[stem] = record
        with pytest.raises(ValueError, match=f"already holds.*uns/{stem}"):
            typical.annotate(adata)
        assert adata.uns[stem] == record
        assert set(adata.obsm) == set(typical.target().obsm)


def test_annotate_can_leave_the_layer_out_and_take_another_name(fits: Fit) -> None:
    adata = fits.target()
    fits.annotate(adata, key_added="mine", write_layer=False)
    for container, slot in fits.slots("mine"):
        assert (slot in getattr(adata, container)) == (container != "layers")
    assert "mine" in adata.uns
    assert set(adata.layers) == set(fits.target().layers)
    for container, slot in fits.slots(fits.case.stem):
        assert slot not in getattr(adata, container)


# The wrong order of calls


def test_an_untrained_model_refuses(typical: Fit, tmp_path) -> None:
    model = typical.case.make(typical.before.copy())
    asked = () if typical.query is None else (typical.query,)
    calls = [partial(getattr(model, name), *asked) for name in (*typical.case.getters, "annotate")]
    calls += [model.check, lambda: model.save(tmp_path / "model")]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"not trained.*train\(\)"):
            call()
    assert not (tmp_path / "model").exists()


def test_an_anndata_that_was_not_set_up_is_refused(typical: Fit) -> None:
    with pytest.raises(ValueError, match=f"not set up for {typical.case.cls.__name__}"):
        typical.case.cls(typical.before.copy())


def test_a_model_describes_itself(typical: Fit, capsys: pytest.CaptureFixture) -> None:
    words = words_of(typical.model.registry["setup_args"])
    assert f"{typical.before.n_obs} {words.rows}" in typical.model._model_summary_string
    repr(typical.model)
    assert typical.case.cls.__name__ in capsys.readouterr().out
