"""Checks of the values of bulk samples."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from scovert.core._checks import caller_level, some_of
from scovert.core._count_checks import counts_elsewhere
from scovert.core.genes import are_known

__all__ = [
    "check_bulk_values",
    "check_kind",
    "check_kind_name",
    "check_linear",
    "check_orientation",
    "check_shared_counts",
    "warn_about_depth",
    "warn_about_kind",
    "warn_about_samples",
]

LARGEST_LOG = 30.0
"""Expression on a linear scale exceeds it; logarithms of it do not."""
N_OUTLIERS = 4
"""Genes of a sample that may exceed what the others say of its scale."""
NARROW, NOT_EMPTY = 0.7, 1.9
"""Coefficient of variation of expressed genes, above that of rounded logarithms; counts are more
variable once their mean exceeds the second. Simulated for 60 to 20,000 genes."""
CLOSE = 1e-3
"""Distance of squares of roots, stored as float32, from whole numbers and from totals."""
MANY_EXPRESSED = 200
"""So many genes are not counted equally often."""
MILLION, NEAR = 1e6, 0.01
"""What TPM sum to, up to this share of it."""
RELATIVE = ("tpm", "fpkm", "rpkm", "cpm")
"""Expression in shares, whatever the depth; lengths of genes do not matter within a gene."""
SMALLEST_PART, FRACTIONAL = 0.4, 0.9
"""TPM of some of the genes sum to this share of a million, and that many are not whole."""
FEW_COUNTS, FEW_EXPRESSED = 3000, 50
"""Of the shared genes: below the first the error of a sample of simulated blood exceeds .07
(`benchmarks/limits.py`), with fewer genes than the second types are not told apart."""


def check_orientation(bulk: AnnData, genes: pd.Index) -> None:
    """Refuse a bulk of genes x samples."""
    rows = bulk.obs_names[are_known(bulk.obs_names, genes)]
    n_columns = are_known(bulk.var_names, genes).sum()
    if len(rows) > 2 * n_columns:
        raise ValueError(
            f"`bulk` looks transposed: {len(rows)} of `bulk.obs_names` (such as "
            f"{some_of(rows)}) are genes of the reference, and {n_columns} of "
            f"`bulk.var_names` (such as {some_of(bulk.var_names)}). Samples x genes are accepted: "
            "pass `bulk.T`."
        )


def check_bulk_values(values: NDArray, where: str, bulk: AnnData) -> None:
    """Refuse a bulk that is no expression, naming sample and gene."""
    samples, genes = bulk.obs_names, bulk.var_names
    twice = samples[samples.duplicated()].unique()
    if len(twice):
        raise ValueError(
            f"`bulk.obs_names` holds {some_of(twice)} more than once. Results are named by "
            "sample: rename them, for example with `bulk.obs_names_make_unique()`."
        )
    if not values.size:
        raise ValueError(
            f"{where} has {len(samples)} samples and {len(genes)} genes. Pass one sample or more."
        )
    bad = np.argwhere(~np.isfinite(values) | (values < 0))
    if len(bad):
        sample, gene = bad[0]
        remedy = "Expression is a finite number: leave the sample or the gene out."
        if values[sample, gene] < 0:
            remedy = (
                "It looks like a logarithm, or scaled, and mixing is linear: pass counts or TPM."
                f"{counts_elsewhere(where, bulk, 'bulk')}"
            )
        raise ValueError(
            f"{where} holds {values[sample, gene]:.6g} (sample {samples[sample]!r}, gene "
            f"{genes[gene]!r}; {len(bad)} such values). {remedy}"
        )
    empty = np.flatnonzero(values.sum(1) == 0)
    if len(empty):
        raise ValueError(
            f"Sample {samples[empty[0]]!r} of {where} has no counts at all ({len(empty)} such "
            "samples). Leave it out."
        )


def check_linear(values: NDArray, shared: NDArray, where: str, bulk: AnnData) -> None:
    """Refuse logarithms, roots and presence, in any sample, by the genes that are shared.

    Parameters
    ----------
    values, shared
        Values of all genes, and of those of the reference; lengths or ages may be among others.
    where, bulk
        Name of the matrix, and what it belongs to.
    """
    names = bulk.obs_names
    for bad, what, remedy in (
        (_are_flat(shared), "one value in all genes that are not zero", "pass counts or TPM"),
        (_are_roots(values, shared), "square roots", "pass the squares"),
    ):
        if bad.any():
            raise ValueError(
                f"{where} has {what} in sample {names[bad.argmax()]!r} ({bad.sum()} of "
                f"{len(values)} samples). Mixing is linear in counts: {remedy}."
                f"{counts_elsewhere(where, bulk, 'bulk')}"
            )
    bad = _are_logs(values, shared) & ~_are_shares(values.sum(1))
    if bad.any():
        row = shared[bad.argmax()]
        few = "" if row.max() < LARGEST_LOG else ", but for a few genes,"
        raise ValueError(
            f"{where} looks log-transformed: its largest value is "
            f"{row[row < LARGEST_LOG].max(initial=0):.3g}{few} in sample {names[bad.argmax()]!r} "
            f"({bad.sum()} of {len(values)} samples like that). Mixing is linear in counts, not "
            "in logarithms. Pass counts or TPM, for example `np.expm1(...)` or `2 ** ... - 1` of "
            "it, whichever undoes it; if the sample is nearly empty, leave it out."
            f"{counts_elsewhere(where, bulk, 'bulk')}"
        )


def _are_logs(values: NDArray, shared: NDArray) -> NDArray:
    """Tell samples of logarithms, rounded ones too, from counts, also a few thousand of them.

    By the shared genes only if they are many: a few may be expressed little in all samples.
    """
    looked_at = (values, shared) if shared.shape[1] >= MANY_EXPRESSED else (values,)
    is_low = np.any([(x >= LARGEST_LOG).sum(1) <= N_OUTLIERS for x in looked_at], 0)
    is_whole = (shared == np.rint(shared)).all(1)
    return np.where(is_whole, _are_rounded_logs(shared), is_low)


def _are_rounded_logs(values: NDArray) -> NDArray:
    """Tell logarithms by how little expressed genes vary, unless there are hardly any counts."""
    totals, n_genes = values.sum(1), (values > 0).sum(1)
    mean = totals / np.maximum(n_genes, 1)
    variance = (values**2).sum(1) / np.maximum(n_genes, 1) - mean**2
    is_filled = (n_genes >= FEW_EXPRESSED) & ((mean > NOT_EMPTY) | (totals >= FEW_COUNTS))
    return (values.max(1) < LARGEST_LOG) & is_filled & (variance < (NARROW * mean) ** 2)


def _are_flat(values: NDArray) -> NDArray:
    """Tell presence, or one value for all genes, from expression."""
    lowest = np.where(values > 0, values, np.inf).min(1)
    return (values.max(1) == lowest) & ((values > 0).sum(1) >= MANY_EXPRESSED)


def _are_roots(values: NDArray, shared: NDArray) -> NDArray:
    """Tell samples whose squares are counts, or all of which are counts per million or so."""
    is_middle = (shared > 1) & (shared < np.sqrt(1000))
    distance = np.abs(shared**2 - np.rint(shared**2))
    has_whole = ((distance < CLOSE) | ~is_middle).all(1) & (is_middle.sum(1) > N_OUTLIERS)
    totals = (values**2).sum(1)
    has_total = any((np.abs(totals / n - 1) < CLOSE).all() for n in (1e4, MILLION))
    return (has_whole | has_total) & (shared != np.rint(shared)).any(1)


def _are_shares(totals: NDArray) -> NDArray:
    """Return which samples hold shares of all genes or of some; logarithms sum to more."""
    return (totals < 1 + NEAR) | np.any([np.abs(totals / n - 1) < NEAR for n in (100, MILLION)], 0)


def _sum_of_shares(values: NDArray) -> str | None:
    """Return in words what samples sum to, if that says that they hold shares."""
    totals = values.sum(1)
    if (totals < 1 + NEAR).all():  # of all genes or of some; logarithms sum to more
        return "to one at most"
    whole = {100: "to a hundred", MILLION: "to a million"}
    return next((s for n, s in whole.items() if (np.abs(totals / n - 1) < NEAR).all()), None)


def check_shared_counts(totals: NDArray, samples: pd.Index) -> None:
    """Refuse samples without counts of the genes that they share with the reference."""
    empty = np.flatnonzero(totals == 0)
    if len(empty):
        raise ValueError(
            f"Sample {samples[empty[0]]!r} has no counts of the genes that bulk and reference "
            f"share ({len(empty)} such samples). Leave it out, or look at its names of genes."
        )


def warn_about_depth(values: NDArray, samples: pd.Index, kind: str) -> None:
    """Warn about samples with few counts, or counts of few genes, that are shared."""
    totals, n_genes = values.sum(1), (values > 0).sum(1)
    is_low = n_genes < FEW_EXPRESSED
    if kind == "counts":
        is_low |= totals < FEW_COUNTS
    low = np.flatnonzero(is_low)
    if len(low):
        unit = "counts" if kind == "counts" else "of expression"
        facts = [f"{samples[i]} ({totals[i]:.6g} {unit} in {n_genes[i]} genes)" for i in low]
        warnings.warn(
            f"{len(low)} of {len(samples)} samples are nearly empty: {some_of(facts)}, of the "
            f"genes that bulk and reference share. Below {FEW_COUNTS} counts or {FEW_EXPRESSED} "
            "genes fractions say little, intervals or not: leave these samples out.",
            UserWarning,
            stacklevel=caller_level(),
        )


def check_kind_name(kind: object) -> None:
    """Refuse a kind of expression that is not known, or goes by another name here."""
    kinds, plain = ["auto", "counts", "tpm"], str(kind).lower()
    if kind in kinds:
        return
    hint = f" Did you mean {plain!r}?" if plain in kinds else ""
    if plain in RELATIVE:
        hint = (
            " FPKM, RPKM and CPM are shares of unknown depth, as TPM are: pass `kind='tpm'` for "
            "any of them."
        )
    raise ValueError(f"`kind={kind!r}` is not known. Pass one of {kinds}.{hint}")


def check_kind(values: NDArray, shared: NDArray, kind: str, where: str) -> str:
    """Return ``"counts"`` or ``"tpm"``, whichever it is; refuse one given for the other."""
    is_whole = bool((shared == np.rint(shared)).all())
    totals = values.sum(1)
    shares = _sum_of_shares(values)
    if kind == "counts" and not is_whole and (shares or _is_part_of_tpm(values)):
        sums = shares or f"to {totals.min():.3g} up to {totals.max():.3g}"
        raise ValueError(
            f"{where} does not look like counts: samples sum {sums}, as TPM of all or most genes "
            "or other shares do, and values are not whole. Pass `kind='tpm'`, or the counts."
        )
    if kind == "tpm" and is_whole and not shares:
        raise ValueError(
            f"{where} does not look like TPM: all values are whole, and samples sum to "
            f"{totals.min():.3g} and more. Pass `kind='counts'`, or the TPM."
        )
    if kind != "auto":
        return kind
    return "counts" if is_whole else "tpm"


def _is_part_of_tpm(values: NDArray) -> bool:
    """Tell TPM of a part of the genes from expected counts, many of which are whole."""
    totals, expressed = values.sum(1) / MILLION, values[values > 0]
    is_near = totals.min() > SMALLEST_PART and totals.max() < 1.01
    return bool(is_near and np.mean(expressed != np.rint(expressed)) > FRACTIONAL)


def warn_about_kind(found: str, where: str) -> None:
    """Say what was taken a bulk for."""
    reason = {
        "counts": "all values are whole numbers",
        "tpm": "not all values are whole numbers, so they are taken as shares of unknown depth",
    }[found]
    other = "tpm" if found == "counts" else "counts"
    warnings.warn(
        f"{where} is taken as `kind={found!r}`: {reason}. Pass `kind` to say so yourself, or "
        f"`kind={other!r}` if it is not so.",
        UserWarning,
        stacklevel=caller_level(),
    )


def warn_about_samples(n_samples: int) -> None:
    """Warn about a single sample."""
    if n_samples == 1:
        warnings.warn(
            "The bulk has one sample. What differs between its protocol and that of the reference "
            "is told from composition by several samples that share it, so its fractions are less "
            "certain. Deconvolve samples of one protocol together, if there are more.",
            UserWarning,
            stacklevel=caller_level(),
        )
