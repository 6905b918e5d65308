"""The etiquette that every model keeps. A new model is one more line in MODELS."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
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

from scovert.model import (
    BulkBudget,
    BulkDeconvolution,
    BulkResult,
    LatentConfounder,
    PairedVAE,
    TypeExpression,
)

COVARIATES = {
    "layer": "raw",
    "categorical_covariate_keys": ["donor", "lane"],
    "continuous_covariate_keys": ["cycle"],
}
LATENT, MEANS = "get_latent_representation", "get_normalized_expression"

pytestmark = [
    pytest.mark.usefixtures("seed"),
    pytest.mark.filterwarnings("ignore:`encoder='per_dataset'` with"),
    pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)"),
]


@dataclass(frozen=True)
class Case:
    """How to make a model, what its methods return for a cell, and what they are called with."""

    cls: type
    stem: str
    toy: str
    n_genes: int
    n_latent: int
    setup: dict
    init: dict
    getters: dict = field(default_factory=dict)  # columns of the result; None for any number
    toy_options: tuple = ()
    part: tuple[str, object] = ("batch", "batch_1")  # cells that lack a level
    batched: tuple[str, ...] = (LATENT,)
    slot: str = "X_{}"  # of obsm, the first that annotate writes
    query: str | None = None  # what to make to ask about, if not the cells themselves
    options: dict = field(default_factory=dict)  # of every question

    def set_up(self, adata: AnnData) -> AnnData:
        self.cls.setup_anndata(adata, **self.setup)
        return adata

    def make(self, adata: AnnData) -> Any:
        self.set_up(adata)
        return self.cls(adata, **self.init)


def paired(n_datasets: int = 2, setup: dict | None = None, **init: object) -> Case:
    return Case(
        cls=PairedVAE,
        stem="paired",
        toy="make_toy",
        toy_options=(n_datasets,),
        n_genes=11,
        n_latent=3,
        setup={"batch_key": "batch", **(setup or {})},
        init={"n_latent": 3, "n_hidden": 7, **init},
        getters={LATENT: 3, MEANS: 11},
        batched=(LATENT, MEANS),
    )


def confounder(n_latent: int = 2, setup: dict | None = None, **init: object) -> Case:
    setup = {"treatment_key": "treatment", **(setup or {})}
    n_levels = 3 if setup["treatment_key"] == "arm" else 2
    return Case(
        cls=LatentConfounder,
        stem="confounder",
        toy="make_treated",
        n_genes=31,
        n_latent=n_latent,
        setup=setup,
        init={"n_latent": n_latent, **init},
        getters={
            LATENT: n_latent,
            MEANS: 31,
            "get_class_probabilities": None,
            "get_treatment_probability": n_levels,
        },
        part=("treatment", True),
    )


def bulk(setup: dict | None = None, options: dict | None = None, **init: object) -> Case:
    return Case(
        cls=BulkDeconvolution,
        stem="bulk",
        toy="make_reference",
        n_genes=307,
        n_latent=4,
        setup={"labels_key": "kind", **(setup or {})},
        init={"min_cells_per_type": 6, **init},
        getters={"get_proportions": 4, "get_mrna_fractions": 4, "get_fit_quality": None},
        slot="{}_proportions",
        query="make_bulk",
        options={
            "kind": "counts",
            "cell_size": "reference",
            "budget": BulkBudget(
                n_steps=10,
                n_bootstrap=3,
                n_bootstrap_steps=5,
                n_cohorts=1,
                n_cohort_bootstrap=3,
                n_cohort_bootstrap_steps=5,
            ),
            **(options or {}),
        },
    )


ARMS = {"treatment_key": "arm", "reference": "none"}
MINIBATCHES = {
    "paired": paired(),
    "paired, three datasets": paired(3),
    "paired, covariates": paired(setup=COVARIATES, dispersion="gene-batch", n_layers=2),
    "paired, per dataset": paired(3, setup=COVARIATES, encoder="per_dataset"),
    "paired, adversarial": paired(3, alignment="adversarial"),
    "paired, adversarial, per dataset": paired(alignment="adversarial", encoder="per_dataset"),
    "paired, grl": paired(alignment="grl", dispersion="gene-batch"),
    "paired, none": paired(alignment="none"),
}
WHOLE = {
    "confounder": confounder(),
    "confounder, covariates": confounder(3, setup=COVARIATES),
    "confounder, arms": confounder(setup=ARMS),
    "confounder, clusters": confounder(setup={"cluster_key": "donor"}),
    "confounder, size factors": confounder(1, setup={"size_factor_key": "depth"}),
    "confounder, binary": confounder(2, z_type="binary", setup=ARMS),
    "confounder, none": confounder(0),
    "confounder, none, covariates": confounder(0, setup=COVARIATES),
}
CELLS = MINIBATCHES | WHOLE
BULK = {
    "bulk": bulk(),
    "bulk, integers, donors, layer": bulk(
        setup={"labels_key": "number", "layer": "raw", "subject_key": "donor"},
        options={"interval": None, "likelihood": "nb"},
        n_states=1,
    ),
    "bulk, studies": bulk(setup={"batch_key": "study"}),
    "bulk, prototypes": bulk(signature="prototype_vae"),
}
MODELS = CELLS | BULK


class WatchGradients(pl.Callback):
    """Collect the parameters that any optimiser steps on with a gradient."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        for group in optimizer.param_groups:
            self.seen |= {id(p) for p in group["params"] if p.grad is not None and p.grad.any()}


@dataclass
class Fit:
    """A fitted model, its AnnData before anything was done to it, and its gradients."""

    case: Case
    model: Any
    before: AnnData
    gradients: WatchGradients
    query: AnnData | None

    def ask(self, name: str, model: Any = None, **options: object) -> Any:
        asked = () if self.query is None else (self.query,)
        return getattr(model or self.model, name)(*asked, **self.case.options, **options)

    def get(self, name: str, model: Any = None, **options: object) -> np.ndarray:
        return np.asarray(self.ask(name, model, **options))

    def getters(self, model: Any = None) -> dict[str, np.ndarray]:
        return {name: self.get(name, model) for name in self.case.getters}

    def annotate(self, adata: AnnData, **options: object) -> None:
        return self.model.annotate(adata, **self.case.options, **options)

    def target(self) -> AnnData:
        """Copy what annotate writes to."""
        return (self.before if self.query is None else self.query).copy()

    @property
    def genes(self) -> str:
        return f"of the {self.case.n_genes} genes"


def fit(case: Case, adata: AnnData, options: dict, query: AnnData | None = None) -> Fit:
    scvi.settings.seed = 0
    before, gradients = adata.copy(), WatchGradients()
    model = case.make(adata)
    watched = {"callbacks": [gradients]} if case.cls is PairedVAE else {}
    model.train(**options_of(case, options), **watched)
    return Fit(case, model, before, gradients, query)


def options_of(case: Case, options: dict) -> dict:
    """Options of a fit; those without minibatches run until they have converged."""
    if case.cls is PairedVAE:
        return options
    if case.cls is BulkDeconvolution:
        return {"enable_progress_bar": False}
    return {name: options[name] for name in ("accelerator", "enable_progress_bar")}


@pytest.fixture(scope="module", autouse=True)
def few_classes() -> Iterator[None]:
    """Look for three hidden classes at most, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scovert.model.confounder.effects._mixture.N_CLASSES", (1, 2, 3))
        yield


@pytest.fixture(scope="module", autouse=True)
def few_epochs() -> Iterator[None]:
    """Train prototypes for few epochs, to save time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scovert.model.bulk.variants._prototypes.MAX_EPOCHS", 30)
        yield


@pytest.fixture(scope="module")
def fitted() -> dict[int, Fit]:
    """Keep the fit of every case: tests of some models only would fit them again."""
    return {}


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS.keys())
def fits(request: pytest.FixtureRequest, fit_options: dict, fitted: dict[int, Fit]) -> Fit:
    case = request.param
    if id(case) not in fitted:
        make = request.getfixturevalue(case.toy)
        query = case.query and request.getfixturevalue(case.query)()
        fitted[id(case)] = fit(case, make(*case.toy_options), fit_options, query)
    return fitted[id(case)]


def only(cases: dict[str, Case]) -> pytest.MarkDecorator:
    """Run a test with some of the models."""
    return pytest.mark.parametrize("fits", cases.values(), ids=cases.keys(), indirect=True)


# Training


def test_every_parameter_and_number_of_a_short_fit_is_finite(fits: Fit) -> None:
    for name, value in fits.model.module.state_dict().items():
        assert value.isfinite().all(), name
    for name, frame in fits.model.history.items():
        assert np.isfinite(frame.to_numpy(float)).all(), name


@only(MINIBATCHES)
def test_every_parameter_gets_a_gradient(fits: Fit) -> None:
    named = dict(fits.model.module.named_parameters())
    assert [n for n, p in named.items() if id(p) not in fits.gradients.seen] == []


@only(MINIBATCHES)
def test_history_has_a_row_for_every_epoch(fits: Fit, fit_options: dict) -> None:
    loss = fits.model.history["train_loss"]
    assert isinstance(loss, pd.DataFrame)
    assert loss.shape == (fit_options["max_epochs"], 1)
    assert loss.index.tolist() == list(range(fit_options["max_epochs"]))


def test_a_seed_gives_the_same_model(fits: Fit, fit_options: dict) -> None:
    again = fit(fits.case, fits.before.copy(), fit_options, fits.query)
    states = zip(
        fits.model.module.state_dict().items(),
        again.model.module.state_dict().items(),
        strict=True,
    )
    assert [name for (name, a), (_, b) in states if not torch.equal(a, b)] == []
    for name, value in fits.getters().items():
        np.testing.assert_array_equal(again.get(name), value)


@only(BULK)
def test_the_objective_of_a_bulk_gets_better(fits: Fit) -> None:
    objective = fits.ask("deconvolve").history["objective"]
    assert objective.index.tolist() == list(range(10))
    assert objective["objective"].iloc[-1] < objective["objective"].iloc[0]
    assert np.isfinite(objective).all(axis=None)


@only(WHOLE)
def test_the_objective_gets_better(fits: Fit) -> None:
    deviance = fits.model.history["deviance"]
    assert isinstance(deviance, pd.DataFrame)
    assert deviance.index.tolist() == list(range(len(deviance)))
    assert len(deviance) > 2
    assert deviance["deviance"].iloc[-1] < deviance["deviance"].iloc[0]


@only(MINIBATCHES)
def test_another_seed_gives_another_model(fits: Fit, fit_options: dict) -> None:
    model = fits.case.make(fits.before.copy())
    scvi.settings.seed = 1
    model.train(**fit_options)
    assert not np.array_equal(
        model.get_latent_representation(), fits.get("get_latent_representation")
    )


# What get_* returns


def test_shapes_and_finite_values(fits: Fit) -> None:
    for name, shape in fits.case.getters.items():
        value = fits.get(name)
        assert value.shape == (fits.target().n_obs, shape or value.shape[1]), name
        if name in (LATENT, MEANS):
            assert value.dtype == np.float32, name
        assert np.isfinite(value).all(), name


@only(CELLS)
def test_tables_are_labelled(fits: Fit) -> None:
    table = fits.model.get_normalized_expression(indices=[5, 3, 60])
    assert table.index.tolist() == fits.before.obs_names[[5, 3, 60]].tolist()
    assert table.columns.tolist() == fits.before.var_names.tolist()


@only(CELLS)
def test_the_order_of_indices_is_kept(fits: Fit) -> None:
    for name, value in fits.getters().items():
        np.testing.assert_allclose(
            fits.get(name, indices=[5, 3, 60]), value[[5, 3, 60]], rtol=2e-5, atol=1e-6
        )


@only(CELLS)
@pytest.mark.parametrize("indices", ["mask", [-1, 0, 0], [], np.array([], int), range(4, 9)])
def test_masks_and_rows_are_accepted(fits: Fit, indices: object) -> None:
    cells = np.arange(fits.before.n_obs)
    indices = cells % 3 == 0 if isinstance(indices, str) else indices
    rows = cells[indices if isinstance(indices, np.ndarray) else list(indices)]
    for name, value in fits.getters().items():
        found = fits.get(name, indices=indices)
        np.testing.assert_allclose(found, value[rows], rtol=2e-5, atol=1e-6)


@only(CELLS)
@pytest.mark.parametrize("batch_size", [1, 13, 10_000])
def test_results_are_free_of_the_batch_size(fits: Fit, batch_size: int) -> None:
    for name in fits.case.batched:
        found = fits.get(name, adata=fits.before.copy(), batch_size=batch_size)
        np.testing.assert_allclose(found, fits.get(name), rtol=2e-5, atol=1e-6)


def test_getting_twice_gives_the_same(fits: Fit) -> None:
    for name, value in fits.getters().items():
        np.testing.assert_array_equal(fits.get(name), value)


def test_check_finds_nothing_broken(fits: Fit) -> None:
    table = fits.model.check()
    assert list(table) == ["value", "verdict", "advice"]
    assert set(table["verdict"]) <= {"ok", "look"}
    if fits.case.cls is BulkDeconvolution:
        assert np.isfinite(table["value"]).all()
    else:
        assert table.loc["finite loss terms", "value"] == 1
    assert ((table["advice"] == "") == (table["verdict"] == "ok")).all()


@only(CELLS)
def test_cells_can_come_in_another_anndata(fits: Fit) -> None:
    key, level = fits.case.part
    rows = np.flatnonzero(fits.before.obs[key] == level)[::-1]
    for name, value in fits.getters().items():
        found = fits.get(name, adata=fits.before[rows].copy())
        np.testing.assert_allclose(found, value[rows], rtol=2e-5, atol=1e-6)
        of_view = fits.get(name, adata=fits.before[rows], indices=[2, 0])
        np.testing.assert_allclose(of_view, value[rows[[2, 0]]], rtol=2e-5, atol=1e-6)


# Genes


@only(CELLS)
def test_permuted_and_extra_genes_give_the_same(fits: Fit) -> None:
    other = with_other_genes(fits.before)
    for name, value in fits.getters().items():
        np.testing.assert_array_equal(fits.get(name, adata=other), value)


@only(CELLS)
def test_missing_genes_are_refused(fits: Fit) -> None:
    fewer = fits.before[:, :-2].copy()
    for name in fits.case.getters:
        with pytest.raises(ValueError, match=f"lacks 2 {fits.genes}.*'{fewer_than(fits)}'"):
            fits.get(name, adata=fewer)


# Files


def test_save_and_load_give_the_same(fits: Fit, tmp_path) -> None:
    fits.model.save(tmp_path / "model")
    loaded = fits.case.cls.load(tmp_path / "model", fits.before.copy())
    for name, value in fits.getters().items():
        np.testing.assert_array_equal(fits.get(name, loaded), value)
    pd.testing.assert_frame_equal(loaded.check(), fits.model.check())
    assert loaded.history.keys() == fits.model.history.keys()
    for name, frame in fits.model.history.items():
        pd.testing.assert_frame_equal(loaded.history[name], frame.astype(float))


def test_load_matches_genes_by_name(fits: Fit, tmp_path) -> None:
    fits.model.save(tmp_path / "model")
    loaded = fits.case.cls.load(tmp_path / "model", with_other_genes(fits.before))
    for name, value in fits.getters().items():
        np.testing.assert_array_equal(fits.get(name, loaded), value)
    if fits.query is None:
        assert loaded.get_normalized_expression().columns.equals(fits.before.var_names)
    with pytest.raises(ValueError, match=f"lacks 2 {fits.genes}"):
        fits.case.cls.load(tmp_path / "model", fits.before[:, 2:].copy())


def test_a_loaded_model_trains_on(fits: Fit, tmp_path, fit_options: dict) -> None:
    fits.model.save(tmp_path / "model")
    loaded = fits.case.cls.load(tmp_path / "model", fits.before.copy())
    loaded.train(**options_of(fits.case, fit_options))
    for name, value in fits.getters(loaded).items():
        assert np.isfinite(value).all(), name
    if fits.case.cls is PairedVAE:
        assert len(loaded.history["train_loss"]) == 2 * fit_options["max_epochs"]


# What changes after it was set up


def matrix_of(adata: AnnData, case: Case) -> Any:
    layer = case.setup.get("layer")
    return adata.X if layer is None else adata.layers[layer]


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
    column = next(key for key in case.setup.values() if key in adata.obs)
    adata.obs[column] = np.roll(adata.obs[column].to_numpy(), 1)


def without_the_column(adata: AnnData, case: Case) -> None:
    del adata.obs[next(key for key in case.setup.values() if key in adata.obs)]


CHANGED = {
    log_normalised: "holds .*raw counts",
    with_a_nan: "holds nan",
    with_one_count_more: "other counts",
    with_counts_of_other_genes: "other counts",
    with_genes_renamed: "genes are gone, such as .* others, such as 'ENSG",
    with_genes_cut: "2 of its .* genes are gone",
    with_genes_turned: "genes are in another order",
    with_cells_cut: r"it had \d+ cells and has \d+",
    with_cells_turned: "in another order|other values",
    with_labels_moved: "holds other values",
    without_the_column: "is gone",
}
READ = (
    "paired",
    "paired, covariates",
    "confounder",
    "confounder, covariates",
    "confounder, clusters",
    "bulk",
    "bulk, integers, donors, layer",
)
changed = pytest.mark.parametrize(
    ("change", "match"), CHANGED.items(), ids=[change.__name__ for change in CHANGED]
)


@only({name: MODELS[name] for name in READ})
@changed
def test_what_changed_before_training_is_refused(
    fits: Fit, change: Callable, match: str, fit_options: dict
) -> None:
    case, told = fits.case, f"AnnData of this .* is not as it was set up: .*({match})"
    adata = case.set_up(fits.before.copy())
    change(adata, case)
    with pytest.raises(ValueError, match=told):
        case.cls(adata, **case.init)
    model = case.make(fits.before.copy())
    change(model.adata, case)
    with pytest.raises(ValueError, match=told):
        model.train(**options_of(case, fit_options))
    assert not model.is_trained_


@only({name: MODELS[name] for name in READ})
@changed
def test_what_changed_after_training_is_refused_or_changes_nothing(
    fits: Fit, change: Callable, match: str, tmp_path
) -> None:
    """The reference of a bulk was read when the model was trained."""
    fits.model.save(tmp_path / "model")
    loaded = fits.case.cls.load(tmp_path / "model", fits.before.copy())
    change(loaded.adata, fits.case)
    for name, value in fits.getters().items():
        if fits.query is not None:
            np.testing.assert_array_equal(fits.get(name, loaded), value)
            return
        with pytest.raises(ValueError, match=match):
            fits.get(name, loaded)
    before = loaded.adata.copy()
    with pytest.raises(ValueError, match=match):
        loaded.annotate()
    assert loaded.adata.obsm.keys() == before.obsm.keys()
    with pytest.raises(ValueError, match=match):
        loaded.save(tmp_path / "again", save_anndata=True)
    loaded.save(tmp_path / "again")


@only({name: MODELS[name] for name in READ})
def test_what_is_not_read_may_change(fits: Fit, tmp_path) -> None:
    fits.model.save(tmp_path / "model")
    loaded = fits.case.cls.load(tmp_path / "model", fits.before.copy())
    adata, layer = loaded.adata, fits.case.setup.get("layer")
    if layer is None:
        adata.X = np.asarray(adata.X.todense()).astype(np.int64)  # the same counts
    else:
        adata.X = adata.X * 0.1
        adata.layers[layer] = sparse.csc_matrix(adata.layers[layer].astype(np.int16))
    adata.obs_names = [f"c{i}" for i in range(adata.n_obs)]
    adata.obs["new"], adata.var["new"] = 1, 2
    for name, value in fits.getters().items():
        np.testing.assert_allclose(fits.get(name, loaded), value, rtol=1e-6)


# Arguments


def public_methods(cls: type) -> Iterator[tuple[str, Callable]]:
    """Go through the constructor and all methods of ours."""
    yield cls.__name__, cls
    for name, _ in inspect.getmembers(cls, callable):
        owner = next(base for base in cls.__mro__ if name in vars(base))
        if not name.startswith("_") and owner.__module__.startswith("scovert"):
            yield name, getattr(cls, name)


OURS = [PairedVAE, LatentConfounder, BulkDeconvolution, BulkResult, TypeExpression]
LOOKED_AT = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@pytest.mark.parametrize("cls", OURS, ids=[cls.__name__ for cls in OURS])
def test_unknown_arguments_are_refused_with_the_nearest(cls: type) -> None:
    for name, method in public_methods(cls):
        parameters = inspect.signature(method).parameters.values()
        known = [p.name for p in parameters if p.kind in LOOKED_AT]
        itself = (None,) if known[:1] == ["self"] else ()
        with pytest.raises(TypeError, match=f"`.*{name}.*` does not take `no_such_thing`"):
            method(*itself, no_such_thing=1)
        for argument in known[len(itself) :]:
            if argument.startswith("_"):
                continue
            for wrong in (f"{argument}s", argument.replace("_", ""), argument.upper()):
                if wrong not in known:
                    with pytest.raises(TypeError, match=f"`{wrong}`.*Did you mean `{argument}"):
                        method(*itself, **{wrong: 1})


def test_options_are_refused_with_the_nearest_of_all() -> None:
    for name in ("annotate", "get_proportions", "get_cell_type_expression"):
        with pytest.raises(TypeError, match="`cell_sizes`. Did you mean `cell_size`"):
            getattr(BulkDeconvolution, name)(None, None, cell_sizes="none")
    with pytest.raises(TypeError, match="`deterministics`. Did you mean `deterministic`"):
        PairedVAE.train(None, deterministics=True)
    with pytest.raises(TypeError, match="`dbpr_weigth`. Did you mean `dbpr_weight`"):
        LatentConfounder.train(None, "alternating", dbpr_weigth=1.0)


# The AnnData


def test_the_data_are_untouched(fits: Fit, tmp_path) -> None:
    fits.getters()
    fits.model.check()
    fits.model.save(tmp_path / "model")
    after = without_scvi_slots(fits.model.adata)
    assert_same_anndata(after, fits.before)


@only(BULK)
def test_the_bulk_is_untouched(fits: Fit, make_bulk: Callable[[], AnnData]) -> None:
    fits.ask("deconvolve")
    assert_same_anndata(fits.query, make_bulk())


@only(BULK)
def test_a_bulk_is_matched_by_gene(fits: Fit) -> None:
    value = fits.getters()
    view = fits.query[::-1, ::-1]
    for other, rows in (
        (with_other_genes(fits.query), slice(None)),
        (view, slice(None, None, -1)),
    ):
        asked = fit_of_query(fits, other)
        for name, found in asked.getters().items():
            np.testing.assert_allclose(found[rows], value[name], rtol=2e-3, atol=1e-4)


def fit_of_query(fits: Fit, query: AnnData) -> Fit:
    return Fit(fits.case, fits.model, fits.before, fits.gradients, query)


@only(CELLS)
def test_annotate_writes_what_get_returns(fits: Fit) -> None:
    adata = fits.before.copy()
    fits.model.annotate(adata)
    stem = fits.case.stem
    np.testing.assert_array_equal(adata.obsm[f"X_{stem}"], fits.get("get_latent_representation"))
    np.testing.assert_array_equal(adata.layers[stem], fits.get("get_normalized_expression"))
    record = adata.uns[stem]
    assert record["model"] == fits.case.cls.__name__
    assert record["params"]["n_latent"] == fits.case.n_latent
    assert set(record["versions"]) >= {"scovert", "scvi-tools", "torch"}
    assert {"slots", "time"} <= set(record)


def test_annotate_leaves_the_rest_alone(fits: Fit) -> None:
    adata = fits.target()
    assert fits.annotate(adata) is None
    for slot in adata.uns.pop(fits.case.stem)["slots"]:
        container, name = slot.split("/")
        del getattr(adata, container)[name]
    assert_same_anndata(adata, fits.target())


def test_an_annotated_anndata_survives_a_file(fits: Fit, tmp_path) -> None:
    adata = fits.target()
    fits.annotate(adata)
    adata.write_h5ad(tmp_path / "annotated.h5ad")
    read = ad.read_h5ad(tmp_path / "annotated.h5ad")
    for slot in adata.uns[fits.case.stem]["slots"]:
        container, name = slot.split("/")
        found, expected = (getattr(a, container)[name] for a in (read, adata))
        assert type(found) is type(expected)
        if isinstance(expected, pd.DataFrame):
            pd.testing.assert_frame_equal(found, expected)
        else:
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
    assert read.uns[fits.case.stem]["params"] == adata.uns[fits.case.stem]["params"]
    fits.annotate(read)  # its own slots, also after a file


def test_annotate_overwrites_only_its_own(fits: Fit) -> None:
    adata = fits.target()
    fits.annotate(adata)
    fits.annotate(adata)
    foreign = fits.target()
    slot = fits.case.slot.format(fits.case.stem)
    foreign.obsm[slot] = np.ones((foreign.n_obs, 2))
    with pytest.raises(ValueError, match="did not write.*overwrite=True"):
        fits.annotate(foreign)
    assert foreign.obsm[slot].shape == (foreign.n_obs, 2)
    assert fits.case.stem not in foreign.layers
    fits.annotate(foreign, overwrite=True)
    assert foreign.obsm[slot].shape == (foreign.n_obs, fits.case.n_latent)


@pytest.mark.parametrize(
    ("container", "name", "make"),
    [
        ("obsm", None, lambda a: np.ones((a.n_obs, 2))),
        ("layers", "{}", lambda a: np.ones(a.shape)),
        ("uns", "{}", lambda _: {"slots": ["obsm/X_paired", "obsm/X_confounder"]}),
        ("uns", "{}", lambda _: "a string"),
    ],
)
def test_every_foreign_slot_is_refused(
    fits: Fit, container: str, name: str | None, make: Callable[[AnnData], object]
) -> None:
    if container == "layers" and fits.case.cls is BulkDeconvolution:
        name = "{}_" + fits.model.types[0]
    adata, name = fits.target(), (name or fits.case.slot).format(fits.case.stem)
    getattr(adata, container)[name] = make(adata)
    before = adata.copy()
    with pytest.raises(ValueError, match=f"already holds.*{container}/{name}"):
        fits.annotate(adata)
    assert_same_anndata(adata, before)


def test_annotate_can_leave_the_layer_out_and_take_another_name(fits: Fit) -> None:
    adata = fits.target()
    fits.annotate(adata, key_added="mine", write_layer=False)
    assert fits.case.slot.format("mine") in adata.obsm
    assert "mine" in adata.uns
    assert set(adata.layers) == set(fits.target().layers)
    assert fits.case.slot.format(fits.case.stem) not in adata.obsm


# The wrong order of calls


def test_an_untrained_model_refuses(fits: Fit, tmp_path) -> None:
    model = fits.case.make(fits.before.copy())
    asked = () if fits.query is None else (fits.query,)
    calls = [partial(getattr(model, name), *asked) for name in (*fits.case.getters, "annotate")]
    calls += [model.check, lambda: model.save(tmp_path / "model")]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"not trained.*train\(\)"):
            call()
    assert not (tmp_path / "model").exists()


def test_an_anndata_that_was_not_set_up_is_refused(fits: Fit) -> None:
    with pytest.raises(ValueError, match=f"not set up for {fits.case.cls.__name__}"):
        fits.case.cls(fits.before.copy())


def test_a_model_describes_itself(fits: Fit, capsys: pytest.CaptureFixture) -> None:
    assert f"{fits.before.n_obs} cells" in fits.model._model_summary_string
    repr(fits.model)
    assert fits.case.cls.__name__ in capsys.readouterr().out


def fewer_than(fits: Fit) -> str:
    """The first gene that is missing if two are left out."""
    return fits.before.var_names[-2]


def with_other_genes(adata: AnnData) -> AnnData:
    """Give the same cells with their genes in another order, among genes of no interest."""
    extra = AnnData(
        sparse.csr_matrix(np.full((adata.n_obs, 2), 5, np.float32)),
        obs=pd.DataFrame(index=adata.obs_names),
        var=pd.DataFrame(index=["extra 1", "extra 2"]),
    )
    extra.layers["raw"] = extra.X.copy()
    both = ad.concat([extra, adata], axis=1, merge="first")
    return both[:, np.random.default_rng(0).permutation(both.n_vars)].copy()


def without_scvi_slots(adata: AnnData) -> AnnData:
    """Copy an AnnData without what scvi-tools keeps under `_scvi_*`."""
    adata = adata.copy()
    for container in (adata.obs, adata.obsm, adata.uns):
        for name in [n for n in container if n.startswith("_scvi_")]:
            del container[name]
    return adata


def assert_same_anndata(found: AnnData, expected: AnnData) -> None:
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    assert_same_matrix(found.X, expected.X)
    for container in ("layers", "obsm", "varm", "uns"):
        slots, others = getattr(found, container), getattr(expected, container)
        assert slots.keys() == others.keys(), container
    for name, layer in expected.layers.items():
        assert_same_matrix(found.layers[name], layer)
    for name, value in expected.obsm.items():
        np.testing.assert_array_equal(found.obsm[name], value)


def assert_same_matrix(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    for part in ("data", "indices", "indptr") if sparse.issparse(expected) else ("T",):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


# What a treatment adds


def effects_of(model: LatentConfounder) -> dict[str, pd.DataFrame]:
    """Tables of effects by arm."""
    table = model.get_treatment_effects()
    if table.index.nlevels == 1:
        return {model.levels_[1]: table}
    return {arm: table.loc[arm] for arm in model.levels_[1:]}


@only(WHOLE)
def test_effects_are_a_table_of_genes(fits: Fit) -> None:
    table = fits.model.get_treatment_effects()
    arms = fits.model.levels_[1:]
    columns = ["log2_fc", "se", "z", "p_value", "q_value", "log2_fc_naive", "q_value_naive"]
    if len(arms) > 1:
        assert table.index.names == ["arm", "gene"]
        assert table.index.tolist() == [(a, g) for a in arms for g in fits.before.var_names]
        columns.append("identification")
    else:
        assert table.index.name == "gene"
        assert table.index.equals(fits.before.var_names)
    assert table.columns.tolist() == [*columns, "reason"]
    known = table[table["reason"] == ""]
    numbers = known.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy()).all()
    assert (table.loc[table["reason"] != "", "p_value"].isna()).all()
    np.testing.assert_allclose(known["z"], known["log2_fc"] / known["se"])
    assert known["p_value"].between(0, 1).all()
    reference = fits.case.setup.get("reference", False)
    assert table.attrs["reference"] == ", ".join(f"{arm} v. {reference}" for arm in arms)
    used = {"classes", "hybrid", "sparse", "controls", "randomised"}
    said = table.attrs["identification"]
    assert set(said.values() if isinstance(said, dict) else [said]) <= used
    again = fits.model.get_treatment_effects()
    pd.testing.assert_frame_equal(again, table)


@only(WHOLE)
def test_means_of_arms_differ_by_the_effects(fits: Fit) -> None:
    model = fits.model
    reference = model.get_normalized_expression(treatment=model.levels_[0])
    for arm, table in effects_of(model).items():
        ratio = np.log2(model.get_normalized_expression(treatment=arm) / reference)
        expected = table["log2_fc"].where(table["log2_fc"].notna(), ratio.iloc[0])
        np.testing.assert_allclose(ratio, np.tile(expected, (len(ratio), 1)), atol=1e-4)
        own = model.get_normalized_expression()
        is_arm = fits.before.obs[fits.case.setup["treatment_key"]].astype(str) == arm
        with_it = model.get_normalized_expression(treatment=arm)
        pd.testing.assert_frame_equal(own[is_arm], with_it[is_arm])


@only(WHOLE)
def test_rows_of_probabilities_sum_to_one(fits: Fit) -> None:
    for name in ("get_class_probabilities", "get_treatment_probability"):
        table = getattr(fits.model, name)()
        np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
        assert table.index.equals(fits.before.obs_names)
    assert table.columns.tolist() == fits.model.levels_


@only(WHOLE)
def test_what_confounders_explain_is_a_share(fits: Fit) -> None:
    table = fits.model.get_partial_deviance()
    assert table.index.tolist() == ["treatment", "counts"]
    assert table.columns.tolist() == ["dbpr"]
    assert table["dbpr"].between(-1, 1).all()
    assert 0 <= fits.model.get_leakage() <= 1
    if fits.case.n_latent == 0:
        assert (table["dbpr"] == 0).all()
        assert fits.model.get_leakage() == 0


@only(WHOLE)
def test_effects_survive_a_file(fits: Fit, tmp_path) -> None:
    table = fits.model.get_treatment_effects()
    fits.model.save(tmp_path / "model")
    for cells in (fits.before.copy(), with_other_genes(fits.before)):
        loaded = LatentConfounder.load(tmp_path / "model", cells)
        found = loaded.get_treatment_effects()
        pd.testing.assert_frame_equal(found, table)
        assert found.attrs == table.attrs
        pd.testing.assert_frame_equal(loaded.check(), fits.model.check())


@only(WHOLE)
def test_effects_are_of_the_cells_that_were_fitted(fits: Fit, tmp_path) -> None:
    fits.model.save(tmp_path / "model")
    others = {
        "fewer": fits.before[:-1].copy(),
        "order": fits.before[::-1].copy(),
        "counts": fits.before.copy(),
        "treatment": fits.before.copy(),
    }
    for counts in (others["counts"].layers["raw"], others["counts"].X):
        counts.data[:7] += 1
    key = fits.case.setup["treatment_key"]
    moved = others["treatment"].obs[key].to_numpy().copy()
    others["treatment"].obs[key] = np.roll(moved, 1)
    for cells in others.values():
        loaded = LatentConfounder.load(tmp_path / "model", cells)
        with pytest.raises(ValueError, match="does not hold what it was trained with.*layer"):
            loaded.get_treatment_effects()


def test_counts_changed_after_the_fit_are_noticed(make_treated: Callable) -> None:
    adata = make_treated()
    model = WHOLE["confounder, none"].make(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    table = model.get_treatment_effects()
    np.log1p(adata.X.data, out=adata.X.data)
    with pytest.raises(ValueError, match="is not as it was set up"):
        model.get_treatment_effects(identification="sparse")
    adata.X = make_treated().X
    pd.testing.assert_frame_equal(model.get_treatment_effects(), table)


def test_another_anndata_is_not_taken_for_the_one_that_was_fitted(make_treated: Callable) -> None:
    adata = make_treated()
    model = WHOLE["confounder"].make(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    latent = model.get_latent_representation()
    model.adata = adata[::-1].copy()
    with pytest.raises(ValueError, match="does not hold what it was trained with"):
        model.get_latent_representation()
    model.adata = adata
    np.testing.assert_array_equal(model.get_latent_representation(), latent)


@only(WHOLE)
def test_annotate_writes_effects_and_what_they_rest_on(fits: Fit, tmp_path) -> None:
    adata, model = fits.before.copy(), fits.model
    model.annotate(adata)
    probability = model.get_treatment_probability()
    tables = effects_of(model)
    if len(tables) == 1:
        np.testing.assert_array_equal(adata.obs["confounder_propensity"], probability["True"])
        slots = {"True": "confounder_effects"}
    else:
        written = adata.obsm["confounder_propensity"]
        np.testing.assert_array_equal(written, probability)
        assert written.columns.tolist() == ["none", "a c", "a_b"]
        slots = {"a c": "confounder_effects_a c", "a/b": "confounder_effects_a_b"}
    for arm, slot in slots.items():
        expected = tables[arm].rename_axis(None)
        pd.testing.assert_frame_equal(adata.varm[slot], expected, check_names=False)
    classes = model.get_class_probabilities()
    assert ("confounder_class" in adata.obs) == (classes.shape[1] > 1)
    if classes.shape[1] > 1:
        assert (adata.obs["confounder_class"] == classes.idxmax(axis=1)).all()
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", module="scvi")
        adata.write_h5ad(tmp_path / "annotated.h5ad")
        read = ad.read_h5ad(tmp_path / "annotated.h5ad")
    assert_same_record(read.uns["confounder"], adata.uns["confounder"])
    record = adata.uns["confounder"]
    assert record["assumption"] == model.get_treatment_effects().attrs["assumption"]
    if len(tables) == 2:
        assert record["arms"] == {"none": "none", "a c": "a c", "a_b": "a/b"}
        assert record["facts"].keys() == record["identification"].keys() == {"a c", "a_b"}


def assert_same_record(found: object, expected: object) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same_record(found[name], value)
    else:
        np.testing.assert_array_equal(found, expected)


def test_the_number_of_confounders_is_found_and_kept(make_treated: Callable, tmp_path) -> None:
    adata = make_treated()
    LatentConfounder.setup_anndata(adata, "treatment")
    model = LatentConfounder(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    scree = model.scree
    assert scree.shape == (model.n_latent + 1, 2)
    above = scree["singular_value"] > scree["threshold"]
    assert above.tolist() == [True] * model.n_latent + [False]
    model.save(tmp_path / "model")
    loaded = LatentConfounder.load(tmp_path / "model", make_treated())
    pd.testing.assert_frame_equal(loaded.scree, scree)
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )
    model.annotate(adata)
    np.testing.assert_array_equal(adata.uns["confounder"]["scree"], scree)


@pytest.mark.parametrize("method", ["wald", "aipw"])
@pytest.mark.parametrize("identification", ["auto", "classes", "sparse", "randomised"])
@only({name: WHOLE[name] for name in ("confounder, arms", "confounder, clusters")})
def test_every_identification_and_method_is_finite(
    fits: Fit, identification: str, method: str
) -> None:
    table = fits.model.get_treatment_effects(identification=identification, method=method)
    known = table[table["reason"] == ""].select_dtypes("number")
    assert np.isfinite(known.to_numpy()).all()
    assert (known["se"] > 0).all()
    if identification != "auto":
        said = table.attrs["identification"]
        assert set(said.values() if isinstance(said, dict) else [said]) == {identification}
        assert len(known) > 20


@pytest.mark.parametrize("batch_size", [7, 1000])
@pytest.mark.parametrize("precision", [32, 64])
def test_a_fit_is_free_of_blocks_and_precision(
    make_treated: Callable, batch_size: int, precision: int
) -> None:
    tables = []
    for options in ({}, {"batch_size": batch_size, "precision": precision}):
        model = WHOLE["confounder"].make(make_treated())
        model.train(accelerator="cpu", enable_progress_bar=False, **options)
        tables.append(model.get_treatment_effects(identification="sparse"))
    difference = (tables[0]["log2_fc"] - tables[1]["log2_fc"]) / tables[0]["se"]
    assert difference.abs().max() < 0.05
