"""Loading a model: other cells than those it was fitted to, and files that are not whole."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from _input import assert_same_anndata, no_warning
from scovert.model import (
    BulkBudget,
    BulkDeconvolution,
    LatentConfounder,
    NicheVAE,
    PairedVAE,
)

FILE, FACTS, WEIGHTS = "model.scovert", "scovert.json", "weights.safetensors"
MODELS = {"paired": PairedVAE, "confounder": LatentConfounder, "bulk": BulkDeconvolution}


@pytest.fixture(scope="module")
def saved(
    make_toy: Callable[[int], AnnData],
    make_treated: Callable[[], AnnData],
    make_reference: Callable[[], AnnData],
    fit_options: dict,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, AnnData]]:
    """Save a model of each kind that uses every kind of column; return the cells too."""
    folder = tmp_path_factory.mktemp("models")
    cells = {"paired": make_toy(2), "confounder": make_treated(), "bulk": make_reference()}
    before = {name: adata.copy() for name, adata in cells.items()}
    PairedVAE.setup_anndata(cells["paired"], "batch", "raw", ["donor"], ["cycle"])
    paired = PairedVAE(cells["paired"], n_latent=3, n_hidden=7)
    paired.train(**fit_options)
    LatentConfounder.setup_anndata(
        cells["confounder"], "arm", "raw", "none", ["lane"], ["cycle"], "depth", "donor"
    )
    confounder = LatentConfounder(cells["confounder"], n_latent=1)
    confounder.train(enable_progress_bar=False)
    BulkDeconvolution.setup_anndata(cells["bulk"], "kind", "study", "donor", "raw")
    bulk = BulkDeconvolution(cells["bulk"], min_cells_per_type=1)
    bulk.train(enable_progress_bar=False)
    for name, model in (("paired", paired), ("confounder", confounder), ("bulk", bulk)):
        model.save(folder / name)
    return folder, before


def load(saved: tuple[Path, dict[str, AnnData]], name: str, adata: AnnData) -> object:
    return MODELS[name].load(saved[0] / name, adata)


# Columns of other cells

CATEGORIES = [("paired", "batch"), ("paired", "donor"), ("confounder", "arm")]
CATEGORIES += [("confounder", "lane"), ("bulk", "kind")]
COLUMNS = [*CATEGORIES, ("paired", "cycle"), ("confounder", "donor"), ("confounder", "cycle")]
COLUMNS += [("confounder", "depth"), ("bulk", "study"), ("bulk", "donor")]


@pytest.mark.parametrize(("name", "key"), COLUMNS)
def test_a_column_that_is_missing_is_named(saved: tuple, name: str, key: str) -> None:
    adata = saved[1][name].copy()
    del adata.obs[key]
    with pytest.raises(KeyError, match=rf"has no column '{key}', which the model was set up"):
        load(saved, name, adata)


@pytest.mark.parametrize(("name", "key"), CATEGORIES)
def test_a_category_that_is_new_is_named(saved: tuple, name: str, key: str) -> None:
    adata = saved[1][name].copy()
    adata.obs[key] = ["new", *adata.obs[key].astype(str)[1:]]
    with pytest.raises(ValueError, match=rf"\['{key}'\]` holds \['new'\], which.*it knows") as e:
        load(saved, name, adata)
    assert "extend_categories" not in str(e.value)
    assert str(e.value).endswith("Leave these cells out, or train a model on all of them.")


@pytest.mark.parametrize(("name", "key"), CATEGORIES)
def test_a_category_that_is_missing_is_said(saved: tuple, name: str, key: str) -> None:
    adata = saved[1][name].copy()
    adata.obs[key] = [None, None, *adata.obs[key].astype(str)[2:]]
    with pytest.raises(ValueError, match=rf"\['{key}'\]` has no value in 2 cells, such as"):
        load(saved, name, adata)


@pytest.mark.parametrize(
    ("name", "key"), [("paired", "cycle"), ("confounder", "cycle"), ("confounder", "depth")]
)
def test_text_for_numbers_is_refused(saved: tuple, name: str, key: str) -> None:
    adata = saved[1][name].copy()
    adata.obs[key] = adata.obs[key].astype(str)
    with pytest.raises(TypeError, match=rf"\['{key}'\]` has dtype object, and .* are numbers"):
        load(saved, name, adata)


@pytest.mark.parametrize("name", MODELS)
def test_other_cells_that_will_not_do(saved: tuple, name: str) -> None:
    adata = saved[1][name].copy()
    with pytest.raises(TypeError, match="`adata` is a str. Pass an AnnData"):
        load(saved, name, "cells.h5ad")
    with pytest.raises(ValueError, match="`adata` has 0 cells"):
        load(saved, name, adata[:0].copy())
    with pytest.raises(ValueError, match=r"lacks 3 of the \d+ genes of the model"):
        load(saved, name, adata[:, 3:].copy())
    del adata.layers["raw"]
    with pytest.raises(KeyError, match="`layer='raw'` is not in `adata.layers`"):
        load(saved, name, adata)


TYPES = [
    ([False, True], int, "astype(bool)"),
    ([False, True], str, "== 'True'"),
    ([0, 1], str, "astype(int)"),
    ([0, 1], bool, "astype(int)"),
    (["0", "1"], int, "astype(str)"),
    ([0.5, 1.5], str, "astype(float)"),
]


@pytest.mark.parametrize(("names", "other", "call"), TYPES)
def test_the_same_names_in_another_type_are_converted_by_the_call(
    names: list, other: type, call: str, toy: AnnData, fit_options: dict, tmp_path: Path
) -> None:
    toy.obs["batch"] = np.array(names)[toy.obs["batch"].cat.codes]
    adata = toy.copy()
    PairedVAE.setup_anndata(toy, "batch")
    model = PairedVAE(toy, n_latent=3, n_hidden=7, alignment="none")
    model.train(**fit_options)
    model.save(tmp_path)
    adata.obs["batch"] = adata.obs["batch"].astype(other)
    with pytest.raises(ValueError, match="They are the same in another type") as caught:
        PairedVAE.load(tmp_path, adata)
    assert call in str(caught.value)
    advice = str(caught.value).split("`")[-2]
    adata.obs["batch"] = eval(advice, {"adata": adata})
    np.testing.assert_array_equal(
        PairedVAE.load(tmp_path, adata).get_latent_representation(),
        model.get_latent_representation(),
    )


# Files that are not whole


@pytest.fixture
def copied(saved: tuple, tmp_path: Path) -> tuple[Path, dict[str, AnnData]]:
    shutil.copytree(saved[0], tmp_path / "models")
    return tmp_path / "models", saved[1]


def change(
    file: Path,
    facts: Callable[[dict], object] | None = None,
    weights: Callable[[dict], object] | None = None,
) -> None:
    """Change what is in a file of a model."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    told, tensors = json.loads(parts[FACTS]), load_tensors(parts[WEIGHTS])
    for call, value in ((facts, told), (weights, tensors)):
        if call is not None:
            call(value)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(FACTS, json.dumps(told))
        archive.writestr(WEIGHTS, save_tensors(tensors))


def forget(tensors: dict) -> None:
    del tensors[max(tensors)]


def reshape(tensors: dict) -> None:
    name = max(tensors)
    tensors[name] = tensors[name].flatten()[:0].clone()


def add(tensors: dict) -> None:
    tensors["module.stray"] = tensors[max(tensors)].clone()


DAMAGE = {
    "a tensor is missing": {"weights": forget},
    "a tensor of another shape": {"weights": reshape},
    "a tensor too many": {"weights": add},
    **{
        f"no {part}": {"facts": lambda facts, part=part: facts.pop(part)}
        for part in ("class", "registry", "init", "attributes", "history", "schema")
    },
    **{
        f"{part} of another kind": {"facts": lambda facts, part=part: facts.update({part: "x"})}
        for part in ("registry", "init", "attributes", "history", "schema")
    },
    "no genes": {"facts": lambda facts: facts["registry"]["field_registries"].pop("X")},
    "no arguments": {"facts": lambda facts: facts["registry"].pop("setup_args")},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_said_with_what_to_do(damage: str, copied: tuple) -> None:
    for name in MODELS:
        change(copied[0] / name / FILE, **DAMAGE[damage])
        told = "not a file of scovert, or damaged.*Copy it again from"
        with pytest.raises(ValueError, match=told):
            load(copied, name, copied[1][name].copy())


@pytest.mark.parametrize("name", MODELS)
def test_bits_that_fell_are_noticed(name: str, copied: tuple) -> None:
    file, rng = copied[0] / name / FILE, np.random.default_rng(0)
    whole = np.frombuffer(file.read_bytes(), np.uint8)
    for _ in range(20):
        content = whole.copy()
        content[rng.integers(len(content), size=5)] ^= 1 << 3
        file.write_bytes(content[: rng.integers(1, len(content) + 1)].tobytes())
        with pytest.raises(ValueError, match="not a file of scovert, or damaged"):
            load(copied, name, copied[1][name].copy())


@pytest.mark.parametrize("name", MODELS)
def test_arguments_of_another_version_are_named(name: str, saved: tuple, copied: tuple) -> None:
    for where in (lambda facts: facts["init"], lambda facts: facts["registry"]["setup_args"]):
        shutil.rmtree(copied[0] / name)
        shutil.copytree(saved[0] / name, copied[0] / name)
        change(copied[0] / name / FILE, lambda facts, where=where: where(facts).update(n_wings=2))
        with pytest.raises(ValueError, match=r"was saved with \['n_wings'\], which this version"):
            load(copied, name, copied[1][name].copy())


def test_weights_of_other_arguments_are_refused(copied: tuple) -> None:
    change(copied[0] / "paired" / FILE, lambda facts: facts["init"].update(n_latent=4))
    with pytest.raises(ValueError, match="its weights are not those of its PairedVAE. size mism"):
        load(copied, "paired", copied[1]["paired"].copy())


def test_a_file_without_shapes_still_loads(copied: tuple) -> None:
    change(copied[0] / "paired" / FILE, lambda facts: facts.pop("shapes"))
    load(copied, "paired", copied[1]["paired"].copy())


@pytest.mark.parametrize("name", MODELS)
def test_the_file_in_the_folder_may_be_named(name: str, saved: tuple) -> None:
    model = MODELS[name].load(saved[0] / name / FILE, saved[1][name].copy())
    assert model.is_trained


def test_files_of_other_kinds_are_said(copied: tuple, tmp_path: Path) -> None:
    adata = copied[1]["paired"]
    for name, content in (("model.txt", "hello"), ("empty", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name} is not a file of scovert, or damaged"):
            PairedVAE.load(tmp_path / name, adata)


def test_models_in_the_folders_of_a_folder_are_named(saved: tuple) -> None:
    message = (
        r"holds no model.scovert \(there is one in each of .*\['bulk', 'confounder', 'paired'"
    )
    with pytest.raises(FileNotFoundError, match=message):
        PairedVAE.load(saved[0], saved[1]["paired"])


def test_a_damaged_anndata_beside_the_model_is_said(copied: tuple) -> None:
    (copied[0] / "paired" / "adata.h5ad").write_text("x")
    with pytest.raises(ValueError, match="adata.h5ad cannot be read.*Pass `adata`, or copy"):
        PairedVAE.load(copied[0] / "paired")


def test_no_cells_are_refused(saved: tuple) -> None:
    for name in ("paired", "confounder"):
        model = load(saved, name, saved[1][name].copy())
        with pytest.raises(ValueError, match="`adata` has 0 cells"):
            model.get_latent_representation(saved[1][name][:0].copy())


# Names of results


NAMES: dict[str, tuple[object, type[Exception], str]] = {
    "slash": ("a/b", ValueError, "holds a slash"),
    "empty": ("", ValueError, "is no name"),
    "blank": ("  ", ValueError, "is no name"),
    "dot": (".", ValueError, "is no name"),
    "zero": ("a\0b", ValueError, "or a zero"),
    "of scvi-tools": ("_scvi_batch", ValueError, "begins with `_scvi_`"),
    "number": (1, TypeError, "is of type int. Pass a name, as a string"),
    "none": (None, TypeError, "is of type NoneType. Pass a name"),
}


@pytest.mark.parametrize("name", MODELS)
def test_names_that_no_file_can_hold_are_refused(
    name: str, saved: tuple, make_bulk: Callable[[], AnnData]
) -> None:
    adata = saved[1][name].copy()
    model = load(saved, name, adata)
    target = make_bulk() if name == "bulk" else adata
    before = target.copy()
    for key, error, message in NAMES.values():
        with pytest.raises(error, match=rf"`key_added=.*{message}"):
            model.annotate(target, key_added=key, write_layer=False)
    assert_same_anndata(target, before)


# Without cells

WITHOUT = {"paired": PairedVAE, "bulk": BulkDeconvolution}


@pytest.mark.parametrize("name", WITHOUT)
def test_a_model_without_its_cells_refuses_what_needs_them(
    name: str, saved: tuple[Path, dict[str, AnnData]], tmp_path: Path
) -> None:
    with no_warning():
        model = WITHOUT[name].load(saved[0] / name)
    n_cells = saved[1][name].n_obs
    assert f"loaded without its {n_cells} cells" in model.summary_string
    needed = [model.train, lambda: model.adata, lambda: model.save(tmp_path, save_anndata=True)]
    if name == "paired":
        needed += [model.check, model.report, model.get_support, model.annotate]
        needed += [model.get_latent_representation, model.get_normalized_expression]
        needed.append(lambda: model.get_support(saved[1][name].copy()))
    for call in needed:
        with pytest.raises(RuntimeError, match="loaded without its cells, and they are needed"):
            call()


def test_effects_are_derived_from_cells(saved: tuple[Path, dict[str, AnnData]]) -> None:
    with pytest.raises(FileNotFoundError, match="Pass `adata`.*save_anndata=True"):
        LatentConfounder.load(saved[0] / "confounder")


def test_a_model_without_its_cells_places_others(
    saved: tuple[Path, dict[str, AnnData]], tmp_path: Path
) -> None:
    whole, bare = (
        PairedVAE.load(saved[0] / "paired", cells) for cells in (saved[1]["paired"].copy(), None)
    )
    others = saved[1]["paired"][::2].copy()
    for get in ("get_latent_representation", "get_normalized_expression", "translate"):
        options = {"target": "batch_1"} if get == "translate" else {}
        found, expected = (getattr(model, get)(others, **options) for model in (bare, whole))
        np.testing.assert_array_equal(found, expected)
    bare.annotate(others)
    assert "X_paired" in others.obsm
    assert "paired_support" not in others.obs  # which needs the cells of the model
    bare.save(tmp_path / "again")
    again = PairedVAE.load(tmp_path / "again", saved[1]["paired"].copy())
    np.testing.assert_array_equal(again.get_support(), whole.get_support())
    bare.adata = saved[1]["paired"].copy()
    latent = bare.get_latent_representation()
    np.testing.assert_array_equal(latent, again.get_latent_representation())


def test_a_reference_is_not_needed_to_deconvolve(
    saved: tuple[Path, dict[str, AnnData]], make_bulk: Callable[[], AnnData]
) -> None:
    options = {"kind": "counts", "cell_size": "none", "budget": BulkBudget(n_steps=5)}
    whole = BulkDeconvolution.load(saved[0] / "bulk", saved[1]["bulk"].copy())
    bare = BulkDeconvolution.load(saved[0] / "bulk")
    found, expected = (model.get_proportions(make_bulk(), **options) for model in (bare, whole))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(bare.check()["value"], whole.check()["value"])
    assert bare.types == whole.types


def test_niches_of_new_slides_need_no_old_ones(
    make_tissue: Callable[[], AnnData], fit_options: dict, tmp_path: Path
) -> None:
    tissue = make_tissue()
    keys = {"sample_key": "sample", "batch_key": "lane", "labels_key": "cell_type"}
    NicheVAE.setup_anndata(tissue, likelihood="nb", layer="raw", **keys)
    model = NicheVAE(tissue, n_neighbors=5, n_states=4, n_latent=3, n_hidden=7)
    model.train(**fit_options)
    model.save(tmp_path / "model")
    with no_warning():
        bare = NicheVAE.load(tmp_path / "model")
    new = tissue[tissue.obs["sample"] == "section_1"].copy()
    for get in ("get_latent_representation", "get_neighborhood_composition", "get_cell_states"):
        expected = getattr(model, get)(new)
        np.testing.assert_array_equal(getattr(bare, get)(new), expected)
    with pytest.warns(UserWarning, match="niche '0' here is not niche '0' of another slide"):
        bare.get_niches(new, n_niches=2)
    for call in (bare.get_niches, bare.get_state_labels, bare.sample_neighborhood, bare.report):
        with pytest.raises(RuntimeError, match="loaded without its cells"):
            call()
    with pytest.raises(RuntimeError, match="loaded without its cells"):
        bare.get_neighborhood_composition(new, labels_key="cell_type")
