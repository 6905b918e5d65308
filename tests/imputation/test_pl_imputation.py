"""The figure of genes that were held back: what it holds is read back from the axes."""

from __future__ import annotations

from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PathCollection

from scovert import pl

mpl.use("agg")
pytestmark = pytest.mark.usefixtures("leaves_no_traces")


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "dataset": ["b", "b", "c", "b", "b"],
            "kind": ["imputed", "imputed", "imputed", "observed", "imputed"],
            "total": [100.0, 50, 30, 7, 15],
            "imputed_total": [200.0, 50, 60, 8, 12],
            "lower": [110.0, 20, 30, np.nan, np.nan],
            "upper": [400.0, 100, 120, np.nan, np.nan],
        }
    )


def test_totals_and_intervals_are_drawn_by_dataset(table: pd.DataFrame) -> None:
    ax = pl.imputation_agreement(table)
    points = [c for c in ax.collections if isinstance(c, PathCollection)]
    lines = [c for c in ax.collections if isinstance(c, LineCollection)]
    assert points[0].get_offsets().tolist() == [[100, 200], [50, 50], [15, 12]]
    assert points[1].get_offsets().tolist() == [[30, 60]]
    assert [s.tolist() for s in lines[0].get_segments()] == [
        [[100, 110], [100, 400]],
        [[50, 20], [50, 100]],
    ]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["b", "c"]
    assert ax.get_title() == "median factor 1.57, 2 of 3 genes inside"
    assert (ax.get_xscale(), ax.get_ylabel()) == ("log", "imputed total")


def test_it_draws_on_given_axes_without_a_legend_for_one(table: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert pl.imputation_agreement(table[table["dataset"] == "b"], ax=ax) is ax
    assert ax.get_legend() is None


def test_other_tables_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match="is a dict. Pass the DataFrame"):
        pl.imputation_agreement({})
    with pytest.raises(KeyError, match="no columns.*'lower'.*get_gene_agreement"):
        pl.imputation_agreement(table.drop(columns="lower"))
    with pytest.raises(ValueError, match="none of the kind 'imputed'.*calibration=0.1"):
        pl.imputation_agreement(table[table["kind"] == "observed"])


@pytest.mark.parametrize("largest", [60, 900, 30_000])
def test_labels_neither_touch_nor_leave_the_figure(largest: int) -> None:
    total = np.geomspace(20, largest, 11)
    table = pd.DataFrame({"dataset": "panel", "kind": "imputed", "total": total})
    table = table.assign(imputed_total=total, lower=0.4 * total, upper=2.5 * total)
    ax = pl.imputation_agreement(table)
    figure = ax.figure
    figure.draw_without_rendering()
    ticks = [tick for tick in ax.get_xticklabels() if tick.get_text()]
    low, high = ax.get_xlim()
    boxes = [t.get_window_extent() for t in ticks if low <= t.get_position()[0] <= high]
    assert len(boxes) > 1
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    title = ax.title.get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= figure.bbox.x1
