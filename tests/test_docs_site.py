"""Links lead somewhere, pictures are small, and quoted numbers are those of the tables."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text()
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)
LARGEST_PICTURE = 150_000  # bytes: the first screen of a page loads at once


def table_of(results: str, section: str, method: str) -> dict[str, str]:
    """Row of a method in the tables below a heading, by column."""
    if not RESULTS.exists():
        pytest.skip("the benchmarks are in the repository only")
    text = (RESULTS / f"{results}.md").read_text().split(f"\n{section}", 1)[1]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    row = next(i for i, line in enumerate(lines) if line[0] == method)
    header = next(lines[i - 1] for i in range(row, 0, -1) if set(lines[i][0]) == {"-"})
    return dict(zip(header, lines[row], strict=True))


def quoted(first: str) -> list[str]:
    """Cells of the row of the comparison that begins so."""
    page = (ROOT / "docs" / "compared.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return line.strip("| ").split(" | ")[1:]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("PairedVAE", "shared/anchors"),
        ("`scovert.anchors.align`", "align"),
        ("SCVI", "SCVI"),
        ("Harmony", "Harmony"),
        ("Scanorama", "Scanorama"),
        ("PCA, not corrected", "PCA"),
    ],
)
def test_comparison_of_integration_is_that_of_the_benchmark(name: str, method: str) -> None:
    kang, lines = (table_of("paired", f"## {s}:", method) for s in ("kang4k", "cellbench5"))
    found = [
        row[c].split(" (")[0] for row, c in ((kang, "total"), (lines, "total"), (kang, "CPU, s"))
    ]
    assert quoted(name) == found


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("NK cells", "NK"),
        ("CD8+ T cells", "CD8"),
        ("B", "B"),
        ("CD4+ T cells", "CD4"),
        ("CD14+ Monocytes", "CD14"),
    ],
)
def test_comparison_with_pseudobulk_is_that_of_the_benchmark(name: str, case: str) -> None:
    ours, bulk = (table_of("confounder", f"### Kang {case}:", m) for m in ("auto", "pseudobulk"))
    called = [f"{float(row['called']):.0f}" for row in (ours, bulk)]
    assert quoted(name) == [ours["rank r"], *called, ours["recall"]]


def test_false_calls_of_pseudobulk_are_those_of_the_benchmark() -> None:
    page = (ROOT / "docs" / "compared.md").read_text()
    hidden, none = "### 8 donors, hidden 1:", "### 8 donors, hidden 0:"
    assert f"pseudobulk calls {table_of('confounder', hidden, 'pseudobulk')['FDP']} are" in page
    assert f"LatentConfounder {table_of('confounder', hidden, 'auto')['FDP']};" in page
    for method in ("auto", "pseudobulk"):
        assert float(table_of("confounder", none, method)["FDP"]) == 0


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("BulkDeconvolution", "joint"),
        ("MuSiC", "MuSiC"),
        ("BayesPrism (fixed point)", "BayesPrism"),
        ("nu-SVR", "nu-SVR"),
        ("dtangle", "dtangle"),
    ],
)
def test_comparison_of_deconvolution_is_that_of_the_benchmark(name: str, method: str) -> None:
    row = table_of("bulk", "Means over the three studies", method)
    assert quoted(name) == [row["RMSE"], row["r"], row["2 measured"]]


def test_gain_of_measured_samples_is_that_of_the_benchmark() -> None:
    row = table_of("bulk", "Means over the three studies", "joint")
    page = (ROOT / "docs" / "howto" / "measured_sample.md").read_text()
    no, one, two, three = (
        f"{float(row[c]):.3f}".lstrip("0")
        for c in ("RMSE", "1 measured", "2 measured", "3 measured")
    )
    said = f"from {no} to {one} with one measured sample, to {two} with two and {three} with three"
    assert said in re.sub(r"\s+", " ", page)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("NicheVAE", "NicheVAE"),
        ("nichepca, scaled by section", "nichepca, by section"),
        ("nichepca, its package", "nichepca, package"),
        ("BANKSY-like, λ = .8", "BANKSY, lambda .8"),
        ("CellCharter-like", "CellCharter-like"),
    ],
)
def test_comparison_of_niches_is_that_of_the_benchmark(name: str, method: str) -> None:
    rows = [
        table_of("niche", f"## {s}:", method) for s in ("islet", "osmfish", "starmap", "simulated")
    ]
    found = [float(row["ARI"].split(" (")[0]) for row in rows]
    assert [float(x) for x in quoted(name)] == pytest.approx(found, abs=0.0051)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("DistanceEmbedding", "DistanceEmbedding"),
        ("its linear map", "DistanceEmbedding, linear"),
        ("Gower's formula", "Gower, true distances, constant"),
        ("network from scratch", "network from scratch, no uniqueness"),
        ("ridge regression from CLR", "ridge from CLR"),
    ],
)
def test_comparison_of_distances_is_that_of_the_benchmark(name: str, method: str) -> None:
    kinds = ("unweighted UniFrac", "weighted UniFrac", "Bray-Curtis")
    rows = [table_of("distance", f"## s1k, {kind}:", method) for kind in kinds]
    assert quoted(name) == [row["R2"].split(" (")[0] for row in rows]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("MaskedImputation", "MaskedImputation"),
        ("30 nearest neighbours", "30 nearest neighbours"),
        ("30 nearest neighbours after Harmony", "the same after Harmony"),
        ("mean of the true type", "mean of the true type"),
    ],
)
def test_comparison_of_imputation_is_that_of_the_benchmark(name: str, method: str) -> None:
    sets = ("donors", "treatment", "studies", "chemistry", "panel", "technologies")
    rows = [table_of("imputation", f"## {data}:", method) for data in sets]
    assert quoted(name) == [row["deviance explained"].split(" (")[0] for row in rows]


def test_gimvi_is_quoted_from_the_benchmark() -> None:
    rows = [table_of("imputation", f"## {data}:", "gimVI") for data in ("treatment", "studies")]
    found = [row["deviance explained"].split(" (")[0] for row in rows]
    page = (ROOT / "docs" / "compared.md").read_text()
    quote = re.search(r"explains ([\d.]+) between treatments and ([\d.]+)\s", page)
    assert list(quote.groups()) == found


def test_page_of_imputation_quotes_the_benchmark() -> None:
    page = (ROOT / "docs" / "models" / "imputation.md").read_text()
    before, after = (
        float(table_of("imputation", "## treatment:", m)["deviance explained"].split(" (")[0])
        for m in ("30 nearest neighbours", "the same after Harmony")
    )
    assert f"neighbours from {before:.2f} to {after:.2f}." in re.sub(r"\s+", " ", page)
    rows = page.split("## How it fares")[1].split("\n## ")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in rows if re.match(r"\| [a-z]+: ", line)]
    methods = ("30 nearest neighbours", "mean of the true type", "oracle: hidden mean of the type")
    columns = ("deviance explained", "totals inside", "by type", "counts inside")
    assert len(rows) == 10
    for data, *cells in rows:
        ours, *others = (
            table_of("imputation", f"## {data.split(':')[0]}:", method)
            for method in ("MaskedImputation", *methods)
        )
        first, *inside = (ours.get(column, "-") for column in columns)
        found = [first, *(row["deviance explained"] for row in others), *inside]
        for quoted_cell, cell in zip(cells, found, strict=True):
            if cell == "-":
                assert quoted_cell == "-"
            else:
                assert float(quoted_cell) == pytest.approx(float(cell.split(" (")[0]), abs=0.0051)


def test_relative_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(p.relative_to(ROOT)) for p in PAGES])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    homes = {True: ROOT / "docs", False: page.parent}
    files = [homes[n.startswith("/")] / f"{n.lstrip('/')}.md" for n in named]
    assert [file for file in files if not file.exists()] == []
    pictures = [page.parent / p for p in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)]
    assert [p for p in pictures if not p.exists()] == []


def test_tutorials_are_stored_with_outputs_and_without_a_machine() -> None:
    notebooks = list((ROOT / "tutorials").rglob("*.ipynb"))
    if not notebooks:
        pytest.skip("the tutorials are in the repository only")
    for notebook in notebooks:
        text = notebook.read_text()
        assert '"output_type": "display_data"' in text, notebook
        assert '"output_type": "error"' not in text, notebook
        assert not re.search(r"site-packages|/home/|/root/", text), notebook


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs" / "images").glob("*.png"))
    assert pictures
    assert max(p.stat().st_size for p in pictures) < LARGEST_PICTURE


def test_readme_of_a_package_index_leads_to_the_repository() -> None:
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = hook.with_addresses(README, "https://example.org/us/scovert", "v1")
    assert text.startswith("# scovert\n\n[![tests](https://example.org/us/scovert/actions")
    assert "(https://example.org/us/scovert/raw/v1/docs/images/paired.png)" in text
    assert "(https://example.org/us/scovert/blob/v1/docs/models/paired.md)" in text
    assert not re.search(r"\]\((?!https://)", text)
