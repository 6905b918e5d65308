"""Models that earlier versions saved load, to the numbers that they gave then.

Every folder of ``tests/saved`` holds a model of schema 1, and its cells, columns and results in
``values.npz``. Such a folder is written once, by the version whose files it stands for.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from numpy.typing import NDArray
from safetensors.torch import load
from scipy.sparse import csr_matrix

from scovert.model import BulkDeconvolution, LatentConfounder, PairedVAE

SAVED = Path(__file__).with_name("saved")
CONFOUNDER = ["confounder", "confounder_states", "confounder_network"]
CHOSEN = dict.fromkeys(CONFOUNDER, "classes")
"""What the rule of "auto" chose when the file was written."""

BULK = ["bulk", "bulk_network"]
EFFECTS = ["log2_fc", "se", "p_value", "log2_fc_naive", "q_value_naive"]
# Networks compute in float32, and the order of their sums is the machine's
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
# What is derived from a file is iterated anew, to the tolerance of the version that reads it
DERIVED = {"rtol": 1e-2, "atol": 1e-2}


def read(name: str) -> tuple[AnnData, dict[str, NDArray]]:
    """Cells as they were, and results."""
    with np.load(SAVED / name / "values.npz") as stored:
        values = dict(stored)
    counts = csr_matrix(values.pop("counts").astype(np.float32))
    columns = [key for key in values if key.startswith("obs_")]
    obs = pd.DataFrame({key.removeprefix("obs_"): values.pop(key) for key in columns})
    adata = AnnData(counts, obs.set_axis([f"cell_{i}" for i in range(len(obs))]))
    adata.var_names = [f"gene_{i}" for i in range(adata.n_vars)]
    return adata, values


def tensors(name: str) -> dict[str, torch.Tensor]:
    """Weights and tables of the module, as they are in the file."""
    with zipfile.ZipFile(SAVED / name / "model.scovert") as archive:
        stored = load(archive.read("weights.safetensors"))
    prefix = "module."
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def test_paired() -> None:
    adata, values = read("paired")
    model = PairedVAE.load(SAVED / "paired", adata)
    np.testing.assert_allclose(model.get_latent_representation(), values["latent"], **CLOSE)
    np.testing.assert_allclose(model.get_support(), values["support"], **CLOSE)
    np.testing.assert_allclose(model.get_normalized_expression(), values["means"], **CLOSE)


@pytest.mark.parametrize("name", CONFOUNDER)
def test_confounder(name: str) -> None:
    adata, values = read(name)
    model = LatentConfounder.load(SAVED / name, adata)
    assert model.solver_ == ("amortized" if name == "confounder_network" else "full_batch")
    for stored, tensor in tensors(name).items():
        if stored.startswith("network/"):
            weight = model.module.state_dict()[stored.replace("/", ".")]
            assert torch.equal(weight, tensor), stored
        else:
            attribute = f"{stored.replace('naive', 'unadjusted')}_"
            np.testing.assert_array_equal(getattr(model, attribute), tensor, stored)
    effects = model.get_treatment_effects(identification=CHOSEN[name])[EFFECTS]
    np.testing.assert_allclose(effects, values["effects"], **DERIVED)
    if model.get_treatment_effects().attrs["identification"] != CHOSEN[name]:
        return  # the shift between the arms is another
    np.testing.assert_allclose(model.get_latent_representation(), values["latent"], **DERIVED)
    new = adata[:7].copy()
    np.testing.assert_allclose(model.get_latent_representation(new), values["new"], **DERIVED)
    propensity = model.get_treatment_probability()
    np.testing.assert_allclose(propensity, values["propensity"], **DERIVED)


@pytest.mark.filterwarnings("ignore:Bulk and reference share 300 genes")
@pytest.mark.parametrize("name", BULK)
def test_bulk(name: str) -> None:
    adata, values = read(name)
    model = BulkDeconvolution.load(SAVED / name, adata)
    bulk = AnnData(values["bulk"].astype(float), var=adata.var)
    options = {"kind": "counts", "cell_size": "reference", "interval": None}
    result = model.deconvolve(bulk, **options)
    np.testing.assert_allclose(result.proportions, values["proportions"], **CLOSE)
    np.testing.assert_allclose(result.mrna_fractions, values["mrna_fractions"], **CLOSE)
