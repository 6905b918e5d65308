"""Command line: one subcommand, one short function that calls the public API."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from scovert.cli._deconfound import deconfound
from scovert.cli._deconvolve import deconvolve
from scovert.cli._demo import demo
from scovert.cli._embed_distances import embed_distances
from scovert.cli._impute import impute
from scovert.cli._integrate import integrate
from scovert.cli._niches import niches

__all__ = ["app"]

COMMANDS = {
    demo: "scovert demo -o demo",
    integrate: "scovert integrate a.h5ad b.h5ad -o both.h5ad --report both.html",
    deconfound: "scovert deconfound cells.h5ad --treatment-key stim --reference ctrl \\\n"
    "      --cluster-key donor -o effects.h5ad --report effects.html",
    niches: "scovert niches slides.h5ad --likelihood nb --sample-key slide \\\n"
    "      -o niches.h5ad --report niches.html",
    deconvolve: "scovert deconvolve reference.h5ad bulk.csv --labels-key cell_type \\\n"
    "      -o bulk.h5ad --report bulk.html",
    impute: "scovert impute atlas.h5ad panel.h5ad -o imputed.h5ad --report imputed.html",
    embed_distances: "scovert embed-distances samples.h5ad --distances unifrac.csv \\\n"
    "      -o embedded.h5ad --report embedded.html",
}
"""Commands, in the order of the help, and an example of each."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut the names of options
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(is_asked: bool) -> None:
    """Print the version and end."""
    if is_asked:
        typer.echo(version("scovert"))
        raise typer.Exit


@app.callback()
def scovert(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Models for single-cell counts: AnnData in, annotated AnnData out."""


for command, example in COMMANDS.items():
    app.command(epilog=f"\b\nExample:\n  {example}")(command)
