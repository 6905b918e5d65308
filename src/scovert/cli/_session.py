"""What every command does around its model: messages, and the seed."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

import typer

from scovert._settings import settings

if TYPE_CHECKING:
    from anndata import AnnData

    from scovert.core.report import Report

__all__ = [
    "Subject",
    "fit",
    "narrator",
    "session",
    "set_seed",
    "speak_about",
    "tell",
    "warn",
]

Model = TypeVar("Model")

ARGUMENT = r"`(?P<name>\w+)(\[(?P<key>[^`]*)\])?(=(?P<value>[^`]*))?`"
SLOT = r"`(?:adata|bulk)\.((?:X|raw\.X|layers|obs|var|obs_names|var_names)(?:\[[^`]*\])?)`"
PYTHON = (
    (r"(pass|write) `\w+\.T`", "exchange rows and columns"),
    (r"`\w+\.var_names = \w+\.(var\[[^`]*\])`", r"\1 as names of genes (the index of var)"),
    (r"`\w+\.(\w+) = \w+\.\1\.astype\(str\)`", "text in the file"),
    (r"`cell_sizes` of the result", "cell_size in uns['bulk'] of the output"),
)
"""What messages say to do in Python, and how it is said where files are made by other means."""
SUBJECT = "scovert.subject"


@contextmanager
def session(context: typer.Context, *, quiet: bool) -> Iterator[None]:
    """Show what the package refuses and warns about as one line each."""
    said, verbosity = set(), settings.verbosity

    def show_warning(message: Warning | str, *_: object) -> None:
        text = _with_options(str(message), context)
        if text not in said:  # of several references
            typer.echo(_wrapped(f"warning: {text}", sys.stderr), err=True)
        said.add(text)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if quiet else "default", UserWarning)
            for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
                warnings.simplefilter("ignore", category)
            warnings.showwarning = show_warning
            settings.verbosity = "warning" if quiet else verbosity
            level = logging.ERROR if quiet else logging.WARNING  # commands say what they do
            logging.getLogger("scovert").setLevel(level)
            yield
    except (ValueError, KeyError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        text = f"error: {_with_options(str(message), context)}"
        typer.echo(_wrapped(text, sys.stderr), err=True)
        raise typer.Exit(1) from error
    finally:
        settings.verbosity = verbosity


@dataclass(frozen=True)
class Subject:
    """What messages are about.

    Attributes
    ----------
    file
        The file that ``adata`` or ``bulk`` was read from.
    layer
        Name of the parameter of the command that is its ``layer``.
    is_alone
        Whether all messages are about this file.
    """

    file: Path
    layer: str = "layer"
    is_alone: bool = True


def speak_about(context: typer.Context, subject: Subject | None) -> None:
    """Let messages from here on name the file, or none."""
    context.meta[SUBJECT] = subject


def _with_options(text: str, context: typer.Context) -> str:
    """Write arguments of the package as options of the command: `reference='a'`, --reference a.

    Likewise slots of an AnnData as those of the file, if it is known: `adata.obs`, obs of FILE.
    """
    subject: Subject | None = context.meta.get(SUBJECT)
    for code, words in PYTHON:
        text = re.sub(code, words, text)
    options = {parameter.name: parameter for parameter in context.command.params}
    several = {k: p for k, p in options.items() if getattr(p, "multiple", False)}
    several = {f"{k}{end}": p for k, p in several.items() for end in ("s", "_keys")}
    if subject is not None:
        options["layer"] = options[subject.layer]
        text = re.sub(SLOT, lambda match: f"{match[1]} of {subject.file}", text)

    def replace(match: re.Match[str]) -> str:
        value = (match["value"] or match["key"] or "").strip("'\"")
        option = options.get(match["name"], several.get(match["name"]))
        if option is None or not option.opts[0].startswith("--"):
            return match[0]
        if value == "False":
            return option.secondary_opts[0] if option.secondary_opts else f"no {option.opts[0]}"
        return option.opts[0] if value == "True" else f"{option.opts[0]} {value}".strip()

    text = re.sub(ARGUMENT, replace, text)
    is_named = subject is None or not subject.is_alone or str(subject.file) in text
    return text if is_named else f"{subject.file}: {text}"


def warn(text: str) -> None:
    """Warn about what was done with the input."""
    from scovert.core._checks import caller_level

    warnings.warn(text, UserWarning, stacklevel=caller_level())


def fit(
    cls: type[Model], adata: AnnData, setup: dict, init: dict, *, seed: int, **training: object
) -> Model:
    """Fit a model to cells.

    Arguments of ``train`` that are `None` are left to the model.
    """
    set_seed(seed)
    cls.setup_anndata(adata, **setup)
    model = cls(adata, **init)
    model.train(**{name: value for name, value in training.items() if value is not None})
    return model


def set_seed(seed: int) -> None:
    """Seed every random number, and silence what scvi-tools says of its training."""
    import scvi

    for name in ("lightning.pytorch", "lightning.fabric"):  # they set a level when imported
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = seed


def tell(report: Report, say: Callable[[str], None]) -> None:
    """Print what was done and found, and what of it deserves a look."""
    for line in report.lines():
        say(line)


def narrator(context: typer.Context, *, quiet: bool) -> Callable[[str], None]:
    """Return what prints a line, unless it is to be quiet; a table is more than one line."""

    def say(text: str) -> None:
        if not quiet:
            typer.echo(_wrapped(_with_options(text, context), sys.stdout))

    return say


def _wrapped(text: str, stream: TextIO) -> str:
    """Fit a sentence into a terminal; programs that read what is said get it in one line."""
    if "\n" in text or not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
