"""What is measured of a fit: effects against the truth, or against the fit that knows the type."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from benchmarks.confounder.cases import FAKE, Case
from benchmarks.confounder.methods import METHODS
from benchmarks.confounder.scenarios import SCENARIOS, case_of

__all__ = ["score"]

LEVEL, Z_95 = 0.05, norm.isf(0.025)
CLEAR = 3.0  # standard errors from which the sign of a reference effect counts
MIN_COMPARED = 50  # counts, three in each of 16 samples: below, both effects are mostly noise
STRONG_ARMS = ("IFNGR1", "STAT1", "JAK2")


def score(scenario: str, method: str, seed: int) -> dict:
    """Fit one method to one data set and score it."""
    case, result = case_of(scenario, seed), METHODS[method](scenario, seed)
    size = {"n_cells": case.adata.n_obs, "n_genes": case.adata.n_vars}
    if SCENARIOS[scenario].part == "arms":
        return size | result.more | of_arms(result.effects, scenario)
    effects, reference = result.effects, None
    if not case.has_truth:
        known = "pseudobulk" if SCENARIOS[scenario].part == "designs" else "oracle"
        reference = METHODS[known](scenario, seed).effects
    if result.is_scored is not None:
        rows = result.is_scored.to_numpy()
        effects, reference = effects[rows], reference[rows]
    if case.has_truth:
        found = against_truth(effects, case)
    else:
        counts = case.adata[:, effects.index.to_list()].X.sum(0)
        found = against(effects, reference, np.ravel(counts) >= MIN_COMPARED)
    found["is_refused"] = bool(effects["p_value"].isna().all())
    return size | result.more | found | recovery(result.latent, case)


def against_truth(effects: pd.DataFrame, case: Case) -> dict[str, float]:
    """Errors, coverage and tests against known effects; genes without p-value are not called."""
    truth = case.adata.var["truth_log2_fc"].to_numpy()
    is_de, called = truth != 0, (effects["q_value"] < LEVEL).to_numpy()
    p_value = effects["p_value"].to_numpy()
    found = {
        "called": int(called.sum()),
        "called_share": called.mean(),
        "fdp": (called & ~is_de).sum() / max(1, called.sum()),
        "fpr": np.mean(p_value[~is_de & ~np.isnan(p_value)] < LEVEL) if ~is_de.all() else None,
        "power": called[is_de].mean() if is_de.any() else None,
    }
    if "log2_fc" in effects:
        error = effects["log2_fc"].to_numpy() - truth
        ok = ~np.isnan(error)
        found["rmse"] = np.sqrt(np.mean(error[ok] ** 2))
        found["coverage"] = np.mean(np.abs(error[ok]) < Z_95 * effects["se"].to_numpy()[ok])
    return {k: None if v is None or np.isnan(v) else float(v) for k, v in found.items()}


def against(
    effects: pd.DataFrame, reference: pd.DataFrame, is_compared: NDArray
) -> dict[str, float]:
    """Agreement with a reference; effects of genes with counts enough are compared."""
    called = (effects["q_value"] < LEVEL).to_numpy()
    is_de = (reference["q_value"] < LEVEL).to_numpy()
    found = {
        "called": int(called.sum()),
        "precision": (called & is_de).sum() / max(1, called.sum()),
        "recall": called[is_de].mean(),
    }
    if "log2_fc" in effects:
        ok = (effects["log2_fc"].notna() & reference["q_value"].notna()).to_numpy() & is_compared
        own, other = (t["log2_fc"].to_numpy()[ok] for t in (effects, reference))
        clear = np.abs(other) > CLEAR * reference["se"].to_numpy()[ok]
        found["rank_r"] = spearmanr(own, other)[0]
        found["sign"] = np.mean(np.sign(own) == np.sign(other), where=clear)
        found["rmse"] = np.sqrt(np.mean((own - other) ** 2))
        found["flips"] = np.sum((np.sign(own) != np.sign(other))[(called & is_de)[ok]])
    if "log2_fc_naive" in effects:
        found["rank_r_unadjusted"] = spearmanr(effects["log2_fc_naive"][ok], other)[0]
    found["n_reference"] = is_de.sum()
    return {k: float(v) for k, v in found.items()}


def of_arms(effects: pd.DataFrame, scenario: str) -> dict:
    """Genes called in the fake arm, or of every arm and by the unadjusted fit."""
    called, unadjusted = effects["q_value"] < LEVEL, effects["q_value_naive"] < LEVEL
    if scenario == "knock-outs":
        of_arm = pd.DataFrame(
            {"called": called, "unadjusted": unadjusted, "kept": called & unadjusted}
        )
        table = of_arm.groupby("arm").sum()
        table["choice"] = effects.groupby("arm")["identification"].first()
        return {"arms": table.T.to_dict()}
    p_value = effects.loc[FAKE, "p_value"].dropna()
    return {
        "called": int(called[FAKE].sum()),
        "called_share": float(called[FAKE].mean()),
        "called_unadjusted": int(unadjusted[FAKE].sum()),
        "fpr": float((p_value < LEVEL).mean()),
        "is_refused": p_value.empty,
        "fake_choice": effects.loc[FAKE, "identification"].iloc[0],
    }


def recovery(latent: NDArray | None, case: Case) -> dict[str, float]:
    """How well true confounders are found, and what of the treatment leaks into them."""
    if latent is None or case.confounder is None:
        return {}
    n, truth = len(latent), case.confounder
    covariates = case.adata.obs[list(case.known.continuous)].to_numpy(float)
    found = {"leakage": leakage(latent, np.c_[np.ones(n), covariates, truth], case)}
    if latent.shape[1] == 0 or truth.std(axis=0).min() == 0:
        return found
    rest = residual(truth, np.c_[np.ones(n), latent])
    explained = np.sqrt(np.maximum(0, 1 - rest.var(0) / truth.var(0)))
    found |= {"R": explained.mean(), "R_worst": explained.min()}
    if truth.shape[1] == 1 and len(np.unique(truth)) == 2:
        area = roc_auc_score(truth[:, 0], latent[:, 0])
        found["abs_r"] = abs(np.corrcoef(latent[:, 0], truth[:, 0])[0, 1])
        found["auroc"] = max(area, 1 - area)
    return {k: float(v) for k, v in found.items()}


def leakage(latent: NDArray, given: NDArray, case: Case) -> float:
    """Largest correlation of a latent column with the treatment, given what is known and true."""
    if latent.shape[1] == 0:
        return 0.0
    z = residual(latent.astype(float), given)
    d = residual(case.adata.obs["treatment"].to_numpy(float), given)
    scale = np.maximum(np.linalg.norm(z, axis=0) * np.linalg.norm(d), 1e-12)
    return float(np.max(np.abs(d @ z) / scale))


def residual(values: NDArray, given: NDArray) -> NDArray:
    return values - given @ np.linalg.lstsq(given, values, rcond=None)[0]
