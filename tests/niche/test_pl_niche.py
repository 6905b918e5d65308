"""Figures of niches, read back from the axes."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from scovert import pl
from scovert.simulate import niche

mpl.use("agg")


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


def test_every_cell_is_drawn_on_its_slide_in_its_colour() -> None:
    adata = niche(60, 5, n_genes=3)
    adata.uns["truth_region_colors"] = ["#111111", "#222222", "#333333", "#444444"]
    axes = pl.niches(adata, "truth_region", sample_key="sample")
    assert [ax.get_title() for ax in axes] == [f"section_{i}" for i in range(5)]
    for i, ax in enumerate(axes):
        own = adata[adata.obs["sample"] == f"section_{i}"]
        for j, region in enumerate("ABCD"):
            drawn = ax.collections[1 + j]
            expected = own.obsm["spatial"][own.obs["truth_region"] == region]
            np.testing.assert_allclose(drawn.get_offsets(), expected)
            assert to_hex(drawn.get_facecolor()[0]) == f"#{j + 1}{j + 1}" + f"{j + 1}" * 4
        assert ax.get_aspect() == 1
    legend = axes[3].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list("ABCD")


def test_cells_without_a_label_are_grey_and_one_slide_has_no_title() -> None:
    adata = niche(40, 1, n_genes=3)
    adata.obs["niche"] = adata.obs["truth_region"].where(np.arange(40) % 2 == 0)
    (ax,) = pl.niches(adata)
    assert ax.get_title() == ""
    assert len(ax.collections[0].get_offsets()) == 20


def test_a_niche_has_its_colour_on_every_slide() -> None:
    """Also where others are missing, and where there are more than eight."""
    adata = niche(60, 1, n_genes=3)
    names = [str(i) for i in range(20)]
    adata.obs["niche"] = pd.Categorical(np.array(names)[np.arange(60) % 20], names)
    part = adata[adata.obs["niche"].isin(["0", "5", "19"])].copy()
    part.obs["niche"] = pd.Categorical(part.obs["niche"].astype(str), names)

    def colour_of(adata: object) -> dict[str, str]:
        legend = pl.niches(adata)[0].get_legend()
        marks = (to_hex(handle.get_facecolor()[0]) for handle in legend.legend_handles)
        return dict(zip([text.get_text() for text in legend.get_texts()], marks, strict=True))

    every, some = colour_of(adata), colour_of(part)
    assert some == {name: every[name] for name in ("0", "5", "19")}
    assert len(set(every.values())) == 20
    adata.uns["niche_colors"] = [f"#{i:02x}0000" for i in range(20)]
    part.uns["niche_colors"] = adata.uns["niche_colors"]
    assert colour_of(part) == {"0": "#000000", "5": "#050000", "19": "#130000"}
    part.uns["niche_colors"] = ["#000000", "#050000", "#130000"]  # as scanpy leaves them
    assert colour_of(part) == {"0": "#000000", "5": "#050000", "19": "#130000"}


def test_what_figures_refuse() -> None:
    adata = niche(20, 1, n_genes=3)
    with pytest.raises(KeyError, match="color=.*niche.* is not a column.*annotate"):
        pl.niches(adata)
    with pytest.raises(KeyError, match="spatial_key=.*xy.*spatial"):
        pl.niches(adata, "truth_region", spatial_key="xy")
    with pytest.raises(KeyError, match="sample_key=.*slide"):
        pl.niches(adata, "truth_region", sample_key="slide")
    table = pd.DataFrame({"B": [0.5], "T": [0.5]}, ["a"])
    with pytest.raises(ValueError, match="different labels, such as 'B'"):
        pl.neighborhoods(table, table.rename(columns={"B": "NK"}))


def test_true_and_predicted_neighbours_stand_side_by_side() -> None:
    true = pd.DataFrame({"B": [0.25, 0.0], "T": [0.75, 1.0]}, ["a", "b"])
    predicted = pd.DataFrame({"T": [0.5, 0.9], "B": [0.5, 0.1]}, ["a", "b"])
    ax = pl.neighborhoods(true, predicted)
    found = {(round(bar.get_x() + bar.get_width() / 2, 2), round(bar.get_y(), 2)): bar
             for bar in ax.patches}  # fmt: skip
    assert found[-0.2, 0.0].get_height() == 0.25
    assert found[-0.2, 0.25].get_height() == 0.75
    assert found[0.2, 0.0].get_height() == 0.5
    assert found[1.2, 0.1].get_height() == pytest.approx(0.9)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["T", "B"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "b"]
