"""The command line: what it writes, what it refuses, and that it leaves the input alone."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from typer.main import get_command
from typer.testing import CliRunner, Result

import scovert
from scovert.cli import COMMANDS, app
from scovert.cli._shows import SHOWS
from scovert.simulate import confounder

SHORT = ("--max-epochs", "3", "--quiet", "--accelerator", "cpu")


@pytest.fixture
def source(tmp_path: Path, toy: AnnData) -> Path:
    toy.obs["note"] = [f"note {i}" for i in range(toy.n_obs)]
    toy.write_h5ad(tmp_path / "in.h5ad", convert_strings_to_categoricals=False)
    return tmp_path / "in.h5ad"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def integrate(source: Path, *arguments: object) -> Result:
    output = source.parent / "out.h5ad"
    return run("integrate", source, "--batch-key", "batch", "-o", output, *SHORT, *arguments)


def test_integrate_adds_results_and_leaves_the_input_alone(source: Path, toy: AnnData) -> None:
    before = sha256(source.read_bytes()).digest()
    result = integrate(source)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""  # --quiet
    assert sha256(source.read_bytes()).digest() == before
    written = ad.read_h5ad(source.parent / "out.h5ad")
    assert written.obsm["X_paired"].shape == (67, 10)
    assert np.isfinite(written.layers["paired"]).all()
    assert written.obs["paired_support"].between(0, 1).all()
    np.testing.assert_array_equal(written.X.toarray(), toy.X.toarray())
    assert list(written.obs["note"]) == list(toy.obs["note"])
    assert not isinstance(written.obs["note"].dtype, type(written.obs["batch"].dtype))


def test_integrate_is_reproducible_and_takes_a_seed(source: Path) -> None:
    latents = []
    for seed in (1, 1, 2):
        assert integrate(source, "--seed", seed, "--overwrite").exit_code == 0
        latents.append(ad.read_h5ad(source.parent / "out.h5ad").obsm["X_paired"])
    np.testing.assert_array_equal(latents[0], latents[1])
    assert np.abs(latents[0] - latents[2]).max() > 1e-3


def test_integrate_saves_a_model_that_loads(source: Path) -> None:
    from scovert.model import PairedVAE

    folder = source.parent / "model"
    assert integrate(source, "--save-model", folder, "--no-write-layer").exit_code == 0
    written = ad.read_h5ad(source.parent / "out.h5ad")
    assert "paired" not in written.layers
    latent = PairedVAE.load(folder, ad.read_h5ad(source)).get_latent_representation()
    np.testing.assert_allclose(latent, written.obsm["X_paired"], atol=1e-6)


def test_integrate_with_a_layer_and_an_adversary(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out = "scovert.model.paired._report.lay_out"  # of scanpy, which takes seconds
    monkeypatch.setattr(lay_out, lambda a: a.obsm.update(X_umap=a.obsm["X_latent"][:, :2]))
    page = source.parent / "report.html"
    result = integrate(source, "--layer", "raw", "--alignment", "adversarial", "--report", page)
    assert result.exit_code == 0, result.output
    assert "paired_support" in ad.read_h5ad(source.parent / "out.h5ad").obs
    assert "2 datasets in one space" in page.read_text()
    assert "Map by type" not in page.read_text()
    output = ("-o", source.parent / "typed.h5ad", "--report", source.parent / "typed.html")
    typed = ["integrate", source, "--batch-key", "batch", *output, *SHORT, "--labels-key"]
    refused = run(*typed, "type")
    assert refused.exit_code == 1
    assert "--labels-key type is not a column" in refused.stderr
    assert run(*typed, "cell_type").exit_code == 0
    assert "Map by type" in (source.parent / "typed.html").read_text()


@pytest.fixture(scope="module")
def treated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write cells with a treatment of two and of three levels, donors and covariates."""
    adata = confounder("sparse", n_cells=300, seed=1)
    rng = np.random.default_rng(0)
    adata.obs["arm"] = np.where(adata.obs["treatment"], "stim", "ctrl")
    adata.obs["dose"] = rng.choice([0, 1, 2], 300)
    adata.obs["sex"] = rng.choice(["f", "m"], 300)
    adata.obs["age"] = rng.uniform(20, 40, 300) + 30 * adata.obs["treatment"]
    adata.layers["raw"] = adata.X.copy()
    file = tmp_path_factory.mktemp("treated") / "in.h5ad"
    adata.write_h5ad(file)
    return file


def deconfound(source: Path, output: Path, *arguments: object) -> Result:
    key = () if "--treatment-key" in arguments else ("--treatment-key", "treatment")
    return run("deconfound", source, *key, "-o", output, "--accelerator", "cpu", *arguments)


def test_deconfound_writes_what_the_model_finds(treated: Path, tmp_path: Path) -> None:
    from scovert.model import LatentConfounder

    before = sha256(treated.read_bytes()).digest()
    names = ("o.h5ad", "effects.csv", "model", "report.html")
    output, table, folder, page = (tmp_path / name for name in names)
    covariates = [a for i in (1, 2, 3, 4) for a in ("--continuous-covariate", f"covariate_{i}")]
    result = deconfound(
        treated, output, "--effects", table, "--save-model", folder, "--report", page, *covariates,
        "--categorical-covariate", "sex", "--size-factor-key", "size_factor", "--layer", "raw",
        "--n-latent", 1, "--z-type", "binary",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert sha256(treated.read_bytes()).digest() == before
    written, effects = ad.read_h5ad(output), pd.read_csv(table, index_col="gene")
    assert written.obsm["X_confounder"].shape == (300, 1)
    assert np.isfinite(written.layers["confounder"]).all()
    assert written.uns["confounder"]["identification"] == "classes"
    stored = written.varm["confounder_effects"]
    np.testing.assert_allclose(stored["log2_fc"], effects["log2_fc"])
    assert written.uns["confounder"]["assumption"] in result.stdout
    assert f"Written to {output}, {table}, {page}." in result.stdout
    n_called = (effects["q_value"] < 0.05).sum()
    assert f"{n_called} of " in page.read_text()
    assert f"{n_called} of {effects['q_value'].notna().sum()} genes have q < 0.05" in result.stdout
    model = LatentConfounder.load(folder, ad.read_h5ad(treated))
    latent = model.get_latent_representation()
    np.testing.assert_allclose(latent, written.obsm["X_confounder"], atol=1e-6)


def test_deconfound_is_quiet_and_reproducible(treated: Path, tmp_path: Path) -> None:
    latents = []
    for name in ("a.h5ad", "b.h5ad"):
        options = ("--quiet", "--no-write-layer", "--seed", 3, "--n-latent", 1)
        result = deconfound(treated, tmp_path / name, *options, "--identification", "randomised")
        assert result.exit_code == 0, result.output
        assert result.output == ""
        written = ad.read_h5ad(tmp_path / name)
        assert "confounder" not in written.layers
        latents.append(written.obsm["X_confounder"])
    np.testing.assert_array_equal(*latents)


@pytest.mark.parametrize(
    ("key", "reference", "arms"), [("arm", "stim", ["ctrl"]), ("dose", "1", ["0", "2"])]
)
def test_deconfound_takes_a_reference_of_any_kind(
    key: str, reference: str, arms: list[str], treated: Path, tmp_path: Path
) -> None:
    options = ("--treatment-key", key, "--reference", reference, "--n-latent", 0)
    table = tmp_path / "effects.csv"
    result = deconfound(treated, tmp_path / "o.h5ad", *options, "--effects", table)
    assert result.exit_code == 0, result.output
    for arm in arms:
        assert f"{arm} v. {reference}: no unmeasured confounders in the model" in result.stdout
    if len(arms) > 1:
        assert sorted(pd.read_csv(table, dtype={"arm": str})["arm"].unique()) == arms


def test_deconfound_by_controls(treated: Path, tmp_path: Path) -> None:
    var = ad.read_h5ad(treated).var
    names = tmp_path / "controls.txt"
    names.write_text("\n".join([*var.index[~var["truth_is_de"]], ""]) + "\n")
    options = ("--negative-controls", names, "--n-latent", 1, "--identification", "controls")
    result = deconfound(treated, tmp_path / "o.h5ad", *options)
    assert result.exit_code == 0, result.output
    assert "identified by 'controls'" in result.stdout
    assert result.output.count("holds 80 genes with counts enough") == 1
    assert "tau = " not in result.stdout  # nothing rests on it
    written = ad.read_h5ad(tmp_path / "o.h5ad")
    assert written.uns["confounder"]["identification"] == "controls"
    assert written.uns["confounder"]["facts"]["n_controls"] == 80


def test_controls_are_not_overwritten(treated: Path, tmp_path: Path) -> None:
    names = tmp_path / "controls.csv"
    names.write_text("gene 1\n")
    options = ("--negative-controls", names, "--effects", names, "--overwrite")
    result = deconfound(treated, tmp_path / "o.h5ad", *options)
    assert result.exit_code == 1
    assert "is the input. Name another output" in result.stderr
    assert names.read_text() == "gene 1\n"


NOT_DECONFOUNDED: dict[str, tuple[tuple[object, ...], str]] = {
    "no such treatment": (("--treatment-key", "x"), "--treatment-key x is not a column"),
    "no reference": (("--treatment-key", "arm"), "such as --reference ctrl"),
    "unknown reference": (
        ("--treatment-key", "arm", "--reference", "none"),
        "--reference none is not a level",
    ),
    "no controls": (("--identification", "controls"), "needs --negative-controls FILE"),
    "useless controls": (
        ("--identification", "sparse", "--negative-controls", "x.txt"),
        "says nothing with --identification sparse",
    ),
    "no file of controls": (("--negative-controls", "x.txt"), "x.txt is not a file"),
    "number of confounders": (("--n-latent", "many"), "--n-latent many is not known"),
    "number that separates": (
        ("--continuous-covariate", "age"),
        "'age']` separates True from the reference False",
    ),
    "effects exist": (("--effects", __file__), "exists. Name another output"),
    "report is the output": (("--report", "o.h5ad"), "is another output too"),
    "report is no page": (("--report", "r.png"), "does not end in .html"),
    "effects are the output": (("--effects", "o.h5ad"), "is the output of the cells too"),
}


@pytest.mark.parametrize("name", NOT_DECONFOUNDED)
def test_deconfound_refuses_with_one_line(
    name: str, treated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, message = NOT_DECONFOUNDED[name]
    result = deconfound(treated, Path("o.h5ad"), *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_controls_in_a_file_of_another_kind(treated: Path, tmp_path: Path) -> None:
    options = ("--negative-controls", treated)
    result = deconfound(treated, tmp_path / "o.h5ad", *options)
    assert result.exit_code == 1
    assert "in.h5ad is not a file of text. Name one with a gene name on each" in result.stderr


def broken_file(source: Path) -> list[object]:
    bad = source.parent / "bad.h5ad"
    bad.write_text("cell,gene\n")
    return ["integrate", bad, "--batch-key", "batch", "-o", source.parent / "o.h5ad"]


def existing_output(source: Path) -> list[object]:
    output = source.parent / "o.h5ad"
    output.touch()
    return ["integrate", source, "--batch-key", "batch", "-o", output]


REFUSED: dict[str, tuple[Callable[[Path], list[object]], str]] = {
    "not an h5ad file": (broken_file, "not an .h5ad file"),
    "no such file": (
        lambda s: ["integrate", "no.h5ad", "--batch-key", "batch", "-o", s.parent / "o.h5ad"],
        "no.h5ad is not a file",
    ),
    "output exists": (existing_output, "exists. Name another output, or pass --overwrite"),
    "output is the input": (
        lambda s: ["integrate", s, "--batch-key", "batch", "-o", s, "--overwrite"],
        "is the input",
    ),
    "no such key": (
        lambda s: ["integrate", s, "--batch-key", "run", "-o", s.parent / "o.h5ad"],
        "--batch-key run is not a column of `adata.obs`",
    ),
    "no such layer": (
        lambda s: [
            "integrate", s, "--batch-key", "batch", "--layer", "x", "-o", s.parent / "o.h5ad",
        ],
        "--layer x is not in `adata.layers`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_one_line_and_writes_nothing(name: str, source: Path) -> None:
    arguments, message = REFUSED[name]
    result = run(*arguments(source))
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    output = source.parent / "o.h5ad"
    assert not output.exists() or output.stat().st_size == 0


SAID = {
    "Pass `cluster_key='donor'`.": "Pass --cluster-key donor.",
    'See `n_latent="auto"`, `write_layer=False`.': "See --n-latent auto, --no-write-layer.",
    "Samples x genes: pass `bulk.T`.": "Samples x genes: exchange rows and columns.",
    "see `cell_sizes` of the result.": "see cell_size in uns['bulk'] of the output.",
    "set `bulk.var_names = bulk.var['x']`.": "set var['x'] as names of genes (the index of var).",
    "Pass `overwrite=True`.": "Pass --overwrite.",
    "See `categorical_covariate_keys`.": "See --categorical-covariate.",
    "See `negative_controls`.": "See --negative-controls.",
    "Compare with `overwrite=False`.": "Compare with no --overwrite.",
    "See `get_class_probabilities()`, `solver='full_batch'`, `file`, `adata.obs`.": None,
}


@pytest.mark.parametrize("text", SAID)
@pytest.mark.parametrize("kind", ["error", "warning"])
def test_messages_name_options(
    text: str, kind: str, treated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        if kind == "warning":
            warnings.warn(text, UserWarning, stacklevel=1)
        raise ValueError(text if kind == "error" else "stop")

    monkeypatch.setattr("scovert.cli._deconfound.read_cells", fail)
    result = deconfound(treated, tmp_path / "o.h5ad")
    assert f"{kind}: {SAID[text] or text}\n" in result.stderr


@pytest.mark.parametrize(
    "command",
    ["demo", "integrate", "deconfound", "niches", "deconvolve", "embed-distances", "impute"],
)
def test_help_shows_every_option_in_full(command: str) -> None:
    options = get_command(app).commands[command].params
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "\N{HORIZONTAL ELLIPSIS}" not in result.stdout
    shown = set(re.findall(r"--[a-z-]+", result.stdout))
    names = {name for each in options for name in (*each.opts, *each.secondary_opts)}
    assert {name for name in names if name.startswith("--")} <= shown


@pytest.mark.parametrize("example", COMMANDS.values())
def test_help_has_an_example_that_is_understood(example: str) -> None:
    program, name, *arguments = shlex.split(example.replace("\\\n", " "))
    assert program == "scovert"
    get_command(app).commands[name].make_context(name, arguments)  # parses, and runs nothing
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "80"}).stdout
    assert "\n".join(f"  {line}" for line in f"Example:\n  {example}".splitlines()) in shown


def test_commands_are_listed_with_whole_summaries() -> None:
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout.split("Commands:")
    lines = listed[1].strip().splitlines()
    assert [line.split()[0] for line in lines] == [
        command.__name__.replace("_", "-") for command in COMMANDS
    ]
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


def test_version_and_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # it is named
    assert run("--version").stdout == f"{scovert.__version__}\n"
    shown = run("--show-completion", "bash").stdout
    assert "_SCOVERT_COMPLETE" in shown or "COMPREPLY" in shown


@pytest.mark.slow
def test_demo_shows_every_model_in_one_report(tmp_path: Path) -> None:
    result = run("demo", "-o", tmp_path / "demo", "--max-epochs", 2, "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    written = {file.name for file in (tmp_path / "demo").iterdir()}
    assert written == {"report.html", *(f"{stem}.h5ad" for stem in SHOWS)}
    assert {"X_pca", "X_paired"} <= set(ad.read_h5ad(tmp_path / "demo" / "paired.h5ad").obsm)
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<article") == page.count("<p>Truth: ") == len(SHOWS)
    again = run("demo", "-o", tmp_path / "demo")
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
