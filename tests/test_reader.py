"""Which cells a minibatch holds, and that storage does not change it."""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from scipy import sparse, special, stats
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField

from scovert.core._counts import StoredRows, get_counts
from scovert.core._minibatch import genes_of
from scovert.core._registering import CountsField
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.dataloaders._shuffled import split_cells
from scovert.model import PairedVAE
from scovert.model.paired._data import PairedData

X, BATCH = REGISTRY_KEYS.X_KEY, REGISTRY_KEYS.BATCH_KEY
CATS, CONTS = REGISTRY_KEYS.CAT_COVS_KEY, REGISTRY_KEYS.CONT_COVS_KEY
SIZES = (200, 67, 11)
N_CELLS = sum(SIZES)

pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def cells() -> Cells:
    """Cells that say who they are: the only count is the number of the row."""
    batch = np.random.default_rng(0).permutation(np.repeat(range(3), SIZES))
    return Cells(np.arange(N_CELLS)[:, None], {BATCH: batch[:, None]})


@pytest.fixture
def partners(cells: Cells) -> sparse.csr_matrix:
    """Anchors of the first two datasets; some cells have several partners, others none."""
    rng = np.random.default_rng(1)
    graph = rng.random((N_CELLS, N_CELLS)) < 0.01
    graph[cells.batch == 2] = False
    graph[:, cells.batch == 2] = False
    graph[cells.batch[:, None] == cells.batch[None]] = False
    return sparse.csr_matrix(graph | graph.T, dtype=np.int8)


def data(cells: Cells, *, batch_size: int = 32, equal: bool = False, **options) -> PairedData:
    rows = np.arange(N_CELLS)
    chosen = {"train_idx": rows[rows % 10 > 0], "val_idx": rows[rows % 10 == 0], **options}
    return PairedData(cells, batch_size=batch_size, equal_draws=equal, **chosen)


def rows_of(tensors: dict[str, torch.Tensor]) -> np.ndarray:
    return tensors[X][:, 0].numpy().astype(int)


# The split


@pytest.mark.parametrize("train_size", [0.5, 0.9, 1.0])
def test_split_is_stratified_disjoint_and_complete(cells: Cells, train_size: float) -> None:
    train, validation = split_cells(cells.batch, train_size, None, 0)
    np.testing.assert_array_equal(np.sort([*train, *validation]), np.arange(N_CELLS))
    for b, size in enumerate(SIZES):
        assert (cells.batch[train] == b).sum() == round(train_size * size)
    assert (np.diff(train) > 0).all()


def test_validation_can_be_smaller_than_the_rest(cells: Cells) -> None:
    train, validation = split_cells(cells.batch, 0.6, 0.2, 0)
    assert not set(train) & set(validation)
    found = Counter(cells.batch[validation].tolist())
    assert found == {b: round(0.2 * size) for b, size in enumerate(SIZES)}


@pytest.mark.parametrize("size", [3, 4, 5, 20])
def test_three_cells_of_a_dataset_are_always_trained_on(size: int) -> None:
    batch = np.repeat([0, 1], [100, size])
    train, validation = split_cells(batch, 0.1, None, 0)
    assert (batch[train] == 1).sum() == 3
    assert (batch[validation] == 1).sum() == size - 3


def test_the_seed_decides_the_split(cells: Cells) -> None:
    first, same, other = (split_cells(cells.batch, 0.9, None, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    drawn = [split_cells(cells.batch, 0.9, None, None)[0] for _ in range(2)]
    assert not np.array_equal(*drawn)


# The draws


def test_draws_are_in_proportion_with_eight_at_least(cells: Cells) -> None:
    made = data(cells)
    n = np.bincount(cells.batch[made.train_idx])
    expected = np.maximum(8, np.round(32 * n / n.sum()))
    for tensors in made.train_dataloader():
        np.testing.assert_array_equal(np.bincount(tensors[BATCH].ravel()), expected)


def test_equal_draws_are_equal_and_pass_once_over_the_largest(cells: Cells) -> None:
    made = data(cells, equal=True, batch_size=36)
    batches = list(made.train_dataloader())
    for tensors in batches:
        assert np.bincount(tensors[BATCH].ravel()).tolist() == [12, 12, 12]
    largest = (cells.batch[made.train_idx] == 0).sum()
    assert len(made.train_dataloader()) == len(batches) == np.ceil(largest / 12)


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("batch_size", [3, 32, 128, 1000])
def test_an_epoch_covers_every_training_cell_and_no_other(
    cells: Cells, equal: bool, batch_size: int
) -> None:
    made = data(cells, equal=equal, batch_size=batch_size)
    drawn = np.concatenate([rows_of(t) for t in made.train_dataloader()])
    assert set(drawn) == set(made.train_idx)
    counts = np.bincount(drawn, minlength=N_CELLS)
    for rows in made.groups(made.train_idx, cells.batch)[0]:
        assert np.ptp(counts[rows]) <= 1, "some cells more than once more often than others"


def test_the_order_is_shuffled_and_the_seed_decides_it(cells: Cells) -> None:
    made = data(cells)
    torch.manual_seed(0)
    first, second = (np.concatenate([rows_of(t) for t in made.train_dataloader()]) for _ in "ab")
    torch.manual_seed(0)
    again = np.concatenate([rows_of(t) for t in made.train_dataloader()])
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    largest = first[cells.batch[first] == 0]
    assert abs(np.corrcoef(largest, np.arange(len(largest)))[0, 1]) < 0.2


def test_no_cell_comes_again_before_all_have_come(cells: Cells) -> None:
    made = data(cells)
    drawn = np.concatenate([rows_of(t) for t in made.train_dataloader()])
    for b, rows in enumerate(made.groups(made.train_idx, cells.batch)[0]):
        of_dataset = drawn[cells.batch[drawn] == b]
        for start in range(0, len(of_dataset), len(rows)):
            some = of_dataset[start : start + len(rows)]
            assert len(np.unique(some)) == len(some)


def test_validation_cells_come_in_order_and_once(cells: Cells) -> None:
    made = data(cells, batch_size=10)
    for _ in range(2):
        seen = np.concatenate([rows_of(t) for t in made.val_dataloader()])
        np.testing.assert_array_equal(seen, made.val_idx)
    assert max(len(t[X]) for t in made.val_dataloader()) <= 10
    assert len(list(made.val_dataloader())) == len(made.val_dataloader())


def test_without_validation_cells_there_are_no_minibatches(cells: Cells) -> None:
    assert len(data(cells, val_idx=np.array([], int)).val_dataloader()) == 0


def test_codes_that_are_not_trained_on_do_no_harm(cells: Cells) -> None:
    train = np.flatnonzero(cells.batch > 0)
    for tensors in data(cells, train_idx=train).train_dataloader():
        assert set(tensors[BATCH].ravel().tolist()) == {1, 2}


# Partners


@pytest.mark.parametrize("loader", ["train_dataloader", "val_dataloader"])
def test_partners_are_anchored_cells_behind_the_drawn_ones(
    cells: Cells, partners: sparse.csr_matrix, loader: str
) -> None:
    plain = [len(t[X]) for t in getattr(data(cells), loader)()]
    for n, tensors in zip(plain, getattr(data(cells, partners=partners), loader)(), strict=True):
        rows, anchored = rows_of(tensors), tensors["anchored"].numpy()
        drawn, behind = rows[:n], rows[n:]
        np.testing.assert_array_equal(anchored, np.flatnonzero(partners[drawn].sum(1)))
        assert len(behind) == len(anchored)
        assert (np.asarray(partners[drawn[anchored], behind]) == 1).all()
        np.testing.assert_array_equal(tensors[BATCH].ravel(), cells.batch[rows])


def test_every_partner_has_its_turn(cells: Cells, partners: sparse.csr_matrix) -> None:
    made, seen = data(cells, partners=partners), Counter()
    for _ in range(60):
        for tensors in made.train_dataloader():
            rows, anchored = rows_of(tensors), tensors["anchored"].numpy()
            drawn, behind = rows[: len(rows) - len(anchored)], rows[len(rows) - len(anchored) :]
            seen.update(zip(drawn[anchored].tolist(), behind.tolist(), strict=True))
    i = max(made.train_idx, key=lambda row: partners[row].nnz)
    shares = np.array([seen[i, j] for j in partners[i].indices])
    assert len(shares) > 3
    assert stats.chisquare(shares).pvalue > 0.01


def test_partners_of_validation_cells_stay_the_same(
    cells: Cells, partners: sparse.csr_matrix
) -> None:
    loader = data(cells, partners=partners).val_dataloader()
    for first, second in zip(loader, loader, strict=True):
        assert torch.equal(first[X], second[X])


def test_no_partner_at_all(cells: Cells) -> None:
    none = sparse.csr_matrix((N_CELLS, N_CELLS), dtype=np.int8)
    for tensors in data(cells, partners=none).train_dataloader():
        assert len(tensors["anchored"]) == 0


# Storage


FORMS: dict[str, Callable[[np.ndarray], object]] = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr array": sparse.csr_array,
    "dense": np.asarray,
    "int": lambda x: x.astype(np.int64),
    "small int": lambda x: x.astype(np.uint16),
    "double": lambda x: x.astype(np.float64),
    "sparse int": lambda x: sparse.csr_matrix(x.astype(np.int32)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backed", [False, True])
def test_storage_does_not_change_a_minibatch(
    toy: AnnData, tmp_path: Path, form: str, backed: bool
) -> None:
    expected = toy.X.toarray()
    toy.X = FORMS[form](expected)
    if backed:
        toy.write_h5ad(tmp_path / "toy.h5ad")
        toy = ad.read_h5ad(tmp_path / "toy.h5ad", backed="r")
    PairedVAE.setup_anndata(toy, "batch", None, ["donor", "lane"], ["cycle"])
    registry = PairedVAE(toy, alignment="none").registry
    found = Cells.read(toy, registry, genes_of(registry))
    rows = np.array([5, 3, 60, 3])
    assert found.is_in_memory == (not backed or form == "csc")  # rows cannot be read from CSC
    tensors = CellTensors(found.block(0, len(found)))[rows]
    np.testing.assert_array_equal(tensors[X], expected[rows])
    assert tensors[X].dtype == torch.float32
    np.testing.assert_array_equal(
        tensors[BATCH].ravel(), toy.obs["batch"].cat.codes.to_numpy()[rows]
    )
    for i, key in enumerate(["donor", "lane"]):
        codes = toy.obs[key].astype("category").cat.codes.to_numpy()
        np.testing.assert_array_equal(tensors[CATS][:, i], codes[rows])
    np.testing.assert_allclose(tensors[CONTS].ravel(), toy.obs["cycle"].to_numpy()[rows])


@pytest.mark.parametrize("form", ["csr", "dense", "sparse int"])
@pytest.mark.parametrize("resident", [False, True])
def test_a_step_of_training_gets_the_counts_of_drawn_cells(
    toy: AnnData, form: str, resident: bool
) -> None:
    expected = toy.X.toarray()
    toy.X = FORMS[form](expected)
    PairedVAE.setup_anndata(toy, "batch")
    registry = PairedVAE(toy, alignment="none").registry
    cells = Cells.read(toy, registry, genes_of(registry))
    rows = np.array([60, 5, 3, 5])
    tensors = CellTensors(cells, "cpu", resident=resident).minibatch(rows, 3)
    np.testing.assert_array_equal(tensors[X], expected[rows])
    np.testing.assert_array_equal(tensors["cells"].ravel(), rows)
    counts = tensors["counts"]
    np.testing.assert_array_equal(counts.dense(3, 11), expected[rows[:3]])
    expected = special.gammaln(counts.value.numpy() + 1)
    np.testing.assert_allclose(counts.log_factorial, expected, rtol=1e-6)


def test_large_counts_need_no_table() -> None:
    counts = sparse.csr_matrix(np.array([[0.0, 3e6], [2.0, 1.0]], np.float32))
    cells = Cells(counts, {BATCH: np.zeros((2, 1), int)})
    drawn = CellTensors(cells).minibatch(np.arange(2), 2)["counts"]
    np.testing.assert_allclose(drawn.log_factorial, special.gammaln([3e6 + 1, 3, 2]), rtol=1e-6)


def test_unsorted_and_repeated_entries_are_added(toy: AnnData) -> None:
    expected = toy.X.toarray()
    row, col = expected.nonzero()
    order = np.random.default_rng(0).permutation(len(row))
    ones = np.concatenate([expected[row, col] - 1, np.ones(len(row))])
    twice = (np.tile(row, 2), np.tile(col, 2))
    messy = sparse.coo_matrix((ones, twice), expected.shape)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(messy.row, minlength=67))])
    by_row = np.argsort(messy.row[np.r_[order, order + len(row)]], kind="stable")
    picked = np.r_[order, order + len(row)][by_row]
    toy.X = sparse.csr_matrix((messy.data[picked], messy.col[picked], indptr), expected.shape)
    before = toy.X.copy()
    PairedVAE.setup_anndata(toy, "batch")
    registry = PairedVAE(toy, alignment="none").registry
    found = CellTensors(Cells.read(toy, registry, genes_of(registry)))[np.arange(67)]
    np.testing.assert_array_equal(found[X], expected)
    assert toy.X.nnz == before.nnz, "the user's matrix was changed"
    np.testing.assert_array_equal(toy.X.indices, before.indices)


def test_rows_of_a_file_are_those_of_memory(toy: AnnData, tmp_path: Path) -> None:
    toy.X = sparse.csr_matrix(toy.X)
    toy.X[3] = 0
    toy.write_h5ad(tmp_path / "toy.h5ad")
    stored = get_counts(ad.read_h5ad(tmp_path / "toy.h5ad", backed="r"), None)
    assert isinstance(stored, StoredRows)
    expected = toy.X.toarray()
    for rows in (slice(0, 67), slice(3, 4), slice(60, 99), np.array([0, 3, 40, 66])):
        np.testing.assert_array_equal(stored[rows].toarray(), expected[rows])


def test_genes_of_a_file_are_matched_by_name(toy: AnnData, tmp_path: Path) -> None:
    PairedVAE.setup_anndata(toy, "batch")
    model = PairedVAE(toy, n_latent=3, n_hidden=7, alignment="none")
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    toy[:, ::-1].copy().write_h5ad(tmp_path / "toy.h5ad")
    of_file = ad.read_h5ad(tmp_path / "toy.h5ad", backed="r")
    found = model.get_latent_representation(of_file, indices=[5, 60, 2])
    expected = model.get_latent_representation(indices=[5, 60, 2])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_zarr_store_is_read_as_memory_is(toy: AnnData, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the version of the format
        toy.write_zarr(tmp_path / "toy.zarr")
    stored = ad.io.sparse_dataset(zarr.open(tmp_path / "toy.zarr", mode="r")["X"])
    lazy = AnnData(X=stored, obs=toy.obs.copy(), var=toy.var.copy())
    latents = []
    for adata in (toy, lazy):
        scvi.settings.seed = 0
        PairedVAE.setup_anndata(adata, "batch")
        model = PairedVAE(adata, n_latent=3, n_hidden=7)
        model.train(2, accelerator="cpu", batch_size=16, enable_progress_bar=False)
        latents.append(model.get_latent_representation(toy.copy()))
        np.testing.assert_allclose(model.get_latent_representation(), latents[-1], atol=1e-5)
    assert np.isfinite(latents[1]).all()


def test_a_layer_is_read_instead_of_x(toy: AnnData) -> None:
    toy.layers["twice"] = toy.X * 2
    PairedVAE.setup_anndata(toy, "batch", layer="twice")
    registry = PairedVAE(toy, alignment="none").registry
    found = Cells.read(toy, registry, genes_of(registry))
    np.testing.assert_array_equal(CellTensors(found)[np.arange(67)][X], 2 * toy.X.toarray())


def test_genes_are_matched_by_name(toy: AnnData) -> None:
    PairedVAE.setup_anndata(toy, "batch")
    registry = PairedVAE(toy, alignment="none").registry
    other = toy[:, ::-1].copy()
    found = Cells.read(other, registry, toy.var_names)
    np.testing.assert_array_equal(CellTensors(found)[np.arange(67)][X], toy.X.toarray())


def test_cells_cannot_be_exchanged_in_place(cells: Cells) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        cells.counts = None


def test_cells_are_read_without_datasets(make_toy: Callable) -> None:
    """The registry says which columns there are: here the donor alone."""
    toy = make_toy()
    fields = [CountsField(toy, None, ["donor"]), CategoricalObsField("donor", "donor")]
    manager = AnnDataManager(fields, {"setup_args": {"layer": None}})
    manager.register_fields(toy)
    cells = Cells.read(toy[:, ::-1].copy(), manager.registry, genes_of(manager.registry))
    assert cells.columns.keys() == {"donor", "cells"}
    assert len(cells) == toy.n_obs
    batch = CellTensors(cells)[np.array([5, 3])]
    np.testing.assert_array_equal(batch[X].numpy(), toy.X[[5, 3]].toarray())
    donors = toy.obs["donor"].cat.codes.to_numpy()
    np.testing.assert_array_equal(batch["donor"].numpy().ravel(), donors[[5, 3]])
