"""What models need to know about an AnnData when it is set up, and whether it still is so."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import (
    BaseAnnDataField,
    CategoricalJointObsField,
    CategoricalObsField,
    LayerField,
    NumericalJointObsField,
)
from scvi.model.base import BaseModelClass

from scovert.core._checks import check_anndata, check_layer, some_of
from scovert.core._compat import SCVI_UUID_KEY
from scovert.core._count_checks import NUMBERS
from scovert.core._counts import get_counts, some_blocks
from scovert.core._registered import columns_of
from scovert.core._spelling import warn_about_spelling
from scovert.core._value_checks import check_values
from scovert.core._words import Words, counted, words_of

__all__ = [
    "CountsField",
    "check_set_up",
    "check_unchanged",
    "facts_of",
    "fingerprint",
    "give_identity",
    "is_own",
    "register",
]

CATEGORICAL, CONTINUOUS = "categorical_covariate_keys", "continuous_covariate_keys"
"""Arguments of ``setup_anndata`` that name covariates."""
COUNTS, COLUMNS = "counts_digest", "columns_digests"
"""Names of the fingerprint in the registry."""
MAX_WEIGHT = 2**16
"""Weights of genes are whole numbers below it, so that weighted sums of counts are exact."""


def give_identity(cls: type[BaseModelClass], adata: AnnData) -> None:
    """Turn a view into an AnnData, and a copy of one that was set up into one of its own.

    scvi-tools tells AnnData apart by an identifier in ``uns``, which a copy shares.
    """
    if adata.is_view:
        if adata.isbacked:
            raise ValueError(
                f"The AnnData is a part of the file {adata.filename}, and what is set up must be "
                "all of a file, or in memory. Load the part: `adata = adata.to_memory()`."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.obs = adata.obs.copy()
    known = cls._setup_adata_manager_store.get(adata.uns.get(SCVI_UUID_KEY))
    if known is not None and known.adata is not adata:
        del adata.uns[SCVI_UUID_KEY]


def register(
    cls: type[BaseModelClass],
    adata: AnnData,
    categories: dict[str, str],
    registry: dict | None,
    *,
    layer: str | None,
    name: str = "adata",
    more_fields: Sequence[BaseAnnDataField] = (),
    **arguments: object,
) -> None:
    """Register with scvi-tools an AnnData that was checked: the end of every ``setup_anndata``.

    Parameters
    ----------
    cls
        Model that it is set up for.
    adata
        What is set up.
    categories
        Columns of ``obs`` with categories that the model reads, by their keys in the registry,
        for example ``{"batch": batch_key}``. Categories without cells are none.
    registry
        That of a saved model; `None` makes a new one.
    layer
        Layer with the counts; `None` for ``X``, ``"raw"`` also for ``adata.raw``.
    name
        What `adata` is called, for messages.
    more_fields
        What else the registry is to keep.
    **arguments
        The other arguments of ``setup_anndata``. Every column that one ending in ``_key`` or
        ``_keys`` names must stay as it is. The model reads those of
        ``categorical_covariate_keys`` and ``continuous_covariate_keys``, if it has these.
    """
    give_identity(cls, adata)
    columns = list(columns_of(arguments))
    for key in columns if registry is None else ():
        warn_about_spelling(adata.obs, key, name)
    fields = [CountsField(adata, layer, columns), *more_fields]
    fields += [CategoricalObsField(name, key) for name, key in categories.items()]
    covariates = arguments.get(CATEGORICAL)
    if CATEGORICAL in arguments:
        fields.append(CategoricalJointObsField(REGISTRY_KEYS.CAT_COVS_KEY, covariates))
        fields.append(NumericalJointObsField(REGISTRY_KEYS.CONT_COVS_KEY, arguments[CONTINUOUS]))
    given = cls._get_setup_method_args(cls=cls, adata=adata, layer=layer, **arguments)
    manager = AnnDataManager(fields=fields, setup_method_args=given)
    manager.register_fields(adata, registry or _used_categories(adata, categories, covariates))
    cls.register_manager(manager)


def _used_categories(
    adata: AnnData, categories: dict[str, str], covariates: Sequence[str] | None
) -> dict:
    """Return a registry of the categories that have cells."""
    states = {
        name: {"categorical_mapping": _used(adata.obs[key]), "original_key": key}
        for name, key in categories.items()
    }
    if covariates:
        used = {key: _used(adata.obs[key]) for key in covariates}
        states[REGISTRY_KEYS.CAT_COVS_KEY] = {"mappings": used, "field_keys": list(covariates)}
    return {"field_registries": {k: {"state_registry": state} for k, state in states.items()}}


def _used(column: pd.Series) -> NDArray:
    return np.array(pd.Categorical(column).remove_unused_categories().categories)


def fingerprint(adata: AnnData, layer: str | None) -> str:
    """Return a hash of the cells' names in their order, and one of their counts behind it."""
    names = hashlib.sha256("\n".join(map(str, adata.obs_names)).encode()).hexdigest()
    return names + _digest_of_counts(get_counts(adata, layer))


def facts_of(model: BaseModelClass) -> dict[str, object]:
    """Return what tells a model and all that it reads, for the state of its training."""
    state = model.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    return {
        "model": model._model_summary_string,
        "setup": model.registry["setup_args"],
        "counts": state[COUNTS],
        "columns": state[COLUMNS],
    }


class CountsField(LayerField):
    """Counts of a model, and a fingerprint of all that it is to read, kept in the registry.

    Parameters
    ----------
    adata
        What is set up.
    layer
        Layer with the counts; `None` for ``X``, ``"raw"`` also for ``adata.raw``.
    keys
        Columns of ``obs`` that are read too.
    """

    def __init__(self, adata: AnnData, layer: str | None, keys: Sequence[str]) -> None:
        super().__init__(
            REGISTRY_KEYS.X_KEY,
            layer if layer in adata.layers else None,  # scvi-tools does not know adata.raw
            is_count_data=False,
            correct_data_format=False,
        )
        self.layer, self.keys = layer, keys

    def validate_field(self, adata: AnnData) -> None:
        """Trust the counts, which the model has looked at."""

    def register_field(self, adata: AnnData) -> dict:
        """Return numbers and names, as scvi-tools does, with the hashes."""
        return super().register_field(adata) | {
            COUNTS: _digest_of_counts(get_counts(adata, self.layer)),
            COLUMNS: {key: _digest_of_column(adata.obs[key]) for key in self.keys},
        }


def check_set_up(cls: type[BaseModelClass], adata: AnnData, name: str = "adata") -> None:
    """Refuse what is no AnnData, or none that was set up, or a copy or a part of one that was."""
    check_anndata(adata, name)
    call = f"`{cls.__name__}.setup_anndata({name}, ...)`"
    manager = cls._setup_adata_manager_store.get(adata.uns.get(SCVI_UUID_KEY))
    if manager is None:
        raise ValueError(f"`{name}` is not set up for {cls.__name__}. Call {call} first.")
    if manager.adata is not adata:
        raise ValueError(
            f"`{name}` ({_size(manager, adata)}) is a copy or a part of the AnnData that was set "
            f"up ({_size(manager, manager.adata)}). Pass that one, or call {call} with this one."
        )


def _size(manager: AnnDataManager, adata: AnnData) -> str:
    words = words_of(manager.registry["setup_args"])
    rows = counted(adata.n_obs, words.row, words.rows)
    return f"{rows}, {counted(adata.n_vars, words.column, words.columns)}"


def is_own(model: BaseModelClass, adata: AnnData | None) -> bool:
    """Whether a method is asked about the cells of the model itself."""
    return adata is None or adata is model._adata


def check_unchanged(model: BaseModelClass, *, every_value: bool = False) -> None:
    """Refuse an AnnData of which something that the model reads has changed since it was set up.

    Parameters
    ----------
    model
        The model.
    every_value
        Also make sure that all counts are counts, where some of many are compared.

    Raises
    ------
    ValueError
        It says what changed.
    """
    adata, setup = model.adata, model.registry["setup_args"]
    layer = setup["layer"]
    state = model.adata_manager.registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]
    found = _change_of_shape(adata, state, layer, words_of(setup))
    if found is None:
        found = _change_of_columns(adata, state[COLUMNS])
    if found is None:
        found = _change_of_counts(adata, state[COUNTS], setup)
    if found is not None:
        name = type(model).__name__
        raise ValueError(
            f"The AnnData of this {name} is not as it was set up: {found}. What a model reads "
            "must stay: put it back, or set the AnnData up and fit a model again. To normalise or "
            "filter later, keep a copy of the AnnData, or the raw counts in a layer "
            "(`adata.layers['counts'] = adata.X.copy()`) that you name in `setup_anndata`."
        )
    if every_value:
        check_values(setup, get_counts(adata, layer), check_layer(adata, layer), adata)


def _change_of_shape(adata: AnnData, state: dict, layer: str | None, words: Words) -> str | None:
    if adata.n_obs != state["n_obs"]:
        return f"it had {counted(state['n_obs'], words.row, words.rows)} and has {adata.n_obs}"
    genes = pd.Index(state["column_names"])
    if not adata.var_names.equals(genes):
        return _change_of_genes(adata.var_names, genes, words.columns)
    try:
        check_layer(adata, layer)
    except (KeyError, ValueError) as error:
        return str(error.args[0]).rstrip(".")
    return None


def _change_of_genes(now: pd.Index, before: pd.Index, genes: str) -> str:
    lost, new = before.difference(now, sort=False), now.difference(before, sort=False)
    if len(lost) == len(new) == 0:
        return f"its {genes} are in another order"
    added = f", and there are {len(new)} others, such as {some_of(new)}" if len(new) else ""
    return f"{len(lost)} of its {len(before)} {genes} are gone, such as {some_of(lost)}{added}"


def _change_of_columns(adata: AnnData, before: dict[str, str]) -> str | None:
    for key, digest in before.items():
        if key not in adata.obs:
            return f"`adata.obs[{key!r}]` is gone"
        if _digest_of_column(adata.obs[key]) != digest:
            return f"`adata.obs[{key!r}]` holds other values"
    return None


def _change_of_counts(adata: AnnData, before: str, setup: dict[str, object]) -> str | None:
    layer = setup["layer"]
    counts, where = get_counts(adata, layer), check_layer(adata, layer)
    if _digest_of_counts(counts) == before:
        return None
    try:
        check_values(setup, counts, where, adata)
    except (ValueError, TypeError) as error:
        return str(error).rstrip(".")
    rows = words_of(setup).rows
    return f"{where} holds other counts, or its {rows} are in another order"


def _digest_of_counts(counts: object) -> str:
    """Hash a weighted sum of the counts of every cell that is looked at.

    Sums of whole numbers are exact, so that neither the kind of the matrix nor its type matters.
    What is no number, as counts may become, has a digest of no counts.
    """
    if counts.dtype.kind not in NUMBERS:
        return ""
    weights = np.random.default_rng(0).integers(1, MAX_WEIGHT, counts.shape[1]).astype(float)
    sums = [np.asarray(block @ weights, float) for _, block in some_blocks(counts)]
    return hashlib.sha256(b"".join(part.tobytes() for part in sums)).hexdigest()


def _digest_of_column(column: pd.Series) -> str:
    """Hash the values of a column, whether numbers or categories of any type."""
    values: list[NDArray]
    if pd.api.types.is_float_dtype(column):
        values = [column.to_numpy(float)]
    else:
        codes, levels = pd.factorize(column.astype(str).to_numpy(object))
        values = [codes.astype(np.int64), np.array("\n".join(levels).encode())]
    return hashlib.sha256(b"".join(part.tobytes() for part in values)).hexdigest()
