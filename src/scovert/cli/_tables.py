"""Tables and groups of types that ``scovert deconvolve`` takes besides the samples."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SIZES", "group_types", "read_groups", "read_measured", "read_sizes"]

SIZES = ("auto", "table", "reference", "none")


def read_measured(file: Path | None) -> pd.DataFrame | None:
    """Read fractions with names in the first row and column; empty ones are NaN."""
    from scovert.data._bulk_tables import read_numbers

    return None if file is None else read_numbers(file, has_names=True)


def read_sizes(cell_size: str) -> str | dict[str, float]:
    """Return a choice of RNA per cell, or the numbers in a file."""
    if cell_size in SIZES:
        return cell_size
    if not Path(cell_size).is_file():
        raise ValueError(
            f"--cell-size {cell_size} is neither one of {', '.join(SIZES)} nor a file. Pass one "
            "of these, or a table with types in the first column and RNA per cell in the second."
        )
    from scovert.data._bulk_tables import read_numbers

    table = read_numbers(Path(cell_size))
    if table.shape[1] != 1:
        raise ValueError(
            f"--cell-size {cell_size} has {table.shape[1]} columns of numbers. Types in the first "
            "column and RNA per cell in the second are accepted: leave out the others."
        )
    twice = list(table.index[table.index.duplicated()].unique())
    if twice:
        raise ValueError(
            f"--cell-size {cell_size} has more than one number for {twice}. Keep one of each."
        )
    return table.iloc[:, 0].to_dict()


def read_groups(texts: list[str] | None) -> dict[str, str]:
    """Read names of groups, and the text of their types, from ``name=type,type``."""
    groups: dict[str, str] = {}
    for text in texts or []:
        name, separator, types = text.partition("=")
        name = name.strip()
        if not separator or not name:
            raise ValueError(
                f"--group {text} is no group. Name it and its types, for example "
                '--group "T=CD4 T,CD8 T".'
            )
        if name in groups:
            raise ValueError(
                f"--group {text} names {name!r} a second time. Name all its types in one --group."
            )
        groups[name] = types
    return groups


def group_types(groups: dict[str, str], types: Collection[str]) -> dict[str, list[str]] | None:
    """Split the types of groups at commas, but for those in the names of types."""
    known = {kind.strip(): kind for kind in types}
    return {name: _split(text, known) for name, text in groups.items()} or None


def _split(text: str, known: dict[str, str]) -> list[str]:
    """Take the longest known name again and again, or else what is up to the next comma."""
    parts, found = text.split(","), []
    while parts:
        names = {n: ",".join(parts[:n]).strip() for n in range(len(parts), 0, -1)}
        n_taken = next((n for n, name in names.items() if name in known), 1)
        name = names[n_taken]
        if name:
            found.append(known.get(name, name))
        parts = parts[n_taken:]
    return found
