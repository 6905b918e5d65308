"""What every model does alike: save and load."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import ClassVar, Self

import pandas as pd
from anndata import AnnData, read_h5ad
from scvi.model.base import BaseModelClass

from scovert.core._arguments import knows_its_arguments
from scovert.core._checks import caller_level, check_anndata, check_genes, check_layer
from scovert.core._minibatch import check_trained, genes_of
from scovert.core._registered import check_registered
from scovert.core._registering import check_unchanged
from scovert.core._saving import KEPT_ELSEWHERE, SavedModel, load_weights, read_model, write_model
from scovert.core._stand_in import stand_in
from scovert.core._words import words_of
from scovert.core.training._checkpoint import Resumable

__all__ = ["SaveLoadMixin"]


@knows_its_arguments()
class SaveLoadMixin:
    """Save and load a model in scovert's own format, which cannot carry code."""

    _from_earlier: ClassVar[Callable[[SavedModel], SavedModel]] = staticmethod(lambda saved: saved)
    """Returns what a file of an earlier version holds as the class has it today."""

    _n_to_stand_in: ClassVar[Callable[[dict], int] | None] = None
    """Returns, by the arguments of ``__init__``, how many cells of a category the model takes;
    `None` where every result is derived from the cells of the model."""
    _has_cells = True

    @property
    def adata(self) -> AnnData:
        """The AnnData of the model."""
        if not self._has_cells:
            name = type(self).__name__
            raise RuntimeError(
                f"This {name} was loaded without its cells, and they are needed here. Pass other "
                f"cells as `adata`, where the method takes them, or load the model with its own: "
                f"`{name}.load(path, adata)`."
            )
        return BaseModelClass.adata.fget(self)

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        check_anndata(adata, "adata")
        genes = genes_of(self.registry)
        if not adata.var_names.equals(genes):
            check_genes(adata, genes, words=words_of(self.registry["setup_args"]))
            raise ValueError(
                "`adata` has the genes of the model in another order, or others besides. Attach "
                "`adata[:, model.adata.var_names].copy()`; methods take any order as `adata=`."
            )
        check_registered(adata, self.registry)
        BaseModelClass.adata.fset(self, adata)
        self._has_cells = True

    def save(
        self, path: str | os.PathLike, *, overwrite: bool = False, save_anndata: bool = False
    ) -> None:
        """Save the model into a folder.

        Parameters
        ----------
        path
            Folder, made if need be. It receives ``model.scovert``, and ``adata.h5ad`` if asked.
        overwrite
            Replace files of these names.
        save_anndata
            Save the AnnData too, so that `load` needs only the folder.

        Raises
        ------
        FileExistsError
            If a file is in the way and `overwrite` is not set.
        ValueError
            If the AnnData is to be saved and is not as it was set up.
        """
        check_trained(self)
        if save_anndata:
            check_unchanged(self)  # or it could not be loaded
        kept = self.adata if save_anndata else None
        write_model(path, self._saved(self.history_), kept, overwrite=overwrite)

    def _saved(self, history: dict[str, pd.DataFrame]) -> SavedModel:
        """Return what a file holds of this model, once it is trained."""
        attributes = {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_") and name not in KEPT_ELSEWHERE and not name.startswith("_")
        }
        return SavedModel(
            class_name=type(self).__name__,
            registry=self.registry,
            init=self.init_params_["non_kwargs"],
            weights=self.module.state_dict(),
            attributes=attributes | {"is_trained_": True},
            history=history,
        )

    def _save_best(self, resumable: Resumable, history: dict[str, pd.DataFrame]) -> None:
        """Write the model as it is into the folder of its training, if it has one."""
        if resumable.folder is not None:
            write_model(resumable.folder, self._saved(history), None, overwrite=True)

    @classmethod
    def load(cls, path: str | os.PathLike, adata: AnnData | None = None) -> Self:
        """Load a model from a folder that `save` wrote.

        Parameters
        ----------
        path
            The folder, or the file in it.
        adata
            AnnData to attach, with the genes of the model in any order (a copy with the model's
            genes in its order is attached when they differ). `None` reads the one that was saved
            with the model. If none was, the model has no cells, and gives what needs none of its
            own: results for other cells, or for a bulk. Not so `LatentConfounder`, whose results
            are all derived from its cells.

        Returns
        -------
        The trained model, on the CPU; ``model.to_device("cuda:0")`` moves it.

        Raises
        ------
        FileNotFoundError
            If the folder holds no model, or no AnnData where the model needs it.
        ValueError
            If the model is of another class or damaged, its genes are not in `adata`, or a column
            holds what the model has not seen.
        KeyError
            If the layer or a column of the model is not in `adata`.
        """
        saved, adata_file = read_model(path)
        if saved.class_name != cls.__name__:
            raise ValueError(
                f"{path} holds a {saved.class_name}, not a {cls.__name__}. Load it with "
                f"`scovert.model.{saved.class_name}.load`."
            )
        saved = cls._from_earlier(saved)
        _check_arguments(cls, saved, path)
        has_cells = adata is not None or adata_file.exists() or cls._n_to_stand_in is None
        if not has_cells:
            adata = stand_in(saved.registry, cls._n_to_stand_in(saved.init))
        elif adata is None:
            adata = _read_adata(adata_file)
        check_layer(adata, saved.registry["setup_args"].get("layer"))
        check_registered(adata, saved.registry)
        adata = _with_genes(adata, saved)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Category .* fewer than 3 cells")  # none is trained
            setup = saved.registry["setup_args"]
            if not has_cells:
                warnings.simplefilter("ignore", UserWarning)  # about what nobody has
            cls.setup_anndata(adata, **setup, _registry=saved.registry)
            model = cls(adata, **saved.init)
        load_weights(path, saved, model.module)
        model.module.eval()
        own = {name for name in vars(model) if name.endswith("_")}  # a file adds no other name
        vars(model).update({k: v for k, v in saved.attributes.items() if k in own})
        model.history_ = saved.history
        if not has_cells:
            model._forget_cells(saved)
        return model

    def _forget_cells(self, saved: SavedModel) -> None:
        """Take away the cells that stood in, and say what the model was fitted to."""
        self._has_cells, self.registry_ = False, saved.registry
        counts = saved.registry["field_registries"]["X"]["state_registry"]
        self._model_summary_string = (
            f"{type(self).__name__}, loaded without its {counts['n_obs']} cells: "
            f"{counts['n_vars']} genes, {', '.join(f'{k}={v!r}' for k, v in saved.init.items())}"
        )


def _read_adata(file: Path) -> AnnData:
    """Read the AnnData that was saved with a model."""
    if not file.exists():
        raise FileNotFoundError(
            f"{file} does not exist. Pass `adata`, or save with `save_anndata=True`."
        )
    try:
        return read_h5ad(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} cannot be read ({error}). Pass `adata`, or copy the file again."
        ) from error


def _check_arguments(cls: type, saved: SavedModel, path: str | os.PathLike) -> None:
    """Refuse arguments that this version does not know."""
    for function, given in ((cls, saved.init), (cls.setup_anndata, saved.registry["setup_args"])):
        unknown = sorted(given.keys() - signature(function).parameters.keys())
        if unknown:
            raise ValueError(
                f"{path} was saved with {unknown}, which this version of scovert does not know. "
                "Load it with the version that saved it, or fit the model again."
            )


def _with_genes(adata: AnnData, saved: SavedModel) -> AnnData:
    genes = genes_of(saved.registry)
    words = words_of(saved.registry["setup_args"])
    check_genes(adata, genes, words=words)
    if adata.var_names.equals(genes):
        return adata
    warnings.warn(
        f"The {words.columns} of `adata` differ from those of the model in order or number: a "
        "copy with those of the model is attached, as `model.adata`. `model.annotate(adata)` "
        "writes into yours.",
        UserWarning,
        stacklevel=caller_level(),
    )
    return adata[:, genes].copy()
