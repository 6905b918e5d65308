"""Samples, distances and trees from the files of microbiome programs: BIOM and QIIME 2."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from scovert.cli._read import read

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["add_tree", "is_file_of_distances", "read_distances", "read_samples"]

ARTIFACT = ".qza"
"""Ending of a file of QIIME 2: a zip with the data in a folder."""
TABLE, MATRIX, TREE = "feature-table.biom", "distance-matrix.tsv", "tree.nwk"
"""Files in it."""
ENDINGS = (".csv", ".tsv", ".txt")
"""Of tables of distances."""


def read_samples(file: Path) -> AnnData:
    """Read samples from a table of QIIME 2 or of BIOM, or whatever the other commands read."""
    if file.suffix.lower() not in (ARTIFACT, ".biom") or not file.exists():
        return read(file)
    with _content(file, TABLE) as table:
        return _read_biom(table, file)


def _read_biom(table: Path, named: Path) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    try:
        from biom import load_table
    except ImportError as error:
        raise ValueError(
            f"{named} is a table of BIOM, and the package biom-format that reads it is missing. "
            "Install it (`pip install 'scovert[tree]'`), or convert the table where it is: `biom "
            "convert -i table.biom -o table.tsv --to-tsv`, whose rows are taxa."
        ) from error
    try:
        found = load_table(str(table))
    except Exception as error:  # biom raises several of its own
        raise ValueError(
            f"{named} cannot be read as a table of BIOM: {error}. Copy it again."
        ) from error
    return AnnData(
        found.matrix_data.T.tocsr().astype("float32"),
        obs=pd.DataFrame(index=found.ids("sample")),
        var=pd.DataFrame(index=found.ids("observation")),
    )


def is_file_of_distances(name: str) -> bool:
    """Whether `name` is a file and no slot: by its ending, or as there is one."""
    return Path(name).suffix.lower() in (*ENDINGS, ARTIFACT) or Path(name).is_file()


def read_distances(file: Path) -> pd.DataFrame:
    """Read a table of distances with names of samples in its first row and column."""
    from scovert.pp._distance_matrix import read_distances_of

    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is not a file. Name a slot of obsp, or a table of distances (.tsv, .csv, or "
            f"{ARTIFACT} of QIIME 2)."
        )
    with _content(file, MATRIX) as table:
        return read_distances_of(table, file)


def add_tree(adata: AnnData, file: Path) -> None:
    """Add the tree of a file to ``varm["tree"]``."""
    from scovert import pp

    with _content(file, TREE) as tree:
        try:
            pp.tree(adata, tree)
        except ImportError as error:
            raise ValueError(str(error)) from error


@contextmanager
def _content(file: Path, wanted: str) -> Iterator[Path]:
    """Return a file itself, or what is wanted of one of QIIME 2, unpacked."""
    if file.suffix.lower() != ARTIFACT or not file.is_file():
        yield file
        return
    with TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(file) as archive:
                names = [n for n in archive.namelist() if n.endswith(f"/data/{wanted}")]
                held = sorted(Path(n).name for n in archive.namelist() if "/data/" in n)
                if names:
                    (Path(folder) / wanted).write_bytes(archive.read(names[0]))
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{file} is no file of QIIME 2, or damaged. Copy it again."
            ) from error
        if not names:
            raise ValueError(
                f"{file} holds {held[:4]} and no {wanted}. Export what is wanted, for example "
                f"`qiime tools peek {file}` says what this is."
            )
        yield Path(folder) / wanted
