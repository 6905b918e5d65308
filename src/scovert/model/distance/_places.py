"""Positions of the samples that a method is asked about, and which of them were fitted."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass
from torch import Tensor

from scovert.core._checks import check_layer
from scovert.core._counts import as_csr, get_counts
from scovert.core._minibatch import check_trained, genes_of, over_minibatches
from scovert.model.distance._checks import check_taxa, warn_about_empty
from scovert.model.distance._held_out import squared_between, traits_of

__all__ = [
    "Places",
    "fill_taxa",
    "find_places",
    "places_of",
    "same_samples",
    "uniqueness_of",
]

MAX_WEIGHT = 2**16
"""Weights of taxa in the mark of a sample are whole numbers below it: the sums are exact."""
N_MARKS = 2
"""Sums in a mark: two different samples agree in both with a probability of about 2^-32."""


class Places(NamedTuple):
    """Where samples are.

    Attributes
    ----------
    z, u
        Positions ``(n_samples, n_latent)`` and uniqueness ``(n_samples,)``, in the unit of the
        distances and of their squares.
    novelty, totals
        Share of the features that the components do not show, and total counts.
    marks
        What tells samples with other counts apart, shape ``(n_samples, 2)``.
    names
        Names of the samples.
    """

    z: NDArray
    u: NDArray
    novelty: NDArray
    totals: NDArray
    marks: NDArray
    names: pd.Index

    def is_among(self, marks: NDArray) -> NDArray:
        """Return whether each sample has the counts of one of others, by their marks."""
        known = set(map(tuple, marks.tolist()))
        return np.array([tuple(mark) in known for mark in self.marks.tolist()], dtype=bool)

    def traits(self, fitted: NDArray) -> NDArray:
        """Return what tells how wrong distances are; `fitted` has positions and uniqueness."""
        squared = squared_between((self.z, self.u), (fitted[:, :-1], fitted[:, -1]))
        return traits_of(self.u, self.totals, self.novelty, squared)


def places_of(
    model: BaseModelClass,
    adata: AnnData | None = None,
    indices: ArrayLike | None = None,
    *,
    fill_missing: bool = False,
    batch_size: int | None = None,
) -> Places:
    """Place samples that a method is asked about, once their taxa were checked."""
    check_trained(model)
    if adata is not None:
        adata = fill_taxa(model, adata) if fill_missing else adata
        check_taxa(adata, genes_of(model.registry))
    places = find_places(model, adata, indices, batch_size)
    if adata is not None:
        warn_about_empty(places.totals)
    return places


def uniqueness_of(model: BaseModelClass, places: Places) -> NDArray:
    """Return the uniqueness of samples, with what is added to that of samples not fitted."""
    return places.u + np.where(places.is_among(model.marks_), 0.0, model.excess_)


def find_places(
    model: BaseModelClass,
    adata: AnnData | None = None,
    indices: ArrayLike | None = None,
    batch_size: int | None = None,
) -> Places:
    """Place samples, in the order of `indices`."""
    n_taxa = len(genes_of(model.registry))
    weights = np.random.default_rng(0).integers(1, MAX_WEIGHT, (n_taxa, N_MARKS))
    compute = partial(_place, model, torch.from_numpy(weights).double().to(model.device))
    found, names = over_minibatches(model, compute, adata, indices, batch_size)
    z, (u, novelty, totals) = found[:, :-5], found[:, -5:-2].T
    return Places(z, u, novelty, totals, found[:, -2:], names)


def _place(model: BaseModelClass, weights: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Return positions, uniqueness, novelty, totals and marks side by side."""
    x = tensors[REGISTRY_KEYS.X_KEY]
    z, u, novelty = model.module.place(x)
    beside = torch.stack([u, novelty, x.sum(1)], dim=1)
    return torch.cat([z.double(), beside.double(), x.double() @ weights], dim=1)


def same_samples(a: Places, b: Places) -> NDArray:
    """Return which pairs agree in name and counts, shape ``(n_a, n_b)``."""
    same = a.names.to_numpy()[:, None] == b.names.to_numpy()
    return same & (a.marks[:, None] == b.marks).all(2)


def fill_taxa(model: BaseModelClass, adata: AnnData) -> AnnData:
    """Return samples with the taxa of the model, where those that they lack have no counts.

    Raises
    ------
    ValueError
        If none of the taxa is there.
    """
    taxa, layer = genes_of(model.registry), model.registry["setup_args"]["layer"]
    where = check_layer(adata, layer)
    at = adata.var_names.get_indexer(taxa)
    if (at < 0).all():
        raise ValueError(
            f"`adata` has none of the {len(taxa)} taxa of the model, such as {taxa[0]!r} (it has "
            f"{adata.var_names[0]!r}). Name its taxa as those of the model: {where} would be read "
            "as samples without counts."
        )
    counts = as_csr(get_counts(adata, layer))
    empty = sp.csr_matrix((counts.shape[0], 1), dtype=counts.dtype)
    filled = sp.hstack([counts, empty], format="csr")[:, at]  # -1 is the last column
    layers = {} if layer is None else {layer: filled}
    return AnnData(filled, obs=adata.obs[[]], var=pd.DataFrame(index=taxa), layers=layers)
