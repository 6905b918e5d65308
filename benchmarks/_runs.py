"""What the benchmarks keep of their runs: versions, machine, results by line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent


def run_facts(*packages: str) -> dict[str, str]:
    """Versions of scovert, its hosts and more packages, the commit and the cores."""
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
