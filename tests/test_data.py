from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse, stats

from scovert.data import pbmc68k, two_batches
from scovert.data._pbmc68k import _counts_from_log

SIZES = {"T/CD4 ü": 31, "B": 23, "NK": 13}  # 67 cells


@pytest.fixture(scope="module")
def pbmc() -> ad.AnnData:
    return pbmc68k()


@pytest.fixture
def toy() -> ad.AnnData:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical(labels), "donor": rng.integers(0, 5, 67)},
        index=[f"cell {i}" for i in range(67)],
    )
    var = pd.DataFrame({"length": np.arange(11)}, index=[f"gene {g}" for g in range(11)])
    counts = rng.poisson(20, (67, 11)).astype(np.float32)
    counts[rng.random((67, 11)) < 0.3] = 0
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=var)


def unsorted(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Give the same matrix with the entries of each row stored in reverse order."""
    last = np.repeat(matrix.indptr[1:] - 1, np.diff(matrix.indptr))
    order = last - (np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr)))
    return sparse.csr_matrix((matrix.data[order], matrix.indices[order], matrix.indptr))


# pbmc68k


def test_pbmc68k_is_clean(pbmc: ad.AnnData) -> None:
    assert pbmc.shape == (700, 765)
    assert isinstance(pbmc.X, sparse.csr_matrix)
    assert pbmc.X.dtype == np.float32
    assert pbmc.X.has_sorted_indices
    assert (pbmc.X.data >= 1).all()
    assert (pbmc.X.data == np.rint(pbmc.X.data)).all()
    assert list(pbmc.obs) == ["cell_type"]
    assert pbmc.obs["cell_type"].cat.categories.size == 10
    assert not pbmc.obs["cell_type"].isna().any()
    assert pbmc.var.empty
    assert not any([pbmc.obsm, pbmc.varm, pbmc.obsp, pbmc.layers])
    assert pbmc.raw is None
    assert list(pbmc.uns) == ["source"]


def test_pbmc68k_agrees_with_the_stored_totals(pbmc: ad.AnnData) -> None:
    # The totals of the authors, which the recovery does not use: y = round(log1p(1e4 x / n), 3)
    stored = sc.datasets.pbmc68k_reduced()
    totals = stored.obs["n_counts"].to_numpy(dtype=float)[:, None]
    log_values = stored.raw.X.toarray().astype(float)
    counts = pbmc.X.toarray().astype(float)
    assert np.abs(np.log1p(1e4 * counts / totals) - log_values).max() < 0.000501
    assert np.array_equal(np.rint(np.expm1(log_values) * totals / 1e4), counts)
    assert np.array_equal(pbmc.obs_names, stored.obs_names)
    assert np.array_equal(pbmc.var_names, stored.raw.var_names)
    assert np.array_equal(pbmc.obs["cell_type"], stored.obs["bulk_labels"])


def test_rounding_cannot_change_a_pbmc68k_count(pbmc: ad.AnnData) -> None:
    stored = sc.datasets.pbmc68k_reduced()
    total = stored.obs["n_counts"].to_numpy(dtype=float)[:, None]
    error = 0.0005 * np.exp(stored.raw.X.toarray().astype(float)) * total / 1e4
    assert error[pbmc.X.toarray() > 0].max() < 0.131


def test_counts_are_recovered_from_rounded_logs() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(3, (17, 43)).astype(float)
    counts[:, 5] = 1
    logs = np.round(np.log1p(1e4 * counts / rng.uniform(2000, 9000, (17, 1))), 3)
    found = _counts_from_log(sparse.csr_matrix(logs))
    assert np.array_equal(found.toarray(), counts)


def test_values_that_are_no_counts_are_refused() -> None:
    logs = np.log1p(np.array([[1.0, 2.0, 3.4], [1.0, 0.0, 5.0]]))
    with pytest.raises(ValueError, match=r"up to 0\.40 away from whole counts"):
        _counts_from_log(sparse.csr_matrix(logs))


# two_batches


def test_batches_share_every_type_equally(toy: ad.AnnData) -> None:
    result = two_batches(toy, share=0.3, names=("first", "second"))
    found = pd.crosstab(result.obs["cell_type"], result.obs["batch"])
    assert found["second"].to_dict() == {t: round(0.3 * n) for t, n in SIZES.items()}
    assert found.sum(axis=1).to_dict() == SIZES
    assert list(result.obs["batch"].cat.categories) == ["first", "second"]


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_no_type_is_lost_to_rounding(toy: ad.AnnData, share: float) -> None:
    found = pd.crosstab(
        *[two_batches(toy, share=share).obs[key] for key in ("cell_type", "batch")]
    )
    assert found.min(axis=None) == 1


def test_the_split_is_random_within_types(pbmc: ad.AnnData) -> None:
    in_b = np.mean([two_batches(pbmc, seed=s).obs["batch"] == "b" for s in range(20)], axis=0)
    assert in_b.min() > 0
    assert in_b.max() < 1
    assert abs(in_b.mean() - 0.5) < 0.01


def test_capture_ratio_is_exact_and_normal(pbmc: ad.AnnData) -> None:
    capture = two_batches(pbmc, thinning=0.6, capture_sd=0.5).uns["truth"]["capture"]
    assert list(capture.index) == list(pbmc.var_names)
    np.testing.assert_allclose(capture["second"] / capture["first"], np.exp(capture["log_ratio"]))
    assert capture[["first", "second"]].min(axis=None) > 0
    np.testing.assert_array_equal(capture[["first", "second"]].max(axis=1), 1)
    z = (capture["log_ratio"] - np.log(0.6)) / 0.5
    assert stats.kstest(z, "norm").pvalue > 0.01


def test_counts_are_binomial() -> None:
    n_cells, n_genes, n_before = 401, 7, 50
    adata = ad.AnnData(
        np.full((n_cells, n_genes), n_before, dtype=np.int32), obs={"cell_type": ["x"] * n_cells}
    )
    result = two_batches(adata, thinning=0.5, capture_sd=0.4)
    for name, column in zip(["a", "b"], ["first", "second"], strict=True):
        x = result[result.obs["batch"] == name].X.toarray()
        p = result.uns["truth"]["capture"][column].to_numpy()
        sd = np.sqrt(n_before * p * (1 - p))
        assert (np.abs(x.mean(0) - n_before * p) <= 4.5 * sd / np.sqrt(len(x))).all()
        np.testing.assert_allclose(x.std(0), sd, rtol=0.2)


def test_counts_are_only_taken_away(toy: ad.AnnData) -> None:
    before = toy.X.toarray()
    result = two_batches(toy, thinning=0.1)
    after, truth = result.X.toarray(), result.uns["truth"]["capture"]
    assert (after <= before).all()
    assert after.sum() < before.sum()
    assert (result.X.data > 0).all()
    for name, column in zip(["a", "b"], ["first", "second"], strict=True):
        cells, whole = (result.obs["batch"] == name).to_numpy(), (truth[column] == 1).to_numpy()
        assert np.array_equal(after[cells][:, whole], before[cells][:, whole])


def test_without_an_effect_the_counts_stay(toy: ad.AnnData) -> None:
    result = two_batches(toy, thinning=1, capture_sd=0)
    assert np.array_equal(result.X.toarray(), toy.X.toarray())


def test_missing_only_removes_rows(toy: ad.AnnData) -> None:
    whole = two_batches(toy)
    part = two_batches(toy, missing={"a": ["NK"], "b": ["B"]})
    batch, label = (whole.obs[key].astype(str) for key in ["batch", "cell_type"])
    keep = ~(((batch == "a") & (label == "NK")) | ((batch == "b") & (label == "B"))).to_numpy()
    assert list(part.obs_names) == list(whole.obs_names[keep])
    assert np.array_equal(part.X.toarray(), whole.X.toarray()[keep])
    assert part.uns["truth"]["missing"].to_numpy().tolist() == [["a", "NK"], ["b", "B"]]


def test_columns_and_order_are_kept(toy: ad.AnnData) -> None:
    toy.obsm["X_pca"] = np.zeros((67, 2))
    toy.layers["log"] = toy.X.copy()
    result = two_batches(toy)
    assert list(result.obs_names) == list(toy.obs_names)
    assert list(result.obs) == ["cell_type", "donor", "batch"]
    pd.testing.assert_frame_equal(result.obs[["cell_type", "donor"]], toy.obs)
    pd.testing.assert_frame_equal(result.var, toy.var)
    assert not any([result.obsm, result.layers])


def test_the_input_is_untouched(toy: ad.AnnData) -> None:
    toy.X = unsorted(toy.X)
    before = toy.copy()
    two_batches(toy, missing={"a": ["B"]})
    assert np.array_equal(toy.X.data, before.X.data)
    assert np.array_equal(toy.X.indices, before.X.indices)
    pd.testing.assert_frame_equal(toy.obs, before.obs)
    assert not toy.uns


def test_the_seed_decides(toy: ad.AnnData) -> None:
    one, same, other = (two_batches(toy, seed=seed) for seed in [3, 3, 4])
    assert np.array_equal(one.X.toarray(), same.X.toarray())
    assert (one.obs["batch"] == same.obs["batch"]).all()
    assert not np.array_equal(one.X.toarray(), other.X.toarray())
    assert not (one.obs["batch"] == other.obs["batch"]).all()


FORMS = ["dense", "csc", "int", "view", "explicit zeros", "unsorted", "backed"]


@pytest.mark.parametrize("form", FORMS)
def test_the_storage_does_not_matter(toy: ad.AnnData, tmp_path: Path, form: str) -> None:
    expected = two_batches(toy).X.toarray()
    if form == "dense":
        toy.X = toy.X.toarray()
    elif form == "csc":
        toy.X = sparse.csc_matrix(toy.X)
    elif form == "int":
        toy.X = toy.X.astype(np.int16)
    elif form == "view":
        toy = ad.concat([toy, toy], index_unique="-")[:67]
    elif form == "explicit zeros":
        rows, columns = np.indices(toy.shape)
        dense = toy.X.toarray()
        toy.X = sparse.csr_matrix((dense.ravel(), (rows.ravel(), columns.ravel())), toy.shape)
    elif form == "unsorted":
        toy.X = unsorted(toy.X)
    else:
        toy.write_h5ad(tmp_path / "toy.h5ad")
        toy = ad.read_h5ad(tmp_path / "toy.h5ad", backed="r")
    assert np.array_equal(two_batches(toy).X.toarray(), expected)


@pytest.mark.parametrize("missing", [None, {"b": ["T/CD4 ü"]}])
def test_two_batches_survive_a_file(
    toy: ad.AnnData, tmp_path: Path, missing: dict[str, list[str]] | None
) -> None:
    result = two_batches(toy, names=("x/1", "y 2"), missing=missing and {"y 2": missing["b"]})
    result.write_h5ad(tmp_path / "two.h5ad")
    read = ad.read_h5ad(tmp_path / "two.h5ad")
    assert np.array_equal(read.X.toarray(), result.X.toarray())
    pd.testing.assert_frame_equal(read.obs, result.obs)
    truth, expected = read.uns["truth"], result.uns["truth"]
    pd.testing.assert_frame_equal(truth["capture"], expected["capture"])
    assert truth["missing"].to_numpy().tolist() == expected["missing"].to_numpy().tolist()
    for key in ["thinning", "capture_sd", "share", "seed"]:
        assert truth[key] == expected[key]


@pytest.mark.parametrize(
    ("options", "exception", "match"),
    [
        ({"labels_key": "type"}, KeyError, "`labels_key='type'` is not a column"),
        ({"names": ("a", "a")}, ValueError, "two different strings"),
        ({"names": (0, 1)}, ValueError, "two different strings"),
        ({"names": ("a", "b", "c")}, ValueError, "two different strings"),
        ({"thinning": 0}, ValueError, r"`thinning=0` is out of range.*\(0, 1\]"),
        ({"thinning": 1.2}, ValueError, r"`thinning=1\.2` is out of range"),
        ({"capture_sd": -0.1}, ValueError, r"`capture_sd=-0\.1`.*at least 0"),
        ({"capture_sd": np.nan}, ValueError, "`capture_sd=nan`"),
        ({"share": 0}, ValueError, "`share=0` is out of range"),
        ({"share": 1.0}, ValueError, r"`share=1\.0` is out of range"),
        ({"missing": {"c": ["B"]}}, ValueError, r"batches \['c'\]. Use the names \['a', 'b'\]"),
        ({"missing": {"a": ["Mast"]}}, ValueError, r"\['Mast'\], which no cell has"),
        ({"missing": {"a": "B"}}, TypeError, r"pass `\['B'\]`"),
        ({"missing": {"a": ["B"], "b": ["B"]}}, ValueError, r"\['B'\] out of both batches"),
        ({"missing": {"a": list(SIZES)}}, ValueError, "all 3 types"),
    ],
)
def test_wrong_options_are_refused(
    toy: ad.AnnData, options: dict, exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=match):
        two_batches(toy, **options)


@pytest.mark.parametrize("value", [0.5, -1, np.nan, np.inf])
def test_what_is_not_a_count_is_refused(toy: ad.AnnData, value: float) -> None:
    counts = toy.X.toarray()
    counts[41, 7] = value
    toy.X = counts
    with pytest.raises(ValueError, match=r"holds .*cell 41.*gene 7.*raw counts, non-negative"):
        two_batches(toy)


def test_unusable_tables_are_refused(toy: ad.AnnData) -> None:
    labels = toy.obs["cell_type"].astype(object)
    toy.obs["single"] = labels.where(np.arange(67) > 0, "Mast")
    toy.obs["empty"] = labels.where(np.arange(67) > 1)
    with pytest.raises(ValueError, match=r"\['Mast'\].* one cell each"):
        two_batches(toy, labels_key="single")
    with pytest.raises(ValueError, match="no value in 2 cells"):
        two_batches(toy, labels_key="empty")
    with pytest.raises(ValueError, match="exists, but the result writes this column"):
        two_batches(two_batches(toy))
    with pytest.raises(ValueError, match="is empty"):
        two_batches(ad.AnnData(obs=toy.obs, var=toy.var))
