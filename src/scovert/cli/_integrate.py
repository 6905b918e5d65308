"""``scovert integrate``: datasets into one space."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli._options import (
    Accelerator,
    InputFiles,
    Layer,
    MaxEpochs,
    OutputFile,
    Overwrite,
    Quiet,
    ReportFile,
    SaveModel,
    Seed,
)
from scovert.cli._session import narrator, session, set_seed, tell
from scovert.cli._several import check_sources, read_cells
from scovert.cli._write import (
    CELLS,
    check_cells,
    check_model,
    check_output,
    check_report,
    places,
    save,
    write,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from scovert.model import PairedVAE

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
    files: InputFiles,
    *,
    batch_key: Annotated[
        str | None,
        typer.Option(
            help="Column of obs with the dataset of each cell (default: of several files, the "
            "name of each)."
        ),
    ] = None,
    output: OutputFile,
    report: ReportFile = None,
    labels_key: Annotated[
        str | None,
        typer.Option(help="Column of obs with cell types, for the report; not used in the fit."),
    ] = None,
    layer: Layer = None,
    alignment: Annotated[
        Alignment, typer.Option(help="How datasets are aligned.")
    ] = Alignment.anchors,
    write_layer: Annotated[
        bool, typer.Option(help="Write corrected counts, a dense layer of cells x genes.")
    ] = True,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    save_model: SaveModel = None,
    max_epochs: MaxEpochs = None,
) -> None:
    """Integrate datasets with PairedVAE, in one latent space.

    The datasets are those of one file, or of several, which are concatenated: the genes that all
    of them have. The output is the input with obsm["X_paired"] (the shared space, for
    scanpy.pp.neighbors), layers["paired"] (corrected counts) and, with anchors,
    obs["paired_support"].
    """
    with session(context, quiet=quiet):
        check_sources(files, batch_key, "batch_key")
        check_output(output, overwrite=overwrite, endings=CELLS, sources=files)
        check_report(report, [output], files, overwrite=overwrite)
        check_model(save_model, [output], overwrite=overwrite)
        say = narrator(context, quiet=quiet)
        column = {"key": batch_key, "argument": "batch_key"}
        adata, batch_key = read_cells(context, files, say, layer=layer, **column)
        writing = {"write_layer": write_layer, "overwrite": overwrite}
        check_cells(adata, output, "paired", SLOTS, **writing)
        if labels_key is not None:
            from scovert.core._checks import check_categorical

            check_categorical(adata, labels_key, "labels_key")
        options = {"seed": seed, "accelerator": accelerator, "max_epochs": max_epochs}
        setup = {"batch_key": batch_key, "layer": layer}
        init = {"alignment": alignment.value}
        model = _fit(adata, setup, init, writing, quiet=quiet, **options)
        save(model, save_model, overwrite=overwrite)
        write(adata, output)
        tell(model.report(report, labels_key=labels_key, overwrite=overwrite), say)
        say(f"Written to {places(output, report)}.")
        say("Next: sc.pp.neighbors(adata, use_rep='X_paired').")


def _fit(
    adata: AnnData,
    setup: dict,
    init: dict,
    writing: dict,
    *,
    quiet: bool,
    seed: int,
    accelerator: str,
    max_epochs: int | None,
) -> PairedVAE:
    """Fit PairedVAE and annotate the cells.

    Parameters
    ----------
    adata
        The cells.
    setup, init, writing
        Arguments of ``setup_anndata``, of the model and of ``annotate``.
    quiet
        Show no progress.
    seed, accelerator, max_epochs
        Of the training.
    """
    from scovert.model import PairedVAE

    set_seed(seed)
    PairedVAE.setup_anndata(adata, **setup)
    model = PairedVAE(adata, **init)
    model.train(max_epochs, accelerator=accelerator, enable_progress_bar=not quiet)
    model.annotate(**writing)
    return model
