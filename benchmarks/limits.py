"""What the limits of two warnings rest on: donors of unequal size, and samples of few counts.

    python benchmarks/limits.py                      # three minutes
    python benchmarks/limits.py --only samples

Donors: a treatment without effect, given to half of the donors, whose genes vary between them.
Prints how often p < .05, in the mean over the seeds and in the worst of them, by how many donors
there are in effect. Samples: one of eight simulated blood samples is thinned to some counts.
Prints its error and how many of its fractions the intervals hold.
"""

from __future__ import annotations

import argparse
import logging
import warnings

import numpy as np
import pandas as pd
from anndata import AnnData

SIZES = {
    "6 v. 6, equal": [100] * 12,
    "6 v. 6, one of 300": [60] * 6 + [300] + [50] * 5,
    "3 v. 3, 150 60 60": [150, 60, 60] * 2,
    "3 v. 3, 300 30 30": [300, 30, 30] * 2,
    "6 v. 6, 600 and 20s": [600, 20, 20, 20, 20, 20] * 2,
}
"""Cells of every donor; the first half is treated."""
N_GENES, DONOR_SD = 200, 0.5
DEPTHS = (50, 500, 1000, 2000, 3000, 5000, 10_000, None)
"""Counts of the thinned sample; `None` leaves it as it is."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", choices=["donors", "samples"])
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for name, measure in (("donors", unequal_donors), ("samples", thinned_samples)):
        if options.only in (None, name):
            print(f"\n{name}\n{measure(range(options.seeds)).round(3).to_string()}")


def unequal_donors(seeds: range) -> pd.DataFrame:
    """Rejections of a null, with the limits of the model lifted."""
    from scovert.model.confounder import _checks

    _checks.FEWEST_EFFECTIVE = 0
    rows = {}
    for name, sizes in SIZES.items():
        arms = np.array(sizes, float).reshape(2, -1)
        effective = (arms.sum(1) ** 2 / (arms**2).sum(1)).min()
        rejected = [null_rejections(sizes, seed) for seed in seeds]
        rows[name] = {
            "in effect": effective,
            "share": effective / arms.shape[1],
            "p < .05": np.mean(rejected),
            "worst": max(rejected),
        }
    return pd.DataFrame(rows).T


def null_rejections(sizes: list[int], seed: int) -> float:
    from scovert.model import LatentConfounder

    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(len(sizes)), sizes)
    level = rng.normal(0, 1, N_GENES) + rng.normal(0, DONOR_SD, (len(sizes), N_GENES))
    obs = pd.DataFrame({"treatment": donor < len(sizes) / 2, "donor": donor.astype(str)})
    obs.index = obs.index.astype(str)
    cells = AnnData(rng.poisson(np.exp(level[donor])).astype(np.float32), obs=obs)
    LatentConfounder.setup_anndata(cells, "treatment", cluster_key="donor")
    model = LatentConfounder(cells, n_latent=0)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return float((model.get_treatment_effects()["p_value"] < 0.05).mean())


def thinned_samples(seeds: range) -> pd.DataFrame:
    """Error and coverage of one sample by its counts."""
    import scovert
    from scovert.model import BulkDeconvolution

    cells = scovert.data.pbmc68k()
    cells = cells[cells.obs["cell_type"] != "CD34+"].copy()
    BulkDeconvolution.setup_anndata(cells, labels_key="cell_type")
    model = BulkDeconvolution(cells, min_cells_per_type=8)
    model.train(enable_progress_bar=False)
    rows = {}
    for depth in DEPTHS:
        errors, covered = [], []
        for seed in seeds:
            bulk = scovert.simulate.bulk(cells, "cell_type", n_samples=8, seed=seed)
            truth = bulk.obsm["truth_proportions"].iloc[0]
            if depth is not None:
                bulk.X[0] = np.random.default_rng(seed).multinomial(
                    depth, bulk.X[0] / bulk.X[0].sum(dtype=float)
                )
            found = model.deconvolve(bulk, kind="counts", cell_size="reference")
            errors.append(((found.proportions.iloc[0] - truth) ** 2).mean())
            inside = (found.lower.iloc[0] <= truth) & (truth <= found.upper.iloc[0])
            covered.append(inside.mean())
        rows[depth or "as it is"] = {"RMSE": np.mean(errors) ** 0.5, "coverage": np.mean(covered)}
    return pd.DataFrame(rows).T


if __name__ == "__main__":
    main()
