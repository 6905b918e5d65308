"""One table for the embeddings of an AnnData, and the quick way to one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scovert import anchors, data, simulate
from scovert.metrics import (
    batch_mixing,
    integration,
    integration_panel,
    invaded_share,
    label_transfer,
    purity,
)

KEYS = {"batch_key": "batch", "labels_key": "cell_type"}


@pytest.fixture(scope="module")
def cells() -> AnnData:
    adata = simulate.paired((300, 200), batch_sd=0.8, seed=0)
    adata.obsm["X_pca"] = anchors.principal_components(np.log1p(adata.X), 20)
    adata.obsm["X_aligned"] = anchors.align(adata, "batch")
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2]
    return adata


def test_each_embedding_has_the_scores_of_the_panel(cells: AnnData) -> None:
    table = integration(cells, **KEYS, n_init=2)
    assert set(table.index) == {"X_pca", "X_aligned"}  # no map
    assert table["total"].is_monotonic_decreasing
    labels = cells.obs["batch"], cells.obs["cell_type"]
    for slot, row in table.iterrows():
        panel = integration_panel(cells.obsm[slot], *labels, n_init=2)["value"]
        pd.testing.assert_series_equal(row[panel.index], panel, check_names=False)
    only = integration(cells, **KEYS, use_rep="X_umap", n_init=2)
    assert only.index.tolist() == ["X_umap"]
    assert "invaded" not in only


def test_missing_types_are_scored(cells: AnnData) -> None:
    types = cells.obs["cell_type"].astype(str)
    lacking = (types == types.iloc[0]) & (cells.obs["batch"] == cells.obs["batch"].iloc[0])
    part = cells[~lacking].copy()
    row = integration(part, **KEYS, use_rep="X_aligned", n_init=2).iloc[0]
    labels = part.obs["batch"], part.obs["cell_type"]
    assert row["invaded"] == invaded_share(part.obsm["X_aligned"], *labels)
    assert row["purity"] == purity(part.obsm["X_aligned"], *labels)


@pytest.mark.parametrize("use_rep", ["X_none", ["X_pca", "X_none"]])
def test_a_slot_that_is_missing_is_named(cells: AnnData, use_rep: object) -> None:
    with pytest.raises(KeyError, match=r"\['X_none'\] in `adata.obsm`.*X_pca"):
        integration(cells, **KEYS, use_rep=use_rep)


def test_without_embeddings_it_says_so(cells: AnnData) -> None:
    bare = AnnData(cells.X, obs=cells.obs)
    with pytest.raises(KeyError, match="no embedding in `adata.obsm`"):
        integration(bare, **KEYS)


@pytest.mark.parametrize("name", ["simulated", "blood"])
def test_aligned_components_mix_datasets_and_keep_types(cells: AnnData, name: str) -> None:
    adata = cells
    if name == "blood":
        adata = data.two_batches(data.pbmc68k(), thinning=0.5, capture_sd=1.0, seed=0)
        logs = np.log1p(1e4 * adata.X.toarray() / adata.X.sum(1).A1[:, None])
        adata.obsm["X_pca"] = anchors.principal_components(logs, 20)
        adata.obsm["X_aligned"] = anchors.align(adata, "batch")
    labels = adata.obs["batch"], adata.obs["cell_type"]
    before, after = adata.obsm["X_pca"], adata.obsm["X_aligned"]
    assert len(after) == adata.n_obs
    assert 20 <= after.shape[1] < 30
    assert batch_mixing(after, *labels) > batch_mixing(before, *labels) + 0.2
    assert label_transfer(after, *labels) > label_transfer(before, *labels) - 0.02


def test_align_checks_its_input(cells: AnnData) -> None:
    with pytest.raises(KeyError, match="batch_key='lane'"):
        anchors.align(cells, "lane")
    with pytest.raises(ValueError, match="raw counts"):
        anchors.align(AnnData(cells.X * 0.3, obs=cells.obs), "batch")
    with pytest.raises(ValueError, match="one dataset only"):
        anchors.align(cells[cells.obs["batch"] == cells.obs["batch"].iloc[0]], "batch")


def test_the_layer_and_the_order_of_datasets_do_not_matter(cells: AnnData) -> None:
    other = AnnData(np.zeros(cells.shape, np.float32), obs=cells.obs.copy())
    other.layers["counts"] = cells.X
    names = sorted(cells.obs["batch"].astype(str).unique(), reverse=True)
    other.obs["batch"] = pd.Categorical(cells.obs["batch"].astype(str), ["unused", *names])
    found = anchors.align(other, "batch", layer="counts")
    np.testing.assert_array_equal(found, cells.obsm["X_aligned"])
