"""The report of every model: what it says, what it holds, and what it must not do."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scovert.model
from _every_model import N_CELLS, N_GENES, SETUPS, fitted, make, of_every_model
from scovert.core._save_load import SaveLoadMixin
from scovert.core._words import counted
from scovert.core.report import Figure, Report, Table, write_reports
from scovert.model import (
    BulkBudget,
    BulkDeconvolution,
    LatentConfounder,
    NicheVAE,
    PairedVAE,
)

SCRIPT = "<script>document.title='run'</script>"
VOID = {"meta", "img", "br", "link", "hr"}
LITTLE = BulkBudget(
    n_steps=10,
    n_bootstrap=3,
    n_bootstrap_steps=5,
    n_cohorts=1,
    n_cohort_bootstrap=3,
    n_cohort_bootstrap_steps=5,
)


class Page(HTMLParser):
    """A page taken apart: text, tags that are open, and what it would fetch."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module", autouse=True)
def _quick_map() -> object:
    """Lay cells out in a plane at once: the map itself is scanpy's."""

    def lay_out(cells: AnnData) -> None:
        cells.obsm["X_umap"] = np.asarray(cells.obsm["X_latent"])[:, [0, 0]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scovert.model.paired._report.lay_out", lay_out)
        yield


@pytest.fixture(scope="module")
def models() -> Callable[[type], object]:
    """Fit every model once, to cells whose names are not to be trusted."""
    known = {}

    def model_of(cls: type) -> object:
        if cls not in known:
            adata = make()
            adata.var_names = [SCRIPT, *adata.var_names[1:]]
            for key in ("batch", "kind"):
                adata.obs[key] = adata.obs[key].replace({"a": SCRIPT, "B": SCRIPT})
            adata.varm["measured"] = adata.varm["measured"].rename(columns={"a": SCRIPT})
            known[cls] = fitted(cls, adata)
        return known[cls]

    return model_of


def options_of(model: object) -> dict:
    if isinstance(model, NicheVAE):
        return {"n_niches": 3}
    if isinstance(model, LatentConfounder):
        return {"identification": "sparse"}
    if not isinstance(model, BulkDeconvolution):
        return {}
    samples = AnnData(model.adata.X.toarray().reshape(6, -1, N_GENES).sum(1), var=model.adata.var)
    samples.obs_names = [SCRIPT, *(f"sample {i}" for i in range(5))]
    result = model.deconvolve(samples, kind="counts", cell_size="none", budget=LITTLE)
    return {"result": result}


@of_every_model
def test_the_page_holds_all_and_runs_nothing(cls: type, models: Callable, tmp_path: Path) -> None:
    model, file = models(cls), tmp_path / "new" / "report.html"
    report = model.report(file, **options_of(model))
    page = Page(file)
    assert page.open == []
    assert "script" not in page.seen
    assert "iframe" not in page.seen
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in page.fetched)
    assert "http" not in re.sub("http-equiv", "", file.read_text())
    assert page.seen.count("figure") == len(report.figures) >= 1
    for sentence in (*report.summary, report.verdict, *report.assumptions, *report.references):
        assert " ".join(sentence.replace("`", "").split()) in page.text
    for quantity in report.check.index:
        assert quantity.replace("`", "") in page.text
    for name in (*SETUPS[cls], "scvi-tools", "scovert developers"):
        assert name in page.text
    if cls in (PairedVAE, BulkDeconvolution):
        assert SCRIPT in page.text  # shown as it is called


@of_every_model
def test_the_text_has_the_sentences_and_fits_a_screen(cls: type, models: Callable) -> None:
    model = models(cls)
    report = model.report(**options_of(model))
    lines = str(report).splitlines()
    assert lines[: len(report.summary)] == list(report.summary)
    assert report.verdict in lines
    assert len(lines) <= 24  # of a terminal
    pd.testing.assert_frame_equal(report.check, asked_check(model))


def test_every_model_is_here() -> None:
    classes = (getattr(scovert.model, name) for name in scovert.model.__all__)
    assert {cls for cls in classes if issubclass(cls, SaveLoadMixin)} == set(SETUPS)


def asked_check(model: object) -> pd.DataFrame:
    options = {"identification": "sparse"} if isinstance(model, LatentConfounder) else {}
    return model.check(**options)


def test_numbers_of_an_integration(models: Callable) -> None:
    model = models(PairedVAE)
    report = model.report()
    support = model.get_support()
    n_without = int((np.nanmax(support.to_numpy(), axis=1) < 0.7).sum())
    assert report.summary[0].startswith(f"{N_CELLS} cells of 2 datasets and {N_GENES} genes")
    expected = f"{counted(n_without, 'cell')} without" if n_without else "Every cell has"
    assert report.summary[-1].startswith(f"{expected} a counterpart in another dataset")
    assert report.overview["cells"].to_dict() == {SCRIPT: 70, "b": 80}
    with pytest.raises(KeyError, match="labels_key"):
        model.report(labels_key="none")
    new = model.adata.copy()
    new.obs["batch"] = "new"
    query = PairedVAE.load_query_data(new, model).report()
    assert "that of a trained model, to which they were added" in query.summary[0]
    assert query.title == "1 dataset in one space"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not unique", "ignore:.*duplicat")
@pytest.mark.parametrize("cls", [PairedVAE, NicheVAE])
def test_cells_may_share_a_name(cls: type, models: Callable, tmp_path: Path) -> None:
    adata = make()
    adata.obs_names = [f"cell {i // 2}" for i in range(N_CELLS)]
    model, unique = fitted(cls, adata), models(cls)
    found = model.report(tmp_path / "r.html", **options_of(model))
    expected = unique.report(**options_of(unique))
    assert found.summary == expected.summary
    np.testing.assert_array_equal(found.overview["cells"], expected.overview["cells"])


def test_numbers_of_effects(models: Callable) -> None:
    model = models(LatentConfounder)
    report = model.report(identification="sparse")
    table = model.get_treatment_effects(identification="sparse")
    q, naive = table["q_value"].to_numpy(), table["q_value_naive"].to_numpy()
    said = f"{(q < 0.05).sum()} of {np.isfinite(q).sum()} genes have q < 0.05"
    assert any(line.startswith(said) for line in report.summary)
    assert f"({(naive < 0.05).sum()} without" in report.summary[-1]
    shown = report.tables[0].values
    assert len(shown) == N_GENES
    assert shown["q_value"].dropna().is_monotonic_increasing
    pd.testing.assert_series_equal(shown["log2_fc"], table.loc[shown.index, "log2_fc"])


def test_numbers_of_niches(models: Callable) -> None:
    model = models(NicheVAE)
    overview = model.report(n_niches=3).overview
    expected = model.get_niches(n_niches=3).value_counts()
    assert overview["cells"].to_dict() == expected.to_dict()
    assert overview["share %"].sum() == pytest.approx(100, abs=0.2)
    assert len(model.report().overview) == 10
    for options in ({"n_niches": 4}, {"n_niches": None, "resolution": 0.5}):
        model.annotate(**options, write_layer=False)
        expected = model.adata.obs["niche"].value_counts()
        assert model.report().overview["cells"].to_dict() == expected.to_dict()
    for slot in model.adata.uns.pop("niche")["slots"]:
        kind, name = slot.split("/")
        del getattr(model.adata, kind)[name]


def test_numbers_of_a_deconvolution(models: Callable) -> None:
    model = models(BulkDeconvolution)
    result = options_of(model)["result"]
    report = model.report(result=result)
    for kind, row in report.overview.iterrows():
        assert row["mean %"] == pytest.approx(100 * result.proportions[kind].mean(), abs=0.051)
    assert all(line in result.summary() for line in report.summary)
    with pytest.raises(TypeError, match="`result` is a DataFrame"):
        model.report(result=result.proportions)


def check_of(**verdicts: str) -> pd.DataFrame:
    rows = {k: [1.0, v, "" if v == "ok" else f"mend `{k}`"] for k, v in verdicts.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "verdict", "advice"])


def report_with(**parts: object) -> Report:
    plain = {
        "model": "Toy",
        "title": "A toy",
        "summary": ("Done.",),
        "check": check_of(a="ok"),
        "overview": pd.DataFrame(),
        "assumptions": ("None.",),
        "parameters": {},
        "references": (),
    }
    return Report(**(plain | parts))


def test_a_long_table_shows_its_first_rows_and_says_so(tmp_path: Path) -> None:
    values = pd.DataFrame(
        np.arange(20_000 * 30).reshape(20_000, 30), columns=[f"column {i}" for i in range(30)]
    )
    write_reports(tmp_path / "r.html", [report_with(tables=(Table("T", values, "`all()`."),))])
    page = Page(tmp_path / "r.html")
    assert "the first 20 of 20,000 rows and the first 16 of 30 columns" in page.text
    assert "All of it: all()." in page.text
    assert (tmp_path / "r.html").stat().st_size < 50_000
    assert "column 15" in page.text
    assert "column 16" not in page.text


def test_numbers_are_read_without_effort(tmp_path: Path) -> None:
    numbers = [1113.4, 104_000.0, -0.0, 0.0123456, 1e12, 2.5e-9, np.nan]
    table = Table("T", pd.DataFrame({"x": numbers}), "`all()`.")
    write_reports(tmp_path / "r.html", [report_with(tables=(table,))])
    text = Page(tmp_path / "r.html").text
    for shown in ("1,113", "104,000", "0.0123", "1e+12", "2.5e-09", "\N{EN DASH}"):
        assert shown in text
    assert "-0 " not in text.replace("\n", " ")
    assert "e+0" not in text


def test_doubts_come_before_all_that_follows(tmp_path: Path) -> None:
    verdicts = {f"q{i}": "ok" for i in range(50)} | {"odd": "look"}
    report = report_with(check=check_of(**verdicts))
    assert report.lines()[-2:] == [report.verdict, "odd = 1: mend `odd`"]
    assert report.verdict.startswith("1 of 51 checks deserves a look")
    write_reports(tmp_path / "r.html", [report])
    text = Page(tmp_path / "r.html").text
    assert text.index("mend odd") < text.index("Checks")
    assert "Shown are the first 40 of 51 checks" in text
    assert "Nothing in the 1 check" in report_with().verdict
    many = report_with(check=check_of(**{f"q{i}": "look" for i in range(14)}))
    assert many.lines()[-1] == "2 more are in `model.check()`."


def test_a_page_is_not_replaced_unless_asked(tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_reports(file, [report_with()])
    assert file.read_text() == "mine"
    with pytest.raises(ValueError, match=r"does not end in \.html"):
        write_reports(tmp_path / "r.pdf", [report_with()])
    with pytest.raises(TypeError, match="`path=3` is an int. Pass the name of a file, such as"):
        write_reports(3, [report_with()])
    write_reports(file, [report_with()], overwrite=True)
    assert "A toy" in Page(file).text
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]


def test_figures_are_closed_and_follow_the_style(tmp_path: Path) -> None:
    import matplotlib.pyplot as plt

    n_open = len(plt.get_fignums())
    drawn = []

    def draw() -> object:
        drawn.append(plt.subplots()[1])
        return drawn[-1]

    with plt.style.context({"figure.facecolor": "black"}):
        write_reports(tmp_path / "r.html", [report_with(figures=(Figure("F", "c", draw),))])
    assert drawn[0].figure.get_facecolor()[:3] == (0, 0, 0)
    assert len(plt.get_fignums()) == n_open


def test_several_models_share_a_page(tmp_path: Path) -> None:
    reports = [report_with(), report_with(model="Other", check=check_of(a="look"))]
    write_reports(tmp_path / "r.html", reports, title="All")
    page = Page(tmp_path / "r.html")
    assert page.fetched == ["#model-1", "#model-2"]
    assert "Toy: A toy nothing to look at Other: A toy 1 to look at" in page.text


def test_words_for_numbers() -> None:
    assert counted(1, "slide") == "1 slide"
    assert counted(2000, "slide") == "2,000 slides"


MEASURE = """<body style="margin:0">
<iframe id="f" src="{page}" style="border:0; width:390px; height:900px"></iframe>
<script>onload = () => {{
  const inner = document.getElementById("f").contentDocument, root = inner.documentElement;
  const loaded = [...inner.images].every(image => image.naturalWidth > 0);
  const fits = root.scrollWidth <= root.clientWidth;
  document.body.innerHTML = `fits ${{fits}}, loaded ${{loaded}}, title ${{inner.title}}`;
}}</script>"""
"""Looks at a page as wide as a phone."""


def test_a_browser_shows_it_on_a_phone_and_prints_it(models: Callable, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no Chromium is installed")
    page, frame, printed = (tmp_path / name for name in ("r.html", "frame.html", "r.pdf"))
    model = models(BulkDeconvolution)
    model.report(page, **options_of(model))
    frame.write_text(MEASURE.format(page=page.name))
    plain = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}"]
    options = [*plain, "--allow-file-access-from-files", "--dump-dom", frame.as_uri()]
    shown = subprocess.run([browser, *options], capture_output=True, text=True, check=True).stdout
    assert "fits true, loaded true, title 3 cell types in 6 bulk samples<" in shown
    command = [browser, *plain, f"--print-to-pdf={printed}", page.as_uri()]
    subprocess.run(command, capture_output=True, check=True)
    assert printed.read_bytes().startswith(b"%PDF")
