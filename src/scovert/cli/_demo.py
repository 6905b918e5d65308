"""``scovert demo``: every model on bundled data, in one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scovert.cli._options import Accelerator, MaxEpochs, Overwrite, Quiet, SaveModel, Seed
from scovert.cli._session import narrator, session, set_seed
from scovert.cli._shows import SHOWS, Show
from scovert.cli._write import check_model, check_output, check_report, save, write

__all__ = ["demo"]

TITLE = "scovert: every model on data with a known truth"


def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "scovert-demo"
    ),
    *,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    save_model: SaveModel = None,
    max_epochs: MaxEpochs = None,
) -> None:
    """Show every model on bundled data, in one report.

    Fits each model to data of which the truth is known, in a few minutes, and writes report.html
    and the annotated data of each model. Nothing is downloaded.
    """
    with session(context, quiet=quiet):
        page = output / "report.html"
        files = {stem: output / f"{stem}.h5ad" for stem in SHOWS}
        folders = {stem: None if save_model is None else save_model / stem for stem in SHOWS}
        for file in files.values():
            check_output(file, overwrite=overwrite)
        check_report(page, [*files.values()], [], overwrite=overwrite)
        for folder in folders.values():
            check_model(folder, [*files.values()], overwrite=overwrite)
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
