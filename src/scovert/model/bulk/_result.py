"""What a deconvolution found."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._arguments import knows_its_arguments
from scovert.core._checks import UNKNOWN, caller_level
from scovert.core._slots import slot_names
from scovert.model.bulk._content import OF_UNKNOWN
from scovert.model.bulk._joint_fit import JointFit
from scovert.model.bulk._signature import Profiles
from scovert.model.bulk._type_names import match_types, spelt_alike

__all__ = ["BulkResult", "Fit", "in_slot"]

FLOOR = 0.001
"""Added to fractions before the geometric mean over references."""
SHOWN = 8
"""Most types that are shown."""


@dataclass(frozen=True)
class Fit:
    """One fit of a cohort with one reference, for what is derived from it.

    Attributes
    ----------
    cpm
        Counts per million of all shared genes, shape ``(n_samples, n_genes)``.
    millions
        Depth of a sample in millions of counts; `None` if only shares are known.
    profiles
        What the types express of these genes.
    joint
        The fit.
    """

    cpm: NDArray
    millions: float | None
    profiles: Profiles
    joint: JointFit


@knows_its_arguments()
@dataclass(frozen=True)
class BulkResult:
    """What a bulk holds, with intervals.

    Tables have a row for every sample, and a column for every type, sorted by name.

    Attributes
    ----------
    proportions
        Fractions of cells; rows sum to one.
    lower, upper
        Ends of the intervals; `None` if none were asked for. Most of their width is an error that
        all samples share: RNA content, and how the reference differs from the bulk.
    relative_lower, relative_upper
        Intervals without it: for comparisons of samples of this bulk with each other.
    mrna_fractions
        Fractions of the RNA of the shared genes.
    cell_sizes
        RNA per cell that fractions of RNA were divided by, in relative units.
    quality
        ``residual_sd``, the size of what a sample's mixture leaves unexplained, on the log scale;
        of several references also ``disagreement``, the largest total variation distance of
        one's fractions from the average: the one number here that warns of a bad reference.
        ``attrs`` hold what was assumed and fitted: ``n_shared_genes``, ``n_informative_genes``,
        ``genes_matched_by``, the names of both that were taken, ``kind``, ``cell_size``,
        ``size_origins`` (where the RNA per cell of every type is from), ``matched_types``,
        ``shift_sd``, ``residual_sd``, ``multiplier``; and what was asked: ``method``,
        ``likelihood``, ``unknown``, ``n_measured``. Genes are shared if they are neither ribosomal
        nor mitochondrial, and have more than 10 counts in the reference.
    draws
        Draws that the intervals are quantiles of, shape ``(n_draws, n_samples, n_types)``.
    history
        ``"objective"`` by step: negative log posterior, or the loss of the network.
    fits
        The fits, one for each reference.
    obs
        Columns of ``obs`` of the bulk.
    """

    proportions: pd.DataFrame
    lower: pd.DataFrame | None
    upper: pd.DataFrame | None
    relative_lower: pd.DataFrame | None
    relative_upper: pd.DataFrame | None
    mrna_fractions: pd.DataFrame
    cell_sizes: pd.Series
    quality: pd.DataFrame
    draws: NDArray | None
    history: dict[str, pd.DataFrame]
    fits: tuple[Fit, ...]
    obs: pd.DataFrame
    relative_draws: NDArray | None = None
    interval: float | None = None

    def __repr__(self) -> str:
        """Say in a few lines what the result is of, and where to look."""
        names, n_fits = list(self.proportions), len(self.fits)
        facts = self.quality.attrs
        asked = ", ".join(f"{name}={facts[name]!r}" for name in ("method", "kind", "cell_size"))
        interval, ends = "no intervals", ""
        if self.interval is not None:
            interval, ends = f"{self.interval:.0%} intervals", ".lower and .upper, "
        lines = [
            f"BulkResult: {len(self.obs)} sample(s), {len(names)} types, {n_fits} reference(s)",
            f"types: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}",
            f"{interval}; {asked}",
            f"mean residual sd {self.quality['residual_sd'].mean():.2f}",
            f"next: .proportions, {ends}.quality",
        ]
        if others := self.counted_in_reference:
            lines[2] += f" but 'reference' for {', '.join(others)}"
        if "disagreement" in self.quality:
            lines[3] += f", mean disagreement {self.quality['disagreement'].mean():.0%}"
        return "\n    ".join(lines)

    @property
    def counted_in_reference(self) -> list[str]:
        """Types whose RNA per cell is from a reference although that of others is not."""
        origins = self.quality.attrs["size_origins"]
        counted = [kind for kind, origin in origins.items() if "reference" in origin]
        return counted if set(origins.values()) - {"reference", OF_UNKNOWN} else []

    @classmethod
    def average(cls, results: Sequence[BulkResult]) -> BulkResult:
        """Join results of the same bulk with several references.

        The geometric mean of the fractions over the references that have a type, renormalised;
        draws are pooled, so that intervals show where references disagree.

        Parameters
        ----------
        results
            Results of :meth:`BulkDeconvolution.deconvolve`, of the same samples.

        Raises
        ------
        ValueError
            If there is nothing to average, or samples differ.
        TypeError
            If one is not a BulkResult.
        """
        if isinstance(results, BulkResult):
            raise TypeError("`results` is one BulkResult. Pass a list of them.")
        results = list(results)
        _check(results)
        if len(results) == 1:
            return results[0]
        first = results[0]
        types = _ordered({kind for r in results for kind in r.proportions})
        proportions = _mean([r.proportions for r in results], types)
        draws, relative = (
            _pooled([(getattr(r, name), r.proportions.columns) for r in results], proportions)
            for name in ("draws", "relative_draws")
        )
        joined = replace(
            first,
            proportions=proportions,
            mrna_fractions=_mean([r.mrna_fractions for r in results], types),
            cell_sizes=_mean_sizes([r.cell_sizes for r in results], types),
            quality=_joined_quality(results, proportions),
            draws=draws,
            relative_draws=relative,
            history=_joined_history(results),
            fits=tuple(fit for r in results for fit in r.fits),
        )
        return joined.with_intervals()

    def with_intervals(self) -> BulkResult:
        """Return the result with the intervals of its draws."""
        if self.draws is None or self.interval is None:
            return self
        tail = (1 - self.interval) / 2
        ends = {}
        for prefix, draws in (("", self.draws), ("relative_", self.relative_draws)):
            low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
            ends[f"{prefix}lower"] = self._table(np.minimum(low, self.proportions))
            ends[f"{prefix}upper"] = self._table(np.maximum(high, self.proportions))
        return replace(self, **ends)

    def record(self) -> dict[str, object]:
        """Return what was assumed and fitted, as ``uns`` of an AnnData can hold it."""
        facts = {k: v for k, v in self.quality.attrs.items() if v is not None}
        if self.interval is not None:
            facts["interval"] = self.interval
        matched = pd.Series(facts.pop("matched_types"), dtype=object)
        types = pd.DataFrame({"cell_size": self.cell_sizes})
        types["size_origin"] = pd.Series(facts.pop("size_origins"), dtype=object)
        types["table_name"] = matched.reindex(types.index).fillna("")
        return facts | {"types": types, "quality": pd.DataFrame(self.quality)}

    def _table(self, values: object) -> pd.DataFrame:
        frame = self.proportions
        return pd.DataFrame(np.asarray(values), frame.index, frame.columns)


def _ordered(types: set[str]) -> NDArray:
    """Sort types as one reference does, the unknown component last."""
    return np.array(sorted(types, key=lambda kind: (kind == UNKNOWN, kind)), dtype=object)


def in_slot(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of types with columns that h5ad can hold."""
    return table.set_axis(slot_names(table.columns), axis=1)


def _check(results: list[BulkResult]) -> None:
    if not results:
        raise ValueError("`results` is empty. Pass the results to average.")
    for result in results:
        if not isinstance(result, BulkResult):
            raise TypeError(
                f"`results` holds a {type(result).__name__}. Pass a list of results of "
                "`deconvolve`."
            )
        if not result.proportions.index.equals(results[0].proportions.index):
            raise ValueError(
                "The results are of different samples. Average results of the same bulk, with "
                "its samples in the same order."
            )
        if result.interval != results[0].interval:
            raise ValueError(
                f"The results have intervals of {results[0].interval} and {result.interval}. Pass "
                "the same `interval` to every `deconvolve`."
            )
    sources = [result.quality.attrs["cell_size"] for result in results]
    if "none" in sources and len(set(map(str, sources))) > 1:
        raise ValueError(
            f"The results have `cell_size` {sources}: fractions of RNA and of cells cannot be "
            "averaged. Pass the same `cell_size` to every `deconvolve`."
        )
    _warn_about_sizes(sources)
    _check_types(results)


def _warn_about_sizes(sources: list[object]) -> None:
    """Warn about references with RNA per cell of different kinds."""
    if len(set(map(str, sources))) > 1:
        warnings.warn(
            f"The references take RNA per cell from {sources}, so that fractions are averaged "
            "which rest on sizes of different kinds. Pass the same numbers to every `deconvolve`, "
            "as `cell_size`, or call types of the table alike in all references.",
            UserWarning,
            stacklevel=caller_level(),
        )


def _check_types(results: list[BulkResult]) -> None:
    """Refuse references without a type in common; warn about names that may be of one type."""
    names = [list(result.proportions) for result in results]
    if not set.intersection(*map(set, names)) - {UNKNOWN}:
        raise ValueError(
            f"The references have no type in common: {names[0]} and {names[1]}. Types are matched "
            "by name: call them alike in all references."
        )
    for i, own in enumerate(names):
        others = {kind for other in names[:i] + names[i + 1 :] for kind in other} - set(own)
        known, alike = match_types(own), match_types(sorted(others))
        pairs = [(a, b) for a, x in known.items() for b, y in alike.items() if x == y]
        pairs += [(a, b) for a, b in spelt_alike([*own, *others]) if a in own and b in others]
        pairs = [(a, b) for a, b in pairs if any(a not in n for n in names)]
        if pairs:
            warnings.warn(
                f"References name types differently: {pairs[0][0]!r} and {pairs[0][1]!r} "
                f"look like one ({len(pairs)} such pairs). Each would be a type of its own: "
                "call them alike, or merge what one reference splits.",
                UserWarning,
                stacklevel=caller_level(),
            )
            return


def _mean(tables: list[pd.DataFrame], types: NDArray) -> pd.DataFrame:
    """Geometric mean over the tables that have a type, rows sum to one."""
    logs = np.stack([np.log(t.reindex(columns=types) + FLOOR) for t in tables])
    means = np.maximum(np.exp(np.nanmean(logs, axis=0)) - FLOOR, 0)
    means /= means.sum(1, keepdims=True)
    return pd.DataFrame(means, tables[0].index, types)


def _mean_sizes(sizes: list[pd.Series], types: NDArray) -> pd.Series:
    logs = pd.concat([np.log(s / np.exp(np.log(s).mean())) for s in sizes], axis=1)
    return np.exp(logs.mean(axis=1)).reindex(types)


def _pooled(draws: list[tuple[NDArray | None, pd.Index]], centre: pd.DataFrame) -> NDArray | None:
    """Pool draws; a type that a reference lacks takes the averaged fraction there."""
    if any(own is None for own, _ in draws):
        return None
    pooled = []
    for own, types in draws:
        whole = np.broadcast_to(centre.to_numpy(), (len(own), *centre.shape)).copy()
        at = centre.columns.get_indexer(types)
        whole[..., at] = own * whole[..., at].sum(-1, keepdims=True)
        pooled.append(whole)
    return np.concatenate(pooled)


def _joined_quality(results: list[BulkResult], average: pd.DataFrame) -> pd.DataFrame:
    distances = [
        (r.proportions.reindex(columns=average.columns, fill_value=0) - average).abs().sum(axis=1)
        for r in results
    ]
    quality = pd.DataFrame(
        {
            "residual_sd": np.mean([r.quality["residual_sd"] for r in results], axis=0),
            "disagreement": np.max(distances, axis=0) / 2,
        },
        index=average.index,
    )
    quality.attrs = {
        name: _joined([r.quality.attrs[name] for r in results])
        for name in results[0].quality.attrs
    }
    return quality


def _joined(values: list) -> object:
    """Join what the fits say: the same, the union of mappings, or one for each."""
    if all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        said = {key: dict.fromkeys(v[key] for v in values if key in v) for key in keys}
        return {key: " and ".join(own) for key, own in said.items()}
    return values[0] if all(value == values[0] for value in values) else list(values)


def _joined_history(results: list[BulkResult]) -> dict[str, pd.DataFrame]:
    """Sum the objectives of the fits, step by step."""
    total = sum(r.history["objective"] for r in results)
    return {"objective": total}
