"""The frame of every ``annotate``: results of a model into the slots of an AnnData."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anndata import AnnData
from scvi.model.base import BaseModelClass

from scovert.core._checks import check_layer
from scovert.core._minibatch import check_new_genes, check_trained, genes_of
from scovert.core._registering import check_unchanged, is_own
from scovert.core._slots import check_free, check_genes_known, check_memory, write_slots
from scovert.core._words import words_of

__all__ = ["Slot", "annotate", "find_target"]

Slot = tuple[str, str]
"""Container (``"obsm"``, ``"layers"``, ...) and name of what is written."""
REMEDY = (
    "Pass `write_layer=False`, and ask for what you need: "
    "`model.get_normalized_expression(gene_list=[...])`."
)


def find_target(model: BaseModelClass, adata: AnnData | None, layer: str | None = None) -> AnnData:
    """Return the cells to annotate, once they were checked for what the model reads of them.

    Parameters
    ----------
    model
        A trained model.
    adata
        Where to write; `None` means the AnnData of the model.
    layer
        Layer to write, which needs a value for every gene of `adata`.
    """
    check_trained(model)
    genes = genes_of(model.registry)
    if is_own(model, adata):
        check_unchanged(model)
        adata = model.adata
    else:
        setup = model.registry["setup_args"]
        check_layer(adata, setup["layer"])
        check_new_genes(adata, genes, words_of(setup))
    if layer is not None:
        check_genes_known(adata, genes, layer)
    return adata


def annotate(
    model: BaseModelClass,
    adata: AnnData,
    key: str,
    slots: Sequence[Slot],
    compute: Callable[[], tuple[dict[Slot, object], dict[str, object]]],
    *,
    options: dict[str, object],
    overwrite: bool,
    remedy: str = REMEDY,
) -> None:
    """Write results into an AnnData, computed once nothing stands in the way of any.

    Parameters
    ----------
    model
        Model whose results they are.
    adata
        Where to write.
    key
        Entry of ``adata.uns`` for the record: parameters, versions, time.
    slots
        What will be written; layers are dense, of cells x genes.
    compute
        Returns the values of these slots, and what the record holds besides.
    options
        What the results were asked for with, for the record.
    overwrite
        Replace slots that something else wrote.
    remedy
        What to do where the layers do not fit into memory.

    Raises
    ------
    ValueError
        If a slot is taken.
    MemoryError
        If the layers do not fit.
    """
    check_memory(adata, [name for container, name in slots if container == "layers"], remedy)
    check_free(adata, key, slots, type(model).__name__, overwrite=overwrite)
    values, record = compute()
    params = model.init_params_["non_kwargs"] | options
    write_slots(adata, key, values, type(model).__name__, params)
    adata.uns[key] |= record
