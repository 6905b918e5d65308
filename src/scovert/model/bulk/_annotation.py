"""What `annotate` writes of a deconvolution, and where."""

from __future__ import annotations

from dataclasses import dataclass, replace

from anndata import AnnData

from scovert.core._annotating import Slot
from scovert.model.bulk._expression import find_expression
from scovert.model.bulk._result import BulkResult, in_slot

__all__ = ["REMEDY", "Writing", "check_same_samples"]

TABLES = ("proportions", "lower", "upper", "mrna_fractions")
"""Attributes of a result that become slots, those of intervals if there are any."""
REMEDY = "Pass `write_layer=False`: `get_cell_type_expression` returns one profile per condition."


def check_same_samples(result: BulkResult, bulk: AnnData) -> None:
    """Refuse a result of other samples."""
    if not result.proportions.index.equals(bulk.obs_names):
        raise ValueError(
            "`result` is of other samples than those of `bulk`. Pass the bulk that was "
            "deconvolved, with its samples in the same order."
        )


@dataclass(frozen=True)
class Writing:
    """What is written under a name; see ``BulkDeconvolution.annotate``.

    Attributes
    ----------
    key, condition_key
        Arguments of ``annotate``.
    layers
        Types by the names of their layers, none where no layers are written.
    """

    key: str
    condition_key: str | None
    layers: dict[str, str]

    def slots(self, *, has_interval: bool) -> list[Slot]:
        """Return container and name of every slot."""
        names = [name for name in TABLES if has_interval or name not in ("lower", "upper")]
        return [*map(self._of, names), *(("layers", name) for name in self.layers)]

    def _of(self, name: str) -> Slot:
        return "obsm", f"{self.key}_{name}"

    def values(self, result: BulkResult, bulk: AnnData) -> tuple[dict[Slot, object], dict]:
        """Return the values of the slots, and what the record holds besides."""
        tables = {name: getattr(result, name) for name in TABLES}
        values = {self._of(k): in_slot(table) for k, table in tables.items() if table is not None}
        if not self.layers:
            return values, result.record()
        expression = find_expression(replace(result, obs=bulk.obs), self.condition_key)
        written = expression.layers(bulk.var_names, self.key)
        is_known = bulk.var_names.isin(expression.expression.columns)
        about = {"layers": self.layers, "n_genes_without_profile": int((~is_known).sum())}
        values |= {("layers", name): table for name, table in written.items()}
        return values, result.record() | about
