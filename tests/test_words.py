"""Numbers and articles in messages."""

from __future__ import annotations

import numpy as np
import pytest

from scovert.core._words import CELLS, SAMPLES, a_kind_of, counted, words_of


@pytest.mark.parametrize(
    ("n", "what", "many", "expected"),
    [
        (0, "cell", None, "0 cells"),
        (1, "cell", None, "1 cell"),
        (2000, "cell", None, "2,000 cells"),
        (1, "taxon", "taxa", "1 taxon"),
        (3, "taxon", "taxa", "3 taxa"),
        (np.int64(1), "gene", None, "1 gene"),
    ],
)
def test_one_thing_has_no_s(n: int, what: str, many: str | None, expected: str) -> None:
    assert counted(n, what, many) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(3, "an int"), ("a", "a str"), (None, "a NoneType"), ([], "a list")]
)
def test_a_vowel_has_another_article(value: object, expected: str) -> None:
    assert a_kind_of(value) == expected


def test_distances_are_of_samples() -> None:
    assert words_of({"distances_key": "unifrac", "layer": None}) == SAMPLES
    assert words_of({"batch_key": "batch"}) == CELLS
