"""What ``scovert demo`` shows: every model on data with a known truth, and how near it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from scovert.core._save_load import SaveLoadMixin
    from scovert.model import Report

__all__ = ["SHOWS", "Show"]


@dataclass(frozen=True)
class Show:
    """What comes out of one model: the annotated data, the model and its report."""

    adata: AnnData
    model: SaveLoadMixin
    report: Report

    @classmethod
    def of(cls, adata: AnnData, model: SaveLoadMixin, report: Report, truth: str) -> Show:
        """Return it with a sentence on the truth at the head of the report."""
        return cls(adata, model, replace(report, summary=(truth, *report.summary)))


def show_paired(seed: int, training: dict) -> Show:
    """Integrate two batches of real cells with PairedVAE."""
    from scovert.core.report import Figure
    from scovert.data import pbmc68k, two_batches
    from scovert.model import PairedVAE

    adata = two_batches(pbmc68k(), thinning=0.5, capture_sd=1.0)
    adata.obsm["X_pca"] = _principal_components(adata, seed)
    PairedVAE.setup_anndata(adata, batch_key="batch")
    model = PairedVAE(adata)
    model.train(**training)
    model.annotate()
    scores = _scores(adata)
    (mixed, told), (mixed_after, told_after) = scores["X_pca"], scores["X_paired"]
    truth = (
        "Truth: one dataset of 700 blood cells, cut in two, each gene of one half caught with an "
        f"efficiency of its own. Batch mixing, 1 at best: {mixed:.2f} by principal components, "
        f"{mixed_after:.2f} here. Cell types told from the other batch: {told:.0%} and "
        f"{told_after:.0%}."
    )
    mixing = Figure(
        "Batch mixing by type",
        "How evenly the two batches surround the cells of a type, 1 at best: before (X_pca) and "
        "after (X_paired).",
        partial(_draw_mixing, adata),
    )
    report = model.report(labels_key="cell_type")
    return Show.of(adata, model, replace(report, figures=(*report.figures, mixing)), truth)


def _principal_components(adata: AnnData, seed: int) -> np.ndarray:
    """Return what cells are without a model: 30 components of scaled log expression."""
    import scanpy as sc

    scaled = adata.copy()
    sc.pp.normalize_total(scaled, target_sum=1e4)
    sc.pp.log1p(scaled)
    scaled.X = scaled.X.toarray()
    sc.pp.scale(scaled, max_value=10)
    sc.pp.pca(scaled, n_comps=30, random_state=seed)
    return scaled.obsm["X_pca"]


def _scores(adata: AnnData) -> dict[str, tuple[float, float]]:
    from scovert.metrics import batch_mixing, label_transfer

    batch, labels = adata.obs["batch"].to_numpy(), adata.obs["cell_type"].to_numpy()
    return {
        key: (
            batch_mixing(adata.obsm[key], batch, labels),
            label_transfer(adata.obsm[key], batch, labels),
        )
        for key in ("X_pca", "X_paired")
    }


def _draw_mixing(adata: AnnData) -> object:
    from scovert import pl

    keys = {"batch_key": "batch", "labels_key": "cell_type"}
    return pl.batch_mixing(adata, **keys, use_rep=["X_pca", "X_paired"])


def show_confounder(seed: int, training: dict) -> Show:
    """Tell effects from a hidden type of real cells with LatentConfounder."""
    from scovert.data import pbmc68k
    from scovert.model import LatentConfounder
    from scovert.model.confounder._report import FDR
    from scovert.simulate import hidden_covariate

    options = {"effect_fraction": 0.1, "fold_change": 3.0, "seed": seed}
    adata = hidden_covariate(pbmc68k(), "cell_type", **options)
    LatentConfounder.setup_anndata(adata, "treatment")
    model = LatentConfounder(adata)
    model.train(**{k: v for k, v in training.items() if k != "max_epochs"})
    model.annotate()
    effects = model.get_treatment_effects()
    is_null = ~adata.var["truth_is_de"].to_numpy()
    false = [int((effects[q][is_null] < FDR).sum()) for q in ("q_value_naive", "q_value")]
    truth = (
        "Truth: 700 blood cells, treated more often if they are of some types, which the model is "
        f"not told. {(~is_null).sum()} genes respond. Of the others {false[0]} are called without "
        f"regard to what was not measured, and {false[1]} with it."
    )
    return Show.of(adata, model, model.report(), truth)


def show_niche(seed: int, training: dict) -> Show:
    """Find the regions of three simulated slides with NicheVAE."""
    from sklearn.metrics import adjusted_rand_score

    from scovert.model import NicheVAE
    from scovert.simulate import niche

    adata = niche(1500, 3, seed=seed)
    keys = {"sample_key": "sample", "batch_key": "sample", "labels_key": "cell_type"}
    NicheVAE.setup_anndata(adata, likelihood="nb", **keys)
    model = NicheVAE(adata)
    model.train(**training)
    n_regions = adata.obs["truth_region"].nunique()
    model.annotate(n_niches=n_regions)
    found = adjusted_rand_score(adata.obs["truth_region"], adata.obs["niche"])
    truth = (
        f"Truth: simulated tissue with {n_regions} regions on three slides. The niches agree with "
        f"them by an adjusted Rand index of {found:.2f} (1 at best, 0 by chance)."
    )
    return Show.of(adata, model, model.report(n_niches=n_regions), truth)


def show_bulk(seed: int, training: dict) -> Show:
    """Deconvolve bulk samples that are mixed of real cells with BulkDeconvolution."""
    from scovert.data import pbmc68k
    from scovert.model import BulkDeconvolution
    from scovert.simulate import bulk

    reference = pbmc68k()
    samples = bulk(reference, "cell_type", n_samples=8, seed=seed)
    BulkDeconvolution.setup_anndata(reference, labels_key="cell_type")
    model = BulkDeconvolution(reference, min_cells_per_type=8)
    model.train()
    result = model.deconvolve(samples, kind="counts", cell_size="reference")
    model.annotate(samples, result=result, write_layer=False)
    expected = samples.obsm["truth_proportions"]
    error = _root_mean_square(result.proportions - expected)
    even = _root_mean_square(1 / expected.shape[1] - expected)
    truth = (
        f"Truth: {samples.n_obs} samples mixed of known shares of the cells of the reference. "
        f"Error of a proportion, root mean square: {100 * error:.1f} %; if all types were taken "
        f"for equally frequent {100 * even:.1f} %."
    )
    return Show.of(samples, model, model.report(result=result), truth)


def show_imputation(seed: int, training: dict) -> Show:
    """Impute genes that were taken from some of real cells with MaskedImputation."""
    import numpy as np

    from scovert.data import concat_measured, pbmc68k
    from scovert.model import MaskedImputation

    cells = pbmc68k()
    rng = np.random.default_rng(seed)
    rows, genes = rng.permutation(cells.n_obs), rng.permutation(cells.n_vars)
    whole, panel = cells[rows[:400]].copy(), cells[rows[400:], np.sort(genes[:500])].copy()
    adata = concat_measured({"atlas": whole, "panel": panel})
    MaskedImputation.setup_anndata(adata, "batch", measured_key="measured")
    model = MaskedImputation(adata)
    model.train(**training)
    model.annotate()
    hidden = cells.var_names[genes[500:]]
    imputed = model.get_imputed(indices=(adata.obs["batch"] == "panel").to_numpy())
    true = np.ravel(cells[rows[400:], hidden].X.sum(0))
    off = np.abs(np.log2((imputed[hidden].sum().to_numpy() + 0.5) / (true + 0.5)))
    truth = (
        f"Truth: of {len(rows) - 400} blood cells {len(hidden)} genes were hidden. Their imputed "
        f"totals are off by a factor of {2 ** np.median(off):.2f} in the median (1 at best)."
    )
    return Show.of(adata, model, model.report(), truth)


def show_distance(seed: int, training: dict) -> Show:
    """Place simulated samples by their UniFrac distances with DistanceEmbedding."""
    import numpy as np

    from scovert.model import DistanceEmbedding
    from scovert.simulate import distance

    adata = distance(250, 200, seed=seed)
    known, new = adata[:200].copy(), adata[200:].copy()
    key = "unweighted_unifrac"
    DistanceEmbedding.setup_anndata(known, key, tree_key="tree")
    model = DistanceEmbedding(known)
    model.train(**training)
    model.annotate()
    found = model.get_distances(new, known).to_numpy()
    true = adata.obsp[key][200:, :200]
    r2 = 1 - np.square(found - true).sum() / np.square(true - true.mean()).sum()
    truth = (
        "Truth: 250 simulated samples with a tree, of which 50 were kept apart. R2 of their "
        f"distances to the others: {r2:.2f} (1 at best, 0 by the mean distance)."
    )
    return Show.of(known, model, model.report(), truth)


def _root_mean_square(table: pd.DataFrame) -> float:
    return float((table**2).to_numpy().mean() ** 0.5)


SHOWS: dict[str, Callable[[int, dict], Show]] = {
    "paired": show_paired,
    "confounder": show_confounder,
    "niche": show_niche,
    "bulk": show_bulk,
    "imputation": show_imputation,
    "distance": show_distance,
}
"""By stem: takes the seed, and options of ``train``."""
