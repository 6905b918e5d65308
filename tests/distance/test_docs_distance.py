"""What the page of DistanceEmbedding says is true."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest

from scovert.model.distance import _checks, _data, _diagnostics, _fit, _model, _plan, _summary
from scovert.simulate import distance


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).parents[2] / "docs" / "models" / "distance.md").read_text()


def test_every_row_of_check_is_explained(page: str) -> None:
    adata = distance(40, 11, distances=["bray_curtis"])
    _model.DistanceEmbedding.setup_anndata(adata, "bray_curtis")
    model = _model.DistanceEmbedding(adata)
    model.train(method="linear")
    table = page.split("## The rows of `check()`")[1].split("\n## ")[0]
    explained = set(re.findall("`([a-z][A-Za-z0-9 -]+)`", table))
    assert set(model.check().index) - {"finite loss terms"} == explained


def test_numbers_of_the_page_are_those_of_the_code(page: str) -> None:
    text = " ".join(page.split())
    first, second, third = _plan.STEPS.values()
    assert f"{third} steps ({second} under 300 samples, {first} under 100)" in text
    assert f"epochs of {_data.STEPS_OF_EPOCH} steps" in text
    assert f"`n_latent` = {_model.N_LATENT} axes" in text
    assert f"Under {_checks.SMALL} samples `n_latent`" in text
    assert (
        f"{_model.N_LATENT_SMALL} at most, the network has {_model.N_HIDDEN_SMALL} nodes" in text
    )
    assert f"gain less than {_fit.MARGIN} of R2" in text
    assert f"leads by more than {_summary.NOISE} of R2" in text
    assert f"rises to {_plan.LEARNING_RATE} and falls" in text
    assert f"share above {_diagnostics.MAX_NEGATIVE}:" in text
    assert f"| above {_diagnostics.MAX_UNIQUE}:" in text
    assert f"log depth beyond {_diagnostics.MAX_OF_DEPTH}:" in text
    assert f"R2 below {_diagnostics.MIN_R2}: the counts say little" in text


def test_measured_numbers_are_those_of_the_benchmark(page: str) -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "distance.md"
    if not file.exists():
        pytest.skip("the benchmarks are in the repository only")
    sections = file.read_text().split("\n## ")
    kinds = ("unweighted UniFrac", "weighted UniFrac", "Bray-Curtis")
    tables = [next(s for s in sections if s.startswith(f"s1k, {kind}:")) for kind in kinds]
    names = {"its linear map": "DistanceEmbedding, linear"}
    rows = page.split("## How good it is")[1].split("\n## ")[0].splitlines()
    for cells in (row.strip("| ").split(" | ") for row in rows if row.startswith("| ")):
        if len(cells) < 4 or cells[0] in ("", "unweighted UniFrac"):
            continue
        start = f"| {names.get(cells[0], cells[0])} | "
        for cell, table in zip(cells[1:], tables, strict=True):
            row = next(line for line in table.splitlines() if line.startswith(start))
            measured = float(row.removeprefix(start).split(" ")[0])
            assert float(cell) == pytest.approx(measured, abs=6e-4), (cells[0], row)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Few samples")
@pytest.mark.filterwarnings("ignore:R2 of distances")
def test_the_examples_run(page: str) -> None:
    matplotlib.use("agg")
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        variables: dict = {}
        exec(example, variables)
        assert variables["model"].get_agreement().loc["new-train", "r2"] < 1
        if "new" in variables:
            assert variables["model"].get_agreement().loc["new-train", "r2"] > 0.7
