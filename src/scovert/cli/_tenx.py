"""What Cell Ranger writes, and programs that write like it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from scovert.cli._session import warn

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["MATRIX", "genes_of_10x", "read_10x_folder", "read_10x_h5"]

MATRIX = "matrix.mtx"
GENES = "Gene Expression"  # so Cell Ranger calls features that are genes


def read_10x_h5(file: Path) -> AnnData:
    """Read all features of an .h5 file."""
    import scanpy as sc

    return sc.read_10x_h5(file, gex_only=False)


def read_10x_folder(matrix: Path) -> AnnData:
    """Read all features of a matrix with the tables of features and barcodes beside it.

    Unlike ``scanpy.read_10x_mtx`` it takes every table compressed or not, as public archives and
    other programs have them, and the gene ``nan`` for a gene.
    """
    import numpy as np
    from anndata import AnnData
    from scipy import sparse
    from scipy.io import mmread

    features, barcodes = _table(matrix, "features", "genes"), _table(matrix, "barcodes")
    counts = sparse.csr_matrix(mmread(matrix).T, dtype=np.float32)
    if counts.shape != (len(barcodes), len(features)):
        raise ValueError(
            f"{matrix.name} has {counts.shape[1]} rows and {counts.shape[0]} columns, and there "
            f"are {len(features)} features and {len(barcodes)} barcodes"
        )
    adata = AnnData(counts)
    adata.obs_names = barcodes[0].to_numpy()
    symbols = features[min(1, features.shape[1] - 1)]
    adata.var_names = symbols.where(symbols != "", features[0]).to_numpy()
    adata.var["gene_ids"] = features[0].to_numpy()
    if features.shape[1] > 2:
        adata.var["feature_types"] = features[2].to_numpy()
    return adata


def genes_of_10x(adata: AnnData, file: Path) -> AnnData:
    """Keep the genes, each under a name of its own, and warn about what was changed."""
    return _named_apart(_only_genes(adata, file), file)


def _table(matrix: Path, *names: str) -> pd.DataFrame:
    """Read a table that belongs to a matrix, all of it as text."""
    import pandas as pd

    prefix = matrix.name.partition(MATRIX)[0]
    places = [
        matrix.with_name(f"{prefix}{name}.tsv{packed}") for name in names for packed in (".gz", "")
    ]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise FileNotFoundError(f"there is no {places[0].name} beside {matrix.name}")
    options = {"sep": "\t", "header": None, "dtype": str, "keep_default_na": False}
    return pd.read_csv(file, **options)


def _only_genes(adata: AnnData, file: Path) -> AnnData:
    """Leave out antibodies, guides and peaks, and say so."""
    if "feature_types" not in adata.var:
        return adata
    is_gene = adata.var["feature_types"] == GENES
    others = adata.var["feature_types"][~is_gene].value_counts()
    if not is_gene.any():
        raise ValueError(
            f"None of the features of {file} is {GENES!r}: all are {list(others.index)}. Name a "
            "file with counts of genes."
        )
    if others.empty:
        return adata
    listed = ", ".join(f"{count} {kind}" for kind, count in others.items())
    warn(f"Of {file} only genes are read; left out: {listed}.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Variable names are not unique")  # told apart later
        return adata[:, is_gene.to_numpy()].copy()


def _named_apart(adata: AnnData, file: Path) -> AnnData:
    """Tell genes that share a symbol apart by numbers, as scanpy does, and say so."""
    twice = adata.var_names[adata.var_names.duplicated()].unique()
    if twice.empty:
        return adata
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Suffix used")
        adata.var_names_make_unique()
    warn(
        f"{len(twice)} gene symbols occur more than once in {file}, such as {twice[0]!r}. Each "
        "gene is kept: the later ones are numbered, as by `adata.var_names_make_unique()`, and "
        "`adata.var['gene_ids']` tells them apart."
    )
    return adata
