"""Minibatches of cells from memory, drawn dataset by dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from torch import Tensor

__all__ = ["Cells", "PairedData", "get_counts", "split_cells"]

MIN_DRAWN = 8


def get_counts(adata: AnnData, layer: str | None) -> NDArray | sp.spmatrix:
    """Return the counts in memory: dense, or sparse with fast access to rows."""
    counts = adata.X if layer is None else adata.layers[layer]
    if hasattr(counts, "to_memory"):
        counts = counts.to_memory()
    if sp.issparse(counts):
        return sp.csr_matrix(counts)
    return np.asarray(counts)


@dataclass(frozen=True)
class Cells:
    """Counts and covariates of cells, read by row.

    Attributes
    ----------
    counts
        Raw counts, dense or CSR, shape ``(n_cells, n_genes)``.
    columns
        Covariates under the host's registry keys, each of shape ``(n_cells, n_covariates)``.
    """

    counts: NDArray | sp.csr_matrix
    columns: dict[str, NDArray]

    @classmethod
    def read(cls, adata: AnnData, registry: dict, genes: pd.Index) -> Cells:
        """Read `adata` as a registry describes it, its genes matched by name."""
        setup = registry["setup_args"]
        state = {k: v["state_registry"] for k, v in registry["field_registries"].items()}
        batches = state[REGISTRY_KEYS.BATCH_KEY]["categorical_mapping"]
        batch_key = setup["batch_key"]
        columns = {REGISTRY_KEYS.BATCH_KEY: _codes(adata.obs, {batch_key: batches})}
        if state[REGISTRY_KEYS.CAT_COVS_KEY]:
            mappings = state[REGISTRY_KEYS.CAT_COVS_KEY]["mappings"]
            columns[REGISTRY_KEYS.CAT_COVS_KEY] = _codes(adata.obs, mappings)
        if state[REGISTRY_KEYS.CONT_COVS_KEY]:
            keys = setup["continuous_covariate_keys"]
            columns[REGISTRY_KEYS.CONT_COVS_KEY] = adata.obs[keys].to_numpy(np.float32)
        counts = get_counts(adata, setup["layer"])
        if not adata.var_names.equals(genes):
            counts = counts[:, adata.var_names.get_indexer(genes)]
        return cls(counts, columns)

    def __len__(self) -> int:
        return self.counts.shape[0]

    @property
    def batch(self) -> NDArray:
        """Dataset of each cell, shape ``(n_cells,)``."""
        return self.columns[REGISTRY_KEYS.BATCH_KEY].ravel()

    def __getitem__(self, rows: NDArray) -> dict[str, Tensor]:
        counts = self.counts[rows]
        dense = counts.toarray() if sp.issparse(counts) else counts
        tensors = {REGISTRY_KEYS.X_KEY: torch.from_numpy(dense.astype(np.float32))}
        return tensors | {k: torch.from_numpy(v[rows]) for k, v in self.columns.items()}


def _codes(obs: pd.DataFrame, mappings: dict[str, NDArray]) -> NDArray:
    codes = []
    for key, categories in mappings.items():
        codes.append(pd.Categorical(obs[key], categories=categories).codes)
        unknown = obs[key][codes[-1] < 0].unique().tolist()
        if unknown:
            raise ValueError(
                f"`adata.obs[{key!r}]` holds {unknown}, which the model has not seen (it knows "
                f"{list(categories)}). Leave these cells out, or train a model on all of them."
            )
    return np.stack(codes, axis=1).astype(np.int64)


def split_cells(
    batch: NDArray, train_size: float, validation_size: float | None, seed: int | None
) -> tuple[NDArray, NDArray]:
    """Split the cells of every dataset at random into training and validation.

    Parameters
    ----------
    batch
        Dataset of each cell, shape ``(n_cells,)``.
    train_size, validation_size
        Shares of the cells; `None` validates on all that are not trained on.
    seed
        Seed; `None` draws a new split.

    Returns
    -------
    Sorted rows of the training and of the validation cells. Three cells of a dataset are always
    trained on.
    """
    rng = np.random.default_rng(seed)
    train, validation = [], []
    for b in np.unique(batch):
        rows = rng.permutation(np.flatnonzero(batch == b))
        n_train = min(len(rows), max(3, round(train_size * len(rows))))
        rest = len(rows) - n_train
        share = 1.0 if validation_size is None else validation_size
        train.append(rows[:n_train])
        validation.append(rows[n_train : n_train + min(rest, round(share * len(rows)))])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(validation))


class _Draws:
    """Minibatches of one epoch: cells of every dataset in shuffled order, partners behind them."""

    def __init__(
        self,
        cells: Cells,
        rows: list[NDArray],
        sizes: NDArray,
        n_steps: int,
        partners: sp.csr_matrix | None,
    ) -> None:
        self.cells, self.rows, self.sizes = cells, rows, sizes
        self.n_steps, self.partners = n_steps, partners

    def __len__(self) -> int:
        return self.n_steps

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        orders = [
            _shuffled(rng, r, n * self.n_steps) for r, n in zip(self.rows, self.sizes, strict=True)
        ]
        for step in range(self.n_steps):
            drawn = np.concatenate(
                [o[step * n : (step + 1) * n] for o, n in zip(orders, self.sizes, strict=True)]
            )
            yield _with_partners(self.cells, drawn, self.partners, rng)


class _InOrder:
    """Minibatches of validation cells in their order, with partners drawn once."""

    def __init__(
        self, cells: Cells, rows: NDArray, batch_size: int, partners: sp.csr_matrix | None
    ) -> None:
        self.cells, self.partners = cells, partners
        self.chunks = np.array_split(rows, max(1, -(-len(rows) // batch_size)))

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng(0)
        for chunk in self.chunks:
            yield _with_partners(self.cells, chunk, self.partners, rng)


def _shuffled(rng: np.random.Generator, rows: NDArray, n: int) -> NDArray:
    """Return the first `n` of endlessly repeated shuffled `rows`."""
    return np.concatenate([rng.permutation(rows) for _ in range(-(-n // len(rows)))])[:n]


def _with_partners(
    cells: Cells, drawn: NDArray, partners: sp.csr_matrix | None, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Minibatch of `drawn` cells and one random partner of each that has any."""
    if partners is None:
        return cells[drawn]
    start, degree = partners.indptr[drawn], np.diff(partners.indptr)[drawn]
    anchored = np.flatnonzero(degree)
    pick = start[anchored] + (rng.random(len(anchored)) * degree[anchored]).astype(np.int64)
    tensors = cells[np.concatenate([drawn, partners.indices[pick]])]
    return tensors | {"anchored": torch.from_numpy(anchored)}


class PairedData(pl.LightningDataModule):
    """Training and validation minibatches of several datasets.

    Parameters
    ----------
    cells
        Cells to read from.
    train_idx, val_idx
        Rows of the training and of the validation cells.
    batch_size
        Cells in a minibatch, partners not counted.
    equal_draws
        Draw as many cells of each dataset in every minibatch, as many minibatches as one pass over
        the largest takes. Otherwise in proportion to the sizes, but at least 8 of each.
    partners
        Which cells are anchored to which, shape ``(n_cells, n_cells)``.
    """

    def __init__(
        self,
        cells: Cells,
        train_idx: NDArray,
        val_idx: NDArray,
        *,
        batch_size: int,
        equal_draws: bool,
        partners: sp.csr_matrix | None = None,
    ) -> None:
        super().__init__()
        self.cells, self.train_idx, self.val_idx = cells, train_idx, val_idx
        self.batch_size, self.partners = batch_size, partners
        self.n_train, self.n_val = len(train_idx), len(val_idx)
        batch = cells.batch[train_idx]
        self.rows = [train_idx[batch == b] for b in np.unique(batch)]
        n_cells = np.array([len(r) for r in self.rows])
        if equal_draws:
            share = np.full(len(n_cells), 1 / len(n_cells))
        else:
            share = n_cells / n_cells.sum()
        self.sizes = np.maximum(MIN_DRAWN, np.round(batch_size * share)).astype(int)
        longest = np.max(n_cells / self.sizes) if equal_draws else n_cells.sum() / batch_size
        self.n_steps = max(1, int(np.ceil(longest)))

    def train_dataloader(self) -> _Draws:
        """Return the shuffled minibatches of one epoch."""
        return _Draws(self.cells, self.rows, self.sizes, self.n_steps, self.partners)

    def val_dataloader(self) -> _InOrder | list:
        """Return the validation minibatches, none when there are no validation cells."""
        if self.n_val == 0:
            return []
        return _InOrder(self.cells, self.val_idx, self.batch_size, self.partners)
