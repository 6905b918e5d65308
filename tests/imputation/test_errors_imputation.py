"""What MaskedImputation refuses and warns about."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from _input import SHORT, assert_points_at, column, no_warning, nothing
from scovert import simulate
from scovert.model import MaskedImputation

SETUP = {"batch_key": "batch", "measured_key": "measured"}
MISSING = slice(100, 125)
"""Genes that the second dataset did not measure."""


def make(n_genes: int = 125, n_cells: tuple[int, int] = (60, 60)) -> AnnData:
    adata = simulate.paired(n_cells, n_genes=n_genes, batch_sd=0.1, library_size=3000, seed=0)
    x = adata.X.toarray() + 1
    x[adata.obs["batch"] == "batch_1", MISSING] = 0
    adata.X = sparse.csr_matrix(x)
    adata.varm["measured"] = pd.DataFrame(True, adata.var_names, ["batch_0", "batch_1"])
    adata.varm["measured"].iloc[MISSING, 1] = False
    return adata


def table(change: Callable[[pd.DataFrame], object]) -> Callable[[AnnData], None]:
    """Replace the table by what a function returns, or changed in place."""

    def changed(adata: AnnData) -> None:
        found = adata.varm["measured"].copy()
        result = change(found)
        adata.varm["measured"] = found if result is None else result

    return changed


def with_count(adata: AnnData) -> None:
    x = adata.X.tolil()
    x[[70, 71], 101] = 3
    adata.X = x.tocsr()


def with_nan(adata: AnnData) -> None:
    x = adata.X.toarray()
    x[60:, MISSING] = np.nan
    adata.X = x


def all_measured(adata: AnnData) -> None:
    adata.X = sparse.csr_matrix(adata.X.toarray() + 1)


REFUSED = {
    "zeros without a word": (
        nothing,
        {"measured_key": None},
        ValueError,
        "25 in 'batch_1', such as 'gene_100'.*silent there, or not.*measured_key='detect'.*concat",
    ),
    "nothing missing, no table": (
        all_measured,
        {"measured_key": None},
        ValueError,
        "nothing to impute",
    ),
    "nothing missing, detect": (
        all_measured,
        {"measured_key": "detect"},
        ValueError,
        "nothing to impute",
    ),
    "nothing missing, table": (
        table(lambda t: t | True),
        {},
        ValueError,
        "nothing to impute",
    ),
    "no such table": (
        nothing,
        {"measured_key": "panel"},
        KeyError,
        "'panel'.*not in `adata.varm`.*'measured'.*'detect'",
    ),
    "a table that is none": (
        nothing,
        {"measured_key": 3},
        TypeError,
        "`measured_key` is an int",
    ),
    "an array": (table(lambda t: t.to_numpy()), {}, TypeError, "ndarray.*DataFrame.*'batch_1'"),
    "no column": (
        table(lambda t: t[["batch_0"]]),
        {},
        ValueError,
        r"none for the datasets \['batch_1'\]",
    ),
    "numbers": (table(lambda t: t * 3), {}, TypeError, "neither True nor False"),
    "measured nowhere": (
        table(lambda t: t.assign(batch_0=t["batch_1"])),
        {},
        ValueError,
        "No dataset measured 25 genes, such as 'gene_100'.*Leave them out",
    ),
    "counts where nothing was measured": (
        with_count,
        {},
        ValueError,
        r"'batch_1' has 6 counts of 'gene_101'.*did not.*\(1 such pairs",
    ),
    "nan": (with_nan, {}, ValueError, "holds nan.*put 0 there.*measured_key.*concat_measured"),
    "one dataset": (
        column("batch", lambda a: "batch_0"),
        {},
        ValueError,
        "one dataset only",
    ),
    "no such column": (
        nothing,
        {"batch_key": "lot"},
        KeyError,
        "batch_key='lot'` is not a column",
    ),
}


@pytest.mark.parametrize(("change", "setup", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(change, setup, error, match) -> None:
    adata = make()
    change(adata)
    with pytest.raises(error, match=re.compile(match, re.S)):
        MaskedImputation.setup_anndata(adata, **SETUP | setup)


def test_few_shared_genes_are_refused_or_warned_about(recwarn) -> None:
    with pytest.raises(ValueError, match="18 genes with counts. At least 20"):
        MaskedImputation.setup_anndata(make()[:, 82:].copy(), **SETUP)
    little = make()
    seen = np.random.default_rng(0).random(little.shape) < 0.01
    little.X = sparse.csr_matrix(little.X.toarray() * (seen | (np.arange(120) % 60 < 2)[:, None]))
    for adata, said in ((make()[:, 40:].copy(), "measured 60 genes only"), (little, "counts in")):
        MaskedImputation.setup_anndata(adata, **SETUP)
        found = [w for w in recwarn if said in str(w.message)]
        assert len(found) == 1
        assert_points_at(__file__, found)
    with no_warning():
        MaskedImputation.setup_anndata(make(), **SETUP)


def test_detected_genes_that_may_be_silent_are_warned_about() -> None:
    adata = make()
    x = adata.X.toarray()
    x[:, 124] = 0
    x[:10, 124] = 1  # ten counts are expected in the second dataset
    adata.X = sparse.csr_matrix(x)
    with pytest.warns(
        UserWarning, match=r"fewer than 20 counts.*1 in 'batch_1', such as 'gene_12"
    ):
        MaskedImputation.setup_anndata(adata, "batch", measured_key="detect")
    with no_warning():
        MaskedImputation.setup_anndata(make(), "batch", measured_key="detect")


def test_a_gene_without_counts_anywhere_is_silent_and_kept() -> None:
    adata = make()
    x = adata.X.toarray()
    x[:, 0] = 0
    adata.X = sparse.csr_matrix(x)
    MaskedImputation.setup_anndata(adata, "batch", measured_key="detect")
    model = MaskedImputation(adata, n_latent=2)
    model.train(**SHORT)
    assert np.isfinite(model.get_imputed().to_numpy()).all()


@pytest.mark.parametrize(
    ("init", "error", "match"),
    [
        ({"encoder": "own"}, ValueError, "'auto', 'shared', 'panels'"),
        ({"n_latent": 0}, ValueError, "n_latent=0"),
        ({"calibration": 0.8}, ValueError, "calibration=0.8.*0.5"),
        ({"dropout_rate": 1}, ValueError, "dropout_rate=1"),
    ],
)
def test_bad_arguments_are_refused(init, error, match) -> None:
    adata = make()
    MaskedImputation.setup_anndata(adata, **SETUP)
    with pytest.raises(error, match=match):
        MaskedImputation(adata, **init)


def test_cells_of_another_dataset_are_refused(seed) -> None:
    """What they measured is not known."""
    adata = make()
    MaskedImputation.setup_anndata(adata, **SETUP)
    model = MaskedImputation(adata, n_latent=2)
    model.train(**SHORT)
    other = make()
    other.obs["batch"] = "another"
    for ask in (model.get_imputed, model.get_latent_representation):
        with pytest.raises(ValueError, match="'another'.*has not seen"):
            ask(other)
    for level in (0, 1.0, "90"):
        with pytest.raises((ValueError, TypeError), match="interval="):
            model.get_imputed(interval=level)
    with pytest.raises(KeyError, match="groups_key='kind'"):
        model.get_group_expression("kind")
    model.adata.obs["depth"] = np.arange(model.adata.n_obs) / 7
    with pytest.raises(ValueError, match="groups of .* cells. Name a column with clusters"):
        model.get_group_expression("depth")


def test_intervals_need_genes_that_were_held_back(seed) -> None:
    adata = make()
    MaskedImputation.setup_anndata(adata, **SETUP)
    model = MaskedImputation(adata, n_latent=2, calibration=0)
    model.train(**SHORT)
    assert model.module.learnt.numpy().T.tolist() == adata.varm["measured"].to_numpy().tolist()
    for ask in (lambda: model.get_imputed(interval=0.9), model.get_group_expression):
        with pytest.raises(RuntimeError, match=r"has none: `calibration=0`.*calibration=0.1"):
            ask()
    model.annotate()
    assert "imputed" not in model.get_agreement().index.get_level_values("kind")
    assert (model.check()["verdict"] != "").all()
