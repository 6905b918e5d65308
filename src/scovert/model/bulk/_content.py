"""RNA content of the types of a fit, by what the user asked for."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scovert.core._checks import UNKNOWN, caller_level
from scovert.model.bulk._rna_content import RNA_PER_CELL, size_groups, table_sizes
from scovert.model.bulk._signature import Profiles
from scovert.model.bulk._type_names import match_types

__all__ = ["OF_UNKNOWN", "Content", "find_content"]

OF_UNKNOWN = "mean of the types"
"""Where the RNA content of the unknown component is from."""


@dataclass(frozen=True)
class Content:
    """RNA per cell.

    Attributes
    ----------
    sizes
        RNA of the shared genes in a cell, shape ``(n_types,)``.
    source
        ``"table"``, ``"reference"``, ``"none"`` or ``"mapping"``.
    origins
        The same of every type: of some, the reference stands in for table or mapping.
    matched
        Types that were found in the table, and as what.
    groups
        Number of every type; those with the same number are wrong together.
    """

    sizes: NDArray
    source: str
    origins: dict[str, str]
    matched: dict[str, str]
    groups: NDArray

    def with_unknown(self) -> Content:
        """Return the sizes with those of an unknown type, the geometric mean."""
        sizes = np.append(self.sizes, np.exp(np.log(self.sizes).mean()))
        groups = np.append(self.groups, self.groups.max() + 1)
        origins = self.origins | {UNKNOWN: OF_UNKNOWN}
        return replace(self, sizes=sizes, groups=groups, origins=origins)


def find_content(
    profiles: Profiles, n_cells: NDArray, cell_size: str | Mapping[str, float]
) -> Content:
    """Choose the RNA content of the types, and warn if the reference has to stand in."""
    types = profiles.types
    matched = match_types(types)
    if cell_size == "auto":
        cell_size = _choose(profiles, n_cells, matched)
    if isinstance(cell_size, Mapping):
        _warn_about_others("`cell_size`", types, cell_size)
        sizes, each = table_sizes(profiles, cell_size), np.arange(len(types))
        return Content(sizes, "mapping", _origins(types, cell_size, "mapping"), {}, each)
    if cell_size == "none":
        each = np.arange(len(types))
        return Content(np.ones(len(types)), "none", dict.fromkeys(types, "none"), {}, each)
    groups = size_groups(types)
    if cell_size == "reference":
        return Content(profiles.rna, "reference", _origins(types, {}, ""), {}, groups)
    if not matched:
        raise ValueError(
            f"None of the types {list(types)} is in the table of RNA content, which "
            f"knows {list(RNA_PER_CELL)}. Pass `cell_size='reference'`, or a mapping."
        )
    _warn_about_others("The table of RNA content", types, matched)
    table = {kind: RNA_PER_CELL[key] for kind, key in matched.items()}
    origins = _origins(types, table, "table")
    return Content(table_sizes(profiles, table), "table", origins, matched, groups)


def _origins(types: Sequence[str], known: Collection[str], source: str) -> dict[str, str]:
    return {kind: source if kind in known else "reference" for kind in types}


def _warn_about_others(source: str, types: Sequence[str], known: Collection[str]) -> None:
    """Warn about types whose RNA content is of another kind than that of the `known` ones."""
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


def _choose(profiles: Profiles, n_cells: NDArray, matched: dict[str, str]) -> str:
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
