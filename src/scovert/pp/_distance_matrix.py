"""Distances of samples from elsewhere, matched to an AnnData by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import some_of
from scovert.core._words import counted
from scovert.data._bulk_tables import read_numbers

if TYPE_CHECKING:
    from skbio import DistanceMatrix

__all__ = ["distances"]


def distances(
    adata: AnnData,
    matrix: pd.DataFrame | DistanceMatrix | NDArray | str | os.PathLike,
    *,
    key_added: str = "distances",
) -> None:
    """Add a matrix of distances between samples, matched by name.

    An array in ``adata.obsp`` has no names: one in another order gives a model that is wrong
    without a sign of it. So pass what knows the names.

    Parameters
    ----------
    adata
        The samples.
    matrix
        DataFrame with the names of the samples as rows and columns, a DistanceMatrix of
        scikit-bio, or a table of this form, ``.csv`` or separated by tabs, in any order, with
        others besides; or an array in the order of the samples.
    key_added
        Slot of ``adata.obsp`` to write.

    Raises
    ------
    ValueError
        If samples are missing, or a name occurs twice, or the shape is another.
    TypeError
        If the matrix is sparse, or does not hold numbers.

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
    if type(matrix).__module__.startswith("skbio."):
        matrix = matrix.to_data_frame()  # which has the names
    if isinstance(matrix, pd.DataFrame):
        matrix = _by_name(matrix, adata.obs_names)
    matrix = _as_numbers(matrix)
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
    try:
        return read_numbers(table, has_names=True)
    except ValueError as error:
        raise ValueError(
            f"{file} is no table of distances: {error} A distance stands for every pair of "
            "samples, in both directions."
        ) from error


def _by_name(matrix: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    for axis, labels in (("rows", matrix.index), ("columns", matrix.columns)):
        labels = labels.astype(str)
        missing = names.difference(labels, sort=False)
        if len(missing):
            raise ValueError(
                f"The {axis} of `matrix` lack {len(missing)} of the {len(names)} samples, such as "
                f"{some_of(missing)} (they are called {some_of(labels)}). "
                f"{_why_missing(matrix.index, names)}"
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


def _why_missing(found: pd.Index, names: pd.Index) -> str:
    """Say what became of the names of samples, or else what to pass."""
    if pd.api.types.is_numeric_dtype(found):
        return (
            "They were read as numbers, of which 001 is 1 and 1.10 is 1.1. Read names as text: "
            "`matrix = pd.read_csv(file, sep='\\t', dtype=str)`, then "
            "`matrix.set_index(matrix.columns[0]).astype(float)`."
        )
    of_r = names.str.replace(r"[^\w.]", ".", regex=True).str.replace(r"^(?=\d)", "X", regex=True)
    if of_r.isin(found.astype(str)).all():
        return "R changed them: read and write the table there with `check.names=FALSE`."
    return "Pass the distances of all samples, or keep those that have them."


def _as_numbers(matrix: object) -> NDArray:
    """Return the distances, or refuse what does not hold numbers."""
    if sp.issparse(matrix):
        raise TypeError(
            "`matrix` is sparse, as the graph of `sc.pp.neighbors`, which holds distances to "
            "neighbours only. Pass the distances of all pairs, as an array or a DataFrame."
        )
    try:
        return np.asarray(matrix, float)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`matrix` is a {type(matrix).__name__} that does not hold numbers ({error}). Pass an "
            "array or a DataFrame of distances, without samples that have none."
        ) from error
