"""What a report says of niches."""

from __future__ import annotations

from functools import partial

import pandas as pd
from anndata import AnnData
from scvi.model.base import BaseModelClass

from scovert.core._words import counted
from scovert.core.report import Figure, Report, Table, parameters_of
from scovert.model.niche._samples import shares_by_group

__all__ = ["report_of"]

ALL = "all cells"
"""Name of the one slide, if no samples were named."""
ASSUMPTIONS = (
    "Neighbours of a cell are those nearest in its sample, and their order means nothing.",
    "What is around a cell is a mixture of states that all samples share.",
    "A comparison of conditions is one of subjects, never of cells: "
    "`model.get_composition_differences`.",
)
REFERENCES = (
    "Lopez et al. Deep generative modeling for single-cell transcriptomics. Nature Methods 15, "
    "1053-1058 (2018).",
    "Szekely and Rizzo. Energy statistics: a class of statistics based on distances. Journal of "
    "Statistical Planning and Inference 143, 1249-1272 (2013).",
)


def report_of(
    model: BaseModelClass, niches: pd.Series, composition: pd.DataFrame | None
) -> Report:
    """Describe a trained NicheVAE.

    Parameters
    ----------
    model
        The model.
    niches
        Niche of every cell of the model.
    composition
        What is around every cell, in labels or states; `None` for a decoder without states.
    """
    setup = model.registry["setup_args"]
    sample = pd.Series(ALL, niches.index)
    if setup["sample_key"] is not None:
        sample = model.adata.obs[setup["sample_key"]].astype("category")
    shares = pd.crosstab(sample, niches, normalize="index").rename_axis("sample")
    shares.columns = [f"niche {name}" for name in shares]
    overview = niches.value_counts(sort=False).rename_axis("niche").to_frame("cells")
    overview["share %"] = (100 * overview["cells"] / len(niches)).round(1)
    around = None if composition is None else shares_by_group(composition, niches)
    if around is not None:
        overview["mostly around"] = around.idxmax(axis=1)
    slides = counted(sample.nunique(), "slide")
    what = "genes" if setup["likelihood"] == "nb" else "channels or genes"
    return Report(
        model="NicheVAE",
        title=f"{counted(len(overview), 'niche')} on {slides}",
        summary=(
            f"{len(niches):,} cells on {slides} with {model.adata.n_vars:,} "
            f"{what}, each with its {model.n_neighbors} nearest neighbours.",
            f"Clustered by what is around them, they are in {counted(len(overview), 'niche')}.",
        ),
        check=model.check(),
        overview=overview,
        assumptions=ASSUMPTIONS,
        parameters=parameters_of(model),
        references=REFERENCES,
        figures=tuple(_figures(model, niches, sample, around)),
        tables=(
            Table(
                "Shares of the niches in the samples",
                shares,
                "`model.get_sample_composition(niche_key='niche')`.",
            ),
        ),
    )


def _figures(
    model: BaseModelClass, niches: pd.Series, sample: pd.Series, around: pd.DataFrame | None
) -> list[Figure]:
    from scovert import pl

    key = model.registry["setup_args"]["spatial_key"]
    obs = pd.DataFrame({"niche": niches, "sample": sample})
    cells = AnnData(obs=obs, obsm={"spatial": model.adata.obsm[key]})
    figures = [
        Figure(
            "Niches in space",
            "Every cell at its position, in the colour of its niche.",
            partial(pl.niches, cells, sample_key="sample"),
        )
    ]
    if around is not None:
        caption = "What is around the cells of a niche, the mean over them, as predicted."
        draw = partial(pl.proportions_heatmap, around)
        figures.append(Figure("What niches are made of", caption, draw))
    history = "Loss terms by epoch. Curves of training and validation should level off together."
    return [*figures, Figure("Training", history, partial(pl.history, model))]
