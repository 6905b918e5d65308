"""Designs of experiments: what is seen of them, and that it decides how effects are estimated."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from scipy import stats

from _blocked import fitted, simulated
from scovert.model import LatentConfounder
from scovert.model.confounder._donor_design import read_design
from scovert.model.confounder.effects import Arms, Donors
from scovert.model.confounder.effects._adjustment import Movement


def design_of(obs: pd.DataFrame, cluster_key: str | None = "donor", **covariates: list[str]):
    levels = sorted(obs["arm"].unique())
    options = {"categorical": [], "continuous": []} | covariates
    return read_design(obs, "arm", levels, cluster_key=cluster_key, **options)


def table(*cells: tuple[str, str, int]) -> pd.DataFrame:
    """Cells of donor, arm, and how many of them."""
    rows = [(donor, arm) for donor, arm, n in cells for _ in range(n)]
    return pd.DataFrame(rows, columns=["donor", "arm"])


def test_donors_that_hold_both_arms_are_blocks() -> None:
    obs = table(*((f"d{i}", arm, 7) for i in range(4) for arm in ("a", "b")))
    obs["age"] = obs["donor"].map({"d0": 3, "d1": 4, "d2": 4, "d3": 9})
    obs["lane"] = np.arange(len(obs)) % 2
    found = design_of(obs, categorical=["lane"], continuous=["age"])
    assert found.kinds == ["within donors"]
    assert found.blocks == ["d0", "d1", "d2", "d3"]
    assert found.held == ["age"]
    assert found.sentences == [
        "b v. a: compared within donors: 4 of the 4 of 'donor' hold both arms"
    ]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([("d0", "a", 9), ("d1", "a", 9), ("d2", "b", 9), ("d3", "b", 9)], "none of 'donor'"),
        ([(d, arm, 9) for d in ("d0", "d1") for arm in "ab"], "only 2 of the 2"),
        ([(d, arm, 9) for d in ("d0", "d1", "d2") for arm in "ab"] + [("d3", "b", 9)], "only 3"),
        (
            [(d, "a", 9) for d in ("d0", "d1", "d2")] + [(d, "b", 4) for d in ("d0", "d1", "d2")],
            "",
        ),
    ],
    ids=["nested", "two donors", "a fourth of an arm elsewhere", "four cells each"],
)
def test_other_donors_are_compared_between(cells: list, said: str) -> None:
    found = design_of(table(*cells))
    assert found.kinds == ["between donors"]
    assert said in found.sentences[0]
    assert (found.blocks, found.held) == ([], [])


def test_donors_are_blocks_only_if_they_are_of_all_arms() -> None:
    donors = [f"d{i}" for i in range(4)]
    cells = [(d, arm, 7) for d in donors for arm in "ab"]
    found = design_of(table(*cells, ("d8", "c", 7), ("d9", "c", 7)))
    assert found.kinds == ["within donors", "between donors"]
    assert found.blocks == []


def test_cells_without_donors() -> None:
    obs = table(*((f"d{i}", arm, 7) for i in range(4) for arm in ("a", "b")))
    obs["half"] = np.where(obs["arm"] == "a", "x", "y")
    kinds = [design_of(obs, None, categorical=keys).kinds[0] for keys in ([], ["half"], ["donor"])]
    assert kinds == ["unknown", "unknown", "within samples"]


def test_a_donor_that_was_not_fitted_is_an_average_one() -> None:
    obs = table(*((f"d{i}", arm, 7) for i in range(4) for arm in ("a", "b")))
    found = design_of(obs)
    columns = found.block_columns(pd.Series(["d0", "d1", "d2", "d3", "another"]))
    np.testing.assert_array_equal(columns[:4].mean(0), columns[4])
    assert np.linalg.matrix_rank(np.c_[np.ones(4), columns[:4]]) == 4


def test_blocks_have_one_degree_of_freedom_less_than_there_are() -> None:
    codes, level = np.repeat(np.arange(5), 4), np.tile([0, 0, 1, 1], 5)
    level[codes == 4] = 0  # holds one arm only
    arms = Arms(level, level[:, None] - 0.5)
    assert Donors(codes, are_blocks=True).compared(arms, 1) == (4, 3)
    assert Donors(codes, n_covariates=1).compared(arms, 1) == (4, 2)


# What is decided by it


def false_positives(effects: pd.DataFrame, column: str, cells: AnnData) -> float:
    return float((effects[column][cells.var["truth"].to_numpy() == 0] < 0.05).mean())


@pytest.fixture(scope="module")
def nothing_hidden() -> LatentConfounder:
    return fitted(simulated(1, types=0.2))


def test_nothing_to_adjust_for_is_an_answer(nothing_hidden: LatentConfounder) -> None:
    effects = nothing_hidden.get_treatment_effects()
    assert nothing_hidden.n_latent > 0
    assert effects.attrs["identification"] == "none"
    np.testing.assert_allclose(effects["log2_fc"], effects["log2_fc_naive"], atol=1e-3)
    np.testing.assert_allclose(effects["q_value"], effects["q_value_naive"], atol=1e-3)
    assert "nothing unmeasured differs" in effects.attrs["assumption"]
    assert "compared within donors" in effects.attrs["design"]
    alternatives = effects.attrs["alternatives"]
    assert alternatives["none"]["rank_correlation"] == pytest.approx(1)
    assert alternatives["none"]["genes_called"] == (effects["q_value"] < 0.05).sum()
    assert alternatives["classes"]["rank_correlation"] > 0.9


def test_effects_are_never_further_off_than_unadjusted_ones_where_nothing_is_hidden() -> None:
    errors = []
    for seed, types in enumerate((0.3, 0.5, 0.8, 1.2), 5):
        cells = simulated(seed, types=types)
        effects, truth = fitted(cells).get_treatment_effects(), cells.var["truth"] / np.log(2)
        both = effects[["log2_fc", "log2_fc_naive"]].sub(truth.to_numpy(), axis=0)
        errors.append((both**2).mean())
    errors = pd.DataFrame(errors)
    assert (errors["log2_fc"] < 1.05 * errors["log2_fc_naive"]).all()


def test_check_shows_design_and_alternatives(nothing_hidden: LatentConfounder) -> None:
    rows = nothing_hidden.check()
    quantities = " ".join(rows.index if "quantity" not in rows else rows["quantity"])
    assert "design: True v. False: compared within donors" in quantities
    assert "genes called by 'classes'" in quantities


def test_donors_need_not_be_passed_twice(nothing_hidden: LatentConfounder) -> None:
    twice = fitted(simulated(1, types=0.2), categorical_covariate_keys=["donor"])
    pd.testing.assert_frame_equal(
        twice.get_treatment_effects(), nothing_hidden.get_treatment_effects()
    )


def test_hidden_types_are_adjusted_for() -> None:
    cells = simulated(2, odds=1.0)
    effects = fitted(cells).get_treatment_effects()
    assert effects.attrs["identification"] in ("classes", "hybrid")
    assert false_positives(effects, "p_value", cells) < 0.1
    assert false_positives(effects, "q_value_naive", cells) > 0.3


@pytest.mark.parametrize("seed", [3, 4])
def test_a_graded_response_is_no_confounder(seed: int) -> None:
    cells = simulated(seed, graded=True)
    effects = fitted(cells).get_treatment_effects()
    responds = cells.var["truth"].to_numpy() != 0
    assert (effects["q_value"][responds] < 0.05).mean() > 0.9
    assert false_positives(effects, "p_value", cells) < 0.1
    assert stats.linregress(effects["log2_fc_naive"], effects["log2_fc"]).slope > 0.95


# The test that adjusting moves effects by no more than chance


def parts(rng: np.random.Generator, codes: NDArray | None) -> SimpleNamespace:
    """Scores orthogonal to a treatment at random, and the shift that they had by chance."""
    n, k, p = 400, 3, 60
    level = rng.integers(0, 2, n)
    arms = Arms(level, (level - level.mean())[:, None])
    scores = rng.normal(size=(n, k))
    if codes is not None:
        scores += rng.normal(0, 0.5, (codes.max() + 1, 2, k))[codes, level]
    shift = arms.residual.T @ scores / (arms.residual**2).sum()
    tested = np.ones((1, p), bool)
    tested[0, :5] = False
    return SimpleNamespace(
        arms=arms,
        scores=scores - arms.residual @ shift,
        shift=shift[0],
        regression=SimpleNamespace(coefficients=rng.normal(size=(2 + k, p))),
        is_tested=tested,
        donors=None if codes is None else Donors(codes, are_blocks=True),
        n_design=2,
    )


@pytest.mark.parametrize("n_donors", [None, 8])
def test_a_shift_by_chance_is_found_as_often_as_the_level_says(n_donors: int | None) -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        codes = None if n_donors is None else np.repeat(np.arange(n_donors), 400 // n_donors)
        fit = parts(rng, codes)
        loadings, se = fit.regression.coefficients[2:], rng.uniform(0.5, 2, 60)
        plain = SimpleNamespace(effect=np.zeros(60), se=se)
        moved = SimpleNamespace(effect=fit.shift @ loadings, se=se)
        found.append(Movement.of(fit, 1, moved, plain))
    p_value = np.array([each.p_value for each in found])
    mean = 1 if n_donors is None else 7 / 5  # of F with 7 degrees of freedom below
    assert (p_value < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert np.mean([each.size**2 / each.by_chance**2 for each in found]) == pytest.approx(
        mean, 0.2
    )
    assert np.mean([each.size > each.usually for each in found]) == pytest.approx(0.16, abs=0.06)
    assert found[0].variance == 1


@pytest.mark.parametrize(
    ("size", "usually", "p_value", "variance", "is_nothing"),
    [
        (0.9, 1.0, 0.2, 1.0, True),
        (0.9, 0.5, 0.02, 1.0, False),
        (0.5, 0.3, 0.02, 1.0, True),
        (1.1, 1.2, 0.2, 1.0, False),
        (0.3, 0.3, 0.2, 0.9, False),
    ],
    ids=[
        "chance",
        "beyond chance",
        "beyond chance but small",
        "large",
        "adjusting is more precise",
    ],
)
def test_when_there_is_nothing_to_adjust_for(
    size: float, usually: float, p_value: float, variance: float, is_nothing: bool
) -> None:
    movement = Movement(size, 0.3, usually, p_value, variance)
    assert movement.is_nothing(has_donors=True) == is_nothing
    # Of cells that count as independent the test decides
    assert movement.is_nothing(has_donors=False) == (is_nothing and p_value >= 0.05)
    assert movement.excess == pytest.approx(max(0, size**2 - usually**2) ** 0.5)
