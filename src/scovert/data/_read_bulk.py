"""Tables of bulk samples, whichever way round they are written."""

from __future__ import annotations

import csv
import gzip
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert._genes import kind_of_genes
from scovert._validation import some_of

__all__ = ["read_bulk"]

logger = logging.getLogger(__name__)

_TABLES = (".csv", ".tsv", ".txt", ".tab")
_OF_GENES = ("length", "width", "start", "end", "gene_length", "entrezid", "entrez_id")
"""Names of columns with numbers that describe a gene."""
_SEPARATORS = "\t,;"


def read_bulk(path: str | Path, genes: Iterable[str]) -> AnnData:
    r"""Read bulk samples from a table, whichever way round it is, or from an .h5ad file.

    A table has the genes in rows or in columns: it is read the way round in which more names are
    among `genes`. A message says which one it was.

    Parameters
    ----------
    path
        Table with the names of genes and of samples in its first row and column, and numbers
        besides (``.csv``, ``.tsv``, ``.txt``, also ``.gz``; separated by tabs, commas or
        semicolons), or an ``.h5ad`` file. Counts or TPM, not logarithms.
    genes
        Names to look for, such as ``reference.var_names``.

    Returns
    -------
    AnnData, samples x genes: all genes of the file in their order, in ``X`` (float32) for a
    table, and how it was read in ``uns["source"]``. An ``.h5ad`` file as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not of these kinds or cannot be read, no gene or no sample is in it, genes
        are found in rows and columns or in neither, a name occurs twice, or an entry is no number.

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
    path, genes = Path(path), pd.Index(genes)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file. Name a table or an .h5ad file.")
    if path.suffix == ".h5ad":
        return _read_h5ad(path, genes)
    ending = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if ending.lower() not in _TABLES:
        raise ValueError(
            f"{path} is none of the files that are read: tables ({', '.join(_TABLES)}, also with "
            ".gz) and .h5ad. Save it as one of these, for example as .csv."
        )
    rows, columns, body = _read_table(path)
    in_rows = _are_genes_in_rows(rows, columns, genes, path)
    _check_unique(rows, "rows", path)
    _check_unique(columns, "columns", path)
    values = _as_numbers(body, rows, columns, path)
    return _assemble(values, rows, columns, in_rows, path)


def _assemble(
    values: NDArray, rows: pd.Index, columns: pd.Index, in_rows: bool, path: Path
) -> AnnData:
    samples, names = (columns, rows) if in_rows else (rows, columns)
    described = [name for name in samples if name.lower() in _OF_GENES]
    if described:
        raise ValueError(
            f"{path} has a sample called {described[0]!r}, which looks like a description of the "
            "genes. Leave out all but the names of the genes and the samples."
        )
    axes = ("rows", "columns") if in_rows else ("columns", "rows")
    source = f"{path.name}: {len(names)} genes in {axes[0]}, {len(samples)} samples in {axes[1]}"
    logger.info("%s.", source)
    return AnnData(
        np.ascontiguousarray(values.T if in_rows else values, np.float32),
        obs=pd.DataFrame(index=samples),
        var=pd.DataFrame(index=names),
        uns={"source": source},
    )


def _read_h5ad(path: Path, genes: pd.Index) -> AnnData:
    from anndata import read_h5ad

    try:
        bulk = read_h5ad(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not an .h5ad file that anndata can read ({error}). Write one with "
            "`adata.write_h5ad(...)`."
        ) from error
    if _are_genes_in_rows(bulk.obs_names, bulk.var_names, genes, path):
        raise ValueError(
            f"{path} holds genes in `obs` (such as {some_of(bulk.obs_names)}) and samples in "
            "`var`. Samples x genes are accepted: write `adata.T`."
        )
    return bulk


def _read_table(path: Path) -> tuple[pd.Index, pd.Index, pd.DataFrame]:
    """Return the names of the rows and of the columns, and what is between them."""
    try:
        header, separator = _read_header(path)
        options = {"sep": separator, "header": None, "skiprows": 1, "low_memory": False}
        options["keep_default_na"] = False  # a gene or a sample may be called NA
        body = pd.read_csv(path, **options)
        rows = pd.read_csv(path, **options, usecols=[0], dtype=str)[0]
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"{path} is not a table that can be read ({error}). Tables have names in the first "
            "row and column and numbers besides, separated by tabs, commas or semicolons."
        ) from error
    n_columns = body.shape[1] - 1
    if len(header) not in (n_columns, n_columns + 1):  # R leaves out the name of the first column
        raise ValueError(
            f"{path} has {len(header)} names in the first row, and {n_columns + 1} entries in the "
            "others. Every column needs one name."
        )
    columns = pd.Index(header[len(header) - n_columns :], dtype=str)
    return pd.Index(rows).rename(None), columns, body.iloc[:, 1:]


def _read_header(path: Path) -> tuple[list[str], str]:
    """Return the entries of the first row, and what separates them."""
    open_ = gzip.open if path.suffix == ".gz" else open
    with open_(path, "rt", encoding="utf-8-sig", newline="") as file:
        line = file.readline()
    separator = max(_SEPARATORS, key=line.count)
    if separator not in line:
        raise ValueError(f"its first row is {line.strip()[:40]!r}")
    return next(csv.reader([line], delimiter=separator)), separator


def _are_genes_in_rows(rows: pd.Index, columns: pd.Index, genes: pd.Index, path: Path) -> bool:
    """Find out which of two axes has the names of genes."""
    found = {"rows": int(rows.isin(genes).sum()), "columns": int(columns.isin(genes).sum())}
    few, many = sorted(found.values())
    if many == 0:
        _refuse_names(rows, columns, genes, path)
    if 2 * few >= many:
        raise ValueError(
            f"{path} has names of genes in {found['rows']} rows and {found['columns']} columns, "
            "so genes and samples cannot be told apart. Give the samples other names."
        )
    return found["rows"] > found["columns"]


def _refuse_names(rows: pd.Index, columns: pd.Index, genes: pd.Index, path: Path) -> None:
    longer = rows if len(rows) >= len(columns) else columns
    expected, kind = kind_of_genes(genes), kind_of_genes(longer)
    advice = "Name them alike."
    if kind != expected:
        advice = f"The file seems to have {kind}, and {expected} are expected: translate them."
    elif longer.str.upper().isin(genes.str.upper()).any():
        advice = "They differ in upper and lower case: is it the same species?"
    raise ValueError(
        f"{path} has none of the {len(genes)} genes (such as {some_of(genes)}): neither in its "
        f"rows (such as {some_of(rows)}) nor in its columns (such as {some_of(columns)}). {advice}"
    )


def _check_unique(names: pd.Index, axis: str, path: Path) -> None:
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"{path} holds {len(twice)} names of {axis} more than once, such as {some_of(twice)}. "
            "Names must be unique: rename samples, and add up the counts of the same gene."
        )


def _as_numbers(body: pd.DataFrame, rows: pd.Index, columns: pd.Index, path: Path) -> NDArray:
    """Return the entries as numbers, or refuse the first that is none."""
    numbers, words = body.copy(), body.select_dtypes(exclude="number")
    if words.shape[1]:
        numbers[words.columns] = words.apply(pd.to_numeric, errors="coerce")
    values = numbers.to_numpy(float)
    is_bad = ~np.isfinite(values)
    if not is_bad.any():
        return values
    column = is_bad.sum(axis=0).argmax()  # one of words rather than one with a single bad entry
    row = is_bad[:, column].argmax()
    place = f"{str(body.iloc[row, column])!r} (row {rows[row]!r}, column {columns[column]!r}"
    if is_bad.all():
        raise ValueError(
            f"{path} has no numbers: its first entry is {place}). Counts or TPM are accepted, "
            "with a point for decimals."
        )
    raise ValueError(
        f"{path} holds {place}; {is_bad.sum()} such entries in {is_bad.any(axis=0).sum()} "
        "columns). Only finite numbers are accepted: leave out columns with anything else, and "
        "fill in what is missing."
    )
