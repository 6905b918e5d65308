"""Rectangle and Scaden, each in an environment of its own; they are shown once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.bulk.peers import shared_of
from benchmarks.bulk.sets import Case
from benchmarks.processes import call_in, environment

__all__ = ["OTHERS", "VERSIONS", "by_package", "interpreter"]

VERSIONS = {"rectanglepy": "1.7.0", "scTAPE": "1.1.2"}
RECTANGLE = """
import sys
import numpy as np
import pandas as pd
from anndata import AnnData

from rectanglepy.tl import deconvolution
from rectanglepy.pp import build_rectangle_signatures

data = np.load(sys.argv[1])
cells = pd.DataFrame(data["counts"].astype(np.float32), columns=data["genes"])
cells.index = cells.index.astype(str)
cells = AnnData(cells)
cells.obs["cell_type"] = data["labels"]
bulk = pd.DataFrame(data["bulk"], columns=data["bulk_genes"])
bulk = bulk.div(bulk.sum(axis=1), axis=0) * 1e6
signatures = build_rectangle_signatures(cells, "cell_type", bulks=bulk, n_cpus=1)
found, _ = deconvolution(signatures, bulk, True, 1)
np.savez(sys.argv[2], fractions=found[data["types"]].to_numpy(float))
"""
SCADEN = """
import sys
import matplotlib
import numpy as np
import pandas as pd
import torch
from anndata import AnnData

matplotlib.use("Agg")
from TAPE.deconvolution import ScadenDeconvolution
from TAPE.train import reproducibility

torch.set_num_threads(1)
data = np.load(sys.argv[1])
counts, labels, types = data["counts"], data["labels"], data["types"]
rng, n, n_cells = np.random.default_rng(0), 2000, 500
fractions = rng.dirichlet(np.ones(len(types)), n)
for row in fractions[: n // 2]:
    row[rng.choice(len(types), len(types) // 2, replace=False)] = 0
drawn = np.floor(n_cells * fractions / fractions.sum(1, keepdims=True)).astype(int)
mixed = np.zeros((n, counts.shape[1]), np.float32)
for k, name in enumerate(types):
    cells = counts[labels == name]
    for b in np.flatnonzero(drawn[:, k]):
        mixed[b] += rng.multinomial(drawn[b, k], np.full(len(cells), 1 / len(cells))) @ cells
genes = np.argsort(-np.log1p(mixed).var(0))[:2000]
truth = pd.DataFrame(drawn / drawn.sum(1, keepdims=True), columns=types)
truth.index = truth.index.astype(str)
training = AnnData(mixed[:, genes], obs=truth, var=pd.DataFrame(index=data["genes"][genes]))
bulk = pd.DataFrame(data["bulk"][:, genes], columns=data["genes"][genes])
reproducibility(0)
found = ScadenDeconvolution(training, bulk, batch_size=128, epochs=64)
np.savez(sys.argv[2], fractions=found[types].to_numpy(float))
"""


def all_genes(case: Case) -> dict[str, NDArray]:
    labels = case.reference.obs["cell_type"].to_numpy(str)
    return {
        "counts": case.reference.X.toarray(),
        "genes": case.reference.var_names.to_numpy(str),
        "labels": labels,
        "types": np.unique(labels),
        "bulk": case.bulk.X,
        "bulk_genes": case.bulk.var_names.to_numpy(str),
    }


def shared_genes(case: Case) -> dict[str, NDArray]:
    shared = shared_of(case)._asdict()
    return {k: shared[k] for k in ("counts", "genes", "labels", "types", "bulk")}


OTHERS = {
    "rectangle": ("rectanglepy", RECTANGLE, all_genes),
    "Scaden": ("scTAPE", SCADEN, shared_genes),
}


def interpreter(package: str) -> Path:
    return environment(package, VERSIONS[package])


def by_package(name: str, case: Case) -> pd.DataFrame:
    """Fractions of cells, samples x types, corrected for RNA content by the package itself."""
    package, call, data_of = OTHERS[name]
    data = data_of(case)
    found = call_in(interpreter(package), call, data)
    return pd.DataFrame(found["fractions"], case.bulk.obs_names, data["types"])
