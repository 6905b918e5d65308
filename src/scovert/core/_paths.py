"""Places of files and folders that a user names."""

from __future__ import annotations

import os
from pathlib import Path

from scovert.core._words import a_kind_of

__all__ = ["place_of"]


def place_of(path: object, name: str, what: str) -> Path:
    """Return a path, or refuse what is none.

    Parameters
    ----------
    path
        What the user passed.
    name
        The argument, for the message.
    what
        What it names, for the message.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"`{name}={path!r}` is {a_kind_of(path)}. Pass the name of {what}.")
    return Path(path)
