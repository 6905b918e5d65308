"""Expression of the types of a deconvolved bulk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._arguments import knows_its_arguments
from scovert.core._slots import slot_names
from scovert.model.bulk._checks import check_condition, warn_about_conditions
from scovert.model.bulk._expression_fit import CohortProfiles, fit_expression
from scovert.model.bulk._result import BulkResult, Fit
from scovert.model.bulk._signature import OFFSET

__all__ = ["TypeExpression", "find_expression", "layer_names", "types_of"]

ALL = "all"
"""Name of the condition of all samples together."""


@knows_its_arguments()
@dataclass(frozen=True)
class TypeExpression:
    """Expression of every cell type in every condition of a bulk.

    Tables have a row for every condition and type, ``expression.loc["treated"]`` is a table of
    types x genes, and a column for every gene that the bulk shares with the reference.

    Attributes
    ----------
    expression
        Counts per million of the type's own RNA over these genes, on the scale of the reference:
        without the shift of genes between protocols.
    reliability
        How far the bulk, and not the prior, tells the type's change from the mean change of all
        types, from 0 to 1: 1 - posterior / prior variance, which is the squared correlation to
        expect between estimated and true difference. At 0 the type follows the others.
    condition
        Condition of every sample.
    """

    expression: pd.DataFrame
    reliability: pd.DataFrame
    condition: pd.Series

    def log2_fold_change(self, condition: object, reference: object) -> pd.DataFrame:
        """Return log2 of the ratio of two conditions.

        Parameters
        ----------
        condition, reference
            Names of conditions; 10 counts per million are added to both.

        Returns
        -------
        DataFrame of types x genes.

        Raises
        ------
        KeyError
            If there is no such condition.
        """
        known = list(self.expression.index.unique("condition"))
        for name in (condition, reference):
            if name not in known:
                raise KeyError(f"There is no condition {name!r}. Pass two of {known}.")
        above, below = (
            np.log2(self.expression.xs(name, level="condition") + OFFSET)
            for name in (condition, reference)
        )
        return above - below

    def layers(self, genes: pd.Index, key: str) -> dict[str, NDArray]:
        """Return tables of samples x genes by the names of layers: the condition's profile.

        Parameters
        ----------
        genes
            Genes of the bulk; those that are not shared with the reference are missing values.
        key
            Beginning of the names, see :func:`layer_names`.
        """
        types = list(self.expression.index.unique("type"))
        tables = [self.expression] * len(types) + [self.reliability] * len(types)
        layers = {}
        for (name, kind), table in zip(layer_names(types, key).items(), tables, strict=True):
            own = table.xs(kind, level="type").reindex(columns=genes).astype(np.float32)
            layers[name] = own.reindex(self.condition.to_numpy()).to_numpy()
        return layers


def layer_names(types: Sequence[str], key: str) -> dict[str, str]:
    """Return the types by the names of their layers, expression first, then reliability."""
    prefixes = [f"{key}_", f"{key}_reliability_"]
    names = slot_names([prefix + kind for prefix in prefixes for kind in types])
    return dict(zip(names, [*types] * len(prefixes), strict=True))


def types_of(result: BulkResult) -> list[str]:
    """Return the types of the references of a result."""
    return list(dict.fromkeys(kind for fit in result.fits for kind in fit.profiles.types))


def find_expression(result: BulkResult, condition_key: str | None) -> TypeExpression:
    """Estimate the profiles of types from the fits of a result.

    Of several references: mean over those that have a type, of the genes that all of them share
    with the bulk.

    Parameters
    ----------
    result
        Result of a deconvolution.
    condition_key
        Column of ``result.obs``, `None` for one condition.
    """
    check_condition(result.obs, condition_key)
    if condition_key is None:
        condition = pd.Series(ALL, result.obs.index, dtype="category")
    else:
        condition = result.obs[condition_key].astype("category").cat.remove_unused_categories()
    warn_about_conditions(condition)
    tables = [_tables(fit, condition) for fit in result.fits]
    expression, reliability = (_mean(list(own)) for own in zip(*tables, strict=True))
    expression = expression.mul(1e6 / expression.sum(axis=1), axis=0)
    return TypeExpression(expression, reliability, condition)


def _tables(fit: Fit, condition: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return expression and reliability of the types of one reference."""
    cohort = CohortProfiles.of(fit.cpm, fit.millions, fit.profiles, fit.joint)
    found = fit_expression(cohort, condition.cat.codes.to_numpy(np.int64))
    names = [condition.cat.categories, fit.profiles.types]
    index = pd.MultiIndex.from_product(names, names=["condition", "type"])
    expression, reliability = (
        pd.DataFrame(values[:, : len(names[1])].reshape(len(index), -1), index, fit.profiles.genes)
        for values in (found.cpm, found.reliability)
    )
    return expression, reliability


def _mean(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean over the tables that have a row, of the columns that all of them have."""
    if len(tables) == 1:
        return tables[0]
    joined = pd.concat(tables, join="inner")
    types = joined.index.unique("type")
    means = joined.groupby(level=["type", "condition"], sort=False).mean()
    conditions = tables[0].index.unique("condition")
    order = pd.MultiIndex.from_product([conditions, types], names=["condition", "type"])
    return means.swaplevel().loc[order]
