"""Scale and depth of bulk samples: logarithms, roots and empty samples among others."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.typing import NDArray

from scovert import simulate
from scovert.data import pbmc68k
from scovert.model import BulkBudget, BulkDeconvolution

QUIET = {"cell_size": "none", "interval": None, "budget": BulkBudget(n_steps=10)}
N_SAMPLES = 5
Change = Callable[[NDArray], NDArray]


@pytest.fixture(scope="module")
def cells() -> AnnData:
    cells = pbmc68k()
    return cells[cells.obs["cell_type"] != "CD34+"].copy()


@pytest.fixture(scope="module")
def model(cells: AnnData) -> BulkDeconvolution:
    BulkDeconvolution.setup_anndata(cells, labels_key="cell_type")
    model = BulkDeconvolution(cells, min_cells_per_type=8)
    model.train()
    return model


@pytest.fixture
def bulk(cells: AnnData) -> AnnData:
    bulk = simulate.bulk(cells, "cell_type", n_samples=N_SAMPLES, seed=1)
    return AnnData(bulk.to_df().astype(float))


def with_gene(bulk: AnnData, name: str, values: object) -> AnnData:
    return AnnData(bulk.to_df().assign(**{name: values}))


def per_million(x: NDArray) -> NDArray:
    return x / x.sum(1, keepdims=True) * 1e6


def drawn(x: NDArray, n_counts: int) -> NDArray:
    rng = np.random.default_rng(0)
    return np.array([rng.multinomial(n_counts, row / row.sum()) for row in x], float)


LOGS: dict[str, Change] = {
    "log2 of cpm": lambda x: np.log2(per_million(x) + 1),
    "log1p of ten thousand": lambda x: np.log1p(per_million(x) / 100),
    "log10 of counts": lambda x: np.log10(x + 1),
    "arsinh": lambda x: np.arcsinh(per_million(x)),
    "log2 with a floor": lambda x: np.log2(per_million(x) + 50),
    "rounded": lambda x: np.rint(np.log2(per_million(x) + 1)),
    "rounded down, of counts": lambda x: np.floor(np.log2(x + 1)),
    "rounded, natural": lambda x: np.rint(np.log1p(per_million(x))),
    "share of the largest": lambda x: x / x.max(),
}
ROOTS: dict[str, Change] = {
    "of cpm": lambda x: np.sqrt(per_million(x)),
    "of ten thousand": lambda x: np.sqrt(per_million(x) / 100),
    "of counts": np.sqrt,
    "of few counts, float32": lambda x: np.sqrt(drawn(x, 50_000).astype(np.float32)),
}
LINEAR: dict[str, Change] = {
    "counts": lambda x: x,
    "few counts": lambda x: drawn(x, 5000),
    "very few counts": lambda x: drawn(x, 300),
    "expected counts": lambda x: drawn(x, 50_000) * 0.93,
    "cpm": per_million,
    "rounded cpm": lambda x: np.rint(per_million(x)),
    "ten thousand": lambda x: per_million(x) / 100,
    "percent": lambda x: per_million(x) / 1e4,
    "shares": lambda x: per_million(x) / 1e6,
    "fpkm": lambda x: per_million(x) / 37.3,
}


@pytest.mark.parametrize("case", LOGS)
@pytest.mark.parametrize("kind", ["auto", "counts", "tpm"])
def test_logarithms_are_refused(
    case: str, kind: str, model: BulkDeconvolution, bulk: AnnData
) -> None:
    bulk.X = LOGS[case](bulk.X)
    with pytest.raises(ValueError, match=r"log-transformed: its largest.*\(5 of 5 samples"):
        model.deconvolve(bulk, kind=kind, **QUIET)


@pytest.mark.parametrize("case", LOGS)
def test_one_sample_of_logarithms_is_refused(
    case: str, model: BulkDeconvolution, bulk: AnnData
) -> None:
    name = bulk.obs_names[3]
    bulk.X[3] = LOGS[case](bulk.X)[3]
    with pytest.raises(ValueError, match=f"log-transformed: .*'{name}' .1 of 5 samples"):
        model.deconvolve(bulk, **QUIET)


@pytest.mark.parametrize("case", ["log2 of cpm", "rounded"])
def test_large_numbers_do_not_hide_logarithms(
    case: str, model: BulkDeconvolution, bulk: AnnData
) -> None:
    """Neither in genes that the reference lacks nor, unless rounded, in a few others."""
    bulk.X = LOGS[case](bulk.X)
    for name in ("age", "Length(bp)"):
        with pytest.raises(ValueError, match="log-transformed: its largest value is [12]"):
            model.deconvolve(with_gene(bulk, name, 1500.0), **QUIET)
    bulk.X[:, :4] = 500
    if case == "log2 of cpm":
        with pytest.raises(ValueError, match="log-transformed.*but for a few genes"):
            model.deconvolve(bulk, **QUIET)


def test_shared_genes_may_be_expressed_little(model: BulkDeconvolution, bulk: AnnData) -> None:
    """FPKM of 150 genes of blood in a tissue of others."""
    bulk.X = per_million(bulk.X)
    strong = bulk[:, np.argsort(-bulk.X.mean(0))[:150]].copy()
    strong.X = strong.X / strong.X.max() * 25
    others = pd.DataFrame(500.5, bulk.obs_names, [f"other {g}" for g in range(50)])
    tissue = AnnData(pd.concat([strong.to_df(), others], axis=1))
    with warnings.catch_warnings(action="ignore"):
        expected = model.get_proportions(strong_on_scale(strong), kind="tpm", **QUIET)
        found = model.get_proportions(tissue, kind="tpm", **QUIET)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def strong_on_scale(bulk: AnnData) -> AnnData:
    return AnnData(pd.DataFrame(per_million(bulk.X), bulk.obs_names, bulk.var_names))


@pytest.mark.parametrize("case", ROOTS)
def test_square_roots_are_refused(case: str, model: BulkDeconvolution, bulk: AnnData) -> None:
    bulk.X = ROOTS[case](bulk.X)
    with pytest.raises(ValueError, match="has square roots in sample .*5 of 5.*pass the squares"):
        model.deconvolve(bulk, **QUIET)


@pytest.mark.parametrize("value", [1, 1000, 12.5])
def test_presence_is_refused(value: float, model: BulkDeconvolution, bulk: AnnData) -> None:
    bulk.X[2] = np.where(bulk.X[2] > 0, value, 0)
    with pytest.raises(ValueError, match=f"one value in all .*{bulk.obs_names[2]}. .1 of 5"):
        model.deconvolve(bulk, **QUIET)


@pytest.mark.parametrize("case", LINEAR)
def test_expression_on_a_linear_scale_is_taken(
    case: str, model: BulkDeconvolution, bulk: AnnData
) -> None:
    bulk.X = LINEAR[case](bulk.X)
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings(
            "ignore", message=".*(is taken as `kind|nearly empty|fewer than 200)"
        )
        found = model.get_proportions(bulk, **QUIET)
    assert np.isfinite(found).all(axis=None)


@pytest.mark.parametrize(("name", "value"), [("RIN", 7.4), ("age", 61), ("length", 1500.5)])
@pytest.mark.parametrize("kind", ["counts", "tpm"])
def test_other_numbers_change_nothing(
    name: str, value: float, kind: str, model: BulkDeconvolution, bulk: AnnData
) -> None:
    if kind == "tpm":
        bulk.X = per_million(bulk.X)
    with warnings.catch_warnings(action="ignore"):
        expected = model.deconvolve(bulk, **QUIET)
        found = model.deconvolve(with_gene(bulk, name, value), **QUIET)
    assert found.quality.attrs["kind"] == expected.quality.attrs["kind"] == kind
    pd.testing.assert_frame_equal(found.proportions, expected.proportions)


PLACES: dict[str, tuple[Callable[[AnnData], object], str]] = {
    "a layer": (lambda b: b.layers.update(counts=b.X.copy()), "layers['counts']` holds counts"),
    "raw": (lambda b: setattr(b, "raw", b.copy()), "raw.X` holds counts: pass `layer='raw'`"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("change", [lambda x: np.log1p(x), lambda x: x - x.mean(0), np.sqrt])
def test_counts_elsewhere_are_named(
    place: str, change: Change, model: BulkDeconvolution, bulk: AnnData
) -> None:
    put, message = PLACES[place]
    expected = model.get_proportions(bulk, kind="counts", **QUIET)
    put(bulk)
    bulk.X = change(bulk.X)
    with pytest.raises(ValueError, match="(?i)log|roots") as caught:
        model.deconvolve(bulk, **QUIET)
    assert f"`bulk.{message}" in str(caught.value)
    layer = "raw" if place == "raw" else "counts"
    found = model.get_proportions(bulk, kind="counts", layer=layer, **QUIET)
    pd.testing.assert_frame_equal(found, expected)


def test_counts_in_x_are_named(model: BulkDeconvolution, bulk: AnnData) -> None:
    bulk.layers["log"] = np.log1p(bulk.X)
    with pytest.raises(ValueError, match=r"`bulk.X` holds counts: leave `layer` out"):
        model.deconvolve(bulk, layer="log", **QUIET)


@pytest.mark.parametrize("n_counts", [1, 50, 150, 300, 500, 1500])
def test_a_nearly_empty_sample_is_named(
    n_counts: int, model: BulkDeconvolution, bulk: AnnData
) -> None:
    bulk.X[2] = drawn(bulk.X, n_counts)[2] * (2 if n_counts == 1 else 1)
    name = bulk.obs_names[2]
    with pytest.warns(
        UserWarning, match=f"1 of 5 samples are nearly empty: '{name} .*counts in"
    ) as caught:
        model.deconvolve(bulk, kind="counts", **QUIET)
    assert Path(caught[0].filename) == Path(__file__)


@pytest.mark.parametrize("kind", ["counts", "tpm"])
def test_a_sample_of_one_gene_is_named(kind: str, model: BulkDeconvolution, bulk: AnnData) -> None:
    bulk.X[1] = 0
    bulk.X[1, 5] = 1e5
    if kind == "tpm":
        bulk.X = per_million(bulk.X)
    with pytest.warns(UserWarning, match=f"empty: '{bulk.obs_names[1]} .* in 1 genes"):
        model.deconvolve(bulk, kind=kind, **QUIET)


def test_shallow_samples_are_taken_without_a_word(model: BulkDeconvolution, bulk: AnnData) -> None:
    bulk.X = drawn(bulk.X, 5000)
    with warnings.catch_warnings(action="error"):
        model.deconvolve(bulk, kind="counts", **QUIET)


@pytest.mark.parametrize("kind", ["fpkm", "FPKM", "rpkm", "cpm", "TPM"])
def test_kinds_of_shares_are_tpm(kind: str, model: BulkDeconvolution, bulk: AnnData) -> None:
    with pytest.raises(ValueError, match=f"`kind='{kind}'` is not known.*pass `kind='tpm'`"):
        model.deconvolve(bulk, kind=kind, **QUIET)


def test_other_kinds_are_refused(model: BulkDeconvolution, bulk: AnnData) -> None:
    with pytest.raises(ValueError, match=r"`kind='Counts'`.*'tpm'\]. Did you mean 'counts'"):
        model.deconvolve(bulk, kind="Counts", **QUIET)
    with pytest.raises(
        ValueError, match=r"`kind='log'` is not known.*\['auto', 'counts', 'tpm'\]."
    ):
        model.deconvolve(bulk, kind="log", **QUIET)
