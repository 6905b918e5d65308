"""Fits of MaskedImputation and of the others, and what is measured of them."""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
import scvi
import torch

from benchmarks.imputation.peers import PEERS
from benchmarks.imputation.scores import inside, scores, used
from benchmarks.imputation.sets import Hidden, hidden
from benchmarks.processes import costs_of
from benchmarks.runs import Task
from scovert.core._minibatch import over_minibatches
from scovert.model import MaskedImputation
from scovert.model.imputation._calibration import errors_of
from scovert.model.imputation._intervals import coverage

__all__ = ["ALL_SEEDS", "FEW", "OURS", "score"]

OURS = "MaskedImputation"
AS_DECODED = "the same, levels not moved"
"""Without what genes that were held back say of the levels of others."""
ALL_SEEDS = [OURS, AS_DECODED, *(m for m in PEERS if m not in ("gimVI", "SCVI, zero-filled"))]
FEW = {"gimVI": ("treatment", "studies"), "SCVI, zero-filled": ("treatment", "studies")}
"""Methods that take minutes, and the scenarios in which they are run, with one seed."""
LEVEL = 0.9


def score(task: Task, *, max_epochs: int | None = None) -> dict[str, float]:
    """Impute, and compare with what was hidden."""
    torch.set_num_threads(1)
    data = hidden(task.scenario, task.seed)
    if task.method in PEERS:
        imputed, costs = costs_of(lambda: PEERS[task.method](data))
        return scores(data, imputed) | costs
    model, costs = _fit(task.scenario, task.seed, max_epochs)
    imputed = model.get_imputed(indices=data.second).to_numpy()
    if task.method == AS_DECODED:
        return scores(data, imputed / model.module.level[1].exp().numpy())
    return scores(data, imputed) | costs | _coverages(data, model) | _agreement(model)


@lru_cache(maxsize=1)
def _fit(scenario: str, seed: int, max_epochs: int | None) -> tuple[MaskedImputation, dict]:
    adata = hidden(scenario, seed).adata()
    scvi.settings.seed = seed

    def train() -> MaskedImputation:
        MaskedImputation.setup_anndata(adata, "batch", measured_key="measured")
        model = MaskedImputation(adata)
        model.train(max_epochs, enable_progress_bar=False, accelerator="cpu")
        return model

    return costs_of(train)


def _coverages(data: Hidden, model: MaskedImputation) -> dict[str, float]:
    """Share of hidden totals of genes, also by type, and of hidden counts in their intervals."""
    found = {"inside_counts": _of_counts(data, model)}
    for name, key in (("inside_totals", None), ("inside_types", "type")):
        table = model.get_group_expression(key, interval=LEVEL)
        table = table[(table["dataset"] == "second") & ~table["measured"]]
        true = _true_means(data, model, by_type=key is not None)
        at = zip(table["group"], table["gene"], strict=True)
        values = np.array([true[group][gene] for group, gene in at])
        lower, upper = table["lower"].to_numpy(), table["upper"].to_numpy()
        found[name] = inside(values, lower, upper)
        if key is None:
            found["factor"] = float(np.nanmedian(np.sqrt(upper / lower)))
    return found


def _true_means(data: Hidden, model: MaskedImputation, *, by_type: bool) -> dict[str, dict]:
    labels = data.labels if by_type else np.full(len(data.x), "all")
    learnt = model.module.learnt[1].numpy()
    means = {}
    for label in np.unique(labels[data.second]):
        own = data.x[data.second & (labels == label)]
        values = own.sum(0, dtype=float) / max(own[:, learnt].sum(dtype=float), 1) * 1e4
        means[label] = dict(zip(data.genes, values, strict=True))
    return means


def _of_counts(data: Hidden, model: MaskedImputation) -> float:
    genes = used(data)
    moments = partial(model.module.imputed_moments, genes=torch.from_numpy(genes))
    values = over_minibatches(model, moments, indices=data.second)[0]
    theta = model.module.theta[genes]
    true = data.x[data.second][:, genes]
    mean, variation = values[..., 0], values[..., 1]
    return float(coverage(true, mean, variation, theta, errors_of(model, 1), LEVEL).mean())


def _agreement(model: MaskedImputation) -> dict[str, float]:
    """Return what genes that were held back say of those that are hidden."""
    row = model.get_agreement().loc[("second", "imputed")]
    return {f"known_{name}": float(row[name]) for name in ("deviance_explained", "log2_offset")}
