"""What ``check()`` calls worth a second look."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scovert import simulate
from scovert.core._diagnostics import dispersion_row, finite_row, latent_row
from scovert.model import LatentConfounder, PairedVAE
from scovert.model.confounder._diagnostics import identification_rows, leakage_row
from scovert.model.paired._diagnostics import anchor_row

pytestmark = pytest.mark.usefixtures("seed")


def test_a_term_that_is_no_number_is_named() -> None:
    good, bad = pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"b": [1.0, np.nan]})
    assert finite_row({"a": good}) == ("finite loss terms", 1.0, "ok", "")
    row = finite_row({"a": good, "pull": bad})
    assert (row.value, row.verdict) == (0.75, "look")
    assert "pull" in row.advice
    assert "learning rate" in row.advice


@pytest.mark.parametrize(("active", "verdict"), [(0, "look"), (1, "look"), (2, "ok"), (5, "ok")])
def test_a_collapsed_latent_space_is_seen(active: int, verdict: str) -> None:
    means = np.random.default_rng(0).normal(0, [1.0] * active + [0.01] * (5 - active), (67, 5))
    row = latent_row(means)
    assert (row.value, row.verdict) == (active, verdict)


def test_one_latent_dimension_may_be_all_there_is() -> None:
    assert latent_row(np.arange(67.0)[:, None]).verdict == "ok"


@pytest.mark.parametrize(("extreme", "verdict"), [(0, "ok"), (1, "ok"), (2, "look")])
@pytest.mark.parametrize("value", [1e-4, 1e5, np.nan])
def test_odd_dispersions_are_counted(extreme: int, verdict: str, value: float) -> None:
    theta = np.ones((1, 101))
    theta[0, :extreme] = value
    row = dispersion_row(theta)
    assert row.value == pytest.approx(1 - extreme / 101)
    assert row.verdict == verdict


@pytest.mark.parametrize(("clarity", "verdict"), [(0.0, "look"), (0.52, "look"), (0.53, "ok")])
def test_distrusted_anchors_are_said(clarity: float, verdict: str) -> None:
    assert anchor_row(clarity).verdict == verdict


def test_check_sees_a_broken_model(fitted: PairedVAE) -> None:
    assert "clarity of the classes" in fitted.check().index
    before = fitted.module.px_r.detach().clone()
    with torch.no_grad():
        fitted.module.px_r.fill_(20)
    broken = fitted.check()
    with torch.no_grad():
        fitted.module.px_r.copy_(before)
    assert broken.loc["plausible dispersions", "verdict"] == "look"
    assert fitted.check().loc["plausible dispersions", "verdict"] == "ok"


# Which facts the effects of an identification rest on: only of these is there advice
RESTS_ON = {
    "classes": {"heterogeneity", "one_arm_share", "unmatched_share"},
    "sparse": {"tau", "lambda", "shift"},
    "controls": set(),
    "randomised": set(),
}
EVERYTHING = ("tau", "lambda", "heterogeneity", "one_arm_share", "unmatched_share", "gap", "shift")


def confounded(setting: str = "normal", **init: object) -> LatentConfounder:
    adata = simulate.confounder(setting, n_cells=301, n_genes=131, seed=3)
    cluster = init.pop("cluster_key", None)
    if cluster:
        number = np.arange(301) % 7 + 7 * adata.obs["treatment"].to_numpy()
        adata.obs[cluster] = number.astype(str)
    LatentConfounder.setup_anndata(
        adata, "treatment", size_factor_key="size_factor", cluster_key=cluster
    )
    model = LatentConfounder(adata, **{"n_latent": 1} | init)
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model(few_classes: object) -> LatentConfounder:
    return confounded()


def advised(estimate: object) -> set[str]:
    """Facts of an estimate that are advised on, if all of them are as bad as can be."""
    worst = estimate.replace(facts=dict.fromkeys(EVERYTHING, 1e6), not_identified="", warning="")
    rows = identification_rows("b v. a", "any", worst)
    return {row.quantity.removeprefix("b v. a: ") for row in rows if row.verdict == "look"}


def options_of(identification: str, model: LatentConfounder) -> dict:
    controls = {"negative_controls": list(model.adata.var_names[:90])}
    return {"identification": identification} | (controls if identification == "controls" else {})


@pytest.mark.parametrize("identification", RESTS_ON)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_advice_is_on_what_was_used(model: LatentConfounder, identification: str) -> None:
    options = options_of(identification, model)
    (estimate,) = model._estimate(**options)
    assert advised(estimate) == RESTS_ON[identification]
    table = model.check(**options)
    (first,) = [row for row in table.index if "identified by" in row]
    assert first == f"True v. False: identified by {identification}"
    looked = table.index[table["verdict"] == "look"].str.removeprefix("True v. False: ")
    assert set(looked) & set(EVERYTHING) <= RESTS_ON[identification]
    (by_ratio,) = model._estimate(**options, method="aipw")
    assert advised(by_ratio) == RESTS_ON[identification] - {"lambda"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_check_speaks_of_what_it_is_asked_about(model: LatentConfounder) -> None:
    before = model.check()
    model.get_treatment_effects(identification="sparse")
    pd.testing.assert_frame_equal(model.check(), before)
    choice = model.get_treatment_effects().attrs["identification"]
    assert f"True v. False: identified by {choice}" in before.index
    table = model.check(identification="sparse").filter(like="True v. False", axis=0)
    tau = table.loc["True v. False: tau"]
    assert tau["value"] > 1.5 / np.sqrt(131)  # every gene responds
    assert tau["verdict"] == "look"
    assert "few genes respond does not hold" in tau["advice"]
    by_classes = model.check(identification="classes")
    assert by_classes.loc["True v. False: tau"].to_list() == [tau["value"], "ok", ""]
    with pytest.raises(TypeError, match="does not take `indices`"):
        model.check(indices=[1])


@pytest.mark.usefixtures("few_classes")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_automatic_choices_are_advised_on_by_what_they_used() -> None:
    arms = {"one_arm_share", "unmatched_share"}
    (one_class,) = confounded("sparse", z_type="continuous")._estimate()
    used = RESTS_ON[one_class.choice] | arms
    assert advised(one_class) == used
    (states,) = confounded(z_type="binary")._estimate()
    assert advised(states) == {"one_arm_share"}
    plain = confounded(n_latent=0)
    assert advised(plain._estimate()[0]) == set()
    assert "True v. False: identified by plain regression" in plain.check().index
    of_donors = confounded(cluster_key="donor")
    (with_donors,) = of_donors._estimate("sparse")
    assert advised(with_donors) == {"tau", "shift"}  # errors between donors are not widened


def test_limits_are_those_of_the_rules(model: LatentConfounder) -> None:
    from scovert.model.confounder.effects import _identify

    (sparse,) = model._estimate("sparse")
    n_genes = model._inference.fit.is_tested.shape[1]
    assert sparse.limits == {"tau": 1.5 / np.sqrt(n_genes), "lambda": 1.5, "shift": 2.0}
    (classes,) = model._estimate("classes")
    assert classes.limits["heterogeneity"] == _identify.HETEROGENEITY
    at_limit = sparse.replace(facts={"tau": sparse.limits["tau"]})
    assert not _identify._not_identified_if_dense(at_limit).not_identified
    above = sparse.replace(facts={"tau": sparse.limits["tau"] + 1e-9})
    assert _identify._not_identified_if_dense(above).not_identified
    for estimate, verdict in ((at_limit, "ok"), (above, "look")):
        rows = {r.quantity: r for r in identification_rows("", "sparse", estimate)}
        assert rows[": tau"].verdict == verdict


def test_a_remedy_of_leakage_is_one_that_there_is(model: LatentConfounder) -> None:
    limit, remedy = model._inference.latents.max_leakage, model._inference.latents.remedy
    assert (limit, remedy) == (0.9, "Compare with another `identification`.")
    row = leakage_row(0.95, limit, remedy)
    assert (row.verdict, row.advice.endswith(remedy)) == ("look", True)
    assert leakage_row(0.9, limit, remedy)[2:] == ("ok", "")
    assert "z_type='continuous'" in confounded(z_type="binary")._inference.latents.remedy


def test_a_copy_of_the_treatment_is_checked_from_where_training_warns(few_classes: object) -> None:
    model = confounded()
    options = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": 3}
    with pytest.warns(UserWarning, match="may have copied it"):
        model.train("alternating", scale="mean", **options)
    leakage = model.check().loc["leakage"]
    assert leakage["value"] > 0.3
    assert leakage["verdict"] == "look"
    assert "solver='full_batch'" in leakage["advice"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_warned_of_is_checked(model: LatentConfounder) -> None:
    (estimate,) = model._estimate()
    doubted = estimate.replace(warning="dense effects", not_identified="")
    assert identification_rows("b v. a", "classes", doubted)[0] == (
        "b v. a: identified by classes",
        1.0,
        "look",
        "dense effects",
    )
