"""Command line: one subcommand, one short function that calls the public API."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scovert.model import PairedVAE

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Alignment(StrEnum):
    """How datasets are aligned, see `scovert.model.PairedVAE`."""

    anchors = "anchors"
    adversarial = "adversarial"
    grl = "grl"
    none = "none"


Seed = Annotated[int, typer.Option(help="Seed of every random number.")]
Accelerator = Annotated[str, typer.Option(help="Where to train: auto, cpu, gpu, mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
SaveModel = Annotated[Path | None, typer.Option(help="Folder to save the trained model in.")]
MaxEpochs = Annotated[int | None, typer.Option(min=1, help="Longest training.")]


@app.callback()
def scovert() -> None:
    """Models for single-cell counts: AnnData in, annotated AnnData out."""


@app.command()
def demo(
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
    with _session(quiet=quiet):
        names = ("demo.h5ad", "umap.png", "batch_mixing.png", "history.png", "metrics.csv")
        files = {name: output / name for name in names}
        for file in files.values():
            _check_output(file, overwrite=overwrite)
        from scovert.data import pbmc68k, two_batches

        say = _narrator(quiet=quiet)
        say("Making two batches of 700 blood cells, the second with its own capture of each gene.")
        adata = two_batches(pbmc68k(), thinning=0.5, capture_sd=1.0)
        say("Embedding the cells before integration: principal components and UMAP.")
        _embed_before(adata, seed)
        say("Looking for anchors and training PairedVAE.")
        options = {"seed": seed, "accelerator": accelerator, "max_epochs": max_epochs}
        model = _fit(adata, {"batch_key": "batch"}, {}, quiet=quiet, **options)
        say("Embedding the cells after integration, and drawing.")
        _embed_after(adata, seed)
        table = _compare(adata)
        output.mkdir(parents=True, exist_ok=True)
        _draw(adata, model, files)
        table.to_csv(files["metrics.csv"])
        _write(adata, files["demo.h5ad"])
        _save(model, save_model, overwrite=overwrite)
        say(f"\n{table.round(2).to_string()}\n")
        say("batch mixing and label transfer (cell types of one batch from the other): 1 is best.")
        say(f"Written to {output}: {', '.join(names)}. Open demo.h5ad with scanpy.read_h5ad.")


@app.command()
def integrate(  # noqa: PLR0913
    file: Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Cells with raw counts.")],
    *,
    batch_key: Annotated[str, typer.Option(help="Column of obs with the dataset of each cell.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.h5ad", help="Result.")],
    layer: Annotated[str | None, typer.Option(help="Layer with raw counts [default: X].")] = None,
    alignment: Annotated[
        Alignment, typer.Option(help="How datasets are aligned.")
    ] = Alignment.anchors,
    write_layer: Annotated[
        bool, typer.Option(help="Write corrected counts, a dense layer of cells x genes.")
    ] = True,
    seed: Seed = 0,
    accelerator: Accelerator = "auto",
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    save_model: SaveModel = None,
    max_epochs: MaxEpochs = None,
) -> None:
    """Integrate the datasets in a file with PairedVAE.

    The output is the input with obsm["X_paired"] (the shared space, for scanpy.pp.neighbors),
    layers["paired"] (corrected counts) and, with anchors, obs["paired_support"].
    """
    with _session(quiet=quiet):
        _check_output(output, overwrite=overwrite, source=file)
        adata = _read(file)
        say = _narrator(quiet=quiet)
        say(f"{file}: {adata.n_obs} cells, {adata.n_vars} genes.")
        options = {"seed": seed, "accelerator": accelerator, "max_epochs": max_epochs}
        setup = {"batch_key": batch_key, "layer": layer}
        init = {"alignment": alignment.value}
        model = _fit(adata, setup, init, quiet=quiet, write_layer=write_layer, **options)
        _write(adata, output)
        _save(model, save_model, overwrite=overwrite)
        for quantity, row in model.check().query("verdict != 'ok'").iterrows():
            say(f"{quantity} = {row['value']:.3g}: {row['advice']}")
        say(f"Written to {output}. Next: sc.pp.neighbors(adata, use_rep='X_paired').")


@contextmanager
def _session(*, quiet: bool) -> Iterator[None]:
    """Show what the package refuses and warns about as one line each."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if quiet else "default", UserWarning)
            for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
                warnings.simplefilter("ignore", category)
            warnings.showwarning = _show_warning
            yield
    except (ValueError, KeyError, TypeError, OSError, MemoryError, FloatingPointError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(1) from error


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    typer.echo(f"warning: {message}", err=True)


def _narrator(*, quiet: bool) -> typer.echo:
    return (lambda _: None) if quiet else typer.echo


def _check_output(path: Path, *, overwrite: bool, source: Path | None = None) -> None:
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise FileExistsError(f"{path} is the input. Name another output.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Name another output, or pass --overwrite.")


def _read(file: Path) -> AnnData:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file. Name an .h5ad file.")
    from anndata import read_h5ad

    try:
        return read_h5ad(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is not an .h5ad file that anndata can read ({error}). Write one with "
            "`adata.write_h5ad(...)`."
        ) from error


def _write(adata: AnnData, file: Path) -> None:
    from scovert._saving import write_adata

    file.parent.mkdir(parents=True, exist_ok=True)
    write_adata(adata, file)


def _save(model: PairedVAE, folder: Path | None, *, overwrite: bool) -> None:
    if folder is not None:
        model.save(folder, overwrite=overwrite)


def _fit(
    adata: AnnData,
    setup: dict,
    init: dict,
    *,
    quiet: bool,
    seed: int,
    accelerator: str,
    max_epochs: int | None,
    write_layer: bool = True,
) -> PairedVAE:
    import scvi

    from scovert.model import PairedVAE

    for name in ("lightning.pytorch", "lightning.fabric"):  # they set a level when imported
        logging.getLogger(name).setLevel(logging.ERROR)
    scvi.settings.seed = seed
    PairedVAE.setup_anndata(adata, **setup)
    model = PairedVAE(adata, **init)
    model.train(max_epochs, accelerator=accelerator, enable_progress_bar=not quiet)
    model.annotate(write_layer=write_layer)
    return model


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
