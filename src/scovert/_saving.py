"""The file format: a zip of weights and JSON that holds no code, written whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from anndata.io import write_h5ad
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

__all__ = [
    "MODEL_FILE",
    "SavedModel",
    "read_archive",
    "read_model",
    "write_adata",
    "write_archive",
    "write_model",
]

SCHEMA = 1
MODEL_FILE, ADATA_FILE = "model.scovert", "adata.h5ad"
WEIGHTS, FACTS = "weights.safetensors", "scovert.json"
KEPT_ELSEWHERE = {"registry_", "init_params_", "history_"}


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
    folder = Path(path)
    written = [MODEL_FILE] if adata is None else [MODEL_FILE, ADATA_FILE]
    taken = [name for name in written if (folder / name).exists()]
    if folder.is_file() or (taken and not overwrite):
        raise FileExistsError(
            f"{folder} already holds {taken or 'a file'}. Pass another path, or `overwrite=True`."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if adata is not None:
        write_adata(adata, folder / ADATA_FILE)
    write_archive(folder / MODEL_FILE, *_packed(saved))


def read_model(path: str | os.PathLike) -> tuple[SavedModel, Path]:
    """Read a model from the folder `path`; also returns where its AnnData would be."""
    folder = Path(path)
    file = folder / MODEL_FILE
    if not file.exists():
        is_host = (folder / "model.pt").exists()
        other = " (`model.pt` there is scvi-tools' own format)" if is_host else ""
        raise FileNotFoundError(
            f"{folder} holds no {MODEL_FILE}{other}. Pass the folder that `model.save()` wrote."
        )
    facts, tensors = read_archive(file)
    schema = facts["schema"]
    if schema > SCHEMA:
        raise ValueError(
            f"{file} has schema {schema}, this scovert reads up to {SCHEMA}. It was "
            f"written by scovert {facts['versions']['scovert']}: upgrade to that or a later one."
        )
    return _unpack(facts, tensors), folder / ADATA_FILE


def write_archive(place: Path, facts: dict, tensors: dict[str, torch.Tensor]) -> None:
    """Write plain values and tensors into one file, whole or not at all."""

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(FACTS, json.dumps(_pack({"schema": SCHEMA, **facts})))
            archive.writestr(WEIGHTS, save_tensors(kept))

    kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    _replace(place, write)


def read_archive(file: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read what `write_archive` wrote: plain values, as JSON has them, and tensors."""
    try:
        with zipfile.ZipFile(file) as archive:
            facts = json.loads(archive.read(FACTS))
            tensors = load_tensors(archive.read(WEIGHTS))
            facts["schema"]
    except (zipfile.BadZipFile, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is not a file of scovert, or damaged: {error}.") from error
    return facts, tensors


def write_adata(adata: AnnData, place: Path) -> None:
    """Write an AnnData as it is: text columns are not turned into categories on the way."""
    options = {"convert_strings_to_categoricals": False}
    _replace(place, lambda file: write_h5ad(file, adata, **options))  # a method would attach it


def _replace(place: Path, write: Callable[[Path], None]) -> None:
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
        kind = next(k for k in kinds if name.startswith(k))
        kinds[kind][name.removeprefix(kind)] = tensor
    arrays = {k: v.numpy() for k, v in kinds["attribute."].items()}
    return SavedModel(
        class_name=facts["class"],
        registry=_restore(facts["registry"]),
        init=_restore(facts["init"]),
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
