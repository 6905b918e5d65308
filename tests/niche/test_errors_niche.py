"""What NicheVAE refuses, and what it warns about."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData

from scovert.model import NicheVAE
from scovert.simulate import niche

NB = {"likelihood": "nb", "sample_key": "sample"}
GAUSSIAN = {"likelihood": "gaussian", "sample_key": "sample"}


def make(likelihood: str = "nb") -> AnnData:
    adata = niche(60, 2, n_genes=7, likelihood=likelihood)
    adata.obs["donor"] = np.tile(["d1", "d2"], 60)
    return adata


def positions(change: Callable) -> Callable:
    def changed(adata: AnnData) -> None:
        adata.obsm["spatial"] = change(adata.obsm["spatial"].copy())

    return changed


def values(change: Callable) -> Callable:
    def changed(adata: AnnData) -> None:
        x = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
        adata.X = change(x)

    return changed


def put(place: object, value: object) -> Callable:
    def changed(x: np.ndarray) -> np.ndarray:
        x[place] = value
        return x

    return changed


def no_region(adata: AnnData) -> None:
    adata.obs["region"] = pd.Series(["a"] * 119 + [None], adata.obs_names)


def twice(adata: AnnData) -> None:
    adata.var_names = ["CD3", "CD3", *"abcde"]


def alone(adata: AnnData) -> None:
    adata.obs["sample"] = np.arange(120).astype(str)


def labels(x: np.ndarray) -> np.ndarray:
    return np.eye(7, dtype=np.float32)[np.arange(120) % 7]


def nothing(adata: AnnData) -> None:
    """Change nothing."""


REFUSED = {
    "no positions": (nothing, {"spatial_key": "xy"}, KeyError, "xy.* is not in.*spatial"),
    "one column": (
        positions(lambda p: p[:, :1]),
        {},
        ValueError,
        r"shape \(120, 1\).*two or three",
    ),
    "NaN position": (positions(put((3, 1), np.nan)), {}, ValueError, "'cell_3'.*not finite in 1"),
    "infinite": (positions(put((5, 0), np.inf)), {}, ValueError, "'cell_5'.*Leave out"),
    "no sample": (nothing, {"sample_key": "slide"}, KeyError, "sample_key='slide'.*columns"),
    "no batch": (nothing, {"batch_key": "lot"}, KeyError, "batch_key='lot'"),
    "no labels": (nothing, {"labels_key": "kind"}, KeyError, "labels_key='kind'"),
    "label missing": (no_region, {"labels_key": "region"}, ValueError, "no value in 1 cell,"),
    "names twice": (twice, {}, ValueError, "1 name more than once.*'CD3'"),
    "one cell each": (alone, {}, ValueError, "No sample has two cells.*sample_key"),
    "no counts": (values(lambda x: x + 0.5), {}, ValueError, "raw counts.*likelihood='gaussian'"),
    "labels": (values(labels), {}, ValueError, "single 1 in every cell.*labels_key"),
    "likelihood": (
        nothing,
        {"likelihood": "normal"},
        ValueError,
        r"'normal'.*\['nb', 'gaussian'\]",
    ),
    "NaN": (
        values(put((4, 2), np.nan)),
        {"likelihood": "gaussian"},
        ValueError,
        "holds nan.*'cell_4', channel 'gene_2'",
    ),
    "text": (
        values(lambda x: x.astype(str)),
        {"likelihood": "gaussian"},
        TypeError,
        "Intensities are real numbers",
    ),
}


@pytest.mark.parametrize(("change", "setup", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(change: Callable, setup: dict, error: type, match: str) -> None:
    setup = NB | setup
    adata = make("nb" if setup["likelihood"] == "nb" else "gaussian")
    change(adata)
    with pytest.raises(error, match=f"(?s){match}"):
        NicheVAE.setup_anndata(adata, **setup)


def shifted(positions: np.ndarray) -> np.ndarray:
    return np.tile(positions[:60], (2, 1))


def grid(positions: np.ndarray) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(12), np.arange(10)), -1).reshape(-1, 2)


def with_fields(adata: AnnData) -> None:
    adata.obs["FOV_id"] = np.repeat(range(4), 30)


WARNED = {
    "shared coordinates": (
        positions(shifted),
        {"likelihood": "nb", "sample_key": None},
        "50% of the cells lie on the spot.*sample_key` may be 'sample'",
    ),
    "slides on one another": (
        nothing,
        {"sample_key": None},
        r"levels of `adata.obs\['sample'\]` lie on one another: of \d+%.*sample_key='sample'",
    ),
    "fields of view": (
        with_fields,
        {"sample_key": None},
        r"levels of `adata.obs\['FOV_id'\]` lie on one another",
    ),
    "spots": (positions(grid), {"sample_key": None}, "spots rather than cells"),
    "constant": (values(put((slice(None), 3), 2)), {}, "1 gene or channel, such as 'gene_3'"),
    "whole intensities": (
        values(lambda x: x * 100),
        {"likelihood": "gaussian"},
        "whole numbers up to.*likelihood='nb'",
    ),
}


@pytest.mark.parametrize(("change", "setup", "match"), WARNED.values(), ids=WARNED)
def test_what_is_warned_about(change: Callable, setup: dict, match: str) -> None:
    adata = make()
    change(adata)
    with pytest.warns(UserWarning, match=match):
        NicheVAE.setup_anndata(adata, **NB | setup)


def test_fields_of_view_within_samples_are_told() -> None:
    adata = niche(60, 4, n_genes=7)
    adata.obs["slide"], adata.obs["fov"] = np.repeat(["s1", "s2"], 120), adata.obs["sample"]
    with pytest.warns(UserWarning, match=r"obs\['fov'\].*obs\['slide'\].*'_'.*obs\['fov'\]"):
        NicheVAE.setup_anndata(adata, likelihood="nb", sample_key="slide")


def test_slides_side_by_side_are_taken_without_a_word() -> None:
    adata = niche(60, 2, n_genes=7)
    adata.obsm["spatial"][60:, 0] += 2 * np.ptp(adata.obsm["spatial"][:, 0])
    with warnings.catch_warnings():
        quiet()
        NicheVAE.setup_anndata(adata, likelihood="nb")


def test_few_cells_of_a_batch_or_sample_are_named() -> None:
    adata = make()
    adata.obs["lot"] = ["a"] * 100 + ["b"] * 20
    with pytest.warns(UserWarning, match=r"Few cells in \{'b': 20\} \(under 50\).*uncertain"):
        NicheVAE.setup_anndata(adata, **NB, batch_key="lot")
    adata.obs["slide"] = ["a"] * 105 + ["b"] * 15
    NicheVAE.setup_anndata(adata, likelihood="nb", sample_key="slide")
    with pytest.warns(UserWarning, match="Fewer than 21 cells in 1 sample.*'b'.*15 cells"):
        NicheVAE(adata, n_states=4)


def quiet() -> None:
    warnings.simplefilter("error", UserWarning)


@pytest.mark.parametrize(
    "change",
    [
        positions(lambda p: p * -1e6),
        positions(lambda p: np.c_[p, p[:, 0]]),
        positions(lambda p: p.astype(np.float32)),
        values(lambda x: x.astype(np.int64)),
        values(lambda x: np.asfortranarray(x)),
    ],
    ids=["unit and sign", "three dimensions", "float32", "integers", "dense"],
)
def test_what_is_accepted_without_a_word(change: Callable) -> None:
    adata = make()
    change(adata)
    with warnings.catch_warnings():
        quiet()
        NicheVAE.setup_anndata(adata, **NB)
        NicheVAE(adata, n_states=4, n_neighbors=5)


@pytest.mark.parametrize(
    ("init", "error", "match"),
    [
        ({"n_neighbors": 0}, ValueError, r"n_neighbors=0.*\[1"),
        ({"n_states": 1}, ValueError, r"n_states=1.*\[2"),
        ({"transform": "log"}, ValueError, "transform='log'"),
        ({"cofactor": 0}, ValueError, "cofactor=0"),
        ({"decoder": "slots"}, ValueError, "decoder='slots'.*matching"),
    ],
)
def test_what_the_model_refuses(init: dict, error: type, match: str) -> None:
    adata = make()
    NicheVAE.setup_anndata(adata, **NB)
    with pytest.raises(error, match=match):
        NicheVAE(adata, **init)


def test_what_training_refuses() -> None:
    adata = make()
    NicheVAE.setup_anndata(adata, **NB)
    model = NicheVAE(adata, n_neighbors=5)
    with pytest.raises(ValueError, match="n_states=32.*a tenth of the 120.*at most 12"):
        model.train()
    model = NicheVAE(adata, n_neighbors=5, n_states=4)
    for options, match in (
        ({"neighbour_weight": 1}, "Did you mean `neighbor_weight`"),
        ({"n_epochs_kl_warmup": 1}, "does not take"),
    ):
        with pytest.raises(TypeError, match=match):
            model.train(max_epochs=1, plan_kwargs=options)
    with pytest.raises(ValueError, match="free_bits"):
        model.train(max_epochs=1, plan_kwargs={"free_bits": -1})


@pytest.fixture(scope="module")
def model() -> NicheVAE:
    scvi.settings.seed = 0
    adata = make("gaussian")
    NicheVAE.setup_anndata(adata, **GAUSSIAN)
    model = NicheVAE(adata, n_states=4, n_neighbors=5)
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = None
    return model


def test_what_methods_refuse(model: NicheVAE) -> None:
    adata = model.adata
    for call, match in (
        (lambda: model.get_latent_representation(representation="map"), "representation='map'"),
        (lambda: model.get_state_labels(), "labels_key=None.*setup_anndata"),
        (lambda: model.get_neighborhood_expression(transform_batch="b"), "transform_batch='b'"),
        (lambda: model.sample_neighborhood(n_samples=0), "n_samples=0"),
        (lambda: model.get_niches(n_niches=1), "n_niches=1"),
        (
            lambda: model.get_composition_differences("sample", reference="section_9"),
            "section_9.*section_0",
        ),
        (
            lambda: model.get_composition_differences("sample", reference="section_0"),
            "Two conditions and two subjects",
        ),
        (
            lambda: model.get_composition_differences("donor", reference="d1"),
            "cells of several conditions",
        ),
    ):
        with pytest.raises(ValueError, match=re.compile(match, re.DOTALL)):
            call()
    with pytest.raises(KeyError, match="niche_key='niche'"):
        model.get_sample_composition(niche_key="niche")
    new = adata.copy()
    del new.obsm["spatial"]
    with pytest.raises(KeyError, match="not in `adata.obsm`"):
        model.get_latent_representation(new)
    new = adata.copy()
    new.X[3, 2] = np.nan
    with pytest.raises(ValueError, match="'cell_3', channel 'gene_2'"):
        model.get_latent_representation(new)


def test_intensities_that_changed_are_noticed(model: NicheVAE) -> None:
    x = model.adata.X.copy()
    model.adata.X[5] *= 1.5
    with pytest.raises(ValueError, match="is not as it was set up"):
        model.get_latent_representation()
    model.adata.X = x
    model.get_latent_representation()
