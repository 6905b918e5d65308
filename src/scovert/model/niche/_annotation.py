"""What `annotate` writes of niches, and where."""

from __future__ import annotations

from anndata import AnnData
from scvi.model.base import BaseModelClass

from scovert.core._annotating import Slot
from scovert.model.niche._composition import composition_of, states_of_cells
from scovert.model.niche._expression import mean_expression
from scovert.model.niche._neighborhood import ask_about, decode, encode
from scovert.model.niche._places import niches_of, places_of

__all__ = ["slots", "values"]


def slots(key: str, *, has_states: bool, write_layer: bool) -> list[Slot]:
    """Return container and name of every slot."""
    places = [("obsm", f"X_{key}"), ("obs", key)]
    if has_states:
        places += [("obsm", f"{key}_composition"), ("obs", f"{key}_state")]
        places += [("layers", key)] if write_layer else []
    return places


def values(
    model: BaseModelClass, adata: AnnData, places: list[Slot], options: dict
) -> tuple[dict[Slot, object], dict]:
    """Return the values of slots, what is around cells found once; nothing for the record."""
    asked = ask_about(model, adata)
    z = encode(model, asked)[0]
    at, pi = z, None
    if model.module.matching is None:
        pi = decode(model, z)
        at = places_of(model, pi)
    found: list[object] = [at, niches_of(model, adata, at, **options, seed=0)]
    if pi is not None:
        labels_key = model.registry["setup_args"]["labels_key"]
        found.append(composition_of(model, asked, pi, labels_key))
        found.append(states_of_cells(model, asked, pi)["state"].to_numpy())
    if len(places) > len(found):
        found.append(mean_expression(model, pi, adata.var_names))
    return dict(zip(places, found, strict=True)), {}
