"""The same seed under other vector instructions, which act when libraries are loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from numpy.typing import NDArray

pytestmark = pytest.mark.slow

KERNELS = {
    "AVX2": {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2"},
    "no vectors": {"ATEN_CPU_CAPABILITY": "default"},
}
THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
FIT = """
    import sys, warnings
    import numpy as np
    import torch
    import scovert
    from scovert.anchors import find_anchors
    from scovert.model import BulkDeconvolution, LatentConfounder

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    results = {}

    blood = scovert.data.pbmc68k()
    bulk = scovert.simulate.bulk(blood, "cell_type", n_samples=5)
    BulkDeconvolution.setup_anndata(blood, labels_key="cell_type")
    model = BulkDeconvolution(blood, min_cells_per_type=8)
    model.train(enable_progress_bar=False)
    found = model.deconvolve(bulk, kind="counts", cell_size="reference", interval=None)
    results["proportions"] = found.proportions.to_numpy()

    cells = scovert.simulate.confounder("sparse", n_cells=500, n_genes=60, n_confounders=2, seed=3)
    LatentConfounder.setup_anndata(cells, "treatment", size_factor_key="size_factor")
    fits = (("full_batch", "continuous"), ("full_batch", "binary"), ("amortized", "binary"))
    for solver, z_type in fits:
        model = LatentConfounder(cells, n_latent=2, z_type=z_type)
        options = {} if solver == "full_batch" else {"enable_model_summary": False}
        model.train(solver, accelerator="cpu", enable_progress_bar=False, **options)
        effects = model.get_treatment_effects()
        at = f"{solver} {z_type}"
        results[f"log2_fc {at}"], results[f"se {at}"] = effects["log2_fc"], effects["se"]

    batches = scovert.data.two_batches(blood, thinning=0.5, capture_sd=1.0)
    copies = np.repeat(np.arange(batches.n_obs), np.where(np.arange(batches.n_obs) % 5, 1, 12))
    batch = batches.obs["batch"].astype("category").cat.codes.to_numpy()
    anchors = find_anchors(batches.X[copies], batch[copies].astype(int))
    results["anchors"], results["support"] = anchors.pairs, anchors.support
    np.savez(sys.argv[1], **results)
"""


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], dict[str, NDArray]]:
    """Fit in a process of its own."""
    folder = tmp_path_factory.mktemp("kernels")
    script = folder / "fit.py"
    script.write_text(dedent(FIT))

    def run(environment: dict[str, str]) -> dict[str, NDArray]:
        path = Path(folder) / f"{len(list(folder.iterdir()))}.npz"
        inherited = {k: v for k, v in os.environ.items() if k not in KERNELS["AVX2"]}
        command = [sys.executable, script, path]
        subprocess.run(command, check=True, env=inherited | THREAD | environment)
        return dict(np.load(path))

    return run


@pytest.fixture(scope="module")
def expected(fit: Callable) -> dict[str, NDArray]:
    return fit({})


@pytest.mark.parametrize("kernel", KERNELS)
def test_results_agree_as_documented(kernel: str, fit: Callable, expected: dict) -> None:
    found = fit(KERNELS[kernel])
    np.testing.assert_allclose(found["proportions"], expected["proportions"], atol=1e-4)
    np.testing.assert_array_equal(found["anchors"], expected["anchors"])
    np.testing.assert_allclose(found["support"], expected["support"], atol=1e-4)
    for name in (name for name in expected if name.startswith("log2_fc")):
        se = name.replace("log2_fc", "se")
        change = np.abs(found[name] - expected[name]) / expected[se]
        assert np.nanmax(change) < 0.1, name
        np.testing.assert_allclose(found[se], expected[se], rtol=0.05, err_msg=name)


def test_results_are_equal_on_one_machine(fit: Callable, expected: dict) -> None:
    again = fit({})
    assert again.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)
