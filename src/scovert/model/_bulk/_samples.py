"""Bulk samples, read and aligned with a signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from scovert._counts import find_matrix
from scovert._validation import (
    check_bulk_values,
    check_content,
    check_genes,
    check_informative,
    check_kind,
    check_layer,
    check_orientation,
    check_shared_counts,
    warn_about_kind,
    warn_about_samples,
)
from scovert.mixing import Profiles, Signature

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Expression of bulk samples on a linear scale.

    Attributes
    ----------
    names, genes
        Names of samples and genes.
    values
        Counts or TPM, shape ``(n_samples, n_genes)``.
    kind
        ``"counts"`` or ``"tpm"``.
    obs
        What is known of the samples.
    """

    names: pd.Index
    genes: pd.Index
    values: NDArray
    kind: str
    obs: pd.DataFrame

    @classmethod
    def read(cls, bulk: AnnData, layer: str | None, kind: str, genes: pd.Index) -> Self:
        """Read and check the samples of an AnnData, for a reference with these genes."""
        where = check_layer(bulk, layer, "bulk")
        check_orientation(bulk, genes)
        check_genes(bulk, name="bulk")
        stored = find_matrix(bulk, layer)
        stored = stored[:] if bulk.isbacked else stored
        dense = stored.toarray() if sp.issparse(stored) else np.asarray(stored)
        values = dense.astype(np.float64)
        check_bulk_values(values, where, bulk.obs_names, bulk.var_names)
        found = check_kind(values, kind, where)
        if kind == "auto":
            warn_about_kind(found, where)
        warn_about_samples(len(values))
        return cls(bulk.obs_names, bulk.var_names, values, found, bulk.obs.copy())

    def shared_with(
        self, signature: Signature, n_genes_per_type: int
    ) -> tuple[Profiles, NDArray, float | None]:
        """Return profiles of the shared genes, counts per million of them, and the depth.

        The depth is the median number of counts of these genes in millions, `None` for TPM.
        """
        expressed = self.genes[self.values.sum(0) > 0]
        shared = signature.genes[signature.genes.isin(expressed)]
        profiles = signature.restricted(shared, n_genes_per_type)
        check_content(profiles.rna, profiles.types)
        check_informative(len(profiles.informative), profiles.genes, signature.genes, self.genes)
        own = self.values[:, self.genes.get_indexer(profiles.genes)]
        totals = own.sum(1, keepdims=True)
        check_shared_counts(totals, self.names)
        millions = float(np.median(totals)) / 1e6 if self.kind == "counts" else None
        return profiles, own / totals * 1e6, millions
