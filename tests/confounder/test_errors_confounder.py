"""What LatentConfounder refuses, what it warns about and what it takes without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from _input import assert_points_at, at, changed, column, no_warning, nothing
from scovert.model import LatentConfounder

N_CELLS, N_GENES = 127, 113
CATEGORICAL, CONTINUOUS = "categorical_covariate_keys", "continuous_covariate_keys"

pytestmark = pytest.mark.usefixtures("seed", "few_classes")
REFUSED_P = "ignore:.*p-values are refused"


def make() -> AnnData:
    """Cells with one confounder, by chance as frequent in both arms."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N_CELLS, 1))
    mean = np.exp(0.5 + z @ rng.normal(0, 0.4, (1, N_GENES)))
    counts = rng.poisson(rng.gamma(4.0, mean / 4)) + np.eye(1, N_GENES)
    obs = pd.DataFrame(
        {
            "treated": rng.permutation(np.arange(N_CELLS) % 2 == 0),
            "arm": rng.permutation(np.repeat(["ctrl", "x", "y"], [50, 40, 37])),
            "donor": rng.choice([f"d{i}" for i in range(7)], N_CELLS),
            "lane": rng.choice(["l1", "l2", "l3"], N_CELLS),
            "age": rng.normal(40, 5, N_CELLS),
            "size": rng.uniform(0.5, 2, N_CELLS),
        },
        index=[f"cell {i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(
        {"is_control": np.arange(N_GENES) >= 10, "length": np.arange(N_GENES)},
        index=[f"gene {g}" for g in range(N_GENES)],
    )
    adata = AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=var)
    adata.layers["raw"] = adata.X.copy()
    return adata


@pytest.fixture
def adata() -> AnnData:
    return make()


def set_up(adata: AnnData, **options: object) -> None:
    LatentConfounder.setup_anndata(adata, **{"treatment_key": "treated", **options})


def fit(adata: AnnData, *, setup: dict | None = None, **init: object) -> LatentConfounder:
    set_up(adata, **(setup or {}))
    model = LatentConfounder(adata, **{"n_latent": 1, **init})
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model() -> LatentConfounder:
    return fit(make())


@pytest.fixture(scope="module")
def binary() -> LatentConfounder:
    return fit(make(), z_type="binary")


# Refused when an AnnData is set up: what is done to it, the options, exception and message


def first(n: int, yes: object = True, no: object = False) -> Callable[[AnnData], list]:
    return lambda a: [yes] * n + [no] * (a.n_obs - n)


LEVELS = "'ctrl', 'x', 'y'"
SMALL = r"fewer than 20 cells in \{True: 19\}\. Pass more cells.*pseudobulk.*`cluster_key`"
SAME = column("lane", lambda a: np.where(a.obs["treated"], "p", "q"))
NESTED = column("donor", lambda a: a.obs["donor"] + a.obs["treated"].astype(str))
AS_NUMBER = column("age", lambda a: 2.5 * a.obs["treated"] - 1)
TWICE = column("twice", lambda a: a.obs["lane"].map({"l1": "m", "l2": "n", "l3": "o"}))
LINEAR = column("twice", lambda a: 3 - 2 * a.obs["age"])
TWO_DONORS = column("donor", lambda a: a.obs["treated"].astype(str) + (a.obs["age"] > 40).map(str))
APART = column("age", lambda a: np.where(a.obs["treated"], 81 + a.obs["size"].rank(), 40) * 1.0)


def blocks(adata: AnnData) -> list[str]:
    """Lanes of which one has no cells of the reference, and one no cells of x."""
    half = dict(zip(adata.obs_names[adata.obs["arm"] == "y"], "p" * 20 + "q" * 17, strict=True))
    lanes = adata.obs["arm"].map({"ctrl": "p", "x": "q"}).to_dict()
    return [half.get(name, lanes[name]) for name in adata.obs_names]


def with_sites(adata: AnnData) -> None:
    """Only women of the second site are treated, and all of them."""
    treated, rng = adata.obs["treated"].to_numpy(), np.random.default_rng(1)
    other = rng.integers(0, 3, adata.n_obs)
    adata.obs["sex"] = np.where(treated | (other == 0), "f", "m")
    adata.obs["site"] = np.where(treated | (other == 1), "s2", "s1")


def with_line(adata: AnnData) -> None:
    """Weight and age overlap; their difference tells the arms apart."""
    sign = np.where(adata.obs["treated"], 1, -1)
    adata.obs["weight"] = adata.obs["age"] + sign * adata.obs["size"]


REFUSED_AT_SETUP = {
    "constant": (column("treated", first(0)), {}, ValueError, "is False in every cell.*compar"),
    "constant text": (
        column("treated", lambda a: pd.Categorical(["a"] * a.n_obs, ["a", "b"])),
        {"reference": "a"},
        ValueError,
        "is 'a' in every cell",
    ),
    "two without reference": (
        column("treated", lambda a: np.where(a.obs["treated"], "stim", "ctrl")),
        {},
        ValueError,
        "'ctrl', 'stim'.*`reference='ctrl'`",
    ),
    "three without reference": (
        nothing,
        {"treatment_key": "arm"},
        ValueError,
        f"the levels {LEVELS}.*reference='ctrl'",
    ),
    "one and two": (
        column("treated", lambda a: 1 + a.obs["treated"]),
        {},
        ValueError,
        "levels 1, 2.*reference=1",
    ),
    "unknown reference": (
        nothing,
        {"treatment_key": "arm", "reference": "none"},
        ValueError,
        f"`reference='none'` is not a level.*{LEVELS}",
    ),
    "small arm": (column("treated", first(19)), {}, ValueError, SMALL),
    "small arm of three": (
        column("arm", lambda a: ["x"] * 19 + ["y"] * 40 + ["ctrl"] * (a.n_obs - 59)),
        {"treatment_key": "arm", "reference": "ctrl"},
        ValueError,
        r"\{'x': 19\}.*Leave these cells out: .*isin\(\['x'\]\)",
    ),
    "small reference": (
        column("treated", first(N_CELLS - 7)),
        {},
        ValueError,
        r"fewer than 20 cells in \{False: 7\}",
    ),
    "covariate is the treatment": (SAME, {CATEGORICAL: ["lane"]}, ValueError, "'lane'.*perfectly"),
    "the treatment itself": (
        nothing,
        {CATEGORICAL: ["treated"]},
        ValueError,
        "'treated'.*named as a covariate",
    ),
    "number is the treatment": (AS_NUMBER, {CONTINUOUS: ["age"]}, ValueError, "'age'.*perfectly"),
    "covariate nested": (
        NESTED,
        {CATEGORICAL: ["donor"]},
        ValueError,
        "'donor'.*perfectly.*cluster_key='donor'",
    ),
    "constant covariate": (
        column("lane", first(0, no="l1")),
        {CATEGORICAL: ["lane"]},
        ValueError,
        "'lane'.*is 'l1' in every cell.*Leave it out",
    ),
    "constant number": (
        column("age", first(0, no=3.5)),
        {CONTINUOUS: ["age"]},
        ValueError,
        "'age'.*3.5 in every cell",
    ),
    "collinear categories": (
        TWICE,
        {CATEGORICAL: ["lane", "twice"]},
        ValueError,
        r"'twice'.*collinear with \['treated', 'lane'\]",
    ),
    "collinear numbers": (
        LINEAR,
        {CONTINUOUS: ["age", "twice"]},
        ValueError,
        r"'twice'.*collinear with \['treated', 'age'\]",
    ),
    "number that separates": (
        APART,
        {CONTINUOUS: ["age"]},
        ValueError,
        r"'age'.* separates True from the reference False.*\(\d+ to \d+ against 40 to 40\).*"
        r"Leave 'age' out, or pass cells of both that are alike\.$",
    ),
    "number that separates one arm": (
        column("age", lambda a: a.obs["age"] + 100.0 * (a.obs["arm"] == "y")),
        {"treatment_key": "arm", "reference": "ctrl", CONTINUOUS: ["size", "age"]},
        ValueError,
        r"'age'.* separates 'y' from the reference 'ctrl'.*Or leave these.*isin\(\['y'\]\)",
    ),
    "category that separates one arm": (
        column("lane", blocks),
        {"treatment_key": "arm", "reference": "ctrl", CATEGORICAL: ["lane"]},
        ValueError,
        "'lane'.* separates 'x' from the reference 'ctrl'.*perfectly. No cell",
    ),
    "categories that separate together": (
        with_sites,
        {CATEGORICAL: ["lane", "sex", "site"], CONTINUOUS: ["age"]},
        ValueError,
        r"Together, `adata.obs\['sex'\]`, `adata.obs\['site'\]` separate True.*'sex' or 'site'",
    ),
    "numbers that separate together": (
        with_line,
        {CATEGORICAL: ["lane"], CONTINUOUS: ["age", "size", "weight"]},
        ValueError,
        r"Together, `adata.obs\['age'\]`, `adata.obs\['weight'\]` separate True",
    ),
    "two clusters in an arm": (
        TWO_DONORS,
        {"cluster_key": "donor"},
        ValueError,
        r"\{False: 2, True: 2\} clusters.*at least 3",
    ),
    "size zero": (at(7, 0.0, "size"), {"size_factor_key": "size"}, ValueError, "is 0.0.*'cell 7'"),
    "size negative": (
        at(7, -1.0, "size"),
        {"size_factor_key": "size"},
        ValueError,
        "-1.0.*'cell 7'.*not logarithms",
    ),
}


@pytest.mark.parametrize(
    ("change", "options", "exception", "match"),
    REFUSED_AT_SETUP.values(),
    ids=REFUSED_AT_SETUP.keys(),
)
def test_setup_refuses(
    adata: AnnData, change: Callable, options: dict, exception: type[Exception], match: str
) -> None:
    change(adata)
    with pytest.raises(exception, match=match):
        set_up(adata, **options)
    assert not [name for name in (*adata.obs, *adata.obsm, *adata.uns) if "_scvi" in name]


def all_but_one(adata: AnnData) -> None:
    """The oldest cell of the reference is as old as the youngest that is treated."""
    APART(adata)
    treated = adata.obs["treated"].to_numpy()
    adata.obs.loc[~treated, "age"] = np.linspace(20, 60, (~treated).sum())
    adata.obs.loc[adata.obs_names[~treated][-1], "age"] = adata.obs["age"][treated].min()


def one_lane_treated(adata: AnnData) -> None:
    adata.obs["lane"] = adata.obs["lane"].astype(str)
    adata.obs.loc[adata.obs_names[adata.obs["treated"]][:9], "lane"] = "l4"


def crossed(adata: AnnData) -> None:
    """Men of one site and women of the other are treated."""
    is_male = np.arange(adata.n_obs) % 3 == 0
    adata.obs["sex"] = np.where(is_male, "m", "f")
    adata.obs["site"] = np.where(is_male == adata.obs["treated"], "s1", "s2")


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        (
            one_lane_treated,
            {CATEGORICAL: ["lane"]},
            r"'lane'.*1 levels.*arm of 'treated' only: 'l4' \(9 cells\)\. These 9 of 127 cells",
        ),
        (
            all_but_one,
            {CONTINUOUS: ["age"]},
            "'age'.* nearly separates True and the reference False: 1 and 1 of their cells",
        ),
        (
            crossed,
            {CATEGORICAL: ["sex", "site"]},
            r"No combination of levels of \['sex', 'site'\].*True and the reference False",
        ),
    ],
)
def test_arms_that_hardly_overlap_warn(
    adata: AnnData, change: Callable, options: dict, match: str, tmp_path: Path
) -> None:
    change(adata)
    with pytest.warns(UserWarning, match=match) as caught:
        model = fit(adata, setup=options, n_latent=0)
    assert len(caught) == 1
    assert_points_at(__file__, caught)
    model.save(tmp_path / "model")
    with no_warning():
        LatentConfounder.load(tmp_path / "model", adata)


@pytest.mark.parametrize("seed", range(3))
def test_covariates_that_overlap_are_taken(seed: int) -> None:
    """Donors and lanes with cells of all arms, a size that the treatment moves, an outlier."""
    rng = np.random.default_rng(seed)
    adata = make()
    adata.obs["size"] = rng.lognormal(0.7 * adata.obs["treated"])
    adata.obs["age"] += 10.0 * adata.obs["treated"]
    adata.obs.loc[adata.obs_names[0], "age"] = 1e6
    with no_warning():
        set_up(adata, **{CATEGORICAL: ["donor", "lane"], CONTINUOUS: ["size", "age"]})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        arms = {"treatment_key": "arm", "reference": "ctrl"}
        set_up(adata, **arms, **{CATEGORICAL: ["lane"], CONTINUOUS: ["size"]})
    assert all("Few cells in" in str(w.message) for w in said)


def test_donors_that_were_treated_as_a_whole_are_no_separation(adata: AnnData) -> None:
    NESTED(adata)
    with no_warning():
        set_up(adata, cluster_key="donor", **{CATEGORICAL: ["lane"]})


def logistic_separates(columns: list[np.ndarray], treated: np.ndarray) -> bool:
    """Whether a logistic regression without penalty tells the arm of every cell."""
    from sklearn.linear_model import LogisticRegression

    x = np.column_stack(columns)
    fitted = LogisticRegression(C=1e8, max_iter=20_000, tol=1e-10).fit(x, treated)
    return bool((fitted.predict(x) == treated).all())


@pytest.mark.parametrize("seed", range(12))
def test_separation_is_what_a_logistic_regression_sees(seed: int) -> None:
    from scovert.model.confounder import _design

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, 2 + seed % 3))
    score = x @ rng.normal(size=x.shape[1])
    treated = score > 0
    x += (0.02 if seed % 2 else -0.05) * np.outer(np.where(treated, 1, -1), np.ones(x.shape[1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_design, "N_FIRST", 20)  # so that cells are added
        patch.setattr(_design, "N_MORE", 5)
        found = _design._is_separated([sparse.csr_matrix(v[:, None]) for v in x.T], treated)
    assert found == logistic_separates(list(x.T), treated)


def test_twenty_cells_are_enough(adata: AnnData) -> None:
    adata.obs["treated"] = [True] * 20 + [False] * (N_CELLS - 20)
    with pytest.warns(UserWarning, match=r"Few cells in \{True: 20\}") as caught:
        assert_finite(fit(adata))
    assert len(caught) == 1
    assert_points_at(__file__, caught)


@pytest.mark.parametrize(("n", "warns"), [(49, True), (50, False)])
def test_small_arms_warn(adata: AnnData, n: int, warns: bool, tmp_path: Path) -> None:
    adata.obs["arm"] = ["x"] * n + ["ctrl"] * 50 + ["y"] * (N_CELLS - n - 50)
    setup = {"treatment_key": "arm", "reference": "ctrl"}
    adata = adata[adata.obs["arm"] != "y"].copy()
    if not warns:
        with no_warning():
            set_up(adata, **setup)
        return
    with pytest.warns(
        UserWarning, match=r"Few cells in \{'x': 49\}.*\(under 50\).*few cells"
    ) as caught:
        model = fit(adata, setup=setup)
    assert_points_at(__file__, caught)
    model.save(tmp_path / "model")
    with no_warning():  # it was said when the cells were set up
        LatentConfounder.load(tmp_path / "model", adata)


# Refused when a model is made or trained


def test_genes_without_counts_leave_fewer_confounders(adata: AnnData) -> None:
    dense = adata.X.toarray()
    dense[:, 9:] = 0
    adata.X = dense
    set_up(adata)
    model = LatentConfounder(adata, n_latent=4)
    with pytest.raises(ValueError, match="`n_latent=4` is more.*at most 3"):
        model.train(accelerator="cpu", enable_progress_bar=False)
    adata.X = (dense > 0) * (np.arange(127) < 9)[:, None]
    with pytest.warns(UserWarning, match="cells have no counts"):
        set_up(adata)
    with pytest.raises(ValueError, match="No gene has 10 counts"):
        LatentConfounder(adata).train(accelerator="cpu", enable_progress_bar=False)


# Refused when a model is asked


def controls(n: int) -> list[str]:
    return [f"gene {g}" for g in range(n)]


EFFECTS, MEANS = "get_treatment_effects", "get_normalized_expression"
REFUSED_OPTIONS = [
    (EFFECTS, {"identification": "magic"}, ValueError, "'auto', 'classes', 'sparse', 'controls'"),
    (EFFECTS, {"identification": "controls"}, ValueError, "needs `negative_controls`"),
    (EFFECTS, {"method": "tmle"}, ValueError, r"`method='tmle'`.*\['wald', 'aipw'\]"),
    (EFFECTS, {"negative_controls": ["GAPDH"]}, ValueError, "holds 1 names.*'GAPDH'"),
    (EFFECTS, {"negative_controls": controls(59)}, ValueError, "holds 59 genes.*At least 60"),
    (EFFECTS, {"negative_controls": []}, ValueError, "holds 0 genes"),
    (EFFECTS, {"negative_controls": "house"}, KeyError, "'house'.*boolean column"),
    (EFFECTS, {"negative_controls": "length"}, KeyError, "'length'.*boolean column"),
    (
        EFFECTS,
        {"negative_controls": controls(110), "identification": "sparse"},
        ValueError,
        "say nothing with `identification='sparse'`",
    ),
    (MEANS, {"treatment": "stim"}, ValueError, r"`treatment='stim'`.*\['False', 'True'\]"),
    (MEANS, {"method": "aipw"}, TypeError, "`method`.*identification"),
    (MEANS, {"identification": "magic"}, ValueError, "identification='magic'"),
    ("get_class_probabilities", {"indices": ["cell 1"]}, TypeError, "row numbers"),
    ("get_treatment_probability", {"indices": [0.5]}, TypeError, "dtype float64"),
    ("annotate", {"identification": "magic"}, ValueError, "identification='magic'"),
    ("annotate", {"negative_controls": ["GAPDH"]}, ValueError, "'GAPDH'"),
]


@pytest.mark.parametrize(("method", "options", "exception", "match"), REFUSED_OPTIONS)
def test_options_are_refused(
    model: LatentConfounder, method: str, options: dict, exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=match):
        getattr(model, method)(**options)
    assert not {"confounder", "X_confounder"} & {*model.adata.uns, *model.adata.obsm}


@pytest.mark.parametrize("identification", ["sparse", "controls", "randomised"])
def test_binary_confounders_identify_by_themselves(
    binary: LatentConfounder, identification: str
) -> None:
    with pytest.raises(ValueError, match="binary ones identify effects by their own states"):
        binary.get_treatment_effects(identification=identification)
    with pytest.raises(ValueError, match="`negative_controls` is for continuous"):
        binary.get_treatment_effects(negative_controls=controls(110))
    for known in ("auto", "classes"):
        table = binary.get_treatment_effects(identification=known)
        assert table.attrs["identification"] == "classes"


def test_a_scree_needs_a_search(model: LatentConfounder) -> None:
    with pytest.raises(RuntimeError, match="`n_latent` was given.*'auto'"):
        _ = model.scree


UNKNOWN = column("arm", lambda a: np.where(a.obs["arm"] == "y", "new", a.obs["arm"]))
REFUSED_QUERIES = {
    "unknown arm": (changed(UNKNOWN), ValueError, "'new'.*not seen.*'ctrl', 'x', 'y'"),
    "no treatment": (changed(lambda a: a.obs.pop("arm")), KeyError, "treatment_key='arm'"),
    "nan treatment": (changed(at(3, None, "arm")), ValueError, "no value in 1 cell"),
    "no layer": (changed(lambda a: a.layers.pop("raw")), KeyError, "layer='raw'"),
    "no category": (changed(lambda a: a.obs.pop("lane")), KeyError, "'lane'"),
    "unknown category": (
        changed(at(3, "l9", "lane")),
        ValueError,
        r"'lane'.*holds \['l9'\].*not seen.*'l1', 'l2', 'l3'",
    ),
    "no number": (changed(lambda a: a.obs.pop("age")), KeyError, "'age'"),
    "nan number": (changed(at(3, np.nan, "age")), ValueError, "'age'.*'cell 3'"),
    "no size factor": (changed(lambda a: a.obs.pop("size")), KeyError, "'size'"),
    "size zero": (changed(at(3, 0.0, "size")), ValueError, "'size'.*'cell 3'"),
    "logs": (
        changed(lambda a: a.layers.update(raw=a.X.log1p())),
        ValueError,
        r"layers\['raw'\]` holds .*look log-normalised",
    ),
}
RICH = {
    "treatment_key": "arm",
    "reference": "ctrl",
    "layer": "raw",
    CATEGORICAL: ["lane"],
    CONTINUOUS: ["age"],
    "size_factor_key": "size",
}


@pytest.fixture(scope="module")
def rich() -> LatentConfounder:
    return fit(make(), setup=RICH)


@pytest.mark.filterwarnings(REFUSED_P)
@pytest.mark.parametrize(
    ("change", "exception", "match"), REFUSED_QUERIES.values(), ids=REFUSED_QUERIES.keys()
)
def test_queries_are_refused(
    rich: LatentConfounder,
    adata: AnnData,
    change: Callable,
    exception: type[Exception],
    match: str,
) -> None:
    query = change(adata)
    for method in (
        rich.get_latent_representation,
        rich.get_class_probabilities,
        rich.get_treatment_probability,
        rich.get_normalized_expression,
        rich.annotate,
    ):
        with pytest.raises(exception, match=match):
            method(query)
    if isinstance(query, AnnData):
        assert "confounder" not in query.uns
        assert not query.varm


def test_arms_that_share_a_slot_are_refused(adata: AnnData) -> None:
    adata.obs["arm"] = adata.obs["arm"].map({"ctrl": "ctrl", "x": "a/b", "y": "a_b"})
    model = fit(adata, setup={"treatment_key": "arm", "reference": "ctrl"})
    with pytest.raises(ValueError, match="not told apart.*slash"):
        model.annotate()
    assert "confounder" not in adata.uns


def test_genes_that_are_not_of_the_model_have_a_reason(
    model: LatentConfounder, adata: AnnData, tmp_path: Path
) -> None:
    new = AnnData(adata.X[:, :1], adata.obs, pd.DataFrame(index=["new"]))
    more = ad.concat([adata, new], axis=1)
    more.obs = adata.obs
    model.annotate(more, write_layer=False)
    assert more.varm["confounder_effects"].loc["new"].drop("reason").isna().all()
    assert more.varm["confounder_effects"].loc["new", "reason"] == "not a gene of the model"
    more.write_h5ad(tmp_path / "more.h5ad")


# Warned about


def test_three_clusters_warn(adata: AnnData) -> None:
    adata.obs["donor"] = adata.obs["lane"]
    with pytest.warns(UserWarning, match="3 in an arm, p-values are exploratory") as caught:
        set_up(adata, cluster_key="donor")
    assert_points_at(__file__, caught)
    adata.obs["donor"] = np.arange(N_CELLS) % 4
    with no_warning():
        set_up(adata, cluster_key="donor")


def test_a_treatment_by_donor_without_clusters_warns(adata: AnnData) -> None:
    adata.obs["mouse"] = adata.obs["donor"] + adata.obs["treated"].astype(str)
    with pytest.warns(UserWarning, match=r"obs\['mouse'\].*14 levels.*='mouse'") as caught:
        set_up(adata)
    assert_points_at(__file__, caught)
    with no_warning():
        set_up(adata, cluster_key="mouse")
    adata.obs["cage"] = adata.obs["treated"].astype(str) + (adata.obs["age"] > 40).astype(str)
    with pytest.warns(UserWarning, match=r"'mouse'\] ?.*'cage'\].*cluster_key='mouse'"):
        set_up(adata)


def test_columns_that_are_no_donors_do_not_warn(adata: AnnData) -> None:
    adata.obs["other arm"] = adata.obs["treated"].map({True: "a", False: "b"})  # 2 levels
    adata.obs["barcode"] = [f"b{i}" for i in range(N_CELLS - 1)] + ["b0"]
    adata.obs["score"] = adata.obs["treated"] + np.arange(N_CELLS) % 5 / 10
    with no_warning():
        set_up(adata)


@pytest.mark.parametrize(("n", "warns"), [(61, True), (99, True), (100, False)])
@pytest.mark.parametrize("asks", [(EFFECTS, MEANS), (MEANS, EFFECTS)])
def test_few_controls_warn_once(n: int, warns: bool, asks: tuple[str, str]) -> None:
    model = fit(make())
    first, second = (getattr(model, name) for name in asks)
    if warns:
        with pytest.warns(UserWarning, match=f"holds {n} genes.*fewer than 100") as caught:
            first(negative_controls=controls(n))
        assert_points_at(__file__, caught)
        with pytest.warns(UserWarning, match="holds 60 genes"):
            first(negative_controls=controls(60))
    with no_warning():
        second(negative_controls=controls(n))


def test_controls_mean_controls(model: LatentConfounder) -> None:
    names = [f"gene {g}" for g in range(10, N_GENES)]
    expected = model.get_treatment_effects(negative_controls=names)
    assert expected.attrs["identification"] == "controls"
    for identification in ("auto", "controls"):
        for given in (names, pd.Index(names), "is_control"):
            found = model.get_treatment_effects(
                identification=identification, negative_controls=given
            )
            pd.testing.assert_frame_equal(found, expected)


def test_cells_without_counts_warn_and_stay_finite(adata: AnnData) -> None:
    dense = adata.X.toarray()
    dense[[3, 80]] = 0
    adata.X = dense
    with pytest.warns(UserWarning, match="2 cells have no counts.*min_counts=1") as caught:
        set_up(adata)
    assert_points_at(__file__, caught)
    for init in ({}, {"z_type": "binary"}, {"n_latent": "auto"}):
        model = LatentConfounder(adata, **{"n_latent": 1, **init})
        model.train(accelerator="cpu", enable_progress_bar=False)
        assert_finite(model)
        assert model.get_normalized_expression().iloc[[3, 80]].to_numpy().max() < 1


def test_effects_that_nothing_identifies_warn() -> None:
    from scovert import simulate

    adata = simulate.confounder("normal", n_cells=401, z_type="continuous", seed=0)
    setup = {CONTINUOUS: [f"covariate_{i}" for i in range(1, 5)], "size_factor_key": "size_factor"}
    LatentConfounder.setup_anndata(adata, "treatment", **setup)
    model = LatentConfounder(adata, n_latent=1)
    asks = (model.get_treatment_effects, model.annotate)
    for ask, again in (asks, asks[::-1]):
        model.train(accelerator="cpu", enable_progress_bar=False)
        with pytest.warns(UserWarning, match="True v. False.*p-values are refused") as caught:
            ask()
        assert_points_at(__file__, caught)
        with no_warning():  # once for each estimate
            again()
            table = model.get_treatment_effects()
        with pytest.warns(UserWarning, match="few genes respond does not hold"):
            model.get_treatment_effects(identification="sparse")
    assert (table["reason"] == "dense effects, not identified").all()
    assert table[["p_value", "q_value"]].isna().all(axis=None)
    assert np.isfinite(table[["log2_fc", "se"]]).all(axis=None)
    assert model.check()["verdict"].eq("look").any()
    assert adata.varm["confounder_effects"]["p_value"].isna().all()


# Taken without a word


@pytest.fixture(scope="module")
def effects(model: LatentConfounder) -> pd.DataFrame:
    return model.get_treatment_effects(identification="sparse")


def test_a_view_becomes_a_copy(adata: AnnData, effects: pd.DataFrame) -> None:
    before = adata.obs.copy()
    view = adata[:, ::-1]
    with no_warning():
        found = fit(view).get_treatment_effects(identification="sparse")
    pd.testing.assert_frame_equal(adata.obs, before)
    difference = (found["log2_fc"] - effects["log2_fc"]) / effects["se"]
    assert difference.abs().max() < 0.05  # genes in another order


TREATMENTS = {
    "0 and 1": lambda t: t.astype(int),
    "small int": lambda t: t.astype("int8"),
    "float": lambda t: t.astype(float),
    "categorical of bool": pd.Categorical,
    "nullable bool": lambda t: pd.array(t, "boolean"),
    "nullable int": lambda t: pd.array(t.astype(int), "Int64"),
    "object": lambda t: t.astype(object),
}
NAMED = {
    "text": lambda t: np.where(t, "stim", "ctrl"),
    "categorical": lambda t: pd.Categorical(np.where(t, "stim", "ctrl"), ["z", "stim", "ctrl"]),
    "string": lambda t: pd.array(np.where(t, "stim", "ctrl"), "string"),
    "odd": lambda t: np.where(t, "T/CD4 ü\n'{}%", " "),
    "other numbers": lambda t: np.where(t, 7, -2),
}


@pytest.mark.parametrize("kind", [*TREATMENTS, *NAMED])
def test_any_treatment(adata: AnnData, effects: pd.DataFrame, kind: str, tmp_path: Path) -> None:
    treated = adata.obs["treated"].to_numpy()
    values = (TREATMENTS | NAMED)[kind](treated)
    adata.obs["treated"] = values
    before = adata.obs.copy()
    setup = {}
    if kind in NAMED:
        setup["reference"] = pd.Series(values)[int(np.flatnonzero(~treated)[0])]
    with no_warning():
        model = fit(adata, setup=setup)
        found = model.get_treatment_effects(identification="sparse")
        model.save(tmp_path / "model")
        loaded = LatentConfounder.load(tmp_path / "model", adata.copy())
        again = loaded.get_treatment_effects(identification="sparse")
        assert_finite(loaded)
        level = model.levels_[1]
        means = loaded.get_normalized_expression(treatment=level, indices=[0])
        assert means.shape == (1, N_GENES)
        model.annotate(identification="sparse")
    pd.testing.assert_frame_equal(found, effects)
    pd.testing.assert_frame_equal(again, effects)
    pd.testing.assert_frame_equal(adata.obs[before.columns], before)
    if kind != "object":  # anndata cannot write a column of it
        adata.write_h5ad(tmp_path / "annotated.h5ad")


@pytest.mark.parametrize("reference", [True, 1, 1.0, np.True_])
def test_any_level_can_be_the_reference(
    adata: AnnData, effects: pd.DataFrame, reference: object
) -> None:
    model = fit(adata, setup={"reference": reference})
    found = model.get_treatment_effects(identification="sparse")
    assert found.attrs["reference"] == "False v. True"
    np.testing.assert_allclose(found["log2_fc"], -effects["log2_fc"], atol=0.02)


def test_categories_without_cells_change_nothing(adata: AnnData) -> None:
    setup = {CATEGORICAL: ["lane"]}
    expected = fit(adata, setup=setup).get_treatment_effects(identification="sparse")
    more = make()
    levels = ["a", "l1", "l2", "l2 b", "l3", "z"]
    more.obs["lane"] = pd.Categorical(more.obs["lane"], levels)
    with no_warning():
        found = fit(more, setup=setup).get_treatment_effects(identification="sparse")
    np.testing.assert_allclose(found["log2_fc"], expected["log2_fc"], atol=1e-3)
    np.testing.assert_allclose(found["se"], expected["se"], rtol=1e-3)


@pytest.mark.parametrize("init", [{}, {"z_type": "binary"}, {"n_latent": 0}, {"n_latent": "auto"}])
def test_genes_without_enough_counts_have_a_reason(adata: AnnData, init: dict) -> None:
    dense = adata.X.toarray()
    treated = adata.obs["treated"].to_numpy()
    dense[:, 2] = 0
    dense[:, 5] = 0
    dense[:9, 5] = 1
    dense[~treated, 7] = 0
    dense[treated, 11] = 0
    dense[:, 13] = 0
    dense[np.flatnonzero(treated)[:1], 13] = 4000  # one cell holds all
    adata.X = dense
    with no_warning():
        model = fit(adata, **init)
        table = model.get_treatment_effects()
    reasons = table["reason"].iloc[[2, 5, 7, 11, 13]].tolist()
    nothing = "no counts in "
    assert reasons == [
        *["fewer than 10 counts"] * 2,
        f"{nothing}False",
        f"{nothing}True",
        f"{nothing}False",
    ]
    bad = table["reason"] != ""
    assert bad.sum() == 5
    assert table.loc[bad].drop(columns="reason").isna().all(axis=None)
    good = table.loc[~bad].drop(columns="reason")
    assert np.isfinite(good).all(axis=None)
    assert good["log2_fc"].abs().max() < 2
    assert_finite(model)
    means = model.get_normalized_expression().mean()
    assert means.iloc[2] < 0.02
    assert means.iloc[5] == pytest.approx(9 / N_CELLS, rel=0.3)


def test_one_gene_is_enough(adata: AnnData) -> None:
    with no_warning():
        model = fit(adata[:, :1].copy(), n_latent="auto")
    assert model.n_latent == 0
    assert_finite(model)
    assert np.isfinite(model.get_treatment_effects()["p_value"]).all()


def test_large_counts_stay_finite(adata: AnnData) -> None:
    adata.X = adata.X.toarray() * 3000
    with no_warning():
        model = fit(adata)
    assert_finite(model)
    table = model.get_treatment_effects(identification="sparse")
    assert table["log2_fc"].abs().max() < 2


def assert_finite(model: LatentConfounder) -> None:
    for name in (
        "get_latent_representation",
        "get_class_probabilities",
        "get_treatment_probability",
        "get_normalized_expression",
    ):
        assert np.isfinite(np.asarray(getattr(model, name)())).all(), name
    for name, frame in model.history.items():
        assert np.isfinite(frame.to_numpy(float)).all(), name


def test_size_factors_that_are_not_on_the_scale_of_totals_are_told() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.lognormal(0, 0.5, (200, 1)) * np.ones(40)).astype(np.float32)
    adata = AnnData(counts, obs={"treated": np.arange(200) % 2})
    totals = counts.sum(1)
    for factors, match in (
        (np.log(totals), "'f'.*look like logarithms"),
        (np.log10(totals), "'f'.*look like logarithms"),
        (1e4 / totals, "'f'.*fall as the total counts.*pass 1 /"),
    ):
        adata.obs["f"] = factors
        with pytest.warns(UserWarning, match=match):
            LatentConfounder.setup_anndata(adata, "treated", size_factor_key="f")
    for factors in (totals, totals**0.7, rng.lognormal(0, 0.5, 200), np.ones(200)):
        adata.obs["f"] = factors
        with no_warning():
            LatentConfounder.setup_anndata(adata, "treated", size_factor_key="f")
