"""Tables of LatentConfounder: effects and what they rest on, in files and in slots of AnnData."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from scipy.stats import norm

from _input import with_other_genes
from scovert.model import LatentConfounder
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._tables import reasons
from scovert.model.confounder.glm import CountBlocks

pytestmark = [
    pytest.mark.usefixtures("seed", "few_classes"),
    pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)"),
]

COVARIATES = {
    "categorical_covariate_keys": ["donor", "lane"],
    "continuous_covariate_keys": ["cycle"],
}
ARMS = {"treatment_key": "arm", "reference": "none"}
CASES = {
    "one arm": ({}, {}),
    "covariates": ({"layer": "raw"} | COVARIATES, {"n_latent": 3}),
    "arms": (ARMS, {}),
    "clusters": ({"cluster_key": "donor"}, {}),
    "size factors": ({"size_factor_key": "depth"}, {"n_latent": 1}),
    "binary": (ARMS, {"z_type": "binary"}),
    "nothing": (COVARIATES, {"n_latent": 0}),
}


@dataclass
class Fit:
    """A fitted model, its cells before anything was done to them, and how they were set up."""

    model: LatentConfounder
    before: AnnData
    setup: dict


def fitted_to(adata: AnnData, setup: dict | None = None, **init: object) -> LatentConfounder:
    scvi.settings.seed = 0
    LatentConfounder.setup_anndata(adata, **{"treatment_key": "treatment", **(setup or {})})
    model = LatentConfounder(adata, **{"n_latent": 2, **init})
    model.train(accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def fitted() -> dict[str, Fit]:
    """Keep the fit of every case: a test of some of them would fit them again."""
    return {}


@pytest.fixture(scope="module", params=CASES)
def fits(request: pytest.FixtureRequest, make_treated: Callable, fitted: dict[str, Fit]) -> Fit:
    if request.param not in fitted:
        setup, init = CASES[request.param]
        setup = {"treatment_key": "treatment", **setup}
        adata = make_treated()
        fitted[request.param] = Fit(fitted_to(adata, setup, **init), make_treated(), setup)
    return fitted[request.param]


def effects_of(model: LatentConfounder) -> dict[str, pd.DataFrame]:
    """Tables of effects by arm."""
    table = model.get_treatment_effects()
    if table.index.nlevels == 1:
        return {model.levels_[1]: table}
    return {arm: table.loc[arm] for arm in model.levels_[1:]}


def test_effects_are_a_table_of_genes(fits: Fit) -> None:
    table = fits.model.get_treatment_effects()
    arms = fits.model.levels_[1:]
    columns = ["log2_fc", "se", "z", "p_value", "q_value", "log2_fc_naive", "q_value_naive"]
    if len(arms) > 1:
        assert table.index.names == ["arm", "gene"]
        assert table.index.tolist() == [(a, g) for a in arms for g in fits.before.var_names]
        columns.append("identification")
    else:
        assert table.index.name == "gene"
        assert table.index.equals(fits.before.var_names)
    assert table.columns.tolist() == [*columns, "reason"]
    known = table[table["reason"] == ""]
    numbers = known.select_dtypes("number")
    assert np.isfinite(numbers.to_numpy()).all()
    assert (table.loc[table["reason"] != "", "p_value"].isna()).all()
    np.testing.assert_allclose(known["z"], known["log2_fc"] / known["se"])
    normal = 2 * norm.sf(known["z"].abs())
    if "cluster_key" in fits.setup:  # by Student's t, with few degrees of freedom
        assert known["p_value"].between(normal, 1).all()
    else:
        np.testing.assert_allclose(known["p_value"], normal)
    for of_arm in effects_of(fits.model).values():
        of_arm = of_arm[of_arm["reason"] == ""]
        np.testing.assert_allclose(of_arm["q_value"], benjamini_hochberg(of_arm["p_value"]))
    reference = fits.setup.get("reference", False)
    assert table.attrs["reference"] == ", ".join(f"{arm} v. {reference}" for arm in arms)
    used = {"classes", "hybrid", "sparse", "none", "randomised"}
    said = table.attrs["identification"]
    assert set(said.values() if isinstance(said, dict) else [said]) <= used
    again = fits.model.get_treatment_effects()
    pd.testing.assert_frame_equal(again, table)


def test_ten_counts_are_enough() -> None:
    totals = np.array([[4, 5, 0, 90], [5, 5, 90, 0]])
    (found,) = reasons(totals, ["ctrl", "stim"])
    assert found.tolist() == ["fewer than 10 counts", "", "no counts in ctrl", "no counts in stim"]


def benjamini_hochberg(p_values: pd.Series) -> np.ndarray:
    """The least share of false calls at which each is called, by the definition."""
    p = p_values.to_numpy()
    rates = [len(p) * limit / (p <= limit).sum() for limit in p]
    return np.array([min(r for r, at in zip(rates, p, strict=True) if at >= own) for own in p])


def test_means_of_arms_differ_by_the_effects(fits: Fit) -> None:
    model = fits.model
    reference = model.get_normalized_expression(treatment=model.levels_[0])
    for arm, table in effects_of(model).items():
        ratio = np.log2(model.get_normalized_expression(treatment=arm) / reference)
        expected = table["log2_fc"].where(table["log2_fc"].notna(), ratio.iloc[0])
        np.testing.assert_allclose(ratio, np.tile(expected, (len(ratio), 1)), atol=1e-4)
        own = model.get_normalized_expression()
        is_arm = fits.before.obs[fits.setup["treatment_key"]].astype(str) == arm
        with_it = model.get_normalized_expression(treatment=arm)
        pd.testing.assert_frame_equal(own[is_arm], with_it[is_arm])


def test_rows_of_probabilities_sum_to_one(fits: Fit) -> None:
    for name in ("get_class_probabilities", "get_treatment_probability"):
        table = getattr(fits.model, name)()
        np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
        assert table.index.equals(fits.before.obs_names)
    assert table.columns.tolist() == fits.model.levels_


def test_what_confounders_explain(fits: Fit) -> None:
    table, z = fits.model.get_partial_deviance(), fits.model.get_latent_representation()
    assert table.index.tolist() == ["treatment", "counts"]
    assert table.columns.tolist() == ["dbpr"]
    assert (table["dbpr"] < 1).all()
    assert (table["dbpr"] == 0).all() == (z.shape[1] == 0)
    arms = pd.get_dummies(fits.before.obs[fits.setup["treatment_key"]])
    arms = arms.drop(columns=[fits.setup.get("reference", False)])
    known = covariates_of(fits).to_numpy(float)
    rests = [v - known @ np.linalg.lstsq(known, v)[0] for v in (z, arms.to_numpy(float))]
    largest = np.abs(np.corrcoef(*rests, rowvar=False)[: z.shape[1], z.shape[1] :]).max(initial=0)
    assert fits.model.get_leakage() == pytest.approx(largest, abs=1e-5)


def covariates_of(fits: Fit) -> pd.DataFrame:
    keys = [key for name in COVARIATES for key in fits.setup.get(name, [])]
    return pd.get_dummies(fits.before.obs[keys].assign(intercept=1.0), dtype=float)


def test_effects_survive_a_file(fits: Fit, tmp_path) -> None:
    table = fits.model.get_treatment_effects()
    fits.model.save(tmp_path / "model")
    for cells in (fits.before.copy(), with_other_genes(fits.before)):
        loaded = LatentConfounder.load(tmp_path / "model", cells)
        found = loaded.get_treatment_effects()
        pd.testing.assert_frame_equal(found, table)
        pd.testing.assert_frame_equal(*(pd.json_normalize(t.attrs) for t in (found, table)))
        pd.testing.assert_frame_equal(loaded.check(), fits.model.check())


def test_effects_are_of_the_cells_that_were_fitted(fits: Fit, tmp_path) -> None:
    fits.model.save(tmp_path / "model")
    others = {
        "fewer": fits.before[:-1].copy(),
        "order": fits.before[::-1].copy(),
        "counts": fits.before.copy(),
        "treatment": fits.before.copy(),
    }
    for counts in (others["counts"].layers["raw"], others["counts"].X):
        counts.data[:7] += 1
    key = fits.setup["treatment_key"]
    moved = others["treatment"].obs[key].to_numpy().copy()
    others["treatment"].obs[key] = np.roll(moved, 1)
    for cells in others.values():
        loaded = LatentConfounder.load(tmp_path / "model", cells)
        with pytest.raises(ValueError, match="does not hold what it was trained with.*layer"):
            loaded.get_treatment_effects()


def test_counts_changed_after_the_fit_are_noticed(make_treated: Callable) -> None:
    adata = make_treated()
    model = fitted_to(adata, n_latent=0)
    table = model.get_treatment_effects()
    np.log1p(adata.X.data, out=adata.X.data)
    with pytest.raises(ValueError, match="is not as it was set up"):
        model.get_treatment_effects(identification="sparse")
    adata.X = make_treated().X
    pd.testing.assert_frame_equal(model.get_treatment_effects(), table)


def test_another_anndata_is_not_taken_for_the_one_that_was_fitted(make_treated: Callable) -> None:
    adata = make_treated()
    model = fitted_to(adata)
    latent = model.get_latent_representation()
    model.adata = adata[::-1].copy()
    with pytest.raises(ValueError, match="does not hold what it was trained with"):
        model.get_latent_representation()
    model.adata = adata
    np.testing.assert_array_equal(model.get_latent_representation(), latent)


def test_annotate_writes_effects_and_what_they_rest_on(fits: Fit, tmp_path) -> None:
    adata, model = fits.before.copy(), fits.model
    model.annotate(adata)
    probability = model.get_treatment_probability()
    tables = effects_of(model)
    if len(tables) == 1:
        np.testing.assert_array_equal(adata.obs["confounder_propensity"], probability["True"])
        slots = {"True": "confounder_effects"}
    else:
        written = adata.obsm["confounder_propensity"]
        np.testing.assert_array_equal(written, probability)
        assert written.columns.tolist() == ["none", "a c", "a_b"]
        slots = {"a c": "confounder_effects_a c", "a/b": "confounder_effects_a_b"}
    for arm, slot in slots.items():
        expected = tables[arm].rename_axis(None)
        pd.testing.assert_frame_equal(adata.varm[slot], expected, check_names=False)
    classes = model.get_class_probabilities()
    assert ("confounder_class" in adata.obs) == (classes.shape[1] > 1)
    if classes.shape[1] > 1:
        assert (adata.obs["confounder_class"] == classes.idxmax(axis=1)).all()
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", module="scvi")
        adata.write_h5ad(tmp_path / "annotated.h5ad")
        read = ad.read_h5ad(tmp_path / "annotated.h5ad")
    assert_same_record(read.uns["confounder"], adata.uns["confounder"])
    record = adata.uns["confounder"]
    assert record["assumption"] == model.get_treatment_effects().attrs["assumption"]
    if len(tables) == 2:
        assert record["arms"] == {"none": "none", "a c": "a c", "a_b": "a/b"}
        assert record["facts"].keys() == record["identification"].keys() == {"a c", "a_b"}


def assert_same_record(found: object, expected: object) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_same_record(found[name], value)
    else:
        np.testing.assert_array_equal(found, expected)


def test_the_number_of_confounders_is_found_and_kept(make_treated: Callable, tmp_path) -> None:
    adata = make_treated()
    LatentConfounder.setup_anndata(adata, "treatment")
    model = LatentConfounder(adata)
    model.train(accelerator="cpu", enable_progress_bar=False)
    scree = model.scree
    assert scree.shape == (model.n_latent + 1, 2)
    above = scree["singular_value"] > scree["threshold"]
    assert above.tolist() == [True] * model.n_latent + [False]
    model.save(tmp_path / "model")
    loaded = LatentConfounder.load(tmp_path / "model", make_treated())
    pd.testing.assert_frame_equal(loaded.scree, scree)
    np.testing.assert_array_equal(
        loaded.get_latent_representation(), model.get_latent_representation()
    )
    model.annotate(adata)
    np.testing.assert_array_equal(adata.uns["confounder"]["scree"], scree)


@pytest.mark.parametrize("method", ["wald", "aipw"])
@pytest.mark.parametrize("identification", ["auto", "classes", "sparse", "randomised"])
@pytest.mark.parametrize("fits", ["arms", "clusters"], indirect=True)
def test_every_identification_and_method_is_finite(
    fits: Fit, identification: str, method: str
) -> None:
    table = fits.model.get_treatment_effects(identification=identification, method=method)
    known = table[table["reason"] == ""].select_dtypes("number")
    assert np.isfinite(known.to_numpy()).all()
    assert (known["se"] > 0).all()
    if identification != "auto":
        said = table.attrs["identification"]
        assert set(said.values() if isinstance(said, dict) else [said]) == {identification}
        assert len(known) > 20


def test_a_fit_is_free_of_blocks_and_precision(
    make_treated: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_sevens(cells: TreatmentData, genes: np.ndarray, *_: object) -> CountBlocks:
        counts, log_size = cells.counts[:, genes], np.log(cells.size)
        return CountBlocks(counts, log_size, dtype=torch.float64, size=7)

    tables = []
    for _ in range(2):
        model = fitted_to(make_treated())
        tables.append(model.get_treatment_effects(identification="sparse"))
        monkeypatch.setattr(TreatmentData, "blocks", in_sevens)
    difference = (tables[0]["log2_fc"] - tables[1]["log2_fc"]) / tables[0]["se"]
    assert 0 < difference.abs().max() < 0.05
