"""What every model refuses when an AnnData is set up, and what the command line makes of it."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvi
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner

from scovert.cli import app
from scovert.model import BulkDeconvolution, LatentConfounder, PairedVAE

N_CELLS, N_GENES = 150, 307
SETUPS = {
    PairedVAE: {"batch_key": "batch"},
    LatentConfounder: {"treatment_key": "treatment"},
    BulkDeconvolution: {"labels_key": "kind"},
}
COMMANDS = {
    "integrate": "--batch-key=batch",
    "deconfound": "--treatment-key=treatment",
    "deconvolve": "--labels-key=kind",
}

pytestmark = pytest.mark.usefixtures("seed")
of_every_model = pytest.mark.parametrize("cls", SETUPS, ids=[cls.__name__ for cls in SETUPS])


def make() -> AnnData:
    """Make cells of two datasets, two arms and three types; sequencing depth differs."""
    rng = np.random.default_rng(0)
    kind = np.arange(N_CELLS) % 3
    mean = rng.gamma(1.0, 1.0, (3, N_GENES))[kind] * rng.lognormal(0, 0.4, (N_CELLS, 1))
    obs = pd.DataFrame(
        {
            "batch": np.repeat(["a", "b"], [70, 80]),
            "treatment": rng.random(N_CELLS) < 0.5,
            "kind": np.array(["B", "NK", "T"])[kind],
        },
        index=[f"cell {i}" for i in range(N_CELLS)],
    )
    var = pd.DataFrame(index=[f"gene {g}" for g in range(N_GENES)])
    return AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)), obs=obs, var=var)


def with_values(change: Callable) -> Callable[[AnnData], AnnData]:
    """Change the dense matrix."""

    def changed(adata: AnnData) -> AnnData:
        adata.X = change(adata.X.toarray())
        return adata

    return changed


def over_total(x: np.ndarray) -> np.ndarray:
    return x / x.sum(1, keepdims=True) * 1e4


def as_soupx(x: np.ndarray) -> np.ndarray:
    """Take a share of ambient RNA off, another one for every gene of every cell."""
    return x * (1 - 0.1 * np.random.default_rng(1).random(x.shape))


def as_tpm(x: np.ndarray) -> np.ndarray:
    """Divide by lengths of genes, and leave genes out, so that totals differ."""
    return of_variable_genes(x / np.random.default_rng(1).uniform(0.5, 5, N_GENES))


def as_rsem(x: np.ndarray) -> np.ndarray:
    """Share a read in fifty out between genes."""
    x[::7, ::7] *= 1.25
    return x


def of_variable_genes(x: np.ndarray) -> np.ndarray:
    """Normalise by totals of more genes than there are, so that totals differ."""
    return x / (x.sum(1, keepdims=True) + np.arange(N_CELLS)[:, None]) * 1e4


ROUND = "corrected or expected counts.*SoupX.*round them"
REFUSED = {
    "no cells": (lambda a: a[:0].copy(), ValueError, "has 0 cells and 307 genes.*filters"),
    "no cells, a view": (lambda a: a[:0], ValueError, "has 0 cells and 307 genes"),
    "no genes": (lambda a: a[:, :0].copy(), ValueError, "has 150 cells and 0 genes"),
    "zeros": (with_values(lambda x: 0 * x), ValueError, "`adata.X` holds nothing but zeros"),
    "text": (with_values(lambda x: x.astype(str)), TypeError, "holds text .*astype"),
    "objects": (with_values(lambda x: x.astype(object)), TypeError, "holds Python objects"),
    "complex": (with_values(lambda x: x + 0j), TypeError, "holds complex numbers"),
    "nan": (with_values(lambda x: np.where(x > 9, np.nan, x)), ValueError, "holds nan.*cell"),
    "beyond counting": (with_values(lambda x: 1e12 * x), ValueError, "holds .*e\\+1.*damaged"),
    "scaled": (with_values(lambda x: x - x.mean(0)), ValueError, "look scaled: name the layer"),
    "per total": (with_values(over_total), ValueError, "look normalised: name the layer"),
    "log": (with_values(lambda x: np.log1p(over_total(x))), ValueError, "look log-normalised: na"),
    "log, variable genes": (
        with_values(lambda x: np.log1p(of_variable_genes(x))),
        ValueError,
        "look log-normalised: name",
    ),
    "per total, variable genes": (with_values(of_variable_genes), ValueError, "look normalised: "),
    "square roots": (with_values(np.sqrt), ValueError, "look like square roots: name the layer"),
    "TPM": (with_values(as_tpm), ValueError, "look normalised: name the layer"),
    "SoupX": (with_values(as_soupx), ValueError, ROUND),
    "RSEM": (with_values(as_rsem), ValueError, ROUND),
}


@of_every_model
@pytest.mark.parametrize(("change", "exception", "match"), REFUSED.values(), ids=list(REFUSED))
def test_every_model_refuses(
    cls: type, change: Callable, exception: type[Exception], match: str
) -> None:
    with pytest.raises(exception, match=match):
        cls.setup_anndata(change(make()), **SETUPS[cls])


IN_FILES = [name for name in REFUSED if name not in ("text", "objects", "complex")]
"""What an .h5ad file can hold."""


@pytest.mark.parametrize("command", ["integrate", "deconfound", "deconvolve"])
@pytest.mark.parametrize("name", IN_FILES)
def test_the_command_line_refuses(command: str, name: str, tmp_path: Path) -> None:
    change, _, match = REFUSED[name]
    change(make()).copy().write_h5ad(tmp_path / "in.h5ad")
    bulk = [f"{tmp_path / 'bulk.csv'}"] if command == "deconvolve" else []
    make()[:3].to_df().T.to_csv(tmp_path / "bulk.csv")
    output = ["-o", f"{tmp_path / 'out.h5ad'}"]
    call = [command, f"{tmp_path / 'in.h5ad'}", *bulk, COMMANDS[command], *output]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 1
    said = done.stderr.strip().splitlines()[-1]
    words = match.replace("`adata.X`", "(`adata.X`|X of .*)").replace(".*filters", "")
    words = re.sub(r"^has (?=\d)", "holds ", words)
    assert re.search(words, said), said
    assert not (tmp_path / "out.h5ad").exists()


ACCEPTED = {
    "bool": lambda x: x > 0,
    "bytes": lambda x: x.astype(np.uint8),
    "long integers": lambda x: x.astype(np.int64),
    "doubles": lambda x: x.astype(np.float64),
    "halves": lambda x: x.astype(np.float16),
    "rounded SoupX": lambda x: np.rint(as_soupx(x)),
}


@of_every_model
@pytest.mark.parametrize("change", ACCEPTED.values(), ids=list(ACCEPTED))
def test_every_model_accepts(cls: type, change: Callable) -> None:
    adata = with_values(change)(make())
    cls.setup_anndata(adata, **SETUPS[cls])
    cls(adata)


@of_every_model
def test_only_what_was_set_up_makes_a_model(cls: type) -> None:
    adata = make()
    with pytest.raises(ValueError, match=rf"is not set up.*{cls.__name__}.setup_anndata\("):
        cls(adata)
    cls.setup_anndata(adata, **SETUPS[cls])
    for other in (adata.copy(), adata[:, :99].copy(), adata[:99]):
        with pytest.raises(ValueError, match="a copy or a part.*150 cells, 307 genes"):
            cls(other)
    for wrong in (None, adata.to_df(), "cells.h5ad"):
        with pytest.raises(TypeError, match=f"is a {type(wrong).__name__}. Pass an AnnData"):
            cls(wrong)


# Where the counts are


def with_counts_in_raw(adata: AnnData) -> AnnData:
    """Normalise as most files are: counts in ``raw``, of more genes than there are."""
    adata.raw = adata.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata[:, ::-1][:, 2:].copy()


def with_counts_in_a_layer(adata: AnnData) -> AnnData:
    adata.layers["counts"] = adata.X.copy()
    sc.pp.log1p(adata)
    return adata


@of_every_model
def test_the_message_names_where_counts_are(cls: type) -> None:
    with pytest.raises(ValueError, match=r"`adata.raw.X` holds counts: pass `layer='raw'`"):
        cls.setup_anndata(with_counts_in_raw(make()), **SETUPS[cls])
    with pytest.raises(ValueError, match=r"`adata.layers\['counts'\]` holds counts: pass `layer="):
        cls.setup_anndata(with_counts_in_a_layer(make()), **SETUPS[cls])


def fitted(cls: type, adata: AnnData, layer: str | None) -> object:
    scvi.settings.seed = 0
    cls.setup_anndata(adata, layer=layer, **SETUPS[cls])
    model = cls(adata, **({"n_latent": 2} if cls is not BulkDeconvolution else {}))
    epochs = {"max_epochs": 2} if cls is PairedVAE else {}
    model.train(enable_progress_bar=False, **epochs)
    return model


def asked(model: object, layer: str | None = None) -> np.ndarray:
    if not isinstance(model, BulkDeconvolution):
        return model.get_normalized_expression().to_numpy()
    bulk = model.adata[:6].copy()  # cells may pass for samples
    options = {"layer": layer, "kind": "counts", "cell_size": "none", "interval": None}
    return model.get_proportions(bulk, **options).to_numpy()


@of_every_model
@pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)")
def test_counts_in_raw_are_those_counts(cls: type, tmp_path: Path) -> None:
    cells = with_counts_in_raw(make())
    plain = AnnData(make()[:, cells.var_names].X, obs=cells.obs, var=cells.var)
    model, expected = fitted(cls, cells.copy(), "raw"), fitted(cls, plain, None)
    np.testing.assert_array_equal(asked(model, "raw"), asked(expected))
    model.save(tmp_path / "model", save_anndata=True)
    loaded = cls.load(tmp_path / "model")
    np.testing.assert_array_equal(asked(loaded, "raw"), asked(expected))
    loaded.adata.raw = None
    with pytest.raises(KeyError, match="`layer='raw'` is not in `adata.layers`"):
        cls.setup_anndata(loaded.adata, layer="raw", **SETUPS[cls])


def test_a_layer_called_raw_goes_first() -> None:
    adata = with_counts_in_raw(make())
    adata.layers["raw"] = adata.X
    with pytest.raises(ValueError, match=r"`adata.layers\['raw'\]` holds .*look log-normalised"):
        PairedVAE.setup_anndata(adata, "batch", layer="raw")


def test_raw_without_the_genes_is_refused() -> None:
    adata = make()
    adata.raw = adata[:, 3:]
    with pytest.raises(KeyError, match="`adata.raw` lacks 3 of the 307 genes.*'gene 0'"):
        PairedVAE.setup_anndata(adata, "batch", layer="raw")


@pytest.mark.parametrize("command", ["integrate", "deconfound"])
def test_the_command_line_reads_counts_in_raw(command: str, tmp_path: Path) -> None:
    adata = with_counts_in_raw(make())
    adata.write_h5ad(tmp_path / "in.h5ad")
    call = [command, f"{tmp_path / 'in.h5ad'}", COMMANDS[command], "--quiet", "--no-write-layer"]
    call += ["-o", f"{tmp_path / 'out.h5ad'}"]
    refused = CliRunner().invoke(app, call)
    assert refused.exit_code == 1
    assert "`adata.raw.X` holds counts: pass --layer raw" in refused.stderr
    epochs = ["--max-epochs", "1"] if command == "integrate" else []
    done = CliRunner().invoke(app, [*call, "--layer", "raw", *epochs])
    assert done.exit_code == 0, done.stderr
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    assert {"X_paired", "X_confounder"} & set(written.obsm)


def test_layers_are_called_alike_everywhere() -> None:
    for cls in SETUPS:
        assert "layer" in inspect.signature(cls.setup_anndata).parameters
    assert "layer" in inspect.signature(BulkDeconvolution.deconvolve).parameters


# What one part of the cells has


@of_every_model
def test_cells_of_two_kinds_are_told_apart(cls: type) -> None:
    adata = make()
    dense = adata.X.toarray()
    dense[70:] = np.log1p(over_total(dense[70:]))
    adata.X = sparse.csr_matrix(dense)
    told = "look log-normalised: name.* 70 of 150 cells hold counts and the others do not"
    with pytest.raises(ValueError, match=told):
        cls.setup_anndata(adata, **SETUPS[cls])


@of_every_model
def test_float_noise_wants_rounding(cls: type) -> None:
    with pytest.raises(ValueError, match=ROUND):
        cls.setup_anndata(with_values(lambda x: x * (1 + 1e-7))(make()), **SETUPS[cls])


@of_every_model
def test_equal_totals_are_doubted(cls: type) -> None:
    adata = with_values(lambda x: np.rint(10 * over_total(x)))(make())
    with pytest.warns(UserWarning, match="nearly the same total.*normalised and rounded"):
        cls.setup_anndata(adata, **SETUPS[cls])


# Columns


def first_key(cls: type) -> str:
    return next(iter(SETUPS[cls]))


KEYS = {
    "a list": (lambda a: ["kind"], TypeError, "is a list. Pass the name of a column"),
    "a column": (lambda a: a.obs["kind"], TypeError, "is a Series. Pass the name of a column"),
    "missing": (lambda a: "nowhere", KeyError, "'nowhere'` is not a column of"),
}


@of_every_model
@pytest.mark.parametrize(("key", "exception", "match"), KEYS.values(), ids=list(KEYS))
def test_keys_are_names(cls: type, key: Callable, exception: type[Exception], match: str) -> None:
    adata = make()
    with pytest.raises(exception, match=f"`{first_key(cls)}.*{match}"):
        cls.setup_anndata(adata, **{first_key(cls): key(adata)})
    with pytest.raises(TypeError, match="`layer` is a list"):
        cls.setup_anndata(adata, layer=["counts"], **SETUPS[cls])


CATEGORIES = {
    "mixed": lambda n: pd.Series([1, "1"] * (n // 2), dtype=object),
    "dates": lambda n: pd.date_range("2021-01-01", periods=2).repeat(n // 2),
    "intervals": lambda n: pd.cut(np.arange(n), 2),
}


@of_every_model
@pytest.mark.parametrize("make_column", CATEGORIES.values(), ids=list(CATEGORIES))
def test_categories_are_text_numbers_or_bool(cls: type, make_column: Callable) -> None:
    adata = make()
    adata.obs["odd"] = np.asarray(make_column(N_CELLS))
    if isinstance(make_column(N_CELLS), pd.Categorical):
        adata.obs["odd"] = make_column(N_CELLS)
    with pytest.raises(TypeError, match=r"'odd'.*values of the kind.*astype\(str\)"):
        cls.setup_anndata(adata, **{first_key(cls): "odd"})


def test_a_column_that_is_there_twice_is_refused() -> None:
    adata = make()
    adata.obs = pd.concat([adata.obs, adata.obs[["batch"]]], axis=1)
    with pytest.raises(ValueError, match="several columns 'batch'"):
        PairedVAE.setup_anndata(adata, "batch")


def test_the_treatment_is_named_once() -> None:
    for option in ("cluster_key", "size_factor_key"):
        with pytest.raises(ValueError, match="`treatment_key='treatment'` is named as a cov"):
            LatentConfounder.setup_anndata(make(), "treatment", **{option: "treatment"})
    for cls in (PairedVAE, LatentConfounder):
        keys = {"categorical_covariate_keys": pd.Index(["kind", "kind"])}
        with pytest.raises(ValueError, match="`categorical_covariate_keys` names 'kind' twice"):
            cls.setup_anndata(make(), **SETUPS[cls], **keys)


# Another AnnData for a model


@of_every_model
@pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)")
def test_an_anndata_is_attached_with_its_genes_in_their_order(cls: type) -> None:
    model = fitted(cls, make(), None)
    before = asked(model)
    for other, match in (
        (make()[:, ::-1].copy(), "genes of the model in another order"),
        (make()[:, 1:].copy(), "lacks 1 of the 307 genes"),
        (make().to_df(), "is a DataFrame"),
    ):
        with pytest.raises((ValueError, TypeError), match=match):
            model.adata = other
    np.testing.assert_array_equal(asked(model), before)


def test_support_is_that_of_the_cells_and_not_of_their_names(tmp_path: Path) -> None:
    adata = make()
    adata.obs_names = [str(i) for i in range(N_CELLS)]
    fitted(PairedVAE, adata, None).save(tmp_path / "model")
    shuffled = adata[::-1].copy()
    shuffled.obs_names = adata.obs_names
    with pytest.raises(RuntimeError, match="this AnnData holds others"):
        PairedVAE.load(tmp_path / "model", shuffled).get_support()
    assert PairedVAE.load(tmp_path / "model", adata).get_support().shape == (N_CELLS, 2)


@pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)")
def test_another_models_results_are_not_replaced() -> None:
    adata = make()
    fitted(PairedVAE, adata, None).annotate()
    latent = adata.obsm["X_paired"].copy()
    model = fitted(LatentConfounder, adata, None)
    with pytest.raises(ValueError, match="LatentConfounder did not write"):
        model.annotate(key_added="paired")
    np.testing.assert_array_equal(adata.obsm["X_paired"], latent)


def test_options_of_the_plan_are_sent_there() -> None:
    with pytest.raises(TypeError, match=r"`lr`.*Pass `plan_kwargs=\{'lr': 0.1\}`"):
        PairedVAE.train(None, lr=0.1)
    with pytest.raises(TypeError, match="`n_epochs`. Did you mean `max_epochs`"):
        PairedVAE.train(None, n_epochs=3)


def test_options_are_refused_with_the_nearest_of_all() -> None:
    for name in ("annotate", "get_proportions", "get_cell_type_expression"):
        with pytest.raises(TypeError, match="`cell_sizes`. Did you mean `cell_size`"):
            getattr(BulkDeconvolution, name)(None, None, cell_sizes="none")
    with pytest.raises(TypeError, match="`deterministics`. Did you mean `deterministic`"):
        PairedVAE.train(None, deterministics=True)
    with pytest.raises(TypeError, match="`dbpr_weigth`. Did you mean `dbpr_weight`"):
        LatentConfounder.train(None, "alternating", dbpr_weigth=1.0)


# Donors


def with_donors(sizes: list[int]) -> AnnData:
    donor = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    mean = np.exp(rng.normal(0, 1, 60) + rng.normal(0, 0.5, (len(sizes), 60))[donor])
    obs = pd.DataFrame({"donor": donor.astype(str), "treatment": donor < len(sizes) / 2})
    obs.index = [f"cell {i}" for i in range(len(donor))]
    return AnnData(rng.poisson(mean).astype(np.float32), obs=obs)


def test_unequal_donors_are_refused_or_doubted() -> None:
    one_in_each = with_donors([300, 10, 10, 10, 10, 10] * 2)
    with pytest.raises(ValueError, match="86% are of the cluster .*6 clusters count for 1.4, and"):
        LatentConfounder.setup_anndata(one_in_each, "treatment", cluster_key="donor")
    one_in_all = with_donors([60, 60, 60, 60, 60, 60, 300, 50, 50, 50, 50, 50])
    with pytest.warns(UserWarning, match="'6'.*count for 3.0. With clusters as unequal"):
        LatentConfounder.setup_anndata(one_in_all, "treatment", cluster_key="donor")
    alike = with_donors([60, 40, 50, 45, 70, 60, 50, 35, 55, 40, 50, 65])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        LatentConfounder.setup_anndata(alike, "treatment", cluster_key="donor")


@of_every_model
def test_a_column_may_be_called_as_the_counts_are_in_the_registry(cls: type) -> None:
    adata = make()
    adata.obs["X"] = adata.obs[SETUPS[cls][first_key(cls)]]
    cls.setup_anndata(adata, **{first_key(cls): "X"})
    cls(adata)
    adata.X = adata.X + adata.X
    with pytest.raises(ValueError, match="`adata.X` holds other counts"):
        cls(adata)


@of_every_model
@pytest.mark.parametrize("change", [str, object, complex], ids=["text", "objects", "complex"])
def test_counts_that_became_no_numbers_are_named(cls: type, change: type) -> None:
    adata = make()
    cls.setup_anndata(adata, **SETUPS[cls])
    adata.X = adata.X.toarray().astype(change)
    with pytest.raises(
        ValueError, match="is not as it was set up: `adata.X` holds (text|Py|comp)"
    ):
        cls(adata)


def test_rounding_is_advised_where_the_values_are() -> None:
    adata = make()
    adata.layers["soup"] = as_soupx(adata.X.toarray())
    adata.X = np.log1p(adata.X.toarray())
    with pytest.raises(ValueError, match=r"np.rint\(adata.layers\['soup'\]\)`, and pass"):
        PairedVAE.setup_anndata(adata, "batch", layer="soup")
