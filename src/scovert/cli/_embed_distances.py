"""``scovert embed-distances``: positions of samples whose distances reproduce a matrix."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli import _options as opt
from scovert.cli._distance_files import (
    add_tree,
    is_file_of_distances,
    read_distances,
    read_samples,
)
from scovert.cli._session import fit, narrator, session
from scovert.cli._write import check_cells, check_places, write_all

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["embed_distances"]

SLOTS = [("obsm", "X_distance"), ("obs", "distance_uniqueness"), ("obsp", "distance")]
"""Where `scovert.model.DistanceEmbedding.annotate` writes."""
ADDED = "sample_distances"
"""Slot of obsp for distances of a file."""


class Method(StrEnum):
    """How samples are placed."""

    auto = "auto"
    network = "network"
    linear = "linear"


Input = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        readable=False,
        help="Samples with raw counts: .h5ad, .biom, a table of QIIME 2 (.qza), or what other "
        "commands read.",
    ),
]
Distances = Annotated[
    str,
    typer.Option(
        metavar="KEY|FILE",
        help="Slot of obsp, or a table with names of samples (.tsv, .csv, .qza).",
    ),
]
Tree = Annotated[
    Path | None,
    typer.Option(
        metavar="TREE.nwk", help="Tree of the taxa (Newick or .qza), for UniFrac and the like."
    ),
]
SplitKey = Annotated[
    str | None, typer.Option(help="Column of obs with the subject: its samples stay together.")
]


def embed_distances(  # noqa: PLR0913
    context: typer.Context,
    file: Input,
    *,
    distances: Distances,
    tree: Tree = None,
    split_key: SplitKey = None,
    method: Annotated[Method, typer.Option(help="auto, network or linear.")] = Method.auto,
    output: opt.OutputFile,
    report: opt.ReportFile = None,
    layer: opt.Layer = None,
    write_distances: Annotated[
        bool, typer.Option("--write-distances", help="Write all predicted distances, too.")
    ] = False,
    seed: opt.Seed = 0,
    accelerator: opt.Accelerator = "auto",
    quiet: opt.Quiet = False,
    overwrite: opt.Overwrite = False,
    save_model: opt.SaveModel = None,
    max_epochs: opt.MaxEpochs = None,
) -> None:
    """Place samples by their distances with DistanceEmbedding.

    The output is the input with obsm["X_distance"] (for scanpy.pp.neighbors) and
    obs["distance_uniqueness"] (what of the squared distances is private to a sample). A saved
    model places new samples without any distances, in Python: DistanceEmbedding.load(FOLDER, new).
    """
    with session(context, quiet=quiet):
        say = narrator(context, quiet=quiet)
        check_places(
            [output], page=report, folders=[save_model], sources=[file], overwrite=overwrite
        )
        adata = read_samples(file)
        say(f"{file}: {adata.n_obs} samples, {adata.n_vars} taxa or genes.")
        slots = SLOTS if write_distances else SLOTS[:-1]
        check_cells(adata, output, "distance", slots, write_layer=False, overwrite=overwrite)
        setup = {
            "distances_key": _add_distances(adata, distances),
            "layer": layer,
            "tree_key": _add_tree(adata, tree),
        }
        training = {
            "max_epochs": max_epochs,
            "method": method.value,
            "split_key": split_key,
            "accelerator": accelerator,
            "enable_progress_bar": not quiet,
        }
        from scovert.model import DistanceEmbedding

        model = fit(DistanceEmbedding, adata, setup, {}, seed=seed, **training)
        model.annotate(write_distances=write_distances, overwrite=overwrite)
        ending = {"save_model": save_model, "overwrite": overwrite}
        write_all(model, adata, [output, report], say, **ending)
        say("Next: sc.pp.neighbors(adata, use_rep='X_distance').")


def _add_distances(adata: AnnData, distances: str) -> str:
    """Return the slot of the distances, where those of a file were put."""
    if distances in adata.obsp or not is_file_of_distances(distances):
        return distances
    from scovert import pp

    pp.distances(adata, read_distances(Path(distances)), key_added=ADDED)
    return ADDED


def _add_tree(adata: AnnData, tree: Path | None) -> str | None:
    """Return the slot of the tree, if there is one."""
    if tree is None:
        return None
    add_tree(adata, tree)
    return "tree"
