"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Accelerator",
    "InputFiles",
    "Layer",
    "MaxEpochs",
    "OutputFile",
    "Overwrite",
    "Quiet",
    "ReportFile",
    "SaveModel",
    "Seed",
]

InputFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="IN.h5ad",
        readable=False,  # said in our words
        help="Cells with raw counts: .h5ad, the .h5 or the folder of Cell Ranger, "
        ".h5mu[:MODALITY], .loom or .zarr. Several are concatenated.",
    ),
]
OutputFile = Annotated[
    Path, typer.Option("--output", "-o", metavar="OUT.h5ad", help="Where to write the result.")
]
Layer = Annotated[str | None, typer.Option(help="Layer with raw counts (default: X).")]
Seed = Annotated[int, typer.Option(help="Seed of every random number.")]
Accelerator = Annotated[str, typer.Option(help="Where to train: auto, cpu, gpu, mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE.html",
        help="Page to write: what was done, whether to trust it, figures and tables.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
SaveModel = Annotated[Path | None, typer.Option(help="Folder to save the trained model in.")]
MaxEpochs = Annotated[int | None, typer.Option(min=1, help="Longest training.")]
