"""scovert: models that make hidden structure in single-cell counts visible."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

__all__ = ["__version__", "anchors", "data", "metrics", "model", "pl", "pp", "simulate"]

__version__ = version("scovert")

# What a model does and assumes is shown, unless the program has its own way to show messages.
_shown = logging.StreamHandler()
_shown.setFormatter(logging.Formatter("%(message)s"))
_shown.addFilter(lambda _: not logging.getLogger().handlers)
logging.getLogger(__name__).addHandler(_shown)
logging.getLogger(__name__).setLevel(logging.INFO)


def __getattr__(name: str) -> ModuleType:
    """Import a namespace at its first use, so that ``scovert --help`` does not wait for torch."""
    if name in __all__:
        return import_module(f"scovert.{name}")
    raise AttributeError(f"module 'scovert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
