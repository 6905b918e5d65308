"""Genes that were not measured in some cells and filled with zeros, which then pass as counts."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from _every_model import fitted, make
from _input import no_warning
from scovert.model import BulkDeconvolution, LatentConfounder, NicheVAE, PairedVAE

N_FILLED = 60
TREATED = {"treatment_key": "treatment"}
SETUPS = {
    PairedVAE: ({"batch_key": "batch"}, "batch", "b"),
    LatentConfounder: (TREATED, "treatment", True),
    NicheVAE: ({"sample_key": "batch", "likelihood": "nb"}, "batch", "b"),
    BulkDeconvolution: ({"labels_key": "kind", "batch_key": "batch"}, "batch", "b"),
}


def filled(adata: AnnData, rows: np.ndarray) -> AnnData:
    """Leave genes out of some cells, and fill them with zeros as an outer join does."""
    parts = adata[~rows].copy(), adata[rows, N_FILLED:].copy()
    joined = ad.concat(parts, join="outer", fill_value=0)[:, adata.var_names]
    joined.obsm = adata[joined.obs_names].obsm
    return joined[adata.obs_names].copy()


@pytest.mark.parametrize("cls", SETUPS, ids=lambda cls: cls.__name__)
def test_genes_that_a_level_lacks_are_named(cls: type) -> None:
    setup, key, level = SETUPS[cls]
    adata = make()
    with no_warning():
        cls.setup_anndata(adata.copy(), **setup)
    joined = filled(adata, (adata.obs[key] == level).to_numpy())
    match = f"{key}.*[56]. in {level!r}, such as 'gene 0', .*join='inner'.*MaskedImputation"
    with pytest.warns(UserWarning, match=match):
        cls.setup_anndata(joined, **setup)


def test_genes_that_a_file_lacks_are_named(tmp_path: Path) -> None:
    adata = make()
    filled(adata, (adata.obs.batch == "b").to_numpy()).write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.warns(UserWarning, match="[56]. in 'b'"):
        PairedVAE.setup_anndata(adata, batch_key="batch")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    fitted(PairedVAE, make()).save(folder, overwrite=True)
    return folder


@pytest.mark.usefixtures("seed")
def test_new_cells_filled_with_zeros_are_told(model: Path) -> None:
    loaded = PairedVAE.load(model)
    new = make()[:70].copy()
    new.obs["batch"] = "new"
    match = "[56]. of the 307 genes of the model have no count in `adata`.*'gene 0'.*wrong"
    padded, counts = new.copy(), new.X.toarray()
    counts[:, :N_FILLED] = 0
    padded.X = sparse.csr_matrix(counts)
    for ask in (
        loaded.get_latent_representation,
        loaded.get_normalized_expression,
        lambda adata: PairedVAE.load_query_data(adata, loaded),
    ):
        with no_warning():
            ask(new.copy())
        with pytest.warns(UserWarning, match=match):
            ask(padded.copy())


@pytest.mark.usefixtures("seed")
def test_few_cells_may_lack_genes(model: Path) -> None:
    loaded = PairedVAE.load(model)
    with no_warning():
        loaded.get_latent_representation(make()[:3].copy())


@pytest.mark.usefixtures("seed")
def test_new_tissue_filled_with_zeros_is_told() -> None:
    model, new = fitted(NicheVAE, make()), make()
    with no_warning():
        model.get_latent_representation(new)
    counts = new.X.toarray()
    counts[:, :N_FILLED] = 0
    new.X = sparse.csr_matrix(counts)
    with pytest.warns(UserWarning, match="of the 307 genes of the model have no count"):
        model.get_latent_representation(new)
