"""What the README and the API page say is true."""

import re
from importlib import import_module
from pathlib import Path

import matplotlib
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("namespace", ["anchors", "data", "metrics", "model", "pl", "simulate"])
def test_api_page_lists_every_public_name(namespace):
    page = (ROOT / "docs" / "api.md").read_text()
    section = re.search(rf"currentmodule:: scovert\.{namespace}\n(.*?)```", page, re.DOTALL)[1]
    listed = set(re.findall(r"^ +(\w+)$", section, re.MULTILINE))
    assert listed == set(import_module(f"scovert.{namespace}").__all__)


@pytest.mark.slow
def test_readme_examples_run():
    matplotlib.use("agg")
    variables = {}
    for example in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(example, variables)
    adata = variables["adata"]
    assert adata.obsm["X_paired"].shape[0] == adata.n_obs
    assert "paired" in adata.layers
    assert "paired_support" in adata.obs
    effects, is_de = variables["effects"], variables["cells"].var["truth_is_de"]
    called = effects["q_value"] < 0.05
    assert (called & ~is_de).sum() < 0.15 * called.sum() < 0.15 * is_de.sum()


@pytest.mark.slow
def test_examples_of_the_theory_of_confounders_run():
    matplotlib.use("agg")
    variables = {}
    page = (ROOT / "docs" / "models" / "confounder.md").read_text()
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(example, variables)
    assert "X_confounder" in variables["adata"].obsm
