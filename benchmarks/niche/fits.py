"""One run of the benchmark of niches, and what is measured of it."""

from __future__ import annotations

import numpy as np
import scvi
import torch
from anndata import AnnData
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from benchmarks.niche.peers import PEERS, mean_around, nichepca_axes
from benchmarks.niche.scores import (
    N_DRAWN,
    asked,
    energy_ratio,
    f1_of_unseen,
    label_distance,
    quarter,
    region_scores,
)
from benchmarks.niche.sets import Tissue, tissue
from benchmarks.processes import costs_of
from benchmarks.runs import Task
from scovert.model import NicheVAE

__all__ = ["N_SEEDS", "OURS", "score"]

OURS = {
    "NicheVAE": {"likelihood": "gaussian"},
    "NicheVAE, detailed": {"likelihood": "gaussian"},
    "NicheVAE, counts": {"likelihood": "nb"},
    "NicheVAE, matching": {"likelihood": "gaussian", "decoder": "matching"},
}
N_SEEDS = {"NicheVAE": 5, "NicheVAE, detailed": 2, "NicheVAE, counts": 2, "NicheVAE, matching": 2}
"""Runs of methods with a seed, at most; 1 of others."""
N_UNSEEN = 1
"""Seeds that are fitted to parts of a set and to shuffled positions, too."""


def score(task: Task, max_epochs: int | None = None) -> dict:
    t = tissue(task.scenario)
    if task.method in PEERS:
        found, costs = costs_of(lambda: PEERS[task.method](t, task.seed))
        scores = costs | region_scores(found, t)
        if task.method == "nichepca, by section":
            scores["drawn"] = energy_ratio(*cells_of_cluster(found, t), t)
            scores["mean"] = mean_ratio(t)
            scores |= unseen_by_components(t)
        return scores
    options = OURS[task.method]
    model, costs = costs_of(lambda: fit(t.adata, options, task.seed, max_epochs))
    if "matching" in task.method:
        z = model.get_latent_representation()
        return costs | region_scores(z, t) | {"drawn": ratio_of_slots(model, z, t)}
    if "detailed" in task.method:
        places = model.get_latent_representation(representation="detailed")
        return costs | region_scores(places, t)
    z = model.get_latent_representation(representation="latent")
    scores = costs | region_scores(model.get_latent_representation(), t)
    scores |= {f"z_{name}": value for name, value in region_scores(z, t).items()}
    scores |= {"drawn": energy_ratio(*drawn_cells(model, t), t)}
    scores |= label_scores(model, t) | check_scores(model)
    if task.method == "NicheVAE" and task.seed < N_UNSEEN:
        scores |= of_unseen(t, options, task.seed, max_epochs)
    return scores


def fit(adata: AnnData, options: dict, seed: int, max_epochs: int | None) -> NicheVAE:
    scvi.settings.seed = seed
    several = adata.obs["section"].nunique() > 1
    setup = {"sample_key": "section", "batch_key": "section" if several else None}
    NicheVAE.setup_anndata(adata, likelihood=options["likelihood"], **setup)
    init = {name: value for name, value in options.items() if name != "likelihood"}
    model = NicheVAE(adata, **init)
    model.train(max_epochs, accelerator="cpu", enable_progress_bar=False)
    return model


def drawn_cells(
    model: NicheVAE, t: Tissue, among: NDArray | None = None
) -> tuple[NDArray, NDArray]:
    rows = asked(t, among)
    names = model.sample_neighborhood(t.adata, rows, n_samples=N_DRAWN).to_numpy()
    return t.adata.obs_names.get_indexer(names.ravel()).reshape(names.shape), rows


def cells_of_cluster(places: NDArray, t: Tissue) -> tuple[NDArray, NDArray]:
    """Draw neighbours of cells of the same cluster (of ten) and section."""
    cluster = KMeans(10, n_init=2, random_state=0).fit_predict(places)
    rng, rows = np.random.default_rng(0), asked(t)
    drawn = []
    for row in rows:
        alike = (cluster == cluster[row]) & (t.section == t.section[row])
        pool = t.graph[alike].ravel()
        drawn.append(rng.choice(pool[pool >= 0], N_DRAWN))
    return np.array(drawn), rows


def mean_ratio(t: Tissue) -> float:
    """Energy ratio of the true mean, repeated: the best that a decoder of means can do."""
    rows = asked(t)
    means = mean_around(t.f, t.graph, with_self=False)[rows]
    at = np.arange(len(rows))[:, None].repeat(2, axis=1) + len(t.f)
    return energy_ratio(at, rows, t._replace(f=np.concatenate([t.f, means])))


def ratio_of_slots(model: NicheVAE, z: NDArray, t: Tissue) -> float:
    """Energy ratio of the neighbours that the matching decoder predicts."""
    rows = asked(t)
    with torch.inference_mode():
        slots = model.module.generative(torch.from_numpy(z[rows]))["slots"].numpy()
    at = np.arange(len(rows) * slots.shape[1]).reshape(len(rows), -1) + len(t.f)
    f = np.concatenate([t.f, slots.reshape(-1, slots.shape[2])])
    return energy_ratio(at, rows, t._replace(f=f))


def label_scores(model: NicheVAE, t: Tissue) -> dict[str, float]:
    if "cell_type" not in t.adata.obs:
        return {}
    around = model.get_neighborhood_composition(labels_key="cell_type")
    labels = around.columns.get_indexer(t.adata.obs["cell_type"].astype(str))
    ours, halves = label_distance(around.to_numpy(), labels, t)
    return {"labels": ours, "labels_halves": halves}


def check_scores(model: NicheVAE) -> dict[str, float]:
    table = model.check()["value"]
    names = {
        "active": "active latent dimensions",
        "kl": "divergence from the prior",
        "gain": "held-out gain per neighbour",
        "diversity": "diversity of decoded neighbourhoods",
    }
    return {short: float(table[name]) for short, name in names.items()}


def of_unseen(t: Tissue, options: dict, seed: int, max_epochs: int | None) -> dict[str, float]:
    """Ask fits about space and sections that they have not seen, and of shuffled positions."""
    hidden = quarter(t)
    model = fit(t.adata[~hidden].copy(), options, seed, max_epochs)
    scores = {"drawn_unseen": energy_ratio(*drawn_cells(model, t, hidden), t)}
    shuffled, rng = t.adata.copy(), np.random.default_rng(seed)
    for s in np.unique(t.section):
        own = np.flatnonzero(t.section == s)
        shuffled.obsm["spatial"][own] = shuffled.obsm["spatial"][rng.permutation(own)]
    table = fit(shuffled, options, seed, max_epochs).check()["value"]
    scores["shuffled_active"] = float(table["active latent dimensions"])
    scores["shuffled_kl"] = float(table["divergence from the prior"])
    scores["shuffled_gain"] = float(table["held-out gain per neighbour"])
    if t.section.max() > 0:
        scores |= unseen_sections(t, options, seed, max_epochs)
    return scores


def unseen_sections(
    t: Tissue, options: dict, seed: int, max_epochs: int | None
) -> dict[str, float]:
    found = {"unseen_f1": [], "unseen_z_f1": []}
    for s in np.unique(t.section):
        test = t.section == s
        model = fit(t.adata[~test].copy(), options, seed, max_epochs)
        for name, kind in (("unseen_f1", "energy"), ("unseen_z_f1", "latent")):
            places = model.get_latent_representation(t.adata, representation=kind)
            found[name].append(f1_of_unseen(places, t, ~test, test))
    return {name: float(np.mean(values)) for name, values in found.items()}


def unseen_by_components(t: Tissue) -> dict[str, float]:
    if t.section.max() == 0:
        return {}
    found = []
    for s in np.unique(t.section):
        test = t.section == s
        axes = nichepca_axes(t.f[~test], _within(t.graph, ~test))
        places = axes.transform(mean_around(t.f, t.graph, with_self=True))
        found.append(f1_of_unseen(places, t, ~test, test))
    return {"unseen_f1": float(np.mean(found))}


def _within(graph: NDArray, kept: NDArray) -> NDArray:
    """Give rows new numbers where only whole sections are kept."""
    number = np.cumsum(kept) - 1
    return np.where(graph[kept] >= 0, number[graph[kept]], -1)
