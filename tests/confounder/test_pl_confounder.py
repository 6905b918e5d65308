"""Figures of hidden confounders and effects: what they hold is read back from the axes."""

from __future__ import annotations

import re
from collections.abc import Callable

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.text import Text
from scipy import special, stats

from scovert import pl, simulate

mpl.use("agg")


pytestmark = pytest.mark.usefixtures("leaves_no_traces")


@pytest.fixture(scope="module")
def simulated() -> AnnData:
    return simulate.confounder(n_cells=207, n_genes=31, seed=1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def effects() -> pd.DataFrame:
    """Effects of 90 genes: called by the unadjusted fit alone 40, by both 20, by the other 3."""
    rng = np.random.default_rng(1)
    p, p_unadjusted = rng.uniform(0.2, 1, (2, 90))
    p_unadjusted[:60] = 10.0 ** -rng.uniform(4, 9, 60)
    p[40:63] = 10.0 ** -rng.uniform(4, 9, 23)
    table = pd.DataFrame(index=[f"gene_{g}" for g in range(90)])
    table["log2_fc"], table["log2_fc_naive"] = rng.normal(size=(2, 90))
    table["p_value"] = p
    table["q_value"] = stats.false_discovery_control(p)
    table["q_value_naive"] = stats.false_discovery_control(p_unadjusted)
    table["reason"] = ""
    return table


def points(ax: Axes) -> np.ndarray:
    """All points that were scattered, shape ``(n_points, 2)``."""
    drawn = [np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)]
    return np.concatenate(drawn)


def line(ax: Axes, style: str) -> tuple[np.ndarray, np.ndarray]:
    (found,) = [each for each in ax.get_lines() if each.get_linestyle() == style]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def caption(ax: Axes) -> str:
    return "|".join(text.get_text() for text in ax.texts)


# confounder


def test_confounder_against_two_values(simulated: AnnData, rng: np.random.Generator) -> None:
    truth = simulated.obsm["truth_confounder"][:, 0]
    z = 2 * truth + rng.normal(size=len(truth))
    ax = pl.confounder(z, truth)
    drawn = points(ax)
    np.testing.assert_array_equal(drawn[:, 1], z)
    np.testing.assert_array_equal(np.rint(drawn[:, 0]), truth)  # jitter does not mix the groups
    assert 0.1 < np.abs(drawn[:, 0] - truth).max() < 0.2
    assert len(np.unique(drawn[:, 0])) == len(truth)
    x, y = line(ax, ":")
    np.testing.assert_array_equal(x, [0, 1])  # the regression on two values joins their means
    np.testing.assert_allclose(y, [z[truth == v].mean() for v in (0, 1)])
    assert ax.get_title() == f"Pearson r = {stats.pearsonr(z, truth)[0]:.3f}"
    assert ax.get_xticks().tolist() == [0, 1]


def test_confounder_against_numbers(rng: np.random.Generator) -> None:
    truth = rng.normal(size=101)
    z = -0.5 * truth + 0.1 * rng.normal(size=101)
    ax = pl.confounder(z[:, None], truth)
    np.testing.assert_array_equal(points(ax), np.c_[truth, z])
    x, y = line(ax, ":")
    expected = stats.linregress(truth, z)
    np.testing.assert_allclose(y, expected.intercept + expected.slope * x)
    assert ax.get_title() == f"Pearson r = \N{MINUS SIGN}{-expected.rvalue:.3f}"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true confounder", "inferred confounder")


def test_confounder_with_two_values_on_both_sides(simulated: AnnData) -> None:
    truth = simulated.obsm["truth_confounder"][:, 0]
    drawn = points(pl.confounder(truth, truth))
    np.testing.assert_array_equal(np.rint(drawn), np.c_[truth, truth])
    assert len(np.unique(drawn[:, 1])) == len(truth)


def test_confounder_that_is_constant(simulated: AnnData) -> None:
    truth = simulated.obsm["truth_confounder"][:, 0]
    assert pl.confounder(0 * truth, truth).get_title() == "no correlation with a constant"
    with pytest.raises(ValueError, match="`truth` is 3 in all cells"):
        pl.confounder(truth, 0 * truth + 3)


# mean_correlation


def bars(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Left edges and heights."""
    return tuple(np.array([(b.get_x(), b.get_height()) for b in ax.patches]).T)


def test_mean_correlation(simulated: AnnData, rng: np.random.Generator) -> None:
    truth = simulated.layers["truth_log_mean"]
    log_mean = truth + rng.normal(size=truth.shape) * np.linspace(0.1, 3, truth.shape[1])
    log_mean[:, 0] = -truth[:, 0]
    r = [stats.pearsonr(*pair)[0] for pair in zip(log_mean.T, truth.T, strict=True)]
    ax = pl.mean_correlation(log_mean, truth)
    edges, heights = bars(ax)
    assert heights.sum() == len(r)
    expected, _ = np.histogram(r, bins=[*edges, 1 + 1e-9])
    assert np.abs(np.cumsum(heights) - np.cumsum(expected)).max() <= 1  # values on an edge
    assert heights[0] == 1
    assert edges[0] == -1
    assert line(ax, "--")[0][0] == pytest.approx(np.median(r))
    assert ax.get_title() == f"median r = {np.median(r):.3f}"
    assert ax.get_ylabel() == "genes"
    assert caption(ax) == ""


def test_mean_correlation_starts_at_zero_and_leaves_constants_out(simulated: AnnData) -> None:
    truth = simulated.layers["truth_log_mean"]
    log_mean = truth.copy()
    log_mean[:, :2] = 0.1
    ax = pl.mean_correlation(pd.DataFrame(log_mean), truth)
    edges, heights = bars(ax)
    assert ax.get_xlim() == (0, 1)
    assert heights[-1] == heights.sum() == 29
    assert caption(ax) == "2 of 31 genes left out: constant mean"


def test_mean_correlation_refuses(simulated: AnnData) -> None:
    truth = simulated.layers["truth_log_mean"]
    with pytest.raises(ValueError, match=r"shapes are .*\(207, 30\).* the same cells and genes"):
        pl.mean_correlation(truth[:, 1:], truth)
    with pytest.raises(ValueError, match="shapes are"):
        pl.mean_correlation(truth[0], truth[0])
    with pytest.raises(ValueError, match="`log_mean` holds 207 values not finite"):
        pl.mean_correlation(np.where(np.arange(31) == 3, -np.inf, truth), truth)
    with pytest.raises(ValueError, match="All 31 genes have the same mean"):
        pl.mean_correlation(0 * truth, truth)


# propensity


def test_propensity(simulated: AnnData, rng: np.random.Generator) -> None:
    truth = simulated.obs["truth_logit"]
    predicted = 0.8 * truth + 0.1 + 0.2 * rng.normal(size=len(truth))
    ax = pl.propensity(special.expit(predicted), truth)
    np.testing.assert_allclose(points(ax), np.c_[truth, predicted])
    x, y = line(ax, "--")
    np.testing.assert_array_equal(x, y)
    assert x[0] == pytest.approx(min(truth.min(), predicted.min()))
    assert x[1] == pytest.approx(max(truth.max(), predicted.max()))
    x, y = line(ax, ":")
    expected = stats.linregress(truth, predicted)
    np.testing.assert_allclose(y, expected.intercept + expected.slope * x)
    assert ax.get_title() == f"Pearson r = {expected.rvalue:.3f}"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert set(legend) == {"identity", "regression"}


def test_propensity_of_certain_predictions_is_finite(simulated: AnnData) -> None:
    truth = simulated.obs["truth_logit"]
    ax = pl.propensity(simulated.obs["treatment"], truth)
    certain = special.logit([1e-6, 1 - 1e-6])
    np.testing.assert_allclose(np.unique(points(ax)[:, 1]), certain)


def test_propensity_refuses(simulated: AnnData) -> None:
    truth = simulated.obs["truth_logit"]
    with pytest.raises(ValueError, match="Probabilities in .0, 1. are accepted: apply"):
        pl.propensity(truth, truth)
    with pytest.raises(ValueError, match="`truth_logit` is 2 in all cells"):
        pl.propensity(special.expit(truth), 0 * truth + 2)


@pytest.mark.parametrize("draw", [pl.confounder, pl.propensity])
@pytest.mark.parametrize(
    ("first", "match"),
    [
        (np.full(5, 0.5), r"lengths are .*: 5, .*: 7.* the same cells"),
        (np.full((7, 2), 0.5), r"has shape \(7, 2\), .* Pass one column"),
        (np.array([0.5, np.nan] + 5 * [0.1]), "holds 1 value not finite"),
    ],
)
def test_vectors_that_are_refused(draw: Callable, first: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        draw(first, np.arange(7.0))
    assert plt.get_fignums() == []


@pytest.mark.parametrize("draw", [pl.confounder, pl.propensity, pl.mean_correlation])
@pytest.mark.parametrize("kind", [list, pd.Categorical, pd.Series, np.array])
def test_text_is_refused(draw: Callable, kind: Callable) -> None:
    match = r"holds 'B', and numbers are drawn.*`labels == 'B'`"
    with pytest.raises(TypeError, match=match):
        draw(np.arange(3.0), kind(["B", "T", "B"]))
    assert plt.get_fignums() == []


def test_labels_as_numbers_are_drawn(rng: np.random.Generator) -> None:
    labels = pd.Series(rng.choice(["B", "T"], 51)).astype("category")
    assert pl.confounder(labels == "B", labels == "B").get_title() == "Pearson r = 1.000"


# scree


@pytest.mark.parametrize(
    ("values", "first", "chosen"),
    [
        ([90, 70, 60, 41, 40], 0, 3),  # rows: what a fit with so many factors leaves
        ([90, 70, 41, 60, 40], 0, 2),  # later factors do not count
        ([40, 39], 0, 0),
        ([90, 80, 70], 0, 2),  # as many as were tried
        ([90, 70, 41], 1, 2),  # rows: the strength of each factor
        ([90, 80], 1, 2),
    ],
)
def test_scree(values: list[float], first: int, chosen: int) -> None:
    index = pd.RangeIndex(first, first + len(values), name="n_factors")
    table = pd.DataFrame({"singular_value": values, "threshold": 50.0}, index)
    ax = pl.scree(table)
    drawn = {each.get_label(): each for each in ax.get_lines()}
    assert list(drawn["data"].get_xdata()) == list(index)
    assert list(drawn["data"].get_ydata()) == values
    assert set(drawn["threshold (permuted data)"].get_ydata()) == {50}
    assert set(drawn["chosen"].get_xdata()) == {chosen}
    assert ax.get_title() == f"{chosen} factors"
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_scree_refuses() -> None:
    table = pd.DataFrame({"singular_value": [2.0, 1.0], "threshold": [1.5, 1.5]})
    assert pl.scree(table).get_title() == "1 factor"
    with pytest.raises(TypeError, match="`scree` is a list"):
        pl.scree([2.0, 1.0])
    with pytest.raises(KeyError, match="no columns .*threshold.* Pass that of a model"):
        pl.scree(table[["singular_value"]])
    with pytest.raises(ValueError, match="has no row"):
        pl.scree(table[:0])


# volcano


def panel(ax: Axes) -> dict[tuple, np.ndarray]:
    """Points of a panel by group."""
    found: dict[tuple, list] = {}
    for each in ax.collections:
        if len(each.get_offsets()):
            colour = tuple(each.get_facecolor()[0, :3])
            found.setdefault(colour, []).append(np.asarray(each.get_offsets()))
    return {colour: np.concatenate(parts) for colour, parts in found.items()}


def test_volcano(effects: pd.DataFrame) -> None:
    unadjusted, adjusted = pl.volcano(effects, n_labels=0)
    assert unadjusted.figure is adjusted.figure
    assert unadjusted.get_title() == "Unadjusted: 60 called"
    assert adjusted.get_title() == "Adjusted: 23 called"
    colours = {  # by label, as the legend has them
        each.get_label().split(" (")[0]: each.get_facecolor()[0, :3]
        for each in adjusted.collections
        if not len(each.get_offsets())
    }
    shapes = [each.get_paths()[0].vertices.tolist() for each in adjusted.collections[-4:-1]]
    assert not any(shape in shapes[:i] for i, shape in enumerate(shapes))  # without colours
    rows = {"neither": slice(63, 90), "unadjusted only": slice(0, 40)}
    rows |= {"adjusted only": slice(60, 63), "both": slice(40, 60)}
    for ax, suffix in ((unadjusted, "_naive"), (adjusted, "")):
        drawn = panel(ax)
        assert len(drawn) == 4
        top = max(y.max() for y in (xy[:, 1] for xy in drawn.values()))
        for group, own in rows.items():
            table = effects.iloc[own]
            height = np.minimum(-np.log10(table[f"q_value{suffix}"]), top)
            expected = np.c_[table[f"log2_fc{suffix}"], height]
            found = drawn[tuple(colours[group])]
            np.testing.assert_allclose(
                found[found[:, 0].argsort()], expected[expected[:, 0].argsort()]
            )
        assert line(ax, "--")[1][0] == pytest.approx(-np.log10(0.05))
    legend = [text.get_text() for text in adjusted.get_legend().get_texts()]
    assert legend == ["both (20)", "adjusted only (3)", "unadjusted only (40)", "neither (27)"]
    assert unadjusted.get_ylim() == adjusted.get_ylim()
    assert unadjusted.get_xlim() == adjusted.get_xlim()
    assert unadjusted.figure.get_supxlabel() == ""


def test_volcano_draws_extreme_genes_at_the_edge(effects: pd.DataFrame) -> None:
    effects.loc["gene_45", ["q_value", "q_value_naive"]] = 0.0
    unadjusted, adjusted = pl.volcano(effects, n_labels=0)
    for ax, column in ((unadjusted, "log2_fc_naive"), (adjusted, "log2_fc")):
        assert ax.get_ylim()[1] < 12
        (x, y) = points(ax)[points(ax)[:, 0] == effects.loc["gene_45", column]][0]
        assert y == points(ax)[:, 1].max() < ax.get_ylim()[1]
        assert x == effects.loc["gene_45", column]
    found = re.fullmatch(
        r"Triangles: genes with a q-value below (.*), drawn at the edge\.",
        unadjusted.figure.get_supxlabel(),
    )
    assert -np.log10(float(found[1])) == pytest.approx(y, abs=0.1)


def test_volcano_with_another_rate(effects: pd.DataFrame) -> None:
    unadjusted, adjusted = pl.volcano(effects, fdr=1e-6, n_labels=0)
    assert (
        unadjusted.get_title() == f"Unadjusted: {(effects['q_value_naive'] < 1e-6).sum()} called"
    )
    assert line(adjusted, "--")[1][0] == pytest.approx(6)


def test_volcano_counts_genes_without_a_value(effects: pd.DataFrame) -> None:
    for gene, reason in (
        ("gene_1", "few counts"),
        ("gene_2", "few counts"),
        ("gene_3", "one arm"),
    ):
        effects.loc[gene, ["log2_fc", "q_value"]] = np.nan
        effects.loc[gene, "reason"] = reason
    unadjusted, adjusted = pl.volcano(effects, n_labels=0)
    note = "3 of 90 genes left out: few counts (2); one arm (1)."
    assert adjusted.figure.get_supxlabel() == f"Adjusted: {note}"
    assert (len(points(unadjusted)), len(points(adjusted))) == (90, 87)
    both = effects.assign(q_value_naive=effects["q_value_naive"].where(effects["log2_fc"].notna()))
    assert pl.volcano(both, n_labels=0)[0].figure.get_supxlabel() == note  # once
    effects["q_value"], effects["reason"] = np.nan, "dense effects, not identified"
    unadjusted, adjusted = pl.volcano(effects)
    assert adjusted.get_title() == "Adjusted: no q-values"
    note = "Adjusted: 90 of 90 genes left out: dense effects, not identified."
    assert adjusted.figure.get_supxlabel() == note
    assert len(points(adjusted)) == 0
    assert names(unadjusted) == names(adjusted) == set()


def names(ax: Axes) -> set[str]:
    return {text.get_text() for text in ax.texts}


@pytest.mark.parametrize("n_labels", [0, 1, 10, 90])
def test_volcano_names_the_most_significant_genes(effects: pd.DataFrame, n_labels: int) -> None:
    unadjusted, adjusted = pl.volcano(effects, n_labels=n_labels)
    called = effects.query("q_value < 0.05")
    assert len(called) == 23
    assert names(adjusted) == set(called["q_value"].nsmallest(n_labels).index)
    assert names(unadjusted) == names(adjusted)


def test_volcano_names_the_larger_of_equally_significant_effects(effects: pd.DataFrame) -> None:
    effects.loc[["gene_45", "gene_50"], "q_value"] = 0.0
    effects.loc[["gene_45", "gene_50"], "log2_fc"] = [1.0, -2.0]
    assert names(pl.volcano(effects, n_labels=1)[1]) == {"gene_50"}


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_names_of_genes_are_apart_and_in_the_frame(effects: pd.DataFrame, spread: float) -> None:
    effects["log2_fc"] *= spread
    effects.loc[effects.index[:60], "q_value"] = 10.0 ** -np.linspace(20, 20 - 10 * spread, 60)
    for ax in pl.volcano(effects, n_labels=20):
        ax.figure.canvas.draw()
        boxes = [Text.get_window_extent(text) for text in ax.texts]
        assert 4 <= len(boxes) <= 20
        for i, box in enumerate(boxes):
            assert ax.bbox.x0 < box.x0 < box.x1 < ax.bbox.x1
            assert ax.bbox.y0 < box.y0 < box.y1 < ax.bbox.y1
            assert not any(box.overlaps(other) for other in boxes[:i])


# p_values


def test_histogram_of_p_values(effects: pd.DataFrame) -> None:
    ax = pl.p_values(effects)
    edges, heights = bars(ax)
    expected, _ = np.histogram(effects["p_value"], bins=20, range=(0, 1), density=True)
    np.testing.assert_allclose(heights, expected)
    np.testing.assert_allclose(edges, np.arange(20) / 20, atol=1e-12)
    assert set(line(ax, "--")[1]) == {1}
    assert ax.get_title() == "25.6 % of p-values below 0.05"  # 23 of 90


def test_quantiles_of_p_values(effects: pd.DataFrame) -> None:
    ax = pl.p_values(effects, kind="qq")
    (drawn,) = [each for each in ax.get_lines() if each.get_marker() == "."]
    np.testing.assert_allclose(10 ** -drawn.get_xdata(), (np.arange(90) + 0.5) / 90)
    np.testing.assert_allclose(10 ** -drawn.get_ydata(), np.sort(effects["p_value"]))
    np.testing.assert_array_equal(*line(ax, "--"))
    band = ax.collections[0].get_paths()[0].vertices
    smallest = 10 ** -band[np.isclose(band[:, 0], np.log10(180)), 1]
    # The smallest of 90 uniform numbers is above x with the probability (1 - x)^90
    expected = 1 - np.array([0.025, 0.975]) ** (1 / 90)
    np.testing.assert_allclose([smallest.max(), smallest.min()], expected)


def test_p_values_of_zero_are_finite(effects: pd.DataFrame) -> None:
    effects.iloc[0, effects.columns.get_loc("p_value")] = 0.0
    ax = pl.p_values(effects, kind="qq")
    assert ax.get_lines()[-1].get_ydata().max() == 300


def test_p_values_that_are_missing(effects: pd.DataFrame) -> None:
    effects.loc["gene_1", "p_value"] = np.nan
    assert caption(pl.p_values(effects.drop(columns="reason"))) == "1 of 90 genes left out"
    effects["p_value"], effects["reason"] = np.nan, "dense effects, not identified"
    with pytest.raises(ValueError, match="No gene has a p-value.*90 of 90 .*not identified"):
        pl.p_values(effects)


# All


@pytest.mark.parametrize("draw", [pl.volcano, pl.p_values])
def test_tables_that_are_refused(draw: Callable, effects: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match=r"`effects` is a ndarray.*get_treatment_effects\(\)"):
        draw(effects.to_numpy())
    with pytest.raises(KeyError, match=r"no columns \['.*_value.*columns: \['log2_fc'"):
        draw(effects[["log2_fc"]])
    with pytest.raises(ValueError, match=r"holds 2 arms.*`effects.loc\['STAT1'\]`"):
        draw(pd.concat({"STAT1": effects, "JAK2": effects}))
    assert plt.get_fignums() == []
    draw(pd.concat({"STAT1": effects, "JAK2": effects}).loc["JAK2"])


@pytest.mark.parametrize(
    ("draw", "match"),
    [
        (lambda e: pl.volcano(e, fdr=2), "`fdr=2` is out of range"),
        (lambda e: pl.volcano(e, n_labels=-1), "`n_labels=-1` is out of range"),
        (lambda e: pl.p_values(e, kind="bars"), r"`kind='bars'` .* \['histogram', 'qq'\]"),
    ],
)
def test_options_that_are_refused(draw: Callable, effects: pd.DataFrame, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        draw(effects)


SCREE = pd.DataFrame({"singular_value": [2.0, 1.0], "threshold": [1.5, 1.5]})
ONE_PANEL = {
    "confounder": lambda a, e, **o: pl.confounder(a.obs["truth_logit"], a.obs["treatment"], **o),
    "mean_correlation": lambda a, e, **o: pl.mean_correlation(
        a.layers["truth_log_mean"], a.layers["truth_log_mean"], **o
    ),
    "propensity": lambda a, e, **o: pl.propensity(a.obs["treatment"], a.obs["truth_logit"], **o),
    "scree": lambda a, e, **o: pl.scree(SCREE, **o),
    "p_values": lambda a, e, **o: pl.p_values(e, **o),
}


@pytest.mark.parametrize("name", ONE_PANEL)
def test_own_axes(name: str, simulated: AnnData, effects: pd.DataFrame) -> None:
    before = effects.copy()
    _, own = plt.subplots()
    assert ONE_PANEL[name](simulated, effects, ax=own) is own
    own.figure.canvas.draw()
    assert plt.get_fignums() == [1]
    pd.testing.assert_frame_equal(effects, before)


@pytest.mark.parametrize("name", [*ONE_PANEL, "volcano"])
def test_show(
    name: str, simulated: AnnData, effects: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(plt, "show", lambda: calls.append(1))
    draw = ONE_PANEL.get(name, lambda a, e, **o: pl.volcano(e, **o))
    draw(simulated, effects)
    assert calls == []
    draw(simulated, effects, show=True)
    assert calls == [1]
