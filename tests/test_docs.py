"""What the README and the API page say is true."""

import re
from importlib import import_module
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

from scovert import simulate
from scovert.core._diagnostics import dispersion_row
from scovert.model import LatentConfounder
from scovert.model.confounder._diagnostics import (
    identification_rows,
    latent_number_row,
    leakage_row,
)
from scovert.model.confounder._latents import MAX_LEAKAGE
from scovert.model.confounder.effects import Estimate, _identify
from scovert.model.confounder.effects._adjustment import MAX_CLASS_DISTANCE

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "namespace", ["anchors", "data", "metrics", "model", "pl", "pp", "simulate"]
)
def test_api_page_lists_every_public_name(namespace):
    page = (ROOT / "docs" / "api.md").read_text()
    section = re.search(rf"currentmodule:: scovert\.{namespace}\n(.*?)```", page, re.DOTALL)[1]
    listed = set(re.findall(r"^ +(\w+)$", section, re.MULTILINE))
    assert listed == set(import_module(f"scovert.{namespace}").__all__)


def rows_of_check():
    """Rows that the theory of confounders has in its table, with their limits."""
    page = (ROOT / "docs" / "models" / "confounder.md").read_text()
    table = page.split("The rows of `check()`")[1].split("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:3] == "| `"]
    return {name: limit for first, *_, limit in cells for name in re.findall("`(.*?)`", first)}


@pytest.mark.parametrize("init", [{"n_latent": 0}, {}, {"z_type": "binary"}])
def test_every_row_of_check_is_explained(seed, few_classes, init):
    adata = simulate.confounder("sparse", n_cells=301, n_genes=97, seed=2)
    LatentConfounder.setup_anndata(adata, "treatment", size_factor_key="size_factor")
    model = LatentConfounder(adata, **({"n_latent": 1} | init))
    model.train(accelerator="cpu", enable_progress_bar=False)
    rows = [re.sub("^design: .*", "design", row) for row in model.check().index]
    names = [row.split(": ")[-1] for row in rows]
    names = [re.sub("^(identified|genes called) by .*", r"\1 by ...", name) for name in names]
    assert set(names) <= set(rows_of_check())


def averages_of(samples):
    """Disagreement and RMSE of several references, as the benchmark found them."""
    file = ROOT / "benchmarks" / "results" / "bulk.md"
    if not file.exists():
        pytest.skip("the benchmarks are in the repository only")
    results = file.read_text()
    section = results.split("several references\n")[1].split("\n## ")[0]
    lines = [
        line.strip("| ").split(" | ") for line in section.splitlines() if " | joint | " in line
    ]
    header = next(line for line in section.splitlines() if line.startswith("| set |"))
    table = pd.DataFrame(lines, columns=header.strip("| ").split(" | "))
    table = table[table["set"].str.startswith(f"{samples} x ")]
    return table[["disagreement", "RMSE"]].astype(float)


@pytest.mark.parametrize("samples", ["hoek", "finotello TPM", "finotello counts"])
def test_disagreements_are_those_of_the_benchmark(samples):
    found = averages_of(samples)
    ranges = [
        f"{low:.3f} to {high:.3f}" for low, high in zip(found.min(), found.max(), strict=True)
    ]
    line = f"| {samples} | {' | '.join(ranges)} |".replace(" 0.", " .")
    assert line in (ROOT / "docs" / "models" / "bulk.md").read_text()


def test_references_that_agree_can_be_wrong_together():
    found = averages_of("finotello counts")
    assert found["disagreement"].idxmin() == found["RMSE"].idxmax()


def rows_of(facts, limits):
    """Rows of check() for an estimate with these facts and limits."""
    nothing = np.zeros(0)
    estimate = Estimate(nothing, nothing, np.inf, "classes", nothing, facts, nothing)
    return identification_rows("b v. a", "classes", estimate.replace(limits=limits))


LIMITED = {name: rule for name, rule in rows_of_check().items() if rule.startswith("above")}


@pytest.mark.parametrize(("name", "rule"), LIMITED.items(), ids=LIMITED)
def test_limits_of_check_are_as_explained(name, rule):
    limit = float(rule.split()[1].rstrip(","))

    limits = {**_identify.LIMITS_OF_CLASSES, "tau": _identify.SPREAD}
    limits |= {"lambda": _identify.MAX_FACTOR, "class_distance": MAX_CLASS_DISTANCE}

    def verdict(value):
        if name == "leakage":
            return leakage_row(value, MAX_LEAKAGE, "").verdict
        return rows_of({name: value}, limits)[1].verdict

    assert (verdict(limit), verdict(limit + 1e-6)) == ("ok", "look")


def test_other_limits_of_check_are_as_explained():
    rows = rows_of_check()
    assert rows["plausible dispersions"] == "below 0.99"
    verdicts = [dispersion_row(np.r_[np.ones(n), 1e5]).verdict for n in (98, 99)]
    assert verdicts == ["look", "ok"]
    assert rows["confounders"].startswith("15 or more")
    assert [latent_number_row(n).verdict for n in (14, 15)] == ["ok", "look"]
    never = [name for name, rule in rows.items() if rule.startswith("never")]
    facts = dict.fromkeys(never, 1e6)
    shown = rows_of(facts, _identify.LIMITS_OF_CLASSES)
    assert {row.verdict for row in shown} == {"ok"}


@pytest.mark.slow
def test_readme_examples_run(tmp_path, monkeypatch):
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)  # where the report is written
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
    found, truth = variables["result"].proportions, variables["bulk"].obsm["truth_proportions"]
    assert ((found - truth) ** 2).to_numpy().mean() < 0.05**2
    found, truth = variables["distances"], variables["cohort"].obsp["unweighted_unifrac"][:60, 60:]
    assert ((found - truth) ** 2).to_numpy().mean() < 0.3 * truth.var()
    imputed = variables["by_type"].query("not measured")
    assert imputed["lower"].notna().sum() > 100
    assert "imputation" in variables["joined"].layers
    assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_examples_of_the_theory_of_confounders_run():
    matplotlib.use("agg")
    variables = {}
    page = (ROOT / "docs" / "models" / "confounder.md").read_text()
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(example, variables)
    assert "X_confounder" in variables["adata"].obsm
