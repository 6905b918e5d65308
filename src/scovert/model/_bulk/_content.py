"""RNA content of the types of a fit, by what the user asked for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scovert._validation import caller_level
from scovert.mixing import Profiles, match_types, size_groups, table_sizes
from scovert.mixing._sizes import RNA_PER_CELL

__all__ = ["Content", "find_content"]


@dataclass(frozen=True)
class Content:
    """RNA per cell.

    Attributes
    ----------
    sizes
        RNA of the shared genes in a cell, shape ``(n_types,)``.
    source
        ``"table"``, ``"reference"``, ``"none"`` or ``"mapping"``.
    matched
        Types that were found in the table, and as what.
    groups
        Number of every type; those with the same number are wrong together.
    """

    sizes: NDArray
    source: str
    matched: dict[str, str]
    groups: NDArray

    def with_unknown(self) -> Content:
        """Return the sizes with those of an unknown type, the geometric mean."""
        sizes = np.append(self.sizes, np.exp(np.log(self.sizes).mean()))
        groups = np.append(self.groups, self.groups.max() + 1)
        return replace(self, sizes=sizes, groups=groups)


def find_content(
    profiles: Profiles, n_cells: NDArray, cell_size: str | Mapping[str, float]
) -> Content:
    """Choose the RNA content of the types, and warn if the reference has to stand in."""
    matched = match_types(profiles.types)
    each = np.arange(len(profiles.types))
    if cell_size == "auto":
        cell_size = _choose(profiles, n_cells, matched)
    if isinstance(cell_size, Mapping):
        _warn_about_others([kind for kind in profiles.types if kind not in cell_size])
        return Content(table_sizes(profiles, cell_size), "mapping", {}, each)
    if cell_size == "none":
        return Content(np.ones(len(profiles.types)), "none", {}, each)
    if cell_size == "reference":
        return Content(profiles.rna, "reference", {}, size_groups(profiles.types))
    if not matched:
        raise ValueError(
            f"None of the types {list(profiles.types)} is in the table of RNA content, which "
            f"knows {list(RNA_PER_CELL)}. Pass `cell_size='reference'`, or a mapping."
        )
    groups = size_groups(profiles.types)
    table = {kind: RNA_PER_CELL[key] for kind, key in matched.items()}
    return Content(table_sizes(profiles, table), "table", matched, groups)


def _warn_about_others(types: list[str]) -> None:
    if types:
        warnings.warn(
            f"`cell_size` has no number for {types}. They take their counts per cell in the "
            "reference, in the unit that fits the types which have one: see `cell_sizes` of the "
            "result. Counts per cell depend on the chemistry, so name all types if you can.",
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
