"""What ``check()`` calls worth a second look."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scovert import _health
from scovert.model import PairedVAE

pytestmark = pytest.mark.usefixtures("seed")


def test_a_term_that_is_no_number_is_named() -> None:
    good, bad = pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"b": [1.0, np.nan]})
    assert _health.finite_row({"a": good}) == ("finite loss terms", 1.0, "ok", "")
    row = _health.finite_row({"a": good, "pull": bad})
    assert (row.value, row.verdict) == (0.75, "look")
    assert "pull" in row.advice
    assert "learning rate" in row.advice


@pytest.mark.parametrize(("active", "verdict"), [(0, "look"), (1, "look"), (2, "ok"), (5, "ok")])
def test_a_collapsed_latent_space_is_seen(active: int, verdict: str) -> None:
    means = np.random.default_rng(0).normal(0, [1.0] * active + [0.01] * (5 - active), (67, 5))
    row = _health.latent_row(means)
    assert (row.value, row.verdict) == (active, verdict)


def test_one_latent_dimension_may_be_all_there_is() -> None:
    assert _health.latent_row(np.arange(67.0)[:, None]).verdict == "ok"


@pytest.mark.parametrize(("extreme", "verdict"), [(0, "ok"), (1, "ok"), (2, "look")])
@pytest.mark.parametrize("value", [1e-4, 1e5, np.nan])
def test_odd_dispersions_are_counted(extreme: int, verdict: str, value: float) -> None:
    theta = np.ones((1, 101))
    theta[0, :extreme] = value
    row = _health.dispersion_row(theta)
    assert row.value == pytest.approx(1 - extreme / 101)
    assert row.verdict == verdict


@pytest.mark.parametrize(("consistency", "verdict"), [(0.0, "look"), (0.71, "look"), (0.72, "ok")])
def test_distrusted_anchors_are_said(consistency: float, verdict: str) -> None:
    assert _health.anchor_row(consistency).verdict == verdict


def test_check_sees_a_broken_model(fitted: PairedVAE) -> None:
    assert "anchor consistency" in fitted.check().index
    before = fitted.module.px_r.detach().clone()
    with torch.no_grad():
        fitted.module.px_r.fill_(20)
    broken = fitted.check()
    with torch.no_grad():
        fitted.module.px_r.copy_(before)
    assert broken.loc["plausible dispersions", "verdict"] == "look"
    assert fitted.check().loc["plausible dispersions", "verdict"] == "ok"
