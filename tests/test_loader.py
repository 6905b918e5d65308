"""The plain loader: every cell once, columns beside the counts, never a whole file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from _autoencoder import CountAutoencoder
from _input import SHORT
from scovert.core import _counts
from scovert.core._counts import as_csr, get_counts, in_parts, row_slices
from scovert.core._minibatch import over_minibatches
from scovert.core.dataloaders import _cells, _windows
from scovert.core.dataloaders._cells import Cells
from scovert.core.dataloaders._shuffled import ShuffledData, split_rows
from scovert.model import PairedVAE

N_CELLS = 211

pytestmark = pytest.mark.usefixtures("seed")


class Lazy:
    """As a dask array: computed when it is asked to be, which is refused for all rows at once."""

    def __init__(self, values: np.ndarray, most: int) -> None:
        self.values, self.most = values, most
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, rows: slice | np.ndarray) -> Lazy:
        return Lazy(self.values[rows], self.most)

    def compute(self) -> np.ndarray:
        if len(self.values) > self.most:
            raise MemoryError("computed whole")
        return self.values


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file have several windows, of several blocks each."""
    for module in (_cells, _windows):
        monkeypatch.setattr(module, "WINDOW", 64)
    monkeypatch.setattr(_windows, "BLOCK", 8)
    monkeypatch.setattr(_counts, "BLOCK", 64)


def stored(values: np.ndarray, form: str, monkeypatch: pytest.MonkeyPatch) -> object:
    """Counts in memory, sparse or dense, or computed lazily."""
    if form != "lazy":
        return get_counts(AnnData(sparse.csr_matrix(values) if form == "sparse" else values), None)
    monkeypatch.setattr(_counts, "DaskArray", Lazy)
    return get_counts(SimpleNamespace(X=Lazy(values, most=64), layers={}), None)


@pytest.fixture(params=["dense", "sparse", "lazy"])
def cells(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Cells:
    """Cells whose first count is one more than the row; no datasets."""
    request.getfixturevalue("small_windows")
    values = np.zeros((N_CELLS, 3), np.float32)
    values[:, 0] = np.arange(N_CELLS) + 1
    counts = stored(values, request.param, monkeypatch)
    return Cells(counts, {"cells": np.arange(N_CELLS)[:, None]})


def rows_of(minibatches: object) -> list[np.ndarray]:
    return [batch["X"][:, 0].numpy().astype(int) - 1 for batch in minibatches]


@pytest.mark.parametrize("batch_size", [1, 16, 100, 1000])
def test_an_epoch_holds_every_training_cell_once(cells: Cells, batch_size: int) -> None:
    train, validation = split_rows(N_CELLS, 0.1, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort([*train, *validation]), np.arange(N_CELLS))
    data = ShuffledData(cells, train, validation, batch_size=batch_size)
    loader = data.train_dataloader()
    seen = rows_of(loader)
    assert len(seen) == len(loader) == data.n_steps == -(-len(train) // batch_size)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(train))
    if cells.is_in_memory:
        assert np.ptp([len(rows) for rows in seen]) <= 1
    again = np.concatenate(rows_of(loader))
    assert not np.array_equal(np.concatenate(seen), again)
    held_out = np.concatenate(rows_of(data.val_dataloader()))
    expected = validation if cells.is_in_memory else np.sort(validation)
    np.testing.assert_array_equal(np.sort(held_out), np.sort(expected))
    if cells.is_in_memory:
        np.testing.assert_array_equal(held_out, validation)


def test_the_order_is_that_of_the_generator_and_goes_on(cells: Cells) -> None:
    def data() -> ShuffledData:
        rows = np.arange(N_CELLS)
        rng = np.random.default_rng(5)
        return ShuffledData(cells, rows, rows[:0], batch_size=50, rng=rng)

    first, other = data(), data()
    one, two = (np.concatenate(rows_of(first.train_dataloader())) for _ in range(2))
    state = data().state_dict()
    other.load_state_dict(state)
    np.testing.assert_array_equal(np.concatenate(rows_of(other.train_dataloader())), one)
    np.testing.assert_array_equal(np.concatenate(rows_of(other.train_dataloader())), two)
    assert other.val_dataloader() == []


def test_columns_of_any_shape_go_with_their_cells(cells: Cells) -> None:
    neighbours = np.random.default_rng(0).integers(0, N_CELLS, (N_CELLS, 5))
    place = np.random.default_rng(1).normal(size=(N_CELLS, 2, 3)).astype(np.float32)
    cells = cells.with_columns(neighbours=neighbours, place=place)
    data = ShuffledData(cells, np.arange(N_CELLS), np.arange(7), batch_size=32)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        for batch in loader:
            (rows,) = rows_of([batch])
            np.testing.assert_array_equal(batch["cells"].ravel(), rows)
            np.testing.assert_array_equal(batch["neighbours"], neighbours[rows])
            np.testing.assert_array_equal(batch["place"], place[rows])
            assert batch["neighbours"].dtype == torch.int64
    with pytest.raises(ValueError, match="`depth` has 3 rows for 211 cells"):
        cells.with_columns(depth=np.ones(3))


def test_getters_read_columns_that_were_not_set_up(toy: AnnData) -> None:
    CountAutoencoder.setup_anndata(toy)
    model = CountAutoencoder(toy)
    model.train(**SHORT)
    cells = toy[::2].copy()
    found, names = over_minibatches(
        model,
        lambda tensors: tensors["place"] * 2,
        cells,
        [3, 1],
        columns=lambda adata: {"place": adata.obsm["X_user"].astype(np.float32)},
    )
    np.testing.assert_allclose(found, 2 * toy.obsm["X_user"][[6, 2]], rtol=1e-6)
    assert names.tolist() == toy.obs_names[[6, 2]].tolist()


def test_any_counts_become_csr(cells: Cells) -> None:
    found = as_csr(cells.counts)
    assert sparse.isspmatrix_csr(found)
    np.testing.assert_array_equal(found.toarray()[:, 0], np.arange(N_CELLS) + 1)
    values = np.diag(np.arange(1, 4)).astype(np.float16)  # of a type that scipy lacks
    np.testing.assert_array_equal(as_csr(values).toarray(), values)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9])
def test_slices_and_parts_hold_every_row_once(n: int) -> None:
    rows = np.arange(n)
    slices = [rows[some] for some in row_slices(n, 4)]
    np.testing.assert_array_equal(np.concatenate([rows[:0], *slices]), rows)
    assert [len(some) for some in slices[:-1]] == [4] * (len(slices) - 1)
    parts = in_parts(rows, 4)
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert np.ptp([len(some) for some in parts]) <= 1
    assert max(len(some) for some in parts) <= 4


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("make", [PairedVAE, CountAutoencoder])
def test_counts_that_anndata_opens_lazily_are_never_computed_whole(
    toy: AnnData,
    tmp_path: Path,
    make: Callable,
    monkeypatch: pytest.MonkeyPatch,
    small_windows: None,
) -> None:
    dask = pytest.importorskip("dask.array")
    from anndata.experimental import read_lazy

    compute = dask.Array.compute

    def refuse_all(self: object, **options: object) -> object:
        if self.shape[0] > 64:
            raise MemoryError("computed whole")
        return compute(self, **options)

    toy.write_h5ad(tmp_path / "toy.h5ad")
    lazy = read_lazy(tmp_path / "toy.h5ad")
    setup = {"batch_key": "batch"} if make is PairedVAE else {}
    init = {"alignment": "none"} if make is PairedVAE else {}
    with pytest.raises(TypeError, match=r"`adata.obs` is .*obs.to_memory"):
        make.setup_anndata(lazy, **setup)
    lazy = AnnData(lazy.X, obs=ad.read_h5ad(tmp_path / "toy.h5ad").obs, var=toy.var.copy())
    monkeypatch.setattr(dask.Array, "compute", refuse_all)
    with pytest.raises(MemoryError, match="whole"):
        lazy.X.compute()
    make.setup_anndata(lazy, **setup)
    model = make(lazy, **init)
    model.train(**SHORT)
    found = model.get_latent_representation()
    expected = model.get_latent_representation(toy.copy())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    model.annotate(write_layer=False)
