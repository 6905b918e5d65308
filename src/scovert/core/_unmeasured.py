"""Genes that some cells did not measure, where zeros that fill the gap pass as counts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray
from scvi.data.fields import BaseAnnDataField

from scovert.core._checks import caller_level, some_of
from scovert.core._counts import get_counts, some_blocks

__all__ = [
    "MeanSharesField",
    "count_by_group",
    "warn_about_padding",
    "warn_about_unmeasured",
]

SHARES = "gene_shares"
"""Key of the registry."""
EXPECTED = 20.0
"""Counts of a gene that are to be expected where there are none, at least, to look at it."""
MANY = 0.05
"""Share of the genes of which that is worth a word. Of real datasets that measured the same genes
it is below 0.3 %, of purified cell types and genes that vary between them up to 2.5 %."""
FEWEST = 5
"""Genes at least: a few may be silent."""
WHY = "were not measured there and filled with zeros (`anndata.concat(join='outer')`)"


def count_by_group(
    blocks: Iterable[tuple[int, NDArray | sp.csr_matrix]], group: NDArray, shape: tuple[int, int]
) -> NDArray:
    """Add up the counts of each gene in each group of cells, shape ``(n_groups, n_genes)``."""
    totals = np.zeros(shape)
    for start, block in blocks:
        own = group[start : start + block.shape[0]]
        for b in np.unique(own):
            totals[b] += np.asarray(block[own == b].sum(axis=0, dtype=float)).ravel()
    return totals


def warn_about_unmeasured(adata: AnnData, layer: str | None, key: str) -> None:
    """Warn where many genes have no count in a group of cells, and many in the other groups.

    Parameters
    ----------
    adata
        Cells that were checked.
    layer
        Layer with the counts.
    key
        Column of ``adata.obs`` with the groups: datasets, or arms of a treatment.
    """
    group = pd.Categorical(adata.obs[key]).remove_unused_categories()
    shape = (len(group.categories), adata.n_vars)
    totals = count_by_group(some_blocks(get_counts(adata, layer)), group.codes, shape)
    of_group = totals.sum(1, keepdims=True)
    shares = totals / np.maximum(of_group, 1)
    of_others = (shares.sum(0) - shares) / max(1, shape[0] - 1)
    is_lacking = (totals == 0) & (of_others * of_group >= EXPECTED)
    found = [
        f"{int(lacking.sum())} in {name!r}, such as {some_of(adata.var_names[lacking])}"
        for name, lacking in zip(group.categories, is_lacking, strict=True)
        if lacking.sum() > max(FEWEST, MANY * (totals.sum(0) > 0).sum())
    ]
    if found:
        _warn(
            f"Genes that others count have no count in a level of `adata.obs[{key!r}]`: "
            f"{'; '.join(found)}. If they {WHY}, all of these zeros pass as differences between "
            "the levels: keep the genes that all measured (`join='inner'`). `MaskedImputation` "
            "takes datasets of different genes."
        )


class MeanSharesField(BaseAnnDataField):
    """Share of each gene in all counts, kept in the registry and so in files of a model.

    Parameters
    ----------
    layer
        Layer with the counts.
    """

    registry_key, attr_name, attr_key = SHARES, "X", None
    is_empty = False

    def __init__(self, layer: str | None) -> None:
        self.layer = layer

    def validate_field(self, adata: AnnData) -> None:
        """Trust the counts, which the model has looked at."""

    def register_field(self, adata: AnnData) -> dict:
        """Return the shares of the genes."""
        totals = _totals(adata, self.layer)
        return {SHARES: totals / max(totals.sum(), 1)}

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **_: object) -> dict:
        """Keep what the model knows."""
        return state_registry

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Return nothing: there is nothing to count."""
        return {}

    def view_state_registry(self, state_registry: dict) -> None:
        """Show nothing."""

    @staticmethod
    def of(layer: str | None, registry: dict | None) -> list[MeanSharesField]:
        """Return the field, unless the registry of an earlier version is without it."""
        is_known = registry is None or SHARES in registry["field_registries"]
        return [MeanSharesField(layer)] if is_known else []


def warn_about_padding(adata: AnnData, registry: dict) -> None:
    """Warn where many genes of a model have no count in new cells, although many were expected.

    Parameters
    ----------
    adata
        New cells, with all genes of the model.
    registry
        What scvi-tools kept of the cells of the model.
    """
    fields = registry["field_registries"]
    if SHARES not in fields:
        return
    genes = pd.Index(fields["X"]["state_registry"]["column_names"])
    totals = pd.Series(_totals(adata, registry["setup_args"]["layer"]), adata.var_names)[genes]
    shares = np.asarray(fields[SHARES]["state_registry"][SHARES])
    lacking = genes[(totals == 0) & (shares * totals.sum() >= EXPECTED)]
    if len(lacking) > max(FEWEST, MANY * (shares > 0).sum()):
        _warn(
            f"{len(lacking)} of the {len(genes)} genes of the model have no count in `adata`, "
            f"such as {some_of(lacking)}, where {EXPECTED:.0f} or more were to be expected. If "
            f"they {WHY}, what the model says of these cells is wrong: pass cells with all genes, "
            "or train a model on the genes that all measured."
        )


def _totals(adata: AnnData, layer: str | None) -> NDArray:
    """Add up the counts of each gene, of very many cells those of some."""
    group = np.zeros(adata.n_obs, np.int64)
    return count_by_group(some_blocks(get_counts(adata, layer)), group, (1, adata.n_vars))[0]


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=caller_level())
