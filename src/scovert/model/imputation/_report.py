"""What a report says of imputed genes."""

from __future__ import annotations

from functools import partial

import pandas as pd
from scvi.model.base import BaseModelClass

from scovert.core._words import counted
from scovert.core.report import Figure, Report, Table, parameters_of

__all__ = ["report_of"]

ASSUMPTIONS = (
    "What a dataset did not measure depends on the genes it did measure as it does in the "
    "datasets that measured both.",
    "Genes that are imputed are about as far off as known genes that were held back; a response "
    "that no other dataset shows is not imputed.",
    "An imputed count is a mean: make no test of it.",
)
REFERENCES = (
    "Lopez et al. Deep generative modeling for single-cell transcriptomics. Nature Methods 15, "
    "1053-1058 (2018).",
)


def report_of(
    model: BaseModelClass, n_cells: pd.Series, n_lacking: pd.Series, genes: pd.DataFrame
) -> Report:
    """Describe a trained MaskedImputation.

    Parameters
    ----------
    model
        The model.
    n_cells, n_lacking
        By dataset: cells, and genes that it did not measure.
    genes
        What ``model.get_gene_agreement()`` returns.
    """
    lacking = n_lacking[n_lacking > 0]
    agreement = model.get_agreement()
    named = ", ".join(f"{n:,} of {name!r}" for name, n in lacking.items())
    told = [f"Genes that were imputed: {named}."]
    if "imputed" in agreement.index.get_level_values(1):
        explained = agreement.xs("imputed", level=1)["deviance_explained"]
        shares = ", ".join(f"{share:.2f} in {name!r}" for name, share in explained.items())
        told.append(
            f"Of known genes that were held back the model explains this share of the deviance: "
            f"{shares}; the means of the other datasets have 0."
        )
    return Report(
        model="MaskedImputation",
        title=f"Genes imputed in {counted(len(lacking), 'dataset')}",
        summary=(
            f"{n_cells.sum():,} cells in {counted(len(n_cells), 'dataset')}, "
            f"{model.adata.n_vars:,} genes.",
            *told,
        ),
        check=model.check(),
        overview=agreement.round(3),
        assumptions=ASSUMPTIONS,
        parameters=parameters_of(model),
        references=REFERENCES,
        figures=tuple(_figures(model, genes)),
        tables=(
            Table(
                "Genes that were held back, the worst first",
                genes[genes["kind"] == "imputed"].sort_values("deviance_explained"),
                "`model.get_gene_agreement()`.",
            ),
        ),
    )


def _figures(model: BaseModelClass, genes: pd.DataFrame) -> list[Figure]:
    from scovert import pl

    history = "Loss terms by epoch. Curves of training and validation should level off together."
    figures = [Figure("Training", history, partial(pl.history, model))]
    if (genes["kind"] == "imputed").any():
        caption = "Known genes that were held back, with intervals of 90 %."
        totals = partial(pl.imputation_agreement, genes)
        figures.insert(0, Figure("Imputed and counted totals", caption, totals))
    return figures
