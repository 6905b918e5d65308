"""Fixtures of the tests of LatentConfounder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def three_classes_at_most() -> Iterator[None]:
    """Look for few hidden classes, which takes a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scovert.model.confounder.effects._mixture.N_CLASSES", (1, 2, 3))
        yield
