"""How far results differ between processors: the same data and seed under other kernels.

    python benchmarks/kernels.py                     # five minutes
    python benchmarks/kernels.py --models confounder

Sums of floats depend on the vector instructions that the libraries choose, and on the number of
threads. Prints a table for each model: differences from the fit with one thread and the kernels
that the processor allows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SETTINGS = {
    "as it is": {},
    "AVX2": {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2"},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default"},
    "two threads": {"OMP_NUM_THREADS": "2"},
}
N_NEIGHBORS = 15
Results = dict[str, NDArray]


def fit_bulk() -> Results:
    """Proportions of simulated samples of blood, and their intervals."""
    import scovert
    from scovert.model import BulkDeconvolution

    reference = scovert.data.pbmc68k()
    bulk = scovert.simulate.bulk(reference, "cell_type", n_samples=12)
    BulkDeconvolution.setup_anndata(reference, labels_key="cell_type")
    model = BulkDeconvolution(reference, min_cells_per_type=8)
    model.train(enable_progress_bar=False)
    result = model.deconvolve(bulk, kind="counts", cell_size="reference")
    ends = np.stack([result.lower, result.upper])
    return {"proportions": result.proportions.to_numpy(), "intervals": ends}


def fit_confounder() -> Results:
    """Effects on blood cells whose hidden type drives the treatment."""
    import scovert
    from scovert.model import LatentConfounder

    adata = scovert.simulate.hidden_covariate(
        scovert.data.pbmc68k(), "cell_type", effect_fraction=0.1, fold_change=3
    )
    LatentConfounder.setup_anndata(adata, "treatment")
    model = LatentConfounder(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    effects = model.get_treatment_effects()
    tested = effects[effects["reason"] == ""]
    return {
        "log2_fc": tested["log2_fc"].to_numpy(),
        "log2_fc / se": (tested["log2_fc"] / tested["se"]).to_numpy(),
        "log se": np.log(tested["se"]).to_numpy(),
        "confounders": model.get_latent_representation(),
    }


def fit_paired() -> Results:
    """Positions and corrected counts of two batches of blood."""
    import scvi

    import scovert
    from scovert.model import PairedVAE

    adata = scovert.data.two_batches(scovert.data.pbmc68k(), thinning=0.5, capture_sd=1.0)
    scvi.settings.seed = 0
    PairedVAE.setup_anndata(adata, batch_key="batch")
    model = PairedVAE(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return {
        "positions": model.get_latent_representation(),
        "corrected": np.asarray(model.get_normalized_expression()),
    }


FITS: dict[str, Callable[[], Results]] = {
    "bulk": fit_bulk,
    "confounder": fit_confounder,
    "paired": fit_paired,
}


def run(name: str, environment: dict[str, str]) -> Results:
    """Fit in a process of its own: kernels are chosen when libraries are loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.npz"
        command = [sys.executable, __file__, "--fit", name, "--output", str(path)]
        threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        subprocess.run(command, check=True, env=os.environ | threads | environment)
        return dict(np.load(path))


def compare(name: str, found: Results, expected: Results) -> dict[str, float]:
    """Differences of two fits."""
    if name != "paired":
        return {
            f"{name} difference of {k}": f(np.abs(found[k] - v))
            for k, v in expected.items()
            for name, f in {"largest": np.max, "median": np.median}.items()
        }
    a, b = expected["positions"], found["positions"]
    return {
        "correlation of distances": _correlation(*(_distances(v) for v in (a, b))),
        "shared neighbours": _shared_neighbours(a, b),
        "correlation of corrected counts": _correlation(
            *(np.log1p(fit["corrected"]) for fit in (expected, found))
        ),
    }


def _correlation(a: NDArray, b: NDArray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _distances(points: NDArray) -> NDArray:
    from scipy.spatial.distance import pdist

    return pdist(points)


def _shared_neighbours(a: NDArray, b: NDArray) -> float:
    """Mean share of the nearest neighbours that two spaces have in common."""
    from sklearn.neighbors import NearestNeighbors

    near = [
        NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(v).kneighbors(return_distance=False)
        for v in (a, b)
    ]
    return float(np.mean([len(set(p) & set(q)) / N_NEIGHBORS for p, q in zip(*near, strict=True)]))


def main() -> None:
    """Fit everything under every setting and print the differences from the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", choices=FITS, help="fit one model in this process")
    parser.add_argument("--models", nargs="+", choices=FITS, default=list(FITS))
    parser.add_argument("--output", type=Path, help="where --fit writes")
    options = parser.parse_args()
    if options.fit:
        warnings.simplefilter("ignore")
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        np.savez(options.output, **FITS[options.fit]())
        return
    for name in options.models:
        found = {setting: run(name, environment) for setting, environment in SETTINGS.items()}
        first, *others = found
        table = {k: compare(name, found[k], found[first]) for k in others}
        print(
            f"\n{name}\n{pd.DataFrame(table).to_string(float_format='{:.2g}'.format)}", flush=True
        )


if __name__ == "__main__":
    main()
