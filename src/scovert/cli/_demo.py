"""``scovert demo``: every model on bundled data, in one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scovert.cli import _options as opt
from scovert.cli._session import narrator, session, set_seed
from scovert.cli._shows import SHOWS, Show
from scovert.cli._write import check_places, save, write

__all__ = ["demo"]

TITLE = "scovert: every model on data with a known truth"


def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "scovert-demo"
    ),
    *,
    seed: opt.Seed = 0,
    accelerator: opt.Accelerator = "auto",
    quiet: opt.Quiet = False,
    overwrite: opt.Overwrite = False,
    save_model: opt.SaveModel = None,
    max_epochs: opt.MaxEpochs = None,
) -> None:
    """Show every model on bundled data, in one report.

    Fits each model to data of which the truth is known, in a few minutes, and writes report.html
    and the annotated data of each model. Nothing is downloaded.
    """
    with session(context, quiet=quiet):
        page = output / "report.html"
        files = {stem: output / f"{stem}.h5ad" for stem in SHOWS}
        folders = {stem: None if save_model is None else save_model / stem for stem in SHOWS}
        written = {"cells": [*files.values()], "page": page, "folders": folders.values()}
        check_places(**written, sources=[], overwrite=overwrite)
        from scovert.core.report import write_reports

        say = narrator(context, quiet=quiet)
        training = {"accelerator": accelerator, "enable_progress_bar": not quiet}
        if max_epochs is not None:
            training["max_epochs"] = max_epochs
        shows: dict[str, Show] = {}
        for stem, show in SHOWS.items():
            say(show.__doc__)
            set_seed(seed)
            shows[stem] = show(seed, training)
            save(shows[stem].model, folders[stem], overwrite=overwrite)
            write(shows[stem].adata, files[stem])
            say(shows[stem].report.summary[0])
        say("Drawing.")
        reports = [show.report for show in shows.values()]
        write_reports(page, reports, title=TITLE, overwrite=overwrite)
        say(f"Written to {output}: {', '.join(f.name for f in (page, *files.values()))}.")
