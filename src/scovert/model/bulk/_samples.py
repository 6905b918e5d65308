"""Bulk samples, read and aligned with a signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import check_genes, check_layer
from scovert.core._counts import find_matrix
from scovert.core.genes import GeneNames, Match, match_genes
from scovert.model.bulk._checks import check_types_have_counts
from scovert.model.bulk._gene_checks import (
    check_informative,
    check_positions,
    warn_about_dates,
    warn_about_lost,
    warn_about_match,
)
from scovert.model.bulk._sample_checks import (
    check_bulk_values,
    check_kind,
    check_linear,
    check_orientation,
    check_shared_counts,
    warn_about_depth,
    warn_about_kind,
    warn_about_samples,
)
from scovert.model.bulk._signature import Profiles, Signature

__all__ = ["Samples"]


@dataclass(frozen=True)
class Samples:
    """Expression of bulk samples on a linear scale.

    Attributes
    ----------
    names
        Names of the samples.
    match
        How genes were matched with those of the reference.
    left_out
        Names of ribosomal and mitochondrial genes, which the reference may not have told.
    genes
        Names of the genes; those of one name are one gene.
    values
        Counts or TPM, shape ``(n_samples, n_genes)``.
    kind
        ``"counts"`` or ``"tpm"``.
    obs
        What is known of the samples.
    """

    names: pd.Index
    match: Match
    left_out: pd.Index
    genes: pd.Index
    values: NDArray
    kind: str
    obs: pd.DataFrame

    @classmethod
    def read(cls, bulk: AnnData, layer: str | None, kind: str, reference: GeneNames) -> Self:
        """Read and check the samples of an AnnData; `reference` has the names of its genes."""
        where = check_layer(bulk, layer, "bulk")
        check_orientation(bulk, reference.known())
        check_genes(bulk, name="bulk")
        stored = find_matrix(bulk, layer)
        stored = stored[:] if bulk.isbacked else stored
        dense = stored.toarray() if sp.issparse(stored) else np.asarray(stored)
        values = dense.astype(np.float64)
        check_bulk_values(values, where, bulk)
        own = GeneNames.of(bulk.var)
        match = match_genes(reference, own)
        is_shared = match.names.isin(match.of_reference(reference.names))
        shared = values[:, is_shared] if is_shared.any() else values
        check_linear(values, shared, where, bulk)
        found = check_kind(values, shared, kind, where)
        if kind == "auto":
            warn_about_kind(found, where)
        warn_about_samples(len(values))
        check_positions(match, reference.names, bulk.var_names)
        warn_about_dates(bulk.var_names, "bulk")
        warn_about_match(match, reference.names, bulk.var_names)
        warn_about_lost(match, reference.names)
        genes, values = _added_up(match.names, values)
        left_out = match.names[own.is_housekeeping()]
        return cls(bulk.obs_names, match, left_out, genes, values, found, bulk.obs.copy())

    def shared_with(
        self, signature: Signature, n_genes_per_type: int | Literal["auto"]
    ) -> tuple[Profiles, NDArray, float | None]:
        """Return profiles of the shared genes, counts per million of them, and the depth.

        The depth is the median number of counts of these genes in millions, `None` for TPM.
        """
        reference = signature.genes
        signature = signature.renamed(self.match.called).without(self.left_out)
        expressed = self.genes[self.values.sum(0) > 0]
        shared = signature.genes[signature.genes.isin(expressed)]
        profiles = signature.restricted(shared, n_genes_per_type)
        check_types_have_counts(profiles.rna_per_cell, profiles.types)
        check_informative(len(profiles.informative), profiles.genes, reference, self.match.own)
        own = self.values[:, self.genes.get_indexer(profiles.genes)]
        totals = own.sum(1, keepdims=True)
        check_shared_counts(totals, self.names)
        warn_about_depth(own, self.names, self.kind)
        millions = float(np.median(totals)) / 1e6 if self.kind == "counts" else None
        return profiles, own / totals * 1e6, millions


def _added_up(names: pd.Index, values: NDArray) -> tuple[pd.Index, NDArray]:
    """Add up the expression of genes of the same name."""
    if names.is_unique:
        return names, values
    code, genes = pd.factorize(names)
    sums = np.zeros((len(values), len(genes)))
    np.add.at(sums.T, code, values.T)
    return genes, sums
