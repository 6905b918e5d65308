from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import entropy
from sklearn import cluster, metrics, neighbors

from scovert.metrics import (
    batch_mixing,
    batch_mixing_by_type,
    concordance,
    integration_panel,
    invaded_share,
    label_transfer,
    purity,
)

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]
SIZES = {  # cells of each type in batches x, y, z; "rare" is neither shared nor unique
    "B": (31, 17, 22),
    "NK": (25, 40, 19),
    "T": (45, 33, 28),
    "mono": (27, 0, 21),
    "plasma": (0, 0, 18),
    "rare": (6, 3, 7),
}
SHARED, UNIQUE = ["B", "NK", "T"], ["mono", "plasma"]


@pytest.fixture(scope="module")
def cells() -> Cells:
    """Overlapping types and a batch effect in 4 dimensions, rows shuffled."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(t, sum(n)) for t, n in SIZES.items()])
    batch = np.concatenate([np.repeat(["x", "y", "z"], n) for n in SIZES.values()])
    centre = {t: rng.normal(0, 1.2, 4) for t in SIZES}
    shift = {b: rng.normal(0, 0.5, 4) for b in "xyz"}
    points = rng.normal([centre[t] + shift[b] for t, b in zip(labels, batch, strict=True)])
    order = rng.permutation(len(labels))
    return points[order].astype(np.float32), batch[order], labels[order]


def nearest(points: np.ndarray, k: int) -> np.ndarray:
    distance = cdist(points.astype(float), points.astype(float))
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1)[:, :k]


def of_types(cells: Cells, types: list[str]) -> Cells:
    keep = np.isin(cells[2], types)
    return tuple(values[keep] for values in cells)


def brute_label_transfer(cells: Cells, k: int) -> float:
    z, batch, labels = cells
    distance, scores = cdist(z.astype(float), z.astype(float)), []
    for b in np.unique(batch):
        other = np.flatnonzero(batch != b)
        hits: dict[str, list[bool]] = {}
        for i in np.flatnonzero(batch == b):
            if labels[i] not in labels[other]:
                continue
            votes = labels[other[np.argsort(distance[i, other])[:k]]]
            winner = Counter(votes.tolist()).most_common(1)[0][0]  # first of equals
            hits.setdefault(labels[i], []).append(winner == labels[i])
        scores.append(np.mean([np.mean(h) for h in hits.values()]))
    return np.mean(scores)


def brute_compositions(cells: Cells, k: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    z, batch, labels = of_types(cells, SHARED)
    found = {}
    for t in SHARED:
        around = [[(batch[row] == b).mean() for b in "xyz"] for row in nearest(z, k)[labels == t]]
        found[t] = np.array(around), np.array(SIZES[t]) / sum(SIZES[t])
    return found


def brute_mixing(cells: Cells, k: int) -> float:
    return np.mean(
        [
            np.mean([np.exp(-entropy(p, expected)) for p in found])
            for found, expected in brute_compositions(cells, k).values()
        ]
    )


def brute_ilisi(cells: Cells) -> float:
    scores = []
    for found, expected in brute_compositions(cells, 30).values():
        effective = np.mean([1 / (p @ p) for p in found])
        scores.append(min((effective - 1) / (1 / (expected @ expected) - 1), 1))
    return np.mean(scores)


def brute_graph_connectivity(cells: Cells) -> float:
    z, _, labels = of_types(cells, SHARED)
    near, scores = nearest(z, 15), []
    for t in SHARED:
        own = set(np.flatnonzero(labels == t).tolist())
        links: dict[int, set[int]] = {i: set() for i in own}
        for i in own:
            for j in own.intersection(near[i].tolist()):
                links[i].add(j)
                links[j].add(i)
        largest, left = 0, set(own)
        while left:
            part, todo = set(), [left.pop()]
            while todo:
                part.add(i := todo.pop())
                todo += links[i] - part
            largest, left = max(largest, len(part)), left - part
        scores.append(largest / len(own))
    return np.mean(scores)


def brute_batch_silhouette(cells: Cells) -> float:
    scores = []
    for t in SHARED:
        z, batch, _ = of_types(cells, [t])
        s = np.abs(metrics.silhouette_samples(z.astype(float), batch))
        scores += [1 - s[batch == b].mean() for b in "xyz"]
    return np.mean(scores)


def brute_panel(cells: Cells) -> dict[str, float]:
    z, _, labels = cells
    clusters = cluster.KMeans(6, n_init=5, random_state=0).fit_predict(z)
    values = {
        "kmeans_nmi": metrics.normalized_mutual_info_score(labels, clusters),
        "kmeans_ari": metrics.adjusted_rand_score(labels, clusters),
        "label_silhouette": (metrics.silhouette_score(z.astype(float), labels) + 1) / 2,
        "label_purity": np.mean(labels[nearest(z, 30)] == labels[:, None]),
        "batch_silhouette": brute_batch_silhouette(cells),
        "ilisi": brute_ilisi(cells),
        "mixing": brute_mixing(cells, 30),
        "graph_connectivity": brute_graph_connectivity(cells),
    }
    bio, batch = np.mean(list(values.values())[:4]), np.mean(list(values.values())[4:])
    values |= {"bio": bio, "batch": batch, "total": 0.6 * bio + 0.4 * batch}
    return values | {"label_transfer": brute_label_transfer(cells, 15)}


# Against independent computations


@pytest.mark.parametrize("k", [1, 4, 15])
def test_label_transfer_equals_brute_force(cells: Cells, k: int) -> None:
    assert label_transfer(*cells, n_neighbors=k) == pytest.approx(brute_label_transfer(cells, k))


def test_label_transfer_equals_sklearn(cells: Cells) -> None:
    z, batch, labels = of_types(cells, ["B", "T"])  # two types and odd k: no equal votes
    scores = []
    for b in "xyz":
        own = batch == b
        knn = neighbors.KNeighborsClassifier(15).fit(z[~own], labels[~own])
        scores.append(metrics.balanced_accuracy_score(labels[own], knn.predict(z[own])))
    assert label_transfer(z, batch, labels) == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("k", [1, 7, 30])
def test_batch_mixing_equals_brute_force(cells: Cells, k: int) -> None:
    assert batch_mixing(*cells, n_neighbors=k) == pytest.approx(brute_mixing(cells, k))


def test_mixing_of_one_type_is_that_of_its_cells_alone() -> None:
    z, batch, labels = separated()
    far = z + 1e6 * (labels == "T")[:, None]  # neighbours are of the own type
    found = batch_mixing_by_type(far, batch, labels)
    assert list(found.index) == ["B", "T"]
    assert found.mean() == batch_mixing(far, batch, labels)
    for t in found.index:
        assert found[t] == pytest.approx(batch_mixing(*of_types((far, batch, labels), [t])))


@pytest.mark.parametrize(("k", "threshold"), [(15, 0.2), (8, 0.5), (3, 0)])
def test_invaded_share_equals_brute_force(cells: Cells, k: int, threshold: float) -> None:
    z, batch, labels = cells
    near, scores = nearest(z, k), []
    for t, lacking in [("mono", "y"), ("plasma", "xy")]:
        own = np.flatnonzero(labels == t)
        scores.append(
            np.mean([sum(batch[j] in lacking for j in near[i]) > threshold * k for i in own])
        )
    found = invaded_share(*cells, n_neighbors=k, threshold=threshold)
    assert found == pytest.approx(np.mean(scores))
    assert 0 < found < 1


def test_purity_equals_brute_force(cells: Cells) -> None:
    z, _, labels = cells
    near = labels[nearest(z, 6)]
    expected = np.mean([np.mean(near[labels == t] == t) for t in UNIQUE])
    assert purity(*cells, n_neighbors=6) == pytest.approx(expected)


def test_panel_equals_independent_values(cells: Cells) -> None:
    panel, expected = integration_panel(*cells, n_init=5), brute_panel(cells)
    assert panel.index.name == "metric"
    assert list(panel.columns) == ["value"]
    assert list(panel.index) == list(expected)
    np.testing.assert_allclose(panel["value"], list(expected.values()), rtol=1e-5)
    assert panel.loc["mixing", "value"] == batch_mixing(*cells)


# Values known without a computation


def separated(n: int = 40) -> Cells:
    """Two types, two batches, four clusters far apart: batches never touch."""
    rng = np.random.default_rng(0)
    batch, labels = np.repeat(["x", "y"], 2 * n), np.tile(np.repeat(["B", "T"], n), 2)
    z = rng.normal(0, 0.1, (4 * n, 3))
    z[:, 0] += 10 * (labels == "T")
    z[:, 1] += 100 * (batch == "y")
    return z, batch, labels


def test_separated_batches() -> None:
    z, batch, labels = separated()
    assert batch_mixing(z, batch, labels) == pytest.approx(0.5)
    panel = integration_panel(z, batch, labels)["value"]
    assert panel["ilisi"] == 0
    assert panel["graph_connectivity"] == 0.5
    assert panel["label_purity"] == 1
    assert panel["batch_silhouette"] < 0.01


def test_joined_types() -> None:
    z, batch, labels = separated()
    z[:, 1] = np.random.default_rng(1).normal(0, 0.1, len(z))
    assert label_transfer(z, batch, labels) == 1
    assert batch_mixing(z, batch, labels) > 0.95
    panel = integration_panel(z, batch, labels)["value"]
    assert panel["kmeans_ari"] == pytest.approx(1)
    assert panel["total"] > 0.95
    swapped = np.where(batch == "x", labels, np.where(labels == "B", "T", "B"))
    assert label_transfer(z, batch, swapped) == 0
    assert batch_mixing(z, batch, swapped) > 0.95


def test_unequal_batches_are_no_fault() -> None:
    rng = np.random.default_rng(0)
    z, batch = rng.normal(size=(2200, 3)), np.repeat(["x", "y"], [2000, 200])
    assert batch_mixing(z, batch, np.repeat("T", 2200), n_neighbors=200) > 0.98


def test_invaded_cells() -> None:
    z, batch, labels = separated()
    z[:, 1] = np.random.default_rng(1).normal(0, 0.1, len(z))
    labels = np.where((batch == "x") & (labels == "B"), "NK", labels)  # only in x; B only in y
    assert invaded_share(z, batch, labels) > 0.9
    assert purity(z, batch, labels) == pytest.approx(0.5, abs=0.1)
    z[labels == "NK", 2] += 50
    assert invaded_share(z, batch, labels) == 0
    assert purity(z, batch, labels) == 1


def test_equal_votes_go_to_the_nearest() -> None:
    batch, labels = np.repeat(["x", "y"], 2), np.array(["B", "B", "B", "T"])
    b_first, t_first = [[0.0], [0.1], [1.0], [2.0]], [[0.0], [0.1], [2.0], [1.0]]
    assert label_transfer(b_first, batch, labels, n_neighbors=2) == 1
    assert label_transfer(t_first, batch, labels, n_neighbors=2) == 0.5


# Laws


METRICS = {
    "label_transfer": label_transfer,
    "batch_mixing": batch_mixing,
    "invaded_share": invaded_share,
    "purity": purity,
    "panel": lambda *cells: integration_panel(*cells, n_init=2).loc["total", "value"],
}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_metrics_ignore_form_and_scale(cells: Cells, metric: Callable[..., float]) -> None:
    z, batch, labels = cells
    value = metric(*cells)
    assert isinstance(value, float)
    assert 0 <= value <= 1
    assert metric(z, pd.Categorical(batch), pd.Series(labels)) == value
    assert metric(pd.DataFrame(z), batch.tolist(), labels.astype(object)) == value
    assert metric(4 * z, batch, labels) == pytest.approx(value)
    names = {"x": 2, "y": 0, "z": 1}
    assert metric(z, [names[b] for b in batch], labels) == pytest.approx(value)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_metrics_do_not_change_the_input(cells: Cells, metric: Callable[..., float]) -> None:
    copies = [values.copy() for values in cells]
    metric(*cells)
    assert all(np.array_equal(a, b) for a, b in zip(cells, copies, strict=True))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda z, b, t: (z[:, 0], b, t), "is not a finite matrix"),
        (lambda z, b, t: (np.where(z > z.min(), z, np.nan), b, t), "is not a finite matrix"),
        (lambda z, b, t: (z[1:], b, t), r"`batch` has shape \(342,\).*`embedding` has 341 rows"),
        (lambda z, b, t: (z, b, t[:, None]), "`labels` has shape"),
        (lambda z, b, t: (z, b, pd.Series(t).where(t != "NK")), "84 missing values"),
        (lambda z, b, t: (z, b == "q", t), r"`batch` holds \['False'\]"),
    ],
)
def test_wrong_arrays_are_refused(
    cells: Cells, metric: Callable[..., float], change: Callable[..., Cells], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        metric(*change(*cells))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda z, b, t: label_transfer(z, b, b), "No type of .* occurs in two batches"),
        (lambda z, b, t: label_transfer(z, b, t, n_neighbors=0), "`n_neighbors=0`"),
        (lambda z, b, t: purity(z, b, t, n_neighbors=500), r"in \[1, 341\]"),
        (lambda z, b, t: batch_mixing(z, b, t, n_neighbors=260), r"in \[1, 259\]"),
        (lambda z, b, t: batch_mixing(z, b, b), "No type has 5 cells in every batch"),
        (lambda z, b, t: invaded_share(z, b, t, threshold=1), "`threshold=1`"),
        (lambda z, b, t: integration_panel(z, b, ["T"] * len(z)), "the label 'T'"),
        (lambda z, b, t: purity(*of_types((z, b, t), SHARED)), "Every batch has cells"),
        (lambda z, b, t: invaded_share(*of_types((z, b, t), SHARED)), "Every batch has cells"),
    ],
)
def test_unanswerable_questions_are_refused(
    cells: Cells, call: Callable[..., float], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        call(*cells)


# concordance


def test_concordance_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(2, 1.5, (23, 7))
    y = 0.7 * x + rng.normal(0.4, 0.8, x.shape)
    r = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    scale, shift = x.std() / y.std(), (x.mean() - y.mean()) / np.sqrt(x.std() * y.std())
    bias = 2 / (scale + 1 / scale + shift**2)  # C_b of Lin (1989), equation 2
    assert concordance(x, y) == pytest.approx(r * bias)
    assert concordance(y, x) == pytest.approx(r * bias)
    assert concordance(pd.DataFrame(x), pd.DataFrame(y)) == pytest.approx(r * bias)


def test_concordance_knows_the_identity_from_a_line() -> None:
    x = np.array([0.1, 0.4, 0.2, 0.3])
    assert concordance(x, x) == 1
    assert concordance(-x, x - x.min()) < 0
    assert concordance(x + 1, x) == pytest.approx(2 * x.var() / (2 * x.var() + 1))
    assert concordance(3 * x, x) < 1
    assert concordance(x, np.full(4, 0.2)) == pytest.approx(0)
    assert np.isnan(concordance(np.full(35, 0.2), np.full(35, 0.2)))


@pytest.mark.parametrize(
    ("estimated", "measured", "match"),
    [
        ([1, 2], [1, 2, 3], r"shape \(2,\) and `measured` \(3,\)"),
        ([1], [1], "two or more"),
        ([1, np.nan, 3], [1, 2, np.inf], "2 of 3 pairs are not finite"),
    ],
)
def test_concordance_refuses(estimated: list, measured: list, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        concordance(estimated, measured)


# Names


def test_concordance_matches_names() -> None:
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.random((5, 3)), list("abcde"), ["T", "B", "NK"])
    y = x + rng.normal(0, 0.1, x.shape)
    expected = concordance(x.to_numpy(), y.to_numpy())
    for other in (y.iloc[::-1], y.iloc[:, ::-1], y.sample(frac=1, random_state=1)):
        assert concordance(x, other) == pytest.approx(expected)
        assert concordance(other, x) == pytest.approx(expected)
    series = concordance(x["T"].to_numpy(), y["T"].to_numpy())
    assert concordance(x["T"], y["T"].iloc[::-1]) == pytest.approx(series)
    assert concordance(x["T"], y["T"].to_numpy()) == pytest.approx(series)
    assert concordance(x["T"], y["T"].reset_index(drop=True)) == pytest.approx(series)
    numbered = x["T"].reset_index(drop=True), y["T"].reset_index(drop=True)
    assert concordance(numbered[0], numbered[1].iloc[::-1]) == pytest.approx(series)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.rename(columns={"T": "T cell"}),
        lambda t: t.rename({"a": "A"}),
        lambda t: t.iloc[[0, 0, 1]],
        lambda t: t.iloc[:2],
    ],
)
def test_concordance_refuses_other_names(change: Callable[..., pd.DataFrame]) -> None:
    x = pd.DataFrame(np.eye(3), list("abc"), ["T", "B", "NK"])
    with pytest.raises(ValueError, match="different names.* matched by name: .*to_numpy"):
        concordance(x, change(x))


@pytest.mark.parametrize("metric", [label_transfer, batch_mixing, invaded_share, purity])
def test_metrics_match_names_of_cells(cells: Cells, metric: Callable[..., float]) -> None:
    embedding, batch, labels = cells
    names = [f"c{i}" for i in range(len(batch))]
    batch, labels = (pd.Series(a, names) for a in (batch, labels))
    expected = metric(*cells)
    assert metric(embedding, batch, labels.iloc[::-1]) == pytest.approx(expected)
    shuffled = pd.DataFrame(embedding, names).sample(frac=1, random_state=0)
    assert metric(shuffled, batch, labels) == pytest.approx(expected)
    with pytest.raises(ValueError, match="`batch` .* and `labels` .* different names"):
        metric(embedding, batch, labels.rename({"c0": "other"}))
