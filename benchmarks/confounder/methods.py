"""How each method of the benchmark of hidden confounders is fitted: a case in, effects out."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import scvi
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, mannwhitneyu

from benchmarks.confounder.cases import (
    MAX_CONTROL_EFFECT,
    MIN_CONTROL_P,
    N_CONTROLS,
    Case,
    Columns,
    log_normalised,
)
from benchmarks.confounder.pseudobulk import fit_samples
from benchmarks.confounder.scenarios import case_of
from benchmarks.processes import environment
from scovert.model import LatentConfounder

__all__ = ["CAUSARRAY_VERSION", "METHODS", "Result", "make_causarray_environment"]

CAUSARRAY_VERSION = "0.1.1"
TIGHT = {"max_iters": 300, "rel_tol": 1e-6, "warmup": 50, "patience": 20}
CAUSARRAY_LOOP = """
import contextlib, json, os, sys, time, warnings
import numpy as np
import causarray

warnings.simplefilter("ignore")


def fit(data, counts, k, options):
    known, treatment = data["known"], data["treatment"][:, None]
    offset = data["offset"] if np.any(data["offset"]) else None
    stop = {name: dict(options) for name in ("kwargs_es_1", "kwargs_es_2")} if options else {}
    found = causarray.fit_gcate(
        counts, known, treatment, k, family="nb", offset=offset, num_threads=1, **stop
    )[1]
    columns = np.c_[known, found["X_U"][:, known.shape[1] + 1 :]]
    effects = causarray.LFC(
        counts, columns, treatment, columns, family="nb",
        offset=False if offset is None else offset, num_threads=1,
    )[0]
    return columns[:, known.shape[1] :], effects


def answer(source, target, options):
    data = np.load(source)
    fit(data, data["counts"][:, :20], 1, options)  # compiles
    start = time.process_time()
    latent, effects = fit(data, data["counts"], int(data["k"]), options)
    np.savez(
        target, latent=latent, effect=effects["tau"].values, se=effects["std"].values,
        p_value=effects["pvalue"].values, cpu=time.process_time() - start,
    )


for line in sys.stdin:
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        answer(*json.loads(line))
    print("done", flush=True)
"""


class Result(NamedTuple):
    """Effects as `LatentConfounder.get_treatment_effects` has them, and what else there is.

    Attributes
    ----------
    effects
        Table of effects.
    latent
        Inferred confounders, if any.
    more
        Numbers and words for the results file.
    is_scored
        Genes that count, by name; `None` for all.
    """

    effects: pd.DataFrame
    latent: NDArray | None = None
    more: dict = {}
    is_scored: pd.Series | None = None


class Fit(NamedTuple):
    """A trained model, and the CPU seconds of its training."""

    model: LatentConfounder
    cpu: float


@lru_cache(maxsize=4)
def fitted(scenario: str, seed: int, kind: str) -> Fit:
    """Train a model once for all methods that look at it."""
    case = case_of(scenario, seed)
    return train(case, seed, *_roles(case, kind))


def _roles(case: Case, kind: str) -> tuple[Columns, dict, str | None]:
    """Covariates, options and donors of a model."""
    if kind == "latent":
        return case.known, case.options, case.cluster_key
    none = {"n_latent": 0}
    if kind == "oracle":
        columns = (a + b for a, b in zip(case.known, case.hidden, strict=True))
        return Columns(*columns), none, case.cluster_key
    return case.known, none, case.cluster_key if kind == "unadjusted, donors" else None


def train(case: Case, seed: int, columns: Columns, options: dict, cluster_key: str | None) -> Fit:
    scvi.settings.seed = seed
    adata = case.adata.copy()
    LatentConfounder.setup_anndata(
        adata,
        "treatment",
        reference=case.reference,
        size_factor_key="size_factor",
        categorical_covariate_keys=list(columns.categorical),
        continuous_covariate_keys=list(columns.continuous),
        cluster_key=cluster_key,
    )
    model = LatentConfounder(adata, **options)
    start = time.process_time()
    model.train(accelerator="cpu", enable_progress_bar=False)
    return Fit(model, time.process_time() - start)


def effects_of(scenario: str, seed: int, kind: str, **options: object) -> Result:
    """Effects of a model, with what the choice of the identification rests on."""
    model, cpu = fitted(scenario, seed, kind)
    start = time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        effects = model.get_treatment_effects(**options)
    costs = {"cpu": cpu, "cpu_effects": time.process_time() - start}
    choice = {"choice": effects.attrs["identification"], "facts": effects.attrs["facts"]}
    more = choice | costs | {"n_latent": model.n_latent, "warned": [str(w.message) for w in said]}
    is_known = kind == "latent" and case_of(scenario, seed).confounder is not None
    return Result(effects, model.get_latent_representation() if is_known else None, more)


def with_controls(scenario: str, seed: int) -> Result:
    """Effects by negative controls, which are then not scored."""
    case = case_of(scenario, seed)
    controls = negative_controls(case, seed)
    found = effects_of(scenario, seed, "latent", negative_controls=list(controls))
    names = case.adata.var_names
    return found._replace(is_scored=pd.Series(~names.isin(controls), names))


def negative_controls(case: Case, seed: int) -> NDArray:
    """Genes that do not respond in the cells left out, where the types are known."""
    known = Columns(*(a + b for a, b in zip(case.known, case.hidden, strict=True)))
    model = train(Case(case.others), seed, known, {"n_latent": 0}, None).model
    table = model.get_treatment_effects()
    is_small = table["log2_fc"].abs() * np.log(2) < MAX_CONTROL_EFFECT
    usable = table.index[is_small & (table["p_value"] > MIN_CONTROL_P)]
    return np.random.default_rng(seed).choice(usable, N_CONTROLS, replace=False)


def deviance(scenario: str, seed: int) -> Result:
    """Effects, and how much the confounders explain."""
    found = effects_of(scenario, seed, "latent")
    dbpr = fitted(scenario, seed, "latent").model.get_partial_deviance()["dbpr"]
    more = {"dbpr_treatment": dbpr["treatment"], "dbpr_counts": dbpr["counts"]}
    return found._replace(more=found.more | more)


def wilcoxon(scenario: str, seed: int) -> Result:
    """Rank test of log-normalised values."""
    case = case_of(scenario, seed)
    treated, log = case.adata.obs["treatment"].to_numpy(bool), log_normalised(case.adata)
    start = time.process_time()
    test = mannwhitneyu(log[treated], log[~treated], axis=0, method="asymptotic")
    p_value = np.nan_to_num(test.pvalue, nan=1.0)
    table = pd.DataFrame({"p_value": p_value}, index=case.adata.var_names)
    table["q_value"] = false_discovery_control(p_value)
    return Result(table, more={"cpu": time.process_time() - start})


def causarray(scenario: str, seed: int, stopping: dict) -> Result:
    """GCATE and its AIPW effects, with the true number of confounders and the size factors."""
    case = case_of(scenario, seed)
    obs = case.adata.obs
    data = {
        "counts": case.adata.X.toarray().astype(float),
        "known": np.c_[np.ones(len(obs)), obs[list(case.known.continuous)].to_numpy(float)],
        "treatment": obs["treatment"].to_numpy(float),
        "offset": np.log(obs["size_factor"].to_numpy(float)),
        "k": case.confounder.shape[1],
    }
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.npz"), Path(folder, "target.npz")
        np.savez(source, **data)
        process = causarray_process()
        process.stdin.write(json.dumps([str(source), str(target), stopping]) + "\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) != "done\n":
            if not line:
                raise RuntimeError(f"causarray ended with status {process.wait()}.")
        with np.load(target) as found:
            found = dict(found)
    table = pd.DataFrame(index=case.adata.var_names)
    table["log2_fc"], table["se"] = found["effect"] / np.log(2), found["se"] / np.log(2)
    table["p_value"] = np.nan_to_num(found["p_value"], nan=1.0)
    table["q_value"] = false_discovery_control(table["p_value"])
    return Result(table, found["latent"], {"cpu": float(found["cpu"])})


@lru_cache(maxsize=1)
def causarray_process() -> subprocess.Popen:
    """Start a process with causarray that compiles once for all fits of this worker."""
    command = [make_causarray_environment(), "-c", CAUSARRAY_LOOP]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, text=True, **pipes)


def make_causarray_environment() -> Path:
    """Return the interpreter of an environment with causarray, made when it is not there."""
    return environment("causarray", CAUSARRAY_VERSION)


def pseudobulk(scenario: str, seed: int) -> Result:
    """Fit the counts summed by donor and arm."""
    effects, cpu = fit_samples(case_of(scenario, seed))
    return Result(effects, more={"cpu": cpu})


METHODS: dict[str, Callable[[str, int], Result]] = {
    "auto": partial(effects_of, kind="latent"),
    "binary": partial(effects_of, kind="latent"),
    "latent": partial(effects_of, kind="latent"),
    "deviance": deviance,
    "controls": with_controls,
    "randomised": partial(effects_of, kind="latent", identification="randomised"),
    "unadjusted": partial(effects_of, kind="unadjusted"),
    "unadjusted, donors": partial(effects_of, kind="unadjusted, donors"),
    "pseudobulk": pseudobulk,
    "Wilcoxon": wilcoxon,
    "causarray": partial(causarray, stopping={}),
    "causarray, tight": partial(causarray, stopping=TIGHT),
    "oracle": partial(effects_of, kind="oracle"),
}
