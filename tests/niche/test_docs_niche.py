"""What the page of NicheVAE says is true."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest
import scvi

from scovert.model import NicheVAE
from scovert.model.niche import _diagnostics, _training
from scovert.simulate import niche


@pytest.fixture(scope="module")
def page() -> str:
    return (Path(__file__).parents[2] / "docs" / "models" / "niche.md").read_text()


def test_every_row_of_check_is_explained(page: str) -> None:
    scvi.settings.seed = 0
    adata = niche(150, 1, n_genes=7)
    NicheVAE.setup_anndata(adata, likelihood="nb")
    model = NicheVAE(adata, n_states=4)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = None
    table = page.split("## The rows of `check()`")[1].split("\n## ")[0]
    explained = set(re.findall("`([a-z][a-z -]+)`", table))
    of_latents = {"sd of the latent means", "diversity of decoded neighbourhoods"}
    assert set(model.check().index) - of_latents <= explained
    assert "`diversity of decoded neighbourhoods`" in table


def test_numbers_of_the_page_are_those_of_the_code(page: str) -> None:
    assert f"w = {_training.NEIGHBOR_WEIGHT:.0f}" in page
    assert f"{_training.STEPS[0]} to {_training.STEPS[1]} steps" in page
    assert f"below {_diagnostics.FAINT} nats" in page
    assert f"below {_diagnostics.MIN_DIVERSITY} of the true one" in page
    assert f"above {_diagnostics.ACTIVE_SD}" in page


@pytest.mark.slow
def test_the_example_runs(page: str) -> None:
    matplotlib.use("agg")
    variables: dict = {}
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(example, variables)
    assert variables["adata"].obs["niche"].nunique() == 4


def test_measured_numbers_are_those_of_the_benchmark(page: str) -> None:
    """The first two numbers of each cell of the table, ARI and F1."""
    results = page_of_results()
    names = {"NicheVAE": "NicheVAE", "nichepca, scaled by section": "nichepca, by section"}
    for name, method in names.items():
        line = next(line for line in page.splitlines() if line.startswith(f"| {name} | ."))
        cells = [cell.split(" / ")[:2] for cell in line.strip("| ").split(" | ")[1:]]
        for numbers, section in zip(cells, results, strict=True):
            row = next(x for x in section.splitlines() if x.startswith(f"| {method} | "))
            header = next(x for x in section.splitlines() if x.startswith("| method"))
            columns = header.strip("| ").split(" | ")
            values = dict(zip(columns, row.strip("| ").split(" | "), strict=True))
            expected = [float(values[c].split(" (")[0]) for c in ("ARI", "F1")]
            assert [float(n) for n in numbers] == pytest.approx(expected, abs=0.0051)


def page_of_results() -> list[str]:
    """Sections of the four sets."""
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "niche.md"
    if not file.exists():
        pytest.skip("the benchmarks are in the repository only")
    sections = file.read_text().split("\n## ")[1:]
    order = ("islet", "osmfish", "starmap", "simulated")
    return [next(s for s in sections if s.startswith(name)) for name in order]
