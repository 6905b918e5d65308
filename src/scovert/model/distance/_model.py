"""Positions of samples whose distances reproduce a matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi.model.base import BaseModelClass

from scovert.core._annotating import annotate, find_target
from scovert.core._arguments import knows_its_arguments
from scovert.core._beginning import begin_training
from scovert.core._checks import check_choice, check_genes, check_layer, check_number
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._diagnostics import check_table, finite_row
from scovert.core._minibatch import check_trained
from scovert.core._registering import check_set_up, check_unchanged, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core._words import SAMPLES
from scovert.core.report import Report, written
from scovert.core.trees import check_branches, read_branches
from scovert.model.distance._checks import (
    check_distances,
    is_small,
    warn_about_distances,
    warn_about_samples,
)
from scovert.model.distance._data import split_samples
from scovert.model.distance._diagnostics import rows_of
from scovert.model.distance._distances import distances_between, with_intervals
from scovert.model.distance._features import chosen
from scovert.model.distance._fields import DistancesField, check_distances_unchanged
from scovert.model.distance._fit import Options, cross_validate, fit
from scovert.model.distance._module import DistanceModule
from scovert.model.distance._places import places_of, uniqueness_of
from scovert.model.distance._report import report_of
from scovert.model.distance._samples import read_samples
from scovert.model.distance._summary import keep, summarise

__all__ = ["DistanceEmbedding"]

N_LATENT, N_HIDDEN = 24, 256
"""More axes fit the training matrix better and lose distances between new samples."""
N_LATENT_SMALL, N_HIDDEN_SMALL, PER_AXIS = 10, 64, 4
"""Of cohorts under 100 samples; and samples per axis at least."""


@knows_its_arguments()
class DistanceEmbedding(SaveLoadMixin, BaseModelClass):
    r"""Place samples by their counts so that distances of positions reproduce a given matrix.

    .. math:: d_{ij}^2 = \lVert z_i - z_j \rVert^2 + u_i + u_j

    :math:`z` is the position of a sample and :math:`u` its uniqueness, the squared length of a
    private axis: distances of sparse profiles are concentrated, and positions alone have no place
    for what a sample shares with nobody. Both are functions of the counts, so that new samples are
    placed without any of their distances. See :doc:`/models/distance` for the model, and for when
    to compute the distances instead.

    Parameters
    ----------
    adata
        Samples with counts of taxa or genes, prepared with :meth:`setup_anndata`.
    n_latent
        Number of axes; `None` takes 24, under 100 samples a quarter of them but 10 at most.
    n_hidden, n_layers
        Nodes and hidden layers of the network; `None` takes 256 nodes, under 100 samples 64.
    features
        What is read of the counts: ``"auto"`` chooses by the held-out R2 of the linear map; or a
        list of ``"abundance"`` (square roots of shares), ``"presence"`` and, with a tree,
        ``"branch_abundance"`` and ``"branch_presence"``.
    dropout_rate
        Dropout in the hidden layers.

    Examples
    --------
    >>> import scovert
    >>> from scovert.model import DistanceEmbedding
    >>> adata = scovert.simulate.distance(120, 50)
    >>> DistanceEmbedding.setup_anndata(adata, "unweighted_unifrac", tree_key="tree")
    >>> model = DistanceEmbedding(adata)
    >>> model.train(method="linear")
    >>> model.get_latent_representation().shape
    (120, 24)
    """

    def __init__(
        self,
        adata: AnnData,
        *,
        n_latent: int | None = None,
        n_hidden: int | None = None,
        n_layers: int = 1,
        features: Literal["auto"] | Sequence[str] = "auto",
        dropout_rate: float = 0.1,
    ) -> None:
        check_set_up(type(self), adata)
        super().__init__(adata)
        check_unchanged(self)
        tree_key = self.registry["setup_args"]["tree_key"]
        self._kinds = chosen(features, tree_key is not None)
        usual = (N_LATENT, N_HIDDEN)
        if is_small(adata.n_obs):
            usual = (max(1, min(N_LATENT_SMALL, adata.n_obs // PER_AXIS)), N_HIDDEN_SMALL)
        sizes = {
            "n_latent": usual[0] if n_latent is None else n_latent,
            "n_hidden": usual[1] if n_hidden is None else n_hidden,
            "n_layers": n_layers,
        }
        for name, size in sizes.items():
            check_number(name, size, 1, whole=True)
        check_number("dropout_rate", dropout_rate, 0, 0.99)
        has_branches = tree_key is not None and tree_key in adata.varm
        self._make_module = partial(
            DistanceModule,
            read_branches(adata, tree_key) if has_branches else None,
            dropout_rate=dropout_rate,
            **sizes,
        )
        self.module = self._make_module()
        self.excess_: float = 0.0
        self.fitted_: NDArray = np.zeros((0, sizes["n_latent"] + 1))
        self.marks_: NDArray = np.zeros((0, 2))
        self.spread_: NDArray | None = None
        self.error_quantiles_: NDArray | None = None
        self.agreement_: dict[str, dict[str, float]] = {}
        self.facts_: dict[str, float] = {}
        self.method_: str | None = None
        self._model_summary_string = (
            f"DistanceEmbedding of {adata.n_obs} samples, {adata.n_vars} taxa or genes: "
            f"{', '.join(f'{name}={size}' for name, size in sizes.items())}, "
            f"features={features!r}, dropout_rate={dropout_rate}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        distances_key: str,
        *,
        layer: str | None = None,
        tree_key: str | None = None,
        _registry: dict | None = None,  # of a saved model
    ) -> None:
        """Say where in `adata` the counts, the distances and the tree are.

        Writes only what scvi-tools keeps under names that begin with ``_scvi_``.

        Parameters
        ----------
        adata
            Samples with raw counts.
        distances_key
            Slot of ``adata.obsp`` with the distances between all samples, in any unit;
            :func:`scovert.pp.distances` puts a table there by name.
        layer
            Layer with the counts; `None` means ``adata.X``, ``"raw"`` (unless a layer is called
            so) the taxa of `adata` in ``adata.raw``.
        tree_key
            Slot of ``adata.varm`` with the tree that :func:`scovert.pp.tree` added, for distances
            that know it, such as UniFrac.

        Raises
        ------
        KeyError
            If the slots or the layer do not exist.
        ValueError
            If the distances are not finite, negative, not symmetric, not 0 on the diagonal, or all
            equal, or there are fewer than 10 samples; if the counts are none, or names of taxa
            occur twice.
        """
        where = check_layer(adata, layer)
        check_genes(adata, words=SAMPLES)
        counts = get_counts(adata, layer)
        totals = check_counts(counts, where, adata, may_be_zero=True, words=SAMPLES)
        if _registry is None:
            check_distances(adata, distances_key)
            if not totals.any():
                check_counts(counts, where, adata, words=SAMPLES)
            if tree_key is not None:
                check_branches(adata, tree_key)
            warn_about_distances(adata, distances_key)
            warn_about_samples(adata, totals)
        register(
            cls,
            adata,
            {},
            _registry,
            layer=layer,
            more_fields=[DistancesField(distances_key)],
            distances_key=distances_key,
            tree_key=tree_key,
        )

    def train(
        self,
        max_epochs: int | None = None,
        *,
        method: Literal["auto", "network", "linear"] = "auto",
        train_size: float | None = None,
        split_key: str | None = None,
        batch_size: int = 128,
        early_stopping: bool = True,
        checkpoint_dir: str | os.PathLike | None = None,
        plan_kwargs: dict | None = None,
        **trainer_kwargs: object,
    ) -> None:
        """Fit a linear map and a network that corrects it.

        The linear map is ridge regression on principal coordinates. Training again begins there
        again. Samples that are held out tell how well distances of new samples are predicted.

        Parameters
        ----------
        max_epochs
            Longest training, in epochs of 50 steps or more. `None` takes as many as make 1,500
            steps, 800 under 300 samples and 300 under 100.
        method
            ``"linear"`` stops at the linear map; ``"auto"`` goes back to it where the network is
            not better for held-out samples.
        train_size
            Share of the samples that are trained on; the others are validated on. `None` takes
            0.9; under 100 samples it trains on all, and cross-validation in five parts tells the
            rest.
        split_key
            Column of ``adata.obs`` with the subject: its samples stay on one side. Needed where
            there are several samples of a subject, or numbers are too good.
        batch_size
            Samples in a minibatch, 2 or more.
        early_stopping
            Stop when the stress of the validation samples has not improved for 10 epochs. Off
            without validation samples.
        checkpoint_dir
            Folder for the state of training, written at the beginning of every epoch, and for the
            best model so far (:meth:`load` reads it). Training that was cut off goes on from there
            when the same call is made again, to the same result.
        plan_kwargs
            For the training plan: ``lr`` (0.001), ``weight_decay`` (0.0001) and others of
            :class:`~scvi.train.TrainingPlan`.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, such as ``accelerator``, ``devices``,
            ``early_stopping_patience``, ``logger`` or ``enable_progress_bar``.

        Raises
        ------
        FloatingPointError
            If a term of the loss or the gradient became NaN or infinite. It names the term, the
            step and the samples; the model has its best state, or that of the beginning of the
            epoch.
        """
        check_choice("method", method, ("auto", "network", "linear"))
        if max_epochs is not None:
            check_number("max_epochs", max_epochs, 1, whole=True)
        if train_size is not None:
            check_number("train_size", train_size, 0.1, 0.95)
        check_number("batch_size", batch_size, 2, whole=True)
        resumable = begin_training(
            self,
            checkpoint_dir,
            trainer_kwargs,
            plan_kwargs,
            max_epochs=max_epochs,
            split=(train_size, split_key, batch_size),
            early_stopping=early_stopping,
            method=method,
        )
        key = self.registry["setup_args"]["distances_key"]
        check_distances_unchanged(self.adata, self.registry, key)
        samples = read_samples(self, self._kinds, split_key)
        options = Options(
            self._kinds, method, max_epochs, batch_size, early_stopping, dict(plan_kwargs or {})
        )
        on_best = partial(self._save_best, resumable)
        rng = np.random.default_rng(resumable.seed)
        fits, split = [], split_samples(samples.groups, train_size, rng)
        if not len(split[1]):
            apart = {k: v for k, v in trainer_kwargs.items() if k not in ("callbacks", "logger")}
            fits = cross_validate(self._empty_module, samples, options, resumable, **apart)
        last = fit(self, samples, split, options, resumable, on_best=on_best, **trainer_kwargs)
        found = summarise(fits or [last], method, samples.distances)
        if found.method == "linear":
            self.module.start(last.linear, last.unit, is_linear=True)
        self.is_trained_ = True
        keep(self, found, samples, split[0])
        self._save_best(resumable, self.history_)
        resumable.end()

    def _empty_module(self) -> DistanceModule:
        """Return a module like that of the model, with its tree, that was not trained."""
        module = self._make_module()
        state = {k: v for k, v in self.module.state_dict().items() if "embedder" not in k}
        module.load_state_dict(state)
        return module

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        fill_missing: bool = False,
        batch_size: int | None = None,
    ) -> NDArray:
        """Return positions of samples, the part of the distances that they share.

        Their Euclidean distances are shorter than those of the matrix by what is private to each
        sample: :meth:`get_distances` adds that.

        Parameters
        ----------
        adata
            Samples with the taxa of the model in any order, also new ones; `None` means those of
            the model. Shares are of the taxa that the model knows.
        indices
            Rows of `adata` in the order of the result, or a mask.
        fill_missing
            Take taxa that `adata` lacks as not counted, where they would be refused.
        batch_size
            Samples in a minibatch; the result does not depend on it.

        Returns
        -------
        Array of shape ``(n_samples, n_latent)``, float32, in the unit of the distances.
        """
        options = {"fill_missing": fill_missing, "batch_size": batch_size}
        return places_of(self, adata, indices, **options).z.astype(np.float32)

    def get_uniqueness(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        fill_missing: bool = False,
        batch_size: int | None = None,
    ) -> pd.Series:
        """Return what of the squared distances of each sample is private to it.

        Parameters
        ----------
        adata, indices, fill_missing, batch_size
            As in :meth:`get_latent_representation`.

        Returns
        -------
        Series, 0 or more, in the unit of squared distances. That of samples that the model was not
        fitted to holds the error of their positions, too.
        """
        options = {"fill_missing": fill_missing, "batch_size": batch_size}
        places = places_of(self, adata, indices, **options)
        return pd.Series(uniqueness_of(self, places), places.names, name="uniqueness")

    def get_distances(
        self,
        adata: AnnData | None = None,
        other: AnnData | None = None,
        *,
        interval: float | None = None,
        fill_missing: bool = False,
    ) -> pd.DataFrame:
        """Return predicted distances between samples.

        Parameters
        ----------
        adata
            Samples, as in :meth:`get_latent_representation`.
        other
            Samples to which distances are, such as ``model.adata``; `None` takes those of `adata`.
        interval
            Also return intervals that hold this share of the distances from new samples to
            training samples; in [0.5, 0.99].
        fill_missing
            As in :meth:`get_latent_representation`.

        Returns
        -------
        DataFrame of samples x samples, 0 between those that agree in name and counts. With
        `interval` its columns have two levels, ``"mean"``, ``"lower"`` and ``"upper"`` first:
        ``found["lower"]`` is a table like the others.

        Notes
        -----
        A copy of a sample under another name is another sample, at the distance of two draws from
        the same place. Samples are told by their counts from those that the model was fitted to.
        """
        if interval is not None:
            check_number("interval", interval, 0.5, 0.99)
        first = places_of(self, adata, fill_missing=fill_missing)
        is_square = other is None or other is adata or (adata is None and other is self.adata)
        second = first if is_square else places_of(self, other, fill_missing=fill_missing)
        if interval is None:
            return distances_between(self, first, second)
        return with_intervals(self, first, second, interval)

    def get_split(self) -> pd.Series:
        """Return which samples of the model's AnnData it was fitted to, by their counts.

        Returns
        -------
        Series with ``"train"`` or ``"new"``.
        """
        places = places_of(self)
        split = np.where(places.is_among(self.marks_), "train", "new")
        return pd.Series(split, places.names, name="split")

    def get_agreement(self) -> pd.DataFrame:
        """Return how far predicted distances agree with the matrix.

        Returns
        -------
        DataFrame with the rows ``"train"`` (between samples that were fitted), ``"new-train"``
        (from samples that were held out to these) and ``"new-new"`` (among the former), and the
        columns ``r`` (Pearson's correlation; of ``"train"`` it is that of a Mantel test), ``r2``
        (1 - SSE / SST of the distances as they are: 0 is their mean, below it is worse),
        ``stress`` and ``neighbor_overlap`` (share of the ten nearest that are so in both; NaN of
        fewer than eleven). Under 100 samples the held-out ones are those of a cross-validation;
        of more, they also decided when training stopped, so that numbers are a little too good.
        """
        check_trained(self)
        self._check_ended("get_agreement")
        return pd.DataFrame(self.agreement_).T

    def _check_ended(self, what: str) -> None:
        """Refuse what is measured when training ends."""
        if not self.agreement_:
            raise RuntimeError(
                f"`{what}` needs training that came to its end, and this model is the best state "
                "of one that was cut off. Repeat the call of `train` with its `checkpoint_dir`."
            )

    def annotate(
        self,
        adata: AnnData | None = None,
        *,
        key_added: str = "distance",
        write_distances: bool = False,
        overwrite: bool = False,
        fill_missing: bool = False,
    ) -> None:
        """Write the results into an AnnData, so that scanpy finds them.

        Writes ``obsm["X_distance"]`` (positions), ``obs["distance_uniqueness"]``, if asked
        ``obsp["distance"]`` (predicted distances), and ``uns["distance"]`` (parameters, versions,
        time).

        Parameters
        ----------
        adata
            Where to write; `None` means the AnnData of the model.
        key_added
            Replaces ``distance`` in the names.
        write_distances
            Write the distances between all samples, a dense matrix.
        overwrite
            Replace slots that something else wrote.
        fill_missing
            As in :meth:`get_latent_representation`.

        Raises
        ------
        ValueError
            If a slot is taken.

        Notes
        -----
        ``sc.pp.neighbors(adata, use_rep="X_distance")`` goes by the part of the distances that
        samples share.
        """
        target = adata if fill_missing and adata is not None else find_target(self, adata)
        slots = [("obsm", f"X_{key_added}"), ("obs", f"{key_added}_uniqueness")]
        slots += [("obsp", key_added)] if write_distances else []

        def compute() -> tuple[dict, dict]:
            asked = target if fill_missing else adata
            places = places_of(self, asked, fill_missing=fill_missing)
            values = [places.z.astype(np.float32), uniqueness_of(self, places)]
            if write_distances:
                values.append(distances_between(self, places, places).to_numpy())
            return dict(zip(slots, values, strict=True)), {"method": self.method_}

        options = {"write_distances": write_distances, "fill_missing": fill_missing}
        annotate(self, target, key_added, slots, compute, options=options, overwrite=overwrite)

    def check(self) -> pd.DataFrame:
        """Return a table of what of the fit deserves a second look.

        Returns
        -------
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``.
        """
        check_trained(self)
        self._check_ended("check")
        kinds = self.module.features.kinds
        rows = rows_of(self.facts_, self.agreement_["new-train"], kinds)
        return check_table([finite_row(self.history), *rows])

    def report(self, path: str | os.PathLike | None = None, *, overwrite: bool = False) -> Report:
        """Write a page that says what was done, whether to trust it, and what it rests on.

        Parameters
        ----------
        path
            The file, ending in ``.html``; `None` writes none. It holds its figures, needs no
            network, and runs no script.
        overwrite
            Replace a file that is there.

        Returns
        -------
        :class:`Report`, which prints as a summary of a few lines.

        Raises
        ------
        FileExistsError
            If there is a file and `overwrite` is not set.
        """
        return written(report_of(self), path, overwrite=overwrite)
