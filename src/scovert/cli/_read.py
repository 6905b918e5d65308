"""Cells from every kind of file that programs of the field write, as AnnData."""

from __future__ import annotations

import gzip
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from scovert.cli._session import warn
from scovert.cli._tenx import MATRIX, genes_of_10x, read_10x_folder, read_10x_h5
from scovert.core._words import counted

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["KINDS", "READ", "check_source", "is_table", "read"]

KINDS = "an .h5ad file, Cell Ranger's .h5 file or folder, or an .h5mu, .loom or .zarr"
READ = (".h5ad", ".h5", ".h5mu", ".loom", ".zarr")
TABLES = (".csv", ".tsv", ".txt", ".tab")
OF_R = (".rds", ".rdata", ".rda", ".qs", ".qs2", ".h5seurat")
GZIP = b"\x1f\x8b"  # how a compressed file begins
DEPTH = 2  # Cell Ranger puts its matrices into RUN/outs/


def read(file: Path) -> AnnData:
    """Read cells, telling by its content what a file is.

    Parameters
    ----------
    file
        A file or a folder; of an .h5mu file also ``FILE.h5mu:MODALITY``.
    """
    check_source(file)
    path, modality = _split(file)
    try:
        adata = _read_folder(path) if path.is_dir() else _read_file(path, modality)
    except PermissionError as error:
        raise PermissionError(
            f"{error.filename or path} cannot be opened: you may not read it. Ask its owner, or "
            "copy it to a place of yours."
        ) from error
    if 0 in adata.shape:
        raise ValueError(
            f"{file} holds {counted(adata.n_obs, 'cell')} and {counted(adata.n_vars, 'gene')}. "
            "Name a file with both."
        )
    return adata


def _read_file(path: Path, modality: str | None) -> AnnData:
    head = _begin(path)
    if _is_matrix(path):
        return _read_matrix(path, path)
    if head.startswith(GZIP) and _ending(path) in READ:
        return _read_unpacked(path, modality)
    import h5py

    if h5py.is_hdf5(path):
        return _read_hdf5(path, modality)
    raise ValueError(f"{path} is not an .h5ad file, nor another that is read. {_advice(path)}")


def check_source(file: Path) -> None:
    """Refuse what is neither a file nor a folder."""
    path, _ = _split(file)
    if not path.is_file() and not path.is_dir():
        raise FileNotFoundError(f"{path} is not a file, nor a folder. Name {KINDS}.")


def _split(file: Path) -> tuple[Path, str | None]:
    """Tell a file from the modality that is named behind it."""
    name, separator, modality = file.name.rpartition(":")
    if not separator or file.exists() or not name.lower().endswith((".h5mu", ".h5mu.gz")):
        return file, None
    return file.with_name(name), modality


def _begin(path: Path) -> bytes:
    """Return how a file begins; refuse one that is empty."""
    with path.open("rb") as file:
        head = file.read(len(GZIP))
    if not head:
        raise ValueError(f"{path} is empty. Copy it again, or write it with `adata.write_h5ad()`.")
    return head


@contextmanager
def _reading(path: Path, call: str) -> Iterator[None]:
    """Say which call failed, and why."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*[nN]ames are not unique")  # checked later
            yield
    except (MemoryError, PermissionError):
        raise
    except Exception as error:  # scanpy raises a bare one
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read by `{call}`: {reason} ({type(error).__name__}). If it is "
            f"damaged or cut off, copy it again. If `{call}` needs more arguments, read it "
            "yourself and name what `adata.write_h5ad('cells.h5ad')` writes."
        ) from error


def _read_unpacked(path: Path, modality: str | None) -> AnnData:
    """Read a compressed file; messages name it, and not the place where it is unpacked."""
    with TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        unpacked = Path(folder) / path.stem
        with _reading(path, "gzip.open"), gzip.open(path) as packed, unpacked.open("wb") as file:
            shutil.copyfileobj(packed, file)
        try:
            adata = _read_file(unpacked, modality)
        except ValueError as error:
            raise ValueError(str(error).replace(str(unpacked), str(path))) from error
    for each in said:
        if issubclass(each.category, UserWarning):
            warn(str(each.message).replace(str(unpacked), str(path)))
    return adata


def _read_hdf5(path: Path, modality: str | None) -> AnnData:
    """Read a file of HDF5 by what is in it: endings are often wrong."""
    import h5py
    from anndata import read_h5ad

    with _reading(path, "h5py.File"), h5py.File(path) as file:
        names = set(file)
        is_10x = any("barcodes" in group for group in file.values() if hasattr(group, "keys"))
    if "mod" in names:
        return _read_modality(path, modality)
    if modality is not None:
        raise ValueError(f"{path} has no modalities. Name it without :{modality}.")
    if {"obs", "var"} <= names:
        with _reading(path, "anndata.read_h5ad"):
            return read_h5ad(path)
    if {"row_attrs", "col_attrs"} <= names:
        return _read_loom(path)
    if is_10x:
        with _reading(path, "scanpy.read_10x_h5"):
            adata = read_10x_h5(path)
        return genes_of_10x(adata, path)
    raise ValueError(
        f"{path} holds {sorted(names)[:6]}, and is not an .h5ad file, nor another that is read. "
        f"{_advice(path)}"
    )


def _read_modality(path: Path, modality: str | None) -> AnnData:
    """Read one modality of an .h5mu file, with the columns of obs that all of them share."""
    import h5py
    from anndata.io import read_elem

    with _reading(path, "mudata.read_h5mu"), h5py.File(path) as file:
        names = list(file["mod"])
        chosen = modality or ("rna" if "rna" in names or len(names) != 1 else names[0])
        adata = read_elem(file["mod"][chosen]) if chosen in names else None
        shared = read_elem(file["obs"])
    if adata is None:
        example = names[0] if names else "rna"
        raise ValueError(
            f"{path} has no modality {chosen!r} (it has {names}). Name one of these behind the "
            f"file: {path}:{example}."
        )
    left_out = [name for name in names if name != chosen]
    if left_out and modality is None:
        warn(
            f"Of {path} the modality {chosen!r} is read, and {left_out} left out. "
            f"{path}:{left_out[0]} names another."
        )
    own = [key for key in shared if ":" not in key and key not in adata.obs]
    if own and shared.index.is_unique:
        adata.obs = adata.obs.join(shared[own])
    return adata


def _read_loom(path: Path) -> AnnData:
    """Read the main matrix: by itself, anndata takes spliced counts where there are any."""
    from anndata.io import read_loom

    call = f"anndata.io.read_loom('{path}', X_name='')"
    try:
        with _reading(path, call):
            return read_loom(path, X_name="")
    except ValueError as error:
        if not isinstance(error.__cause__, ImportError):
            raise
        raise ValueError(
            f"{path} is a .loom file, and the package loompy that reads it is missing. Install it "
            f"(`pip install loompy`), or call `{call}.write_h5ad('{path.stem}.h5ad')` where it is."
        ) from error


def _read_folder(folder: Path) -> AnnData:
    if (folder / ".zgroup").exists() or (folder / "zarr.json").exists():
        from anndata.io import read_zarr

        modalities = sorted(map(str, folder.glob("mod/*/")))
        if modalities:
            raise ValueError(f"{folder} holds modalities. Name one: {', '.join(modalities)}.")
        with _reading(folder, "anndata.io.read_zarr"):
            return read_zarr(folder)
    found = [path for path in sorted(folder.iterdir()) if _is_matrix(path)]
    if len(found) == 1:
        return _read_matrix(found[0], folder)
    found = found or _readable(folder)
    holds = f"holds {len(found)} that could be" if found else "holds none of what is"
    name = f"one of these: {', '.join(map(str, found[:6]))}" if found else KINDS
    raise ValueError(f"{folder} is a folder and {holds} read. Name {name}.")


def _read_matrix(matrix: Path, named: Path) -> AnnData:
    """Read a matrix of Cell Ranger, which was `named` itself or by its folder."""
    with _reading(named, "scanpy.read_10x_mtx"):
        adata = read_10x_folder(matrix)
    return genes_of_10x(adata, named)


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name."""
    return _ending(path) in TABLES


def _is_matrix(path: Path) -> bool:
    return _unpacked(path).endswith(MATRIX)


def _readable(folder: Path) -> list[Path]:
    """Look for what could be read, level by level."""
    for depth in range(1, DEPTH + 1):
        paths = sorted(folder.glob("/".join("*" * depth)))
        folders = {path.parent for path in folder.glob(f"{'*/' * depth}*") if _is_matrix(path)}
        found = [p for p in paths if p in folders or _ending(p) in READ]
        if found:
            return found
    return []


def _unpacked(path: Path) -> str:
    return path.name.removesuffix(".gz")


def _ending(path: Path) -> str:
    return Path(_unpacked(path)).suffix.lower()


def _advice(path: Path) -> str:
    """Say how to make an .h5ad of a file."""
    ending = _ending(path)
    if ending in TABLES:
        separator = "" if ending == ".csv" else r", sep='\t'"
        return (
            "It is a table, and whether its rows are cells or genes is not sure. With a row per "
            f"cell, `anndata.AnnData(pandas.read_csv('{path}', index_col=0{separator}))"
            ".write_h5ad('cells.h5ad')` makes an .h5ad file; with a row per gene write "
            "`.T.write_h5ad`."
        )
    if ending in OF_R:
        return (
            "It is a file of R: load it there, and call `anndataR::write_h5ad(object, "
            "'cells.h5ad')`. Counts of a Seurat object are then in the layer 'counts'."
        )
    return (
        f"Name {KINDS}. If it is one of these, it is damaged or cut off: copy it again, or write "
        "it with `adata.write_h5ad(...)`."
    )
