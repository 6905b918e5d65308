"""scovert: models that make hidden structure in single-cell counts visible."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from scovert._settings import settings

__all__ = [
    "__version__",
    "anchors",
    "data",
    "metrics",
    "model",
    "pl",
    "pp",
    "settings",
    "simulate",
]

__version__ = version("scovert")


def __getattr__(name: str) -> ModuleType:
    """Import a namespace at its first use, so that ``scovert --help`` does not wait for torch."""
    if name in __all__:
        return import_module(f"scovert.{name}")
    raise AttributeError(f"module 'scovert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
