"""RNA content per cell of the types, which turns fractions of RNA into fractions of cells."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scovert.core._checks import UNKNOWN, caller_level
from scovert.model.bulk._signature import Profiles
from scovert.model.bulk._type_names import match_types

__all__ = ["OF_UNKNOWN", "RNA_PER_CELL", "RnaPerCell"]

RNA_PER_CELL = MappingProxyType(
    {
        "CD4 T": 1.0,
        "Treg": 0.96,
        "CD8 T": 0.98,
        "T": 0.99,
        "B": 1.12,
        "NK": 1.24,
        "ILC": 1.15,
        "monocyte": 2.13,
        "DC": 3.10,
        "pDC": 2.74,
        "plasma": 13.2,
        "neutrophil": 0.43,
        "platelet": 0.96,
    }
)
"""RNA per human blood or immune cell by that of a CD4 T cell, without ribosomal and mitochondrial.

Two-way fit (type and source, on the log scale) to the tables of EPIC :cite:p:`Racle17`, quanTIseq
:cite:p:`Finotello19` and ABIS :cite:p:`Monaco19` and to the counts per cell of four single-cell
studies. The sources differ up to 2.2-fold on monocytes; plasma cells rest on one.
"""

_UNCERTAIN_TOGETHER = {"Treg": "CD4 T", "T": "CD4 T", "ILC": "NK"}
"""Types of the table that are wrong together: sources measured them as one, or hardly apart."""

OF_UNKNOWN = "mean of the types"
"""Where the RNA content per cell of the unknown component is from."""


@dataclass(frozen=True)
class RnaPerCell:
    """RNA content per cell of the types of a fit.

    Attributes
    ----------
    values
        RNA of the shared genes in a cell, in any unit, shape ``(n_types,)``.
    source
        ``"table"``, ``"reference"``, ``"none"`` or ``"mapping"``.
    origins
        The same of every type: of some, the reference stands in for table or mapping.
    table_names
        Types that were found in the table, and as what.
    error_groups
        Number of every type; the values of those with the same number are wrong together.
    """

    values: NDArray
    source: str
    origins: dict[str, str]
    table_names: dict[str, str]
    error_groups: NDArray

    @classmethod
    def choose(
        cls, profiles: Profiles, n_cells: NDArray, cell_size: str | Mapping[str, float]
    ) -> Self:
        """Take it from where `cell_size` says, and warn if the reference has to stand in."""
        types, each = profiles.types, np.arange(len(profiles.types))
        matched = match_types(types)
        if cell_size == "auto":
            cell_size = _table_or_reference(profiles, n_cells, matched)
        if isinstance(cell_size, Mapping):
            _warn_about_others("`cell_size`", types, cell_size)
            values, origins = _of_known(profiles, cell_size), _origins(types, cell_size, "mapping")
            return cls(values, "mapping", origins, {}, each)
        if cell_size == "none":
            return cls(np.ones(len(types)), "none", dict.fromkeys(types, "none"), {}, each)
        groups = _error_groups(types, matched)
        if cell_size == "reference":
            return cls(profiles.rna_per_cell, "reference", _origins(types), {}, groups)
        if not matched:
            raise ValueError(
                f"None of the types {list(types)} is in the table of RNA content per cell, which "
                f"knows {list(RNA_PER_CELL)}. Pass `cell_size='reference'`, or a mapping."
            )
        _warn_about_others("The table of RNA content per cell", types, matched)
        table = {kind: RNA_PER_CELL[key] for kind, key in matched.items()}
        values, origins = _of_known(profiles, table), _origins(types, table, "table")
        return cls(values, "table", origins, matched, groups)

    def with_unknown(self) -> Self:
        """Return that of one more type, the unknown one, with the geometric mean of the others."""
        return replace(
            self,
            values=np.append(self.values, stats.gmean(self.values)),
            error_groups=np.append(self.error_groups, self.error_groups.max() + 1),
            origins=self.origins | {UNKNOWN: OF_UNKNOWN},
        )

    def to_cells(self, rna: NDArray) -> NDArray:
        """Turn fractions of RNA into fractions of cells, last axis types."""
        cells = rna / self.values
        return cells / cells.sum(-1, keepdims=True)


def _of_known(profiles: Profiles, known: Mapping[str, float]) -> NDArray:
    """Return the RNA of the shared genes per cell, by the `known` RNA of all genes per cell.

    Types that are not known, in any unit, take their counts in the reference, in the unit that
    fits those which are.
    """
    is_known = np.array([kind in known for kind in profiles.types])
    if not is_known.any():
        return profiles.rna_per_cell
    counts = profiles.rna_per_cell / profiles.covered
    given = np.array([known.get(kind, np.nan) for kind in profiles.types])
    unit = np.exp(np.mean(np.log(given[is_known] / counts[is_known])))
    return np.where(is_known, given, counts * unit) * profiles.covered


def _error_groups(types: Sequence[str], matched: Mapping[str, str]) -> NDArray:
    """Give types numbers, so that those whose RNA content is uncertain together share a number."""
    keys = [matched.get(kind, kind) for kind in types]
    names = [_UNCERTAIN_TOGETHER.get(key, key) for key in keys]
    return np.unique(names, return_inverse=True)[1]


def _origins(
    types: Sequence[str], known: Collection[str] = (), source: str = ""
) -> dict[str, str]:
    return {kind: source if kind in known else "reference" for kind in types}


def _warn_about_others(source: str, types: Sequence[str], known: Collection[str]) -> None:
    """Warn about types whose RNA content is from another source than that of the `known` ones."""
    others = [kind for kind in types if kind not in known]
    if others:
        warnings.warn(
            f"{source} has no number for {others}, but for "
            f"{[kind for kind in types if kind in known]}. The others take their counts per cell "
            "in the reference, in the unit that fits the types which have a number: see "
            "`cell_sizes` of the result. Counts per cell depend on chemistry and study, so "
            "fractions of one kind may be wrong against the other by a factor that all samples "
            "share. Pass a number for every type (a mapping), `cell_size='reference'` for counts "
            "of all, or give types of the table a name that it knows.",
            UserWarning,
            stacklevel=caller_level(),
        )


def _table_or_reference(profiles: Profiles, n_cells: NDArray, matched: Mapping[str, str]) -> str:
    """Choose the table if it has the types of half of the cells of the reference."""
    is_known = np.array([kind in matched for kind in profiles.types])
    if n_cells[is_known].sum() >= n_cells.sum() / 2:
        return "table"
    missing = [kind for kind in profiles.types if kind not in matched]
    warnings.warn(
        f"RNA content per cell is taken from the reference, as its types {missing[:5]} are not in "
        "the table for human blood and immune cells. Counts per cell depend on chemistry and "
        "study, so fractions of types that differ in size may be wrong by a factor that all "
        "samples share. Pass `cell_size` (a mapping, or 'reference' to accept this), or measured "
        "fractions of a sample or two in `measured`.",
        UserWarning,
        stacklevel=caller_level(),
    )
    return "reference"
