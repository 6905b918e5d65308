"""Run the command line as ``python -m scovert``."""

from scovert.cli import app

app(prog_name="scovert")
