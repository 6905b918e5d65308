"""What is shown while a model works, where, and how much of it."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from anndata import AnnData
from lightning.pytorch.callbacks import TQDMProgressBar

import scovert
from scovert.core import _progress
from scovert.core._progress import stage
from scovert.model import LatentConfounder, PairedVAE

SHORT = {"accelerator": "cpu", "batch_size": 32}


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    scovert.settings.verbosity = "info"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show what a log has after a minute, and a terminal after a moment, at every step."""
    monkeypatch.setattr(_progress, "MINUTE", 0.0)
    monkeypatch.setattr(_progress, "MOMENT", 0.0)


def test_the_switch_knows_three_levels() -> None:
    for name, level in (("warning", 30), ("info", 20), ("debug", 10)):
        scovert.settings.verbosity = name
        assert logging.getLogger("scovert").level == level
        assert repr(scovert.settings) == f"Settings(verbosity={name!r})"
    with pytest.raises(ValueError, match="'loud'` is not known. Pass one of 'warning', 'info'"):
        scovert.settings.verbosity = "loud"
    assert scovert.settings.verbosity == "debug"


def test_a_notebook_without_widgets_hears_nothing_of_them() -> None:
    """``tqdm.auto`` warns where there are none, and scvi-tools imports it."""
    notebook = (
        "import sys, types\n"
        "shell = types.ModuleType('IPython')\n"
        "shell.get_ipython = lambda: types.SimpleNamespace()\n"
        "sys.modules |= {'IPython': shell, 'ipykernel.zmqshell': shell, 'ipywidgets': None}\n"
        "import scovert, tqdm.auto\n"
    )
    run = subprocess.run([sys.executable, "-c", notebook], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


def test_messages_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    (handler,) = logging.getLogger("scovert").handlers
    record = logging.makeLogRecord({"msg": "a sentence of many words " * 5})
    lines = handler.format(record).splitlines()
    assert len(lines) > 2
    assert max(map(len, lines)) <= 40


def test_a_stage_in_a_log_is_silent_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with stage("Fitting", 9, unit="round") as bar:
        for _ in range(9):
            bar.update()
    assert sys.stderr.getvalue() == ""


@pytest.mark.usefixtures("_at_once")
def test_a_stage_in_a_log_writes_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with stage("Counting confounders", 12, unit="number", may_end_early=True) as bar:
        bar.update(6)
        bar.update(1)
    shown = sys.stderr.getvalue()
    assert "\r" not in shown
    lines = shown.splitlines()
    assert all(line.startswith("Counting confounders: number ") for line in lines)
    assert "number 7 of at most 12 [00:00, at most 0" in lines[-1]


@pytest.mark.usefixtures("_at_once")
def test_a_stage_on_a_terminal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with stage("Fitting", 4, unit="round", initial=2) as bar:
        bar.update()
    shown = sys.stderr.getvalue()
    assert shown.count("\n") == 1
    assert "round 3 of 4" in shown.split("\r")[-1]


@pytest.mark.usefixtures("_at_once")
@pytest.mark.parametrize("how", ["method", "setting"])
def test_a_stage_can_be_hidden(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    if how == "setting":
        scovert.settings.verbosity = "warning"
    with stage("Fitting", 4, unit="round", is_shown=how != "method") as bar:
        bar.update()
    assert sys.stderr.getvalue() == ""


def fit(toy: AnnData, **options: object) -> None:
    PairedVAE.setup_anndata(toy, batch_key="batch")
    PairedVAE(toy, n_latent=3, n_hidden=7, alignment="none").train(**SHORT, **options)


def test_training_is_quiet_by_default(
    toy: AnnData, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    ends_early = {"max_epochs": 6, "early_stopping_patience": 1, "plan_kwargs": {"lr": 0.0}}
    for name in (None, "lightning.pytorch"):  # which commands silence for good
        caplog.set_level("INFO", logger=name)
    fit(toy, **ends_early)
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.name.startswith("lightning.pytorch")] == []
    scovert.settings.verbosity = "debug"
    fit(toy, **ends_early)
    assert "did not improve" in capfd.readouterr().out
    assert any("GPU available" in r.getMessage() for r in caplog.records)


@pytest.mark.usefixtures("_at_once")
def test_training_counts_epochs_on_stderr(toy: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    fit(toy, max_epochs=3)
    assert sys.stdout.getvalue() == ""
    assert "Training: epoch 3 of at most 3 [" in sys.stderr.getvalue().splitlines()[-1]
    assert "validation loss=" in sys.stderr.getvalue()


def test_another_bar_may_be_chosen(toy: AnnData) -> None:
    fit(toy, max_epochs=1, callbacks=[TQDMProgressBar()])
    fit(toy, max_epochs=1, simple_progress_bar=False)
    fit(toy, max_epochs=1, enable_progress_bar=False)


@pytest.mark.usefixtures("_at_once")
def test_stages_of_the_search_for_confounders(
    make_treated: Callable[[], AnnData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    adata = make_treated()
    LatentConfounder.setup_anndata(adata, "treatment")
    LatentConfounder(adata).train(accelerator="cpu")
    lines = sys.stderr.getvalue().splitlines()
    assert any(line.startswith("Counting confounders: number") for line in lines)
    assert " of at most 6 [" in lines[1]  # a fifth of 31 genes
    assert "of at most 100 [" in lines[-1]
    assert "deviance=" in lines[-1]


def test_an_assumption_is_said_once(
    make_treated: Callable[[], AnnData], caplog: pytest.LogCaptureFixture
) -> None:
    adata = make_treated()
    LatentConfounder.setup_anndata(adata, "treatment")
    model = LatentConfounder(adata, n_latent=1)
    model.train(accelerator="cpu", enable_progress_bar=False)
    caplog.set_level("INFO", logger="scovert")
    caplog.clear()
    for _ in range(2):
        model.get_treatment_effects(identification="randomised")
    assert sum("identified by 'randomised'" in message for message in caplog.messages) == 1
