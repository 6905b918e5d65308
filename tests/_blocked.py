"""Cells of hidden types that are treated within donors."""

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi

from scovert.model import LatentConfounder

N_DONORS, N_GENES = 6, 150
N_RESPONDING = 30


def simulated(
    seed: int, *, types: float = 0.8, odds: float = 0.0, graded: bool = False
) -> ad.AnnData:
    """Cells of three hidden types, treated within donors.

    Parameters
    ----------
    seed
        Seed.
    types
        Standard deviation of the log means of a gene over the types.
    odds
        Log odds of the treatment by type, standard deviation.
    graded
        Treated cells respond between not at all and twice as much.
    """
    rng = np.random.default_rng(seed)
    n = 900
    kind, donor = rng.integers(0, 3, n), rng.integers(0, N_DONORS, n)
    chance = 1 / (1 + np.exp(-odds * np.array([-1.2, 0, 1.2])[kind]))
    treated = rng.random(n) < chance
    truth = np.zeros(N_GENES)
    truth[:N_RESPONDING] = rng.choice([-1, 1], N_RESPONDING) * 0.8
    dose = treated * (rng.uniform(0, 2, n) if graded else 1.0)
    log_mean = rng.uniform(-0.7, 1.5, N_GENES) + rng.normal(0, types, (3, N_GENES))[kind]
    log_mean += rng.normal(0, 0.15, (N_DONORS, N_GENES))[donor] + dose[:, None] * truth
    counts = rng.negative_binomial(4, 4 / (4 + np.exp(log_mean))).astype(np.float32)
    obs = pd.DataFrame({"treatment": treated, "donor": [f"d{i}" for i in donor], "size": 1.0})
    obs.index = [f"cell_{i}" for i in range(n)]
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame({"truth": truth}))


def fitted(cells: ad.AnnData, **setup: object) -> LatentConfounder:
    scvi.settings.seed = 0
    options = {"size_factor_key": "size", "cluster_key": "donor"} | setup
    LatentConfounder.setup_anndata(cells, "treatment", **options)
    model = LatentConfounder(cells)
    model.train(enable_progress_bar=False)
    return model
