"""The benchmarks: stored tables are those of the stored runs, and runs are kept one by one."""

import argparse
import importlib
import sys
from functools import partial
from operator import methodcaller
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    if not RESULTS.exists():
        pytest.skip("the benchmarks are in the repository only")
    monkeypatch.syspath_prepend(ROOT)


@pytest.mark.parametrize(
    "name", ["paired", "confounder", "niche", "bulk", "speed", "distance", "imputation"]
)
def test_stored_tables_are_those_of_the_stored_runs(monkeypatch, tmp_path, name):
    main = importlib.import_module(f"benchmarks.{name}.__main__").main
    monkeypatch.setattr("sys.argv", [name, "--table", "--out", str(tmp_path / "tables.md")])
    main()
    assert (tmp_path / "tables.md").read_text() == (RESULTS / f"{name}.md").read_text()


def test_runs_are_stored_once_and_failures_are_counted(tmp_path):
    from benchmarks.runs import Task, not_stored, run_tasks, stored

    path = tmp_path / "runs.jsonl"
    options = argparse.Namespace(results=path, threads=1, jobs=1)
    run = partial(run_tasks, args=options, made_with={"torch": "0"}, summary=str)
    tasks = [Task("set", "method", seed) for seed in range(3)]
    assert run([tasks[:2]], methodcaller("_asdict")) == 0
    assert not_stored([tasks], path) == [tasks[2:]]
    assert run([tasks[2:]], methodcaller("no_such_method")) == 1
    assert list(stored(path)) == tasks[:2]
    assert stored(path)[tasks[1]]["made_with"] == {"torch": "0"}


def test_a_script_of_another_interpreter_takes_and_returns_arrays():
    from benchmarks.processes import call_in

    script = "import numpy as np, sys; np.savez(sys.argv[2], y=2 * np.load(sys.argv[1])['x'])"
    found = call_in(Path(sys.executable), script, {"x": np.arange(3)})
    assert found["y"].tolist() == [0, 2, 4]
