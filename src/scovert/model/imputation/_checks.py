"""What of an AnnData MaskedImputation accepts: which genes each dataset measured."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import caller_level, some_of
from scovert.core._count_checks import check_counts
from scovert.core._counts import row_blocks
from scovert.core._unmeasured import count_by_group
from scovert.core._words import a_kind_of, counted
from scovert.model.imputation._panels import MIN_COUNTS, expected_counts

__all__ = ["DETECT", "check_groups", "check_known_counts", "measured_genes", "warn_about_shared"]

logger = logging.getLogger(__name__)

DETECT = "detect"
"""Value of `measured_key` that takes genes without a count in a dataset as not measured there."""
FEWEST_SHARED, FEW_SHARED = 20, 100
"""Genes with counts that all datasets measured: fewer tell nothing of a cell, and little."""
FEW_SEEN = 50
"""Median counts of a cell in the shared genes, below which its type is uncertain."""
JOINING = (
    "`scovert.data.concat_measured` joins datasets and keeps which genes each measured, as does "
    "`scovert impute` with a file for each"
)


def check_known_counts(counts: object, where: str, adata: AnnData) -> NDArray:
    """Check counts, and where there is NaN say how to mark what was not measured."""
    try:
        return check_counts(counts, where, adata)
    except ValueError as error:
        if not _has_nan(counts):
            raise
        raise ValueError(
            f"{error} Where nothing was measured put 0 there, and name in `measured_key` a table "
            f"in `adata.varm` that says which genes each dataset measured. {JOINING}."
        ) from None


def check_groups(labels: NDArray, groups_key: str) -> None:
    """Refuse a column that tells nearly every cell apart."""
    n_groups = len(set(labels))
    if 2 * n_groups > len(labels):
        raise ValueError(
            f"`groups_key={groups_key!r}` has {n_groups} groups of {len(labels)} cells. Name a "
            "column with clusters, types or samples."
        )


def _has_nan(counts: object) -> bool:
    blocks = (block for _, block in row_blocks(counts))
    values = (block.data if sp.issparse(block) else block for block in blocks)
    return counts.dtype.kind == "f" and any(np.isnan(block).any() for block in values)


def measured_genes(
    adata: AnnData, counts: object, batch_key: str, measured_key: str | None
) -> NDArray:
    """Return which genes each dataset measured, once it was checked.

    Parameters
    ----------
    adata
        Cells that were checked but for this.
    counts
        Their counts.
    batch_key
        Column with the datasets.
    measured_key
        Slot of ``adata.varm``, or ``"detect"``.

    Returns
    -------
    Bool, shape ``(n_datasets, n_genes)``, in the order of the categories.
    """
    column = pd.Categorical(adata.obs[batch_key]).remove_unused_categories()
    datasets = list(column.categories)
    shape = (len(datasets), adata.n_vars)
    totals = count_by_group(row_blocks(counts), column.codes, shape)
    with_counts = (totals > 0) | ~(totals > 0).any(0)  # a gene without any is silent
    if measured_key is None:
        _refuse_to_guess(adata, datasets, with_counts)
    if measured_key == DETECT and DETECT not in adata.varm:
        _check_something_is_missing(datasets, with_counts)
        _check_shared(totals, with_counts)
        _say_what_was_detected(adata, datasets, with_counts, totals)
        return with_counts
    measured = _read_table(adata, datasets, measured_key)
    _check_table(adata, datasets, measured, totals)
    _check_shared(totals, measured)
    return measured


def _refuse_to_guess(adata: AnnData, datasets: list, measured: NDArray) -> None:
    """Refuse to say whether genes without counts are silent or were not measured."""
    _check_something_is_missing(datasets, measured)
    found = _listed(adata, datasets, ~measured)
    raise ValueError(
        f"Some genes have no count in a dataset: {found}. They may be silent there, or not "
        "measured and filled with zeros, and the second must be said: pass "
        f"`measured_key={DETECT!r}` if none of them was measured, or the name of a table in "
        f"`adata.varm` (genes x datasets, bool) that says which were. {JOINING}."
    )


def _check_something_is_missing(datasets: list, measured: NDArray) -> None:
    """Refuse datasets that all measured everything."""
    if measured.all():
        raise ValueError(
            f"Every dataset of {datasets} has every gene: there is nothing to impute. Join "
            "datasets that were measured with different genes, or mark in a table in "
            f"`adata.varm` what is no measurement. {JOINING}."
        )


def _listed(adata: AnnData, datasets: list, which: NDArray) -> str:
    """Say how many genes are marked in each dataset, and the first ones."""
    return "; ".join(
        f"{int(row.sum())} in {name!r}, such as {some_of(adata.var_names[row])}"
        for name, row in zip(datasets, which, strict=True)
        if row.any()
    )


def _say_what_was_detected(
    adata: AnnData, datasets: list, measured: NDArray, totals: NDArray
) -> None:
    """Log what was taken as unmeasured; warn of genes that may be silent."""
    logger.info("Taken as not measured: %s.", _listed(adata, datasets, ~measured))
    unsure = ~measured & (expected_counts(totals, measured) < MIN_COUNTS)
    if unsure.any():
        warnings.warn(
            f"`measured_key={DETECT!r}` takes genes as not measured of which fewer than "
            f"{MIN_COUNTS} counts were to be expected: {_listed(adata, datasets, unsure)}. They "
            "may be silent. If you know the panel, say it: name a table in `adata.varm`.",
            UserWarning,
            stacklevel=caller_level(),
        )


def _read_table(adata: AnnData, datasets: list, measured_key: str) -> NDArray:
    """Read a table of genes x datasets, whose columns are the datasets."""
    if not isinstance(measured_key, str):
        raise TypeError(
            f"`measured_key` is {a_kind_of(measured_key)}. Pass the name of a table in "
            "`adata.varm`."
        )
    if measured_key not in adata.varm:
        raise KeyError(
            f"`measured_key={measured_key!r}` is not in `adata.varm` (there are: "
            f"{list(adata.varm)}). Name a table of genes x datasets there, or pass {DETECT!r} to "
            f"take genes without counts as not measured. {JOINING}."
        )
    table = adata.varm[measured_key]
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"`adata.varm[{measured_key!r}]` is {a_kind_of(table)}. Make it a DataFrame "
            f"with a column for each dataset: {datasets}."
        )
    names = table.columns.astype(str)
    lacking = [name for name in datasets if str(name) not in names]
    if lacking:
        raise ValueError(
            f"`adata.varm[{measured_key!r}]` has the columns {list(names)}, and none for the "
            f"datasets {lacking}. Name its columns as the datasets."
        )
    values = table.set_axis(names, axis=1)[[str(name) for name in datasets]].to_numpy()
    if not np.isin(values, (0, 1)).all():
        raise TypeError(
            f"`adata.varm[{measured_key!r}]` holds values that are neither True nor False. Make "
            "it bool: True where a dataset measured a gene."
        )
    return values.astype(bool).T


def _check_table(adata: AnnData, datasets: list, measured: NDArray, totals: NDArray) -> None:
    """Refuse a table that contradicts the counts, or in which nothing is to be imputed."""
    _check_something_is_missing(datasets, measured)
    nobody = ~measured.any(0)
    if nobody.any():
        raise ValueError(
            f"No dataset measured {counted(nobody.sum(), 'gene')}, such as "
            f"{some_of(adata.var_names[nobody])}, and nothing tells of them. Leave them out: "
            "`adata[:, adata.varm[measured_key].any(axis=1)].copy()`."
        )
    wrong = ~measured & (totals > 0)
    if wrong.any():
        b, gene = np.argwhere(wrong)[0]
        raise ValueError(
            f"Dataset {datasets[b]!r} has {totals[b, gene]:.0f} counts of "
            f"{adata.var_names[gene]!r}, which the table of `measured_key` says it did not "
            f"measure ({int(wrong.sum())} such pairs of dataset and gene). Mark it as measured, "
            "or set these counts to 0."
        )


def _check_shared(totals: NDArray, measured: NDArray) -> None:
    """Refuse too few genes that all datasets measured and that have counts."""
    n_shared = int((measured.all(0) & (totals > 0).all(0)).sum())
    if n_shared < FEWEST_SHARED:
        raise ValueError(
            f"All datasets measured {n_shared} genes with counts. At least {FEWEST_SHARED} are "
            "needed to tell cells of one from those of another: leave a dataset out that shares "
            "few genes, and see that the names of the genes are of one kind."
        )


def warn_about_shared(counts: object, measured: NDArray) -> None:
    """Warn about few shared genes, or few counts in them."""
    shared = measured.all(0)
    seen = [np.asarray(block[:, shared].sum(1)).ravel() for _, block in row_blocks(counts)]
    median = float(np.median(np.concatenate(seen)))
    found = []
    if shared.sum() < FEW_SHARED:
        found.append(f"all datasets measured {int(shared.sum())} genes only")
    if median < FEW_SEEN:
        found.append(f"a cell has {median:.0f} counts in the shared genes in the median")
    if found:
        warnings.warn(
            f"Little is known of each cell: {' and '.join(found)}. What is imputed may hardly "
            "differ between cells; `check()` says how well known genes are imputed.",
            UserWarning,
            stacklevel=caller_level(),
        )
