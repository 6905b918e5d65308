"""``scovert integrate``: datasets into one space."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from scovert.cli import _options as opt
from scovert.cli._session import fit, narrator, session
from scovert.cli._several import check_sources, read_cells
from scovert.cli._write import check_cells, check_places, write_all

__all__ = ["integrate"]

SLOTS = [("obsm", "X_paired"), ("layers", "paired"), ("obs", "paired_support")]
"""Where `scovert.model.PairedVAE.annotate` writes."""


class Alignment(StrEnum):
    """How datasets are aligned, see `scovert.model.PairedVAE`."""

    anchors = "anchors"
    adversarial = "adversarial"
    grl = "grl"
    none = "none"


def integrate(  # noqa: PLR0913
    context: typer.Context,
    files: opt.InputFiles,
    *,
    batch_key: Annotated[
        str | None,
        typer.Option(
            help="Column of obs with the dataset of each cell (default: of several files, the "
            "name of each)."
        ),
    ] = None,
    output: opt.OutputFile,
    report: opt.ReportFile = None,
    labels_key: Annotated[
        str | None,
        typer.Option(help="Column of obs with cell types, for the report; not used in the fit."),
    ] = None,
    layer: opt.Layer = None,
    alignment: Annotated[
        Alignment, typer.Option(help="How datasets are aligned.")
    ] = Alignment.anchors,
    write_layer: Annotated[
        bool, typer.Option(help="Write corrected counts, a dense layer of cells x genes.")
    ] = True,
    seed: opt.Seed = 0,
    accelerator: opt.Accelerator = "auto",
    quiet: opt.Quiet = False,
    overwrite: opt.Overwrite = False,
    save_model: opt.SaveModel = None,
    max_epochs: opt.MaxEpochs = None,
) -> None:
    """Integrate datasets with PairedVAE, in one latent space.

    The datasets are those of one file, or of several, which are concatenated: the genes that all
    of them have. The output is the input with obsm["X_paired"] (the shared space, for
    scanpy.pp.neighbors), layers["paired"] (corrected counts) and, with anchors,
    obs["paired_support"].
    """
    with session(context, quiet=quiet):
        check_sources(files, batch_key, "batch_key")
        check_places(
            [output], page=report, folders=[save_model], sources=files, overwrite=overwrite
        )
        say = narrator(context, quiet=quiet)
        column = {"key": batch_key, "argument": "batch_key"}
        adata, batch_key = read_cells(context, files, say, layer=layer, **column)
        writing = {"write_layer": write_layer, "overwrite": overwrite}
        check_cells(adata, output, "paired", SLOTS, **writing)
        if labels_key is not None:
            from scovert.core._checks import check_categorical

            check_categorical(adata, labels_key, "labels_key")
        from scovert.model import PairedVAE

        setup, init = {"batch_key": batch_key, "layer": layer}, {"alignment": alignment.value}
        training = {"accelerator": accelerator, "max_epochs": max_epochs}
        training["enable_progress_bar"] = not quiet
        model = fit(PairedVAE, adata, setup, init, seed=seed, **training)
        model.annotate(**writing)
        ending = {"save_model": save_model, "overwrite": overwrite, "labels_key": labels_key}
        write_all(model, adata, [output, report], say, **ending)
        say("Next: sc.pp.neighbors(adata, use_rep='X_paired').")
