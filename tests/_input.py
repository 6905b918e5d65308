"""Cells that were changed, forms that counts come in, and what tests of any model ask of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

__all__ = [
    "SHORT",
    "assert_points_at",
    "assert_same_anndata",
    "at",
    "changed",
    "column",
    "no_warning",
    "nothing",
    "with_names_twice",
    "with_other_genes",
    "with_value",
]

SHORT = {"max_epochs": 5, "accelerator": "cpu", "batch_size": 32, "enable_progress_bar": False}
"""Options of a short fit on the CPU."""

Change = Callable[[AnnData], None]


def nothing(adata: AnnData) -> None:
    """Leave all as it is."""


def column(name: str, values: Callable[[AnnData], object]) -> Change:
    """Write a column of obs."""

    def change(adata: AnnData) -> None:
        adata.obs[name] = values(adata)

    return change


def at(row: int, value: object, key: str) -> Change:
    """Put a value into a column of obs, in one row."""
    return column(key, lambda a: a.obs[key].where(np.arange(a.n_obs) != row, value))


def with_value(value: float, *, cell: int = 71, gene: int = 4) -> Change:
    """Put a value into X, and into layers of its kinds."""

    def change(adata: AnnData) -> None:
        dense = adata.X.toarray() if sparse.issparse(adata.X) else adata.X.copy()
        dense[cell, gene] = value
        adata.X = type(adata.X)(dense) if sparse.issparse(adata.X) else dense
        adata.layers["dense"] = dense
        adata.layers["csc"] = sparse.csc_matrix(dense)

    return change


def with_names_twice(adata: AnnData) -> None:
    """Give two names to several genes each."""
    adata.var_names = ["x", "x", "y", "y", "y", *adata.var_names[5:]]


def changed(change: Change) -> Callable[[AnnData], AnnData]:
    """Return the cells that were changed."""

    def make_changed(adata: AnnData) -> AnnData:
        change(adata)
        return adata

    return make_changed


def with_other_genes(adata: AnnData) -> AnnData:
    """Give the same cells with their genes in another order, among genes of no interest."""
    extra = AnnData(
        sparse.csr_matrix(np.full((adata.n_obs, 2), 5, np.float32)),
        obs=pd.DataFrame(index=adata.obs_names),
        var=pd.DataFrame(index=["extra 1", "extra 2"]),
    )
    extra.layers["raw"] = extra.X.copy()
    both = ad.concat([extra, adata], axis=1, merge="first")
    return both[:, np.random.default_rng(0).permutation(both.n_vars)].copy()


def no_warning() -> warnings.catch_warnings:
    """Turn every warning of scovert into an error."""
    return warnings.catch_warnings(action="error", category=UserWarning)


def assert_points_at(file: str, caught: pytest.WarningsRecorder) -> None:
    """A warning names the line of the user, who is the test in `file`, not one of the library."""
    ours = [w for w in caught if not re.search("lightning|scvi", w.filename)]
    assert {Path(w.filename).name for w in ours} == {Path(file).name}


def assert_same_anndata(found: AnnData, expected: AnnData) -> None:
    """All slots are equal, and matrices are of the same kind and type."""
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    pd.testing.assert_frame_equal(found.var, expected.var)
    _assert_same_matrix(found.X, expected.X)
    for container in ("layers", "obsm", "varm", "uns"):
        slots, others = getattr(found, container), getattr(expected, container)
        assert slots.keys() == others.keys(), container
    for name, layer in expected.layers.items():
        _assert_same_matrix(found.layers[name], layer)
    for name, value in expected.obsm.items():
        np.testing.assert_array_equal(found.obsm[name], value)


def _assert_same_matrix(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    for part in ("data", "indices", "indptr") if sparse.issparse(expected) else ("T",):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
