"""From what a table holds to samples x genes: checked samples, tidy genes."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import caller_level, some_of
from scovert.core._words import counted
from scovert.core.genes import are_dates
from scovert.data._bulk_programs import are_no_genes

__all__ = ["Parts", "assemble"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a table holds.

    Attributes
    ----------
    values
        Numbers, shape ``(n_genes, n_samples)``.
    samples
        Their names.
    var
        Descriptions of the genes, with their names as index.
    axes
        Where the table has genes and where samples: its rows or columns.
    """

    values: NDArray
    samples: pd.Index
    var: pd.DataFrame
    axes: tuple[str, str]


def assemble(parts: Parts, path: Path, notes: list[str]) -> AnnData:
    """Return samples x genes, and say in `uns` and by a message how they were read."""
    _check_samples(parts.samples, parts.axes[1], path)
    for tidy in (_without_reads_outside, _without_unnamed, _without_dates, _added_up):
        parts, note = tidy(parts, path)
        notes = [*notes, *([note] if note else [])]
    source = (
        f"{path.name}: {counted(len(parts.var), 'gene')} in {parts.axes[0]}, "
        f"{counted(len(parts.samples), 'sample')} in "
        f"{parts.axes[1]}{''.join(f'; {note}' for note in notes)}"
    )
    logger.info("%s.", source)
    return AnnData(
        np.ascontiguousarray(parts.values.T, np.float32),
        obs=pd.DataFrame(index=parts.samples),
        var=parts.var,
        uns={"source": source},
    )


def _check_samples(names: pd.Index, axis: str, path: Path) -> None:
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{path} holds {counted(len(twice), 'name')} of {axis} more than once, such as "
            f"{some_of(twice)}. "
            "Names of samples must be unique: rename them."
        )
    if "" in names:
        raise ValueError(
            f"{path} has a sample without a name, number {names.get_loc('') + 1} in its {axis}. "
            "Give every sample a name."
        )


def _without_reads_outside(parts: Parts, path: Path) -> tuple[Parts, str]:
    outside = are_no_genes(parts.var.index)
    if not outside.any():
        return parts, ""
    names = ", ".join(parts.var.index[outside])
    return _selected(parts, ~outside), f"reads outside of genes left out ({names})"


def _without_unnamed(parts: Parts, path: Path) -> tuple[Parts, str]:
    has_name = np.asarray(parts.var.index.str.contains(r"\w"), bool)  # a hyphen is none
    if has_name.all():
        return parts, ""
    note = f"{counted((~has_name).sum(), 'gene')} without a name left out"
    _warn(path, note, "Fill their names in, or choose another `gene_column`.")
    return _selected(parts, has_name), note


def _without_dates(parts: Parts, path: Path) -> tuple[Parts, str]:
    is_date = are_dates(parts.var.index)
    if not is_date.any():
        return parts, ""
    dates = parts.var.index[is_date]
    note = f"{counted(len(dates), 'gene')} called like a date left out"
    cause = "A spreadsheet made these of symbols such as 'MARCH1', and each may be of several."
    _warn(path, f"{note}, such as {some_of(dates)}", f"{cause} Take the table as it was before.")
    return _selected(parts, ~is_date), note


def _added_up(parts: Parts, path: Path) -> tuple[Parts, str]:
    """Add up the values of genes that occur several times: counts and TPM of a gene are sums."""
    names = parts.var.index
    twice = names[names.duplicated()].unique()
    if not len(twice):
        return parts, ""
    note = f"{counted(len(twice), 'gene')} that occur more than once added up"
    _warn(path, f"{note}, such as {some_of(twice)}", "If these are other genes, rename them.")
    codes, unique = pd.factorize(names)
    totals = np.zeros((len(unique), parts.values.shape[1]))
    np.add.at(totals, codes, parts.values)
    return replace(parts, values=totals, var=parts.var[~names.duplicated()]), note


def _selected(parts: Parts, is_kept: NDArray) -> Parts:
    return replace(parts, values=parts.values[is_kept], var=parts.var[is_kept])


def _warn(path: Path, what: str, advice: str) -> None:
    warnings.warn(f"{path}: {what}. {advice}", UserWarning, stacklevel=caller_level())
