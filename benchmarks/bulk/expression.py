"""Response to interferon by cell type, estimated from bulks, against the cells that were mixed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.bulk.peers import (
    LEFT_OUT,
    allocated,
    bayesprism_input,
    fixed_point,
    is_left_out,
    normalised,
    shared_of,
    updated,
)
from benchmarks.bulk.scores import correlation
from benchmarks.bulk.sets import Case

__all__ = ["ARMS", "bayesprism_response", "response_scores"]

ARMS = ("ctrl", "stim")
MIN_EXPRESSION, OFFSET, FLOOR = 50.0, 10.0, 1e-3  # counts per million


def true_profiles(case: Case) -> dict[str, pd.DataFrame]:
    """Make counts per million by arm, without ribosomal and mitochondrial genes."""
    genes = case.bulk.var_names
    found = {}
    for arm in ARMS:
        counts = pd.DataFrame({t: case.profiles[arm, t] for t in case.truth}, index=genes)
        found[arm] = millionths(counts[~is_left_out(genes, LEFT_OUT)])
    return found


def millionths(counts: pd.DataFrame) -> pd.DataFrame:
    return counts / counts.sum() * 1e6


def log_ratio(profiles: dict[str, pd.DataFrame], offset: float) -> pd.DataFrame:
    """Log2 fold change, genes x types."""
    ctrl, stim = (profiles[arm] + offset for arm in ARMS)
    return np.log2(stim / ctrl)


def response_scores(found: dict[str, pd.DataFrame], case: Case) -> dict:
    """Correlations with the true response of expressed genes, by type.

    Parameters
    ----------
    found
        Estimated counts per million, genes x types, by arm.
    case
        What was mixed.

    Returns
    -------
    ``r_response``: mean over the types; ``r_specific``: the same after the mean over the types is
    taken off both, for genes that all types express; and both by type. Only the counted cells get
    an offset: with one, estimates of the same ratio for all types would differ by level.
    """
    true = true_profiles(case)
    genes = true["ctrl"].index.intersection(found["ctrl"].index)
    true = {arm: table.loc[genes] for arm, table in true.items()}
    found = {arm: table.loc[genes, list(case.truth)] for arm, table in found.items()}
    own, known = log_ratio(found, FLOOR), log_ratio(true, OFFSET)
    level = np.maximum(true["ctrl"], true["stim"])
    is_expressed = level >= MIN_EXPRESSION
    r = {t: correlation(own.loc[is_expressed[t], t], known.loc[is_expressed[t], t]) for t in own}
    rows = is_expressed.all(axis=1)
    own, known = (x[rows].sub(x[rows].mean(axis=1), axis=0) for x in (own, known))
    specific = {t: correlation(own[t], known[t]) for t in own}
    return {
        "r_response": float(np.mean(list(r.values()))),
        "r_specific": float(np.mean(list(specific.values()))),
        "r_response_of": r,
        "r_specific_of": specific,
    }


def bayesprism_response(case: Case) -> dict[str, pd.DataFrame]:
    """Share out the counts of each bulk as BayesPrism does; sums over the bulks of an arm."""
    shared = shared_of(case).without((*LEFT_OUT, "MALAT1", "MTRNR"))
    profiles, bulk = bayesprism_input(shared)
    rna = fixed_point(bulk, profiles)
    profiles = updated(profiles, allocated(bulk, rna, profiles).sum(0))
    counts = allocated(bulk, fixed_point(bulk, profiles), profiles)
    found = {}
    for arm in ARMS:
        rows = (case.bulk.obs["condition"] == arm).to_numpy()
        table = normalised(counts[rows].sum(0)).T * 1e6
        found[arm] = pd.DataFrame(table, shared.genes, shared.types)
    return found
