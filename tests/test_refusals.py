"""What every model refuses when an AnnData is set up, and what the command line makes of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from typer.testing import CliRunner

from _every_model import (
    CATEGORIES,
    COMMANDS,
    N_CELLS,
    N_GENES,
    NUMBERS,
    SETUPS,
    asked,
    fitted,
    make,
    of_every_model,
    of_models_of_cells,
)
from _input import at, changed, column, with_names_twice, with_value
from scovert.cli import app
from scovert.model import BulkDeconvolution, LatentConfounder, MaskedImputation, PairedVAE

pytestmark = [
    pytest.mark.usefixtures("seed"),
    pytest.mark.filterwarnings("ignore:.*(p-values are refused|errors had to grow|dense effects)"),
]


def with_values(change: Callable) -> Callable[[AnnData], AnnData]:
    """Change the dense matrix."""

    def with_changed(adata: AnnData) -> AnnData:
        adata.X = change(adata.X.toarray())
        return adata

    return with_changed


def over_total(x: np.ndarray) -> np.ndarray:
    return x / x.sum(1, keepdims=True) * 1e4


def as_soupx(x: np.ndarray) -> np.ndarray:
    """Take a share of ambient RNA off, another one for every gene of every cell."""
    return x * (1 - 0.1 * np.random.default_rng(1).random(x.shape))


def as_scanpy_scales(x: np.ndarray) -> np.ndarray:
    """Scale logarithms; the first value that is no count is above zero."""
    x = np.log1p(x)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 0.1)
    x[0, 0] = 0.5
    return x


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


PLACE = r"\((cell|sample) 'cell 71', (taxon or )?gene 'gene 4'"
ROUND = "corrected or expected counts.*SoupX.*round them"
REFUSED = {
    "no cells": (lambda a: a[:0].copy(), ValueError, "has 0 cells and 307 genes.*filters"),
    "no cells, a view": (lambda a: a[:0], ValueError, "has 0 cells and 307 genes"),
    "no genes": (lambda a: a[:, :0].copy(), ValueError, "has 150 cells and 0 genes"),
    "zeros": (with_values(lambda x: 0 * x), ValueError, "`adata.X` holds nothing but zeros"),
    "text": (with_values(lambda x: x.astype(str)), TypeError, "holds text .*astype"),
    "objects": (with_values(lambda x: x.astype(object)), TypeError, "holds Python objects"),
    "complex": (with_values(lambda x: x + 0j), TypeError, "holds complex numbers"),
    "nan": (changed(with_value(np.nan)), ValueError, rf"holds nan {PLACE}; 1 such.*join='inner'"),
    "infinite": (changed(with_value(np.inf)), ValueError, rf"holds inf {PLACE}.*NaN or Inf"),
    "negative": (changed(with_value(-1)), ValueError, rf"holds -1 {PLACE}.*scaled"),
    "a fraction": (changed(with_value(0.5)), ValueError, rf"holds 0.5 {PLACE}.*raw counts"),
    "in the first": (
        changed(with_value(2.5, cell=0, gene=0)),
        ValueError,
        "'cell 0', (taxon or )?gene 'g.* 0'",
    ),
    "in the last": (
        changed(with_value(2.5, cell=N_CELLS - 1, gene=N_GENES - 1)),
        ValueError,
        "'cell 149', (taxon or )?gene 'gene 306'",
    ),
    "beyond counting": (with_values(lambda x: 1e12 * x), ValueError, "holds .*e\\+1.*damaged"),
    "scaled": (with_values(lambda x: x - x.mean(0)), ValueError, "look scaled: name the layer"),
    "scaled, after a logarithm": (with_values(as_scanpy_scales), ValueError, "look scaled: name"),
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
    "float noise": (with_values(lambda x: x * (1 + 1e-7)), ValueError, ROUND),
    "names twice": (
        changed(with_names_twice),
        ValueError,
        r"2 names more.*'x', 'y'.*add up the counts.*pd.factorize\(adata.var_names",
    ),
    "no counts": (
        changed(lambda a: setattr(a, "X", None)),
        ValueError,
        "`adata.X` is empty.*`layer`",
    ),
}


@of_every_model
@pytest.mark.parametrize(("change", "exception", "match"), REFUSED.values(), ids=list(REFUSED))
def test_every_model_refuses(
    cls: type, change: Callable, exception: type[Exception], match: str
) -> None:
    adata = change(make())
    before = adata.obs.copy()
    with pytest.raises(exception, match=match):
        cls.setup_anndata(adata, **SETUPS[cls])
    pd.testing.assert_frame_equal(adata.obs, before)
    assert not [name for name in (*adata.obsm, *adata.uns) if "_scvi" in name]


IN_FILES = [name for name in REFUSED if name not in ("text", "objects", "complex", "no counts")]
"""What an .h5ad file can hold."""


@of_every_model
@pytest.mark.parametrize("name", IN_FILES)
def test_the_command_line_refuses(cls: type, name: str, tmp_path: Path) -> None:
    change, _, match = REFUSED[name]
    change(make()).copy().write_h5ad(tmp_path / "in.h5ad")
    bulk = [f"{tmp_path / 'bulk.csv'}"] if cls is BulkDeconvolution else []
    make()[:3].to_df().T.to_csv(tmp_path / "bulk.csv")
    command, *keys = COMMANDS[cls]
    output = ["-o", f"{tmp_path / 'out.h5ad'}"]
    done = CliRunner().invoke(app, [command, f"{tmp_path / 'in.h5ad'}", *bulk, *keys, *output])
    assert done.exit_code == 1
    said = done.stderr.strip().splitlines()[-1]
    words = match.replace("`adata.X`", "(`adata.X`|X of .*)").replace(".*filters", "")
    words = re.sub(r"^has (?=\d)", "holds ", words)
    assert re.search(words, said), said
    assert not (tmp_path / "out.h5ad").exists()


LAYERS = {
    "dense": (with_value(np.nan), ValueError, rf"layers\['dense'\]` holds nan {PLACE}; 1 such"),
    "csc": (with_value(0.5), ValueError, rf"layers\['csc'\]` holds 0.5 {PLACE}"),
    "counts": (with_value(0.5), KeyError, r"`layer='counts'`.*there are: \['dense', 'csc'\]"),
}


@of_every_model
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_are_looked_at_as_the_matrix_is(cls: type, layer: str) -> None:
    change, exception, match = LAYERS[layer]
    with pytest.raises(exception, match=match):
        cls.setup_anndata(changed(change)(make()), layer=layer, **SETUPS[cls])


@of_every_model
@pytest.mark.parametrize("wrong", [None, "cells.h5ad", np.ones((3, 2)), pd.DataFrame()])
def test_what_is_no_anndata_is_refused(cls: type, wrong: object) -> None:
    with pytest.raises(TypeError, match=f"`adata` is a {type(wrong).__name__}. Pass an AnnData"):
        cls.setup_anndata(wrong, **SETUPS[cls])
    with pytest.raises(TypeError, match=f"is a {type(wrong).__name__}. Pass an AnnData"):
        cls(wrong)


@of_every_model
@pytest.mark.parametrize(
    ("kind", "where"), [("MuData", r"mdata\['rna'\]"), ("SpatialData", r"sdata.tables\['table'\]")]
)
def test_what_holds_an_anndata_is_told_where(cls: type, kind: str, where: str) -> None:
    with pytest.raises(TypeError, match=f"is a {kind}. Pass an AnnData: .*{where}"):
        cls.setup_anndata(type(kind, (), {})(), **SETUPS[cls])


@of_every_model
def test_only_what_was_set_up_makes_a_model(cls: type) -> None:
    adata = make()
    with pytest.raises(ValueError, match=rf"is not set up.*{cls.__name__}.setup_anndata\("):
        cls(adata)
    cls.setup_anndata(adata, **SETUPS[cls])
    for other in (adata.copy(), adata[:, :99].copy(), adata[:99]):
        with pytest.raises(ValueError, match="a part.*150 (cells|samples), 307 (taxa or )?genes"):
            cls(other)


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


@of_every_model
def test_counts_in_raw_are_those_counts(cls: type, tmp_path: Path) -> None:
    cells = with_counts_in_raw(make())
    plain = make()[:, cells.var_names].copy()
    model, expected = fitted(cls, cells.copy(), "raw"), fitted(cls, plain)
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


@pytest.mark.parametrize("cls", [PairedVAE, LatentConfounder])
def test_the_command_line_reads_counts_in_raw(cls: type, tmp_path: Path) -> None:
    adata = with_counts_in_raw(make())
    adata.write_h5ad(tmp_path / "in.h5ad")
    command, key = COMMANDS[cls]
    call = [command, f"{tmp_path / 'in.h5ad'}", key, "--quiet", "--no-write-layer"]
    call += ["-o", f"{tmp_path / 'out.h5ad'}"]
    refused = CliRunner().invoke(app, call)
    assert refused.exit_code == 1
    assert "`adata.raw.X` holds counts: pass --layer raw" in refused.stderr
    epochs = ["--max-epochs", "1"] if cls is PairedVAE else []
    done = CliRunner().invoke(app, [*call, "--layer", "raw", *epochs])
    assert done.exit_code == 0, done.stderr
    written = sc.read_h5ad(tmp_path / "out.h5ad")
    assert {"X_paired", "X_confounder"} & set(written.obsm)


@of_every_model
def test_cells_of_two_kinds_are_told_apart(cls: type) -> None:
    adata = make()
    dense = adata.X.toarray()
    dense[70:] = np.log1p(over_total(dense[70:]))
    adata.X = sparse.csr_matrix(dense)
    told = (
        "look log-normalised: name.* 70 of 150 (cells|samples) hold counts and the others do not"
    )
    with pytest.raises(ValueError, match=told):
        cls.setup_anndata(adata, **SETUPS[cls])


def test_rounding_is_advised_where_the_values_are() -> None:
    adata = make()
    adata.layers["soup"] = as_soupx(adata.X.toarray())
    adata.X = np.log1p(adata.X.toarray())
    with pytest.raises(ValueError, match=r"np.rint\(adata.layers\['soup'\]\)`, and pass"):
        PairedVAE.setup_anndata(adata, "batch", layer="soup")


@of_every_model
def test_counts_that_became_no_numbers_are_named(cls: type) -> None:
    adata = make()
    cls.setup_anndata(adata, **SETUPS[cls])
    for kind in (str, object, complex):
        adata.X = make().X.toarray().astype(kind)
        with pytest.raises(
            ValueError, match="is not as it was set up: `adata.X` holds (text|Py|comp)"
        ):
            cls(adata)


@of_every_model
def test_a_gene_without_a_name_is_refused(cls: type) -> None:
    adata = make()
    adata.var.index = [*adata.var_names[:5], np.nan, *adata.var_names[6:]]
    with pytest.raises(ValueError, match="lacks 1 name, such as .* column 5"):
        cls.setup_anndata(adata, **SETUPS[cls])


@of_every_model
def test_a_part_of_a_file_is_to_be_loaded(cls: type, tmp_path: Path) -> None:
    make().write_h5ad(tmp_path / "cells.h5ad")
    part = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")[:140]
    with pytest.raises(ValueError, match="is a part of the file .*cells.h5ad.*to_memory"):
        cls.setup_anndata(part, **SETUPS[cls])
    fitted(cls, part.to_memory())


# Columns


def with_key(cls: type, argument: str, key: str) -> dict:
    """Name a column where one is asked for, or columns."""
    return {**SETUPS[cls], argument: [key] if argument.endswith("keys") else key}


KEYS = CATEGORIES + NUMBERS
of_every_key = pytest.mark.parametrize(("cls", "argument"), KEYS)
of_categories = pytest.mark.parametrize(("cls", "argument"), CATEGORIES)
of_numbers = pytest.mark.parametrize(("cls", "argument"), NUMBERS)


@of_every_key
def test_columns_are_names_of_columns(cls: type, argument: str) -> None:
    columns = "'batch', 'treatment', 'kind', 'donor', 'size'"
    told = rf"`{argument}.*'nowhere'.*is not a column of `adata.obs` \(columns: \[{columns}\]"
    with pytest.raises(KeyError, match=told):
        cls.setup_anndata(make(), **with_key(cls, argument, "nowhere"))
    if argument.endswith("keys"):
        with pytest.raises(TypeError, match=rf"`{argument}='size'` is a str.*\['size'\]"):
            cls.setup_anndata(make(), **{**SETUPS[cls], argument: "size"})
        return
    for wrong in (["kind"], make().obs["kind"]):
        told = f"`{argument}.*is a {type(wrong).__name__}. Pass the name of a column"
        with pytest.raises(TypeError, match=told):
            cls.setup_anndata(make(), **{**SETUPS[cls], argument: wrong})


@of_categories
def test_cells_without_a_category_are_named(cls: type, argument: str) -> None:
    for values, missing in ((["a", "b"], None), ([1.0, 2.0], np.nan)):
        adata = make()
        adata.obs["mine"] = np.resize(np.array(values, object), N_CELLS)
        at(7, missing, "mine")(adata)
        with pytest.raises(
            ValueError, match="'mine'.*no value in 1 cell, such as 'cell 7'.*notna"
        ):
            cls.setup_anndata(adata, **with_key(cls, argument, "mine"))


@of_categories
def test_what_is_spelt_in_two_ways_is_told(cls: type, argument: str) -> None:
    adata = make()
    adata.obs["mine"] = np.resize(["Lot 1", "lot_1", "lot_2"], N_CELLS)
    setup = with_key(cls, argument, "mine")
    if argument == "treatment_key":
        setup["reference"] = "lot_2"
    if cls is MaskedImputation:
        adata.X = adata.X.multiply(adata.varm["measured"]["b"].to_numpy()).tocsr()
        columns = {"Lot 1": True, "lot_1": True, "lot_2": adata.varm["measured"]["b"]}
        adata.varm["measured"] = pd.DataFrame(columns, adata.var_names)
    with pytest.warns(UserWarning, match=r"'Lot 1' and 'lot_1' of `\w+.obs\['mine'\]` look like"):
        cls.setup_anndata(adata, **setup)


@of_categories
def test_missing_values_that_became_text_are_told(cls: type, argument: str) -> None:
    adata = make()
    adata.obs["mine"] = np.resize(["a", "b", "c"], N_CELLS).astype(object)
    adata.obs.loc[adata.obs["mine"] == "c", "mine"] = np.nan
    adata.obs["mine"] = adata.obs["mine"].astype(str)
    if cls is MaskedImputation:
        adata.X = adata.X.multiply(adata.varm["measured"]["b"].to_numpy()).tocsr()
        adata.varm["measured"]["nan"] = adata.varm["measured"]["b"]
    setup = with_key(cls, argument, "mine")
    if argument == "treatment_key":
        setup["reference"] = "a"
    match = r"'mine'.*text 'nan' in 50 cells.*\['mine'\] != 'nan'"
    if (cls, argument) == (BulkDeconvolution, "labels_key"):
        match = "'nan' of the reference look like no type"
    with pytest.warns(UserWarning, match=match):
        cls.setup_anndata(adata, **setup)


@of_numbers
def test_cells_without_a_number_are_named(cls: type, argument: str) -> None:
    for value in (np.nan, np.inf):
        adata = changed(at(7, value, "size"))(make())
        with pytest.raises(ValueError, match=f"'size'.*{value}.*'cell 7'"):
            cls.setup_anndata(adata, **with_key(cls, argument, "size"))
    adata = make()
    adata.obs["size"] = pd.array([None] + [1.5] * (N_CELLS - 1), "Float64")
    with pytest.raises(ValueError, match="'size'.*'cell 0'"):
        cls.setup_anndata(adata, **with_key(cls, argument, "size"))
    with pytest.raises(TypeError, match="'donor'.*are numbers"):
        cls.setup_anndata(make(), **with_key(cls, argument, "donor"))


CATEGORIES_OF_NO_USE = {
    "mixed": lambda n: pd.Series([1, "1"] * (n // 2), dtype=object),
    "dates": lambda n: pd.date_range("2021-01-01", periods=2).repeat(n // 2),
    "intervals": lambda n: pd.cut(np.arange(n), 2),
}


@of_models_of_cells
@pytest.mark.parametrize("kind", CATEGORIES_OF_NO_USE)
def test_categories_are_text_numbers_or_bool(cls: type, kind: str) -> None:
    values = CATEGORIES_OF_NO_USE[kind](N_CELLS)
    values = values if isinstance(values, pd.Categorical) else np.asarray(values)
    adata = changed(column("odd", lambda _: values))(make())
    with pytest.raises(TypeError, match=r"'odd'.*values of the kind.*astype\(str\)"):
        cls.setup_anndata(adata, **with_key(cls, next(iter(SETUPS[cls])), "odd"))


@of_every_model
def test_layers_are_names(cls: type) -> None:
    with pytest.raises(TypeError, match="`layer` is a list"):
        cls.setup_anndata(make(), layer=["counts"], **SETUPS[cls])


def test_a_column_that_is_there_twice_is_refused() -> None:
    adata = make()
    adata.obs = pd.concat([adata.obs, adata.obs[["batch"]]], axis=1)
    with pytest.raises(ValueError, match="several columns 'batch'"):
        PairedVAE.setup_anndata(adata, "batch")


@pytest.mark.parametrize("cls", [PairedVAE, LatentConfounder])
def test_a_covariate_is_named_once(cls: type) -> None:
    keys = {"categorical_covariate_keys": pd.Index(["kind", "kind"])}
    with pytest.raises(ValueError, match="`categorical_covariate_keys` names 'kind' twice"):
        cls.setup_anndata(make(), **SETUPS[cls], **keys)


# Other cells for a model


@of_every_model
def test_an_anndata_is_attached_with_its_genes_in_their_order(cls: type) -> None:
    model = fitted(cls, make())
    before = asked(model)
    for other, match in (
        (make()[:, ::-1].copy(), "genes of the model in another order"),
        (make()[:, 1:].copy(), "lacks 1 of the 307 (taxa or )?genes"),
        (make().to_df(), "is a DataFrame"),
    ):
        with pytest.raises((ValueError, TypeError), match=match):
            model.adata = other
    np.testing.assert_array_equal(asked(model), before)


QUERIES = {
    "missing genes": (lambda a: a[:, :-1].copy(), ValueError, "lacks 1 of the 307 .*'gene 306'"),
    "genes of another kind": (
        changed(lambda a: setattr(a, "var_names", [f"ENSG{g:011d}" for g in range(N_GENES)])),
        ValueError,
        "lacks 307 of the 307.*named alike",
    ),
    "names twice": (changed(with_names_twice), ValueError, "add up the counts"),
    "logarithms": (changed(sc.pp.log1p), ValueError, "look log-normalised"),
    "nan": (changed(with_value(np.nan)), ValueError, PLACE),
    "no anndata": (lambda a: a.X, TypeError, "Pass an AnnData"),
}


@pytest.fixture(scope="module", params=[PairedVAE, LatentConfounder])
def of_cells(request: pytest.FixtureRequest) -> object:
    return fitted(request.param, make())


@pytest.mark.parametrize("name", QUERIES)
def test_other_cells_are_looked_at_as_the_first_were(of_cells: object, name: str) -> None:
    change, exception, match = QUERIES[name]
    query, before = change(make()), make()
    for method in ("get_latent_representation", "get_normalized_expression", "annotate"):
        with pytest.raises(exception, match=match):
            getattr(of_cells, method)(query)
    assert not isinstance(query, AnnData) or query.obsm.keys() == before.obsm.keys()
    assert not isinstance(query, AnnData) or query.varm.keys() == before.varm.keys()


OPTIONS = [
    ({"indices": [True, False]}, ValueError, r"mask of shape \(2,\)"),
    ({"indices": [0.5]}, TypeError, "dtype float64"),
    ({"indices": [[1, 2]]}, TypeError, r"shape \(1, 2\)"),
    ({"indices": [N_CELLS]}, IndexError, "there are 150 cells"),
    ({"indices": ["cell 1"]}, TypeError, "row numbers"),
    ({"batch_size": -1}, (ValueError, TypeError), "batch_size"),
    ({"gene_list": ["GAPDH"]}, KeyError, r"\['GAPDH'\], not among"),
    ({"gene_list": "gene 1"}, TypeError, r"\['gene 1'\]"),
]


@pytest.mark.parametrize(("options", "exception", "match"), OPTIONS)
def test_questions_about_cells_are_looked_at(
    of_cells: object, options: dict, exception: type[Exception], match: str
) -> None:
    latent_takes, means_take = "gene_list" not in options, "batch_size" not in options
    if latent_takes:
        with pytest.raises(exception, match=match):
            of_cells.get_latent_representation(**options)
    if means_take:
        with pytest.raises(exception, match=match):
            of_cells.get_normalized_expression(**options)


def test_a_layer_for_genes_without_values_is_refused(of_cells: object, tmp_path: Path) -> None:
    adata = make()
    new = AnnData(adata.X[:, :1], adata.obs, pd.DataFrame(index=["new"]))
    more = sc.concat([adata, new], axis=1)
    more.obs = adata.obs
    with pytest.raises(ValueError, match="1 gene that the model does not know.*write_layer=Fals"):
        of_cells.annotate(more)
    assert not more.obsm
    of_cells.annotate(more, write_layer=False)
    assert {"X_paired", "X_confounder"} & set(more.obsm)
    more.write_h5ad(tmp_path / "more.h5ad")


def test_another_models_results_are_not_replaced() -> None:
    adata = make()
    fitted(PairedVAE, adata).annotate()
    latent = adata.obsm["X_paired"].copy()
    model = fitted(LatentConfounder, adata)
    with pytest.raises(ValueError, match="LatentConfounder did not write"):
        model.annotate(key_added="paired")
    np.testing.assert_array_equal(adata.obsm["X_paired"], latent)
