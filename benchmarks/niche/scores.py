"""How well niches agree with regions, and predicted with true neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, f1_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks.niche.sets import Tissue

__all__ = ["energy_ratio", "f1_of_unseen", "label_distance", "quarter", "region_scores"]

K_STARTS, N_SEEDS = 5, 3
N_LABELS_NEAR, N_MIXED_NEAR = 15, 30
N_ASKED, N_DRAWN = 200, 50
"""Cells whose neighbours are compared, and neighbours that are drawn for each."""


def region_scores(places: NDArray, t: Tissue) -> dict[str, float]:
    """ARI and NMI of k-means, macro F1 of the 15 nearest in other parts, mixing of sections."""
    known = t.region != ""
    y = t.region[known]
    found = {"ari": [], "nmi": []}
    for seed in range(N_SEEDS):
        means = KMeans(len(set(y)), n_init=K_STARTS, random_state=seed)
        cluster = means.fit_predict(places)[known]
        found["ari"].append(adjusted_rand_score(y, cluster))
        found["nmi"].append(normalized_mutual_info_score(y, cluster))
    scores = {name: float(np.mean(values)) for name, values in found.items()}
    f1 = [f1_of_unseen(places, t, ~test, test) for test in parts_of(t)]
    mixing = {} if t.section.max() == 0 else {"mixing": mixing_of(places, t)}
    return scores | {"f1": float(np.mean(f1))} | mixing


def f1_of_unseen(places: NDArray, t: Tissue, train: NDArray, test: NDArray) -> float:
    """Macro F1 of the regions of some cells by the 15 nearest of others."""
    train, test = train & (t.region != ""), test & (t.region != "")
    nearest = KNeighborsClassifier(N_LABELS_NEAR).fit(places[train], t.region[train])
    labels = np.unique(t.region[test])
    guess = nearest.predict(places[test])
    return f1_score(t.region[test], guess, average="macro", labels=labels)


def parts_of(t: Tissue) -> list[NDArray]:
    """Sections; of a single one four parts of 64 blocks."""
    if t.section.max() > 0:
        return [t.section == s for s in np.unique(t.section)]
    return [blocks(t) == part for part in range(4)]


def blocks(t: Tissue) -> NDArray:
    """Part from 0 to 3 of the block that a cell is in, 8 x 8 blocks in each section."""
    positions = np.asarray(t.adata.obsm["spatial"], float)
    part = np.zeros(len(positions), int)
    for s in np.unique(t.section):
        own = t.section == s
        low, size = positions[own].min(0), np.ptp(positions[own], axis=0)
        x, y = np.clip((positions[own] - low) / size * 8, 0, 7).astype(int).T[:2]
        part[own] = (x + 2 * y) % 4
    return part


def quarter(t: Tissue) -> NDArray:
    """Cells of a quarter of space, in blocks all over each section."""
    return blocks(t) == 0


def mixing_of(places: NDArray, t: Tissue) -> float:
    """Entropy of the sections among the 30 nearest of the same region, by that of the region."""
    found = []
    for region in np.unique(t.region[t.region != ""]):
        rows = np.flatnonzero(t.region == region)
        section = t.section[rows]
        share = np.bincount(section, minlength=t.section.max() + 1) / len(rows)
        whole = entropy(share)
        if len(rows) < 2 * N_MIXED_NEAR or whole < 0.1:
            continue
        nearest = NearestNeighbors(n_neighbors=N_MIXED_NEAR).fit(places[rows])
        near = section[nearest.kneighbors(return_distance=False)]
        shares = np.stack([(near == s).mean(1) for s in range(len(share))], axis=1)
        found.append(entropy(shares).mean() / whole)
    return float(np.mean(found))


def entropy(share: NDArray) -> NDArray:
    return -np.where(share > 0, share * np.log(np.maximum(share, 1e-12)), 0).sum(-1)


def energy_distance(a: NDArray, b: NDArray) -> float:
    """Unbiased: 0 on average where both come from one distribution."""
    n, m = len(a), len(b)
    inside = cdist(a, a).sum() / (n * (n - 1)) + cdist(b, b).sum() / (m * (m - 1))
    return 2 * cdist(a, b).mean() - inside


def asked(t: Tissue, among: NDArray | None = None) -> NDArray:
    rows = np.flatnonzero((t.graph >= 0).sum(1) > 1)
    rows = rows if among is None else np.intersect1d(rows, np.flatnonzero(among))
    return np.random.default_rng(0).choice(rows, min(N_ASKED, len(rows)), replace=False)


def energy_ratio(drawn: NDArray, rows: NDArray, t: Tissue) -> float:
    """Energy distance of drawn to true neighbours, by that of random cells of the section.

    `drawn` holds rows of the cells that were drawn for `rows`.
    """
    rng = np.random.default_rng(0)
    ours, random = 0.0, 0.0
    for i, row in enumerate(rows):
        true = t.f[t.graph[row][t.graph[row] >= 0]]
        others = rng.choice(np.flatnonzero(t.section == t.section[row]), N_DRAWN)
        ours += energy_distance(true, t.f[drawn[i]])
        random += energy_distance(true, t.f[others])
    return ours / random


def label_distance(around: NDArray, labels: NDArray, t: Tissue) -> tuple[float, float]:
    """Total variation of predicted to true label shares, and of two halves of the true ones."""
    one_hot = np.eye(around.shape[1])[labels]
    near = np.random.default_rng(0).permuted(t.graph, axis=1)
    true = one_hot[near].mean(1)
    half = near.shape[1] // 2
    halves = one_hot[near[:, :half]].mean(1), one_hot[near[:, half:]].mean(1)
    return (
        float(np.abs(around - true).sum(1).mean() / 2),
        float(np.abs(halves[0] - halves[1]).sum(1).mean() / 2),
    )
