"""``scovert deconvolve``: which cells bulk samples are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scovert.cli._options import (
    Layer,
    OutputFile,
    Overwrite,
    Quiet,
    ReportFile,
    SaveModel,
    Seed,
)
from scovert.cli._read import check_source, is_table, read
from scovert.cli._session import (
    Subject,
    narrator,
    session,
    set_seed,
    speak_about,
    tell,
)
from scovert.cli._tables import group_types, read_groups, read_measured, read_sizes
from scovert.cli._write import (
    CELLS,
    TABLES,
    check_cells,
    check_model,
    check_output,
    check_report,
    places,
    save,
    write,
    write_table,
)
from scovert.core._words import counted

if TYPE_CHECKING:
    from anndata import AnnData

    from scovert.model import BulkDeconvolution, BulkResult, Report

__all__ = ["deconvolve"]

SLOTS = [("obsm", f"bulk_{name}") for name in ("proportions", "lower", "upper", "mrna_fractions")]
"""Where `scovert.model.BulkDeconvolution.annotate` writes, but for the layers of the types."""
ORDER = "Name the annotated cells first, and the bulk samples at last: REF.h5ad BULK.h5ad."


class Kind(StrEnum):
    """What bulk samples are measured in."""

    auto = "auto"
    counts = "counts"
    tpm = "tpm"


Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="REF.h5ad... BULK",
        readable=False,  # said in our words
        help="Annotated cells, of one study a file (any that `integrate` reads); and at last "
        "the bulk samples: .h5ad, or a table (.csv, .tsv, also .gz) with genes in rows or in "
        "columns.",
    ),
]
LabelsKey = Annotated[str, typer.Option(help="Column of obs with the type of each cell.")]
Table = Annotated[
    Path | None,
    typer.Option(
        metavar="TABLE.csv",
        help="Where to write the proportions, samples x types; TABLE_intervals.csv beside it "
        "receives them with the intervals, a row for each sample and type.",
    ),
]
BatchKey = Annotated[
    str | None, typer.Option(help="Column of obs with studies or chemistries: one fit each.")
]
SubjectKey = Annotated[str | None, typer.Option(help="Column of obs with donors.")]
BulkLayer = Annotated[str | None, typer.Option(help="Layer of the bulk samples (default: X).")]
GeneColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of a table of samples with the names of genes (default: the one with "
        "most genes of the reference).",
    ),
]
KindOfValues = Annotated[
    Kind,
    typer.Option(
        case_sensitive=False, help="What the bulk samples hold; tpm also for FPKM and CPM."
    ),
]
CellSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="RNA per cell: auto, table, reference, none, or a table of types and numbers.",
    ),
]
MeasuredTable = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Table of measured fractions, some samples x types or groups; empty where not "
        "measured.",
    ),
]
Group = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=TYPE,TYPE",
        help="Types that were measured together, known names with commas in one piece; "
        "repeatable.",
    ),
]
Unknown = Annotated[bool, typer.Option("--unknown", help="Allow for cells that no reference has.")]
ConditionKey = Annotated[
    str | None,
    typer.Option(help="Column of obs of the samples: expression of types by condition."),
]
WriteLayer = Annotated[
    bool, typer.Option(help="Write expression by type, dense layers of samples x genes.")
]
Interval = Annotated[
    float, typer.Option(min=0, max=1, help="Probability of the intervals; 0 for none, faster.")
]
States = Annotated[int, typer.Option(min=1, help="Most states of a type.")]
MinCells = Annotated[int, typer.Option(min=1, help="Fewest cells of a type.")]


def deconvolve(  # noqa: PLR0913
    context: typer.Context,
    files: Files,
    *,
    labels_key: LabelsKey,
    output: OutputFile,
    table: Table = None,
    report: ReportFile = None,
    batch_key: BatchKey = None,
    subject_key: SubjectKey = None,
    layer: Layer = None,
    bulk_layer: BulkLayer = None,
    gene_column: GeneColumn = None,
    kind: KindOfValues = Kind.auto,
    cell_size: CellSize = "auto",
    measured: MeasuredTable = None,
    group: Group = None,
    unknown: Unknown = False,
    condition_key: ConditionKey = None,
    write_layer: WriteLayer = True,
    interval: Interval = 0.9,
    n_states: States = 3,
    min_cells_per_type: MinCells = 10,
    seed: Seed = 0,
    quiet: Quiet = False,
    overwrite: Overwrite = False,
    save_model: SaveModel = None,
) -> None:
    """Find cell types in bulk samples with BulkDeconvolution.

    With several references each is fitted alone, and the results are averaged. The output is the
    bulk, samples x genes, with obsm["bulk_proportions"], obsm["bulk_lower"] and
    obsm["bulk_upper"] (intervals), obsm["bulk_mrna_fractions"], layers["bulk_TYPE"] (what the
    types express), layers["bulk_reliability_TYPE"] and, in uns["bulk"], what was assumed.
    With --table, intervals are in TABLE_intervals.csv too; relative ones compare samples.
    """
    with session(context, quiet=quiet):
        *references, source = files
        say, folders = narrator(context, quiet=quiet), _folders(references, save_model)
        tables, groups = _tables(table, interval), read_groups(group)
        _check_files(references, source)
        inputs = [*files, *([measured] if measured else []), Path(cell_size)]
        _check_outputs(output, tables, inputs, folders.values(), overwrite=overwrite)
        check_report(report, [output, *tables], inputs, overwrite=overwrite)
        options = {
            "layer": bulk_layer,
            "kind": kind.value,
            "cell_size": read_sizes(cell_size),
            "measured": read_measured(measured),
            "unknown": unknown,
            "interval": interval or None,
        }
        keys = {"labels_key": labels_key, "batch_key": batch_key, "subject_key": subject_key}
        init = {"n_states": n_states, "min_cells_per_type": min_cells_per_type}
        set_seed(seed)
        models = {f: _fit(context, f, keys | {"layer": layer}, init, say) for f in references}
        speak_about(context, Subject(source, layer="bulk_layer", is_alone=False))
        bulk = _read_bulk(source, models.values(), gene_column, say)
        check_cells(bulk, output, "bulk", SLOTS, write_layer=False, overwrite=overwrite)
        result = _average(models.values(), bulk, groups, options)
        writing = {"condition_key": condition_key, "write_layer": write_layer}
        models[references[0]].annotate(bulk, result=result, overwrite=overwrite, **writing)
        _write_tables(result, tables)
        for file, folder in folders.items():
            save(models[file], folder, overwrite=overwrite)
        write(bulk, output)
        tell(_report(models, result, report, overwrite=overwrite), say)
        say(f"Written to {places(output, *tables, report)}.")


def _tables(table: Path | None, interval: float) -> list[Path]:
    """Return the files of tables: of proportions, and of intervals if there are any."""
    if table is None:
        return []
    stem = Path(table.name.removesuffix(".gz")).stem  # of TABLE.csv.gz too
    beside = table.with_name(f"{stem}_intervals{table.name.removeprefix(stem)}")
    return [table, beside] if interval else [table]


def _check_files(references: list[Path], source: Path) -> None:
    if not references:
        raise ValueError(f"{source} is the only file. {ORDER}")
    for file in references:
        if is_table(file):
            raise ValueError(f"{file} is a table, and annotated cells are .h5ad files. {ORDER}")
        check_source(file)
    if not source.is_file():  # said before the references are fitted
        raise FileNotFoundError(f"{source} is not a file. Name a table or an .h5ad file.")
    names = [file.stem for file in references]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"Two references are called {twice!r}. Give them different names.")


def _check_outputs(
    output: Path,
    tables: list[Path],
    sources: list[Path],
    folders: Iterable[Path | None],
    *,
    overwrite: bool,
) -> None:
    if output.absolute() in [path.absolute() for path in tables]:
        raise FileExistsError(f"{output} is the output of the samples too. Name another file.")
    check_output(output, overwrite=overwrite, endings=CELLS, sources=sources)
    for path in tables:
        check_output(path, overwrite=overwrite, endings=TABLES, sources=sources)
    for folder in folders:
        check_model(folder, [output, *tables], overwrite=overwrite)


def _folders(references: list[Path], folder: Path | None) -> dict[Path, Path | None]:
    """Return where models go: one into the folder, each of several into its own in there."""
    if folder is None or len(references) == 1:
        return dict.fromkeys(references, folder)
    return {file: folder / file.stem for file in references}


def _fit(
    context: typer.Context, file: Path, setup: dict, init: dict, say: Callable[[str], None]
) -> BulkDeconvolution:
    from scovert.core._arguments import nearest
    from scovert.model import BulkDeconvolution

    speak_about(context, Subject(file))
    reference, key = read(file), setup["labels_key"]
    if key not in reference.obs:
        guess = nearest(key, list(map(str, reference.obs)))
        raise KeyError(
            f"`labels_key={key!r}` is not a column of obs of {file} (columns: "
            f"{list(reference.obs)}). {f'Did you mean {guess!r}?' if guess else ORDER}"
        )
    BulkDeconvolution.setup_anndata(reference, **setup)
    model = BulkDeconvolution(reference, **init)
    model.train()
    say(f"{file}: {reference.n_obs} cells of {len(model.types)} types, {reference.n_vars} genes.")
    return model


def _read_bulk(
    source: Path,
    models: Iterable[BulkDeconvolution],
    gene_column: str | None,
    say: Callable[[str], None],
) -> AnnData:
    """Read the samples, and say how."""
    from scovert.core.genes import GeneNames
    from scovert.data import read_bulk

    names = [GeneNames.of(model.adata.var) for model in models]
    genes = {gene: None for own in names for gene in own.known()}
    bulk = read_bulk(source, genes, gene_column=gene_column)
    if source.suffix.lower() == ".h5ad":
        say(f"{source}: {counted(bulk.n_obs, 'sample')}, {bulk.n_vars} genes.")
    else:
        say(f"{source}{bulk.uns['source'].removeprefix(source.name)}.")
    return bulk


def _average(
    models: Iterable[BulkDeconvolution],
    bulk: AnnData,
    groups: dict[str, str],
    options: dict,
) -> BulkResult:
    """Deconvolve with every reference; groups of measured types may be of any of them."""
    from scovert.model import BulkResult

    types = list(dict.fromkeys(kind for model in models for kind in model.types))
    options = options | {"groups": group_types(groups, types), "other_types": types}
    return BulkResult.average([model.deconvolve(bulk, **options) for model in models])


def _report(
    models: dict[Path, BulkDeconvolution],
    result: BulkResult,
    page: Path | None,
    *,
    overwrite: bool,
) -> Report:
    """Return the report of the first model, of several with the checks of all; and write it."""
    import pandas as pd

    from scovert.core.report import written as written_to

    report = next(iter(models.values())).report(result=result)
    if len(models) > 1:
        checks = [own.check().rename(index=f"{file}: {{}}".format) for file, own in models.items()]
        report = replace(report, check=pd.concat(checks))
    return written_to(report, page, overwrite=overwrite)


def _write_tables(result: BulkResult, files: list[Path]) -> None:
    """Write the proportions and the intervals, as far as there are places for them."""
    tables = [result.proportions.rename_axis("sample")]
    if result.lower is not None:
        tables.append(result.to_frame().set_index("sample"))
    for file, table in zip(files, tables[: len(files)], strict=True):
        write_table(table, file)
