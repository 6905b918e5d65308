"""Datasets of different genes in one AnnData that remembers which genes each measured."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import anndata as ad
import numpy as np
import pandas as pd
from anndata import AnnData

from scovert.core._checks import caller_level, check_genes, some_of
from scovert.core._words import a_kind_of
from scovert.core.genes import are_alike

__all__ = ["concat_measured"]


def concat_measured(
    datasets: Mapping[str, AnnData], *, batch_key: str = "batch", measured_key: str = "measured"
) -> AnnData:
    """Join datasets over the union of their genes, and keep which genes each had.

    As ``anndata.concat(datasets, join="outer", fill_value=0)``, after which a zero that was
    counted and one that fills a gap look the same; the table in ``varm`` tells them apart. Cells
    of a dataset without a slot of ``obsm``, such as positions, have NaN there.

    Parameters
    ----------
    datasets
        AnnData by name, each with raw counts of all the genes that it measured: genes that were
        filtered out because nothing was counted would pass as not measured.
    batch_key
        Name of the column of ``obs`` with the dataset of each cell.
    measured_key
        Name of the table in ``varm``.

    Returns
    -------
    AnnData with the cells of all datasets, named ``cell-dataset``, and
    ``varm[measured_key]``, bool, genes x datasets.

    Raises
    ------
    TypeError
        If `datasets` is no mapping from names to AnnData.
    ValueError
        If there are fewer than two, one holds a gene twice or a column `batch_key`, or they share
        no gene.

    Warns
    -----
    UserWarning
        If layers are left out, as some datasets lack them, and if genes that a dataset lacks are
        in it but for spelling.

    Examples
    --------
    >>> import scovert
    >>> cells = scovert.data.pbmc68k()
    >>> parts = {"atlas": cells[:400].copy(), "panel": cells[400:, :500].copy()}
    >>> joined = scovert.data.concat_measured(parts)
    >>> joined.shape, joined.varm["measured"].sum().to_dict()
    ((700, 765), {'atlas': 765, 'panel': 500})
    """
    if not isinstance(datasets, Mapping) or not all(
        isinstance(adata, AnnData) for adata in datasets.values()
    ):
        raise TypeError(
            f"`datasets` is {a_kind_of(datasets)}. Pass a dict from names to AnnData: "
            "`{'atlas': atlas, 'panel': panel}`."
        )
    if len(datasets) < 2:
        raise ValueError(f"`datasets` holds {len(datasets)} AnnData. Pass two or more.")
    for name, adata in datasets.items():
        check_genes(adata, name=f"datasets[{name!r}]")
    _check_column(datasets, batch_key)
    _check_shared(datasets)
    options = {"label": batch_key, "index_unique": "-", "fill_value": 0, "merge": "same"}
    joined = ad.concat(dict(datasets), join="outer", **options)
    joined.varm[measured_key] = pd.DataFrame(
        {str(name): joined.var_names.isin(a.var_names) for name, a in datasets.items()},
        index=joined.var_names,
    )
    _warn_about_spelling(datasets, joined.var_names)
    _mark_what_lacks(joined, datasets, batch_key)
    return joined


def _check_column(datasets: Mapping[str, AnnData], batch_key: str) -> None:
    """Refuse datasets with a column that would be replaced by their names."""
    for name, adata in datasets.items():
        if batch_key in adata.obs:
            raise ValueError(
                f"`datasets[{name!r}].obs` has a column {batch_key!r}, which the names of the "
                "datasets would replace. Pass another `batch_key`, or rename the column."
            )


def _check_shared(datasets: Mapping[str, AnnData]) -> None:
    """Refuse datasets without a gene that all have."""
    shared = set.intersection(*(set(adata.var_names) for adata in datasets.values()))
    if not shared:
        found = "; ".join(f"{name!r} has {some_of(a.var_names)}" for name, a in datasets.items())
        raise ValueError(
            f"`datasets` share no gene: {found}. Genes are matched by name: name them alike, as "
            "symbols or as Ensembl identifiers of one species."
        )


def _warn_about_spelling(datasets: Mapping[str, AnnData], genes: pd.Index) -> None:
    """Warn about genes that a dataset has under names that differ by signs or case."""
    for name, adata in datasets.items():
        lacking = genes.difference(adata.var_names, sort=False)
        alike = lacking[are_alike(lacking, adata.var_names)]
        if len(alike):
            _warn(
                f"{len(alike)} genes that `datasets[{name!r}]` lacks are among its genes but for "
                f"signs or case, such as {some_of(alike)}. They pass as not measured there, and "
                "theirs as other genes: name them alike."
            )


def _mark_what_lacks(joined: AnnData, datasets: Mapping[str, AnnData], batch_key: str) -> None:
    """Leave out layers that some datasets lack, and put NaN where they lack slots of obsm.

    anndata fills both with zeros, which are no counts and no positions.
    """
    partial = [key for key in joined.layers if any(key not in a.layers for a in datasets.values())]
    for key in partial:
        del joined.layers[key]
    if partial:
        _warn(
            f"Not all datasets have the layers {partial}, which are left out. To keep them, put "
            "them into all datasets."
        )
    for key, values in joined.obsm.items():
        lacks = [name for name, adata in datasets.items() if key not in adata.obsm]
        rows = joined.obs[batch_key].isin(lacks).to_numpy()
        if rows.any() and isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
            values = values.astype(np.result_type(values.dtype, np.float32))
            values[rows] = np.nan
            joined.obsm[key] = values


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=caller_level())
