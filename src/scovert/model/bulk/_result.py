"""Result of a deconvolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._arguments import knows_its_arguments
from scovert.core._slots import slot_names
from scovert.core._words import counted
from scovert.model.bulk._average import (
    check_rna_per_cell,
    check_types_in_common,
    joined_quality,
    mean_fractions,
    mean_rna_per_cell,
    ordered_types,
    pooled_draws,
)
from scovert.model.bulk._joint_fit import JointFit
from scovert.model.bulk._rna_per_cell import OF_UNKNOWN
from scovert.model.bulk._signature import Profiles

__all__ = ["BulkResult", "Fit", "in_slot"]

SHOWN = 8
"""Most types that the short description names, so that they fit into a line."""


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
    """Cell types of bulk samples, with intervals.

    Tables have a row for every sample, and a column for every type, sorted by name.

    Attributes
    ----------
    proportions
        Fractions of cells; rows sum to one.
    lower, upper
        Ends of the intervals; `None` if none were asked for. Most of their width is an error that
        all samples share: RNA content per cell, and how the reference differs from the bulk.
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
        ``cell_size_origins`` (where the RNA per cell of every type is from), ``matched_types``,
        ``shift_sd``, ``residual_sd``, ``multiplier`` (by which the bootstrap was widened);
        and what was asked: ``method``, ``likelihood``, ``unknown``, ``n_measured``. Genes are
        shared if they are neither ribosomal nor mitochondrial, and have more than 10 counts in the
        reference.
    draws, relative_draws
        Draws that the intervals, and those without the shared error, are quantiles of, shape
        ``(n_draws, n_samples, n_types)``.
    interval
        Probability of the intervals; `None` if none were asked for.
    history
        ``"objective"`` by step: negative log posterior, or the loss of the network.
    fits
        The fits, one for each reference.
    obs
        Columns of ``obs`` of the bulk.
    """

    proportions: pd.DataFrame
    mrna_fractions: pd.DataFrame
    cell_sizes: pd.Series
    quality: pd.DataFrame
    history: dict[str, pd.DataFrame]
    fits: tuple[Fit, ...]
    obs: pd.DataFrame
    draws: NDArray | None = None
    relative_draws: NDArray | None = None
    interval: float | None = None
    lower: pd.DataFrame | None = None
    upper: pd.DataFrame | None = None
    relative_lower: pd.DataFrame | None = None
    relative_upper: pd.DataFrame | None = None

    def __repr__(self) -> str:
        """Say in a few lines what the result is of, and where to look."""
        names, n_fits = list(self.proportions), len(self.fits)
        facts = self.quality.attrs
        asked = ", ".join(f"{name}={facts[name]!r}" for name in ("method", "kind", "cell_size"))
        interval, ends = "no intervals", ""
        if self.interval is not None:
            interval, ends = f"{self.interval:.0%} intervals", ".lower and .upper, "
        lines = [
            f"BulkResult: {counted(len(self.obs), 'sample')}, {len(names)} types, "
            f"{counted(n_fits, 'reference')}",
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
        origins = self.quality.attrs["cell_size_origins"]
        counted = [kind for kind, origin in origins.items() if "reference" in origin]
        return counted if set(origins.values()) - {"reference", OF_UNKNOWN} else []

    def summary(self) -> str:
        """Return what was assumed, and what the samples hold on average, as text.

        Returns
        -------
        Lines with the genes that were used, where RNA per cell is from, mean proportions with the
        mean ends of their intervals in per cent, residuals, and how far references disagree.
        """
        matched, rna_per_cell, *fit = self.sentences
        return "\n".join([matched, rna_per_cell, f"\n{self.means().to_string()}\n", *fit])

    @property
    def sentences(self) -> list[str]:
        """What was matched, where RNA per cell is from, and how well the mixtures fit."""
        facts, residual = self.quality.attrs, self.quality["residual_sd"]
        lines = [
            f"Bulk and reference share {_each(facts['n_shared_genes'])} genes with enough counts, "
            f"of which {_each(facts['n_informative_genes'])} tell the types apart; taken as "
            f"{_each(facts['kind'])}.",
            f"RNA per cell: {_each(facts['cell_size'])}{self._notes_on_rna_per_cell()}.",
            f"Residual sd of a sample: {residual.median():.2f} (median), at most "
            f"{residual.max():.2f} ({residual.idxmax()}). Sd of the shift of genes: "
            f"{_each(facts['shift_sd'])}.",
        ]
        if "disagreement" in self.quality:
            worst = self.quality["disagreement"]
            lines.append(
                f"The references disagree on {worst.median():.0%} of the cells of a sample "
                f"(median), at most {worst.max():.0%} ({worst.idxmax()})."
            )
        return lines

    def _notes_on_rna_per_cell(self) -> str:
        """Say which types have another name in the table, and for which counts stand in."""
        matched = self.quality.attrs["matched_types"]
        notes = [f"{kind} as {key}" for kind, key in matched.items() if kind != key]
        if others := self.counted_in_reference:
            notes.append(f"by their counts in the reference: {', '.join(others)}")
        return f" ({', '.join(notes)})" if notes else ""

    def means(self) -> pd.DataFrame:
        """Return means over the samples in per cent, the most frequent type first.

        Returns
        -------
        DataFrame with a row for each type: ``mean %``, and with intervals ``mean lower %`` and
        ``mean upper %``.
        """
        tables = {"mean %": self.proportions}
        if self.lower is not None:
            tables |= {"mean lower %": self.lower, "mean upper %": self.upper}
        means = pd.DataFrame({name: 100 * table.mean() for name, table in tables.items()})
        return means.sort_values("mean %", ascending=False, kind="stable").round(1)

    def to_frame(self) -> pd.DataFrame:
        """Return proportions and intervals as a tidy table, a row for every sample and type.

        Returns
        -------
        DataFrame with the columns ``sample``, ``type`` and ``proportion``, and, if there are
        intervals, ``lower``, ``upper``, ``relative_lower`` and ``relative_upper``; samples and
        types are in the order of ``proportions``.
        """
        names = ("lower", "upper", "relative_lower", "relative_upper")
        tables = {"proportion": self.proportions} | {name: getattr(self, name) for name in names}
        samples, types = self.proportions.index, list(self.proportions)
        place = {"sample": np.repeat(samples, len(types)), "type": types * len(samples)}
        values = {k: t.to_numpy().ravel() for k, t in tables.items() if t is not None}
        return pd.DataFrame(place | values)

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
        _check_alike(results)
        if len(results) == 1:
            return results[0]
        fractions, qualities = zip(*((r.proportions, r.quality) for r in results), strict=True)
        names = [list(own) for own in fractions]
        check_rna_per_cell([own.attrs["cell_size"] for own in qualities])
        check_types_in_common(names)
        types = ordered_types(names)
        mean = mean_fractions(fractions, types)
        return replace(
            results[0],
            proportions=mean,
            mrna_fractions=mean_fractions([r.mrna_fractions for r in results], types),
            cell_sizes=mean_rna_per_cell([r.cell_sizes for r in results], types),
            quality=joined_quality(qualities, fractions, mean),
            draws=pooled_draws([r.draws for r in results], names, mean),
            relative_draws=pooled_draws([r.relative_draws for r in results], names, mean),
            history={"objective": sum(r.history["objective"] for r in results)},
            fits=tuple(fit for r in results for fit in r.fits),
        ).with_intervals()

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
        types["cell_size_origin"] = pd.Series(facts.pop("cell_size_origins"), dtype=object)
        types["table_name"] = matched.reindex(types.index).fillna("")
        return facts | {"types": types, "quality": pd.DataFrame(self.quality)}

    def _table(self, values: object) -> pd.DataFrame:
        frame = self.proportions
        return pd.DataFrame(np.asarray(values), frame.index, frame.columns)


def _check_alike(results: list[object]) -> None:
    """Refuse what are no results, and those of other samples or intervals than the first."""
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


def in_slot(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of types with columns that h5ad can hold."""
    return table.set_axis(slot_names(table.columns), axis=1)


def _each(values: object) -> str:
    """Write a fact, one for each reference if they differ."""
    return " and ".join(
        f"{value:.2f}" if isinstance(value, float) else str(value)
        for value in (values if isinstance(values, list) else [values])
    )
