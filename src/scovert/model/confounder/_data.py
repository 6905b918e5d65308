"""Counts, treatment and covariates of cells as the regressions want them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from scovert.core._counts import as_csr, get_counts, row_blocks
from scovert.core._minibatch import genes_of
from scovert.core._registered import codes_of
from scovert.model.confounder._donor_design import DonorDesign, read_design
from scovert.model.confounder.effects import Arms, Donors
from scovert.model.confounder.glm import CountBlocks

__all__ = [
    "TREATMENT_KEY",
    "TreatmentData",
    "check_same_cells",
    "design_of",
    "find_donors",
    "find_scale",
    "treatment_levels",
]

TREATMENT_KEY = "treatment"
CONSTANT = 1e-9
"""Range of a covariate within a donor, in its units, that is rounding."""

SMALLEST_SIZE = 1e-3
"""Size factor of a cell without counts."""


def treatment_levels(registry: dict) -> list[object]:
    """Return the levels of the treatment, the reference first."""
    state = registry["field_registries"][TREATMENT_KEY]["state_registry"]
    levels = np.asarray(state["categorical_mapping"]).tolist()
    reference = registry["setup_args"]["reference"]
    reference = min(levels) if reference is None else reference
    return [reference, *[level for level in levels if level != reference]]


@dataclass(frozen=True)
class TreatmentData:
    """Cells with their counts, treatment and covariates.

    Attributes
    ----------
    counts
        Raw counts, genes in the order of the model, shape ``(n_cells, n_genes)``.
    level
        Treatment, 0 for the reference, shape ``(n_cells,)``.
    n_levels
        Number of arms, the reference included.
    covariates
        Intercept and covariates, shape ``(n_cells, 1 + n_covariates)``.
    size
        Size factors, shape ``(n_cells,)``.
    """

    counts: sp.csr_matrix
    level: NDArray
    n_levels: int
    covariates: NDArray
    size: NDArray

    @classmethod
    def read(
        cls, adata: AnnData, registry: dict, scale: NDArray, design: DonorDesign
    ) -> TreatmentData:
        """Read cells as a registry describes them, their genes matched by name.

        Parameters
        ----------
        adata
            The cells.
        registry
            Where things are, and the categories that are known.
        scale
            As `find_scale` returns it for the cells of the model.
        design
            As `design_of` returns it for them: donors that are blocks become covariates.
        """
        setup = registry["setup_args"]
        counts = as_csr(get_counts(adata, setup["layer"]))
        genes = genes_of(registry)
        if not adata.var_names.equals(genes):
            counts = counts[:, adata.var_names.get_indexer(genes)]
        levels = treatment_levels(registry)
        level = codes_of(adata.obs, setup["treatment_key"], levels)
        covariates = _covariates(adata.obs, registry, scale[:, 1:], design.held)
        if design.blocks:
            donors = design.block_columns(adata.obs[setup["cluster_key"]])
            covariates = np.hstack([covariates, donors])
        if setup["size_factor_key"] is not None:
            size = adata.obs[setup["size_factor_key"]].to_numpy(float)
        else:
            totals = np.asarray(counts.sum(axis=1, dtype=float)).ravel()
            size = np.maximum(totals / max(scale[0, 0], SMALLEST_SIZE), SMALLEST_SIZE)
        return cls(counts, level, len(levels), covariates, size)

    def __len__(self) -> int:
        return len(self.level)

    def take(self, rows: NDArray) -> TreatmentData:
        """Return some of the cells, in the order of `rows`."""
        kept = (self.counts[rows], self.level[rows], self.n_levels)
        return TreatmentData(*kept, self.covariates[rows], self.size[rows])

    def fingerprint(self) -> str:
        """Return a hash of the cells' totals, treatment, covariates and size factors."""
        totals = np.asarray(self.counts.sum(axis=1, dtype=float))
        parts = (totals, self.level.astype(np.int64), self.covariates, self.size)
        return hashlib.sha256(b"".join(np.ascontiguousarray(p) for p in parts)).hexdigest()

    @property
    def indicators(self) -> NDArray:
        """One column for each arm but the reference."""
        return np.eye(self.n_levels)[self.level][:, 1:]

    @property
    def design(self) -> NDArray:
        """Intercept, covariates and arms, shape ``(n_cells, n_columns)``."""
        return np.hstack([self.covariates, self.indicators])

    def arms(self, by_covariates: NDArray) -> Arms:
        """Return the treatment, less its linear prediction with these coefficients."""
        return Arms(self.level, self.indicators - self.covariates @ by_covariates)

    @property
    def by_covariates(self) -> NDArray:
        """Coefficients of the arms' linear prediction by the covariates, a column for each."""
        return np.linalg.lstsq(self.covariates, self.indicators, rcond=None)[0]

    def blocks(
        self, genes: NDArray, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> CountBlocks:
        """Return the counts of some genes, given as a mask, as blocks of cells."""
        counts = self.counts if genes.all() else self.counts[:, genes]
        return CountBlocks(counts, np.log(self.size), device=device, dtype=dtype)

    def totals(self) -> NDArray:
        """Total count of every gene in every arm, shape ``(n_levels, n_genes)``."""
        return np.stack(
            [
                np.asarray(self.counts[self.level == level].sum(axis=0, dtype=float)).ravel()
                for level in range(self.n_levels)
            ]
        )


def check_same_cells(cells: TreatmentData, fingerprint: str) -> None:
    """Refuse other cells than those of a fingerprint."""
    if cells.fingerprint() != fingerprint:
        raise ValueError(
            "The AnnData of this model does not hold what it was trained with: it has other cells "
            "or another order of them, or its counts, treatment or covariates were changed. "
            "Effects are those of the cells that were fitted: attach these, with raw counts (keep "
            "them in a layer, `layer=...`), and pass other cells to the methods as `adata`."
        )


def design_of(adata: AnnData, registry: dict) -> DonorDesign:
    """Return how the treatment is spread over the donors of an AnnData that was set up."""
    setup = registry["setup_args"]
    return read_design(
        adata.obs,
        setup["treatment_key"],
        treatment_levels(registry),
        cluster_key=setup["cluster_key"],
        categorical=list(setup["categorical_covariate_keys"] or []),
        continuous=list(setup["continuous_covariate_keys"] or []),
    )


def find_donors(
    adata: AnnData, registry: dict, covariates: NDArray, design: DonorDesign
) -> Donors | None:
    """Return the donors of the cells that are fitted, if any are named.

    Parameters
    ----------
    adata, registry
        The cells, and where things are.
    covariates
        Intercept and covariates, shape ``(n_cells, 1 + n_covariates)``.
    design
        As `design_of` returns it.
    """
    key = registry["setup_args"]["cluster_key"]
    if key is None:
        return None
    codes = pd.factorize(adata.obs[key])[0]
    if design.blocks:
        return Donors(codes, are_blocks=True)
    frame = pd.DataFrame(covariates[:, 1:]).groupby(codes)
    is_constant = ((frame.max() - frame.min()).abs() < CONSTANT).all(axis=0)
    return Donors(codes, int(is_constant.sum()))


def find_scale(adata: AnnData, registry: dict) -> NDArray:
    """Return the mean total count, and means and standard deviations of numeric covariates.

    Parameters
    ----------
    adata
        Cells of the model.
    registry
        Where things are.

    Returns
    -------
    Means above standard deviations, shape ``(2, 1 + n_covariates)``; first that of the totals.
    """
    counts = get_counts(adata, registry["setup_args"]["layer"])
    totals = np.concatenate(
        [np.asarray(block.sum(axis=1, dtype=float)).ravel() for _, block in row_blocks(counts)]
    )
    keys = registry["setup_args"]["continuous_covariate_keys"] or []
    columns = np.column_stack([totals, adata.obs[keys].to_numpy(float)])
    return np.stack([columns.mean(0), columns.std(0)])


def _covariates(obs: pd.DataFrame, registry: dict, scale: NDArray, held: list[str]) -> NDArray:
    """Intercept, indicators of the categories but the first, and standardised numbers.

    Without the covariates that donors as blocks hold already.
    """
    fields, setup = registry["field_registries"], registry["setup_args"]
    columns = [np.ones((len(obs), 1))]
    categories = fields[REGISTRY_KEYS.CAT_COVS_KEY]["state_registry"]
    for key, levels in categories.get("mappings", {}).items():
        codes = codes_of(obs, key, np.asarray(levels).tolist())
        if key not in held:
            columns.append(np.eye(len(levels))[codes][:, 1:])
    for key, (mean, sd) in zip(setup["continuous_covariate_keys"] or [], scale.T, strict=True):
        if key not in held:
            columns.append((obs[[key]].to_numpy(float) - mean) / sd)
    return np.hstack(columns)
