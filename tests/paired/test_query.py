"""Cells of datasets that the model has not seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData

from scovert import data
from scovert.model import PairedVAE

MISSING = "Dendritic"


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
