"""The distances in the registry of scvi-tools, which knows no ``obsp``."""

from __future__ import annotations

import hashlib

import numpy as np
from anndata import AnnData
from scvi.data.fields import BaseAnnDataField

__all__ = ["DistancesField", "check_distances_unchanged"]

FIELD = "distances"
"""Key of the registry."""


class DistancesField(BaseAnnDataField):
    """A fingerprint of the distances; another AnnData need not have any.

    Parameters
    ----------
    distances_key
        Slot of ``adata.obsp``.
    """

    registry_key, attr_name, attr_key = FIELD, "obsp", None
    is_empty = False

    def __init__(self, distances_key: str) -> None:
        self.distances_key = distances_key

    def validate_field(self, adata: AnnData) -> None:
        """Trust the distances, which the model has looked at."""

    def register_field(self, adata: AnnData) -> dict:
        """Return the fingerprint."""
        return {"digest": _digest(adata, self.distances_key)}

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **_: object) -> dict:
        """Return the fingerprint of the other AnnData, empty if it has no distances."""
        return {"digest": _digest(adata_target, self.distances_key)}

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Count nothing."""
        return {}

    def view_state_registry(self, state_registry: dict) -> None:
        """Show nothing."""


def _digest(adata: AnnData, key: str) -> str:
    if key not in adata.obsp:
        return ""
    values = np.ascontiguousarray(np.asarray(adata.obsp[key], dtype=float))
    return hashlib.sha256(values.tobytes()).hexdigest()


def check_distances_unchanged(adata: AnnData, registry: dict, key: str) -> None:
    """Refuse distances that are not those that were set up."""
    known = registry["field_registries"][FIELD]["state_registry"]["digest"]
    if key not in adata.obsp:
        raise KeyError(
            f"`adata.obsp` has no {key!r} (there are: {list(adata.obsp)}), and a model is trained "
            "on distances. Attach the AnnData that has them, or add them and set it up again."
        )
    if _digest(adata, key) != known:
        raise ValueError(
            f"`adata.obsp[{key!r}]` is not as it was set up: it holds other distances. Put them "
            "back, or set the AnnData up and fit a model again."
        )
