"""Draw the pictures of the README and of the model pages, from bundled and simulated data.

`make figures` runs this and writes ``docs/images/NAME.png``; names after the command draw only
these: ``python docs/figures.py paired``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
import scvi
from matplotlib.figure import Figure

import scovert
from scovert import model as models

IMAGES = Path(__file__).parent / "images"
WIDE = (5.6, 2.9)  # inches: two panels, whose words are legible at half the width of a page
TALL = (4.6, 3.4)  # inches: one panel, which is nearly square
DOTS_PER_INCH = 140  # files stay below 150 kB
GREY, BLUE = "0.65", "#0072B2"  # the colours of the volcano plots
BATCHES = [BLUE, "#E69F00"]


def paired() -> Figure:
    """Cells of two batches, before and after."""
    adata = scovert.data.two_batches(scovert.data.pbmc68k(), thinning=0.5, capture_sd=0.7)
    models.PairedVAE.setup_anndata(adata, batch_key="batch")
    model = models.PairedVAE(adata)
    model.train(enable_progress_bar=False)
    model.annotate()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.pp.pca(adata)
    figure, axes = plt.subplots(1, 2, figsize=WIDE, layout="constrained")
    for ax, slot, title in zip(axes, ("X_pca", "X_paired"), ("before", "after"), strict=True):
        sc.pp.neighbors(adata, use_rep=slot)
        sc.tl.umap(adata)
        sc.pl.umap(adata, color="batch", title=title, palette=BATCHES, ax=ax, show=False)
    axes[0].get_legend().remove()
    return figure


def confounder() -> Figure:
    """Effects of a treatment without and with the adjustment, against the true ones."""
    cells = scovert.simulate.hidden_covariate(
        scovert.data.pbmc68k(), "cell_type", effect_fraction=0.1, fold_change=3
    )
    models.LatentConfounder.setup_anndata(cells, treatment_key="treatment")
    model = models.LatentConfounder(cells)
    model.train(enable_progress_bar=False)
    effects = model.get_treatment_effects().join(cells.var)
    effects = effects[effects["reason"] == ""]
    figure, axes = plt.subplots(1, 2, figsize=WIDE, layout="constrained", sharex=True, sharey=True)
    for ax, suffix, title in zip(
        axes, ("_naive", ""), ("without the model", "with it"), strict=True
    ):
        _draw_called(ax, effects, suffix)
        ax.set_title(title)
    axes[0].set_ylabel("estimated log2 fold change")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_called(ax: plt.Axes, effects: pd.DataFrame, suffix: str) -> None:
    """Draw estimated against true effects; genes that are called stand out."""
    is_called = effects[f"q_value{suffix}"] < 0.05
    for chosen, label, style in (
        (~is_called, "not called", {"color": GREY, "marker": "o", "s": 10}),
        (
            is_called,
            "called at a false discovery rate of 5 %",
            {"color": BLUE, "marker": "D", "s": 16},
        ),
    ):
        own = effects[chosen]
        ax.scatter(own["truth_log2_fc"], own[f"log2_fc{suffix}"], label=label, **style)
    ax.axline((0, 0), slope=1, color="0.4", linewidth=1, linestyle="--")
    n_false = int((is_called & ~effects["truth_is_de"]).sum())
    ax.set(
        xlabel=f"true log2 fold change\n{is_called.sum()} called, {n_false} in error",
        ylim=(-3, 3),  # a few genes of low counts lie beyond
    )


def niche() -> Figure:
    """Regions of a tissue and the niches that were found in it."""
    tissue = scovert.simulate.niche(1000, 2)
    models.NicheVAE.setup_anndata(
        tissue,
        likelihood="nb",
        sample_key="sample",
        batch_key="sample",
        labels_key="cell_type",
    )
    model = models.NicheVAE(tissue)
    model.train(enable_progress_bar=False)
    model.annotate(n_niches=4)
    section = tissue[tissue.obs["sample"] == tissue.obs["sample"].iloc[0]]
    columns = {"niches that were found": "niche", "true regions": "truth_region"}
    panels = {title: _labelled(section, column) for title, column in columns.items()}
    shown = anndata.concat(panels, label="panel", index_unique="-")
    shown.obs["panel"] = pd.Categorical(shown.obs["panel"], list(columns))
    return scovert.pl.niches(shown, "label", sample_key="panel")[0].figure


def _labelled(section: anndata.AnnData, column: str) -> anndata.AnnData:
    """Cells of a section with one column of labels."""
    kept = anndata.AnnData(obs=pd.DataFrame(index=section.obs_names))
    kind, names = column.split("_")[-1], section.obs[column].astype(str)
    kept.obs["label"] = kind + " " + names.str.removeprefix(f"{kind}_")
    kept.obsm["spatial"] = section.obsm["spatial"]
    return kept


def bulk() -> Figure:
    """Fractions of cells in bulk samples, estimated and true."""
    reference = scovert.data.pbmc68k()
    samples = scovert.simulate.bulk(reference, "cell_type", n_samples=8)
    models.BulkDeconvolution.setup_anndata(reference, labels_key="cell_type")
    model = models.BulkDeconvolution(reference, min_cells_per_type=8)
    model.train(enable_progress_bar=False)
    result = model.deconvolve(samples, kind="counts", cell_size="reference")
    figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    scovert.pl.agreement(result.proportions, samples.obsm["truth_proportions"], ax=ax)
    ax.set_xlabel("true proportion")
    return figure


def distance() -> Figure:
    """Distances between samples, given and embedded; a fifth of the samples is new."""
    cohort = scovert.simulate.distance(300, 300)
    fitted = cohort[60:].copy()
    models.DistanceEmbedding.setup_anndata(fitted, "unweighted_unifrac", tree_key="tree")
    model = models.DistanceEmbedding(fitted)
    model.train(enable_progress_bar=False)
    figure, ax = plt.subplots(figsize=TALL, layout="constrained")
    is_fitted = cohort.obs_names.isin(fitted.obs_names[model.get_split() == "train"])
    given = cohort.obsp["unweighted_unifrac"]
    split = np.where(is_fitted, "train", "new")
    scovert.pl.distance_agreement(model.get_distances(cohort), given, split, ax=ax)
    ax.set(xlabel="given distance, unweighted UniFrac", ylabel="embedded distance")
    return figure


def imputation() -> Figure:
    """Totals of genes that were held back from a panel, imputed and counted."""
    cells = scovert.data.pbmc68k()
    atlas, panel = cells[:400].copy(), cells[400:, :500].copy()
    joined = scovert.data.concat_measured({"atlas": atlas, "panel": panel})
    models.MaskedImputation.setup_anndata(joined, "batch", measured_key="measured")
    model = models.MaskedImputation(joined)
    model.train(enable_progress_bar=False)
    figure, ax = plt.subplots(figsize=TALL, layout="constrained")
    scovert.pl.imputation_agreement(model.get_gene_agreement(), ax=ax)
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "paired": paired,
    "confounder": confounder,
    "niche": niche,
    "bulk": bulk,
    "distance": distance,
    "imputation": imputation,
}


def main(names: list[str]) -> None:
    """Draw the pictures with these names, or all."""
    IMAGES.mkdir(exist_ok=True)
    for name in names or FIGURES:
        scvi.settings.seed = 0
        np.random.seed(0)  # noqa: NPY002  umap draws from it
        figure = FIGURES[name]()
        figure.savefig(IMAGES / f"{name}.png", dpi=DOTS_PER_INCH, bbox_inches="tight")
        plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
