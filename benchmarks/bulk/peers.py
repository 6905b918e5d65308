"""Peers, written for the benchmark: bulk and annotated cells in, fractions of the RNA out.

Each also says which genes its fractions add up to, so that all are turned into fractions of
cells by the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.svm import NuSVR

from benchmarks.bulk.sets import Case

__all__ = ["PEERS", "Fractions", "Shared", "informative_genes", "is_left_out", "shared_of"]

LEFT_OUT = ("RPL", "RPS", "MT-")  # prefixes: ribosomal and mitochondrial genes
MIN_REFERENCE_COUNT = 10
DEPTH = 2e7  # of a sample in TPM, where a method wants counts


class Shared(NamedTuple):
    """Genes that the bulk shares with the reference.

    Attributes
    ----------
    counts
        Cells x genes.
    labels, subjects
        Of the cells.
    types
        Sorted.
    bulk
        Samples x genes, counts or TPM.
    genes
        Names.
    is_counts
        Whether the bulk holds counts.
    """

    counts: NDArray
    labels: NDArray
    subjects: NDArray
    types: NDArray
    bulk: NDArray
    genes: NDArray
    is_counts: bool

    def without(self, prefixes: tuple[str, ...]) -> Shared:
        keep = ~is_left_out(self.genes, prefixes)
        return self._replace(
            counts=self.counts[:, keep], bulk=self.bulk[:, keep], genes=self.genes[keep]
        )

    @property
    def totals(self) -> NDArray:
        """Counts by gene and type."""
        return np.stack([self.counts[self.labels == t].sum(0) for t in self.types], 1)

    @property
    def detected(self) -> NDArray:
        """Share of the cells of a type with the gene, genes x types."""
        return np.stack([(self.counts[self.labels == t] > 0).mean(0) for t in self.types], 1)


class Fractions(NamedTuple):
    """RNA fractions, samples x types, and the genes they add up to."""

    rna: NDArray
    genes: NDArray


def shared_of(case: Case) -> Shared:
    """Align genes; those hardly counted in the reference or absent in the bulk are dropped."""
    genes = case.reference.var_names.intersection(case.bulk.var_names, sort=False)
    counts = case.reference[:, genes].X.toarray().astype(float)
    bulk = np.asarray(case.bulk[:, genes].X, float)
    keep = (counts.sum(0) > MIN_REFERENCE_COUNT) & (bulk.sum(0) > 0)
    labels, subjects = (case.reference.obs[k].to_numpy(str) for k in ("cell_type", "subject"))
    return Shared(
        counts[:, keep],
        labels,
        subjects,
        np.unique(labels),
        bulk[:, keep],
        genes.to_numpy(str)[keep],
        case.kind == "counts",
    )


def is_left_out(genes: NDArray, prefixes: tuple[str, ...] = LEFT_OUT) -> NDArray:
    return np.array([str(gene).startswith(prefixes) for gene in genes])


def per_million(values: NDArray, axis: int) -> NDArray:
    return values / values.sum(axis, keepdims=True) * 1e6


def normalised(weights: NDArray) -> NDArray:
    return weights / weights.sum(-1, keepdims=True)


def highest(score: NDArray, n: int) -> NDArray:
    """Union of the genes with the highest score above one half, by type; score: genes x types."""
    order = np.argsort(-score, axis=0)[:n]
    is_high = np.take_along_axis(score, order, 0) > 0.5
    return np.unique(order[is_high])


def informative_genes(shared: Shared, n: int) -> NDArray:
    """Genes that ours takes: specific beyond sampling; `shared` without ribosomal genes."""
    totals = shared.totals
    base = normalised(totals.T).mean(0) + 1e-8
    profiles = per_million(totals + 200 * (base / base.sum())[:, None], 0)
    error = profiles / (profiles + 10) / np.sqrt(totals + 1) / np.log(2)
    score = np.empty_like(profiles)
    for k in range(len(shared.types)):
        others, errors = np.delete(profiles, k, 1), np.delete(error, k, 1)
        score[:, k] = (
            np.log2(profiles[:, k] + 10)
            - 0.7 * np.log2(others.max(1) + 10)
            - 0.3 * np.log2(others.mean(1) + 10)
        )
        rival = np.take_along_axis(errors, others.argmax(1)[:, None], 1)[:, 0]
        score[score[:, k] <= 2 * np.hypot(error[:, k], 0.7 * rival), k] = -np.inf
    return highest(np.where(shared.detected > 0.1, score, -np.inf), n)


def nnls_same_genes(shared: Shared) -> Fractions:
    """Non-negative least squares on the genes that ours takes."""
    shared = shared.without(LEFT_OUT)
    n = 100 if len(shared.types) <= 4 else 800
    chosen = informative_genes(shared, n)
    profiles = per_million(shared.totals, 0)[chosen]
    bulk = per_million(shared.bulk, 1)[:, chosen]
    return Fractions(normalised(np.stack([nnls(profiles, y)[0] for y in bulk])), shared.genes)


def nu_svr(shared: Shared) -> Fractions:
    """Linear nu support vector regression on marker genes, as CIBERSORT does it."""
    profiles = per_million(shared.totals, 0)
    ratio = np.empty_like(profiles)
    for k in range(profiles.shape[1]):
        highest_other = np.delete(profiles, k, 1).max(1)
        ratio[:, k] = np.log2(profiles[:, k] + 5) - np.log2(highest_other + 5)
    chosen = highest(np.where(shared.detected > 0.15, ratio, -np.inf), 100)
    x = profiles[chosen]
    x = (x - x.mean()) / x.std()
    y = shared.bulk[:, chosen]
    y = (y - y.mean(1, keepdims=True)) / y.std(1, keepdims=True)
    return Fractions(np.stack([_svr_of(x, sample) for sample in y]), shared.genes)


def _svr_of(x: NDArray, y: NDArray) -> NDArray:
    """Weights of the nu with the smallest error."""
    found = []
    for nu in (0.25, 0.5, 0.75):
        fit = NuSVR(kernel="linear", nu=nu, C=1.0, max_iter=200_000).fit(x, y)
        weights = np.maximum(fit.coef_[0], 0)
        weights = normalised(weights if weights.sum() else np.ones_like(weights))
        found.append((np.mean((x @ weights - y) ** 2), weights))
    return min(found, key=lambda pair: pair[0])[1]


def music(shared: Shared) -> Fractions:
    """Least squares weighted by the variance between subjects, as MuSiC does it."""
    moments = np.array([_of_type(shared, t) for t in shared.types])  # types x 2 x genes
    profiles, variances = moments[:, 0].T, moments[:, 1].T
    rna = [_weighted(profiles, variances, normalised(y)) for y in shared.bulk]
    return Fractions(np.stack(rna), shared.genes)


def _of_type(shared: Shared, name: str) -> tuple[NDArray, NDArray]:
    """Mean and variance over the subjects of the relative expression."""
    subjects = shared.subjects[shared.labels == name]
    counts = shared.counts[shared.labels == name]
    share = [normalised(counts[subjects == s].sum(0)) for s in np.unique(subjects)]
    variance = np.var(share, axis=0, ddof=1) if len(share) > 1 else np.zeros(counts.shape[1])
    return np.mean(share, axis=0), variance


def _weighted(profiles: NDArray, variances: NDArray, y: NDArray) -> NDArray:
    """Alternate between the weights and the fractions until these change by less than .001."""
    seen, scale = y > 0, profiles[y > 0].mean()
    x, variance = profiles[seen] / scale, variances[seen] / scale**2
    y = y[seen] / y[seen].mean()
    found = nnls(x, y)[0]
    for _ in range(200):
        residual = y - x @ found
        weight = 1 / (residual**2 + variance @ found**2 + 1e-4)
        root = np.sqrt(np.minimum(weight, np.quantile(weight, 0.999)))
        before, found = normalised(found), nnls(x * root[:, None], y * root)[0]
        if np.abs(normalised(found) - before).sum() < 1e-3:
            break
    return normalised(found)


def bayesprism(shared: Shared) -> Fractions:
    """BayesPrism's fixed point, with the update of the reference by the cohort."""
    shared = shared.without((*LEFT_OUT, "MALAT1", "MTRNR"))
    profiles, bulk = bayesprism_input(shared)
    rna = fixed_point(bulk, profiles)
    rna = fixed_point(bulk, updated(profiles, allocated(bulk, rna, profiles).sum(0)))
    return Fractions(rna, shared.genes)


def bayesprism_input(shared: Shared) -> tuple[NDArray, NDArray]:
    """Profiles, types x genes, that sum to one without zeros, and counts."""
    profiles = normalised(np.maximum(normalised(shared.totals.T), 1e-8))
    counts = shared.bulk if shared.is_counts else normalised(shared.bulk) * DEPTH
    return profiles, counts


def fixed_point(bulk: NDArray, profiles: NDArray) -> NDArray:
    """Maximum of the multinomial likelihood, samples x types."""
    rna = np.full((len(bulk), len(profiles)), 1 / len(profiles))
    for _ in range(400):
        rna = normalised(rna * ((bulk / (rna @ profiles)) @ profiles.T))
    return rna


def allocated(bulk: NDArray, rna: NDArray, profiles: NDArray) -> NDArray:
    """Share the counts out among the types: samples x types x genes."""
    return (bulk / (rna @ profiles))[:, None] * rna[..., None] * profiles


def updated(profiles: NDArray, counts: NDArray) -> NDArray:
    """Profiles with log changes of standard deviation 2, by damped Newton steps."""
    change, n = np.zeros_like(profiles), counts.sum(1, keepdims=True)
    for _ in range(50):
        expected = n * normalised(profiles * np.exp(change))
        gradient, curvature = counts - expected - change / 4, expected + 0.25
        step = np.clip(0.5 * gradient / curvature, -0.5, 0.5)
        change = np.clip(change + step, -6, 6)
    return normalised(profiles * np.exp(change))


def dtangle(shared: Shared) -> Fractions:
    """Mean log expression of marker genes, as dtangle does it for RNA-seq."""
    pure = [
        np.log2(per_million(np.stack([counts.sum(0) for counts in parts]), 1) + 1)
        for parts in map(_three_parts, (shared.counts[shared.labels == t] for t in shared.types))
    ]
    linear = np.stack([(2**x).mean(0) for x in pure])
    ratio = linear / (linear.sum(0) - linear)
    bulk, own = np.log2(per_million(shared.bulk, 1) + 1), ratio.argmax(0)
    amounts = []
    for k, samples in enumerate(pure):
        genes = np.flatnonzero(own == k)
        markers = genes[np.argsort(-ratio[k, genes])[: max(1, len(genes) // 10)]]
        above = bulk[:, markers].mean(1) - samples[:, markers].mean()
        amounts.append(2 ** (above / 0.9433902))  # slope of RNA-seq
    return Fractions(normalised(np.stack(amounts, 1)), shared.genes)


def _three_parts(counts: NDArray) -> list[NDArray]:
    order = np.random.default_rng(0).permutation(len(counts))
    return [counts[part] for part in np.array_split(order, 3) if len(part)]


PEERS: dict[str, Callable[[Shared], Fractions]] = {
    "MuSiC": music,
    "BayesPrism": bayesprism,
    "nu-SVR": nu_svr,
    "dtangle": dtangle,
    "NNLS": nnls_same_genes,
}
