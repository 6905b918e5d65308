"""What is imported when, by whom, and what is public."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import scovert

ROOT = Path(__file__).parents[1]
SOURCE = Path(scovert.__file__).parent
TABLE_HALF = ("anchors", "data", "metrics", "pl", "simulate")
MODULES = sorted(m.name for m in pkgutil.walk_packages(scovert.__path__, "scovert."))
OURS = ("scovert.core", "scovert.mixing", "scovert.model.")
"""Where names without an underscore are for the package alone."""
PUBLIC = [name for name in MODULES if "._" not in name and not name.startswith(OURS)]
PRIVATE_SCVI_NAMES = [
    (node.module, name.name)
    for node in ast.walk(ast.parse((SOURCE / "core" / "_compat.py").read_text()))
    if isinstance(node, ast.ImportFrom) and node.module.startswith("scvi")
    for name in node.names
]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def imported_by(*arguments: str) -> set[str]:
    """Run Python and return every module it imported."""
    done = run("-X", "importtime", *arguments)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.split("|")[-1].strip() for line in lines}


# Lazy imports


def test_the_command_line_helps_before_torch_is_there() -> None:
    assert "scovert" in run("-m", "scovert", "--help").stdout
    imported = imported_by("-m", "scovert", "--help")
    assert "typer" in imported
    assert not imported & {"torch", "lightning", "scvi", "scanpy", "anndata", "matplotlib"}


def test_the_package_itself_imports_nothing_heavy() -> None:
    assert not imported_by("-c", "import scovert") & {"torch", "scvi", "anndata", "numpy"}


def test_the_table_half_runs_without_torch() -> None:
    code = (
        f"import scovert; [getattr(scovert, n) for n in {TABLE_HALF[1:]}]; import scovert.anchors"
    )
    assert not imported_by("-c", code) & {"torch", "lightning", "scvi"}


def test_namespaces_are_there_when_asked_for() -> None:
    for name in set(scovert.__all__) - {"__version__", "settings"}:
        assert isinstance(getattr(scovert, name), ModuleType)
        assert getattr(scovert, name) is importlib.import_module(f"scovert.{name}")
    assert set(dir(scovert)) >= set(scovert.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        scovert.nonsense  # noqa: B018


def test_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert scovert.__version__ == project["version"]
    assert (SOURCE / "py.typed").exists()


# Who imports whom


def test_the_recipe_of_conda_needs_what_the_project_needs() -> None:
    recipe = ROOT / "docs" / "registry" / "conda" / "recipe.yaml"
    if not recipe.exists():
        pytest.skip("the recipe is not part of the source distribution")
    names = {"matplotlib": "matplotlib-base", "torch": "pytorch", "igraph": "python-igraph"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = set()
    for line in project["dependencies"]:
        name, limit = line.split(">=")
        expected.add(f"{names.get(name, name)} >={limit}")
    run = recipe.read_text().split("  run:\n")[1].split("\n\n")[0]
    found = {line.strip().removeprefix("- ") for line in run.splitlines()}
    assert found - expected == {"python >=${{ python_min }}"}
    assert expected <= found


def test_import_contracts_are_kept() -> None:
    done = run(
        "-c",
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))",
    )
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(("module", "name"), PRIVATE_SCVI_NAMES)
def test_private_names_of_scvi_tools_exist(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_private_names_of_scvi_tools_are_used_in_one_place() -> None:
    assert PRIVATE_SCVI_NAMES
    for file in SOURCE.rglob("*.py"):
        nodes = ast.walk(ast.parse(file.read_text()))
        imports = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
        private = [
            f"{n.module}.{name.name}"
            for n in imports
            for name in n.names
            if n.module.split(".")[0] == "scvi" and "._" in f"{n.module}.{name.name}"
        ]
        assert file.name == "_compat.py" or not private, file


# Public names


def test_what_is_listed_exists() -> None:
    for name in MODULES:
        if not name.endswith("__main__"):
            module = importlib.import_module(name)
            listed = getattr(module, "__all__", [])
            assert module.__doc__, name
            assert len(set(listed)) == len(listed), name
            assert [n for n in listed if not hasattr(module, n)] == [], name


@pytest.mark.parametrize("name", [n for n in PUBLIC if n != "scovert.cli"])
def test_what_is_public_is_listed(name: str) -> None:
    module = importlib.import_module(name)
    package = hasattr(module, "__path__")
    shown = (name, "scovert.core.")  # core has what methods of models return
    found = {
        n
        for n, value in vars(module).items()
        if not n.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and (value.__module__ == name or (package and value.__module__.startswith(shown)))
    }
    assert found == set(module.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_listed_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    for n in module.__all__:
        value = getattr(module, n)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), n
