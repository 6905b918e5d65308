"""Pseudobulk by pydeseq2, in an environment of its own: the reference of known designs."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.confounder.cases import Case
from benchmarks.processes import environment

__all__ = ["PYDESEQ2_VERSION", "fit_samples"]

PYDESEQ2_VERSION = "0.5.4"
MIN_COUNTS = 10  # of a gene over all samples, as LatentConfounder asks
SCRIPT = """
import sys, time, warnings
import numpy as np, pandas as pd
from pydeseq2.dds import DeseqDataSet
from pydeseq2.ds import DeseqStats

warnings.simplefilter("ignore")
data = np.load(sys.argv[1], allow_pickle=False)
names = [f"sample_{i}" for i in range(len(data["counts"]))]
counts = pd.DataFrame(data["counts"], index=names)
counts.columns = counts.columns.astype(str)
obs = pd.DataFrame({"donor": data["donor"], "arm": data["arm"]}, index=names)
start = time.process_time()
dds = DeseqDataSet(
    counts=counts, metadata=obs, design=str(data["design"]), quiet=True, n_cpus=1
)
dds.deseq2()
stats = DeseqStats(dds, contrast=["arm", "treated", "reference"], quiet=True, n_cpus=1)
stats.summary()
table = stats.results_df
np.savez(
    sys.argv[2], log2_fc=table["log2FoldChange"], se=table["lfcSE"], p_value=table["pvalue"],
    q_value=table["padj"], cpu=time.process_time() - start,
)
"""


def fit_samples(case: Case) -> tuple[pd.DataFrame, float]:
    """Sum the counts of the cells of each donor and arm, and compare the arms; CPU seconds too.

    Within donors (``~ donor + arm``) where some donor holds both arms, else between them. Genes
    with few counts are NaN, and so are outliers, as pydeseq2 has it.
    """
    start = time.process_time()
    counts, donor, is_treated = summed(case)
    genes = counts.sum(0) >= MIN_COUNTS
    is_blocked = pd.DataFrame({"d": donor, "a": is_treated}).groupby("d")["a"].nunique().max() > 1
    data = {
        "counts": counts[:, genes].astype(int),
        "donor": donor,
        "arm": np.where(is_treated, "treated", "reference"),
        "design": "~ donor + arm" if is_blocked else "~ arm",
    }
    cpu = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.npz"), Path(folder, "target.npz")
        np.savez(source, **data)
        python = environment("pydeseq2", PYDESEQ2_VERSION)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        subprocess.run([python, "-c", SCRIPT, source, target], check=True, env=own, **quiet)
        with np.load(target) as found:
            found = dict(found)
    table = pd.DataFrame(np.nan, case.adata.var_names, ["log2_fc", "se", "p_value", "q_value"])
    for column in table:
        table.loc[genes, column] = found[column]
    return table, cpu + float(found["cpu"])


def summed(case: Case) -> tuple[NDArray, NDArray, NDArray]:
    """Return counts of samples, ``(n_samples, n_genes)``, their donors, and whether treated."""
    obs = case.adata.obs
    is_treated = obs["treatment"].to_numpy() == _treated_level(case)
    donor = obs[case.cluster_key].astype(str).to_numpy()
    codes, names = pd.factorize(pd.MultiIndex.from_arrays([donor, is_treated]), sort=True)
    member = sp.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    counts = np.asarray((member @ sp.csr_matrix(case.adata.X)).todense())
    return counts, names.get_level_values(0).to_numpy(str), names.get_level_values(1).to_numpy()


def _treated_level(case: Case) -> object:
    levels = set(case.adata.obs["treatment"].unique())
    return True if case.reference is None else (levels - {case.reference}).pop()
