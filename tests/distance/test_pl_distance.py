"""The figure of predicted against true distances."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scovert.pl import distance_agreement

pytestmark = pytest.mark.usefixtures("leaves_no_traces")


@pytest.fixture
def matrices() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 1, (9, 9))
    true = np.triu(true, 1) + np.triu(true, 1).T
    return true * 0.9, true


def test_points_are_pairs_by_split(matrices: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, true = matrices
    split = ["new", *["train"] * 6, "new", "train"]
    ax = distance_agreement(predicted, true, split)
    fitted, new = ax.collections
    assert len(fitted.get_offsets()) == 7 * 6 // 2
    assert len(new.get_offsets()) == 2 * 7
    for points in (fitted, new):
        x, y = np.asarray(points.get_offsets()).T
        np.testing.assert_allclose(y, 0.9 * x)
    (line,) = ax.lines
    np.testing.assert_array_equal(*line.get_data())
    train = np.array([s == "train" for s in split])
    d = true[np.ix_(train, train)][np.triu_indices(7, 1)]
    expected = 1 - np.square(0.1 * d).sum() / np.square(d - d.mean()).sum()
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words[0] == f"fitted: R2 = {expected:.3f}".replace("-", "\N{MINUS SIGN}")
    assert words[1].startswith("new to fitted: R2")
    assert ax.get_xlim() == ax.get_ylim()


def test_tables_are_matched_by_name(matrices: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, true = (pd.DataFrame(m, list("abcdefghi"), list("abcdefghi")) for m in matrices)
    ax = distance_agreement(predicted, true.iloc[::-1, ::-1])
    (points,) = ax.collections
    x, y = np.asarray(points.get_offsets()).T
    np.testing.assert_allclose(y, 0.9 * x)


def test_what_is_refused(matrices: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, true = matrices
    with pytest.raises(ValueError, match=r"shape \(8, 9\).*square"):
        distance_agreement(predicted[:8], true[:8])
    with pytest.raises(ValueError, match="`split` has 2 values for 9 samples"):
        distance_agreement(predicted, true, ["train", "new"])
