"""``scovert demo``: two batches of real cells, integrated and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli._integrate import fit_paired
from scovert.cli._options import Accelerator, MaxEpochs, Overwrite, Quiet, SaveModel, Seed
from scovert.cli._session import narrator, session
from scovert.cli._write import check_model, check_output, save, write

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scovert.model import PairedVAE

__all__ = ["demo"]


def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path(
        "scovert-demo"
    ),
    *,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    save_model: SaveModel = None,
    max_epochs: MaxEpochs = None,
) -> None:
    """Integrate two batches of 700 real blood cells and draw them before and after."""
    with session(context, quiet=quiet):
        names = ("demo.h5ad", "umap.png", "batch_mixing.png", "history.png", "metrics.csv")
        files = {name: output / name for name in names}
        for file in files.values():
            check_output(file, overwrite=overwrite)
        check_model(save_model, [*files.values()], overwrite=overwrite)
        from scovert.data import pbmc68k, two_batches

        say = narrator(context, quiet=quiet)
        say("Making two batches of 700 blood cells, the second with its own capture of each gene.")
        adata = two_batches(pbmc68k(), thinning=0.5, capture_sd=1.0)
        say("Embedding the cells before integration: principal components and UMAP.")
        _embed_before(adata, seed)
        say("Looking for anchors and training PairedVAE.")
        options = {"seed": seed, "accelerator": accelerator, "max_epochs": max_epochs}
        model = fit_paired(adata, {"batch_key": "batch"}, {}, {}, quiet=quiet, **options)
        say("Embedding the cells after integration, and drawing.")
        _embed_after(adata, seed)
        table = _compare(adata)
        output.mkdir(parents=True, exist_ok=True)
        _draw(adata, model, files)
        table.to_csv(files["metrics.csv"])
        save(model, save_model, overwrite=overwrite)
        write(adata, files["demo.h5ad"])
        say(f"\n{table.round(2).to_string()}\n")
        say("batch mixing and label transfer (cell types of one batch from the other): 1 is best.")
        say(f"Written to {output}: {', '.join(names)}. Open demo.h5ad with scanpy.read_h5ad.")


def _embed_before(adata: AnnData, seed: int) -> None:
    import scanpy as sc

    scaled = adata.copy()
    sc.pp.normalize_total(scaled, target_sum=1e4)
    sc.pp.log1p(scaled)
    scaled.X = scaled.X.toarray()
    sc.pp.scale(scaled, max_value=10)
    sc.pp.pca(scaled, n_comps=30, random_state=seed)
    sc.pp.neighbors(scaled, use_rep="X_pca", random_state=seed)
    sc.tl.umap(scaled, random_state=seed)
    adata.obsm["X_pca"] = scaled.obsm["X_pca"]
    adata.obsm["X_umap_before"] = scaled.obsm["X_umap"]


def _embed_after(adata: AnnData, seed: int) -> None:
    import scanpy as sc

    sc.pp.neighbors(adata, use_rep="X_paired", random_state=seed)
    sc.tl.umap(adata, random_state=seed)


def _compare(adata: AnnData) -> pd.DataFrame:
    import pandas as pd

    from scovert.metrics import batch_mixing, label_transfer

    rows = {"before (PCA)": "X_pca", "after (PairedVAE)": "X_paired"}
    batch, labels = adata.obs["batch"].to_numpy(), adata.obs["cell_type"].to_numpy()
    scores = {
        name: {
            "batch mixing": batch_mixing(adata.obsm[key], batch, labels),
            "label transfer": label_transfer(adata.obsm[key], batch, labels),
        }
        for name, key in rows.items()
    }
    return pd.DataFrame(scores).T


def _draw(adata: AnnData, model: PairedVAE, files: dict[str, Path]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import scanpy as sc

    from scovert import pl

    figure, axes = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
    for row, (basis, when) in zip(
        axes, {"umap_before": "before (PCA)", "umap": "after (PairedVAE)"}.items(), strict=True
    ):
        for ax, color in zip(row, ("batch", "cell_type"), strict=True):
            title = f"{color.replace('_', ' ')}, {when}"
            sc.pl.embedding(adata, basis, color=color, ax=ax, show=False, title=title)
    figure.savefig(files["umap.png"], dpi=120)
    mixing = pl.batch_mixing(
        adata, batch_key="batch", labels_key="cell_type", use_rep=["X_pca", "X_paired"]
    )
    for ax, name in ((mixing, "batch_mixing.png"), (pl.history(model).flat[0], "history.png")):
        ax.figure.savefig(files[name], dpi=120, bbox_inches="tight")
    plt.close("all")
