"""Tables of bulk samples, whichever way round they are written."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import caller_level, some_of
from scovert.core._paths import place_of
from scovert.core.genes import GeneNames, are_known, kind_of_genes
from scovert.data._bulk_assembly import Parts, assemble
from scovert.data._bulk_descriptions import (
    ambiguous,
    descriptions,
    refuse_mixed_measures,
    refuse_no_expression,
)
from scovert.data._bulk_orientation import (
    begins_with_names,
    column_of,
    find_genes,
    known_names,
    tell_genes,
)
from scovert.data._bulk_programs import STAR, are_no_genes, refuse_one_sample
from scovert.data._bulk_tables import Sheet, as_numbers, has_words, open_sheet

__all__ = ["read_bulk"]

_TABLES = (".csv", ".tsv", ".txt", ".tab", ".gct", ".counts", ".sf", ".results")
_DECIMALS = r'SEP *"?\d+\.(\d+)"? *(?=SEP|\n|\Z)'
_FEW_OTHERS = 10
"""As many columns that the reference lacks are named, and at most one in as many."""


def read_bulk(
    path: str | Path,
    genes: Iterable[str] | pd.DataFrame | AnnData | None = None,
    *,
    gene_column: str | None = None,
) -> AnnData:
    r"""Read bulk samples from a table, whichever way round it is, or from an .h5ad file.

    A table has the genes in rows or in columns: it is read the way round in which more names are
    among `genes`. A message says which one it was.

    Parameters
    ----------
    path
        Table with the names of genes and of samples in its first row and column, and numbers
        besides (``.csv``, ``.tsv``, ``.txt``, also ``.gz``; separated by tabs, commas, semicolons
        or spaces), or an ``.h5ad`` file. Counts or TPM, not logarithms. Read as they are written:
        tables of HTSeq, of STAR (the counts of both strands) and of featureCounts, and .gct.
    genes
        Names to look for: the reference or its ``var``, which may have them in columns too; or a
        list, such as ``reference.var_names``. `None` tells genes by Ensembl identifiers, by their
        number, or by a word such as "gene" above the first column.
    gene_column
        Column with the names of genes, if the genes are in rows and have several. `None` takes
        the column of text with most of the `genes`, or the first one.

    Returns
    -------
    AnnData, samples x genes: all genes of the file in their order, in ``X`` (float32) for a
    table, and how it was read in ``uns["source"]``. Other columns of text and lengths of genes
    are in ``var``. A table of one sample without a first row of names is called like its file.
    An ``.h5ad`` file as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If there is no column `gene_column`.
    ValueError
        If the file is not of these kinds or cannot be read, no gene or no sample is in it, genes
        are found in rows and columns or in neither, the name of a sample occurs twice or lacks,
        an entry is no number or runs over the end of its line, or a column is no sample: a second
        measure of one, a description of genes, or the number of the row.

    Warns
    -----
    UserWarning
        If genes stand in several rows, whose values are added up, or have no name, if one of
        the columns of STAR was taken, or if a few columns are no genes of the reference.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from scovert.data import read_bulk
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "bulk.csv"
    ...     _ = file.write_text("gene,sample_1,sample_2\nCD3E,3,4\nCD19,5,0\n")
    ...     bulk = read_bulk(file, genes=["CD19", "CD3E", "NKG7"])
    >>> bulk.to_df()
              CD3E  CD19
    sample_1   3.0   5.0
    sample_2   4.0   0.0
    """
    path = place_of(path, "path", "a table or an .h5ad file")
    names = None if genes is None else known_names(genes)
    known = None if names is None else names.known()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file. Name a table or an .h5ad file.")
    if path.suffix.lower() == ".h5ad":
        return _read_h5ad(path, known, gene_column)
    if Path(_unpacked(path)).suffix.lower() not in _TABLES:
        raise ValueError(
            f"{path} is none of the files that are read: tables ({', '.join(_TABLES)}, also with "
            ".gz) and .h5ad. Save it as one of these, for example as .csv."
        )
    sheet = open_sheet(path)
    refuse_one_sample(sheet)
    has_names = gene_column in sheet.first or begins_with_names(sheet, known)
    table = _label(sheet, has_names, gene_column)
    if _has_genes_in_rows(table, known):
        parts = _with_genes_in_rows(table, known)
    else:
        parts = _with_genes_in_columns(table, known)
    _refuse_points(sheet, parts.values)
    refuse_mixed_measures(parts.samples, path)
    refuse_no_expression(parts.values, parts.samples, path)
    if names is not None:
        table.notes.extend(column_of(names, parts.var.index))
    return assemble(parts, path, table.notes)


def _unpacked(path: Path) -> str:
    """Return the name of a file without .gz."""
    return path.stem if path.suffix.lower() == ".gz" else path.name


@dataclass
class _Table:
    """A table on its way to samples x genes.

    Attributes
    ----------
    path
        Where it comes from.
    body
        Its columns, numbered, the first one with names.
    labels
        Name of every column.
    gene_column
        Number of the column with the names of genes, if it was said.
    notes
        What is to be said of how it was read.
    """

    path: Path
    body: pd.DataFrame
    labels: pd.Series
    gene_column: int | None = None
    notes: list[str] = field(default_factory=list)

    def text_columns(self) -> list[int]:
        """Return the first column, and the others that hold words."""
        texts = self.body.select_dtypes(exclude="number")
        return [0, *(c for c in texts.columns[1:] if has_words(texts[c]))]


def _label(sheet: Sheet, has_names: bool, gene_column: str | None) -> _Table:
    """Name the columns by the first row, or by the file if that has numbers."""
    if gene_column is not None and gene_column not in sheet.first:
        raise KeyError(
            f"`gene_column={gene_column!r}` is not a column of {sheet.path} (columns: "
            f"{some_of(sheet.first, 8)}). Name one of them, or leave it out."
        )
    number = None if gene_column is None else sheet.first.index(gene_column)
    as_text = {0} if number is None else {0, number}
    body = sheet.read(has_names=has_names, as_text=as_text)
    labels = pd.Series(sheet.first)[body.columns]
    table = _Table(sheet.path, body, labels, number)
    return table if has_names else _without_names(table)


def _without_names(table: _Table) -> _Table:
    """Take the only sample of a table without names of columns, or the first column of STAR."""
    text, body = table.text_columns(), table.body
    samples = [column for column in body.columns if column not in text]
    is_star = body[0].isin(STAR).sum() == len(STAR) and len(samples) == 3
    if len(samples) > 1 and not is_star:
        raise ValueError(
            f"{table.path} has no first row of names (it begins with {some_of(table.labels, 4)}), "
            f"so that its {len(samples)} samples have none. Add a first row: 'gene' and the name "
            "of every sample."
        )
    if is_star:
        table.notes.append("counts of both strands, the first of three columns of STAR")
        warnings.warn(
            f"{table.path} is of STAR, with three counts of every gene. The first is taken, of "
            "reads on both strands, which suits all protocols. For those of one strand make a "
            "table with the names of genes and the second or third count.",
            UserWarning,
            stacklevel=caller_level(),
        )
    table.notes.append("no first row of names, so the sample is called like the file")
    table.body = body[[*text, *samples[:1]]]
    table.labels = pd.Series({column: f"column {column + 1}" for column in text})
    table.labels[samples[0]] = Path(_unpacked(table.path)).stem
    return table


def _has_genes_in_rows(table: _Table, genes: pd.Index | None) -> bool:
    column = _best_column(table, genes)
    rows, columns = pd.Index(table.body[column]), pd.Index(table.labels.iloc[1:])
    if table.gene_column is not None:
        _check_gene_column(table, rows, columns, genes)
        return True
    if genes is not None:
        return find_genes(rows, columns, genes, table.path)
    in_rows, why = tell_genes(rows, columns, table.labels[column], table.path)
    table.notes.append(f"genes told {why}")
    return in_rows


def _check_gene_column(
    table: _Table, rows: pd.Index, columns: pd.Index, genes: pd.Index | None
) -> None:
    if genes is not None and are_known(columns, genes).any() and not are_known(rows, genes).any():
        raise ValueError(
            f"`gene_column={table.labels[table.gene_column]!r}` of {table.path} has names such as "
            f"{some_of(rows)}, none of them a gene, and there are genes in its first row. Leave "
            "it out: genes in columns have no such column."
        )


def _best_column(table: _Table, genes: pd.Index | None) -> int:
    """Return the column of text with most of the genes, or the first that has no numbers."""
    if table.gene_column is not None:
        return table.gene_column
    columns = table.text_columns()
    if genes is not None:
        return max(
            columns, key=lambda column: are_known(pd.Index(table.body[column]), genes).sum()
        )
    return next((c for c in columns if kind_of_genes(pd.Index(table.body[c])) != "numbers"), 0)


def _with_genes_in_rows(table: _Table, genes: pd.Index | None) -> Parts:
    """Take columns of text and known descriptions of genes apart from samples."""
    names, body, labels = _best_column(table, genes), table.body, table.labels
    known, text = descriptions(list(labels)), table.text_columns()
    text += [c for c in body.columns if labels[c] in known and c not in text]
    samples = [column for column in body.columns if column not in (*text, names)]
    if not samples:  # what is there is no number
        samples = [column for column in body.columns if column != names]
    described = sorted(column for column in text if column not in (names, *samples))
    if described:
        table.notes.append(
            f"{f'genes by column {labels[names]!r}, ' if names else ''}descriptions of genes in "
            f"{some_of(labels[described].tolist(), len(described))}"
        )
    rows, columns = pd.Index(body[names]), pd.Index(labels[samples])
    _refuse_descriptions(descriptions(columns) + ambiguous(columns), table.path)
    values = as_numbers(body[samples], rows, columns, table.path)
    # a slash makes a group inside an .h5ad file
    var = {
        labels[column].replace("/", "_") or f"column {column + 1}": body[column].to_numpy()
        for column in described
    }
    frame = pd.DataFrame(var, index=rows.rename(None))
    return Parts(values, columns.rename(None), frame, ("rows", "columns"))


def _with_genes_in_columns(table: _Table, genes: pd.Index | None) -> Parts:
    rows, columns = pd.Index(table.body[0]), pd.Index(table.labels.iloc[1:])
    if genes is not None:
        _warn_about_others(columns, genes, table.path)
    _refuse_descriptions(descriptions(rows) + ambiguous(rows), table.path)
    values = as_numbers(table.body.iloc[:, 1:], rows, columns, table.path)
    var = pd.DataFrame(index=columns.rename(None))
    return Parts(values.T, rows.rename(None), var, ("columns", "rows"))


def _warn_about_others(columns: pd.Index, genes: pd.Index, path: Path) -> None:
    """Name columns that are no genes of the reference, if they are few: age, say, or quality."""
    others = columns[~are_known(columns, genes) & ~are_no_genes(columns)]
    if 0 < len(others) <= min(_FEW_OTHERS, len(columns) // _FEW_OTHERS):
        warnings.warn(
            f"{path}: {some_of(others, _FEW_OTHERS)} in its first row, unlike the others, are not "
            "among the genes that are looked for, and are read as genes. Leave out what describes "
            "samples.",
            UserWarning,
            stacklevel=caller_level(),
        )


def _refuse_points(sheet: Sheet, values: NDArray) -> None:
    """Refuse counts with points for thousands: three digits behind all, and none of a million."""
    parts = values[values != np.rint(values)]
    may_be = len(parts) and parts.min() > 1 and values.max() < 1000
    decimals = _DECIMALS.replace("SEP", re.escape(sheet.separator))
    if may_be and all(len(digits) == 3 for digits in re.findall(decimals, sheet.text)):
        raise ValueError(
            f"{sheet.path} has numbers such as {parts[0]:.3f}, with three digits behind every "
            "point and none above 1000: a point seems to stand for thousands. Write numbers "
            f"without it; if it stands for decimals, write one more digit, {parts[0]:.4f}."
        )


def _refuse_descriptions(samples: list[str], path: Path) -> None:
    if samples:
        raise ValueError(
            f"{path} has a sample called {samples[0]!r}, which looks like a description of the "
            "genes. Leave it out, or rename it if it is a sample."
        )


def _read_h5ad(path: Path, genes: pd.Index | None, gene_column: str | None) -> AnnData:
    from anndata import read_h5ad

    if gene_column is not None:
        raise ValueError(
            f"`gene_column={gene_column!r}` is for tables, and {path} is an .h5ad file. Write the "
            f"names into it: `adata.var_names = adata.var[{gene_column!r}]`."
        )
    try:
        bulk = read_h5ad(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not an .h5ad file that anndata can read ({error}). Write one with "
            "`adata.write_h5ad(...)`."
        ) from error
    names = GeneNames.of(bulk.var).known()
    if genes is not None and find_genes(bulk.obs_names, names, genes, path):
        raise ValueError(
            f"{path} holds genes in `obs` (such as {some_of(bulk.obs_names)}) and samples in "
            "`var`. Samples x genes are accepted: write `adata.T`."
        )
    return bulk
