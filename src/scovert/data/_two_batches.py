"""Two batches made from real counts, with a known truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from scovert.core._checks import check_categorical, check_layer
from scovert.core._count_checks import check_counts
from scovert.core._counts import as_csr, get_counts, thin

__all__ = ["two_batches"]


def two_batches(
    adata: AnnData,
    *,
    labels_key: str = "cell_type",
    names: tuple[str, str] = ("a", "b"),
    thinning: float = 0.7,
    capture_sd: float = 0.3,
    share: float = 0.5,
    missing: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> AnnData:
    r"""Turn real counts into two batches whose difference is known exactly.

    The cells of each type are split at random, so the batches differ in nothing but chance.
    Then a gene-wise capture effect is added. The second batch captures gene g with the ratio

    .. math:: \log r_g = \log(\mathrm{thinning}) + \mathrm{capture\_sd} \cdot \epsilon_g,
        \qquad \epsilon_g \sim N(0, 1),

    relative to the first. Binomial thinning can only take counts away. So the batch with the
    better capture of a gene keeps all its counts, and the other one keeps each count with the
    probability that gives the ratio:

    .. math:: p_{g,\mathrm{first}} = \min(1, 1 / r_g), \qquad
        p_{g,\mathrm{second}} = \min(1, r_g).

    Both lie in (0, 1] and :math:`p_{g,\mathrm{second}} / p_{g,\mathrm{first}} = r_g` for every
    gene: nothing is clipped, the log ratios are exactly normal, and as few counts as possible
    are lost. Given the count x of a cell before thinning, the mean of its new count is
    :math:`x p_{g}`. Without an effect (``thinning=1, capture_sd=0``) the counts stay as they are.

    Parameters
    ----------
    adata
        Cells with raw counts in ``X``: sparse or dense, in memory or backed.
    labels_key
        Column of ``adata.obs`` with the cell types; at least two cells of each.
    names
        Names of the first and the second batch.
    thinning
        Median over the genes of the capture ratio, in (0, 1].
    capture_sd
        Standard deviation of the log capture ratio over the genes, at least 0.
    share
        Share of the cells of each type that go to the second batch, in (0, 1); rounded, with at
        least one cell of each type in each batch.
    missing
        Batch name to the types that it lacks. Their cells are taken out of that batch. All else
        stays the same: the result is that of ``missing=None`` without these rows.
    seed
        Seed of the split, the capture ratios and the thinning.

    Returns
    -------
    New AnnData, cells and genes in the order of `adata`, with thinned counts in ``X`` (CSR,
    float32), the columns of ``adata.obs`` and ``obs["batch"]``, and ``adata.var``. Other slots
    are left out, since they belong to the old counts. The truth is in ``uns["truth"]``:
    ``capture`` (DataFrame by gene: `log_ratio`, and the capture probabilities `first` and
    `second`), ``missing`` (DataFrame: `batch`, `label`), ``thinning``, ``capture_sd``, ``share``
    and ``seed``. The counts before thinning are ``adata[result.obs_names]``.

    Raises
    ------
    KeyError
        If `labels_key` is not in ``adata.obs``.
    TypeError
        If an entry of `missing` is a string instead of a list.
    ValueError
        If ``X`` does not hold raw counts, a parameter is out of range, ``obs["batch"]`` exists,
        a type has one cell only, a cell has no type, or `missing` cannot be met.

    Examples
    --------
    >>> from scovert.data import pbmc68k, two_batches
    >>> adata = two_batches(pbmc68k(), missing={"a": ["CD56+ NK"]})
    >>> adata.obs["batch"].value_counts().to_dict()
    {'b': 351, 'a': 334}
    """
    _check_options(names, thinning=thinning, capture_sd=capture_sd, share=share)
    adata = adata.to_memory() if adata.isbacked else adata
    if "batch" in adata.obs:
        raise ValueError(
            '`adata.obs["batch"]` exists, but the result writes this column. Rename it: '
            '`adata.obs = adata.obs.rename(columns={"batch": "sample"})`.'
        )
    where = check_layer(adata, None)
    check_counts(get_counts(adata, None), where, adata, may_be_zero=True)
    labels = _labels(adata, labels_key)
    absent = _absent(missing or {}, names, labels)
    rng = np.random.default_rng(seed)
    split = _split(labels, share, rng)
    capture = _capture(adata.var_names, thinning, capture_sd, rng)
    counts = as_csr(get_counts(adata, None))  # sorted: the seed alone decides
    counts = thin(counts, capture[["first", "second"]].to_numpy(), split, rng)
    obs = adata.obs.assign(batch=pd.Categorical.from_codes(split, categories=list(names)))
    pairs = pd.MultiIndex.from_arrays([obs["batch"].astype(str), labels])
    keep = ~pairs.isin(pd.MultiIndex.from_frame(absent))
    parameters = {"thinning": thinning, "capture_sd": capture_sd, "share": share, "seed": seed}
    truth = {"capture": capture, "missing": absent, **parameters}
    return AnnData(counts[keep], obs=obs[keep], var=adata.var.copy(), uns={"truth": truth})


def _check_options(
    names: Sequence[str], *, thinning: float, capture_sd: float, share: float
) -> None:
    if len(set(names)) != 2 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"`names={names!r}` are not two names. Pass two different strings.")
    checks = [
        ("thinning", thinning, 0 < thinning <= 1, "in (0, 1], with 1 for batches of equal depth"),
        ("capture_sd", capture_sd, 0 <= capture_sd < np.inf, "of at least 0"),
        ("share", share, 0 < share < 1, "in (0, 1), the share of the second batch"),
    ]
    for name, value, is_valid, accepted in checks:
        if not is_valid:
            raise ValueError(f"`{name}={value}` is out of range. Pass a number {accepted}.")


def _labels(adata: AnnData, labels_key: str) -> np.ndarray:
    """Cell types as strings, shape ``(n_cells,)``."""
    check_categorical(adata, labels_key, "labels_key")
    labels = adata.obs[labels_key].astype(str)
    sizes = labels.value_counts()
    if (sizes < 2).any():
        raise ValueError(
            f"The types {sorted(sizes.index[sizes < 2])} of `labels_key={labels_key!r}` have one "
            "cell each. At least two are needed for two batches. Remove these types."
        )
    return labels.to_numpy()


def _absent(
    missing: Mapping[str, Sequence[str]], names: Sequence[str], labels: np.ndarray
) -> pd.DataFrame:
    """One row for each batch and type that it lacks, both as strings."""
    types = sorted(set(labels))
    unknown = sorted(set(missing) - set(names))
    if unknown:
        raise ValueError(f"`missing` names the batches {unknown}. Use the names {list(names)}.")
    for name, absent in missing.items():
        _check_types(name, absent, types)
    both = sorted(set.intersection(*(set(map(str, missing.get(name, ()))) for name in names)))
    if both:
        raise ValueError(
            f"`missing` takes {both} out of both batches. Take a type out of one, or of `adata`."
        )
    pairs = [(name, str(label)) for name in names for label in missing.get(name, ())]
    return pd.DataFrame(pairs, columns=["batch", "label"], dtype=object).drop_duplicates()


def _check_types(name: str, absent: Sequence[str], types: list[str]) -> None:
    if isinstance(absent, str):
        raise TypeError(
            f"`missing[{name!r}]` is the string {absent!r}. A list of types is accepted: "
            f"pass `[{absent!r}]`."
        )
    unknown = sorted(set(map(str, absent)) - set(types))
    if unknown:
        raise ValueError(
            f"`missing[{name!r}]` names {unknown}, which no cell has. Choose from {types}."
        )
    if len(set(map(str, absent))) == len(types):
        raise ValueError(
            f"`missing[{name!r}]` names all {len(types)} types, so no cell is left. Leave one out."
        )


def _split(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """0 for the first and 1 for the second batch, shape ``(n_cells,)``, random within types."""
    split = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        cells = rng.permutation(np.flatnonzero(labels == label))
        n_second = np.clip(round(share * len(cells)), 1, len(cells) - 1)
        split[cells[:n_second]] = 1
    return split


def _capture(
    genes: pd.Index, thinning: float, capture_sd: float, rng: np.random.Generator
) -> pd.DataFrame:
    log_ratio = np.log(thinning) + capture_sd * rng.standard_normal(len(genes))
    first, second = np.exp(np.minimum(0, -log_ratio)), np.exp(np.minimum(0, log_ratio))
    return pd.DataFrame({"log_ratio": log_ratio, "first": first, "second": second}, index=genes)
