"""The file format: what it holds, that it carries no code, and that it is whole at any moment."""

from __future__ import annotations

import builtins
import json
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from safetensors.torch import load as load_tensors

import scovert
from scovert.core import _saving
from scovert.model import PairedVAE

FILE, FACTS, WEIGHTS = "model.scovert", "scovert.json", "weights.safetensors"

pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def folder(fitted: PairedVAE, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def cells(fitted: PairedVAE) -> AnnData:
    return fitted.adata.copy()


def read_zip(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(file: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def change_facts(folder: Path, change: Callable[[dict], Any]) -> None:
    parts = read_zip(folder / FILE)
    facts = json.loads(parts[FACTS])
    change(facts)
    write_zip(folder / FILE, parts | {FACTS: json.dumps(facts).encode()})


def train(model: PairedVAE) -> PairedVAE:
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    return model


# What is in the file


def test_the_file_is_a_zip_of_weights_and_json(folder: Path, fitted: PairedVAE) -> None:
    assert [f.name for f in folder.iterdir()] == [FILE]
    parts = read_zip(folder / FILE)
    assert set(parts) == {FACTS, WEIGHTS}
    facts, tensors = json.loads(parts[FACTS]), load_tensors(parts[WEIGHTS])
    assert facts["class"] == "PairedVAE"
    assert facts["schema"] == 2
    assert {"scovert", "scvi-tools", "torch", "anndata"} <= set(facts["versions"])
    assert facts["setup_args"]["batch_key"] == "batch"
    assert facts["genes"]["__array__"] == fitted.adata.var_names.tolist()
    assert facts["init"]["n_latent"] == 3
    assert {"registry", "attributes", "history"} <= set(facts)
    for name, value in fitted.module.state_dict().items():
        assert torch.equal(tensors[f"module.{name}"], value)


def test_nothing_is_pickled(folder: Path) -> None:
    for content in read_zip(folder / FILE).values():
        with pytest.raises((pickle.UnpicklingError, ValueError, KeyError, EOFError, IndexError)):
            pickle.loads(content)


def test_what_was_learnt_comes_back(folder: Path, fitted: PairedVAE, cells: AnnData) -> None:
    loaded = PairedVAE.load(folder, cells)
    assert loaded.is_trained
    assert not loaded.module.training
    pd.testing.assert_frame_equal(loaded.get_support(), fitted.get_support())
    assert loaded.anchor_clarity_ == fitted.anchor_clarity_
    assert loaded.init_params_["non_kwargs"] == fitted.init_params_["non_kwargs"]
    pd.testing.assert_frame_equal(loaded.check(), fitted.check())
    for method, options in (
        ("get_normalized_expression", {"transform_batch": "batch_1"}),
        ("get_normalized_expression", {"library_size": 1e4, "gene_list": ["gene_3", "gene_0"]}),
    ):
        pd.testing.assert_frame_equal(
            getattr(loaded, method)(**options), getattr(fitted, method)(**options)
        )


def test_a_loaded_model_is_saved_again_alike(folder: Path, cells: AnnData, tmp_path: Path) -> None:
    PairedVAE.load(folder, cells).save(tmp_path / "again")
    first, second = (read_zip(f / FILE) for f in (folder, tmp_path / "again"))
    assert first[WEIGHTS] == second[WEIGHTS]
    facts = [json.loads(parts[FACTS]) for parts in (first, second)]
    for part in ("class", "setup_args", "genes", "init", "attributes", "history"):
        assert facts[0][part] == facts[1][part]


def test_all_arguments_come_back(cells: AnnData, tmp_path: Path) -> None:
    init = {
        "n_latent": np.int64(4),
        "n_hidden": 5,
        "n_layers": 2,
        "encoder": "per_dataset",
        "anchor_weight": np.float64(3.5),
        "cross_weight": 0.25,
        "dispersion": "gene-batch",
        "dropout_rate": 0.2,
    }
    PairedVAE.setup_anndata(cells, "batch", "raw", ("donor",), ["cycle"])
    model = train(PairedVAE(cells, **init))
    model.save(tmp_path / "model")
    loaded = PairedVAE.load(tmp_path / "model", cells.copy())
    assert {k: loaded.init_params_["non_kwargs"][k] for k in init} == init
    assert loaded.registry["setup_args"]["layer"] == "raw"
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )


@pytest.mark.parametrize(
    "names",
    [[False, True], [7, 3], [0.5, -1.5], ["", 'T/CD4 ü 🧬\n"'], ["1", "0"], ["__array__", "nan"]],
    ids=["bool", "int", "float", "text", "digits", "words"],
)
def test_names_of_datasets_come_back(make_toy: Callable, names: list, tmp_path: Path) -> None:
    adata = make_toy(2)
    adata.obs["batch"] = np.array(names)[adata.obs["batch"].cat.codes]
    adata.obs["donor"] = np.random.default_rng(0).permutation(adata.obs["batch"])
    PairedVAE.setup_anndata(adata, "batch", categorical_covariate_keys=["donor"])
    model = train(PairedVAE(adata, n_latent=3))
    model.save(tmp_path / "model")
    loaded = PairedVAE.load(tmp_path / "model", adata.copy())
    pd.testing.assert_frame_equal(loaded.get_support(), model.get_support())
    assert set(loaded.get_support().columns) == set(names)
    for name in names:
        options = {"transform_batch": name, "indices": [0, 66]}
        pd.testing.assert_frame_equal(
            loaded.get_normalized_expression(**options), model.get_normalized_expression(**options)
        )


# The AnnData beside it


def test_a_model_saved_with_its_anndata_loads_alone(fitted: PairedVAE, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model", save_anndata=True)
    assert {f.name for f in (tmp_path / "model").iterdir()} == {FILE, "adata.h5ad"}
    loaded = PairedVAE.load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), fitted.get_latent_representation()
    )
    pd.testing.assert_frame_equal(loaded.get_support(), fitted.get_support())
    pd.testing.assert_frame_equal(
        loaded.adata.obs[["donor", "cycle"]], fitted.adata.obs[["donor", "cycle"]]
    )


def test_saving_the_anndata_does_not_change_it(fitted: PairedVAE, tmp_path: Path) -> None:
    before = fitted.adata.obs.copy()
    fitted.save(tmp_path / "model", save_anndata=True)
    pd.testing.assert_frame_equal(fitted.adata.obs, before)
    assert (
        before["lane"].dtype == ad.read_h5ad(tmp_path / "model" / "adata.h5ad").obs["lane"].dtype
    )


def test_a_model_of_a_backed_file_is_saved_with_it(toy: AnnData, tmp_path: Path) -> None:
    toy.write_h5ad(tmp_path / "toy.h5ad")
    backed = ad.read_h5ad(tmp_path / "toy.h5ad", backed="r")
    PairedVAE.setup_anndata(backed, "batch")
    model = train(PairedVAE(backed, n_latent=3, alignment="none"))
    model.save(tmp_path / "model", save_anndata=True)
    loaded = PairedVAE.load(tmp_path / "model")
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )


# Other cells


def test_other_cells_can_be_attached(folder: Path, fitted: PairedVAE, cells: AnnData) -> None:
    some = cells[[60, 3, 5, 12, 40]].copy()
    loaded = PairedVAE.load(folder, some)
    np.testing.assert_allclose(
        loaded.get_latent_representation(),
        fitted.get_latent_representation(indices=[60, 3, 5, 12, 40]),
        rtol=2e-5,
        atol=1e-6,
    )
    with pytest.raises(RuntimeError, match="cells the model was trained on.*holds others"):
        loaded.get_support()


@pytest.mark.parametrize("encoder", ["shared", "per_dataset"])
def test_cells_of_one_dataset_can_be_attached(
    make_toy: Callable, encoder: str, tmp_path: Path
) -> None:
    adata = make_toy(3)
    PairedVAE.setup_anndata(adata, "batch")
    model = train(PairedVAE(adata, n_latent=3, encoder=encoder, dispersion="gene-batch"))
    model.save(tmp_path / "model")
    rows = np.flatnonzero(adata.obs["batch"] == "batch_1")
    loaded = PairedVAE.load(tmp_path / "model", adata[rows].copy())
    for method in ("get_latent_representation", "get_normalized_expression"):
        np.testing.assert_allclose(
            np.asarray(getattr(loaded, method)()),
            np.asarray(getattr(model, method)(indices=rows)),
            rtol=2e-5,
            atol=1e-6,
        )


def test_other_cells_are_annotated_without_support(folder: Path, cells: AnnData) -> None:
    some = cells[:20].copy()
    loaded = PairedVAE.load(folder, some)
    loaded.annotate()
    assert "X_paired" in some.obsm
    assert "paired_support" not in some.obs


def test_cells_in_another_order_are_other_cells(folder: Path, cells: AnnData) -> None:
    with pytest.raises(RuntimeError, match="in their order"):
        PairedVAE.load(folder, cells[::-1].copy()).get_support()


def test_an_unknown_dataset_is_refused(folder: Path, cells: AnnData) -> None:
    cells.obs["batch"] = "new one"
    with pytest.raises(ValueError, match="new one"):
        PairedVAE.load(folder, cells)


def test_loading_leaves_the_model_before_alone(
    folder: Path, fitted: PairedVAE, cells: AnnData
) -> None:
    before = fitted.get_latent_representation()
    loaded = PairedVAE.load(folder, cells)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(fitted.get_latent_representation(), before)


# Overwriting


def test_a_number_is_no_place(fitted: PairedVAE) -> None:
    with pytest.raises(TypeError, match="`path=3` is an int. Pass the name of a folder"):
        fitted.save(3)
    with pytest.raises(TypeError, match="`path=None` is a NoneType.*model.save"):
        PairedVAE.load(None)


def test_a_file_is_overwritten_only_when_asked(folder: Path, fitted: PairedVAE) -> None:
    before = (folder / FILE).read_bytes()
    with pytest.raises(FileExistsError, match=rf"already holds \['{FILE}'\].*overwrite=True"):
        fitted.save(folder)
    assert (folder / FILE).read_bytes() == before
    fitted.save(folder, overwrite=True)
    fitted.save(folder, overwrite=True, save_anndata=True)
    with pytest.raises(FileExistsError, match="adata.h5ad"):
        fitted.save(folder, save_anndata=True)


def test_an_anndata_of_someone_else_is_not_overwritten(fitted: PairedVAE, tmp_path: Path) -> None:
    (tmp_path / "adata.h5ad").write_text("mine")
    with pytest.raises(FileExistsError, match="adata.h5ad"):
        fitted.save(tmp_path, save_anndata=True)
    fitted.save(tmp_path)
    assert (tmp_path / "adata.h5ad").read_text() == "mine"


def test_other_files_in_the_folder_are_left_alone(fitted: PairedVAE, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    fitted.save(tmp_path)
    fitted.save(tmp_path, overwrite=True)
    assert {f.name for f in tmp_path.iterdir()} == {FILE, "notes.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_no_folder(fitted: PairedVAE, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(FileExistsError, match="already holds a file"):
        fitted.save(tmp_path / "model", overwrite=overwrite)
    assert (tmp_path / "model").read_text() == "mine"


def test_folders_are_made_and_text_is_a_path(fitted: PairedVAE, tmp_path: Path) -> None:
    fitted.save(f"{tmp_path}/a/b c/ü")
    PairedVAE.load(f"{tmp_path}/a/b c/ü", fitted.adata.copy())


# A crash at any moment


class CrashError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (zipfile.ZipFile, "writestr"),
        (_saving, "save_tensors"),
        (os, "fsync"),
        (Path, "replace"),
    ],
)
@pytest.mark.parametrize("save_anndata", [False, True])
def test_a_crash_leaves_the_old_model(
    fitted: PairedVAE,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    target: object,
    name: str,
    save_anndata: bool,
) -> None:
    before = (folder / FILE).read_bytes()

    def crash(*_: object, **__: object) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(target, name, crash)
        with pytest.raises(CrashError):
            fitted.save(folder, overwrite=True, save_anndata=save_anndata)
    assert (folder / FILE).read_bytes() == before
    assert {f.name for f in folder.iterdir()} <= {FILE, "adata.h5ad"}, "leftovers"
    PairedVAE.load(folder, fitted.adata.copy())


def test_a_crash_at_the_second_part_leaves_the_old_model(
    fitted: PairedVAE, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write, written = (folder / FILE).read_bytes(), zipfile.ZipFile.writestr, []

    def crash(self: zipfile.ZipFile, name: str, content: bytes) -> None:
        if written:
            raise CrashError
        written.append(name)
        write(self, name, content)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", crash)
    with pytest.raises(CrashError):
        fitted.save(folder, overwrite=True)
    assert (folder / FILE).read_bytes() == before


def test_a_crash_of_a_first_save_leaves_no_model(
    fitted: PairedVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(CrashError))
    with pytest.raises(CrashError):
        fitted.save(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="holds no model.scovert"):
        PairedVAE.load(tmp_path / "model", fitted.adata.copy())


def test_a_kill_leaves_the_old_model(folder: Path, fitted: PairedVAE) -> None:
    script = f"""
        import os, pathlib
        from scovert.core import _saving
        from scovert.core._saving import SavedModel, write_model
        _saving._packed = lambda saved: ({{}}, {{}})
        _saving.save_tensors = lambda tensors: os._exit(9)  # half of the file is written
        write_model({str(folder)!r}, None, None, overwrite=True)
    """
    before = (folder / FILE).read_bytes()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == 9
    assert (folder / FILE).read_bytes() == before
    fitted.save(folder, overwrite=True)


# What is no model


def test_an_empty_folder_holds_no_model(tmp_path: Path, cells: AnnData) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"holds no model.scovert\. Pass the folder"):
            PairedVAE.load(place, cells)


def test_a_folder_of_scvi_tools_is_named_and_never_opened(
    tmp_path: Path, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps({"attr_dict": {}}))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    with pytest.raises(FileNotFoundError, match="`model.pt` there is scvi-tools' own format"):
        PairedVAE.load(tmp_path, cells)


DAMAGE = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "not a zip": lambda content: b"hello",
    "a bit flipped": lambda content: (
        content[:-4000] + bytes([content[-4000] ^ 1]) + content[-3999:]
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_refused(folder: Path, cells: AnnData, damage: Callable) -> None:
    (folder / FILE).write_bytes(damage((folder / FILE).read_bytes()))
    with pytest.raises(ValueError, match=f"{FILE} is not a file of scovert, or damaged"):
        PairedVAE.load(folder, cells)


BROKEN_PARTS = {
    "no weights": lambda parts: parts.pop(WEIGHTS),
    "no facts": lambda parts: parts.pop(FACTS),
    "no json": lambda parts: parts.update({FACTS: b"{not json"}),
    "json of another kind": lambda parts: parts.update({FACTS: b"[1, 2]"}),
    "json without facts": lambda parts: parts.update({FACTS: b"{}"}),
    "weights cut": lambda parts: parts.update({WEIGHTS: parts[WEIGHTS][:200]}),
    "weights empty": lambda parts: parts.update({WEIGHTS: b""}),
    "weights pickled": lambda parts: parts.update({WEIGHTS: pickle.dumps({"a": 1})}),
}


@pytest.mark.parametrize("change", BROKEN_PARTS.values(), ids=BROKEN_PARTS.keys())
def test_a_broken_part_is_refused(folder: Path, cells: AnnData, change: Callable) -> None:
    parts = read_zip(folder / FILE)
    change(parts)
    write_zip(folder / FILE, parts)
    with pytest.raises(ValueError, match=f"{FILE} is not a file of scovert, or damaged"):
        PairedVAE.load(folder, cells)


def test_another_class_is_refused(folder: Path, cells: AnnData) -> None:
    change_facts(folder, lambda facts: facts.update({"class": "LatentConfounder"}))
    with pytest.raises(
        ValueError, match="a LatentConfounder, not a PairedVAE.*LatentConfounder.load"
    ):
        PairedVAE.load(folder, cells)


def test_a_newer_schema_is_refused(folder: Path, cells: AnnData) -> None:
    def change(facts: dict) -> None:
        facts["schema"] = 3
        facts["versions"]["scovert"] = "99.1"

    change_facts(folder, change)
    with pytest.raises(ValueError, match=r"schema 3, this scovert reads up to 2.*99\.1: upgrade"):
        PairedVAE.load(folder, cells)


# A file from a stranger


PAYLOAD = "__import__('pathlib').Path({!r}).write_text('owned')"


def test_a_malicious_file_cannot_execute_anything(
    folder: Path, cells: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = PAYLOAD.format(str(tmp_path / "owned"))
    hostile = {
        "__reduce__": ["eval", [code]],
        "__class__": "os.system",
        "py/object": "os.system",
        "__array__": [code],
        "dtype": "O",
    }

    def change(facts: dict) -> None:
        facts["attributes"]["hostile_"] = hostile
        facts["attributes"]["__class__"] = code
        facts["history"]["hostile"] = {
            "column": code,
            "values": [0.0],
            "index_name": code,
            "index": [0],
        }
        facts["registry"]["setup_method_name"] = code

    change_facts(folder, change)
    for forbidden in (
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch, "load"),
        (builtins, "eval"),
    ):
        monkeypatch.setattr(*forbidden, lambda *_, **__: pytest.fail("code was read"))
    try:
        PairedVAE.load(folder, cells)
    except (ValueError, TypeError, KeyError):
        pass
    assert not (tmp_path / "owned").exists()


def test_a_file_cannot_replace_a_method(folder: Path, cells: AnnData) -> None:
    change_facts(folder, lambda facts: facts["attributes"].update({"train": 1, "module": "x"}))
    try:
        loaded = PairedVAE.load(folder, cells)
    except ValueError:
        return
    assert callable(loaded.train)
    assert isinstance(loaded.module, torch.nn.Module)


def test_a_name_in_the_zip_cannot_leave_the_folder(
    folder: Path, cells: AnnData, tmp_path: Path
) -> None:
    parts = read_zip(folder / FILE)
    write_zip(folder / FILE, parts | {"../../escaped": b"x", "/tmp_escaped": b"x"})
    PairedVAE.load(folder, cells)
    assert not (tmp_path / "escaped").exists()
    assert {f.name for f in folder.iterdir()} == {FILE}


def test_the_code_of_the_package_reads_no_pickle() -> None:
    source = Path(scovert.__file__).parent
    for file in source.rglob("*.py"):
        text = file.read_text()
        for forbidden in ("pickle", "torch.load(", "joblib", "marshal", "allow_pickle"):
            assert forbidden not in text, f"{forbidden} in {file.name}"
