"""One run of the benchmark of distances, and what is measured of it."""

from __future__ import annotations

import time

import numpy as np
import scvi
from numpy.typing import NDArray

from benchmarks.distance.peers import PEERS, direct
from benchmarks.distance.sets import SETS, Cohort, cohort, splits
from benchmarks.processes import costs_of
from benchmarks.runs import Task
from scovert.model import DistanceEmbedding

__all__ = ["OURS", "score"]

OURS = {"DistanceEmbedding": "auto", "DistanceEmbedding, linear": "linear"}
LEVEL = 0.9
"""Of the intervals."""
N_NEAR = 10


def score(task: Task, max_epochs: int | None = None) -> dict:
    c = cohort(task.scenario)
    found = [
        predict(task, c, train, new, max_epochs) for train, new in splits(task.scenario, task.seed)
    ]
    parts = {name: [one[name] for one in found if name in one] for name in keys_of(found)}
    scores = {"cpu": float(np.sum(parts["cpu"]))}
    scores |= {"r2": r2(*parts["to"]), "r": correlation(*parts["to"])}
    if "hits" in parts:
        hits = np.concatenate(parts["hits"])
        lowest = np.sort(hits)[: max(1, len(hits) // 10)]
        scores |= {"coverage": float(hits.mean()), "worst": float(lowest.mean())}
    if SETS[task.scenario].n_folds == 0:
        scores |= {"new_r2": r2(*parts["among"])} | of_split(c, *found[0]["rows"], found[0])
    for name in ("cpu_new", "kept", "cpu_direct"):
        if name in parts:
            scores[name] = float(np.mean(parts[name]))
    return scores


def keys_of(found: list[dict]) -> list[str]:
    return list(dict.fromkeys(name for one in found for name in one))


def predict(task: Task, c: Cohort, train: NDArray, new: NDArray, max_epochs: int | None) -> dict:
    true = c.d[np.ix_(new, train)], c.d[np.ix_(new, new)]
    if task.method in PEERS:
        (to, among), costs = costs_of(lambda: PEERS[task.method](c, train, new, task.seed))
        return {"to": (true[0], to), "among": pairs(true[1], among), "rows": (train, new)} | costs
    model, costs = costs_of(lambda: fit(task, c, train, max_epochs))
    start = time.process_time()
    asked = c.adata[new].copy()
    model.get_latent_representation(asked)
    seconds = time.process_time() - start
    found = model.get_distances(asked, model.adata, interval=LEVEL)
    hits = (found["lower"] <= true[0]) & (found["upper"] >= true[0])
    to, among = found["mean"].to_numpy(), model.get_distances(asked).to_numpy()
    scores = {
        "to": (true[0], to),
        "among": pairs(true[1], among),
        "hits": hits.to_numpy().mean(1),
        "rows": (train, new),
        "cpu_new": seconds / len(new) * 1000,
        "kept": float(model.method_ == "network"),
    }
    if SETS[task.scenario].n_folds == 0:
        scores["cpu_direct"] = costs_of(lambda: direct(c))[1]["cpu"]
    return scores | {"cpu": costs["cpu"]}


def fit(task: Task, c: Cohort, rows: NDArray, max_epochs: int | None) -> DistanceEmbedding:
    scvi.settings.seed = task.seed
    adata = c.adata[rows].copy()
    DistanceEmbedding.setup_anndata(adata, c.key, tree_key=c.tree_key)
    model = DistanceEmbedding(adata)
    method = OURS[task.method]
    model.train(max_epochs, method=method, accelerator="cpu", enable_progress_bar=False)
    return model


def pairs(true: NDArray, predicted: NDArray) -> tuple[NDArray, NDArray]:
    at = np.triu_indices(len(true), 1)
    return true[at], predicted[at]


def joined(*parts: tuple[NDArray, NDArray]) -> tuple[NDArray, NDArray]:
    true, predicted = zip(*parts, strict=True)
    return np.concatenate([p.ravel() for p in true]), np.concatenate(
        [p.ravel() for p in predicted]
    )


def r2(*parts: tuple[NDArray, NDArray]) -> float:
    true, predicted = joined(*parts)
    return float(1 - np.square(predicted - true).sum() / np.square(true - true.mean()).sum())


def correlation(*parts: tuple[NDArray, NDArray]) -> float:
    return float(np.corrcoef(*joined(*parts))[0, 1])


def of_split(c: Cohort, train: NDArray, new: NDArray, found: dict) -> dict[str, float]:
    """Overlap of the ten nearest, and the ratio of PERMANOVA's F among new samples."""
    true, predicted = found["to"]
    near = [np.argsort(d, axis=1, kind="stable")[:, :N_NEAR] for d in (true, predicted)]
    same = [len(set(a) & set(b)) / N_NEAR for a, b in zip(*near, strict=True)]
    squares = [np.zeros((len(new), len(new))) for _ in range(2)]
    for square, half in zip(squares, found["among"], strict=True):
        square[np.triu_indices(len(new), 1)] = half
    true_f, predicted_f = (pseudo_f(s + s.T, c.labels[new]) for s in squares)
    return {"overlap": float(np.mean(same)), "f_ratio": predicted_f / true_f}


def pseudo_f(d: NDArray, labels: NDArray) -> float:
    n, groups = len(d), np.unique(labels)
    total = np.square(d).sum() / 2 / n
    within = 0.0
    for group in groups:
        own = labels == group
        within += np.square(d[np.ix_(own, own)]).sum() / 2 / own.sum()
    return (total - within) / (len(groups) - 1) / (within / (n - len(groups)))
