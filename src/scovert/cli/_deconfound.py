"""``scovert deconfound``: effects of a treatment that survive what nobody measured."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli import _options as opt
from scovert.cli._session import fit, narrator, session
from scovert.cli._several import check_sources, read_cells
from scovert.cli._write import check_cells, check_places, write_all, write_table

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["deconfound"]

SLOTS = [
    ("obsm", "X_confounder"),
    ("layers", "confounder"),
    ("obs", "confounder_propensity"),
    ("obs", "confounder_class"),
    ("varm", "confounder_effects"),
]
"""Where `scovert.model.LatentConfounder.annotate` writes."""


class Identification(StrEnum):
    """What identifies effects, see `scovert.model.LatentConfounder`."""

    auto = "auto"
    classes = "classes"
    sparse = "sparse"
    controls = "controls"
    randomised = "randomised"


class ZType(StrEnum):
    """Kind of the unmeasured confounders."""

    continuous = "continuous"
    binary = "binary"


TreatmentKey = Annotated[
    str | None,
    typer.Option(
        help="Column of obs with the treatment of each cell (default: of several files, the name "
        "of each)."
    ),
]
Effects = Annotated[
    Path | None, typer.Option(metavar="EFFECTS.csv", help="Where to write the effects.")
]
Reference = Annotated[
    str | None,
    typer.Option(help="Level that the others are compared with; needed but for bool and 0/1."),
]
ClusterKey = Annotated[str | None, typer.Option(help="Column of obs with donors or samples.")]
SizeFactorKey = Annotated[
    str | None, typer.Option(help="Column of obs with size factors (default: total counts).")
]
Categories = Annotated[
    list[str] | None, typer.Option(help="Column of obs with categories; repeatable.")
]
Numbers = Annotated[list[str] | None, typer.Option(help="Column of obs with numbers; repeatable.")]
IdentifiedBy = Annotated[Identification, typer.Option(help="What tells effects from confounders.")]
Controls = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Genes without effect, one name per line.")
]
NLatent = Annotated[
    str, typer.Option(metavar="N", help="Number of unmeasured confounders, or auto.")
]
Kind = Annotated[ZType, typer.Option(help="Kind of confounders.")]
WriteLayer = Annotated[
    bool, typer.Option(help="Write deconfounded means, a dense layer of cells x genes.")
]
Accelerator = Annotated[str, typer.Option(help="Where to compute: auto, cpu, gpu.")]


def deconfound(  # noqa: PLR0913
    context: typer.Context,
    files: opt.InputFiles,
    *,
    treatment_key: TreatmentKey = None,
    output: opt.OutputFile,
    effects: Effects = None,
    report: opt.ReportFile = None,
    reference: Reference = None,
    layer: opt.Layer = None,
    cluster_key: ClusterKey = None,
    size_factor_key: SizeFactorKey = None,
    categorical_covariate: Categories = None,
    continuous_covariate: Numbers = None,
    identification: IdentifiedBy = Identification.auto,
    negative_controls: Controls = None,
    n_latent: NLatent = "auto",
    z_type: Kind = ZType.continuous,
    write_layer: WriteLayer = True,
    seed: opt.Seed = 0,
    accelerator: Accelerator = "auto",
    quiet: opt.Quiet = False,
    overwrite: opt.Overwrite = False,
    save_model: opt.SaveModel = None,
) -> None:
    """Estimate effects of a treatment with LatentConfounder.

    Several files are concatenated. The output is the input with obsm["X_confounder"] (the
    inferred confounders), layers["confounder"] (deconfounded means), obs["confounder_propensity"],
    obs["confounder_class"] (if there are hidden classes), varm["confounder_effects"] and, in
    uns["confounder"], what was assumed. Of several arms, varm["confounder_effects_ARM"] and
    obsm["confounder_propensity"].
    """
    with session(context, quiet=quiet):
        check_sources(files, treatment_key, "treatment_key")
        inputs = [*files, *([negative_controls] if negative_controls else [])]
        tables = [effects] if effects else []
        check_places([output], tables, report, [save_model], sources=inputs, overwrite=overwrite)
        options = _identify(identification, negative_controls)
        say = narrator(context, quiet=quiet)
        column = {"key": treatment_key, "argument": "treatment_key"}
        adata, treatment_key = read_cells(context, files, say, layer=layer, **column)
        writing = {"write_layer": write_layer, "overwrite": overwrite}
        check_cells(adata, output, "confounder", SLOTS, **writing)
        setup = {
            "treatment_key": treatment_key,
            "layer": layer,
            "reference": _level(adata, treatment_key, reference),
            "categorical_covariate_keys": categorical_covariate,
            "continuous_covariate_keys": continuous_covariate,
            "size_factor_key": size_factor_key,
            "cluster_key": cluster_key,
        }
        from scovert.model import LatentConfounder

        init = {"n_latent": _number(n_latent), "z_type": z_type.value}
        training = {"accelerator": accelerator, "enable_progress_bar": not quiet}
        model = fit(LatentConfounder, adata, setup, init, seed=seed, **training)
        model.annotate(**writing, **options)
        if effects is not None:
            write_table(model.get_treatment_effects(**options), effects)
        options |= {"save_model": save_model, "overwrite": overwrite}
        write_all(model, adata, [output, effects, report], say, **options)


def _identify(identification: Identification, file: Path | None) -> dict:
    """Return what identifies the effects as options of ``get_treatment_effects``."""
    options = {"identification": identification.value}
    if file is None:
        if identification == "controls":
            raise ValueError(
                "--identification controls needs --negative-controls FILE, with the names of "
                "genes that the treatment leaves alone, one per line."
            )
        return options
    if identification not in ("auto", "controls"):
        raise ValueError(
            f"--negative-controls says nothing with --identification {identification.value}. "
            "Leave one of them out."
        )
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not a file. Name one with a gene name on each line.")
    try:
        names = [line.strip() for line in file.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not a file of text. Name one with a gene name on each line."
        ) from error
    return options | {"negative_controls": [name for name in names if name]}


def _level(adata: AnnData, key: str, name: str | None) -> object:
    """Return the level of the treatment that is printed as `name`, or the name if none is."""
    levels = adata.obs[key].unique() if name is not None and key in adata.obs else []
    return next((level for level in levels if str(level) == name), name)


def _number(n_latent: str) -> int | str:
    return int(n_latent) if n_latent.isdecimal() else n_latent
