"""Claims and laws of DistanceEmbedding."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from scipy import sparse

import scovert
from scovert.model import DistanceEmbedding
from scovert.model.distance import _checks, _model

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
KEY = "unweighted_unifrac"


def fitted(adata: AnnData, key: str = KEY, seed: int = 0, **train: object) -> DistanceEmbedding:
    scvi.settings.seed = seed
    tree_key = "tree" if "tree" in adata.varm else None
    DistanceEmbedding.setup_anndata(adata, key, tree_key=tree_key)
    model = DistanceEmbedding(adata)
    model.train(**QUIET | train)
    scvi.settings.seed = None
    return model


def r2(true: np.ndarray, predicted: object) -> float:
    error = np.square(np.asarray(predicted) - true).sum()
    return 1 - error / np.square(true - true.mean()).sum()


@pytest.fixture(scope="module")
def cohort() -> AnnData:
    return scovert.simulate.distance(300, 300, distances=[KEY], seed=4)


@pytest.fixture(scope="module")
def old(cohort: AnnData) -> np.ndarray:
    return np.arange(300) >= 60


@pytest.fixture(scope="module")
def model(cohort: AnnData, old: np.ndarray) -> DistanceEmbedding:
    return fitted(cohort[old].copy())


@pytest.fixture(scope="module")
def new(cohort: AnnData, old: np.ndarray) -> AnnData:
    return cohort[~old].copy()


@pytest.fixture(scope="module")
def true(cohort: AnnData, old: np.ndarray) -> np.ndarray:
    """From new to old samples."""
    return cohort.obsp[KEY][np.ix_(~old, old)]


# Claims


def test_new_samples_are_placed_without_their_distances(
    model: DistanceEmbedding, new: AnnData, true: np.ndarray, cohort: AnnData, old: np.ndarray
) -> None:
    found = model.get_distances(new, model.adata)
    linear = fitted(cohort[old].copy(), method="linear")
    by_linear = r2(true, linear.get_distances(new, linear.adata))
    assert r2(true, found) > 0.8
    assert r2(true, found) > by_linear + 0.05
    among = np.triu_indices(60, 1)
    d = cohort.obsp[KEY][np.ix_(~old, ~old)][among]
    assert r2(d, model.get_distances(new).to_numpy()[among]) > 0.6
    assert model.method_ == "network"


def test_uniqueness_is_what_positions_have_no_place_for(
    model: DistanceEmbedding, new: AnnData, true: np.ndarray
) -> None:
    z, old_z = model.get_latent_representation(new), model.get_latent_representation()
    alone = np.linalg.norm(z[:, None].astype(float) - old_z, axis=2)
    assert r2(true, alone) < 0
    u, old_u = model.get_uniqueness(new), model.get_uniqueness()
    found = model.get_distances(new, model.adata)
    expected = np.sqrt(alone**2 + u.to_numpy()[:, None] + old_u.to_numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (u > 0).all()


def test_intervals_hold_what_they_say(
    model: DistanceEmbedding, new: AnnData, true: np.ndarray
) -> None:
    found = model.get_distances(new, model.adata, interval=0.9)
    hits = ((found["lower"] <= true) & (found["upper"] >= true)).to_numpy()
    assert 0.82 < hits.mean() < 0.99
    assert np.sort(hits.mean(1))[:6].mean() > 0.4
    pd.testing.assert_frame_equal(found["mean"], model.get_distances(new, model.adata))
    narrower = model.get_distances(new, model.adata, interval=0.5)
    assert (narrower["upper"] < found["upper"]).all(axis=None)
    assert (found["lower"] >= 0).all(axis=None)


def test_agreement_is_what_new_samples_find(
    model: DistanceEmbedding, new: AnnData, true: np.ndarray
) -> None:
    table = model.get_agreement()
    assert table.index.tolist() == ["train", "new-train", "new-new"]
    assert list(table) == ["r", "r2", "stress", "neighbor_overlap"]
    expected = r2(true, model.get_distances(new, model.adata))
    assert table.loc["new-train", "r2"] == pytest.approx(expected, abs=0.06)
    split = model.get_split()
    rows = (split == "train").to_numpy()
    d = model.adata.obsp[KEY][np.ix_(rows, rows)]
    predicted = model.get_distances().to_numpy()[np.ix_(rows, rows)]
    upper = np.triu_indices(rows.sum(), 1)
    assert table.loc["train", "r2"] == pytest.approx(r2(d[upper], predicted[upper]), abs=1e-4)
    assert split.value_counts().tolist() == [216, 24]


def test_the_gate_goes_back_to_the_linear_map(cohort: AnnData) -> None:
    """A network that has learnt nothing is not better, and is not kept."""
    adata = cohort[:150].copy()
    options = {"max_epochs": 1, "plan_kwargs": {"lr": 0.0}}
    kept = fitted(adata, **options)
    linear = fitted(adata.copy(), method="linear")
    assert kept.method_ == "linear"
    assert kept.module.embedder.mlp is None
    np.testing.assert_allclose(kept.get_distances(), linear.get_distances(), rtol=1e-6)
    pd.testing.assert_frame_equal(kept.get_agreement(), linear.get_agreement())
    forced = fitted(adata.copy(), method="network", **options)
    assert forced.module.embedder.mlp is not None


def test_samples_that_are_read_in_parts_are_the_same(
    cohort: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fitted(cohort[:110].copy(), method="linear").get_distances()
    monkeypatch.setattr(_model, "READ_AT_ONCE", 7)
    pd.testing.assert_frame_equal(
        fitted(cohort[:110].copy(), method="linear").get_distances(), found
    )


def test_a_small_cohort_is_fitted_whole_and_cross_validated(cohort: AnnData) -> None:
    small, others = cohort[:70].copy(), cohort[70:170].copy()
    model = fitted(small, max_epochs=2)
    assert (model.get_split() == "train").all()
    assert model.get_latent_representation().shape == (70, 10)
    d = cohort.obsp[KEY][70:170, :70]
    expected = r2(d, model.get_distances(others, small))
    assert model.get_agreement().loc["new-train", "r2"] == pytest.approx(expected, abs=0.15)
    assert len(model.error_quantiles_) == 70


def test_subjects_stay_on_one_side(cohort: AnnData) -> None:
    adata = cohort[:120].copy()
    adata.obs["subject"] = np.arange(120) // 4
    model = fitted(adata, method="linear", split_key="subject")
    split = model.get_split().groupby(adata.obs["subject"]).nunique()
    assert (split == 1).all()
    assert (model.get_split() == "new").sum() in range(8, 17)
    adata.obs["two"] = np.arange(120) % 2
    with pytest.raises(ValueError, match="tells 2 subjects apart.*At least 5"):
        model.train(split_key="two", **QUIET)


def test_auto_chooses_the_features_that_know_the_distance() -> None:
    adata = scovert.simulate.distance(150, 120, seed=7)
    chosen = {}
    for key in ("unweighted_unifrac", "bray_curtis"):
        chosen[key] = fitted(adata.copy(), key, method="linear").module.features.kinds
    assert "branch_presence" in chosen["unweighted_unifrac"]
    assert "abundance" in chosen["bray_curtis"]


# Training


def test_training_stops_and_keeps_one_best_state(model: DistanceEmbedding) -> None:
    history = model.history["elbo_validation"]["elbo_validation"]
    held_out = (model.get_split() == "new").to_numpy()
    z, u = model.get_latent_representation().astype(float), model.get_uniqueness().to_numpy()
    u = u - np.where(held_out, model.excess_, 0)
    squared = np.square(z[held_out][:, None] - z[~held_out]).sum(2)
    predicted = np.sqrt(squared + u[held_out][:, None] + u[~held_out])
    d = model.adata.obsp[KEY][np.ix_(held_out, ~held_out)]
    stress = np.square(predicted - d).mean() / float(model.module.unit) ** 2
    assert stress == pytest.approx(history.min(), rel=1e-3)


def test_training_and_validation_are_in_one_history(model: DistanceEmbedding) -> None:
    assert {"train_loss", "elbo_train", "elbo_validation"} <= set(model.history)
    assert model.history["elbo_train"].index.equals(model.history["elbo_validation"].index)


# Laws


def test_nothing_bounds_distances_and_their_unit_is_that_of_the_matrix(cohort: AnnData) -> None:
    """No clamp and no sigmoid: distances in the thousands are what those below 1 are."""
    adata = cohort[:110].copy()
    few = {"max_epochs": 2, "train_size": 0.8}
    found = fitted(adata, **few)
    adata.obsp["large"] = 4096.0 * adata.obsp[KEY]  # a power of two: the rounding is the same
    large = fitted(adata, "large", **few)
    np.testing.assert_allclose(large.get_distances(), 4096 * found.get_distances(), rtol=1e-5)
    pd.testing.assert_frame_equal(large.get_agreement(), found.get_agreement(), rtol=1e-5)


def test_permuted_extra_and_missing_taxa(model: DistanceEmbedding, new: AnnData) -> None:
    expected = model.get_distances(new, model.adata)
    permuted = new[:, np.random.default_rng(0).permutation(new.n_vars)].copy()
    np.testing.assert_array_equal(model.get_distances(permuted, model.adata), expected)
    extra = AnnData(np.full((60, 2), 999.0), obs=new.obs[[]])
    extra.var_names = ["unknown 1", "unknown 2"]
    more = ad.concat([new, extra], axis=1, merge="first")
    np.testing.assert_array_equal(model.get_distances(more, model.adata), expected)
    fewer = new[:, :250].copy()
    with pytest.raises(ValueError, match="lacks 50 of the 300 taxa.*`fill_missing=True`"):
        model.get_distances(fewer)
    filled = new.copy()
    filled.X = sparse.csr_matrix(filled.X.toarray() * (np.arange(300) < 250))
    np.testing.assert_array_equal(
        model.get_distances(fewer, fill_missing=True), model.get_distances(filled)
    )
    fewer.var_names = [f"other {i}" for i in range(250)]
    with pytest.raises(ValueError, match="none of the 300 taxa"):
        model.get_distances(fewer, fill_missing=True)


def test_empty_samples_are_finite_and_the_most_unique(
    model: DistanceEmbedding, new: AnnData
) -> None:
    asked = new[:5].copy()
    asked.X = sparse.csr_matrix(asked.X.toarray() * (np.arange(5) != 2)[:, None])
    found = model.get_distances(asked, model.adata, interval=0.9)
    assert np.isfinite(found.to_numpy()).all()
    u = model.get_uniqueness(asked)
    assert u.iloc[2] == pytest.approx(model.fitted_[:, -1].max() + model.excess_)


def test_empty_samples_can_be_trained_on(cohort: AnnData) -> None:
    adata = cohort[:110].copy()
    adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(110) > 2)[:, None])
    with pytest.warns(UserWarning, match="3 samples have no counts"):
        model = fitted(adata, max_epochs=1, train_size=0.8)
    for found in (model.get_distances(interval=0.9), model.check()["value"]):
        assert np.isfinite(found.to_numpy()).all()


def test_a_sample_is_at_zero_from_itself_and_a_copy_is_another(
    model: DistanceEmbedding, new: AnnData
) -> None:
    assert not np.diagonal(model.get_distances()).any()
    part = model.adata[[7, 3]].copy()
    d = model.get_distances(part, model.adata)
    assert d.iloc[0, 7] == d.iloc[1, 3] == 0
    assert (d > 0).sum().sum() == d.size - 2
    twice = ad.concat([new, new], index_unique="-")
    d = model.get_distances(twice).to_numpy()
    assert not np.diagonal(d).any()
    np.testing.assert_allclose(d[:60, 60:].diagonal() ** 2, 2 * model.get_uniqueness(new))
    wide = model.get_distances(twice, interval=0.9)
    assert (np.diagonal(wide["upper"]) == 0).all()


def test_samples_of_the_same_names_with_other_counts_are_new(
    model: DistanceEmbedding, new: AnnData
) -> None:
    renamed = new.copy()
    renamed.obs_names = model.adata.obs_names[:60]
    found = model.get_distances(renamed, model.adata)
    np.testing.assert_array_equal(found, model.get_distances(new, model.adata))


def test_zero_distances_between_samples_and_any_batch_size(cohort: AnnData) -> None:
    adata = cohort[:110].copy()
    for i, j in ((0, 1), (50, 51)):
        adata.obsp[KEY][[i, j]] = adata.obsp[KEY][[j, i]] = adata.obsp[KEY][i]
        adata.obsp[KEY][:, [i, j]] = adata.obsp[KEY][[i, j]].T
        adata.obsp[KEY][[i, i, j, j], [i, j, i, j]] = 0
    for batch_size in (2, 7):
        model = fitted(adata.copy(), max_epochs=1, train_size=0.8, batch_size=batch_size)
        assert np.isfinite(model.get_distances()).all(axis=None)


def test_a_loaded_model_needs_no_distances(
    model: DistanceEmbedding, new: AnnData, tmp_path
) -> None:
    model.save(tmp_path)
    bare = AnnData(new.X, obs=new.obs[[]], var=new.var[[]])
    loaded = DistanceEmbedding.load(tmp_path, bare)
    np.testing.assert_array_equal(
        loaded.get_distances(interval=0.8), model.get_distances(new, interval=0.8)
    )
    pd.testing.assert_frame_equal(loaded.get_agreement(), model.get_agreement())
    with pytest.raises(KeyError, match="no 'unweighted_unifrac'.*trained on distances"):
        loaded.train(**QUIET)


def test_annotate_writes_positions_uniqueness_and_distances(
    model: DistanceEmbedding, new: AnnData
) -> None:
    asked = new.copy()
    model.annotate(asked, key_added="mine", write_distances=True)
    np.testing.assert_array_equal(asked.obsm["X_mine"], model.get_latent_representation(new))
    np.testing.assert_array_equal(asked.obs["mine_uniqueness"], model.get_uniqueness(new))
    np.testing.assert_allclose(asked.obsp["mine"], model.get_distances(new), rtol=1e-12)
    assert asked.uns["mine"]["method"] == "network"
    fewer = new[:, :280].copy()
    model.annotate(fewer, fill_missing=True)
    assert "distance" not in fewer.obsp
    np.testing.assert_array_equal(
        fewer.obsm["X_distance"], model.get_latent_representation(fewer, fill_missing=True)
    )


def test_numbers_of_the_documentation_of_train_are_those_of_the_code() -> None:
    text = " ".join(DistanceEmbedding.train.__doc__.split())
    assert f"under {_checks.SMALL} samples it trains on all" in text
    assert f"takes {_model.TRAIN_SIZE};" in text
