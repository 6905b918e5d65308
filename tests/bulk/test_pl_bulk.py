"""Figures of bulk samples: what they hold is read back from the axes."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex
from scipy import stats

from scovert import pl

mpl.use("agg")
TYPES = ["T/CD4", "B", "NK", "Mono", "a type with a name that is much too long"]
OKABE_ITO = (  # of the paper, in RGB
    "#000000 #e69f00 #56b4e9 #009e73 #f0e442 #0072b2 #d55e00 #cc79a7"
).split()
SAMPLES = [f"patient {i}" for i in range(7)]


pytestmark = pytest.mark.usefixtures("leaves_no_traces")


def draw_table(n_samples: int, types: list[str], seed: int = 0) -> pd.DataFrame:
    shares = np.random.default_rng(seed).dirichlet(np.ones(len(types)), n_samples)
    return pd.DataFrame(shares, [f"s{i}" for i in range(n_samples)], types)


@pytest.fixture
def table() -> pd.DataFrame:
    return draw_table(7, TYPES).set_axis(SAMPLES)


def labels(ticks: list) -> list[str]:
    return [tick.get_text() for tick in ticks]


def legend(ax: Axes) -> list[str]:
    return labels(ax.get_legend().get_texts())


# proportions


def test_bars_are_stacked_in_order(table: pd.DataFrame) -> None:
    ax = pl.proportions(table)
    for bars, values, below in zip(
        ax.containers, table.to_numpy().T, table.cumsum(axis=1).to_numpy().T - table.T.to_numpy(),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose([bar.get_height() for bar in bars], values)
        np.testing.assert_allclose([bar.get_y() for bar in bars], below, atol=1e-12)
    assert labels(ax.get_xticklabels()) == SAMPLES
    assert legend(ax)[0].startswith("a type with")  # from top to bottom, as in the bars
    assert legend(ax)[1:] == ["Mono", "NK", "B", "T/CD4"]
    assert ax.get_ylim() == (0, 1)
    assert ax.get_ylabel() == "proportion"


def test_many_samples_are_counted_instead_of_named() -> None:
    ax = pl.proportions(draw_table(61, ["B", "T"]))
    assert (ax.get_xlabel(), list(ax.get_xticks())) == ("61 samples", [])
    assert len(pl.proportions(draw_table(60, ["B", "T"])).get_xticks()) == 60


def test_the_unknown_is_grey_and_colours_differ() -> None:
    many = draw_table(3, [f"type {i}" for i in range(35)]).assign(unknown=0)
    faces = [
        (to_hex(bars[0].get_facecolor()), bars[0].get_hatch())
        for bars in pl.proportions(many).containers
    ]
    assert faces[-1] == (to_hex("0.6"), None)
    assert len(set(faces)) == 36
    assert {colour for colour, _ in faces[:-1]} == set(map(to_hex, OKABE_ITO))
    assert len(set(legend(plt.gca()))) == 36
    more = draw_table(3, [f"type {i}" for i in range(41)])
    assert len({bars[0].get_facecolor() for bars in pl.proportions(more).containers}) > 30


def test_up_to_eight_types_are_told_apart_by_the_colour_blind() -> None:
    eight = draw_table(3, [f"type {i}" for i in range(8)]).assign(unknown=0)
    colours = [to_hex(bars[0].get_facecolor()) for bars in pl.proportions(eight).containers]
    assert set(colours[:8]) == set(map(to_hex, OKABE_ITO))
    assert colours[8] == to_hex("0.6")


@pytest.mark.parametrize(("n_samples", "n_types"), [(1, 33), (30, 2), (13, 33)])
def test_nothing_is_outside_of_the_figure(n_samples: int, n_types: int) -> None:
    types = [f"subset number {i} of the cells" for i in range(n_types)]
    table = draw_table(n_samples, types)
    table.index = [f"a long name of the sample {i}" for i in range(n_samples)]
    rows = table.to_numpy()
    quality = pd.DataFrame({"residual_sd": rows[:, 0], "disagreement": rows[:, 1]}, table.index)
    for figure in (
        pl.proportions(table).figure,
        pl.proportions_heatmap(table).figure,
        pl.agreement(table, table).figure,
        pl.intervals(table, table, table, measured=table, types=types[:5])[0].figure,
        pl.residuals(quality)[0].figure,
    ):
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert min(box.x0, box.y0) > -0.1
        assert box.x1 < width + 0.1
        assert box.y1 < height + 0.1


@pytest.mark.parametrize("name", ["s", "a long name of the sample "])
def test_panels_are_as_large_whatever_is_around_them(name: str) -> None:
    table = draw_table(12, ["B", "T"]).set_axis([f"{name}{i}" for i in range(12)])
    for axes, size in (
        (pl.proportions(table), (3.0, 2.7)),  # inches: a quarter for each sample
        (pl.proportions_heatmap(table), (6.0, 0.5)),  # twice that, for the numbers
        (pl.agreement(table, table), (3.2, 3.2)),
    ):
        axes.figure.draw_without_rendering()
        np.testing.assert_allclose(axes.bbox.size / axes.figure.dpi, size, rtol=0.05)


# proportions_heatmap


def test_heatmap(table: pd.DataFrame) -> None:
    ax = pl.proportions_heatmap(table)
    np.testing.assert_array_equal(ax.images[0].get_array(), table.T)
    assert labels(ax.get_xticklabels()) == SAMPLES
    assert labels(ax.get_yticklabels())[:4] == TYPES[:4]
    written = np.array(labels(ax.texts), float).reshape(5, 7)
    np.testing.assert_allclose(written, 100 * table.T, atol=0.0501)
    norm = ax.images[0].norm
    assert norm(table.max(axis=None) / 4) == pytest.approx(0.5)  # square root
    assert ax.figure.axes[-1].get_ylabel() == "proportion"


def test_heatmap_of_many_samples_has_no_numbers() -> None:
    ax = pl.proportions_heatmap(draw_table(13, ["B", "T"]))
    assert not ax.texts
    assert len(ax.get_xticks()) == 13


def test_heatmap_of_zeros() -> None:
    ax = pl.proportions_heatmap(pd.DataFrame(0.0, ["a"], ["B", "T"]))
    assert np.isfinite(ax.images[0].norm.vmax)


# agreement


def points(ax: Axes) -> dict[str, np.ndarray]:
    drawn = [c for c in ax.collections if isinstance(c, PathCollection)]
    return {c.get_label(): np.asarray(c.get_offsets()) for c in drawn}


def lin(x: np.ndarray, y: np.ndarray) -> float:
    covariance = np.cov(x, y, bias=True)
    return 2 * covariance[0, 1] / (np.trace(covariance) + (x.mean() - y.mean()) ** 2)


def test_agreement_matches_names(table: pd.DataFrame) -> None:
    measured = table.iloc[[5, 2, 4], [3, 1, 0]].assign(Platelet=0.1) * 0.9
    measured.loc["someone else"] = 0.5
    measured.loc["patient 2", "B"] = np.nan
    ax = pl.agreement(table, measured)
    found = points(ax)
    assert list(found) == ["T/CD4", "B", "Mono"]
    for label, drawn in found.items():
        rows = ["patient 2", "patient 4", "patient 5"]
        expected = np.c_[measured.loc[rows, label], table.loc[rows, label]]
        np.testing.assert_array_equal(drawn, expected[~np.isnan(expected[:, 0])])
    x, y = np.concatenate([*found.values()]).T
    assert len(x) == 8
    assert ax.get_title() == f"CCC = {lin(x, y):.3f}, Pearson r = {stats.pearsonr(x, y)[0]:.3f}"
    caption = "|".join(labels(ax.texts)).replace("\n", " ")
    assert "measured only: Platelet" in caption
    assert "estimated only: NK, a type with" in caption
    assert ax.get_xlim() == ax.get_ylim()
    assert ax.get_aspect() == 1
    identity = ax.get_lines()[0]
    np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())


def test_agreement_of_constants(table: pd.DataFrame) -> None:
    constant = pd.DataFrame(0.2, SAMPLES, TYPES)
    assert pl.agreement(table, constant).get_title().endswith("no correlation with a constant")
    worse = pl.agreement(1 - table, table).get_title()
    assert "Pearson r = \N{MINUS SIGN}1.000" in worse


# intervals


def segments(ax: Axes) -> np.ndarray:
    (lines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    return np.array([[s[0, 1], s[1, 1]] for s in lines.get_segments()])


def line(ax: Axes, label: str) -> np.ndarray:
    (found,) = [each for each in ax.get_lines() if each.get_label() == label]
    return np.c_[found.get_xdata(), found.get_ydata()]


def test_intervals(table: pd.DataFrame) -> None:
    low, high = 0.8 * table, (1.3 * table).clip(upper=1)
    measured = table.iloc[[4, 1, 2], [2, 0]].assign(Platelet=0.2)  # any order, other types
    measured.loc["patient 1", "NK"] = 0.999
    measured.loc["patient 2", "NK"] = np.nan
    axes = pl.intervals(table, low, high, measured=measured)
    assert len(axes) == 5
    for ax, label in zip(axes, TYPES, strict=True):
        np.testing.assert_array_equal(segments(ax), np.c_[low[label], high[label]])
        np.testing.assert_array_equal(line(ax, "estimated"), np.c_[range(7), table[label]])
        assert ax.get_ylim()[0] == 0
        assert ax.get_ylim()[1] > high[label].max()
    assert [ax.get_title() for ax in axes][:4] == [
        "T/CD4: 3 of 3 within", "B", "NK: 1 of 2 within", "Mono",
    ]  # fmt: skip
    np.testing.assert_array_equal(line(axes[2], "measured")[:, 0], [1, 4])
    assert axes[2].get_ylim()[1] > 0.999
    assert labels(axes[0].figure.legends[0].get_texts()) == ["interval", "estimated", "measured"]


def test_the_lowest_panels_name_the_samples(table: pd.DataFrame) -> None:
    axes = pl.intervals(table, table, table)  # two columns or more, five panels
    assert axes[0].figure.axes == list(axes)  # no empty panels
    columns = sum(ax.get_subplotspec().rowspan.start == 0 for ax in axes)
    assert columns > 1
    named = [labels(ax.get_xticklabels()) == SAMPLES for ax in axes]
    assert named == [i + columns >= 5 for i in range(5)]
    many = draw_table(99, TYPES)
    assert [ax.get_xlabel() for ax in pl.intervals(many, many, many)] == [""] * 4 + ["99 samples"]


def test_intervals_of_chosen_types(table: pd.DataFrame) -> None:
    axes = pl.intervals(table, table, table, types=["Mono", "B"])
    assert [ax.get_title() for ax in axes] == ["Mono", "B"]
    assert isinstance(axes, np.ndarray)


# type_expression


@pytest.fixture
def expression() -> pd.DataFrame:
    """Five types with three genes each of their own and ten for all."""
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 2, (25, 5))
    for k in range(5):
        values[3 * k : 3 * k + 3, k] += 4000 / np.arange(1, 4)
    return pd.DataFrame(values.T, TYPES, [f"gene {g}" for g in range(25)])


def test_the_most_specific_genes_are_drawn(expression: pd.DataFrame) -> None:
    ax = pl.type_expression(expression.sample(frac=1, axis=1, random_state=1), n_genes=2)
    names = labels(ax.get_xticklabels())
    assert names == [f"gene {3 * k + i}" for k in range(5) for i in range(2)]
    np.testing.assert_allclose(ax.images[0].get_array(), np.log2(expression[names] + 1))
    assert labels(ax.get_yticklabels())[:4] == TYPES[:4]
    assert [each.get_xdata()[0] for each in ax.get_lines()] == [1.5, 3.5, 5.5, 7.5]
    assert ax.figure.axes[-1].get_ylabel() == "$\\log_2$ (CPM + 1)"


def test_conditions_of_a_type_are_together(expression: pd.DataFrame) -> None:
    both = pd.concat({"ctrl": expression, "stim": 3 * expression}, names=["condition", "type"])
    ax = pl.type_expression(both, n_genes=1)
    assert labels(ax.get_yticklabels())[:4] == [
        "T/CD4, ctrl", "T/CD4, stim", "B, ctrl", "B, stim",
    ]  # fmt: skip
    names = [f"gene {3 * k}" for k in range(5)]
    assert labels(ax.get_xticklabels()) == names
    drawn = ax.images[0].get_array()
    np.testing.assert_allclose(drawn[::2], np.log2(expression[names] + 1))
    np.testing.assert_allclose(drawn[1::2], np.log2(3 * expression[names] + 1))
    one = pl.type_expression(both.loc[["stim"]], n_genes=1)
    assert labels(one.get_yticklabels())[:4] == TYPES[:4]


def test_genes_can_be_named(expression: pd.DataFrame) -> None:
    ax = pl.type_expression(expression, genes=["gene 20", "gene 3"])
    assert labels(ax.get_xticklabels()) == ["gene 20", "gene 3"]
    assert not ax.get_lines()
    many = pl.type_expression(expression, genes=["gene 1"] * 91)
    assert (many.get_xlabel(), list(many.get_xticks())) == ("91 genes", [])


# residuals


@pytest.fixture
def quality() -> pd.DataFrame:
    values = {"residual_sd": [0.2, 0.22, 0.18, 0.21, 0.9, 0.19, 0.2]}
    table = pd.DataFrame(values, SAMPLES)
    table.attrs = {"n_informative_genes": 1432, "shift_sd": 0.708, "kind": "counts"}
    return table


def marked(ax: Axes) -> dict[str, list]:
    dots = [each for each in ax.get_lines() if each.get_linestyle() == "None"]
    return {each.get_marker(): np.c_[each.get_data()].tolist() for each in dots}


def test_residuals_mark_samples_that_stand_out(quality: pd.DataFrame) -> None:
    (ax,) = pl.residuals(quality)
    assert marked(ax)["D"] == [[4, 0.9]]
    assert len(marked(ax)["o"]) == 6
    assert ax.get_lines()[0].get_ydata() == [0.2, 0.2]
    assert ax.get_title() == "Residual: median 0.2"
    assert labels(ax.get_xticklabels()) == SAMPLES
    assert labels(ax.texts) == ["1,432 informative genes\nshift of the genes: sd 0.71"]


def test_of_few_samples_none_stands_out(quality: pd.DataFrame) -> None:
    assert marked(pl.residuals(quality.iloc[3:])[0])["D"] == []
    quality.attrs = {}
    assert not pl.residuals(quality.iloc[:1])[0].texts


def test_residuals_with_disagreement(quality: pd.DataFrame) -> None:
    quality["disagreement"] = np.linspace(0, 0.3, 7)
    axes = pl.residuals(quality)
    assert [ax.get_title() for ax in axes] == ["Residual: median 0.2", "Disagreement: median 0.15"]
    found = np.array(marked(axes[1])["o"])
    np.testing.assert_allclose(found[:, 1], quality["disagreement"])
    assert labels(axes[1].get_xticklabels()) == SAMPLES


# what all share


FIGURES: dict[str, Callable[[pd.DataFrame], object]] = {
    "proportions": pl.proportions,
    "proportions_heatmap": pl.proportions_heatmap,
    "agreement": lambda t: pl.agreement(t, t),
    "intervals": lambda t: pl.intervals(t, t, t),
    "type_expression": pl.type_expression,
    "residuals": lambda t: pl.residuals(t.set_axis(["residual_sd", *t.columns[1:]], axis=1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_table_is_untouched_and_nothing_is_shown(
    name: str, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("shown"))
    before = table.copy()
    FIGURES[name](table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("name", ["proportions", "proportions_heatmap", "agreement"])
def test_figures_take_axes(name: str, table: pd.DataFrame) -> None:
    _, ax = plt.subplots()
    arguments = (table, table) if name == "agreement" else (table,)
    assert getattr(pl, name)(*arguments, ax=ax) is ax


def test_type_expression_takes_axes(expression: pd.DataFrame) -> None:
    _, ax = plt.subplots()
    assert pl.type_expression(expression, ax=ax) is ax


def test_figures_show_when_asked(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    pl.proportions(table, show=True)
    pl.proportions_heatmap(table, show=True)
    pl.agreement(table, table, show=True)
    pl.intervals(table, table, table, show=True)
    pl.type_expression(table, show=True)
    pl.residuals(table.set_axis(["residual_sd", *TYPES[1:]], axis=1), show=True)
    assert len(shown) == 6


def changed(table: pd.DataFrame, value: object) -> pd.DataFrame:
    return table.astype(object).assign(NK=value)


REFUSED = {
    "array": (lambda t: pl.proportions(t.to_numpy()), TypeError, "`proportions` is a ndarray"),
    "text": (lambda t: pl.proportions(changed(t, "x")), TypeError, "holds text"),
    "missing": (
        lambda t: pl.proportions(changed(t, np.nan)), ValueError, "is nan for 'patient 0', 'NK'",
    ),
    "empty": (lambda t: pl.proportions(t.iloc[:0]), ValueError, r"shape \(0, 5\)"),
    "negative": (lambda t: pl.proportions(t - 0.5), ValueError, "runs from -0"),
    "percent": (lambda t: pl.proportions_heatmap(100 * t), ValueError, "divide percentages"),
    "other samples": (
        lambda t: pl.agreement(t, t.set_axis(list("abcdefg"))),
        ValueError, "no sample in common: 'patient 0', .* and 'a'",
    ),
    "other types": (
        lambda t: pl.agreement(t, t.set_axis(list("abcde"), axis=1)),
        ValueError, r"no type in common: 'T/CD4', .*sum\(axis=1\)",
    ),
    "one point": (
        lambda t: pl.agreement(t, t.iloc[:1, :1]), ValueError, "`measured` has 1 proportions",
    ),
    "infinite": (
        lambda t: pl.agreement(t, changed(t, np.inf)), ValueError, "`measured` is inf for",
    ),
    "other shape": (
        lambda t: pl.intervals(t, t.iloc[1:], t), ValueError, "`lower` .*different names",
    ),
    "crossed": (
        lambda t: pl.intervals(t, t, 0.9 * t), ValueError, "`lower` is above `upper` for 'patient",
    ),
    "type": (lambda t: pl.intervals(t, t, t, types=["T"]), KeyError, r"holds \['T'\]"),
    "one type": (lambda t: pl.intervals(t, t, t, types="B"), TypeError, r"\['B'\]"),
    "one column": (
        lambda t: pl.type_expression(t.iloc[:1]), ValueError, "`expression` has 1 types",
    ),
    "log": (lambda t: pl.type_expression(np.log(t)), ValueError, "values from -"),
    "flat": (lambda t: pl.type_expression(0 * t), ValueError, "No gene .* differs"),
    "gene": (lambda t: pl.type_expression(t, genes=["x"]), KeyError, r"holds \['x'\]"),
    "one gene": (lambda t: pl.type_expression(t, genes="x"), TypeError, "is a string"),
    "n_genes": (lambda t: pl.type_expression(t, n_genes=0), ValueError, "`n_genes=0`"),
    "no residual": (lambda t: pl.residuals(t), KeyError, "no column 'residual_sd'"),
    "no quality": (lambda t: pl.residuals(t["B"]), TypeError, "`quality` is a Series"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, table: pd.DataFrame) -> None:
    call, exception, match = REFUSED[name]
    with pytest.raises(exception, match=match):
        call(table)


def test_marks_of_other_types_are_refused(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="`proportions` and `measured` have no type in common"):
        pl.intervals(table, table, table, measured=table.add_prefix("frac_"))
