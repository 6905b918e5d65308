"""Cells of one file, or of several that are concatenated."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

from scovert.cli._read import READ, check_source, read
from scovert.cli._session import Subject, speak_about
from scovert.cli._tenx import MATRIX

if TYPE_CHECKING:
    import pandas as pd
    import typer
    from anndata import AnnData

__all__ = ["check_sources", "names_of", "read_cells"]

FILE_KEY = "file"
GENE_IDS, VERSION = "gene_ids", re.compile(r"\.\d+$")
"""Column of identifiers, as scanpy calls it, and what they may end in."""
ENDINGS = (*READ, f"_{MATRIX}", f".{MATRIX}")
SEVERAL = "Several files are concatenated (`anndata.concat`), and the file tells their cells apart"


def check_sources(files: Sequence[Path], key: str | None, argument: str) -> None:
    """Refuse files that are not there or named twice, and one file without a `key`.

    Parameters
    ----------
    files
        Files of the input.
    key
        Column of obs that tells the cells apart.
    argument
        Name of the parameter for `key`.
    """
    for file in files:
        try:
            check_source(file)
        except FileNotFoundError as error:
            hint = f" {SEVERAL}: all of them must be there." if len(files) > 1 else ""
            raise FileNotFoundError(f"{error}{hint}") from error
    twice = [file for file, n in Counter(file.resolve() for file in files).items() if n > 1]
    if twice:
        raise ValueError(f"{twice[0]} is named twice. {SEVERAL}: name each once.")
    if len(files) == 1 and key is None:
        raise ValueError(
            f"`{argument}` is missing, and {files[0]} is the only file. Name the column of obs "
            f"that tells its cells apart, or name several files. {SEVERAL}."
        )


def read_cells(
    context: typer.Context,
    files: Sequence[Path],
    say: Callable[[str], None],
    *,
    key: str | None,
    argument: str,
    layer: str | None,
) -> tuple[AnnData, str]:
    """Read the cells of all files.

    Parameters
    ----------
    context
        Of the command.
    files
        Files of the input.
    say
        Prints a line.
    key
        Column of obs that tells the cells apart; of several files it may be in none of them.
    argument
        Name of the parameter for `key`.
    layer
        Layer with the counts.

    Returns
    -------
    The cells, and the name of the column.
    """
    parts = {}
    for file in files:
        parts[file] = read(file)
        say(f"{file}: {parts[file].n_obs} cells, {parts[file].n_vars} genes.")
    if key is not None and len(files) == 1:
        return parts[files[0]], key
    _check_parts(context, parts, layer)
    _match_by_identifier(parts, say)
    key = _tell_apart(parts, key, argument, say)
    return _join(parts, say), key


def names_of(files: Sequence[Path]) -> list[str]:
    """Return short names that differ: of files called alike, the part of the path that does not.

    Parameters
    ----------
    files
        Different files, such as ``a/outs/filtered_feature_bc_matrix.h5`` of several runs.
    """
    stems = [_stem(file.name) for file in files]
    if len(set(stems)) == len(files):
        return stems
    paths = [list(file.absolute().parts) for file in files]
    for end in (0, -1):
        while len({path[end] for path in paths}) == 1 and min(map(len, paths)) > 1:
            for path in paths:
                del path[end]
    return ["/".join(path) for path in paths]


def _stem(name: str) -> str:
    stem = name.removesuffix(".gz")
    return next((stem[: -len(ending)] for ending in ENDINGS if stem.endswith(ending)), name)


def _check_parts(context: typer.Context, parts: Mapping[Path, AnnData], layer: str | None) -> None:
    """Refuse files without the counts that were named, and those that share no gene."""
    from scovert.core._checks import check_genes, check_layer, some_of

    for file, part in parts.items():
        speak_about(context, Subject(file))
        check_layer(part, layer)
        check_genes(part)
    speak_about(context, None)
    if len(_shared(parts.values())) == 0:
        found = "; ".join(f"{file} has {some_of(part.var_names)}" for file, part in parts.items())
        raise ValueError(
            f"The files share no gene: {found}. Genes are matched by name: name them alike in all "
            "files, as symbols or as Ensembl identifiers of one species."
        )


def _shared(parts: Sequence[AnnData]) -> pd.Index:
    return reduce(lambda a, b: a.intersection(b, sort=False), (part.var_names for part in parts))


def _match_by_identifier(parts: Mapping[Path, AnnData], say: Callable[[str], None]) -> None:
    """Call genes by their identifiers that have the same name in all files and are not the same.

    Symbols that two genes share are numbered in the order of a file, which files may differ in.
    """
    import pandas as pd

    if not all(GENE_IDS in part.var for part in parts.values()):
        return
    columns = (part.var[GENE_IDS].astype(str) for part in parts.values())
    ids = [column.str.replace(VERSION, "", regex=True) for column in columns]
    shared = _shared(parts.values())
    table = pd.concat([own.reindex(shared) for own in ids], axis=1)
    odd = table[table.nunique(axis=1) > 1]
    if len(odd) > len(shared) / 2:
        raise ValueError(
            f"{len(odd)} of {len(shared)} genes have the same name in all files and different "
            f"identifiers, such as {odd.index[0]!r}: {', '.join(odd.iloc[0])}. Are they of the "
            "same species and annotation?"
        )
    if len(odd):
        involved = {*odd.to_numpy().ravel()}
        for part, own in zip(parts.values(), ids, strict=True):
            part.var_names = [
                identifier if identifier in involved else name for name, identifier in own.items()
            ]
        say(
            f"{len(odd)} names, such as {odd.index[0]!r}, stand for different genes in the files, "
            "which are called by their identifiers instead."
        )


def _tell_apart(
    parts: Mapping[Path, AnnData], key: str | None, argument: str, say: Callable[[str], None]
) -> str:
    """Return the column that tells the cells apart, written where no file has it."""
    import pandas as pd

    column = FILE_KEY if key is None else key
    has = [file for file, part in parts.items() if column in part.obs]
    if key is None and has:
        raise ValueError(
            f"{has[0]} has a column {FILE_KEY!r} of obs already, so that the file of each cell "
            f"cannot be written there. Name a column: `{argument}`."
        )
    if len(has) == len(parts):
        levels = Counter(v for part in parts.values() for v in part.obs[column].dropna().unique())
        shared = [str(level) for level, n in levels.items() if n > 1]
        also = f" (in several files: {', '.join(shared[:6])})" if shared else ""
        say(f"All files have obs[{column!r}], which tells their cells apart, not the file{also}.")
        return column
    if has:
        lacks = next(file for file in parts if file not in has)
        raise KeyError(
            f"`{argument}={column!r}` is a column of obs of {has[0]}, and not of {lacks}. All "
            "files need it; or name a column that none has, for the name of the file."
        )
    _refuse_misspelt(parts, column, argument)
    names = names_of([*parts])
    if argument == "treatment_key":
        warnings.warn(
            "Every arm is one file. What else differs between the files, such as donors or "
            "batches, cannot be told from the treatment, and p-values are as if nothing did. Name "
            "a column of obs with the treatment, of files that hold several arms or donors.",
            UserWarning,
            stacklevel=2,
        )
    for name, part in zip(names, parts.values(), strict=True):
        part.obs[column] = pd.Categorical([name] * part.n_obs, names)
    say(f"obs[{column!r}] tells the files apart: {', '.join(names)}.")
    return column


def _refuse_misspelt(parts: Mapping[Path, AnnData], column: str, argument: str) -> None:
    """Refuse the name of a new column that is nearly that of one in all files."""
    from scovert.core._arguments import nearest

    shared = reduce(lambda a, b: a.intersection(b), (part.obs.columns for part in parts.values()))
    guess = nearest(column, list(map(str, shared)))
    if guess is not None:
        raise KeyError(
            f"`{argument}={column!r}` is in no file, where the name of the file would be written, "
            f"and all have {guess!r}. Did you mean that? Else choose a name that is less like it."
        )


def _join(parts: Mapping[Path, AnnData], say: Callable[[str], None]) -> AnnData:
    """Concatenate: genes that all files have, columns of obs that any has."""
    import pandas as pd
    from anndata import concat

    names = names_of([*parts])
    cells = [part.obs_names.unique() for part in parts.values()]
    clash = cells[0].append(cells[1:]).has_duplicates
    named = dict(zip(names, parts.values(), strict=True))
    try:
        joined = concat(named, merge="same", index_unique="_" if clash else None)
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ValueError(
            f"The files cannot be concatenated: `anndata.concat` says {error}. Leave out what "
            "differs in them, or concatenate them yourself."
        ) from error
    obs = pd.concat([part.obs for part in parts.values()]).set_axis(joined.obs_names)
    joined.obs = pd.DataFrame({key: _storable(obs[key]) for key in obs}, joined.obs_names)
    left_out = {file: part.n_vars - joined.n_vars for file, part in parts.items()}
    listed = ", ".join(f"{n} of {file}" for file, n in left_out.items() if n)
    say(
        f"Concatenated: {joined.n_obs} cells, {joined.n_vars} genes that all files have"
        f"{f' (left out: {listed})' if listed else ''}."
        f"{' Names of cells that several files use have the file behind them.' if clash else ''}"
    )
    return joined


def _storable(column: pd.Series) -> pd.Series:
    """Give a column that some files lack, or have with other categories, a type for files."""
    import pandas as pd

    if column.dtype != object:
        return column
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "boolean":
        return column.astype("boolean")
    return column.astype("category") if kind == "string" and column.isna().any() else column
