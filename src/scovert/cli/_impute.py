"""``scovert impute``: counts of genes that a dataset did not measure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli import _options as opt
from scovert.cli._read import read
from scovert.cli._session import fit, narrator, session
from scovert.cli._several import check_sources, names_of
from scovert.cli._write import check_cells, check_places, write_all

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["impute"]

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
    files: opt.InputFiles,
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
    output: opt.OutputFile,
    report: opt.ReportFile = None,
    layer: opt.Layer = None,
    keep_measured: Annotated[
        bool, typer.Option("--keep-measured", help="Keep counts in the layer where there are any.")
    ] = False,
    write_layer: Annotated[
        bool, typer.Option(help="Write imputed counts, a dense layer of cells x genes.")
    ] = True,
    seed: opt.Seed = 0,
    accelerator: opt.Accelerator = "auto",
    quiet: opt.Quiet = False,
    overwrite: opt.Overwrite = False,
    save_model: opt.SaveModel = None,
    max_epochs: opt.MaxEpochs = None,
) -> None:
    """Impute unmeasured genes with MaskedImputation.

    Several files are datasets: they are joined over all their genes, and each measured the genes
    that it holds. The output is the input with layers["imputation"] (expected counts),
    obsm["X_imputation"] and, in varm, what was measured and how well each gene is explained.
    """
    with session(context, quiet=quiet):
        check_sources(files, batch_key, "batch_key")
        check_places(
            [output], page=report, folders=[save_model], sources=files, overwrite=overwrite
        )
        say = narrator(context, quiet=quiet)
        setup = {"batch_key": batch_key, "layer": layer, "measured_key": measured_key}
        adata = _joined(files, setup, say) if len(files) > 1 else _one(files[0], say)
        writing = {"write_layer": write_layer, "overwrite": overwrite}
        check_cells(adata, output, "imputation", SLOTS, **writing)
        from scovert.model import MaskedImputation

        training = {"accelerator": accelerator, "max_epochs": max_epochs}
        training["enable_progress_bar"] = not quiet
        model = fit(MaskedImputation, adata, setup, {}, seed=seed, **training)
        model.annotate(**writing, keep_measured=keep_measured)
        ending = {"save_model": save_model, "overwrite": overwrite}
        write_all(model, adata, [output, report], say, **ending)
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
