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

PAGE = (Path(__file__).parents[2] / "docs" / "models" / "niche.md").read_text()


def test_every_row_of_check_is_explained() -> None:
    scvi.settings.seed = 0
    adata = niche(150, 1, n_genes=7)
    NicheVAE.setup_anndata(adata, likelihood="nb")
    model = NicheVAE(adata, n_states=4)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    scvi.settings.seed = None
    table = PAGE.split("## The rows of `check()`")[1].split("\n## ")[0]
    explained = set(re.findall("`([a-z][a-z -]+)`", table))
    of_latents = {"sd of the latent means", "diversity of decoded neighbourhoods"}
    assert set(model.check().index) - of_latents <= explained
    assert "`diversity of decoded neighbourhoods`" in table


def test_numbers_of_the_page_are_those_of_the_code() -> None:
    assert f"w = {_training.NEIGHBOR_WEIGHT:.0f}" in PAGE
    assert f"{_training.STEPS[0]} to {_training.STEPS[1]} steps" in PAGE
    assert f"below {_diagnostics.FAINT} nats" in PAGE
    assert f"below {_diagnostics.MIN_DIVERSITY} of the true one" in PAGE
    assert f"above {_diagnostics.ACTIVE_SD}" in PAGE


@pytest.mark.slow
def test_the_example_runs() -> None:
    matplotlib.use("agg")
    variables: dict = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(example, variables)
    assert variables["adata"].obs["niche"].nunique() == 4
