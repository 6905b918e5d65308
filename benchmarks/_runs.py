"""What benchmarks keep of their runs: versions, machine, costs, results, in Markdown."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent


def run_facts(*packages: str) -> dict[str, str]:
    """Versions of scovert, what it stands on and more packages, the commit and the cores."""
    known = ("scovert", "scvi-tools", "torch", *packages)
    facts = {package: version(package) for package in known}
    return facts | {"commit": commit(), "cores": str(os.cpu_count())}


def commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip()


def read_results(path: Path) -> list[dict]:
    """Results of a file, in their order; none if there is no file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def environment(package: str, number: str, *more: str) -> Path:
    """Return the interpreter of an environment with a package, made when it is not there.

    Parameters
    ----------
    package, number
        Name and version.
    more
        Further requirements, for `pip`.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "scovert" / f"{package}-{number}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        print(f"Installing {package} {number} into its own environment.", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", f"{package}=={number}", *more]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return python


def costs_of(function: Callable[[], object]) -> tuple[object, dict[str, float]]:
    """Call a function, and measure CPU seconds and the memory that it adds at its peak.

    Processes that it starts count for the seconds only.

    Parameters
    ----------
    function
        Without arguments.

    Returns
    -------
    What it returns; ``cpu`` in seconds, and on Linux ``gib``.
    """
    before, start = _start_of_peak(), sum(os.times()[:4])
    result = function()
    costs = {"cpu": sum(os.times()[:4]) - start}
    if before is not None:
        costs["gib"] = peak_memory() - before
    return result, costs


def _start_of_peak() -> float | None:
    """Forget the peak so far, and return the memory in use; `None` where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory("VmRSS")


def peak_memory() -> float:
    """Most memory that this process had, in GiB; on Linux (``ru_maxrss`` counts its parent's)."""
    return _memory("VmHWM")


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return float(kib) / 2**20


def header(results: list[dict]) -> str:
    """Versions and machine of all results."""
    if not results:
        return "No results are stored."
    found: dict[str, set[str]] = {}
    for result in results:
        for name, value in result["made_with"].items():
            found.setdefault(name, set()).add(value)
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in found.items()) + "."


def markdown(lines: list[list[str]]) -> str:
    """Table with the first line as its head."""
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def benchmark_parser(
    doc: str, parts: Collection[str], methods: Collection[str], name: str
) -> argparse.ArgumentParser:
    """Options of every benchmark that keeps its runs by line, under `name` in the results."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for option, choices in (("--parts", parts), ("--methods", methods)):
        parser.add_argument(
            option, nargs="+", choices=choices, default=list(choices), metavar="NAME"
        )
    parser.add_argument("--jobs", type=int, default=1, help="runs in parallel processes")
    parser.add_argument("--threads", type=int, default=1, help="threads of one run")
    parser.add_argument("--table", action="store_true", help="only render the stored results")
    parser.add_argument("--results", type=Path, help=f"default: results/{name}.jsonl")
    parser.add_argument("--out", type=Path, help=f"default: results/{name}.md")
    return parser


def parsed(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """Parse the options; a quick run keeps its results in a folder of its own."""
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp()) if args.quick else HERE / "results"
    args.results = args.results or folder / f"{name}.jsonl"
    args.out = args.out or folder / f"{name}.md"
    return args
