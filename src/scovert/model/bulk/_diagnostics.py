"""Rows of ``check()`` of a reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scovert.core._diagnostics import HealthRow, row
from scovert.model.bulk._gene_checks import FEW_GENES
from scovert.model.bulk._signature import OFFSET, Signature

__all__ = ["diagnose", "reference_rows"]

FEW_CELLS = 50
"""Cells of a type below which its profile is said to rest on few: it then has one state only."""
FEW_GENES_OF_TYPE = 10
"""Genes that are highest in a type, below which it is said to be hard to tell."""
ALIKE = 0.95
"""Correlation of log expression from which two types are said to be alike."""


def diagnose(signatures: dict[str, Signature], n_genes_per_type: int | str) -> list[HealthRow]:
    """Return the rows of the signatures of all studies, by their names."""
    rows = []
    for name, signature in signatures.items():
        profiles = signature.restricted(signature.genes, n_genes_per_type)
        n_cells = dict(zip(signature.types, map(int, signature.n_cells), strict=True))
        at = profiles.informative
        rows += reference_rows(name, n_cells, len(at), profiles.type_shares[:, at])
    return rows


def reference_rows(
    study: str, n_cells: dict[str, int], n_genes: int, shares: NDArray
) -> list[HealthRow]:
    """Return what a reference can tell.

    Parameters
    ----------
    study
        Name of the study, empty if there is only one.
    n_cells
        Cells of every type.
    n_genes
        Genes that tell types apart.
    shares
        Shares of these genes in the types, shape ``(n_types, n_genes)``.
    """
    prefix = f"{study}: " if study else ""
    smallest = min(n_cells, key=n_cells.get)
    advice = ""
    if n_cells[smallest] < FEW_CELLS:
        advice = f"The profile of {smallest!r} rests on few cells: merge it with a related type."
    rows = [row(f"{prefix}cells of the smallest type", n_cells[smallest], advice)]
    advice = "" if n_genes >= FEW_GENES else "Few genes tell the types apart: pass all genes."
    rows.append(row(f"{prefix}informative genes", n_genes, advice))
    own = np.bincount(shares.argmax(0), minlength=len(n_cells))
    rarest = list(n_cells)[own.argmin()]
    advice = ""
    if own.min() < FEW_GENES_OF_TYPE:
        advice = (
            f"Few genes tell {rarest!r} from the others beyond what sampling explains: merge it "
            "with a related type, or use more cells."
        )
    rows.append(row(f"{prefix}genes highest in {rarest}, the fewest", own.min(), advice))
    likeness = np.corrcoef(np.log(shares * 1e6 + OFFSET))
    np.fill_diagonal(likeness, -1)
    pair = np.unravel_index(likeness.argmax(), likeness.shape)
    first, second = (list(n_cells)[i] for i in pair)
    advice = ""
    if likeness.max() > ALIKE:
        advice = (
            f"{first!r} and {second!r} express almost alike: read their sum rather than each, or "
            "merge them."
        )
    return [
        *rows,
        row(
            f"{prefix}correlation of {first} and {second}, the closest types",
            likeness.max(),
            advice,
        ),
    ]
