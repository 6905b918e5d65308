"""Placebo: fake treatments on the cells at hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scvi

from _blocked import fitted, simulated
from scovert.model import LatentConfounder
from scovert.model.confounder._placebo import FAKE, PlaceboCells, placebo_row
from scovert.pl import placebo

QUIET = {"enable_progress_bar": False}


@pytest.fixture(scope="module")
def model() -> LatentConfounder:
    return fitted(simulated(1, types=0.3))


def cells_of(model: LatentConfounder, **options: object) -> PlaceboCells:
    known = {"is_between": False, "unit_key": None} | options
    setup = model.registry["setup_args"]
    return PlaceboCells(model.adata, model._inference.cells, setup, **known)


def test_p_values_hold_where_nothing_is_wrong(model: LatentConfounder) -> None:
    found = model.placebo(4, **QUIET)
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found["below_0.05"].mean() == pytest.approx(0.05, abs=0.03)
    assert found["below_0.01"].mean() < 0.03
    assert found["called"].sum() <= 2
    assert [len(p) for p in found.attrs["p_values"].values()] == found["n_genes"].tolist()
    row = model.check().loc["placebo: share of p-values below .05"]
    assert row["value"] == pytest.approx(found["below_0.05"].mean())
    assert row["verdict"] == "ok"
    pd.testing.assert_frame_equal(model.placebo(4, **QUIET), found)


def test_half_of_the_untreated_cells_of_every_donor_are_treated(model: LatentConfounder) -> None:
    fake = cells_of(model).draw(np.random.default_rng(0))
    assert fake.n_obs == (~model.adata.obs["treatment"]).sum()
    n_treated = fake.obs.groupby("donor", observed=True)[FAKE].agg(["sum", "size"])
    assert (abs(n_treated["size"] - 2 * n_treated["sum"]) <= 1).all()
    rows = np.flatnonzero(~model.adata.obs["treatment"])
    genes = [int(name.removeprefix("gene_")) for name in fake.var_names]
    np.testing.assert_array_equal(fake.X.toarray(), model.adata.X[rows][:, genes].toarray())


def test_guides_and_donors_are_treated_as_a_whole(model: LatentConfounder) -> None:
    model.adata.obs["guide"] = np.arange(model.adata.n_obs) % 8
    for options in ({"unit_key": "guide"}, {"is_between": True}):
        cells = cells_of(model, **options)
        fake = cells.draw(np.random.default_rng(0))
        per_unit = fake.obs.groupby(cells.unit_key, observed=True)[FAKE].mean()
        assert set(per_unit) == {0, 1}
        assert per_unit.mean() == 0.5
    del model.adata.obs["guide"]


@pytest.mark.slow
def test_donors_that_differ_make_p_values_too_small_unless_they_are_named() -> None:
    """Whole donors are treated: cells count as independent, and as their donors do."""
    cells = simulated(2, types=0.2)
    rng = np.random.default_rng(0)
    donor = rng.integers(0, 14, cells.n_obs)
    shift = rng.normal(0, 0.5, (14, cells.n_vars))[donor]
    cells.X = sp.csr_matrix(np.round(cells.X.toarray() * np.exp(shift)).astype(np.float32))
    cells.obs["donor"], cells.obs["treatment"] = [f"d{d}" for d in donor], donor < 7
    named, unnamed = fitted(cells.copy()), fitted(cells.copy(), cluster_key=None)
    shares = [named.placebo(3, **QUIET), unnamed.placebo(3, unit_key="donor", **QUIET)]
    held, broken = (found["below_0.05"].mean() for found in shares)
    assert held < 0.1 < broken
    assert unnamed.check().loc["placebo: share of p-values below .05", "verdict"] == "look"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"unit_key": "half"}, "2 levels .* 6 are needed"),
        ({"unit_key": "nothing"}, "nothing"),
        ({"n": 0}, "n"),
        ({"identification": "controls"}, "controls"),
    ],
)
def test_what_no_placebo_can_be_made_of(model: LatentConfounder, change: dict, match: str) -> None:
    model.adata.obs["half"] = np.arange(model.adata.n_obs) % 2
    with pytest.raises((KeyError, ValueError), match=match):
        model.placebo(**{"n": 1, **QUIET, **change})


def test_too_few_untreated_cells() -> None:
    cells = simulated(1, types=0.3)
    untreated = np.flatnonzero(~cells.obs["treatment"])
    few = fitted(cells[np.r_[untreated[:70], np.flatnonzero(cells.obs["treatment"])]].copy())
    with pytest.raises(ValueError, match="70 cells.*80 are needed"):
        few.placebo(1, **QUIET)


def test_a_placebo_survives_a_file(model: LatentConfounder, tmp_path: object) -> None:
    model.placebo(1, **QUIET)
    model.save(tmp_path / "model", save_anndata=True)
    loaded = LatentConfounder.load(tmp_path / "model")
    name = "placebo: share of p-values below .05"
    assert loaded.check().loc[name, "value"] == model.check().loc[name, "value"]


def test_each_fake_treatment_makes_a_choice_of_its_own_unless_one_is_asked_for(
    model: LatentConfounder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    effects = LatentConfounder.get_treatment_effects

    def spy(self: LatentConfounder, **options: object) -> pd.DataFrame:
        asked.append(options["identification"])
        return effects(self, **options)

    monkeypatch.setattr(LatentConfounder, "get_treatment_effects", spy)
    model.placebo(2, **QUIET)
    found = model.placebo(1, identification="classes", **QUIET)
    assert asked == ["auto", "auto", "classes"]
    assert found["identification"].tolist() == ["classes"]
    with pytest.raises(ValueError, match="none"):
        model.placebo(1, identification="none", **QUIET)


def test_settings_are_left_alone(model: LatentConfounder) -> None:
    before = scvi.settings.seed
    model.placebo(1, **QUIET)
    assert scvi.settings.seed == before


@pytest.mark.parametrize(
    ("share", "called", "verdict"), [(0.06, 0, "ok"), (0.09, 0, "look"), (0.05, 3, "look")]
)
def test_the_verdict(share: float, called: int, verdict: str) -> None:
    found = {"below_0.05": [share] * 2, "called": [called] * 2, "n_genes": [500] * 2}
    assert placebo_row(found).verdict == verdict


def test_the_figure_draws_the_p_values() -> None:
    p = np.random.default_rng(0).random((2, 50))
    found = pd.DataFrame({"called": [0, 0]})
    found.attrs["p_values"] = {i: row.tolist() for i, row in enumerate(p)}
    ax = placebo(found)
    lines = ax.get_lines()[1:]
    for line, row in zip(lines, p, strict=True):
        np.testing.assert_allclose(10 ** -line.get_ydata(), np.sort(row))
        np.testing.assert_allclose(10 ** -line.get_xdata(), (np.arange(50) + 0.5) / 50)
    assert f"{100 * (p < 0.05).mean():.1f} %" in ax.get_title()
    plt.close(ax.figure)
    with pytest.raises(ValueError, match="no p-values"):
        placebo(pd.DataFrame())
    with pytest.raises(TypeError, match="list"):
        placebo([])
