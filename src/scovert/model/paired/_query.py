"""Cells of datasets that a model has not seen: their columns, support, and a decoder for them."""

from __future__ import annotations

import copy
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass
from torch import Tensor

from scovert.anchors import find_anchors
from scovert.anchors._find import MAX_CELLS
from scovert.anchors._space import sample
from scovert.core._checks import check_categorical, check_genes
from scovert.core._counts import as_csr
from scovert.core._minibatch import check_trained, genes_of, read_query
from scovert.core._registered import check_seen
from scovert.core.dataloaders._cells import Cells
from scovert.model.paired._module import PairedModule

__all__ = [
    "UNREAD_BY_DECODER",
    "UNREAD_BY_ENCODER",
    "Frozen",
    "freeze_all_but_new",
    "new_support",
    "with_new_datasets",
]

N_FITS = 5
"""Rounds of fitting: each leaves a tenth or less of the difference, as shares sum to one."""

HALF_COUNT = 0.5
"""Added to totals of a gene, so that one without counts has a finite factor."""

UNREAD_BY_DECODER = (REGISTRY_KEYS.BATCH_KEY,)
"""What a shared decoder does not need of a cell that it decodes as another dataset."""

UNREAD_BY_ENCODER = (*UNREAD_BY_DECODER, REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY)
"""What a shared encoder does not need of a cell."""


def new_support(
    model: BaseModelClass, known: Cells, datasets: NDArray, adata: AnnData
) -> pd.DataFrame:
    """Support of new cells in the datasets of a model.

    Anchors are sought between the new cells and those of the model, at most 50,000 of these.

    Parameters
    ----------
    model
        A trained PairedVAE.
    known
        Its cells.
    datasets
        Names of its datasets.
    adata
        The new cells, of datasets that the model knows or not.

    Returns
    -------
    DataFrame of cells x datasets, NaN in the column of the cell's own dataset if it has one.
    """
    _, cells = read_query(model, adata, UNREAD_BY_ENCODER)
    key = model.registry["setup_args"]["batch_key"]
    labels = np.asarray(adata.obs[key])
    codes = pd.Index(datasets).get_indexer(labels)
    is_unseen = codes < 0
    if is_unseen.any() and {*map(str, labels)} <= {*map(str, datasets)}:
        check_seen(adata.obs[key], key, datasets)  # the same in another type
    codes[is_unseen] = len(datasets) + pd.factorize(labels[is_unseen], sort=True)[0]
    rows = np.sort(np.concatenate(sample(known.batch, np.ones(len(known), bool), MAX_CELLS, 0)))
    counts = sp.vstack([_counts(known, rows), _counts(cells, np.arange(len(cells)))], "csr")
    found = find_anchors(counts, np.concatenate([known.batch[rows], codes]))
    support = found.support[len(rows) :, : len(datasets)]
    return pd.DataFrame(support, index=adata.obs_names, columns=datasets)


def _counts(cells: Cells, rows: NDArray) -> sp.csr_matrix:
    counts = as_csr(cells.counts[rows])
    return counts if cells.genes is None else counts[:, cells.genes]


def with_new_datasets(reference: BaseModelClass, adata: AnnData) -> BaseModelClass:
    """Return a model of `adata` that knows the datasets of `reference` and those of `adata`.

    Parameters
    ----------
    reference
        A trained PairedVAE with a shared encoder.
    adata
        Cells of datasets that it has not seen.
    """
    check_trained(reference)
    setup = reference.registry["setup_args"]
    _check_addable(reference, adata, setup["batch_key"])
    labels = np.asarray(adata.obs[setup["batch_key"]])
    names = np.unique(labels[~np.isin(labels, reference._datasets)])
    cls = type(reference)
    cls.setup_anndata(adata, **setup, _registry=_extended_registry(reference.registry, names))
    known = reference.init_params_["non_kwargs"]
    n_added = known["n_query_datasets"] + len(names)
    model = cls(adata, **known | {"alignment": "none", "n_query_datasets": n_added})
    state = {k: v.cpu() for k, v in reference.module.state_dict().items()}
    model.module.load_state_dict(_extended_state(state, model.module, len(names)))
    model.is_trained_, model.history_ = True, reference.history_
    _fit_offsets(model, names)
    return model


def _check_addable(reference: BaseModelClass, adata: AnnData, key: str) -> None:
    """Refuse cells for which no decoder can be added."""
    if not reference.module.is_shared:
        raise ValueError(
            "This model has `encoder='per_dataset'`, and cells of other datasets have no place in "
            "it. Take a model with `encoder='shared'`, or train one on all cells."
        )
    genes = genes_of(reference.registry)
    check_genes(adata, genes)
    if not adata.var_names.equals(genes):
        raise ValueError(
            "`adata` has the genes of the model in another order, or others besides. Pass "
            "`adata[:, reference.adata.var_names].copy()`."
        )
    check_categorical(adata, key, "batch_key")
    if np.isin(np.asarray(adata.obs[key]), reference._datasets).all():
        raise ValueError(
            f"`adata.obs[{key!r}]` holds only datasets that the model knows, "
            f"{list(reference._datasets)}. Its cells need no model of their own: "
            "`reference.get_latent_representation(adata)`."
        )


def _extended_registry(registry: dict, names: NDArray) -> dict:
    """Return a registry that knows datasets `names` too, behind the others."""
    extended = copy.deepcopy(registry)
    state = extended["field_registries"][REGISTRY_KEYS.BATCH_KEY]["state_registry"]
    state["categorical_mapping"] = np.concatenate([state["categorical_mapping"], names])
    return extended


def _extended_state(
    state: dict[str, Tensor], module: PairedModule, n_new: int
) -> dict[str, Tensor]:
    """State of a module with `n_new` datasets more, which are as the mean of the known ones."""
    extended = {}
    for name, larger in module.state_dict().items():
        if name == "query_offset":
            known = state.get(name, larger[:0])
            extended[name] = torch.cat([known, torch.zeros_like(larger[:n_new])])
        elif state[name].shape == larger.shape:
            extended[name] = state[name].clone()
        else:
            extended[name] = _with_means(state[name], module, name, n_new)
    return extended


def _with_means(value: Tensor, module: PairedModule, name: str, n_new: int) -> Tensor:
    """Put means over the known datasets behind their rows, or behind their inputs of a layer."""
    dim = 1 if name.startswith("decoder.") else 0
    n_known = module.n_batch - n_new
    end = _end(module, name, value.shape[dim] + n_new) - n_new
    mean = value.narrow(dim, end - n_known, n_known).mean(dim, keepdim=True)
    rest = value.narrow(dim, end, value.shape[dim] - end)
    parts = [value.narrow(dim, 0, end), mean.repeat_interleave(n_new, dim), rest]
    return torch.cat(parts, dim)


def _end(module: PairedModule, name: str, n: int) -> int:
    """Where the datasets end among `n` rows of dispersions, or `n` inputs of a layer."""
    if name == "px_r":
        return n
    n_cats = module.decoder.px_decoder.n_cat_list  # one-hot inputs come last, datasets first
    return n - sum(n_cats) + n_cats[0]


def _fit_offsets(model: BaseModelClass, names: NDArray) -> None:
    """Give genes of datasets `names` the factors with which decoded totals are the observed."""
    cells = Cells.read(model.adata, model.registry, genes_of(model.registry))
    offset = model.module.query_offset[-len(names) :]
    first = model.module.n_batch - len(names)
    for _ in range(N_FITS):
        for row, name in enumerate(names):
            rows = np.flatnonzero(cells.batch == first + row)
            decoded = model.get_normalized_expression(indices=rows, transform_batch=name)
            observed = np.ravel(_counts(cells, rows).sum(axis=0))
            factor = (observed + HALF_COUNT) / (decoded.sum(axis=0).to_numpy() + HALF_COUNT)
            with torch.no_grad():
                offset[row] += torch.from_numpy(np.log(factor)).to(offset)


def freeze_all_but_new(module: PairedModule) -> None:
    """Let nothing learn but what belongs to the datasets that were added.

    Parameters
    ----------
    module
        A module with a shared decoder and such datasets.
    """
    for name, parameter in module.named_parameters():
        is_input = name.startswith("decoder.px_decoder.") and parameter.ndim == 2
        is_dispersion = name == "px_r" and len(parameter) > 1
        parameter.requires_grad_(is_input or is_dispersion or name == "query_offset")
        if is_input or is_dispersion:
            end = _end(module, name, parameter.shape[1 if is_input else 0])
            own = slice(end - module.n_query, end)
            mask = torch.zeros_like(parameter)
            mask[(slice(None), own) if is_input else own] = 1
            parameter.register_hook(partial(torch.mul, mask))


class Frozen(pl.Callback):
    """Leave running statistics and dropout alone while a part of a module is trained."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        """Compute as after training."""
        pl_module.module.eval()
