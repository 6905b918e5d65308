"""Cohorts with distances: simulated, and two real ones of which every sample is left out once."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from benchmarks.data import DATA, read
from scovert import pp
from scovert.simulate import distance

__all__ = ["SETS", "Cohort", "cohort", "splits"]

UNIFRAC = {"unweighted UniFrac": "unweighted_unifrac", "weighted UniFrac": "weighted_unifrac"}
DISTANCES = UNIFRAC | {"Bray-Curtis": "bray_curtis"}


class Source(NamedTuple):
    """Where a cohort comes from.

    Attributes
    ----------
    file
        Of the public data; `None` is simulated.
    about
        In words.
    key
        Slot of the distances.
    n_folds
        Parts that are left out in turn; 0 leaves out a fifth, chosen by the seed.
    labels
        Column of obs with groups.
    n_seeds
        Runs with a seed, at most.
    """

    file: str | None
    about: str
    key: str
    n_folds: int
    labels: str
    n_seeds: int = 1


class Cohort(NamedTuple):
    """Samples with distances ``d``, and groups of samples."""

    adata: AnnData
    key: str
    d: NDArray
    labels: NDArray

    @property
    def tree_key(self) -> str | None:
        return "tree" if "tree" in self.adata.varm else None


SIMULATED = {"s1k": ("1,000 samples, 3,000 taxa", 1000, 3000, 1003, 1.5)}
SIMULATED["s200"] = ("200 samples, 1,000 taxa", 200, 1000, 204, 1.5)
SIMULATED["weak"] = ("400 samples, 1,000 taxa, weak signal", 400, 1000, 407, 0.6)
SETS = {
    f"{name}, {words}": Source(
        None, f"simulated, {about}", key, 0, "truth_cluster", 3 if name == "s1k" else 1
    )
    for name, (about, *_) in SIMULATED.items()
    for words, key in DISTANCES.items()
}
SETS |= {
    f"GlobalPatterns, {words}": Source(
        "microbiome_globalpatterns",
        "26 samples, 19,216 taxa, every sample left out",
        key.replace("bray_curtis", "braycurtis"),
        13,
        "sample_type",
    )
    for words, key in DISTANCES.items()
}
SETS["SoilRep, Bray-Curtis"] = Source(
    "microbiome_soilrep", "56 samples, every sample left out", "braycurtis", 8, "treatment"
)


@lru_cache(maxsize=1)
def _samples(name: str) -> AnnData:
    if name in SIMULATED:
        _, n_samples, n_taxa, seed, signal = SIMULATED[name]
        return distance(n_samples, n_taxa, signal=signal, seed=seed)
    adata = read(SETS[next(key for key in SETS if key.startswith(name))].file)
    if name == "GlobalPatterns":
        with gzip.open(DATA / "microbiome_globalpatterns_tree.nwk.gz", "rt") as file:
            pp.tree(adata, file.read())
    return adata


def cohort(scenario: str) -> Cohort:
    """Return a cohort by the name of its scenario."""
    source, adata = SETS[scenario], _samples(scenario.split(",")[0])
    labels = adata.obs[source.labels].astype(str).to_numpy()
    return Cohort(adata, source.key, np.asarray(adata.obsp[source.key], float), labels)


def splits(scenario: str, seed: int) -> Iterator[tuple[NDArray, NDArray]]:
    """Go through rows to fit to, and rows that are new."""
    n, n_folds = len(cohort(scenario).labels), SETS[scenario].n_folds
    rng = np.random.default_rng(seed)
    if n_folds == 0:
        order = rng.permutation(n)
        yield np.sort(order[n // 5 :]), np.sort(order[: n // 5])
        return
    fold = rng.permutation(n) % n_folds
    for k in range(n_folds):
        yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)
