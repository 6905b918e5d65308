"""What NicheVAE claims, on tissue whose truth is known."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from scovert.model import NicheVAE
from scovert.model.niche._graph import nearest_neighbors
from scovert.model.niche._samples import compare_conditions
from scovert.simulate import niche

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
SETUP = {"sample_key": "sample", "batch_key": "sample", "labels_key": "cell_type"}

pytestmark = pytest.mark.filterwarnings("ignore:.*whole numbers up to")


def fit(adata: AnnData, likelihood: str = "gaussian", setup: dict = SETUP, **init) -> NicheVAE:
    scvi.settings.seed = 0
    NicheVAE.setup_anndata(adata, likelihood=likelihood, **setup)
    model = NicheVAE(adata, **init)
    model.train(**QUIET)
    scvi.settings.seed = None
    return model


@pytest.fixture(scope="module")
def model() -> NicheVAE:
    return fit(niche(1500, 3))


@pytest.fixture(scope="module")
def short() -> NicheVAE:
    """A model whose quality does not matter: laws hold for any weights."""
    scvi.settings.seed = 0
    adata = niche(300, 2, n_genes=13)
    NicheVAE.setup_anndata(adata, likelihood="nb", **SETUP)
    model = NicheVAE(adata, n_states=8)
    model.train(max_epochs=2, **QUIET)
    scvi.settings.seed = None
    return model


def neighbors(adata: AnnData) -> np.ndarray:
    sample = adata.obs["sample"].cat.codes.to_numpy()
    return nearest_neighbors(adata.obsm["spatial"], sample, 20)


def types_around(adata: AnnData) -> np.ndarray:
    """Shares of the types among the true neighbours."""
    codes = adata.obs["cell_type"].cat.codes.to_numpy()
    return np.eye(6)[codes][neighbors(adata)].mean(1)


# Claims


def test_regions_with_equal_means_are_told_apart(model: NicheVAE) -> None:
    adata = model.adata
    found = adjusted_rand_score(adata.obs["truth_region"], model.get_niches(n_niches=4))
    x = np.log1p(adata.X.toarray())
    for s in adata.obs["sample"].cat.categories:
        own = adata.obs["sample"] == s
        x[own] = (x[own] - x[own].mean(0)) / x[own].std(0)
    means = PCA(20).fit_transform(x[neighbors(adata)].mean(1))  # as nichepca
    of_means = KMeans(4, n_init=5, random_state=0).fit_predict(means)
    assert found > 0.7
    assert found > adjusted_rand_score(adata.obs["truth_region"], of_means) + 0.3


@pytest.mark.slow
def test_leiden_finds_regions_and_more_of_them_the_finer_it_is(model: NicheVAE) -> None:
    own = model.adata[:3000].copy()
    coarse, fine = (model.get_niches(own, n_niches=None, resolution=r) for r in (0.02, 0.2))
    assert adjusted_rand_score(own.obs["truth_region"], coarse) > 0.5
    assert fine.nunique() > 1.5 * coarse.nunique()


@pytest.mark.slow
def test_counts_are_told_apart_too() -> None:
    adata = niche(1500, 3)
    found = fit(adata, "nb").get_niches(n_niches=4)
    assert adjusted_rand_score(adata.obs["truth_region"], found) > 0.7


def test_composition_by_labels_is_nearer_than_half_the_neighbours(model: NicheVAE) -> None:
    around = model.get_neighborhood_composition(labels_key="cell_type")
    assert around.columns.tolist() == model.adata.obs["cell_type"].cat.categories.tolist()
    np.testing.assert_allclose(around.sum(1), 1, rtol=1e-5)
    codes = model.adata.obs["cell_type"].cat.codes.to_numpy()
    near = np.random.default_rng(0).permuted(neighbors(model.adata), axis=1)
    halves = [np.eye(6)[codes][near[:, part]].mean(1) for part in (slice(10), slice(10, 20))]
    true = model.get_observed_composition()
    np.testing.assert_allclose(true, types_around(model.adata))
    distance = np.abs(around - true).to_numpy().sum(1).mean() / 2
    assert distance < np.abs(halves[0] - halves[1]).sum(1).mean() / 2


def test_expression_around_cells_is_that_of_their_neighbours(model: NicheVAE) -> None:
    around = model.get_neighborhood_expression(transform_batch="section_0").to_numpy()
    adata = model.adata
    x = adata.X.toarray()
    total = x.sum(1, keepdims=True)
    true = np.log1p(x / total * np.median(total))[neighbors(adata)].mean(1)
    own = (adata.obs["sample"] == "section_0").to_numpy()
    by_region = [
        [values[own & (adata.obs["truth_region"] == r)].mean(0) for r in "ABCD"]
        for values in (around, true)
    ]
    error = np.abs(by_region[0] - np.array(by_region[1]))
    assert error.mean() < 0.06  # of log1p, where regions differ by .3
    assert stats.pearsonr(*map(np.ravel, by_region)).statistic > 0.98


def test_drawn_neighbours_are_like_the_true_ones(model: NicheVAE) -> None:
    """Energy distance to the true ones, by that of random cells of the sample; unbiased."""
    adata, rng = model.adata, np.random.default_rng(0)
    rows = rng.choice(adata.n_obs, 100, replace=False)
    drawn = model.sample_neighborhood(indices=rows, n_samples=50)
    assert drawn.shape == (100, 50)
    x = np.log1p(adata.X.toarray())
    place, near = adata.obs_names, neighbors(adata)
    sample = adata.obs["sample"].to_numpy()

    def energy(a: np.ndarray, b: np.ndarray) -> float:
        n, m = len(a), len(b)
        inside = cdist(a, a).sum() / (n * (n - 1)) + cdist(b, b).sum() / (m * (m - 1))
        return 2 * cdist(a, b).mean() - inside

    ours, random = 0.0, 0.0
    for i, row in enumerate(rows):
        made = place.get_indexer(drawn.iloc[i])
        assert (sample[made] == sample[row]).all()
        others = rng.choice(np.flatnonzero(sample == sample[row]), 50)
        ours += energy(x[near[row]], x[made])
        random += energy(x[near[row]], x[others])
    assert ours < 0.25 * random


def test_sections_mix_and_a_new_one_needs_no_fit(model: NicheVAE) -> None:
    """The section has a shift of its own, as a batch that was not trained on."""
    new = niche(1500, 4)[4500:].copy()
    shares = new.uns["truth"]["shares"]
    assert not np.isin(new.obs["sample"], model.adata.obs["sample"]).any()
    around = model.get_neighborhood_composition(new, labels_key="cell_type").to_numpy()
    own_region = [around[new.obs["truth_region"] == r].mean(0) for r in "ABCD"]
    nearest = cdist(own_region, shares).argmin(1)
    assert nearest.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("options", [{"n_niches": 4}, {"n_niches": None, "resolution": 0.02}])
def test_a_niche_has_the_same_name_on_a_new_slide(model: NicheVAE, options: dict) -> None:
    """Regions of the new slide are in the niches that they are in on those of the model."""
    adata, niches = model.adata, model.get_niches(**options)
    again = model.get_niches(adata.copy(), **options)
    pd.testing.assert_series_equal(again, niches)
    new = niche(1500, 4)[4500:].copy()
    found = model.get_niches(new, **options)
    named = pd.crosstab(adata.obs["truth_region"], niches).idxmax(axis=1)
    share = (found == named[new.obs["truth_region"]].astype(str).to_numpy()).mean()
    assert share > 0.7
    model.annotate(new, write_layer=False, **options)
    np.testing.assert_array_equal(new.obs["niche"], found)


def test_of_shuffled_positions_there_is_nothing_to_tell() -> None:
    adata = niche(1000, 2)
    rng = np.random.default_rng(0)
    for s in adata.obs["sample"].cat.categories:
        own = np.flatnonzero(adata.obs["sample"] == s)
        adata.obsm["spatial"][own] = adata.obsm["spatial"][rng.permutation(own)]
    table = fit(adata).check()
    assert table["value"]["active latent dimensions"] == 0
    assert table["value"]["divergence from the prior"] < 0.05
    assert abs(table["value"]["held-out gain per neighbour"]) < 0.02
    assert "tells nothing" in table["advice"]["active latent dimensions"]
    assert "tells nothing" in table["advice"]["divergence from the prior"]


def test_check_is_content_with_a_good_fit(model: NicheVAE) -> None:
    table = model.check()
    assert table.query("verdict != 'ok'").index.tolist() == []
    assert table["value"]["held-out gain per neighbour"] > 0.3


# Laws


def moved(adata: AnnData, change) -> AnnData:
    other = adata.copy()
    other.obsm["spatial"] = change(other.obsm["spatial"])
    return other


def rotated(positions: np.ndarray) -> np.ndarray:
    turn = stats.ortho_group.rvs(2, random_state=0)
    return positions @ turn


@pytest.mark.parametrize(
    "change",
    [
        rotated,
        lambda p: p * [1, -1],
        lambda p: p * 1e-3,
        lambda p: p + [5000, -300],
        lambda p: np.c_[p, np.zeros(len(p))],
        lambda p: pd.DataFrame(p, [f"cell_{i}" for i in range(len(p))]),
    ],
    ids=["rotation", "reflection", "scale", "shift", "third dimension", "table"],
)
def test_where_the_slide_lies_changes_nothing(short: NicheVAE, change) -> None:
    expected = short.get_latent_representation()
    found = short.get_latent_representation(moved(short.adata, change))
    np.testing.assert_array_equal(found, expected)


def test_samples_do_not_see_each_other(short: NicheVAE) -> None:
    expected = short.get_latent_representation()
    adata = short.adata.copy()
    second = (adata.obs["sample"] == "section_1").to_numpy()
    adata.obsm["spatial"][second] += 1e4
    adata.X[second] = adata.X[second][::-1]
    found = short.get_latent_representation(adata)
    np.testing.assert_allclose(found[~second], expected[~second], rtol=1e-5, atol=1e-5)
    assert not np.allclose(found[second], expected[second], atol=0.01)


def test_the_order_of_cells_changes_nothing(short: NicheVAE) -> None:
    order = np.random.default_rng(0).permutation(short.adata.n_obs)
    found = short.get_neighborhood_composition(short.adata[order].copy())
    expected = short.get_neighborhood_composition().loc[found.index]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_indices_are_taken_after_neighbours_are_found(short: NicheVAE) -> None:
    expected = short.get_latent_representation()
    rows = np.arange(0, 600, 7)
    found = short.get_latent_representation(indices=rows)
    np.testing.assert_allclose(found, expected[rows], rtol=1e-5, atol=1e-5)
    alone = short.get_latent_representation(short.adata[rows].copy())
    assert not np.allclose(alone, expected[rows], atol=0.01)


def test_tiny_samples_and_borders_work(short: NicheVAE) -> None:
    parts = [short.adata[:5], short.adata[300:301]]
    tiny = ad.concat(parts, merge="same")
    tiny.obs["sample"] = tiny.obs["sample"].astype(str)
    assert np.isfinite(short.get_latent_representation(tiny)).all()
    around = short.get_neighborhood_composition(tiny)
    np.testing.assert_allclose(around.sum(1), 1, rtol=1e-5)


def test_distance_of_places_is_the_energy_distance(short: NicheVAE) -> None:
    places = short.get_latent_representation().astype(float)
    pi = short.get_neighborhood_composition().to_numpy(float)
    states = short.module.states.detach().double().softmax(-1).sqrt().numpy() * 20
    distance = cdist(states, states)
    p, q = pi[3], pi[400]
    expected = 2 * p @ distance @ q - p @ distance @ p - q @ distance @ q
    assert np.square(places[3] - places[400]).sum() == pytest.approx(expected, rel=1e-3)


def test_details_are_components_of_means_around(model: NicheVAE) -> None:
    """Behind the energy map, with 36 % of its variance; also of samples that were not fitted."""
    places = model.get_latent_representation()
    found = model.get_latent_representation(representation="detailed")
    np.testing.assert_array_equal(found[:, : places.shape[1]], places)
    more = found[:, places.shape[1] :]
    assert more.shape[1] == 20
    assert more.var(0).sum() == pytest.approx(0.36 * places.var(0).sum(), rel=1e-3)
    adata = model.adata
    x = adata.X.toarray()
    total = x.sum(1, keepdims=True)
    f = np.log1p(x / total * np.median(total))
    for s in adata.obs["sample"].cat.categories:
        own = adata.obs["sample"] == s
        f[own] = (f[own] - f[own].mean(0)) / f[own].std(0)
    means = (f[neighbors(adata)].sum(1) + f) / 21
    expected = PCA(20, svd_solver="full").fit_transform(means)
    for axis in range(3):
        r = stats.pearsonr(more[:, axis], expected[:, axis]).statistic
        assert abs(r) > 0.999
    new = niche(300, 1, seed=1)
    new.obs["sample"] = "section_0"
    assert model.get_latent_representation(new, representation="detailed").shape[0] == 300


# What comes out


def test_what_annotate_writes(short: NicheVAE) -> None:
    adata = short.adata.copy()
    short.annotate(adata, n_niches=3)
    assert adata.obs["niche"].cat.categories.tolist() == ["0", "1", "2"]
    sizes = adata.obs["niche"].value_counts()
    assert sizes.is_monotonic_decreasing
    assert list(adata.obsm["niche_composition"]) == [f"type_{k + 1}" for k in range(6)]
    states = short.get_cell_states()
    assert adata.obs["niche_state"].tolist() == states["state"].tolist()
    assert states["probability"].between(1 / 8, 1).all()
    assert adata.layers["niche"].shape == adata.shape


def test_samples_are_described_by_their_cells(short: NicheVAE) -> None:
    around, obs = short.get_neighborhood_composition(), short.adata.obs
    found = short.get_sample_composition()
    assert found.index.tolist() == ["section_0", "section_1"]
    own = around[(obs["sample"] == "section_1").to_numpy()]
    np.testing.assert_allclose(found.loc["section_1"], own.mean(), rtol=1e-5)
    adata = short.adata.copy()
    adata.obs["niche"] = short.get_niches(n_niches=3)
    shares = short.get_sample_composition(adata, niche_key="niche")
    expected = pd.crosstab(adata.obs["sample"], adata.obs["niche"], normalize="index")
    np.testing.assert_allclose(shares, expected)


def test_the_tenth_niche_is_not_listed_before_the_second(short: NicheVAE) -> None:
    adata, names = short.adata.copy(), [str(i) for i in range(12)]
    adata.obs["niche"] = short.get_niches(n_niches=12)
    assert short.get_sample_composition(adata, "niche").index.tolist() == names
    shares = short.get_sample_composition(adata, niche_key="niche")
    assert shares.columns.tolist() == names
    adata.obs["donor"] = np.char.add("d", (np.arange(600) % 4).astype(str))
    adata.obs["stage"] = np.where(np.arange(600) % 2, "old", "young")
    found = short.get_composition_differences(
        "stage", adata, reference="young", subject_key="donor", niche_key="niche"
    )
    assert found.index.get_level_values("niche").tolist() == names


def test_images_of_one_donor_are_no_replicates(short: NicheVAE) -> None:
    adata = niche(60, 8, n_genes=13)
    place = adata.obs["sample"].cat.codes.to_numpy()
    adata.obs["stage"] = np.where(place < 4, "young", "old")
    adata.obs["slide"] = (place % 4).astype(str)  # with samples of both stages
    compare = {"condition_key": "stage", "adata": adata, "reference": "young"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short.get_composition_differences(**compare)
    adata.obs["donor"] = np.char.add("d", (place // 2).astype(str))
    match = "8 samples are of 4 levels of `adata.obs.'donor'.`.*pass `subject_key='donor'`"
    with pytest.warns(UserWarning, match=match):
        short.get_composition_differences(**compare)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short.get_composition_differences(**compare, subject_key="donor")


def test_conditions_are_compared_over_subjects() -> None:
    """Welch's t-test of the logits of the shares, whatever the number of cells."""
    rng = np.random.default_rng(0)
    subject = pd.Series(np.repeat([f"s{i}" for i in range(8)], 50), name="donor")
    condition = pd.Series(np.repeat(["a", "b"], 200), name="stage")
    shares = pd.DataFrame(rng.dirichlet([2, 1, 1], 400), columns=["x", "y", "z"])
    found = compare_conditions(shares, condition, subject, "a")
    assert found.index.tolist() == [("b", "x"), ("b", "y"), ("b", "z")]
    means = shares.groupby(subject).mean()["y"].to_numpy()
    logit = np.log(means / (1 - means))
    test = stats.ttest_ind(logit[4:], logit[:4], equal_var=False)
    row = found.loc[("b", "y")]
    assert row["p_value"] == pytest.approx(test.pvalue)
    assert row["log_odds_ratio"] / row["se"] == pytest.approx(test.statistic)
    assert row["log_odds_ratio"] == pytest.approx(logit[4:].mean() - logit[:4].mean())
    more = [pd.concat([t] * 9, ignore_index=True) for t in (shares, condition, subject)]
    again = compare_conditions(*more, "a")
    pd.testing.assert_frame_equal(again, found)


def test_p_values_are_uniform_where_conditions_are_alike() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(150):
        of_subject = rng.dirichlet([5, 5, 5], 10)
        shares = pd.DataFrame(np.repeat(of_subject, 3, 0), columns=list("xyz"))
        subject = pd.Series(np.repeat(np.arange(10), 3).astype(str), name="donor")
        condition = pd.Series(np.repeat(["a", "b"], 15), name="stage")
        table = compare_conditions(shares, condition, subject, "a")
        found.append(table["p_value"].iloc[0])
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_matching_is_trained_and_has_no_states() -> None:
    scvi.settings.seed = 0
    adata = niche(200, 2, n_genes=13)
    NicheVAE.setup_anndata(adata, likelihood="gaussian", sample_key="sample")
    model = NicheVAE(adata, n_states=8, decoder="matching", n_latent=4)
    model.train(max_epochs=15, plan_kwargs={"free_bits": 0.1}, **QUIET)
    scvi.settings.seed = None
    loss = model.history["neighbor_nll_train"].to_numpy().ravel()
    assert loss[-1] < loss[0]
    assert model.get_latent_representation().shape == (400, 4)
    with pytest.raises(RuntimeError, match="decoder='matching'.*decoder='mixture'"):
        model.get_neighborhood_composition()


def test_free_bits_keep_a_divergence() -> None:
    """With them every dimension keeps what costs nothing, also where there is nothing to tell."""
    adata = niche(300, 1, mixing=1.0)
    found = {}
    for bits in (0.0, 0.3):
        scvi.settings.seed = 0
        NicheVAE.setup_anndata(adata, likelihood="gaussian")
        model = NicheVAE(adata, n_states=8, n_latent=4)
        model.train(max_epochs=60, plan_kwargs={"free_bits": bits}, **QUIET)
        found[bits] = model.check()["value"]["divergence from the prior"]
    scvi.settings.seed = None
    assert found[0.0] < 0.3 < found[0.3]
