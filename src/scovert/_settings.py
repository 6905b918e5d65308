"""What the package says while it works."""

from __future__ import annotations

import logging
import shutil
import textwrap
import warnings

# A notebook without ipywidgets shows lines, and needs no word of it from tqdm.
warnings.filterwarnings("ignore", "IProgress not found")

__all__ = ["Settings", "settings"]

LEVELS = {"warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
LONGEST_LINE = 100
"""Characters of a message that is read comfortably, where a terminal is wider."""


class _Wrapped(logging.Formatter):
    """Messages, folded at the width of the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        width = min(shutil.get_terminal_size().columns, LONGEST_LINE)
        return textwrap.fill(super().format(record), width, break_long_words=False)


class Settings:
    """What scovert shows while it works: the one switch of :data:`scovert.settings`.

    Examples
    --------
    >>> import scovert
    >>> scovert.settings.verbosity
    'info'
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("scovert")
        shown = logging.StreamHandler()
        shown.setFormatter(_Wrapped("%(message)s"))
        # A program that shows messages in a way of its own gets them once.
        shown.addFilter(lambda _: not logging.getLogger().handlers)
        self._logger.addHandler(shown)
        self.verbosity = "info"

    def __repr__(self) -> str:
        return f"Settings(verbosity={self.verbosity!r})"

    @property
    def verbosity(self) -> str:
        """How much is shown, on stderr.

        ``"warning"``: warnings only. ``"info"``, the default: what a model does and assumes, and
        its progress. ``"debug"``: also what Lightning and scvi-tools say of devices and of the end
        of training.
        """
        return self._verbosity

    @verbosity.setter
    def verbosity(self, level: str) -> None:
        if level not in LEVELS:
            raise ValueError(
                f"`verbosity={level!r}` is not known. Pass one of {', '.join(map(repr, LEVELS))}."
            )
        self._verbosity = level
        self._logger.setLevel(LEVELS[level])

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown where a method does not say otherwise."""
        return self._verbosity != "warning"

    @property
    def shows_all(self) -> bool:
        """Whether what other packages say is shown too."""
        return self._verbosity == "debug"


settings = Settings()
"""The settings of this process."""
