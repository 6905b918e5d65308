"""Positions of samples whose distances reproduce a matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import settings
from scvi.model.base import BaseModelClass

from scovert.core._annotating import annotate, find_target
from scovert.core._arguments import knows_its_arguments
from scovert.core._checks import (
    check_categorical,
    check_choice,
    check_distributed,
    check_genes,
    check_layer,
    check_number,
)
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._diagnostics import check_table, finite_row
from scovert.core._minibatch import check_trained, genes_of
from scovert.core._registering import check_set_up, check_unchanged, facts_of, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core._words import SAMPLES
from scovert.core.dataloaders._cells import Cells, CellTensors
from scovert.core.report import Report, written
from scovert.core.training._checkpoint import Resumable
from scovert.core.training._options import check_options
from scovert.core.trees import check_branches, read_branches
from scovert.model.distance._checks import (
    check_distances,
    check_taxa,
    distances_of,
    is_small,
    warn_about_depth,
    warn_about_distances,
    warn_about_empty,
    warn_about_samples,
)
from scovert.model.distance._data import split_samples
from scovert.model.distance._diagnostics import facts_of_fit, rows_of
from scovert.model.distance._features import KINDS, candidates
from scovert.model.distance._fields import DistancesField, check_distances_unchanged
from scovert.model.distance._fit import Options, Samples, cross_validate, fit
from scovert.model.distance._held_out import (
    Spread,
    agreement,
    squared_between,
)
from scovert.model.distance._module import DistanceModule
from scovert.model.distance._places import Places, fill_taxa, find_places, same_samples
from scovert.model.distance._report import report_of
from scovert.model.distance._summary import Summary, summarise

__all__ = ["DistanceEmbedding"]

TRAIN_OPTIONS = (
    "max_epochs",
    "method",
    "train_size",
    "split_key",
    "batch_size",
    "early_stopping",
    "checkpoint_dir",
    "plan_kwargs",
)
"""Arguments of `train` that are not the trainer's."""
N_LATENT, N_HIDDEN = 24, 256
"""More axes fit the training matrix better and lose distances between new samples."""
N_LATENT_SMALL, N_HIDDEN_SMALL, PER_AXIS = 10, 64, 4
"""Of cohorts under 100 samples; and samples per axis at least."""
TRAIN_SIZE = 0.9
"""Share of the samples that are trained on, of cohorts that are not small."""
N_COMPARED = 2000
"""Training samples whose distances are compared with the matrix, at most."""
READ_AT_ONCE = 256
"""Samples whose features are computed at once."""
MIN_GROUPS = 5
"""Subjects at least: as many as there are folds."""
METHODS = ("auto", "network", "linear")


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
        self._kinds = _check_features(features, tree_key is not None)
        is_little = is_small(adata.n_obs)
        if n_latent is None:
            fewer = max(1, min(N_LATENT_SMALL, adata.n_obs // PER_AXIS))
            n_latent_used = fewer if is_little else N_LATENT
        else:
            n_latent_used = n_latent
        n_hidden_used = (
            (N_HIDDEN_SMALL if is_little else N_HIDDEN) if n_hidden is None else n_hidden
        )
        sizes = {"n_latent": n_latent_used, "n_hidden": n_hidden_used, "n_layers": n_layers}
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
        self.fitted_: NDArray = np.zeros((0, n_latent_used + 1))
        self.marks_: NDArray = np.zeros((0, 2))
        self.spread_: NDArray | None = None
        self.error_quantiles_: NDArray | None = None
        self.agreement_: dict[str, dict[str, float]] = {}
        self.facts_: dict[str, float] = {}
        self.method_: str | None = None
        self._model_summary_string = (
            f"DistanceEmbedding of {adata.n_obs} samples, {adata.n_vars} taxa or genes: "
            f"n_latent={n_latent_used}, n_hidden={n_hidden_used}, n_layers={n_layers}, "
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
        check_choice("method", method, METHODS)
        if max_epochs is not None:
            check_number("max_epochs", max_epochs, 1, whole=True)
        if train_size is not None:
            check_number("train_size", train_size, 0.1, 0.95)
        check_number("batch_size", batch_size, 2, whole=True)
        check_options("DistanceEmbedding", TRAIN_OPTIONS, trainer_kwargs, plan_kwargs)
        check_unchanged(self, every_value=True)
        check_distances_unchanged(self.adata, self.registry, self._distances_key)
        check_distributed(trainer_kwargs, settings.seed, checkpoint_dir)
        asked = facts_of(self) | {
            "max_epochs": max_epochs,
            "split": (train_size, split_key, batch_size),
            "early_stopping": early_stopping,
            "method": method,
            "plan_kwargs": plan_kwargs,
        }
        resumable = Resumable.open(checkpoint_dir, settings.seed, asked, trainer_kwargs)
        samples = self._samples(split_key)
        options = Options(
            self._kinds, method, max_epochs, batch_size, early_stopping, dict(plan_kwargs or {})
        )
        on_best = partial(self._save_best, resumable)
        fits, split = [], _split(samples.groups, train_size, resumable.seed)
        if not len(split[1]):
            apart = {k: v for k, v in trainer_kwargs.items() if k not in ("callbacks", "logger")}
            fits = cross_validate(self._empty_module, samples, options, resumable, **apart)
        last = fit(self, samples, split, options, resumable, on_best=on_best, **trainer_kwargs)
        found = summarise(fits or [last], method, samples.distances)
        if found.method == "linear":
            self.module.start(last.linear, last.unit, is_linear=True)
        self.is_trained_ = True
        self._keep(found, samples, split[0])
        self._save_best(resumable, self.history_)
        resumable.end()

    def _empty_module(self) -> DistanceModule:
        """Return a module like that of the model, with its tree, that was not trained."""
        module = self._make_module()
        state = {k: v for k, v in self.module.state_dict().items() if "embedder" not in k}
        module.load_state_dict(state)
        return module

    @property
    def _distances_key(self) -> str:
        return self.registry["setup_args"]["distances_key"]

    def _samples(self, split_key: str | None) -> Samples:
        """Read what is trained on."""
        groups = np.arange(self.adata.n_obs)
        if split_key is not None:
            check_categorical(self.adata, split_key, "split_key", SAMPLES)
            groups = pd.factorize(self.adata.obs[split_key])[0]
            _check_groups(groups, split_key)
        cells = Cells.read(self.adata, self.registry, genes_of(self.registry))
        used = list(dict.fromkeys(kind for kinds in self._kinds for kind in kinds))
        parts: list[dict[str, NDArray]] = []
        totals = []
        read = self.module.features.cpu()
        for start in range(0, len(cells), READ_AT_ONCE):
            stop = min(start + READ_AT_ONCE, len(cells))
            counts = CellTensors(cells.block(start, stop))[np.arange(stop - start)]["X"]
            with torch.inference_mode():
                parts.append({kind: read.block(counts, kind).numpy() for kind in used})
            totals.append(counts.sum(1, dtype=torch.float64).numpy())
        self.module.to(self.module.unit.device)
        return Samples(
            {kind: np.concatenate([part[kind] for part in parts]) for kind in used},
            np.concatenate(totals),
            distances_of(self.adata, self._distances_key),
            groups,
            self.adata.obs_names,
        )

    def _keep(self, found: Summary, samples: Samples, rows: NDArray) -> None:
        """Keep what held-out samples tell, and where the training samples are."""
        own = samples.part(rows)
        empty = own.totals == 0
        self.module.eval()
        self.method_, self.excess_ = found.method, found.excess
        self.spread_, self.error_quantiles_ = found.spread
        places = find_places(self, indices=rows)
        largest = places.u[~empty].max()
        self.module.of_empty.fill_(float(largest) / float(self.module.unit) ** 2)
        places = places._replace(u=np.where(empty, largest, places.u))
        self.fitted_, self.marks_ = np.column_stack([places.z, places.u]), places.marks
        some = np.unique(np.linspace(0, len(rows) - 1, N_COMPARED).astype(int))
        placed = places.z[some], places.u[some]
        true = own.distances[np.ix_(some, some)]
        np.fill_diagonal(true, np.nan)
        of_train = agreement([true], [np.sqrt(squared_between(placed, placed))])
        self.agreement_ = {"train": of_train} | found.agreement
        self.facts_ = facts_of_fit(own.distances, places.z, places.u, own.totals)
        warn_about_depth(own.totals, self.module.features.kinds)

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
        return self._places(adata, indices, fill_missing, batch_size).z.astype(np.float32)

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
        places = self._places(adata, indices, fill_missing, batch_size)
        return pd.Series(places.u + self._added(places), places.names, name="uniqueness")

    def _places(
        self,
        adata: AnnData | None,
        indices: ArrayLike | None = None,
        fill_missing: bool = False,
        batch_size: int | None = None,
    ) -> Places:
        check_trained(self)
        if adata is not None:
            adata = fill_taxa(self, adata) if fill_missing else adata
            check_taxa(adata, genes_of(self.registry))
        places = find_places(self, adata, indices, batch_size)
        if adata is not None:
            warn_about_empty(places.totals)
        return places

    def _added(self, places: Places) -> NDArray:
        """Return what is added to the uniqueness of samples that were not fitted."""
        return np.where(places.is_among(self.marks_), 0.0, self.excess_)

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
        first = self._places(adata, fill_missing=fill_missing)
        is_square = other is None or other is adata or (adata is None and other is self.adata)
        second = first if is_square else self._places(other, fill_missing=fill_missing)
        squared = squared_between(
            (first.z, first.u + self._added(first)), (second.z, second.u + self._added(second))
        )
        is_same = same_samples(first, second)
        distance = pd.DataFrame(
            np.where(is_same, 0.0, np.sqrt(squared)), first.names, second.names
        )
        if interval is None:
            return distance
        wide = np.where(is_same, 0.0, self._half_width(first, second, interval))
        parts = {
            "mean": distance,
            "lower": (distance - wide).clip(lower=0),
            "upper": distance + wide,
        }
        return pd.concat(parts, axis=1)

    def _half_width(self, first: Places, second: Places, level: float) -> NDArray:
        """Return half of the intervals: errors of new samples add up as variances."""
        spread = Spread(self.spread_, self.error_quantiles_)
        sizes, is_new = [], []
        for places in (first, second):
            sizes.append(spread.expected(places.traits(self.fitted_)))
            is_new.append(~places.is_among(self.marks_))
        size = np.hypot((sizes[0] * is_new[0])[:, None], sizes[1] * is_new[1])
        of_fitted = np.maximum(sizes[0][:, None], sizes[1])
        return spread.factor(level) * np.where(size > 0, size, of_fitted)

    def get_split(self) -> pd.Series:
        """Return which samples of the model's AnnData it was fitted to, by their counts.

        Returns
        -------
        Series with ``"train"`` or ``"new"``.
        """
        places = self._places(None)
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
            places = self._places(asked, fill_missing=fill_missing)
            u = places.u + self._added(places)
            values = [places.z.astype(np.float32), u]
            if write_distances:
                matrix = np.sqrt(squared_between((places.z, u), (places.z, u)))
                values.append(np.where(same_samples(places, places), 0.0, matrix))
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


def _check_features(
    features: Literal["auto"] | Sequence[str], has_tree: bool
) -> list[tuple[str, ...]]:
    """Return the sets of features to choose from."""
    if features == "auto":
        return candidates(has_tree)
    known = KINDS if has_tree else KINDS[:2]
    if isinstance(features, str) or not features or set(features) - set(known):
        tree = "" if has_tree else " Those of branches need a tree: name it as `tree_key`."
        raise ValueError(
            f"`features={features!r}` is not known. Pass 'auto' or a list of {list(known)}.{tree}"
        )
    return [tuple(kind for kind in KINDS if kind in features)]


def _check_groups(groups: NDArray, split_key: str) -> None:
    n_groups = groups.max() + 1
    if n_groups < MIN_GROUPS:
        raise ValueError(
            f"`split_key={split_key!r}` tells {n_groups} subjects apart. At least {MIN_GROUPS} "
            "are needed to hold some of them out: leave it out, or name another column."
        )


def _split(groups: NDArray, train_size: float | None, seed: int) -> tuple[NDArray, NDArray]:
    """Return the rows to train on and those to validate on: none where a cohort is small."""
    if train_size is None and is_small(len(groups)):
        return np.arange(len(groups)), np.arange(0)
    return split_samples(groups, train_size or TRAIN_SIZE, np.random.default_rng(seed))
