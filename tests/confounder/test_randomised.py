"""P-values under randomisation: chance differences of the confounders are part of the errors."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from scovert.model import LatentConfounder
from scovert.simulate import confounder

N_SEEDS = 5


def null(seed: int) -> AnnData:
    """Simulate genes moved by six hidden variables, and a random treatment without effect."""
    adata = confounder(
        "null", n_cells=300, n_genes=120, n_confounders=2, z_type="continuous", seed=seed
    )
    adata.obs["treatment"] = np.random.default_rng(seed).random(adata.n_obs) < 0.5
    return adata


def p_values(adata: AnnData, **setup: object) -> np.ndarray:
    LatentConfounder.setup_anndata(adata, "treatment", size_factor_key="size_factor", **setup)
    model = LatentConfounder(adata, n_latent=6)
    model.train(enable_progress_bar=False, accelerator="cpu")
    return model.get_treatment_effects(identification="randomised")["p_value"].to_numpy()


def test_p_values_of_nothing_are_uniform_by_cell() -> None:
    found = np.concatenate([p_values(null(seed)) for seed in range(N_SEEDS)])
    assert 0.03 < (found < 0.05).mean() < 0.08  # 0.2 if the difference is taken for zero


def test_p_values_of_nothing_are_uniform_by_donor() -> None:
    found = []
    for seed in range(N_SEEDS):
        adata = null(seed)
        rng = np.random.default_rng(seed)
        # Donors differ in the first confounder, and half of them are treated at random.
        donor = np.argsort(np.argsort(adata.obsm["truth_confounder"][:, 0] + rng.normal(size=300)))
        donor = donor // 20
        adata.obs["donor"] = [f"d{i}" for i in donor]
        adata.obs["treatment"] = np.isin(donor, rng.permutation(15)[:7])
        found.append(p_values(adata, cluster_key="donor"))
    assert 0.01 < (np.concatenate(found) < 0.05).mean() < 0.08


def test_p_values_of_nothing_are_uniform_in_several_arms() -> None:
    found = []
    for seed in range(N_SEEDS):
        adata = null(seed)
        adata.obs["treatment"] = np.random.default_rng(seed).choice([0, 1, 2], adata.n_obs)
        found.append(p_values(adata, reference=0))
    assert 0.02 < (np.concatenate(found) < 0.05).mean() < 0.09
