"""Sums over cells of what was counted and what is imputed, gene by gene."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass
from torch import Tensor

from scovert.core._losses import negative_binomial_deviance
from scovert.core._minibatch import over_minibatches
from scovert.core.dataloaders._cells import CELLS_KEY

__all__ = ["Moments", "moments_by_dataset", "totals_by_group"]

Terms = Callable[[dict[str, Tensor], Tensor], tuple[Tensor, ...]]
"""From a minibatch and what is imputed for it to what is added up, each cells x genes."""
PER = 1e4
"""Counts that a cell is scaled to before a logarithm is taken, as usual."""


class Moments(NamedTuple):
    """Sums over the cells of each dataset, each of shape ``(n_datasets, n_genes)``, float64.

    Attributes
    ----------
    true, imputed
        Counts, and what is imputed for them.
    deviance, null_deviance
        Of the counts from the model, and from the mean share of the gene.
    correlation
        Pearson's, over cells, of the logarithms of counts scaled to a library of 10,000.
    """

    true: NDArray
    imputed: NDArray
    deviance: NDArray
    null_deviance: NDArray
    correlation: NDArray


def totals_by_group(
    model: BaseModelClass, group: NDArray, n_groups: int
) -> tuple[NDArray, NDArray]:
    """Add up counts, and what is imputed, over groups of the cells of a model.

    Parameters
    ----------
    model
        A trained model.
    group
        Number of the group of each cell, shape ``(n_cells,)``.
    n_groups
        Number of groups.

    Returns
    -------
    Two arrays of shape ``(n_groups, n_genes)``.
    """

    def both(tensors: dict[str, Tensor], imputed: Tensor) -> tuple[Tensor, Tensor]:
        return tensors[REGISTRY_KEYS.X_KEY], imputed

    true, imputed = _sums(model, group, n_groups, both)
    return true, imputed


def moments_by_dataset(model: BaseModelClass, batch: NDArray) -> Moments:
    """Compare counts with what is imputed, over the cells of each dataset of a model.

    Parameters
    ----------
    model
        A model with its final weights.
    batch
        Dataset of each cell, shape ``(n_cells,)``.
    """
    module = model.module
    theta = module.px_r.detach().exp()

    def terms(tensors: dict[str, Tensor], imputed: Tensor) -> tuple[Tensor, ...]:
        x, learnt = tensors[REGISTRY_KEYS.X_KEY], _learnt(module, tensors)
        library = (x * learnt).sum(-1, keepdim=True)
        null = library * module.log_mean.exp() / (learnt @ module.log_mean.exp())[:, None]
        scale = PER / library.clamp(min=1.0)
        a, b = torch.log1p(x * scale), torch.log1p(imputed * scale)
        deviances = (negative_binomial_deviance(mean, theta, x) for mean in (imputed, null))
        return x, imputed, *deviances, torch.ones_like(x), a, b, a * a, b * b, a * b

    sums = _sums(model, batch, len(module.learnt), terms)
    *totals_and_deviances, n, a, b, aa, bb, ab = sums
    spread = np.sqrt(np.maximum((n * aa - a**2) * (n * bb - b**2), 0))
    with np.errstate(divide="ignore", invalid="ignore"):  # of a gene that is constant: none
        correlation = np.where(spread > 0, (n * ab - a * b) / spread, np.nan)
    return Moments(*totals_and_deviances, correlation)


def _learnt(module: torch.nn.Module, tensors: dict[str, Tensor]) -> Tensor:
    return module.learnt[tensors[REGISTRY_KEYS.BATCH_KEY].squeeze(-1)].float()


def _sums(model: BaseModelClass, group: NDArray, n_groups: int, terms: Terms) -> NDArray:
    """Add up terms of cells and genes, shape ``(n_terms, n_groups, n_genes)``."""
    n_genes = len(model.module.log_mean)
    codes = torch.from_numpy(group.astype(np.int64)).to(model.device)
    genes = torch.arange(n_genes, device=model.device)
    sums: list[Tensor] = []

    def add(tensors: dict[str, Tensor]) -> Tensor:
        own = codes[tensors[CELLS_KEY].squeeze(-1)]
        values = terms(tensors, model.module.imputed(tensors, genes))
        if not sums:
            sums.extend(torch.zeros(n_groups, n_genes, dtype=torch.float64) for _ in values)
        for total, value in zip(sums, values, strict=True):
            total.index_add_(0, own.cpu(), value.double().cpu())
        return own[:, None][:, :0]

    over_minibatches(model, add)
    return torch.stack(sums).numpy()
