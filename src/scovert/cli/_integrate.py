"""``scovert integrate``: datasets into one space."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli._options import (
    Accelerator,
    InputFile,
    Layer,
    MaxEpochs,
    OutputFile,
    Overwrite,
    Quiet,
    SaveModel,
    Seed,
)
from scovert.cli._session import (
    check_output,
    narrator,
    read,
    save,
    say_what_to_check,
    session,
    set_seed,
    write,
)

if TYPE_CHECKING:
    from anndata import AnnData

    from scovert.model import PairedVAE

__all__ = ["fit_paired", "integrate"]


class Alignment(StrEnum):
    """How datasets are aligned, see `scovert.model.PairedVAE`."""

    anchors = "anchors"
    adversarial = "adversarial"
    grl = "grl"
    none = "none"


def integrate(  # noqa: PLR0913
    context: typer.Context,
    file: InputFile,
    *,
    batch_key: Annotated[str, typer.Option(help="Column of obs with the dataset of each cell.")],
    output: OutputFile,
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
    """Integrate the datasets in a file with PairedVAE.

    The output is the input with obsm["X_paired"] (the shared space, for scanpy.pp.neighbors),
    layers["paired"] (corrected counts) and, with anchors, obs["paired_support"].
    """
    with session(context, quiet=quiet):
        check_output(output, overwrite=overwrite, source=file)
        adata = read(file)
        say = narrator(context, quiet=quiet)
        say(f"{file}: {adata.n_obs} cells, {adata.n_vars} genes.")
        options = {"seed": seed, "accelerator": accelerator, "max_epochs": max_epochs}
        setup = {"batch_key": batch_key, "layer": layer}
        init = {"alignment": alignment.value}
        model = fit_paired(adata, setup, init, quiet=quiet, write_layer=write_layer, **options)
        write(adata, output)
        save(model, save_model, overwrite=overwrite)
        say_what_to_check(model.check(), say)
        say(f"Written to {output}. Next: sc.pp.neighbors(adata, use_rep='X_paired').")


def fit_paired(
    adata: AnnData,
    setup: dict,
    init: dict,
    *,
    quiet: bool,
    seed: int,
    accelerator: str,
    max_epochs: int | None,
    write_layer: bool = True,
) -> PairedVAE:
    """Fit PairedVAE and annotate the cells.

    Parameters
    ----------
    adata
        The cells.
    setup, init
        Arguments of ``setup_anndata`` and of the model.
    quiet
        Show no progress.
    seed, accelerator, max_epochs
        Of the training.
    write_layer
        Write corrected counts.
    """
    from scovert.model import PairedVAE

    set_seed(seed)
    PairedVAE.setup_anndata(adata, **setup)
    model = PairedVAE(adata, **init)
    model.train(max_epochs, accelerator=accelerator, enable_progress_bar=not quiet)
    model.annotate(write_layer=write_layer)
    return model
