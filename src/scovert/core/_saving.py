"""The file format: a zip of weights and JSON that holds no code, written whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.io import write_elem, write_h5ad
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from scovert.core._paths import place_of

__all__ = [
    "MODEL_FILE",
    "SavedModel",
    "check_place",
    "check_storable",
    "load_weights",
    "read_archive",
    "read_model",
    "write_adata",
    "write_archive",
    "write_model",
    "write_whole",
]

SCHEMA = 2
"""Version of the file, which `load` tells older ones by."""

MODEL_FILE, ADATA_FILE = "model.scovert", "adata.h5ad"
WEIGHTS, FACTS = "weights.safetensors", "scovert.json"
KEPT_ELSEWHERE = {"registry_", "init_params_", "history_"}
REMEDY = "Copy it again from where it was saved; or delete it, and fit the model again."
DAMAGES = (
    zipfile.BadZipFile,
    SafetensorError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What reading raises when a file was cut off or changed."""


@dataclass(frozen=True)
class SavedModel:
    """What a file holds of a model.

    Attributes
    ----------
    class_name
        Class of the model.
    registry
        Registry of the AnnData it was set up with.
    init
        Arguments of its ``__init__``.
    weights
        State of its networks.
    attributes
        Its attributes that end in an underscore: plain values and arrays.
    history
        Its training history.
    """

    class_name: str
    registry: dict
    init: dict
    weights: dict[str, torch.Tensor]
    attributes: dict
    history: dict[str, pd.DataFrame]


def write_model(
    path: str | os.PathLike, saved: SavedModel, adata: AnnData | None, *, overwrite: bool
) -> None:
    """Write a model, and its AnnData if given, into the folder `path`."""
    folder = place_of(path, "path", "a folder")
    written = [MODEL_FILE] if adata is None else [MODEL_FILE, ADATA_FILE]
    check_place(folder, written, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    if adata is not None:
        write_adata(adata, folder / ADATA_FILE)
    write_archive(folder / MODEL_FILE, *_packed(saved))


def check_place(folder: Path, written: Sequence[str] = (MODEL_FILE,), *, overwrite: bool) -> None:
    """Refuse a place for a model that is a file, or that holds one."""
    taken = [name for name in written if (folder / name).exists()]
    if folder.is_file() or (taken and not overwrite):
        raise FileExistsError(
            f"{folder} already holds {taken or 'a file'}. Pass another path, or `overwrite=True`."
        )


def read_model(path: str | os.PathLike) -> tuple[SavedModel, Path]:
    """Read a model from the folder `path`; also returns where its AnnData would be."""
    place = place_of(path, "path", "the folder that `model.save()` wrote")
    file = place if place.is_file() else place / MODEL_FILE
    if not file.exists():
        raise FileNotFoundError(
            f"{place} holds no {MODEL_FILE}{_other_model(place)}. Pass the folder that "
            "`model.save()` wrote."
        )
    facts, tensors = read_archive(file)
    _check_schema(facts, file)
    with _whole(file):
        return _unpack(facts, tensors), file.with_name(ADATA_FILE)


def _other_model(folder: Path) -> str:
    """Say what a folder without a model holds instead."""
    if (folder / "model.pt").exists():
        return " (`model.pt` there is scvi-tools' own format)"
    within = sorted(file.parent.name for file in folder.glob(f"*/{MODEL_FILE}"))
    return f" (there is one in each of its folders {within})" if within else ""


def _check_schema(facts: dict, file: Path) -> None:
    """Refuse a file that a later scovert wrote in another way."""
    schema = facts["schema"]
    if schema > SCHEMA:
        writer = facts.get("versions", {}).get("scovert", "of a later version")
        raise ValueError(
            f"{file} has schema {schema}, this scovert reads up to {SCHEMA}. It was written by "
            f"scovert {writer}: upgrade to that or a later one."
        )


def load_weights(path: str | os.PathLike, saved: SavedModel, module: torch.nn.Module) -> None:
    """Give networks their weights; refuse those of other networks."""
    try:
        module.load_state_dict(saved.weights)
    except DAMAGES as error:
        reason = " ".join(str(error).splitlines()[-1].split())  # torch lists below a headline
        raise ValueError(
            f"{path} is damaged, or written by another version of scovert: its weights are not "
            f"those of its {saved.class_name}. {reason} {REMEDY}"
        ) from error


def write_archive(place: Path, facts: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Write plain values and tensors into one file, whole or not at all."""

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(FACTS, json.dumps(_pack({**about, **facts})))
            archive.writestr(WEIGHTS, save_tensors(kept))

    kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    about = {"schema": SCHEMA, "shapes": _shapes(kept)}
    write_whole(place, write)


def read_archive(file: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read what `write_archive` wrote: plain values, as JSON has them, and tensors."""
    with _whole(file), zipfile.ZipFile(file) as archive:
        facts = json.loads(archive.read(FACTS))
        tensors = load_tensors(archive.read(WEIGHTS))
        facts["schema"] = int(facts["schema"])
        _check_shapes(facts.get("shapes"), _shapes(tensors))
    return facts, tensors


def _shapes(tensors: dict[str, torch.Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _check_shapes(wanted: dict | None, found: dict) -> None:
    """Refuse tensors that are not those that were written; files once did not list them."""
    if wanted is None:
        return
    unlike = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
    if unlike:
        raise ValueError(f"the tensor {unlike[0]!r} is missing, unknown or of another shape")


@contextmanager
def _whole(file: Path) -> Iterator[None]:
    """Say that a file is damaged when a part of it is missing or of another kind."""
    try:
        yield
    except DAMAGES as error:
        raise ValueError(
            f"{file} is not a file of scovert, or damaged: {error} ({type(error).__name__}). "
            f"{REMEDY}"
        ) from error


def write_adata(adata: AnnData, place: Path) -> None:
    """Write an AnnData as it is: text columns are not turned into categories on the way."""
    options = {"convert_strings_to_categoricals": False}
    try:  # a method would attach it
        write_whole(place, lambda file: write_h5ad(file, adata, **options))
    except Exception:
        check_storable(adata)  # says which column it is
        raise


def check_storable(adata: AnnData) -> None:
    """Refuse columns of ``obs`` and ``var`` that an .h5ad file cannot hold."""
    for slot in ("obs", "var"):
        table = getattr(adata, slot)
        with h5py.File("memory", "w", driver="core", backing_store=False) as file:
            for i, key in enumerate(table.select_dtypes(exclude="number")):
                try:
                    write_elem(file, str(i), table[key].values)
                except Exception as error:  # anndata has some of its own
                    raise ValueError(
                        f"`adata.{slot}[{key!r}]` cannot be written into an .h5ad file ({error}). "
                        "A column holds numbers, text or categories, and no mix of them: convert "
                        f"it, such as with `adata.{slot}[{key!r}].astype(str)`, or leave it out."
                    ) from error


def write_whole(place: Path, write: Callable[[Path], None]) -> None:
    """Write a file beside its place and move it in."""
    beside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def _packed(saved: SavedModel) -> tuple[dict, dict[str, torch.Tensor]]:
    """Take a model apart into plain values and tensors."""
    arrays = {k: v for k, v in saved.attributes.items() if isinstance(v, np.ndarray)}
    tensors = {f"module.{k}": v for k, v in saved.weights.items()}
    tensors |= {
        f"attribute.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in arrays.items()
    }
    setup = saved.registry["field_registries"]
    facts = {
        "class": saved.class_name,
        "versions": {p: version(p) for p in ("scovert", "scvi-tools", "torch", "anndata")},
        "setup_args": saved.registry["setup_args"],
        "genes": setup["X"]["state_registry"]["column_names"],
        "registry": saved.registry,
        "init": saved.init,
        "attributes": {k: v for k, v in saved.attributes.items() if k not in arrays},
        "history": {k: _pack_frame(v) for k, v in saved.history.items()},
    }
    return facts, tensors


def _unpack(facts: dict, tensors: dict[str, torch.Tensor]) -> SavedModel:
    kinds = {"module.": {}, "attribute.": {}}
    for name, tensor in tensors.items():
        kind = next((k for k in kinds if name.startswith(k)), None)
        kinds[kind][name.removeprefix(kind)] = tensor
    arrays = {k: v.numpy() for k, v in kinds["attribute."].items()}
    registry = _restore(facts["registry"])
    pd.Index(registry["field_registries"]["X"]["state_registry"]["column_names"])
    return SavedModel(
        class_name=facts["class"],
        registry=registry | {"setup_args": dict(registry["setup_args"])},
        init=dict(_restore(facts["init"])),
        weights=kinds["module."],
        attributes=_restore(facts["attributes"]) | arrays,
        history={k: _restore_frame(v) for k, v in facts["history"].items()},
    )


def _pack(value: object) -> object:
    """Turn what a registry holds into JSON; arrays become lists with their dtype."""
    if isinstance(value, dict):
        return {k: _pack(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(v) for v in value]
    if isinstance(value, np.ndarray | pd.Index):
        kept = value.dtype if isinstance(value.dtype, np.dtype) else np.dtype(object)
        return {"__array__": [_pack(v) for v in value.tolist()], "dtype": kept.str}
    return value.item() if isinstance(value, np.generic) else value


def _restore(value: object) -> object:
    if isinstance(value, dict):
        if "__array__" in value:
            return np.array(value["__array__"], dtype=value["dtype"])
        return {k: _restore(v) for k, v in value.items()}
    return [_restore(v) for v in value] if isinstance(value, list) else value


def _pack_frame(frame: pd.DataFrame) -> dict:
    (column,) = frame.columns
    values = frame[column].astype(float).tolist()
    index = {"index_name": frame.index.name, "index": frame.index.tolist()}
    return {"column": column, "values": values, **index}


def _restore_frame(packed: dict) -> pd.DataFrame:
    index = pd.Index(packed["index"], name=packed["index_name"])
    return pd.DataFrame({packed["column"]: packed["values"]}, index=index)
