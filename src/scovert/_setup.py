"""What models need to know about an AnnData before they register it."""

from __future__ import annotations

import hashlib
import warnings

from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass

from scovert._compat import SCVI_UUID_KEY

__all__ = ["fingerprint", "give_identity", "used_batches"]


def give_identity(cls: type[BaseModelClass], adata: AnnData) -> None:
    """Turn a view into an AnnData, and a copy of one that was set up into one of its own.

    The host tells AnnData apart by an identifier in ``uns``, which a copy shares.
    """
    if adata.is_view:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.obs = adata.obs.copy()
    known = cls._setup_adata_manager_store.get(adata.uns.get(SCVI_UUID_KEY))
    if known is not None and known.adata is not adata:
        del adata.uns[SCVI_UUID_KEY]


def used_batches(adata: AnnData, batch_key: str) -> dict:
    """Return a registry of the datasets that have cells; an unused category is none."""
    used = adata.obs[batch_key].astype("category").cat.remove_unused_categories().cat.categories
    state = {"categorical_mapping": used.to_numpy(copy=True), "original_key": batch_key}
    return {"field_registries": {REGISTRY_KEYS.BATCH_KEY: {"state_registry": state}}}


def fingerprint(adata: AnnData) -> str:
    """Return a hash of the cells' names in their order."""
    return hashlib.sha256("\n".join(map(str, adata.obs_names)).encode()).hexdigest()
