"""Writing results into an AnnData without overwriting what is not ours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd
from anndata import AnnData

from scovert.core._words import counted

__all__ = [
    "check_free",
    "check_genes_known",
    "check_memory",
    "slot_name",
    "slot_names",
    "taken_slots",
    "write_slots",
]


def check_free(
    adata: AnnData, key: str, slots: Sequence[tuple[str, str]], model: str, *, overwrite: bool
) -> None:
    """Refuse a name that no file can hold, and slots that something else wrote.

    Parameters
    ----------
    adata
        Where the slots are.
    key
        Entry of ``adata.uns`` that lists what was written under this name.
    slots
        Container (``"obsm"``, ``"layers"``, ...) and name of each slot.
    model
        Name of the class that is about to write.
    overwrite
        Allow it all the same.
    """
    _check_name(key)
    taken = taken_slots(adata, key, slots, model)
    if taken and not overwrite:
        raise ValueError(
            f"`adata` already holds {taken}, which {model} did not write. Pass another "
            "`key_added`, or `overwrite=True` to replace them."
        )


def taken_slots(
    adata: AnnData, key: str, slots: Sequence[tuple[str, str]], model: str
) -> list[str]:
    """Return those of some slots that are there and the model did not write under this name."""
    record = adata.uns.get(key, {})
    is_own = isinstance(record, dict) and record.get("model") == model
    own = record.get("slots", []) if is_own else []
    written = {*own, *([f"uns/{key}"] if len(own) else [])}
    return [
        f"{container}/{name}"
        for container, name in [*slots, ("uns", key)]
        if name in getattr(adata, container) and f"{container}/{name}" not in written
    ]


def _check_name(key: object) -> None:
    """Refuse a `key_added` that is no name, or that stands for something else in a file."""
    if not isinstance(key, str):
        raise TypeError(
            f"`key_added={key!r}` is of type {type(key).__name__}. Pass a name, as a string."
        )
    reason = None
    if not key.strip() or key in (".", ".."):
        reason = "is no name"
    elif "/" in key or "\0" in key:
        reason = "holds a slash or a zero, which a name in an .h5ad file cannot"
    elif key.startswith("_scvi_"):
        reason = "begins with `_scvi_`, where scvi-tools keeps its own"
    if reason is not None:
        raise ValueError(f"`key_added={key!r}` {reason}. Pass another name, such as 'run_2'.")


def slot_name(label: object) -> str:
    """Return a label as part of the name of a slot: h5ad takes a slash for a path."""
    return str(label).replace("/", "_")


def slot_names(labels: Sequence[object]) -> list[str]:
    """Return labels as names of slots, numbered where two would have one name."""
    as_they_are, names = {str(label) for label in labels}, []
    for label in labels:
        stem = name = slot_name(label)
        number = 2
        while name in names or (name in as_they_are and name != str(label)):
            name, number = f"{stem}_{number}", number + 1
        names.append(name)
    return names


def check_genes_known(adata: AnnData, genes: pd.Index, layer: str) -> None:
    """Refuse a layer of an AnnData with genes for which there are no values."""
    extra = adata.var_names.difference(genes)
    if len(extra):
        raise ValueError(
            f"`adata` has {counted(len(extra), 'gene')} that the model does not know, such as "
            f"{extra[0]!r}, "
            f"so there are no values for them in `layers[{layer!r}]`. Pass `write_layer=False`, "
            "or annotate `adata[:, model.adata.var_names].copy()`."
        )


def check_memory(adata: AnnData, layers: list[str], remedy: str) -> None:
    """Refuse dense layers that are too large for the free memory."""
    import psutil

    needed = 4 * adata.n_obs * adata.n_vars * len(layers)
    free = psutil.virtual_memory().available
    if needed > free:
        more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
        raise MemoryError(
            f"`layers[{layers[0]!r}]`{more} would take {needed / 1e9:.1f} GB ({adata.n_obs} cells "
            f"x {adata.n_vars} genes), and {free / 1e9:.1f} GB are free. {remedy}"
        )


def write_slots(
    adata: AnnData, key: str, slots: dict[tuple[str, str], object], model: str, params: dict
) -> None:
    """Write the slots and a record of them to ``adata.uns[key]``; drop those written before."""
    record = adata.uns.get(key, {})
    before = record.get("slots", []) if isinstance(record, dict) and "model" in record else []
    for container, name in (slot.split("/", 1) for slot in before):
        if (container, name) not in slots and name in getattr(adata, container):
            del getattr(adata, container)[name]
    for (container, name), value in slots.items():
        getattr(adata, container)[name] = value
    adata.uns[key] = {
        "model": model,
        "slots": [f"{container}/{name}" for container, name in slots],
        "params": {k: v for k, v in params.items() if v is not None},
        "versions": {p: version(p) for p in ("scovert", "scvi-tools", "torch")},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
