"""Datasets of different genes in one AnnData that remembers which genes each measured."""

from __future__ import annotations

from collections.abc import Mapping

import anndata as ad
import pandas as pd
from anndata import AnnData

from scovert.core._checks import check_genes
from scovert.core._words import a_kind_of

__all__ = ["concat_measured"]


def concat_measured(
    datasets: Mapping[str, AnnData], *, batch_key: str = "batch", measured_key: str = "measured"
) -> AnnData:
    """Join datasets over the union of their genes, and keep which genes each had.

    As ``anndata.concat(datasets, join="outer", fill_value=0)``, after which a zero that was
    counted and one that fills a gap look the same; the table in ``varm`` tells them apart.

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
        If there are fewer than two, or one holds a gene twice.

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
    options = {"label": batch_key, "index_unique": "-", "fill_value": 0, "merge": "same"}
    joined = ad.concat(dict(datasets), join="outer", **options)
    joined.varm[measured_key] = pd.DataFrame(
        {str(name): joined.var_names.isin(a.var_names) for name, a in datasets.items()},
        index=joined.var_names,
    )
    return joined
