"""Processes and environments of benchmarks, and what runs cost in them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import ArrayLike, NDArray


def in_new_process(
    function: Callable, *args: object, prepare: Callable[[], None] | None = None
) -> object:
    """Call a function of a module in a process that has done nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn"), prepare) as pool:
        return pool.submit(function, *args).result()


def limit_threads(n_threads: int) -> None:
    """Limit the threads of processes that are started from now on."""
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(n_threads)


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


def call_in(python: Path, script: str, arrays: dict[str, ArrayLike]) -> dict[str, NDArray]:
    """Run a script with another interpreter: arrays in, arrays out.

    Parameters
    ----------
    python
        Interpreter, as `environment` returns it.
    script
        Code that reads the file ``sys.argv[1]`` and writes ``sys.argv[2]``, both of `numpy.savez`.
    arrays
        What it reads.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.npz"), Path(folder, "target.npz")
        np.savez(source, **arrays)
        command = [python, "-c", script, source, target]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with np.load(target) as found:
            return dict(found)


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


class PeakMemory(threading.Thread):
    """Largest memory of this process above that at the start, in GB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process, self.done = psutil.Process(), threading.Event()
        self.base = self.peak = self.process.memory_info().rss

    def run(self) -> None:
        """Look every 20 ms."""
        while not self.done.wait(0.02):
            self.peak = max(self.peak, self.process.memory_info().rss)

    def stop(self) -> float:
        """Return the peak."""
        self.done.set()
        return (self.peak - self.base) / 1e9
