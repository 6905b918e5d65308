"""``scovert impute``: counts of genes that a dataset did not measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
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
from scovert.cli._read import read
from scovert.cli._session import narrator, session, set_seed, tell
from scovert.cli._several import check_sources, names_of
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

    from scovert.model import MaskedImputation

__all__ = ["fit_imputation", "impute"]

SLOTS = [
    ("obsm", "X_imputation"),
    ("layers", "imputation"),
    ("varm", "imputation_measured"),
    ("varm", "imputation_explained"),
]
"""Where `scovert.model.MaskedImputation.annotate` writes."""
FILE_KEY, MEASURED_KEY = "file", "measured"
"""Of several files: the column with the file of a cell, and the table of what each has."""


def impute(  # noqa: PLR0913
    context: typer.Context,
    files: InputFiles,
    *,
    batch_key: Annotated[
        str | None,
        typer.Option(help="Column of obs with the dataset of each cell, of one file."),
    ] = None,
    measured_key: Annotated[
        str | None,
        typer.Option(
            help="Table in varm, genes x datasets, of what each measured, or detect: genes "
            "without counts in a dataset were not measured there. Of one file."
        ),
    ] = None,
    output: OutputFile,
    report: ReportFile = None,
    layer: Layer = None,
    keep_measured: Annotated[
        bool, typer.Option("--keep-measured", help="Keep counts in the layer where there are any.")
    ] = False,
    write_layer: Annotated[
        bool, typer.Option(help="Write imputed counts, a dense layer of cells x genes.")
    ] = True,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    save_model: SaveModel = None,
    max_epochs: MaxEpochs = None,
) -> None:
    """Impute unmeasured genes with MaskedImputation.

    Several files are datasets: they are joined over all their genes, and each measured the genes
    that it holds. The output is the input with layers["imputation"] (expected counts),
    obsm["X_imputation"] and, in varm, what was measured and how well each gene is explained.
    """
    with session(context, quiet=quiet):
        check_sources(files, batch_key, "batch_key")
        check_output(output, overwrite=overwrite, endings=CELLS, sources=files)
        check_report(report, [output], files, overwrite=overwrite)
        check_model(save_model, [output], overwrite=overwrite)
        say = narrator(context, quiet=quiet)
        setup = {"batch_key": batch_key, "layer": layer, "measured_key": measured_key}
        adata = _joined(files, setup, say) if len(files) > 1 else _one(files[0], say)
        writing = {"write_layer": write_layer, "overwrite": overwrite}
        check_cells(adata, output, "imputation", SLOTS, **writing)
        options = {"seed": seed, "accelerator": accelerator, "max_epochs": max_epochs}
        writing["keep_measured"] = keep_measured
        model = fit_imputation(adata, setup, writing, quiet=quiet, **options)
        save(model, save_model, overwrite=overwrite)
        write(adata, output)
        tell(model.report(report, overwrite=overwrite), say)
        say(f"Written to {places(output, report)}.")
        say("Imputed counts are means: make no test of them.")


def _one(file: Path, say: Callable[[str], None]) -> AnnData:
    adata = read(file)
    say(f"{file}: {adata.n_obs} cells, {adata.n_vars} genes.")
    return adata


def _joined(files: Sequence[Path], setup: dict[str, str | None], say: Callable) -> AnnData:
    """Join files over all their genes, and name the columns in the set-up."""
    from scovert.data import concat_measured

    named = [name for name in ("batch_key", "measured_key") if setup[name] is not None]
    if named:
        raise ValueError(
            f"`{named[0]}` is for one file that holds several datasets, and there are "
            f"{len(files)} files, each of which is a dataset. Leave it out, or join them first."
        )
    parts = {name: _one(file, say) for name, file in zip(names_of(files), files, strict=True)}
    for file, part in zip(files, parts.values(), strict=True):
        if FILE_KEY in part.obs:
            raise ValueError(
                f"{file} has a column {FILE_KEY!r} of obs, where the file of each cell is to be "
                "written. Rename it in the file."
            )
    setup |= {"batch_key": FILE_KEY, "measured_key": MEASURED_KEY}
    joined = concat_measured(parts, batch_key=FILE_KEY, measured_key=MEASURED_KEY)
    lacking = (~joined.varm[MEASURED_KEY]).sum()
    for name, n in lacking[lacking > 0].items():
        say(f"{name} lacks {n} of the {joined.n_vars} genes of all files.")
    return joined


def fit_imputation(
    adata: AnnData,
    setup: dict,
    writing: dict,
    *,
    quiet: bool,
    seed: int,
    accelerator: str,
    max_epochs: int | None,
) -> MaskedImputation:
    """Fit MaskedImputation and annotate the cells.

    Parameters
    ----------
    adata
        The cells.
    setup, writing
        Arguments of ``setup_anndata`` and of ``annotate``.
    quiet
        Show no progress.
    seed, accelerator, max_epochs
        Of the training.
    """
    from scovert.model import MaskedImputation

    set_seed(seed)
    MaskedImputation.setup_anndata(adata, **setup)
    model = MaskedImputation(adata)
    model.train(max_epochs, accelerator=accelerator, enable_progress_bar=not quiet)
    model.annotate(**writing)
    return model
