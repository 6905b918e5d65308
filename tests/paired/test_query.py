"""Cells of datasets that the model has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData

from scovert import data, simulate
from scovert.model import PairedVAE

MISSING = "Dendritic"
KNOWN = ("batch_0", "batch_1")


@pytest.fixture(scope="module")
def model() -> PairedVAE:
    """Trained on two datasets without dendritic cells; the positions need not be good."""
    cells = data.pbmc68k()
    adata = data.two_batches(cells[cells.obs["cell_type"] != MISSING].copy())
    scvi.settings.seed = 0
    PairedVAE.setup_anndata(adata, batch_key="batch")
    model = PairedVAE(adata)
    model.train(1, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture
def third() -> AnnData:
    """A third dataset, with all types and a capture effect of its own, its genes in disorder."""
    adata = data.two_batches(data.pbmc68k(), seed=5)
    adata = adata[adata.obs["batch"] == "b", adata.var_names[::-1]].copy()
    adata.obs["batch"] = "third"
    return adata


def test_positions_and_counts_do_not_depend_on_the_dataset(
    model: PairedVAE, third: AnnData
) -> None:
    known, none = third.copy(), third.copy()
    known.obs["batch"] = "a"
    del none.obs["batch"]
    for method in (model.get_latent_representation, model.get_normalized_expression):
        expected = np.asarray(method(known))
        np.testing.assert_array_equal(np.asarray(method(third)), expected)
        np.testing.assert_array_equal(np.asarray(method(none)), expected)


def test_support_of_a_type_that_the_model_lacks(model: PairedVAE, third: AnnData) -> None:
    support = model.get_support(third)
    assert support.index.equals(third.obs_names)
    assert support.columns.tolist() == ["a", "b"]
    lacks = (third.obs["cell_type"] == MISSING).to_numpy()
    assert lacks.sum() > 100
    assert support[lacks].to_numpy().mean() < 0.3
    assert support[~lacks].to_numpy().mean() > 0.8


def test_cells_of_a_known_dataset_have_no_support_in_it(model: PairedVAE, third: AnnData) -> None:
    third.obs["batch"] = np.where(np.arange(third.n_obs) % 2, "a", "third")
    support = model.get_support(third)
    is_known = (third.obs["batch"] == "a").to_numpy()
    assert support.loc[is_known, "a"].isna().all()
    assert support.loc[~is_known, "a"].notna().all()
    assert support["b"].notna().all()


def test_they_are_annotated(model: PairedVAE, third: AnnData) -> None:
    none = third.copy()
    del none.obs["batch"]
    model.annotate(third, write_layer=False)
    expected = model.get_support(third).max(axis=1)
    np.testing.assert_array_equal(third.obs["paired_support"], expected)
    model.annotate(none, write_layer=False)
    assert "paired_support" not in none.obs
    np.testing.assert_array_equal(none.obsm["X_paired"], third.obsm["X_paired"])


def test_datasets_named_by_another_type_are_refused(third: AnnData, model: PairedVAE) -> None:
    numbered = model.adata.copy()
    numbered.obs["batch"] = (numbered.obs["batch"] == "b").astype(int)
    PairedVAE.setup_anndata(numbered, batch_key="batch")
    by_number = PairedVAE(numbered)
    by_number.train(1, accelerator="cpu", enable_progress_bar=False)
    third.obs["batch"] = "1"
    with pytest.raises(ValueError, match="convert the column"):
        by_number.get_support(third)


def test_translation_decodes_the_source_as_the_target(model: PairedVAE) -> None:
    found = model.translate(source="a", target="b", gene_list=model.adata.var_names[:5])
    is_source = (model.adata.obs["batch"] == "a").to_numpy()
    expected = model.get_normalized_expression(
        indices=is_source, transform_batch="b", gene_list=model.adata.var_names[:5]
    )
    pd.testing.assert_frame_equal(found, expected)
    assert len(model.translate(target="b", gene_list=["LYZ"])) == model.adata.n_obs


# A decoder for them


@pytest.fixture(scope="module")
def trained() -> tuple[PairedVAE, AnnData, np.ndarray]:
    """A model of two datasets, and a third that captures each gene in its own way."""
    adata = simulate.paired((300, 200, 150), batch_sd=0.6, seed=0)
    is_third = (adata.obs["batch"] == "batch_2").to_numpy()
    known, third = adata[~is_third].copy(), adata[is_third].copy()
    scvi.settings.seed = 0
    PairedVAE.setup_anndata(known, batch_key="batch")
    model = PairedVAE(known, dispersion="gene-batch")
    model.train(60, accelerator="cpu", enable_progress_bar=False)
    shifts = adata.uns["truth"]["shifts"]
    return model, third, shifts


def shift_of(model: PairedVAE, name: str) -> pd.Series:
    """Log ratio of the cells decoded as a dataset to those decoded as the first."""
    return np.log(
        model.get_normalized_expression(transform_batch=name).mean()
        / model.get_normalized_expression(transform_batch="batch_0").mean()
    )


def test_a_decoder_is_added_and_nothing_else_moves(trained: tuple, tmp_path: Path) -> None:
    reference, third, shifts = trained
    before = {k: v.clone() for k, v in reference.module.state_dict().items()}
    positions = [reference.get_latent_representation(a) for a in (None, third)]
    decoded = [reference.get_normalized_expression(third, transform_batch=b) for b in KNOWN]
    model = PairedVAE.load_query_data(third, reference)
    at_once = shift_of(model, "batch_2")
    model.train(20, accelerator="cpu", enable_progress_bar=False)
    truth = shifts[2] - shifts[0]
    for found in (at_once, shift_of(model, "batch_2")):
        assert np.corrcoef(found, truth)[0, 1] > 0.9
        assert 0.8 < np.polyfit(truth, found, 1)[0] < 1.2
    model.save(tmp_path / "model", save_anndata=True)
    for later in (model, PairedVAE.load(tmp_path / "model")):
        np.testing.assert_array_equal(
            later.get_latent_representation(reference.adata), positions[0]
        )
        np.testing.assert_array_equal(later.get_latent_representation(), positions[1])
        for name, expected in zip(KNOWN, decoded, strict=True):
            found = later.get_normalized_expression(transform_batch=name)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in reference.module.state_dict().items())


def test_the_decoded_totals_are_the_observed_ones(trained: tuple) -> None:
    reference, third, _ = trained
    model = PairedVAE.load_query_data(third, reference)
    decoded = model.get_normalized_expression(transform_batch="batch_2").sum()
    np.testing.assert_allclose(decoded, third.X.sum(0).A1, rtol=0.01)
    average = reference.get_normalized_expression(third).sum()
    assert np.abs(np.log(average / third.X.sum(0).A1)).max() > 0.3


def test_another_dataset_can_be_added_to_those(trained: tuple) -> None:
    reference, third, _ = trained
    first = PairedVAE.load_query_data(third, reference)
    fourth = third.copy()
    fourth.obs["batch"] = "again"
    both = PairedVAE.load_query_data(fourth, first)
    np.testing.assert_allclose(shift_of(both, "again"), shift_of(both, "batch_2"), atol=0.02)
    np.testing.assert_allclose(shift_of(both, "batch_2"), shift_of(first, "batch_2"), atol=1e-5)


def test_query_data_that_cannot_be_added(trained: tuple) -> None:
    reference, third, _ = trained
    with pytest.raises(ValueError, match=r"another order.*reference.adata.var_names"):
        PairedVAE.load_query_data(third[:, ::-1].copy(), reference)
    known = third.copy()
    known.obs["batch"] = "batch_1"
    with pytest.raises(ValueError, match=r"only datasets that the model knows"):
        PairedVAE.load_query_data(known, reference)
    separate = PairedVAE(reference.adata, encoder="per_dataset")
    with pytest.raises(RuntimeError, match="not trained"):
        PairedVAE.load_query_data(third, separate)
    separate.is_trained_ = True
    with pytest.raises(ValueError, match="encoder='per_dataset'"):
        PairedVAE.load_query_data(third, separate)
