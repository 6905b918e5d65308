"""How each method of the integration benchmark is fitted: counts in, embedding and costs out.

Every method takes cells as `scenarios.prepared` makes them, a seed and the number of epochs
(`None`: the method's own default). It returns an embedding of all cells and a dictionary of
numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import harmonypy
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi.dataloaders import AnnDataLoader
from scvi.external import SysVI
from scvi.model import SCANVI, SCVI
from scvi.model.base import BaseModelClass
from sklearn.metrics import roc_auc_score

from benchmarks.processes import call_in, environment
from scovert.anchors import align, find_anchors
from scovert.model import PairedVAE
from scovert.model.paired import _model as _paired
from scovert.model.paired._module import ANCHORED_KEY

__all__ = ["METHODS", "ONE_SEED", "SCANORAMA_VERSION", "make_scanorama_environment"]

Fit = tuple[NDArray, dict[str, float]]

N_COMPONENTS = 30
SCANORAMA_VERSION = "1.7.4"
SCANORAMA_CALL = """
import sys
import numpy as np
import scanorama

source, target = sys.argv[1:]
data = np.load(source)
parts = [data[name] for name in data.files]
genes = [np.arange(parts[0].shape[1]).astype(str)] * len(parts)
embeddings, _ = scanorama.integrate(parts, genes, dimred={n_components}, seed=0, verbose=0)
np.savez(target, **dict(zip(data.files, embeddings)))
"""


def pca(adata: AnnData, seed: int = 0, max_epochs: int | None = None) -> Fit:
    """Principal components of scaled log-normalised values of all cells."""
    scaled = sc.pp.scale(adata.layers["log"].toarray(), max_value=10)
    return sc.pp.pca(scaled, n_comps=N_COMPONENTS, random_state=0), {}


def harmony(adata: AnnData, seed: int, max_epochs: int | None = None) -> Fit:
    """Harmony of the principal components of all cells."""
    components = pca(adata)[0]
    result = harmonypy.run_harmony(
        components.astype(np.float64), adata.obs, "batch", random_state=seed, verbose=False
    )
    corrected = np.asarray(result.Z_corr)
    return corrected if corrected.shape == components.shape else corrected.T, {}


def scanorama(adata: AnnData, seed: int = 0, max_epochs: int | None = None) -> Fit:
    """Scanorama of the log-normalised values of all cells, in an environment of its own."""
    batch, log = adata.obs["batch"].to_numpy().astype(str), adata.layers["log"].toarray()
    parts = {b: log[batch == b] for b in np.unique(batch)}
    script = SCANORAMA_CALL.format(n_components=N_COMPONENTS)
    embedding = np.empty((adata.n_obs, N_COMPONENTS), np.float32)
    for b, part in call_in(make_scanorama_environment(), script, parts).items():
        embedding[batch == b] = part
    return embedding, {}


def make_scanorama_environment() -> Path:
    """Return the interpreter of an environment with Scanorama, made when it is not there."""
    return environment("scanorama", SCANORAMA_VERSION)


def scvi_default(adata: AnnData, seed: int, max_epochs: int | None = None) -> Fit:
    """scvi-tools' SCVI with its default sizes and training, on the cells not for test."""
    scvi.settings.seed = seed
    cells = adata.copy()
    is_test = cells.obs["test"].to_numpy()
    SCVI.setup_anndata(cells, batch_key="batch")
    model = SCVI(cells, gene_likelihood="nb")
    split = [np.flatnonzero(~is_test), np.flatnonzero(is_test), np.array([], int)]
    costs = train(model, max_epochs, datasplitter_kwargs={"external_indexing": split})
    return model.get_latent_representation(), costs | {
        "heldout": heldout(model, _test_cells(adata))
    }


def scanvi(adata: AnnData, seed: int, max_epochs: int | None = None) -> Fit:
    """SCANVI of the host, which sees the cell types: what labels are worth."""
    scvi.settings.seed = seed
    cells = adata[~adata.obs["test"]].copy()
    options = {"accelerator": "cpu", "enable_progress_bar": False}
    SCVI.setup_anndata(cells, batch_key="batch")
    start = time.process_time()
    first = SCVI(cells, gene_likelihood="nb")
    first.train(max_epochs, **options)
    model = SCANVI.from_scvi_model(first, "unknown", labels_key="cell_type")
    model.train(max_epochs, **options)
    costs = {"cpu": time.process_time() - start, "epochs": len(model.history["elbo_train"])}
    return model.get_latent_representation(adata), costs


def sysvi(adata: AnnData, seed: int, max_epochs: int | None = None) -> Fit:
    """SysVI of the host, of log-normalised values."""
    scvi.settings.seed = seed
    log = AnnData(adata.layers["log"], obs=adata.obs.copy(), var=adata.var.copy())
    cells = log[~log.obs["test"]].copy()
    SysVI.setup_anndata(cells, batch_key="batch")
    model = SysVI(cells)
    start = time.process_time()
    model.train(
        max_epochs=max_epochs, plan_kwargs={}, accelerator="cpu", enable_progress_bar=False
    )
    costs = {"cpu": time.process_time() - start}
    return model.get_latent_representation(log), costs


def aligned(adata: AnnData, seed: int, max_epochs: int | None = None) -> Fit:
    """Components of `scovert.anchors.align`, of all cells."""
    start = time.process_time()
    embedding = align(adata, "batch", seed=seed)
    return embedding, {"cpu": time.process_time() - start}


def paired(
    adata: AnnData,
    seed: int,
    max_epochs: int | None = None,
    *,
    space: str = "classes",
    **init: object,
) -> Fit:
    """PairedVAE with its default training, on the cells that are not for test."""
    scvi.settings.seed = seed
    cells = adata[~adata.obs["test"]].copy()
    PairedVAE.setup_anndata(cells, batch_key="batch")
    model = PairedVAE(cells, **init)
    with patch.object(_paired, "find_anchors", partial(find_anchors, space=space)):
        costs = train(model, max_epochs)
    embedding = model.get_latent_representation(adata)
    if model.support_ is not None:
        costs |= support_scores(model.get_support(), cells.obs)
    return embedding, costs | {"heldout": heldout(model, _test_cells(adata))}


def support_scores(support: pd.DataFrame, obs: pd.DataFrame) -> dict[str, float]:
    """AUROC of support: cell and batch that has 5 of its type, against those that lack it."""
    sizes = pd.crosstab(obs["cell_type"], obs["batch"])
    there = sizes.loc[obs["cell_type"], support.columns].to_numpy()
    known = support.notna().to_numpy() & ((there == 0) | (there >= MIN_CELLS))
    is_there = there[known] > 0
    if is_there.all():
        return {}
    return {"support_auroc": float(roc_auc_score(is_there, support.to_numpy()[known]))}


def _test_cells(adata: AnnData) -> AnnData:
    return adata[adata.obs["test"]].copy()


def train(model: BaseModelClass, max_epochs: int | None, **options: object) -> dict[str, float]:
    """Train, and return the epochs and the CPU seconds of all and of 1,000 training cells drawn.

    The time is that of the whole call of ``model.train``: search for anchors, validation and all.
    Partners of anchored cells come on top of the cells drawn, and are not counted as cells.
    """
    n_cells = 0

    def count_cells(module: torch.nn.Module, args: tuple, _: object) -> None:
        nonlocal n_cells
        if module.training:
            n_cells += len(args[0]["X"]) - len(args[0].get(ANCHORED_KEY, ()))

    hook = model.module.register_forward_hook(count_cells)
    start = time.process_time()
    model.train(max_epochs, accelerator="cpu", enable_progress_bar=False, **options)
    seconds = time.process_time() - start
    hook.remove()
    epochs = len(model.history["elbo_train"])
    return {"epochs": epochs, "cpu": seconds, "cpu_per_1000_cells": 1000 * seconds / n_cells}


@torch.inference_mode()
def heldout(model: BaseModelClass, adata: AnnData) -> float:
    """Mean log-likelihood of one gene in one cell of `adata`, from one posterior sample a cell."""
    torch.manual_seed(0)
    model.module.eval()
    scores = []
    for tensors in AnnDataLoader(model.adata_manager.transfer_fields(adata), batch_size=512):
        _, outputs = model.module(tensors, compute_loss=False)
        scores.append(outputs["px"].log_prob(tensors["X"]).mean(1))
    return float(torch.cat(scores).mean())


MIN_CELLS = 5
VARIANTS = (
    "shared/anchors",
    "shared/none",
    "shared/adversarial",
    "shared/grl",
    "per_dataset/anchors",
    "per_dataset/adversarial",
    "per_dataset/grl",
)

METHODS: dict[str, Callable[..., Fit]] = {
    "PCA": pca,
    "Harmony": harmony,
    "Scanorama": scanorama,
    "SCVI": scvi_default,
    "SysVI": sysvi,
    "SCANVI": scanvi,
    "align": aligned,
}
for _variant in VARIANTS:
    _encoder, _alignment = _variant.split("/")
    METHODS[_variant] = partial(paired, encoder=_encoder, alignment=_alignment)

METHODS["shared/anchors, Harmony anchors"] = partial(paired, space="harmony")
METHODS["shared/adversarial, plain"] = partial(
    paired, alignment="adversarial", support_weighted=False
)

ONE_SEED = ("PCA", "Scanorama")  # the seed has no say here
