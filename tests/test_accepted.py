"""What every model takes, without a word or with a warning."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from _every_model import (
    N_CELLS,
    N_GENES,
    SETUPS,
    asked,
    fitted,
    make,
    of_every_model,
    of_models_of_cells,
)
from _input import assert_points_at, no_warning
from scovert.model import BulkDeconvolution, LatentConfounder, PairedVAE

pytestmark = [
    pytest.mark.usefixtures("seed"),
    pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)"),
]


@pytest.fixture(scope="module")
def answers() -> dict[type, np.ndarray]:
    return {cls: asked(fitted(cls, make())) for cls in SETUPS}


# Forms of counts


FORMS = {
    "csr, 8 bits": lambda x: sparse.csr_matrix(x.astype(np.int8)),
    "csc, doubles": lambda x: sparse.csc_matrix(x.astype(np.float64)),
    "csr array, integers": lambda x: sparse.csr_array(x.astype(np.int32)),
    "csc array, 16 bits": lambda x: sparse.csc_array(x.astype(np.uint16)),
    "dense, long integers": lambda x: x.astype(np.int64),
    "dense, halves": lambda x: x.astype(np.float16),
    "dense by columns, bytes": lambda x: np.asfortranarray(x.astype(np.uint8)),
    "explicit zeros, unsigned": lambda x: sparse.csr_matrix(
        (
            x.astype(np.uint64).ravel(),
            np.tile(np.arange(N_GENES), N_CELLS),
            np.arange(0, x.size + 1, N_GENES),
        )
    ),
}


@of_every_model
@pytest.mark.parametrize("form", FORMS)
def test_counts_are_the_same_in_any_form(
    cls: type, form: str, answers: dict[type, np.ndarray]
) -> None:
    adata = make()
    adata.X = FORMS[form](adata.X.toarray())
    with no_warning():
        found = asked(fitted(cls, adata))
    np.testing.assert_allclose(found, answers[cls], rtol=1e-5)


BACKED = (sparse.csr_matrix, sparse.csc_matrix, np.asarray)


def written(form: Callable, file: Path, compression: str | None = None) -> Path:
    adata = make()
    adata.X = form(adata.X.toarray())
    adata.write_h5ad(file, compression=compression)
    return file


@pytest.mark.parametrize("cls", [LatentConfounder, BulkDeconvolution])
@pytest.mark.parametrize("form", BACKED)
def test_a_file_gives_the_fit_that_memory_gives(
    cls: type, form: Callable, answers: dict[type, np.ndarray], tmp_path: Path
) -> None:
    """PairedVAE reads a file in another order (`test_trust.py`)."""
    backed = ad.read_h5ad(written(form, tmp_path / "cells.h5ad"), backed="r")
    with no_warning():
        found = asked(fitted(cls, backed))
    assert backed.isbacked
    np.testing.assert_allclose(found, answers[cls], rtol=1e-5)


@pytest.mark.parametrize("cls", [PairedVAE, LatentConfounder])
def test_cells_in_a_file_are_asked_about_as_those_in_memory(cls: type, tmp_path: Path) -> None:
    model = fitted(cls, make())
    expected = model.get_latent_representation()
    for form in BACKED:
        file = written(form, tmp_path / f"{form.__name__}.h5ad")
        backed = ad.read_h5ad(file, backed="r")
        with no_warning():
            found = model.get_latent_representation(backed)
            assert np.isfinite(asked(fitted(cls, backed))).all()
        assert backed.isbacked
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@of_every_model
def test_a_view_becomes_a_copy(cls: type) -> None:
    adata = make()
    with no_warning():
        asked(fitted(cls, adata[:, ::-1]))
    pd.testing.assert_frame_equal(adata.obs, make().obs)
    assert not [name for name in (*adata.obsm, *adata.uns) if "_scvi" in name]


@of_every_model
@pytest.mark.parametrize("change", [lambda x: x > 0, lambda x: np.rint(0.93 * x)])
def test_what_was_rounded_is_counts(cls: type, change: Callable) -> None:
    adata = make()
    adata.X = change(adata.X.toarray())
    with no_warning():
        cls.setup_anndata(adata, **SETUPS[cls])
        cls(adata)


# Names


def test_layers_are_called_alike_everywhere() -> None:
    for cls in SETUPS:
        assert "layer" in inspect.signature(cls.setup_anndata).parameters
    assert "layer" in inspect.signature(BulkDeconvolution.deconvolve).parameters


@of_models_of_cells
def test_a_column_may_be_called_as_the_counts_are_in_the_registry(cls: type) -> None:
    adata = make()
    (argument, key) = next(iter(SETUPS[cls].items()))
    adata.obs["X"] = adata.obs[key]
    cls.setup_anndata(adata, **{**SETUPS[cls], argument: "X"})
    cls(adata)
    adata.X = adata.X + adata.X
    with pytest.raises(ValueError, match="`adata.X` holds other counts"):
        cls(adata)


def test_a_copy_does_not_take_its_model_along() -> None:
    adata = make()
    with no_warning():
        first = fitted(PairedVAE, adata)
        second = fitted(PairedVAE, adata[5:].copy())
    assert first.get_latent_representation().shape[0] == N_CELLS
    assert second.get_latent_representation().shape[0] == N_CELLS - 5


@of_every_model
def test_a_model_can_be_sent_to_another_process(
    cls: type, answers: dict[type, np.ndarray]
) -> None:
    model = pickle.loads(pickle.dumps(fitted(cls, make())))
    np.testing.assert_array_equal(asked(model), answers[cls])


def test_setting_up_again_does_not_change_a_model() -> None:
    adata = make()
    model = fitted(PairedVAE, adata)
    before = model.get_latent_representation()
    with no_warning():
        PairedVAE.setup_anndata(adata, "kind")
    np.testing.assert_array_equal(model.get_latent_representation(), before)


# Warned about


@of_models_of_cells
def test_equal_totals_are_doubted(cls: type) -> None:
    adata = make()
    dense = adata.X.toarray()
    adata.X = np.rint(1e5 * dense / dense.sum(1, keepdims=True))
    with pytest.warns(UserWarning, match="nearly the same total.*normalised and rounded"):
        cls.setup_anndata(adata, **SETUPS[cls])


@of_every_model
def test_totals_that_differ_by_a_hundredth_are_not_doubted(cls: type) -> None:
    adata = make()
    dense, depth = adata.X.toarray(), 1e5 * np.linspace(0.98, 1.02, N_CELLS)
    adata.X = np.rint(depth[:, None] * dense / dense.sum(1, keepdims=True))
    assert 0.01 < np.std(adata.X.sum(1)) / np.mean(adata.X.sum(1)) < 0.012
    with no_warning():
        cls.setup_anndata(adata, **SETUPS[cls])


@of_every_model
def test_cells_of_one_name_are_told(cls: type) -> None:
    adata = make()
    adata.obs_names = ["cell"] * N_CELLS
    with pytest.warns(UserWarning, match="`adata.obs_names` are not un.*make_unique") as caught:
        cls.setup_anndata(adata, **SETUPS[cls])
    assert_points_at(__file__, caught)
    with pytest.warns(UserWarning, match="not unique"):
        assert np.isfinite(asked(fitted(cls, adata))).all()


@of_every_model
def test_cells_without_counts_are_told(cls: type) -> None:
    adata = make()
    dense = adata.X.toarray()
    dense[[3, 80]] = 0
    adata.X = dense
    with pytest.warns(
        UserWarning, match="2 (cells|samples) have no counts.*min_counts=1"
    ) as caught:
        cls.setup_anndata(adata, **SETUPS[cls])
    assert_points_at(__file__, caught)


@pytest.mark.parametrize("cls", [PairedVAE, LatentConfounder])
@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_a_file_that_is_slow_to_read_is_told(cls: type, compression: str, tmp_path: Path) -> None:
    """BulkDeconvolution reads its reference once."""
    for form in (sparse.csr_matrix, np.asarray):
        file = written(form, tmp_path / f"{form.__name__}.h5ad", compression)
        with pytest.warns(UserWarning, match=rf"compressed \({compression}\).*write") as caught:
            cls.setup_anndata(ad.read_h5ad(file, backed="r"), **SETUPS[cls])
        assert_points_at(__file__, caught)
        with no_warning():
            cls.setup_anndata(ad.read_h5ad(file), **SETUPS[cls])
