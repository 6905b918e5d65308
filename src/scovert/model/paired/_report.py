"""What a report says of an integration."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scvi.model.base import BaseModelClass

from scovert.anchors._find import MIN_SUPPORT
from scovert.core._checks import check_categorical
from scovert.core._words import counted
from scovert.core.report import Figure, Report, parameters_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["report_of"]

MAX_DRAWN = 5_000
"""Cells on a map, drawn at random: more hide each other, and take minutes to be laid out."""
MAPS = {
    "dataset": f"UMAP of the shared space, a point for each cell, of {MAX_DRAWN:,} at most. "
    "Datasets should mix where they hold the same kinds of cells. Distances between islands mean "
    "little.",
    "type": "The same map: types should be apart, and not torn by dataset.",
    "support": "The same map: cells with little support have no counterpart in another dataset.",
}
"""How to read a map by each colour."""
ALIGNED = {
    "anchors": "mutual nearest neighbours between the datasets (anchors)",
    "adversarial": "a discriminator that guesses the dataset",
    "grl": "a discriminator, by gradient reversal",
    "none": "nothing but the decoder, which knows the dataset",
}
RESTS_ON = {
    "anchors": "Cells that are mutual nearest neighbours across datasets are of one kind. A type "
    "that only one dataset has should find no anchors: look at its support.",
    "adversarial": "A cell of one dataset could come from any other that has its kind. Where the "
    "datasets hold other kinds of cells, look at the support.",
}
RESTS_ON["grl"] = RESTS_ON["adversarial"]
RESTS_ON["none"] = "What differs between the datasets beyond scale is left in the space."
COMMON = (
    "The dataset is a nuisance: what the datasets differ in is set aside, the effect of a "
    "treatment too, if one of them holds the treated cells.",
    "Counts are negative binomial around what the decoder makes of the place of a cell and its "
    "dataset; corrected counts are the mean over all datasets as which a cell is decoded.",
    "Corrected counts are for maps and clusters. Test for differential expression on the raw "
    "counts, with the dataset as a covariate.",
)
REFERENCES = (
    "Lopez et al. Deep generative modeling for single-cell transcriptomics. Nature Methods 15, "
    "1053-1058 (2018).",
    "Haghverdi et al. Batch effects in single-cell RNA-sequencing data are corrected by matching "
    "mutual nearest neighbors. Nature Biotechnology 36, 421-427 (2018).",
)


def report_of(
    model: BaseModelClass, support: pd.DataFrame | None, labels_key: str | None
) -> Report:
    """Describe a trained PairedVAE.

    Parameters
    ----------
    model
        The model.
    support
        What ``get_support`` returns, if there are anchors.
    labels_key
        Column of ``obs`` with cell types, to draw besides.
    """
    obs, alignment = model.adata.obs, model.module.alignment
    if labels_key is not None:
        check_categorical(model.adata, labels_key, "labels_key")
    batch_key = model.registry["setup_args"]["batch_key"]
    overview = obs[batch_key].value_counts(sort=False).rename_axis("dataset").to_frame("cells")
    overview = overview[overview["cells"] > 0]
    latent = model.get_latent_representation()
    datasets, joined = counted(len(overview), "dataset"), f"joined by {ALIGNED[alignment]}"
    if model.module.n_query:
        joined = "that of a trained model, to which they were added"
    summary = [
        f"{counted(len(obs), 'cell')} of {datasets} and {counted(model.adata.n_vars, 'gene')} are "
        f"in one space of {counted(latent.shape[1], 'dimension')}, {joined}.",
        f"Training took {counted(len(model.history['elbo_train']), 'epoch')}.",
    ]
    if support is not None:
        has_one = support.max(axis=1) >= MIN_SUPPORT
        overview["with a counterpart %"] = 100 * has_one.groupby(obs[batch_key].to_numpy()).mean()
        summary.append(_on_counterparts(int((~has_one).sum())))
    cells = _cells(model.adata, latent, {"dataset": batch_key, "type": labels_key}, support)
    return Report(
        model="PairedVAE",
        title=f"{datasets} in one space",
        summary=tuple(summary),
        check=model.check(),
        overview=overview.round(1),
        assumptions=(RESTS_ON[alignment], *COMMON),
        parameters=parameters_of(model),
        references=REFERENCES if alignment == "anchors" else REFERENCES[:1],
        figures=tuple(_figures(model, cells, labels_key, support)),
    )


def _on_counterparts(n_without: int) -> str:
    """Say how many cells no other dataset has the like of."""
    if n_without == 0:
        return (
            f"Every cell has a counterpart in another dataset (support of {MIN_SUPPORT} or more)."
        )
    return (
        f"{counted(n_without, 'cell')} without a counterpart in another dataset (support below "
        f"{MIN_SUPPORT}): of types that only one dataset has, perhaps."
    )


def _cells(
    adata: AnnData, latent: NDArray, keys: dict[str, str | None], support: pd.DataFrame | None
) -> AnnData:
    """Return what a map shows of the cells, at most 5,000 of them."""
    rows = np.sort(np.random.default_rng(0).permutation(len(latent))[:MAX_DRAWN])
    shown = {name: pd.Categorical(adata.obs[key]) for name, key in keys.items() if key}
    if support is not None:
        shown["support"] = support.max(axis=1).to_numpy()
    obs = pd.DataFrame(shown, adata.obs_names)
    return AnnData(obs=obs.iloc[rows], obsm={"X_latent": latent[rows]})


def _figures(
    model: BaseModelClass, cells: AnnData, labels_key: str | None, support: pd.DataFrame | None
) -> list[Figure]:
    from scovert import pl

    figures = [
        Figure(f"Map by {name}", MAPS[name], partial(draw_map, cells, name)) for name in cells.obs
    ]
    if support is not None and labels_key is not None:
        draw = partial(pl.support, support, model.adata.obs[labels_key], min_support=MIN_SUPPORT)
        caption = (
            f"Share of the cells of a type with support of {MIN_SUPPORT} or more in another "
            "dataset, and their number. A pale field is a type that the others lack."
        )
        figures.append(Figure("Counterparts by type", caption, draw))
    history = "Loss terms by epoch. Curves of training and validation should level off together."
    return [*figures, Figure("Training", history, partial(pl.history, model))]


def draw_map(cells: AnnData, color: str) -> Axes:
    """Draw a UMAP of cells in the colours of a column of ``obs``; it is laid out once."""
    import scanpy as sc

    from scovert.pl._marks import OKABE_ITO

    if "X_umap" not in cells.obsm:
        lay_out(cells)
    options = {"vmin": 0, "vmax": 1}
    if color != "support":
        n_kinds = cells.obs[color].nunique()
        options = {"palette": [*OKABE_ITO[:n_kinds]]} if n_kinds <= len(OKABE_ITO) else {}
    return sc.pl.umap(cells, color=color, title="", show=False, **options)


def lay_out(cells: AnnData) -> None:
    """Place cells in two dimensions by their neighbours in ``obsm["X_latent"]``."""
    import scanpy as sc

    sc.pp.neighbors(cells, use_rep="X_latent", random_state=0)
    sc.tl.umap(cells, random_state=0)
