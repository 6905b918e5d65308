"""Figures: data in, axes out; matplotlib's settings are left as they are."""

from scovert.pl._batch_mixing import batch_mixing
from scovert.pl._history import history

__all__ = ["batch_mixing", "history"]
