"""Bulk samples mixed of real cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from scovert.core._checks import check_categorical, check_genes, check_layer, check_number, some_of
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._words import a_kind_of, counted
from scovert.simulate._confounder_effects import random_directions

__all__ = ["Platform", "bulk"]

_RESPONDING = 0.1  # share of the genes that respond, of each type that does: a clear minority
_CONDITIONS = ("ctrl", "stim")


@dataclass(frozen=True)
class Platform:
    """How bulk samples differ from the sum of their cells.

    All standard deviations are on the natural log scale, over genes; 0 for none.

    Parameters
    ----------
    depth
        Mean number of counts of a sample, at least 1.
    shift_sd
        Of the factor that a gene has in all samples; between two platforms about 0.7.
    jitter_sd
        Of the factor that a gene has in one type, in all samples; between two studies about 0.3.
    noise_sd
        Of the factor that a gene has in one sample.
    rna_content
        Type to a factor of the RNA of its cells, for bulk samples in which cells differ in their
        RNA by more or less than in the reference. Types not named keep theirs.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> from scovert.simulate import Platform
    >>> Platform(shift_sd=0.8).depth
    10000000.0
    """

    depth: float = 1e7
    shift_sd: float = 0.0
    jitter_sd: float = 0.0
    noise_sd: float = 0.0
    rna_content: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_number("depth", self.depth, 1, 1e9)
        for name in ("shift_sd", "jitter_sd", "noise_sd"):
            check_number(name, getattr(self, name), 0, 5)
        _check_factors("rna_content", self.rna_content or {}, above=0)


def bulk(
    reference: AnnData,
    labels_key: str,
    *,
    proportions: Mapping[str, float] | pd.DataFrame | None = None,
    n_samples: int = 20,
    n_cells: int = 500,
    platform: Platform | None = None,
    fold_changes: Mapping[str, float] | None = None,
    seed: int = 0,
) -> AnnData:
    r"""Mix real cells to bulk samples of known composition.

    Sample b holds :math:`N_{bk}` cells of type k, drawn at random with replacement from the cells
    :math:`C_{bk}` of the reference, and

    .. math::
        p_b &\sim \mathrm{Dirichlet}(\alpha), \qquad
            N_b \sim \mathrm{Multinomial}(n, p_b), \\
        \mu_{bg} &\propto e^{s_g + \epsilon_{bg}} \sum_k r_k\, e^{j_{gk} + c_b d_{gk}}
            \sum_{i \in C_{bk}} x_{ig}, \qquad \sum_g \mu_{bg} = \mathrm{depth}, \\
        y_{bg} &\sim \mathrm{Poisson}(\mu_{bg}),

    with raw counts :math:`x`. So mixing is linear in molecules, and a type with more RNA per cell
    has a larger share of them than of the cells. The platform adds the shift :math:`s`, the
    jitter :math:`j`, the noise :math:`\epsilon`, all normal, and the factors :math:`r` of the RNA
    content. With `fold_changes` every second sample has a condition, :math:`c_b = 1`, to which
    some genes of the named types respond by :math:`d`.

    Parameters
    ----------
    reference
        Cells with raw counts in ``X``: sparse or dense, in memory or backed. It stays as it is.
        To simulate a type that a reference lacks, mix with all cells and leave the type out of
        the reference afterwards; cells held out from a reference make the task an honest one.
    labels_key
        Column of ``reference.obs`` with the cell types.
    proportions
        Type to parameter :math:`\alpha_k` of the Dirichlet distribution: the mean of a type is
        its share of the sum, and the larger the sum, the more alike are the samples. Or a table
        of :math:`p`, samples x types, rows scaled to sum to one. Types not named are absent.
        `None` for 1 for all types.
    n_samples
        Samples; with a table of proportions there are as many as it has rows.
    n_cells
        Cells of a sample.
    platform
        How bulk samples differ from the sum of their cells; `None` for the chance of sequencing
        alone.
    fold_changes
        Type to the size of its response, above 1. A tenth of the genes, drawn at random for
        each of these types, is multiplied or divided by it in the samples with the condition.
    seed
        Seed of all random numbers. With the same seed the samples hold the same cells, whatever
        the platform and the response.

    Returns
    -------
    AnnData, samples x genes of the reference, with counts in ``X`` (float32) and the truth:

    - ``obsm["truth_proportions"]``: shares of the cells that were drawn, :math:`N_{bk} / n`, and
      ``obsm["truth_mrna_fractions"]``: shares of their molecules, with :math:`r` and the response
      and before all else of the platform; DataFrames with all types of the reference as columns;
    - ``var["truth_shift"]`` (:math:`s`) and ``varm["truth_jitter"]`` (:math:`j`, a DataFrame by
      type), natural log scale;
    - with `fold_changes`, ``obs["condition"]`` (``"ctrl"`` and ``"stim"`` in turn) and
      ``varm["truth_log2_fc"]`` (:math:`d / \log 2`, a DataFrame by type);
    - ``uns["truth"]``: the options.

    Raises
    ------
    KeyError
        If `labels_key` is not a column.
    TypeError
        If `platform` is no :class:`Platform`.
    ValueError
        If ``X`` does not hold raw counts, a cell has none or no type, a type is not known, or a
        number is out of range.

    Examples
    --------
    >>> from scovert.data import pbmc68k
    >>> from scovert.simulate import Platform, bulk
    >>> samples = bulk(pbmc68k(), "cell_type", platform=Platform(shift_sd=0.8), n_samples=6)
    >>> samples.shape, samples.obsm["truth_proportions"].shape
    ((6, 765), (6, 10))
    """
    platform = Platform() if platform is None else platform
    _check_options(platform, n_samples=n_samples, n_cells=n_cells)
    counts, labels = _read(reference, labels_key)
    types = labels.categories.astype(str)
    _check_factors("fold_changes", fold_changes or {}, above=1)
    rna_factors = _by_type("rna_content", platform.rna_content, types)
    log_size = np.log(_by_type("fold_changes", fold_changes, types))
    composing, changing = np.random.default_rng(seed).spawn(2)
    shares = _draw_shares(proportions, types, n_samples, composing)
    cells = composing.multinomial(n_cells, shares)  # (n_samples, n_types)
    n_genes, is_stim = counts.shape[1], np.arange(len(shares)) % 2 == 1

    # What differs from the cells, natural log scale
    directions = [random_directions(n_genes, _RESPONDING, changing) for _ in types]
    response = log_size[:, None] * directions  # (n_types, n_genes)
    shift = platform.shift_sd * changing.normal(size=n_genes)
    jitter = platform.jitter_sd * changing.normal(size=(len(types), n_genes))
    noise = platform.noise_sd * changing.normal(size=(len(shares), n_genes))

    # Molecules
    total, molecules = np.zeros((len(shares), n_genes)), np.empty(cells.shape)
    for k, n in enumerate(cells.T):
        own = _draw_cells(counts[labels.codes == k], n, composing)  # (n_samples, n_genes)
        own *= rna_factors[k] * np.exp(np.outer(is_stim, response[k]))
        molecules[:, k] = own.sum(axis=1)
        total += own * np.exp(jitter[k])
    mean = total * np.exp(shift + noise)
    mean *= platform.depth / mean.sum(axis=1, keepdims=True)

    samples = AnnData(
        changing.poisson(mean).astype(np.float32),
        obs=pd.DataFrame(index=shares.index),
        var=pd.DataFrame({"truth_shift": shift}, index=reference.var_names.rename(None)),
    )
    for name, amounts in (("proportions", cells), ("mrna_fractions", molecules)):
        fractions = amounts / amounts.sum(axis=1, keepdims=True)
        samples.obsm[f"truth_{name}"] = pd.DataFrame(fractions, shares.index, types)
    samples.varm["truth_jitter"] = pd.DataFrame(jitter.T, samples.var_names, types)
    if fold_changes:
        samples.obs["condition"] = pd.Categorical(np.take(_CONDITIONS, is_stim.astype(int)))
        log2_fc = pd.DataFrame(response.T / np.log(2), samples.var_names, types)
        samples.varm["truth_log2_fc"] = log2_fc
    samples.uns["truth"] = _describe(labels_key, n_cells, platform, fold_changes, seed)
    return samples


def _read(reference: AnnData, labels_key: str) -> tuple[sparse.csr_matrix, pd.Categorical]:
    """Return counts and type by cell."""
    where = check_layer(reference, None)
    reference = reference.to_memory() if reference.isbacked else reference
    check_genes(reference)
    check_categorical(reference, labels_key, "labels_key")
    counts = get_counts(reference, None)
    totals = check_counts(counts, where, reference)
    empty = np.flatnonzero(totals == 0)
    if len(empty):
        raise ValueError(
            f"No counts in {counted(len(empty), 'cell')} of `reference`, such as "
            f"{reference.obs_names[empty[0]]!r}, and a bulk sample of such cells would be empty. "
            "Leave them out: `sc.pp.filter_cells(reference, min_counts=1)`."
        )
    labels = pd.Categorical(reference.obs[labels_key].astype(str))  # sorts the types by name
    return sparse.csr_matrix(counts).sorted_indices(), labels


def _draw_shares(
    proportions: Mapping[str, float] | pd.DataFrame | None,
    types: pd.Index,
    n_samples: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Return expected shares of the cells, samples x types."""
    if isinstance(proportions, pd.DataFrame):
        return _given_shares(proportions, types)
    alpha = pd.Series(1.0, types) if proportions is None else pd.Series(proportions, dtype=float)
    _check_shares(alpha.to_frame("proportions").T, types)
    names = [f"sample_{i}" for i in range(n_samples)]
    drawn = rng.dirichlet(alpha[alpha > 0], n_samples)
    shares = pd.DataFrame(drawn, names, alpha.index[alpha > 0])
    return shares.reindex(columns=types, fill_value=0.0)


def _given_shares(proportions: pd.DataFrame, types: pd.Index) -> pd.DataFrame:
    table = proportions.astype(float)
    _check_shares(table, types)
    twice = table.index[table.index.astype(str).duplicated()]
    if len(twice):
        raise ValueError(
            f"`proportions` has several samples {some_of(twice)}. Give each a name of its own."
        )
    table = table.div(table.sum(axis=1), axis=0)
    return table.reindex(columns=types, fill_value=0.0).set_axis(table.index.astype(str))


def _check_shares(table: pd.DataFrame, types: pd.Index) -> None:
    """Refuse unknown types, and rows that are not non-negative with a positive sum."""
    _check_types("proportions", table.columns, types)
    values = table.to_numpy()
    is_good = (
        np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1) & (values.sum(axis=1) > 0)
    )
    if len(table) == 0 or not is_good.all():
        bad = "no row" if len(table) == 0 else f"{table.loc[~is_good].iloc[0].to_dict()}"
        raise ValueError(
            f"`proportions` holds {bad}. Finite numbers of at least 0 are accepted, some above 0 "
            "in every sample. Leave out the types that are to be absent."
        )


def _draw_cells(counts: sparse.csr_matrix, n_cells: NDArray, rng: np.random.Generator) -> NDArray:
    """Sum as many random cells as each sample has, shape ``(n_samples, n_genes)``."""
    n_own = counts.shape[0]
    times = rng.multinomial(n_cells, np.full(n_own, 1 / n_own))  # (n_samples, n_own)
    return np.asarray(times @ counts, float)


def _by_type(name: str, values: Mapping[str, float] | None, types: pd.Index) -> NDArray:
    """Return the number of each type, 1 where none is given, shape ``(n_types,)``."""
    _check_types(name, list(values or {}), types)
    return pd.Series(values or {}, dtype=float).reindex(types, fill_value=1.0).to_numpy()


def _check_types(name: str, found: Sequence[str], types: pd.Index) -> None:
    unknown = [label for label in found if label not in types]
    if unknown:
        raise ValueError(
            f"`{name}` names {some_of(unknown)}, which no cell of `reference` has. Choose from "
            f"{list(types)}."
        )


def _check_factors(name: str, factors: Mapping[str, float], above: float) -> None:
    for label, value in factors.items():
        check_number(f"{name}[{label!r}]", value, above)
        if not above < value < np.inf:
            raise ValueError(
                f"`{name}[{label!r}]={value}` is out of range. Pass a finite number above {above}."
            )


def _check_options(platform: Platform, *, n_samples: int, n_cells: int) -> None:
    if not isinstance(platform, Platform):
        raise TypeError(
            f"`platform` is {a_kind_of(platform)}. Pass a `scovert.simulate.Platform`, for "
            "example `Platform(shift_sd=0.8)`."
        )
    check_number("n_samples", n_samples, 1, whole=True)
    check_number("n_cells", n_cells, 1, whole=True)


def _describe(
    labels_key: str,
    n_cells: int,
    platform: Platform,
    fold_changes: Mapping[str, float] | None,
    seed: int,
) -> dict:
    """Return the options in a form that a file can hold."""
    options = {"labels_key": labels_key, "n_cells": n_cells, **asdict(platform), "seed": seed}
    options["fold_changes"] = fold_changes
    for name in ("rna_content", "fold_changes"):
        factors = pd.Series(options.pop(name) or {}, dtype=float)
        options[name] = pd.DataFrame({"type": factors.index.astype(str), "factor": factors.values})
    return options
