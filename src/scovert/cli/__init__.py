"""Command line: one subcommand, one short function that calls the public API."""

from __future__ import annotations

import typer

from scovert.cli._deconfound import deconfound
from scovert.cli._deconvolve import deconvolve
from scovert.cli._demo import demo
from scovert.cli._impute import impute
from scovert.cli._integrate import integrate
from scovert.cli._niches import niches

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut the names of options
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def scovert() -> None:
    """Models for single-cell counts: AnnData in, annotated AnnData out."""


for command in (demo, integrate, deconfound, niches, deconvolve, impute):
    app.command()(command)
