"""What a report says of a deconvolution."""

from __future__ import annotations

from functools import partial

import pandas as pd
from scvi.model.base import BaseModelClass

from scovert.core._words import counted
from scovert.core.report import Figure, Report, Table, parameters_of
from scovert.model.bulk._result import BulkResult

__all__ = ["report_of"]

ASSUMPTIONS = (
    "A sample is a mixture of the types of the reference. A type that the reference lacks is "
    "shared out among those that it has.",
    "Fractions of cells follow from fractions of RNA by the RNA per cell of the types, which "
    "expression alone cannot tell.",
    "What differs between bulk and reference is a shift of every gene that all samples share.",
)
WHOLE = "`result.proportions`, or `--table TABLE.csv` on the command line."
REFERENCES = {
    "table": "Monaco et al. RNA-Seq signatures normalized by mRNA abundance allow absolute "
    "deconvolution of human immune cell types. Cell Reports 26, 1627-1640 (2019).",
}
"""By what RNA per cell was taken from."""


def report_of(model: BaseModelClass, result: BulkResult) -> Report:
    """Describe what a reference, or several, found in a bulk.

    Parameters
    ----------
    model
        A trained BulkDeconvolution.
    result
        What was found.
    """
    n_samples, n_types = result.proportions.shape
    origin = str(result.quality.attrs["cell_size"])
    tables = [Table("Proportions, % of the cells", (100 * result.proportions).round(1), WHOLE)]
    return Report(
        model="BulkDeconvolution",
        title=f"{counted(n_types, 'cell type')} in {counted(n_samples, 'bulk sample')}",
        summary=tuple(result.sentences),
        check=model.check(),
        overview=result.means().rename_axis("type"),
        assumptions=ASSUMPTIONS,
        parameters=parameters_of(model),
        references=tuple(text for name, text in REFERENCES.items() if name in origin),
        figures=tuple(_figures(result)),
        tables=(
            *tables,
            Table("Fit of the samples", pd.DataFrame(result.quality), "`result.quality`."),
        ),
    )


def _figures(result: BulkResult) -> list[Figure]:
    from scovert import pl

    figures = [
        Figure(
            "Composition of the samples",
            "A bar for each sample, a colour for each type.",
            partial(pl.proportions, result.proportions),
        )
    ]
    if result.lower is not None:
        figures.append(
            Figure(
                f"Intervals of {result.interval:.0%}",
                "A panel for each type. Most of the width is an error that all samples share: RNA "
                "per cell, and how the reference differs from the bulk.",
                partial(pl.intervals, result.proportions, result.lower, result.upper),
            )
        )
    caption = "What the mixture leaves unexplained in each sample. Look at those that stand out."
    return [*figures, Figure("Residuals", caption, partial(pl.residuals, result.quality))]
