"""Distances of samples from elsewhere, matched to an AnnData by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import some_of
from scovert.core._words import counted

__all__ = ["distances"]


def distances(
    adata: AnnData,
    matrix: pd.DataFrame | NDArray | str | os.PathLike,
    *,
    key_added: str = "distances",
) -> None:
    """Add a matrix of distances between samples, matched by name.

    An array in ``adata.obsp`` has no names: one in another order gives a model that is wrong
    without a sign of it. So pass a DataFrame, such as ``skbio.DistanceMatrix.to_data_frame()``.

    Parameters
    ----------
    adata
        The samples.
    matrix
        DataFrame with the names of the samples as rows and columns, in any order, with others
        besides; or a table of this form, ``.csv`` or separated by tabs; or an array in the order
        of the samples.
    key_added
        Slot of ``adata.obsp`` to write.

    Raises
    ------
    ValueError
        If samples are missing, or a name occurs twice, or the shape is another.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import scovert
    >>> from anndata import AnnData
    >>> adata = AnnData(np.ones((2, 3)))
    >>> adata.obs_names = ["a", "b"]
    >>> matrix = pd.DataFrame([[0, 1, 2], [1, 0, 3], [2, 3, 0]], list("xba"), list("xba"))
    >>> scovert.pp.distances(adata, matrix)
    >>> adata.obsp["distances"].tolist()
    [[0.0, 3.0], [3.0, 0.0]]
    """
    if isinstance(matrix, str | os.PathLike):
        matrix = read_distances_of(Path(matrix))
    if isinstance(matrix, pd.DataFrame):
        matrix = _by_name(matrix, adata.obs_names)
    matrix = np.asarray(matrix, float)
    if matrix.shape != (adata.n_obs, adata.n_obs):
        raise ValueError(
            f"`matrix` has shape {matrix.shape}, and there are {adata.n_obs} samples. Pass a "
            "distance for each pair of them, in their order, or a DataFrame with their names."
        )
    adata.obsp[key_added] = matrix


def read_distances_of(table: Path, named: Path | None = None) -> pd.DataFrame:
    """Read a table with names of samples in its first row and column.

    Parameters
    ----------
    table
        Separated by commas if it is called ``.csv``, by tabs otherwise.
    named
        What the user called it; `None` means `table`.
    """
    file = named or table
    if not table.is_file():
        raise FileNotFoundError(f"{file} is not a file. Name a table of distances (.tsv, .csv).")
    separator = "," if table.suffix.lower() == ".csv" else "\t"
    try:
        # No `index_col`: pandas would make numbers of names, and sample 1.10 the same as 1.1
        found = pd.read_csv(table, sep=separator, dtype=str, keep_default_na=False)
        if isinstance(found.index, pd.RangeIndex):  # else R left out the corner of the table
            found = found.set_index(found.columns[0])
        return found.astype(float)
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(
            f"{file} is no table of distances: {error}. Its first row and column name the "
            "samples, and all else is numbers."
        ) from error


def _by_name(matrix: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    for axis, labels in (("rows", matrix.index), ("columns", matrix.columns)):
        labels = labels.astype(str)
        missing = names.difference(labels, sort=False)
        if len(missing):
            raise ValueError(
                f"The {axis} of `matrix` lack {len(missing)} of the {len(names)} samples, such as "
                f"{some_of(missing)} (they are called {some_of(labels)}). Pass the distances of "
                "all samples, or keep those that have them."
            )
        twice = labels[labels.duplicated()].union(names[names.duplicated()])
        if len(twice):
            raise ValueError(
                f"More than once in the {axis} of `matrix` or in "
                f"`adata.obs_names`: {counted(len(twice), 'sample')}, such as "
                f"{some_of(twice)}. Samples are matched by name, so "
                "names must be unique."
            )
    named = matrix.set_axis(matrix.index.astype(str)).set_axis(matrix.columns.astype(str), axis=1)
    return named.loc[names, names]
