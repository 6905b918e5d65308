"""What is refused, what is warned about and what is taken without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from _input import assert_points_at, changed, column, no_warning, nothing
from scovert.model import PairedVAE

SIZES = (61, 53)  # over 50 each: nothing to warn about
N_CELLS, N_GENES = sum(SIZES), 11

pytestmark = pytest.mark.usefixtures("seed")


def make(seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(3, (N_CELLS, N_GENES)).astype(np.float32) + np.eye(1, N_GENES)
    obs = pd.DataFrame(
        {
            "batch": np.repeat(["a", "b"], SIZES),
            "donor": rng.choice(["d1", "d2"], N_CELLS),
            "age": rng.normal(40, 5, N_CELLS),
        },
        index=[f"cell {i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"gene {g}" for g in range(N_GENES)])
    adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=var)
    adata.layers["raw"] = adata.X.copy()
    return adata


@pytest.fixture
def adata() -> AnnData:
    return make()


def set_up(adata: AnnData, **options: object) -> None:
    PairedVAE.setup_anndata(adata, **{"batch_key": "batch", **options})


def fit(adata: AnnData, *, setup: dict | None = None, **init: object) -> PairedVAE:
    set_up(adata, **(setup or {}))
    model = PairedVAE(adata, **{"n_latent": 3, "n_hidden": 7, "alignment": "none", **init})
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model() -> PairedVAE:
    return fit(make())


# Refused when an AnnData is set up: what is done to it, the options, exception and message


ONE = column("batch", lambda a: "only")
ONE_USED = column("batch", lambda a: pd.Categorical(["a"] * a.n_obs, ["a", "b"]))
TWO_CELLS = column("batch", lambda a: ["tiny"] * 2 + ["a"] * 50 + ["b"] * (a.n_obs - 52))

SAME = column("donor", lambda a: a.obs["batch"] + "!")
NESTED = column("donor", lambda a: a.obs["batch"] + a.obs["donor"])

COLUMNS = r"columns: \['batch', 'donor', 'age'\]"
CATEGORICAL, CONTINUOUS = "categorical_covariate_keys", "continuous_covariate_keys"

REFUSED_AT_SETUP = {
    "no batch key": (nothing, {"batch_key": None}, KeyError, COLUMNS),
    "covariate is the dataset": (SAME, {CATEGORICAL: ["donor"]}, ValueError, "'donor'"),
    "covariate nested in datasets": (NESTED, {CATEGORICAL: ["donor"]}, ValueError, "'donor'"),
    "one dataset": (ONE, {}, ValueError, "one dataset only, 'only'.*concat"),
    "one dataset used": (ONE_USED, {}, ValueError, "one dataset only, 'a'"),
    "two cells": (TWO_CELLS, {}, ValueError, "Dataset 'tiny'.*has 2 cells.*at least 3"),
}


@pytest.mark.parametrize(
    ("change", "options", "exception", "match"),
    REFUSED_AT_SETUP.values(),
    ids=REFUSED_AT_SETUP.keys(),
)
def test_setup_refuses(
    adata: AnnData, change: Callable, options: dict, exception: type[Exception], match: str
) -> None:
    change(adata)
    with pytest.raises(exception, match=match):
        set_up(adata, **options)
    assert not [name for name in (*adata.obs, *adata.obsm, *adata.uns) if "_scvi" in name]


# Refused when a model is asked


UNKNOWN = column("batch", lambda a: np.repeat(["a", "new one"], SIZES))


def test_encoders_of_their_own_know_no_other_dataset(adata: AnnData) -> None:
    model = fit_quietly(make(), encoder="per_dataset")
    match = r"\['new one'\].*not seen.*\['a', 'b'\]"
    query = changed(UNKNOWN)(adata)
    for method in (model.get_latent_representation, model.get_normalized_expression):
        with pytest.raises(ValueError, match=match):
            method(query)
    with pytest.raises(ValueError, match=match):
        model.annotate(query)


def test_support_needs_the_column_of_datasets(adata: AnnData) -> None:
    model = fit_quietly(make())
    query = changed(column("batch", lambda a: np.repeat([7, 8], SIZES)))(adata)
    assert model.get_support(query).notna().all(axis=None), "two datasets more"
    with pytest.raises(KeyError, match="`batch_key='batch'` is not a column"):
        model.get_support(changed(lambda a: a.obs.pop("batch"))(query))


def test_queries_need_the_layer_and_covariates_of_the_setup() -> None:
    model = fit(make(), setup={"layer": "raw", CATEGORICAL: ["donor"], CONTINUOUS: ["age"]})
    cases = [
        ("layer='raw'", "layers", "raw"),
        ("'donor'", "obs", "donor"),
        ("'age'", "obs", "age"),
    ]
    for match, container, name in cases:
        query = make()
        del getattr(query, container)[name]
        with pytest.raises(KeyError, match=match):
            model.get_normalized_expression(query)
    query = make()
    query.obs.loc["cell 3", "donor"] = "d99"
    with pytest.raises(ValueError, match=r"'donor'.*\['d99'\]"):
        model.get_normalized_expression(query)


REFUSED_OPTIONS = [
    ("get_normalized_expression", {"transform_batch": "c"}, ValueError, r"has \['a', 'b'\]"),
    ("get_normalized_expression", {"transform_batch": ["a", "c"]}, ValueError, "='c'` is no dat"),
    ("translate", {"target": "c"}, ValueError, r"='c'` is no dataset.*has \['a', 'b'\]"),
    ("translate", {"target": "a", "source": "c"}, ValueError, r"source='c'.*\['a', 'b'\]"),
    ("get_normalized_expression", {"library_size": "latent"}, TypeError, "library_size='latent'"),
    ("get_normalized_expression", {"library_size": -1.0}, ValueError, "library_size=-1.0"),
    ("get_support", {}, RuntimeError, "`alignment='none'`.*`alignment='anchors'`"),
    ("annotate", {"transform_batch": "c"}, ValueError, r"has \['a', 'b'\]"),
]


@pytest.mark.parametrize(("method", "options", "exception", "match"), REFUSED_OPTIONS)
def test_options_are_refused(
    model: PairedVAE, method: str, options: dict, exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=match):
        getattr(model, method)(**options)
    assert not {"paired", "X_paired"} & {*model.adata.uns, *model.adata.obsm}


def test_a_layer_that_does_not_fit_is_refused(
    model: PairedVAE, adata: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    free = psutil.virtual_memory()._replace(available=4 * N_CELLS * N_GENES - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(
        MemoryError, match=r"0\.0 GB.*114 cells x 11.*write_layer=False.*gene_list"
    ):
        model.annotate(adata)
    assert not adata.obsm
    model.annotate(adata, write_layer=False)


# Warned about


def test_few_cells_warn(adata: AnnData) -> None:
    with pytest.warns(UserWarning, match=r"Few cells in \{'b': 49\}.*under 50") as caught:
        set_up(adata[:110].copy())
    assert_points_at(__file__, caught)


def test_fifty_cells_are_enough(adata: AnnData) -> None:
    with no_warning():
        set_up(adata[:111].copy())


def test_cells_without_counts_warn_and_stay_finite(adata: AnnData) -> None:
    dense = adata.X.toarray()
    dense[[3, 80]] = 0
    adata.X = dense
    with pytest.warns(UserWarning, match="2 cells have no counts.*min_counts=1") as caught:
        set_up(adata)
    assert_points_at(__file__, caught)
    for alignment in ("anchors", "adversarial"):
        found = fit_quietly(adata, alignment=alignment, setup=False)
        assert_finite(found)
        assert (found.get_normalized_expression().iloc[[3, 80]] == 0).all(axis=None)
        fixed = found.get_normalized_expression(library_size=1e4)
        np.testing.assert_allclose(fixed.sum(axis=1), 1e4, rtol=1e-4)


@pytest.mark.parametrize("alignment", ["adversarial", "grl", "none"])
def test_separate_encoders_without_anchors_warn(adata: AnnData, alignment: str) -> None:
    set_up(adata)
    with pytest.warns(UserWarning, match=f"per_dataset.*'{alignment}'.*anchors") as caught:
        PairedVAE(adata, encoder="per_dataset", alignment=alignment)
    assert_points_at(__file__, caught)


def test_separate_encoders_with_anchors_do_not_warn(adata: AnnData) -> None:
    set_up(adata)
    with no_warning():
        PairedVAE(adata, encoder="per_dataset", alignment="anchors")


def test_anchors_that_make_no_sense_warn(adata: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scovert.anchors._find.MIN_CLARITY", 1.1)
    set_up(adata)
    model = PairedVAE(adata, n_latent=3)
    with pytest.warns(UserWarning, match="Anchors should join.*tenth.*get_support") as caught:
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    assert_points_at(__file__, caught)


# Taken without a word


@pytest.mark.parametrize(
    "labels",
    [
        np.repeat([True, False], SIZES),
        np.repeat([7, 3], SIZES),
        np.repeat([0.5, -1.5], SIZES),
        pd.Categorical(np.repeat(["b", "a"], SIZES), ["z", "b", "unused", "a"]),
        pd.Categorical(np.repeat([2, 1], SIZES), [2, 1], ordered=True),
        pd.array(np.repeat(["a", "b"], SIZES), "string"),
        np.repeat(["", " "], SIZES),
        np.repeat(["T/CD4 ü", "β-Zelle 🧬\n\t\\ \"'{}%"], SIZES),
        np.repeat(["__array__", "null"], SIZES),
    ],
    ids=[
        "bool",
        "int",
        "float",
        "unused category",
        "ordered",
        "string",
        "blank",
        "odd characters",
        "words",
    ],
)
def test_any_labels(adata: AnnData, labels: object, tmp_path: Path) -> None:
    adata.obs["batch"] = labels
    adata.obs["donor"] = pd.Series(labels).sample(frac=1, random_state=0).to_numpy()
    before = adata.obs.copy()
    used = pd.Series(labels).unique()
    with no_warning():
        model = fit_quietly(adata, alignment="anchors", setup={CATEGORICAL: ["donor"]})
        model.save(tmp_path / "model")
        loaded = PairedVAE.load(tmp_path / "model", adata.copy())
        for some in (model, loaded):
            assert_finite(some)
            assert set(some.get_support().columns) == set(used)
            decoded = some.get_normalized_expression(transform_batch=used[1], indices=[0])
            assert decoded.shape == (1, N_GENES)
    pd.testing.assert_frame_equal(adata.obs[before.columns], before)


def test_genes_without_counts(adata: AnnData) -> None:
    dense = adata.X.toarray()
    dense[:, [2, 9]] = 0
    adata.X = dense
    with no_warning():
        model = fit_quietly(adata, alignment="anchors")
    assert_finite(model)
    means = model.get_normalized_expression().mean()
    assert means[["gene 2", "gene 9"]].max() < 0.2 * means.drop(["gene 2", "gene 9"]).min()


def test_genes_of_one_dataset_only(adata: AnnData) -> None:
    dense = adata.X.toarray()
    dense[: SIZES[0], 2] = 0
    adata.X = dense
    with no_warning():
        assert_finite(fit_quietly(adata, alignment="anchors", encoder="per_dataset"))


def fit_quietly(adata: AnnData, *, setup: dict | bool | None = None, **init: object) -> PairedVAE:
    """Fit with any warning about the anchors of these cells without structure silenced."""
    if setup is not False:
        set_up(adata, **(setup or {}))
    model = PairedVAE(adata, n_latent=3, n_hidden=7, **init)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anchors should join")
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


def assert_finite(model: PairedVAE) -> None:
    assert np.isfinite(model.get_latent_representation()).all()
    assert np.isfinite(model.get_normalized_expression().to_numpy()).all()
    for name, frame in model.history.items():
        assert np.isfinite(frame.to_numpy(float)).all(), name
