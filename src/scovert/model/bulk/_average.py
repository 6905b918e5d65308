"""Averages over references, of tables from the same samples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._checks import UNKNOWN, caller_level
from scovert.core._spelling import spelt_alike
from scovert.model.bulk._type_names import match_types

__all__ = [
    "check_rna_per_cell",
    "check_types_in_common",
    "joined_quality",
    "mean_fractions",
    "mean_rna_per_cell",
    "ordered_types",
    "pooled_draws",
]

FLOOR = 0.001
"""Added to fractions before the geometric mean over references: a reference that does not find a
type says less than a thousandth, not zero."""


def check_rna_per_cell(sources: Sequence[object]) -> None:
    """Refuse to average fractions of RNA and of cells; warn about RNA per cell of two kinds."""
    if "none" in sources and len(set(map(str, sources))) > 1:
        raise ValueError(
            f"The results have `cell_size` {sources}: fractions of RNA and of cells cannot be "
            "averaged. Pass the same `cell_size` to every `deconvolve`."
        )
    if len(set(map(str, sources))) > 1:
        warnings.warn(
            f"The references take RNA per cell from {sources}, so that fractions are averaged "
            "which rest on different kinds of it. Pass the same numbers to every `deconvolve`, as "
            "`cell_size`, or call types of the table alike in all references.",
            UserWarning,
            stacklevel=caller_level(),
        )


def check_types_in_common(names: Sequence[list[str]]) -> None:
    """Refuse references without a type in common; warn about names that may be of one type."""
    if not set.intersection(*map(set, names)) - {UNKNOWN}:
        raise ValueError(
            f"The references have no type in common: {names[0]} and {names[1]}. Types are matched "
            "by name: call them alike in all references."
        )
    for own in names:
        others = {kind for other in names for kind in other} - set(own)
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


def ordered_types(names: Sequence[list[str]]) -> NDArray:
    """Return the types of all references, sorted as one does, the unknown component last."""
    types = {kind for own in names for kind in own}
    return np.array(sorted(types, key=lambda kind: (kind == UNKNOWN, kind)), dtype=object)


def mean_fractions(tables: Sequence[pd.DataFrame], types: NDArray) -> pd.DataFrame:
    """Geometric mean over the tables that have a type, rows sum to one."""
    logs = np.stack([np.log(t.reindex(columns=types) + FLOOR) for t in tables])
    means = np.maximum(np.exp(np.nanmean(logs, axis=0)) - FLOOR, 0)
    means /= means.sum(1, keepdims=True)
    return pd.DataFrame(means, tables[0].index, types)


def mean_rna_per_cell(values: Sequence[pd.Series], types: NDArray) -> pd.Series:
    """Geometric mean over the references that have a type, each in the unit of its own mean."""
    logs = pd.concat([np.log(s / np.exp(np.log(s).mean())) for s in values], axis=1)
    return np.exp(logs.mean(axis=1)).reindex(types)


def pooled_draws(
    draws: Sequence[NDArray | None], names: Sequence[list[str]], centre: pd.DataFrame
) -> NDArray | None:
    """Pool draws; a type that a reference lacks takes the averaged fraction there."""
    if any(own is None for own in draws):
        return None
    pooled = []
    for own, types in zip(draws, names, strict=True):
        whole = np.broadcast_to(centre.to_numpy(), (len(own), *centre.shape)).copy()
        at = centre.columns.get_indexer(types)
        whole[..., at] = own * whole[..., at].sum(-1, keepdims=True)
        pooled.append(whole)
    return np.concatenate(pooled)


def joined_quality(
    qualities: Sequence[pd.DataFrame], fractions: Sequence[pd.DataFrame], average: pd.DataFrame
) -> pd.DataFrame:
    """Join what is known of the fits, and say how far the fractions are from their average."""
    distances = [
        (own.reindex(columns=average.columns, fill_value=0) - average).abs().sum(axis=1)
        for own in fractions
    ]
    quality = pd.DataFrame(
        {
            "residual_sd": np.mean([own["residual_sd"] for own in qualities], axis=0),
            "disagreement": np.max(distances, axis=0) / 2,
        },
        index=average.index,
    )
    quality.attrs = {
        name: _joined([own.attrs[name] for own in qualities]) for name in qualities[0].attrs
    }
    return quality


def _joined(values: list) -> object:
    """Join what the fits say: the same, the union of mappings, or one for each."""
    if all(isinstance(value, dict) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        said = {key: dict.fromkeys(v[key] for v in values if key in v) for key in keys}
        return {key: " and ".join(own) for key, own in said.items()}
    return values[0] if all(value == values[0] for value in values) else list(values)
