"""Where the public data sets of the benchmarks lie."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from anndata import AnnData, read_h5ad

__all__ = ["DATA", "first_missing", "is_missing", "read"]

DATA = Path(
    os.environ.get("SCOVERT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


def path_of(name: str) -> Path:
    return DATA / f"{name}.h5ad"


def read(name: str) -> AnnData:
    return read_h5ad(path_of(name))


def first_missing(names: Iterable[str | None]) -> str | None:
    """Say which file is not there, and where it was looked for; `None` if all are.

    Parameters
    ----------
    names
        Of files, without the ending; `None` needs no file.
    """
    for path in (path_of(name) for name in names if name is not None):
        if not path.exists():
            return f"there is no {path.name} in {DATA} (see SCOVERT_DATA)"
    return None


def is_missing(scenario: str, name: str | None) -> bool:
    """Whether the file of a scenario is not there; if so, say that it is skipped."""
    reason = first_missing([name])
    if reason is not None:
        print(f"{scenario} is skipped: {reason}.")
    return reason is not None
