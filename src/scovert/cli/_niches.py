"""``scovert niches``: what surrounds each cell of a slide."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli import _options as opt
from scovert.cli._read import read
from scovert.cli._session import fit, narrator, session
from scovert.cli._several import check_sources, read_cells
from scovert.cli._write import check_cells, check_places, write_all

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["niches"]

SLOTS = [
    ("obsm", "X_niche"),
    ("obs", "niche"),
    ("obsm", "niche_composition"),
    ("obs", "niche_state"),
    ("layers", "niche"),
]
"""Where `scovert.model.NicheVAE.annotate` writes."""


class Likelihood(StrEnum):
    """What is measured of a cell."""

    nb = "nb"
    gaussian = "gaussian"


SampleKey = Annotated[
    str | None,
    typer.Option(
        help="Column of obs with the slide or image of each cell (default: of several files, "
        "the name of each; of one file, all cells are on one slide)."
    ),
]
BatchKey = Annotated[str | None, typer.Option(help="Column of obs with what was measured alike.")]
LabelsKey = Annotated[
    str | None, typer.Option(help="Column of obs with cell types, to describe niches by.")
]
WriteLayer = Annotated[
    bool, typer.Option(help="Write the expression around cells, a dense layer.")
]


def niches(  # noqa: PLR0913
    context: typer.Context,
    files: opt.InputFiles,
    *,
    likelihood: Annotated[
        Likelihood, typer.Option(help="nb for raw counts, gaussian for intensities.")
    ],
    sample_key: SampleKey = None,
    spatial_key: Annotated[str, typer.Option(help="Slot of obsm with positions.")] = "spatial",
    batch_key: BatchKey = None,
    labels_key: LabelsKey = None,
    n_niches: Annotated[int, typer.Option(min=2, help="Number of niches.")] = 10,
    n_neighbors: Annotated[int, typer.Option(min=1, help="Neighbours of a cell.")] = 20,
    n_states: Annotated[
        int, typer.Option(min=2, help="Cell states, at most a tenth of the cells.")
    ] = 32,
    output: opt.OutputFile,
    report: opt.ReportFile = None,
    layer: opt.Layer = None,
    write_layer: WriteLayer = True,
    seed: opt.Seed = 0,
    accelerator: opt.Accelerator = "auto",
    quiet: opt.Quiet = False,
    overwrite: opt.Overwrite = False,
    save_model: opt.SaveModel = None,
    max_epochs: opt.MaxEpochs = None,
) -> None:
    """Find niches with NicheVAE: what surrounds each cell.

    Several files are concatenated, each a slide of its own. The output is the input with
    obs["niche"], obsm["X_niche"] (for scanpy.pp.neighbors), obsm["niche_composition"] (states, or
    cell types, around each cell), obs["niche_state"] and layers["niche"] (expression around each
    cell). A zarr store of SpatialData is read for its table.
    """
    with session(context, quiet=quiet):
        say = narrator(context, quiet=quiet)
        files = [table_of(file) for file in files]
        check_places(
            [output], page=report, folders=[save_model], sources=files, overwrite=overwrite
        )
        adata, sample_key = _read(context, files, say, sample_key, layer)
        writing = {"write_layer": write_layer, "overwrite": overwrite}
        check_cells(adata, output, "niche", SLOTS, **writing)
        setup = {
            "likelihood": likelihood.value,
            "sample_key": sample_key,
            "spatial_key": spatial_key,
            "layer": layer,
            "batch_key": batch_key,
            "labels_key": labels_key,
        }
        from scovert.model import NicheVAE

        init = {"n_neighbors": n_neighbors, "n_states": n_states}
        training = {"accelerator": accelerator, "max_epochs": max_epochs}
        training["enable_progress_bar"] = not quiet
        model = fit(NicheVAE, adata, setup, init, seed=seed, **training)
        model.annotate(n_niches=n_niches, **writing)
        ending = {"save_model": save_model, "overwrite": overwrite, "n_niches": n_niches}
        write_all(model, adata, [output, report], say, **ending)
        say("Next: sc.pl.embedding(adata, 'spatial', color='niche').")


def table_of(file: Path) -> Path:
    """Return the table in a store of SpatialData; other files as they are.

    Raises
    ------
    ValueError
        If there are several, or none.
    """
    tables = file / "tables"
    if not tables.is_dir():
        return file
    names = sorted(path.name for path in tables.iterdir() if path.is_dir())
    if len(names) != 1:
        raise ValueError(
            f"{file} is a store of SpatialData with the tables {names}. Name one, as "
            f"{tables / 'TABLE'}, or write it: `spatialdata.read_zarr({str(file)!r}).tables["
            "'TABLE'].write_h5ad('cells.h5ad')`."
        )
    return tables / names[0]


def _read(
    context: typer.Context,
    files: list[Path],
    say: Callable[[str], None],
    sample_key: str | None,
    layer: str | None,
) -> tuple[AnnData, str | None]:
    """Read the cells; several files are samples of their own."""
    if len(files) == 1 and sample_key is None:
        adata = read(files[0])
        say(f"{files[0]}: {adata.n_obs} cells, {adata.n_vars} genes or channels.")
        return adata, None
    check_sources(files, sample_key, "sample_key")
    return read_cells(context, files, say, key=sample_key, argument="sample_key", layer=layer)
