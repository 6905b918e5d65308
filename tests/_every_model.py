"""Cells that every model takes, and how the models are set up, fitted and asked alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from scipy import sparse
from scipy.spatial.distance import pdist, squareform

from scovert.model import (
    BulkBudget,
    BulkDeconvolution,
    DistanceEmbedding,
    LatentConfounder,
    MaskedImputation,
    NicheVAE,
    PairedVAE,
)

__all__ = [
    "CATEGORIES",
    "COMMANDS",
    "NUMBERS",
    "N_CELLS",
    "N_GENES",
    "SETUPS",
    "asked",
    "fitted",
    "make",
    "of_every_model",
    "of_models_of_cells",
]

N_CELLS, N_GENES = 150, 307
N_MISSED = 15
"""Genes that the second dataset did not measure."""
SETUPS = {
    PairedVAE: {"batch_key": "batch"},
    LatentConfounder: {"treatment_key": "treatment"},
    NicheVAE: {"sample_key": "batch", "likelihood": "nb"},
    BulkDeconvolution: {"labels_key": "kind"},
    MaskedImputation: {"batch_key": "batch", "measured_key": "measured"},
    DistanceEmbedding: {"distances_key": "distances"},
}
COMMANDS = {
    PairedVAE: ["integrate", "--batch-key=batch"],
    LatentConfounder: ["deconfound", "--treatment-key=treatment"],
    NicheVAE: ["niches", "--sample-key=batch", "--likelihood=nb"],
    BulkDeconvolution: ["deconvolve", "--labels-key=kind"],
    MaskedImputation: ["impute", "--batch-key=batch", "--measured-key=measured"],
    DistanceEmbedding: ["embed-distances", "--distances=distances"],
}
CATEGORIES = [
    (PairedVAE, "batch_key"),
    (PairedVAE, "categorical_covariate_keys"),
    (LatentConfounder, "treatment_key"),
    (LatentConfounder, "categorical_covariate_keys"),
    (LatentConfounder, "cluster_key"),
    (NicheVAE, "sample_key"),
    (NicheVAE, "labels_key"),
    (NicheVAE, "batch_key"),
    (BulkDeconvolution, "labels_key"),
    (BulkDeconvolution, "batch_key"),
    (BulkDeconvolution, "subject_key"),
    (MaskedImputation, "batch_key"),
]
"""Arguments that name columns of categories."""
NUMBERS = [
    (PairedVAE, "continuous_covariate_keys"),
    (LatentConfounder, "continuous_covariate_keys"),
    (LatentConfounder, "size_factor_key"),
]
"""Arguments that name columns of numbers."""

OF_CELLS = [cls for cls in SETUPS if cls is not DistanceEmbedding]
"""Models of cells with columns; that of samples needs none, and takes rarefied tables."""
of_models_of_cells = pytest.mark.parametrize("cls", OF_CELLS, ids=[c.__name__ for c in OF_CELLS])
of_every_model = pytest.mark.parametrize("cls", SETUPS, ids=[cls.__name__ for cls in SETUPS])


def make() -> AnnData:
    """Make cells of two datasets, two arms and three types; sequencing depth differs."""
    rng = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 3
    mean = rng.gamma(1.0, 1.0, (3, N_GENES))[kind] * rng.lognormal(0, 0.4, (N_CELLS, 1))
    obs = pd.DataFrame(
        {
            "batch": np.repeat(["a", "b"], [70, 80]),
            "treatment": rng.random(N_CELLS) < 0.5,
            "kind": np.array(["B", "NK", "T"])[kind],
        },
        index=[f"cell {i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"gene {g}" for g in range(N_GENES)])
    counts = rng.poisson(mean).astype(np.float32)
    counts[70:, -N_MISSED:] = 0
    obs["donor"] = rng.choice([f"d{i}" for i in range(5)], N_CELLS)
    obs["size"] = rng.uniform(0.5, 2.0, N_CELLS)
    positions = rng.uniform(0, 1, (N_CELLS, 2))
    adata = AnnData(sparse.csr_matrix(counts), obs=obs, var=var, obsm={"spatial": positions})
    is_shared = np.arange(N_GENES) < N_GENES - N_MISSED
    adata.varm["measured"] = pd.DataFrame({"a": True, "b": is_shared}, var.index)
    adata.obsp["distances"] = squareform(pdist(np.sqrt(counts)))
    return adata


def fitted(cls: type, adata: AnnData, layer: str | None = None) -> object:
    scvi.settings.seed = 0
    cls.setup_anndata(adata, layer=layer, **SETUPS[cls])
    init = {BulkDeconvolution: {}, NicheVAE: {"n_latent": 1, "n_states": 5}}
    model = cls(adata, **init.get(cls, {"n_latent": 1}))
    options = {} if cls in (LatentConfounder, BulkDeconvolution) else {"max_epochs": 2}
    if cls is DistanceEmbedding:
        options["method"] = "linear"
    model.train(enable_progress_bar=False, **options)
    return model


def asked(model: object, layer: str | None = None) -> np.ndarray:
    if isinstance(model, PairedVAE):
        return model.get_normalized_expression().to_numpy()
    if isinstance(model, LatentConfounder):  # of what is quickest to look for
        return model.get_normalized_expression(identification="sparse").to_numpy()
    if isinstance(model, NicheVAE):
        return model.get_neighborhood_expression().to_numpy()
    if isinstance(model, MaskedImputation):
        return model.get_imputed().to_numpy()
    if isinstance(model, DistanceEmbedding):
        return model.get_distances().to_numpy()
    samples = AnnData(make().X.toarray().reshape(6, -1, N_GENES).sum(1), var=make().var)
    samples.obs_names = [f"sample {i}" for i in range(6)]
    if layer == "raw":
        samples.raw = samples.copy()
        samples.X = np.log1p(samples.X)
    options = {"layer": layer, "kind": "counts", "cell_size": "none", "interval": None}
    options["budget"] = BulkBudget(n_steps=10)
    return model.get_proportions(samples, **options).to_numpy()
