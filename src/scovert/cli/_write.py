"""Files that commands write: looked at before the work begins, written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scovert.cli._session import tell

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scovert.core._save_load import SaveLoadMixin

__all__ = [
    "check_cells",
    "check_places",
    "places",
    "save",
    "write",
    "write_all",
    "write_table",
]

CELLS, PAGES = (".h5ad",), (".html", ".htm")
MODELS = {
    "paired": "PairedVAE",
    "confounder": "LatentConfounder",
    "niche": "NicheVAE",
    "bulk": "BulkDeconvolution",
    "distance": "DistanceEmbedding",
    "imputation": "MaskedImputation",
}
"""Who writes under a name."""
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
TABLES = (*SEPARATORS, *(f"{ending}.gz" for ending in SEPARATORS))


def _check_output(
    path: Path,
    *,
    overwrite: bool,
    endings: Sequence[str] = (),
    sources: Sequence[Path] = (),
) -> None:
    """Refuse a place that is taken or cannot be written to, and an ending that says another kind.

    Parameters
    ----------
    path
        File to write.
    overwrite
        Whether a file that is there may be replaced.
    endings
        What its name may end in; empty for anything.
    sources
        Files of the input, which are never replaced.
    """
    if any(path.exists() and s.exists() and path.samefile(s) for s in sources):
        raise FileExistsError(f"{path} is the input. Name another output.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Name a file in it.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Name another output, or pass --overwrite.")
    if endings and not path.name.lower().endswith(tuple(endings)):
        raise ValueError(
            f"{path} does not end in {' or '.join(endings)}, and nothing else is written there. "
            f"Name it {path.with_name(path.name.removesuffix('.gz')).with_suffix(endings[0])}."
        )
    _check_folder(path.absolute().parent, path)


def check_places(
    cells: Sequence[Path],
    tables: Sequence[Path] = (),
    page: Path | None = None,
    folders: Iterable[Path | None] = (),
    *,
    sources: Sequence[Path],
    overwrite: bool,
) -> None:
    """Refuse places for all that a command writes, one by one, or named twice.

    Parameters
    ----------
    cells, tables, page, folders
        Files of cells or samples and of tables, the report, and folders of models.
    sources
        Files of the input.
    overwrite
        Whether files that are there may be replaced.
    """
    known: set[Path] = set()
    places = [(cells, CELLS), (tables, TABLES), ([] if page is None else [page], PAGES)]
    for path, endings in ((path, endings) for paths, endings in places for path in paths):
        if path.absolute() in known:
            raise FileExistsError(f"{path} is another output too. Name another file.")
        known.add(path.absolute())
        _check_output(path, overwrite=overwrite, endings=endings, sources=sources)
    for folder in folders:
        if folder is not None:
            _check_model(folder, known, overwrite=overwrite)


def _check_model(folder: Path, outputs: Collection[Path], *, overwrite: bool) -> None:
    """Refuse a folder for a model that is an output too, is taken or cannot be written to."""
    from scovert.core._saving import check_place

    if folder.absolute() in outputs:
        raise FileExistsError(f"{folder} is the output too. Name a folder for the model.")
    check_place(folder, overwrite=overwrite)
    _check_folder(folder.absolute(), folder)


def _check_folder(folder: Path, path: Path) -> None:
    """Refuse a folder that is none, and one in which nothing can be made."""
    there = _there(folder)
    if not there.is_dir():
        raise NotADirectoryError(f"{path} cannot be made: {there} is a file. Name another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{path} cannot be made: you may not write to {there}. Name another place."
        )


def _there(folder: Path) -> Path:
    """Return the folder, or what there is of the way to it."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def check_cells(
    adata: AnnData,
    output: Path,
    key: str,
    slots: Sequence[tuple[str, str]],
    *,
    write_layer: bool,
    overwrite: bool,
) -> None:
    """Refuse, before hours of work, cells to which results cannot be added, or not in a file.

    Parameters
    ----------
    adata
        The cells.
    output
        The file that they will be written to.
    key
        Name of the results.
    slots
        Container and name of each slot of the results.
    write_layer
        Whether a dense layer of float32 is among them.
    overwrite
        Whether slots may be replaced.
    """
    from scovert.core._saving import check_storable
    from scovert.core._slots import taken_slots

    check_storable(adata)
    written = [slot for slot in slots if write_layer or slot[0] != "layers"]
    taken = taken_slots(adata, key, written, MODELS[key])
    if taken and not overwrite:
        raise ValueError(
            f"The input holds {taken} already, where results are to be written. Pass --overwrite "
            "to replace them, or delete or rename them in the file."
        )
    layer = 4 * adata.n_obs * adata.n_vars if write_layer else 0
    remedy = "Name another place, or leave out the layer: `write_layer=False`."
    _check_space(output, _size_of(adata) + layer, remedy)


def _check_space(output: Path, needed: int, remedy: str) -> None:
    """Refuse a disk that is too small: HDF5 may crash when it is full."""
    free = shutil.disk_usage(_there(output.absolute().parent)).free
    if needed > free:
        raise OSError(
            f"{output} would take more than {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            f"free there. {remedy}"
        )


def _size_of(adata: AnnData) -> int:
    """Return the bytes of the matrices, which are written without compression."""
    matrices = [adata.X, *(adata.layers[name] for name in adata.layers if name is not None)]
    matrices += [*adata.obsm.values(), *adata.obsp.values()]
    parts = [
        part
        for matrix in matrices
        for part in (
            (matrix.data, matrix.indices, matrix.indptr)
            if hasattr(matrix, "indptr")
            else (matrix,)
        )
    ]
    return sum(getattr(part, "nbytes", 0) for part in parts)


def write(adata: AnnData, file: Path) -> None:
    """Write an .h5ad file, whole or not at all."""
    from scovert.core._saving import write_adata

    kept = "Make room and run the command again; --save-model keeps what was learnt."
    _check_space(file, _size_of(adata), kept)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_adata(adata, file)
    except OSError as error:
        is_full = error.errno == errno.ENOSPC or "No space left" in str(error)
        reason = "there is no space left" if is_full else error.strerror or str(error)
        raise OSError(f"{file} could not be written: {reason}. {kept}") from error


def write_table(table: pd.DataFrame, file: Path) -> None:
    """Write a table, separated as its ending says."""
    separator = next(s for ending, s in SEPARATORS.items() if ending in file.suffixes[-2:])
    file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(file, sep=separator)


def write_all(
    model: SaveLoadMixin,
    adata: AnnData,
    files: Sequence[Path | None],
    say: Callable[[str], None],
    *,
    save_model: Path | None,
    overwrite: bool,
    **of_report: object,
) -> None:
    """Write a model, if it has a place, its cells and its report, and print that.

    Parameters
    ----------
    model, adata
        Trained model, and its cells, which are annotated.
    files
        That of the cells first, that of the report last; between them what was written before.
    say
        Prints a line.
    save_model
        Folder of the model.
    overwrite
        Whether files may be replaced.
    **of_report
        Options of ``model.report``.
    """
    save(model, save_model, overwrite=overwrite)
    write(adata, files[0])
    tell(model.report(files[-1], overwrite=overwrite, **of_report), say)
    say(f"Written to {places(*files)}.")


def places(*files: Path | None) -> str:
    """Name the files that were written."""
    return ", ".join(str(file) for file in files if file is not None)


def save(model: SaveLoadMixin, folder: Path | None, *, overwrite: bool) -> None:
    """Save a model, if there is a folder for it."""
    if folder is not None:
        model.save(folder, overwrite=overwrite)
