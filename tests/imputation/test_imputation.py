"""What MaskedImputation claims, on real counts of which some are hidden, and on simulated ones."""

from __future__ import annotations

from typing import NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from scovert import data, simulate
from scovert.model import MaskedImputation

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}
K = 30


class Hidden(NamedTuple):
    """A fitted model, which cells and genes were hidden from it, and their counts."""

    model: MaskedImputation
    second: np.ndarray
    genes: pd.Index
    x: pd.DataFrame  # all counts, of all cells

    @property
    def true(self) -> np.ndarray:
        return self.x.loc[self.second, self.genes].to_numpy()

    def imputed(self, **options: object) -> pd.DataFrame:
        return self.model.get_imputed(indices=self.second, gene_list=self.genes, **options)


def fit(cells: AnnData, second: np.ndarray, hidden: np.ndarray, max_epochs: int) -> Hidden:
    """Join two parts, of which the second has some of the genes, and fit a model."""
    parts = {"a": AnnData(cells[~second].X), "b": AnnData(cells[second][:, ~hidden].X)}
    parts["a"].var_names, parts["b"].var_names = cells.var_names, cells.var_names[~hidden]
    adata = data.concat_measured(parts)
    scvi.settings.seed = 0
    MaskedImputation.setup_anndata(adata, "batch", measured_key="measured")
    model = MaskedImputation(adata)
    model.train(max_epochs, **QUIET)
    scvi.settings.seed = None
    rows = np.concatenate([np.flatnonzero(~second), np.flatnonzero(second)])
    x = pd.DataFrame(cells.X.toarray()[rows], adata.obs_names, cells.var_names)
    return Hidden(model, second[rows], cells.var_names[hidden], x)


@pytest.fixture(scope="module")
def blood() -> Hidden:
    """Hide 250 of 765 genes from half of 700 blood cells."""
    rng = np.random.default_rng(1)
    hidden = np.isin(np.arange(765), rng.choice(765, 250, replace=False))
    return fit(data.pbmc68k(), rng.random(700) < 0.5, hidden, max_epochs=60)


def simulated() -> tuple[AnnData, np.ndarray, np.ndarray]:
    """Simulate two datasets whose gene totals differ; the last gene is noise, and hidden too."""
    cells = simulate.paired((300, 300), n_genes=300, batch_sd=0.1, seed=1)
    rng = np.random.default_rng(0)
    noise = rng.negative_binomial(2, 2 / 5, 600)
    x = np.column_stack([cells.X.toarray(), noise]).astype(np.float32)
    hidden = np.isin(np.arange(301), [*rng.choice(300, 119, replace=False), 300])
    second = (cells.obs["batch"] == "batch_1").to_numpy()
    found = AnnData(sparse.csr_matrix(x), var=pd.DataFrame(index=[f"g{i}" for i in range(301)]))
    return found, second, hidden


@pytest.fixture(scope="module")
def of_simulated() -> Hidden:
    return fit(*simulated(), max_epochs=40)


def deviance(x: np.ndarray, mean: np.ndarray, theta: float = 2.0) -> float:
    of_x = np.where(x > 0, x * np.log(np.maximum(x, 1) / mean), 0)
    return float((of_x - (x + theta) * np.log((x + theta) / (mean + theta))).sum())


def of_neighbours_and_mean(h: Hidden) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the 30 nearest cells by 30 components of the shared genes, and of all."""
    shared = ~h.x.columns.isin(h.genes)
    x, genes = h.x.to_numpy(), np.flatnonzero(~shared)
    own, library = x[:, shared], x[:, shared].sum(1, keepdims=True)
    logs = np.log1p(own / library * 1e4)
    places = PCA(30, svd_solver="full").fit_transform((logs - logs.mean(0)) / (logs.std(0) + 1e-6))
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    first, library = x[~h.second], library[h.second]
    nearest = NearestNeighbors(n_neighbors=K).fit(places[~h.second])
    sums = first[nearest.kneighbors(places[h.second], return_distance=False)].sum(1)
    mean = library * first.sum(0)[genes] / first[:, shared].sum()
    shares = sums[:, genes] / sums[:, shared].sum(1, keepdims=True)
    return (K * library * shares + mean) / (K + 1), mean


def test_hidden_counts_are_imputed_better_than_by_neighbours_or_by_the_mean(blood: Hidden) -> None:
    """0.25 of the deviance from the mean, and 0.22 for the neighbours."""
    neighbours, mean = of_neighbours_and_mean(blood)
    null = deviance(blood.true, mean)
    ours = 1 - deviance(blood.true, blood.imputed().to_numpy()) / null
    assert ours > 0.2
    assert ours > 1 - deviance(blood.true, neighbours) / null + 0.01
    bias = np.log2(blood.imputed().to_numpy().sum() / blood.true.sum())
    assert abs(bias) < 0.15


def true_means(h: Hidden) -> pd.Series:
    """Hidden totals for 10,000 counts of what was learnt from the second dataset."""
    learnt = h.model.adata.var_names[h.model.module.learnt[1].numpy()]
    own = h.x[h.second]
    return own[h.genes].sum() / own[learnt].to_numpy().sum() * 1e4


@pytest.mark.parametrize("name", ["blood", "of_simulated"])
def test_intervals_hold_what_was_hidden(name: str, request: pytest.FixtureRequest) -> None:
    h: Hidden = request.getfixturevalue(name)
    table = h.model.get_group_expression(interval=0.9)
    n_learnt = int(h.model.module.learnt[1].sum())
    own = table.loc[table["dataset"] == "b", "unit"]
    assert (own == f"per 10,000 counts of {n_learnt:,} genes").all()
    assert (table.loc[table["dataset"] == "a", "unit"] != own.iloc[0]).all()
    table = table[(table["dataset"] == "b") & ~table["measured"]].set_index("gene").loc[h.genes]
    known = table["lower"].notna().to_numpy()
    true = true_means(h)[known]
    inside = (true >= table["lower"][known]) & (true <= table["upper"][known])
    assert known.sum() > 100
    assert 0.8 <= inside.mean() <= 0.98
    assert (table["reason"][~known] == "fewer than 20 imputed counts").all()
    bounds = h.imputed(interval=0.9)
    found = (h.true >= bounds["lower"]) & (h.true <= bounds["upper"])
    assert found.to_numpy().mean() > 0.88
    pd.testing.assert_frame_equal(bounds["mean"], h.imputed(), rtol=1e-4)
    rows = np.flatnonzero(h.second)[[3, 0]]
    some = h.model.get_imputed(indices=rows, gene_list=h.genes, interval=0.9)
    pd.testing.assert_frame_equal(some, bounds.iloc[[3, 0]], rtol=1e-4)
    assert h.model.get_imputed(indices=[], interval=0.9).shape == (0, 3 * h.x.shape[1])


def test_a_gene_that_nothing_predicts_is_flagged(of_simulated: Hidden) -> None:
    h = of_simulated
    table = h.model.get_group_expression()
    noise = table[(table["gene"] == "g300") & (table["dataset"] == "b")]
    assert noise["reason"].tolist() == ["hardly predicted where it was measured"]
    own = table[(table["dataset"] == "b") & ~table["measured"]]
    assert (own["reason"] == "").mean() > 0.7
    bounds = h.imputed(interval=0.9)
    ratio = (bounds["upper"] - bounds["lower"]) / np.sqrt(bounds["mean"])
    assert ratio["g300"].mean() > ratio.mean().median()


def test_zeros_that_pass_as_measured_halve_what_is_imputed(of_simulated: Hidden) -> None:
    """The trap that the table is for."""
    adata = of_simulated.model.adata.copy()
    adata.varm["measured"] = adata.varm["measured"] | (adata.var_names != "g300")[:, None]
    scvi.settings.seed = 0
    MaskedImputation.setup_anndata(adata, "batch", measured_key="measured")
    trapped = MaskedImputation(adata)
    trapped.train(20, **QUIET)
    genes = of_simulated.genes.drop("g300")
    asked = {"indices": of_simulated.second, "gene_list": genes}
    true = of_simulated.x.loc[of_simulated.second, genes].to_numpy().sum()
    bias = [
        np.log2(m.get_imputed(**asked).to_numpy().sum() / true)
        for m in (of_simulated.model, trapped)
    ]
    assert abs(bias[0]) < 0.4
    assert bias[1] < -1


def test_measured_counts_can_be_kept_and_are_never_touched(blood: Hidden) -> None:
    adata = blood.model.adata.copy()
    before = adata.X.copy()
    blood.model.annotate(adata, keep_measured=True)
    measured = adata.varm["imputation_measured"][adata.obs["batch"]].to_numpy().T
    layer = adata.layers["imputation"]
    np.testing.assert_array_equal(layer[measured], before.toarray()[measured])
    imputed = blood.model.get_imputed().to_numpy()
    np.testing.assert_array_equal(layer[~measured], imputed[~measured])
    assert (adata.X != before).nnz == 0
    assert (~measured).sum() == blood.second.sum() * 250
    errors = adata.uns["imputation"]["errors"]
    assert errors["datasets"].tolist() == ["a", "b"]
    assert np.isnan(errors["sd"][0])
    assert 0 <= errors["sd"][1] < 0.5
    explained = adata.varm["imputation_explained"]
    assert explained.loc[blood.genes, "b"].isna().all()
    assert explained["a"].median() > 0


def test_genes_in_another_order_are_annotated_by_name(blood: Hidden) -> None:
    adata = blood.model.adata[:, ::-1].copy()
    blood.model.annotate(adata, keep_measured=True)
    expected = blood.model.adata.varm["measured"]
    pd.testing.assert_frame_equal(
        adata.varm["imputation_measured"].loc[expected.index], expected, check_names=False
    )
    own = adata[~blood.second]  # all that the first dataset has was measured
    np.testing.assert_array_equal(own.layers["imputation"], own.X.toarray())


def test_what_is_known_is_reported_by_dataset_and_by_gene(blood: Hidden) -> None:
    table = blood.model.get_agreement()
    assert table.index.tolist() == [("a", "observed"), ("b", "observed"), ("b", "imputed")]
    imputed = table.loc[("b", "imputed")]
    assert imputed["n_genes"] >= 25
    assert 0.7 < imputed["coverage"] <= 1
    assert 1 < imputed["factor"] < 3
    neighbours, mean = of_neighbours_and_mean(blood)
    hidden = 1 - deviance(blood.true, blood.imputed().to_numpy()) / deviance(blood.true, mean)
    assert imputed["deviance_explained"] == pytest.approx(hidden, abs=0.15)
    genes = blood.model.get_gene_agreement()
    one = genes.query("kind == 'imputed'").iloc[0]
    at = blood.x.loc[blood.second, one["gene"]]
    assert one["total"] == at.sum()
    found = blood.model.get_imputed(indices=blood.second, gene_list=[one["gene"]])
    assert one["lower"] < one["upper"]
    assert genes.query("kind == 'observed'")["lower"].isna().all()
    assert one["imputed_total"] == pytest.approx(found.to_numpy().sum(), rel=1e-4)
    rows = blood.model.check()["value"]
    assert rows["imputed genes: deviance explained"] == imputed["deviance_explained"]
    assert rows["cells unlike the source"] < 0.1


def test_the_correlation_is_that_of_logarithms(blood: Hidden) -> None:
    genes = blood.model.get_gene_agreement().set_index(["dataset", "gene"])
    learnt = blood.model.module.learnt[1].numpy()
    name = blood.model.adata.var_names[learnt][3]
    x = blood.model.adata[blood.second].X.toarray()
    scale = 1e4 / x[:, learnt].sum(1)
    found = blood.model.get_imputed(indices=blood.second, gene_list=[name]).to_numpy()[:, 0]
    at = blood.model.adata.var_names.get_loc(name)
    expected = np.corrcoef(np.log1p(x[:, at] * scale), np.log1p(found * scale))[0, 1]
    assert genes.loc[("b", name), "pearson_r"] == pytest.approx(expected, abs=1e-4)


def test_the_best_model_so_far_has_intervals(of_simulated: Hidden) -> None:
    """A file of training that was cut off holds no errors of genes yet."""
    model = of_simulated.model
    expected, spread = model.get_imputed(indices=[400], interval=0.8), model.spread_
    model.spread_ = model.explained_ = None
    pd.testing.assert_frame_equal(model.get_imputed(indices=[400], interval=0.8), expected)
    np.testing.assert_array_equal(model.spread_, spread)


def test_what_was_not_measured_is_detected_when_it_is_said_so() -> None:
    cells, second, hidden = simulated()
    x = cells.X.toarray() + 1
    x[np.ix_(second, hidden)] = 0
    adata = AnnData(sparse.csr_matrix(x))
    adata.obs["batch"] = np.where(second, "b", "a")
    MaskedImputation.setup_anndata(adata, "batch", measured_key="detect")
    model = MaskedImputation(adata)
    table = model._panels.measured
    assert table[0].all()
    np.testing.assert_array_equal(table[1], ~hidden)
    assert "{'b': 120}" in model._model_summary_string


def test_joined_datasets_know_what_each_measured() -> None:
    cells = data.pbmc68k()
    parts = {"one": cells[:5, :300].copy(), "two": cells[5:9, 200:].copy()}
    joined = data.concat_measured(parts, batch_key="lot", measured_key="panel")
    assert joined.obs["lot"].tolist() == ["one"] * 5 + ["two"] * 4
    table = joined.varm["panel"].loc[cells.var_names]
    assert table["one"].tolist() == [True] * 300 + [False] * 465
    assert table["two"].tolist() == [False] * 200 + [True] * 565
    expected = ad.concat(parts, join="outer", fill_value=0, index_unique="-")
    assert (joined.X != expected[:, joined.var_names].X).nnz == 0
    with pytest.raises(TypeError, match="is a list. Pass a dict"):
        data.concat_measured(list(parts.values()))
    with pytest.raises(ValueError, match="holds 1 AnnData"):
        data.concat_measured({"one": cells})


def test_what_a_dataset_lacks_is_no_zero() -> None:
    cells = data.pbmc68k()
    parts = {"one": cells[:5].copy(), "two": cells[5:9, 200:].copy()}
    parts["one"].layers["counts"] = parts["one"].X.copy()
    parts["two"].obsm["spatial"] = np.arange(8).reshape(4, 2)
    for part in parts.values():
        part.obsm["X_pca"] = np.ones((part.n_obs, 1))
    with pytest.warns(UserWarning, match=r"Not all datasets have the layers \['counts'\]"):
        joined = data.concat_measured(parts)
    assert "counts" not in joined.layers
    assert np.isnan(joined.obsm["spatial"][:5]).all()
    np.testing.assert_array_equal(joined.obsm["spatial"][5:], parts["two"].obsm["spatial"])
    assert (joined.obsm["X_pca"] == 1).all()


def test_a_column_of_the_datasets_is_not_replaced() -> None:
    parts = {"one": data.pbmc68k()[:5].copy(), "two": data.pbmc68k()[5:9].copy()}
    parts["two"].obs["batch"] = "lane 1"
    with pytest.raises(ValueError, match=r"\['two'\].obs` has a column 'batch'.*batch_key"):
        data.concat_measured(parts)
    joined = data.concat_measured(parts, batch_key="dataset")
    assert joined.obs["batch"].tolist()[5:] == ["lane 1"] * 4


def test_genes_that_are_named_differently_are_told() -> None:
    parts = {"one": data.pbmc68k()[:5].copy(), "two": data.pbmc68k()[5:9].copy()}
    parts["two"].var_names = parts["two"].var_names.str.replace("-", ".")
    with pytest.warns(UserWarning, match=r"that `datasets\['two'\]` lacks .*'HLA-"):
        data.concat_measured(parts)
    parts["two"].var_names = [f"ENSG{i:011d}" for i in range(parts["two"].n_vars)]
    with pytest.raises(ValueError, match="share no gene: 'one' has 'HES4'.*'two' has 'ENSG0"):
        data.concat_measured(parts)
