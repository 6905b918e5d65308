"""What surrounds a cell."""

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
from scovert.core._checks import (
    check_categorical,
    check_choice,
    check_column,
    check_gene_list,
    check_layer,
    check_number,
)
from scovert.core._diagnostics import check_table
from scovert.core._minibatch import genes_of
from scovert.core._registering import check_set_up, check_unchanged, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core._unmeasured import (
    MeanSharesField,
    warn_about_padding,
    warn_about_unmeasured,
)
from scovert.core.report import Report, written
from scovert.core.training._options import length_of
from scovert.core.training._run import run
from scovert.model.niche._annotation import slots, values
from scovert.model.niche._batches import BatchNames, batch_names, check_batches
from scovert.model.niche._checks import (
    check_measured,
    check_positions,
    check_samples,
    check_states_fit,
    warn_about_positions,
    warn_about_samples,
)
from scovert.model.niche._clusters import annotated_options
from scovert.model.niche._composition import (
    composition_of,
    labels_column,
    labels_of_states,
    states_of_cells,
)
from scovert.model.niche._diagnostics import diagnose
from scovert.model.niche._expression import mean_expression, sample_cells
from scovert.model.niche._features import TRANSFORMS
from scovert.model.niche._module import NicheModule
from scovert.model.niche._neighborhood import (
    ask_about,
    check_states,
    labels_around,
    shares_of_states,
)
from scovert.model.niche._places import find_places, keep_details, niches_of
from scovert.model.niche._report import report_of
from scovert.model.niche._samples import (
    column_of_samples,
    compare_conditions,
    in_order,
    shares_by_group,
    warn_about_subjects,
)
from scovert.model.niche._training import (
    GRADIENT_NORM,
    default_epochs,
    held_out_gain,
    make_plan,
    read_data,
    start,
)

__all__ = ["NicheVAE"]


@knows_its_arguments()
class NicheVAE(SaveLoadMixin, BaseModelClass):
    """Describe what surrounds a cell: positions and counts or intensities in, niches out.

    A variational autoencoder of the set of a cell and its nearest neighbours. The decoder predicts
    the neighbours as a mixture of cell states that all niches share, so that their order means
    nothing. See :doc:`/models/niche` for the model, its assumptions and when not to use it. The
    module ``nicheVAE`` of scVIVA in scvi-tools is another model: it embeds the cell itself and
    needs cell types.

    Parameters
    ----------
    adata
        Cells of one or more slides, prepared with :meth:`setup_anndata`.
    n_neighbors
        Neighbours of a cell, those nearest in its sample.
    n_states
        Cell states that niches are mixtures of, at most a tenth of the cells.
    n_latent
        Number of latent dimensions.
    n_hidden
        Nodes in a hidden layer.
    transform
        How values become the features that are encoded: ``"log1p"`` of counts per median total,
        ``"arcsinh"`` of intensities by `cofactor`, ``"none"``; ``"auto"`` takes the first for
        whole numbers, the last for values in [0, 1], and the second for others. Then every gene or
        channel is brought to mean 0 and standard deviation 1 within its batch.
    cofactor
        Intensity up to which arcsinh is linear: 1, or 5 where the background is high.
    decoder
        ``"mixture"``; or ``"matching"``, the original design, for comparison: it predicts one
        neighbour after the other, which are averages, and has no states.

    Notes
    -----
    Neighbours are found anew by every call and never stored, so that rows may be reordered or left
    out. What a call is given must be whole samples: cells that were cut out have other neighbours.

    Examples
    --------
    >>> import scovert
    >>> from scovert.model import NicheVAE
    >>> adata = scovert.simulate.niche(300, 2)
    >>> NicheVAE.setup_anndata(adata, sample_key="sample", likelihood="nb")
    >>> model = NicheVAE(adata, n_states=8)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_neighborhood_composition().shape
    (600, 8)
    """

    _n_to_stand_in = staticmethod(lambda init: 3)

    def __init__(
        self,
        adata: AnnData,
        *,
        n_neighbors: int = 20,
        n_states: int = 32,
        n_latent: int = 10,
        n_hidden: int = 128,
        transform: Literal["auto", "log1p", "arcsinh", "none"] = "auto",
        cofactor: float = 1.0,
        decoder: Literal["mixture", "matching"] = "mixture",
    ) -> None:
        check_set_up(type(self), adata)
        super().__init__(adata)
        check_unchanged(self)
        sizes = {"n_neighbors": n_neighbors, "n_latent": n_latent, "n_hidden": n_hidden}
        for name, size in sizes.items():
            check_number(name, size, 1, whole=True)
        check_number("n_states", n_states, 2, whole=True)
        check_number("cofactor", cofactor, np.finfo(np.float32).eps)
        check_choice("transform", transform, ("auto", *TRANSFORMS))
        check_choice("decoder", decoder, ("mixture", "matching"))
        self.likelihood: str = self.registry["setup_args"]["likelihood"]
        warn_about_samples(adata, self.registry["setup_args"]["sample_key"], n_neighbors)
        self.n_neighbors = n_neighbors
        self._features = {"transform": transform, "cofactor": cofactor}
        self.module = NicheModule(
            self.summary_stats.n_vars,
            len(batch_names(self.registry)),
            likelihood=self.likelihood,
            decoder=decoder,
            n_states=n_states,
            **sizes,
        )
        self.held_out_gain_: float | None = None
        self._model_summary_string = (
            f"NicheVAE of {self.summary_stats.n_cells} cells, {self.summary_stats.n_vars} genes "
            f"or channels: likelihood={self.likelihood!r}, n_neighbors={n_neighbors}, "
            f"n_states={n_states}, n_latent={n_latent}, transform={transform!r}, "
            f"cofactor={cofactor}, decoder={decoder!r}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        *,
        likelihood: Literal["nb", "gaussian"],
        sample_key: str | None = None,
        spatial_key: str = "spatial",
        layer: str | None = None,
        labels_key: str | None = None,
        batch_key: str | None = None,
        _registry: dict | None = None,  # of a saved model
    ) -> None:
        """Say where in `adata` the values, the positions and the samples are.

        Writes only what scvi-tools keeps under names that begin with ``_scvi_``.

        Parameters
        ----------
        adata
            Cells of one or more slides.
        likelihood
            ``"nb"`` for raw counts; ``"gaussian"`` for intensities, and for counts of which log1p
            is modelled, which is faster.
        sample_key
            Column of ``adata.obs`` with the slide, section or image: what has coordinates of its
            own. `None` takes all cells as one.
        spatial_key
            Slot of ``adata.obsm`` with two or three coordinates, in any unit.
        layer
            Layer with the values; `None` means ``adata.X``, ``"raw"`` (unless a layer is called
            so) the genes of `adata` in ``adata.raw``.
        labels_key
            Column of ``adata.obs`` with cell types, to describe niches by. The fit does not see
            them.
        batch_key
            Column of ``adata.obs`` with what was measured alike: scales of the genes and means of
            the states differ between batches. It removes what is different between them, so leave
            it out where they hold different tissue.

        Raises
        ------
        KeyError
            If a key, a slot or the layer does not exist.
        ValueError
            If the values are no counts (``"nb"``), not finite, or labels; positions are not finite
            or not of two or three dimensions; a category is missing; no sample has two cells; or
            gene names are duplicated.
        """
        check_choice("likelihood", likelihood, ("nb", "gaussian"))
        check_layer(adata, layer)
        check_positions(adata, spatial_key)
        check_samples(adata, sample_key)
        if labels_key is not None:
            check_categorical(adata, labels_key, "labels_key")
        check_measured(adata, layer, likelihood, is_new=_registry is None)
        if _registry is None:
            warn_about_positions(adata, spatial_key, sample_key)
            check_batches(adata, batch_key)
        shares = MeanSharesField.of(layer, _registry) if likelihood == "nb" else []
        if shares and _registry is not None:
            warn_about_padding(adata, _registry)
        elif shares and (key := batch_key or sample_key) is not None:
            warn_about_unmeasured(adata, layer, key)
        register(
            cls,
            adata,
            {},
            _registry,
            layer=layer,
            more_fields=[BatchNames(batch_key), *shares],
            likelihood=likelihood,
            sample_key=sample_key,
            spatial_key=spatial_key,
            labels_key=labels_key,
            batch_key=batch_key,
        )

    def train(
        self,
        max_epochs: int | None = None,
        *,
        train_size: float = 0.95,
        batch_size: int = 256,
        early_stopping: bool = True,
        checkpoint_dir: str | os.PathLike | None = None,
        plan_kwargs: dict | None = None,
        **trainer_kwargs: object,
    ) -> None:
        """Train the networks and the shared states.

        The states start at clusters of cells. The KL divergence gains weight over the first
        quarter of training, and the learning rate falls over the last 30 %. Early stopping and the
        best state count in the last 10 %. Cells to validate on are patches of tissue, whose
        neighbours may have been trained on: the validation loss serves to stop, and for a fair
        number hold out a sample.

        Parameters
        ----------
        max_epochs
            Longest training; an epoch has 25 steps at most. `None` takes as many as make one pass
            over the cells, but 500 to 800 steps.
        train_size
            Share of the cells that are trained on, as centres of a niche; at most 2,000 others are
            validated on.
        batch_size
            Niches in a minibatch, about: they are patches of 16 cells.
        early_stopping
            Stop when the validation loss has not improved for 10 epochs. Off without validation
            cells.
        checkpoint_dir
            Folder for the state of training, written at the beginning of every epoch, and for the
            best model so far (:meth:`load` reads it). Training that was cut off goes on from there
            when the same call is made again, to the same result.
        plan_kwargs
            For the training plan: ``neighbor_weight`` (10, the number of independent neighbours
            that a niche is worth: more makes niches sharper and less alike between samples),
            ``free_bits`` (0, divergence in nats that a latent dimension has for free), ``lr``,
            ``kl_ramp``, ``max_kl_weight`` and others of :class:`~scvi.train.TrainingPlan`.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, such as ``accelerator``, ``devices``,
            ``early_stopping_patience``, ``logger`` or ``enable_progress_bar``.

        Raises
        ------
        FloatingPointError
            If a term of the loss or the gradient became NaN or infinite. It names the term, the
            step and the cells; the model has its best state, or that of the beginning of the
            epoch.
        """
        check_number("train_size", train_size, 0.01, 1.0)
        check_number("batch_size", batch_size, 1, whole=True)
        resumable = begin_training(
            self,
            checkpoint_dir,
            trainer_kwargs,
            plan_kwargs,
            max_epochs=max_epochs,
            split=(train_size, batch_size),
            early_stopping=early_stopping,
        )
        if not self.is_trained_:
            check_states_fit(self.init_params_["non_kwargs"]["n_states"], self.adata.n_obs)
        data = read_data(self, train_size, batch_size, resumable.seed)
        if not self.is_trained_:
            start(self.module, data.cells, data.batch.numpy(), resumable.seed, **self._features)
        run(
            self,
            make_plan(self.module, dict(plan_kwargs or {})),
            data,
            length_of(max_epochs, default_epochs(data)),
            early_stopping=early_stopping,
            resumable=resumable,
            on_best=partial(self._save_best, resumable),
            **{"gradient_clip_val": GRADIENT_NORM} | trainer_kwargs,
        )
        self.held_out_gain_ = held_out_gain(self.module, data)
        if self.module.matching is None:
            keep_details(self, resumable.seed)
        self._save_best(resumable, self.history_)
        resumable.end()

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        representation: Literal["energy", "detailed", "latent"] | None = None,
        batch_size: int | None = None,
    ) -> NDArray:
        """Return places of cells by what is around them.

        Parameters
        ----------
        adata
            Whole samples with the genes of the model in any order, also new ones; `None` means
            those of the model.
        indices
            Rows of `adata` in the order of the result, or a mask. Neighbours are found among all.
        representation
            ``"energy"``: places whose Euclidean distance is the energy distance of the predicted
            neighbours, for clusters and maps. ``"detailed"``: these, and 20 axes with the mean of
            the features around the cell, for fine classification; samples mix less.
            ``"latent"``: posterior means, whose axes have no common scale. `None` takes the first
            where the decoder has states.
        batch_size
            Cells in a minibatch; the result does not depend on it.

        Returns
        -------
        Array of shape ``(n_cells, n_axes)`` or ``(n_cells, n_latent)``, float32.
        """
        check_choice("representation", representation, (None, "energy", "detailed", "latent"))
        asked = ask_about(self, adata, indices, batch_size)
        return find_places(self, asked, representation)

    def get_neighborhood_composition(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        labels_key: str | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return what the neighbours of cells are, in states or in labels.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_latent_representation`.
        labels_key
            Column of ``obs`` with the labels of the cells of the model, to describe the states by;
            `adata` needs no labels. `None` returns states.

        Returns
        -------
        DataFrame of cells x states (or labels), rows sum to one, float32.
        """
        check_states(self, "get_neighborhood_composition")
        asked = ask_about(self, adata, indices, batch_size)
        return composition_of(self, asked, shares_of_states(self, asked), labels_key)

    def get_observed_composition(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        labels_key: str | None = None,
    ) -> pd.DataFrame:
        """Return the labels of the true neighbours of cells, to compare with.

        Parameters
        ----------
        adata, indices
            As in :meth:`get_latent_representation`.
        labels_key
            Column of ``adata.obs``; `None` takes that of the set-up.

        Returns
        -------
        DataFrame of cells x labels, rows sum to one (to zero for cells without neighbours).
        """
        asked = ask_about(self, adata, indices)
        key = labels_column(self, labels_key)
        check_categorical(asked.adata, key, "labels_key")
        return labels_around(asked, asked.adata.obs[key])

    def get_state_labels(self, labels_key: str | None = None) -> pd.DataFrame:
        """Return which labels the cells of each state have, of the cells of the model.

        Parameters
        ----------
        labels_key
            Column of ``obs`` of the cells of the model; `None` takes that of the set-up.

        Returns
        -------
        DataFrame of states x labels, rows sum to one.
        """
        check_states(self, "get_state_labels")
        return labels_of_states(self, labels_key)

    def get_neighborhood_expression(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        transform_batch: str | None = None,
        gene_list: Sequence[str] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return the mean expression around cells.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_latent_representation`.
        transform_batch
            Batch to decode as; `None` averages over the batches of the model.
        gene_list
            Genes or channels to return; `None` means all.

        Returns
        -------
        DataFrame of cells x genes, float32: with ``"nb"`` counts per median total; with
        ``"gaussian"`` on the scale of the features' transformation (log1p or arcsinh), not yet
        standardised.
        """
        check_states(self, "get_neighborhood_expression")
        chosen = check_gene_list(gene_list, genes_of(self.registry))
        if transform_batch is not None:
            check_choice("transform_batch", str(transform_batch), batch_names(self.registry))
        asked = ask_about(self, adata, indices, batch_size)
        found = mean_expression(self, shares_of_states(self, asked), chosen, transform_batch)
        return pd.DataFrame(found, asked.adata.obs_names[asked.rows], chosen)

    def sample_neighborhood(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        n_samples: int = 50,
        seed: int = 0,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Draw cells of the model as neighbours of cells: real ones, with all that is known.

        A state is drawn from the composition around the cell, and a cell whose likeliest state it
        is, of the same batch if there is one.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_latent_representation`.
        n_samples
            Neighbours of each cell.
        seed
            Seed of the draws.

        Returns
        -------
        DataFrame of cells x draws with names of cells of the model (``obs_names``).
        """
        check_states(self, "sample_neighborhood")
        check_number("n_samples", n_samples, 1, whole=True)
        asked = ask_about(self, adata, indices, batch_size)
        return sample_cells(self, asked, n_samples, np.random.default_rng(seed))

    def get_cell_states(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return the state that each cell itself is likeliest in, given what is around it.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_latent_representation`.

        Returns
        -------
        DataFrame with ``state`` (categorical) and its ``probability``.
        """
        check_states(self, "get_cell_states")
        asked = ask_about(self, adata, indices, batch_size)
        return states_of_cells(self, asked, shares_of_states(self, asked))

    def get_niches(
        self,
        adata: AnnData | None = None,
        n_niches: int | None = 10,
        *,
        resolution: float = 0.1,
        seed: int = 0,
    ) -> pd.Series:
        """Cluster cells by what is around them.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`. Cells of new slides are given to the niches of
            the cells of the model, so that niche ``"3"`` is the same everywhere.
        n_niches
            Number of niches, by k-means; `None` takes Leiden :cite:p:`Traag19`.
        resolution
            Of Leiden, the larger the more niches.
        seed
            Seed of the clusters.

        Returns
        -------
        Categorical Series ``"0"``, ``"1"``, ..., the niche with most cells of the model first.

        Notes
        -----
        A model that was loaded without its cells has no niches: those of `adata` are found among
        its own cells, with a warning.
        """
        if n_niches is not None:
            check_number("n_niches", n_niches, 2, whole=True)
        check_number("resolution", resolution, 0)
        places = self.get_latent_representation(adata)
        names = (self.adata if adata is None else adata).obs_names
        options = {"n_niches": n_niches, "resolution": resolution, "seed": seed}
        return pd.Series(niches_of(self, adata, places, **options), names)

    def get_sample_composition(
        self,
        adata: AnnData | None = None,
        groupby: str | None = None,
        *,
        labels_key: str | None = None,
        niche_key: str | None = None,
    ) -> pd.DataFrame:
        """Return what is around the cells of each sample, the mean over its cells.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`.
        groupby
            Column of ``adata.obs``; `None` takes the samples.
        labels_key
            Describe by labels, as in :meth:`get_neighborhood_composition`.
        niche_key
            Column of ``adata.obs`` with niches, such as those of :meth:`get_niches`: return their
            shares of the cells.

        Returns
        -------
        DataFrame of samples x states, labels or niches; rows sum to one.
        """
        adata = self.adata if adata is None else adata
        groups = column_of_samples(self, adata, groupby, "groupby")
        return shares_by_group(self._shares(adata, labels_key, niche_key), groups)

    def get_composition_differences(
        self,
        condition_key: str,
        adata: AnnData | None = None,
        *,
        reference: str,
        subject_key: str | None = None,
        labels_key: str | None = None,
        niche_key: str | None = None,
    ) -> pd.DataFrame:
        """Compare what is around cells between conditions, over subjects and never over cells.

        Shares are averaged over the cells of a subject, and their logits compared by Welch's
        t-test :cite:p:`Welch47`.

        Parameters
        ----------
        condition_key
            Column of ``adata.obs`` with the condition.
        adata
            As in :meth:`get_latent_representation`.
        reference
            Condition that the others are compared with.
        subject_key
            Column of ``adata.obs`` with the donor or animal; `None` takes the samples. Images of
            one donor are no replicates.
        labels_key, niche_key
            What shares are of, as in :meth:`get_sample_composition`.

        Returns
        -------
        DataFrame indexed by condition and niche: ``share``, ``share_reference``,
        ``log_odds_ratio``, ``se``, ``df``, ``p_value`` and ``q_value``.
        """
        adata = self.adata if adata is None else adata
        subject = column_of_samples(self, adata, subject_key, "subject_key")
        check_categorical(adata, condition_key, "condition_key")
        if subject_key is None:
            warn_about_subjects(adata.obs, subject.name, condition_key)
        composition = self._shares(adata, labels_key, niche_key)
        return compare_conditions(composition, adata.obs[condition_key], subject, reference)

    def _shares(
        self, adata: AnnData, labels_key: str | None, niche_key: str | None
    ) -> pd.DataFrame:
        if niche_key is None:
            return self.get_neighborhood_composition(adata, labels_key=labels_key)
        check_column(adata, niche_key, "niche_key")
        check_categorical(adata, niche_key, "niche_key")
        shares = pd.get_dummies(in_order(adata.obs[niche_key]), dtype=float)
        return shares.set_axis(adata.obs_names).set_axis(shares.columns.astype(str), axis=1)

    def annotate(
        self,
        adata: AnnData | None = None,
        *,
        key_added: str = "niche",
        write_layer: bool = True,
        overwrite: bool = False,
        n_niches: int | None = 10,
        resolution: float = 0.1,
    ) -> None:
        """Write the results into an AnnData, so that scanpy and squidpy find them.

        Writes ``obsm["X_niche"]`` (places by what is around cells), ``obs["niche"]`` (clusters of
        them), ``obsm["niche_composition"]`` (states around cells; in labels if the set-up names
        them), ``obs["niche_state"]`` (state of the cell itself), ``layers["niche"]`` (mean
        expression around cells), and ``uns["niche"]`` (parameters, versions, time).

        Parameters
        ----------
        adata
            Where to write, whole samples; `None` means the AnnData of the model.
        key_added
            Replaces ``niche`` in the names.
        write_layer
            Write the layer, a dense matrix of cells x genes.
        overwrite
            Replace slots that something else wrote.
        n_niches, resolution
            As in :meth:`get_niches`.

        Raises
        ------
        ValueError
            If a slot is taken, or a layer is asked for and `adata` has genes unknown to the model.
        MemoryError
            If the layer does not fit.
        """
        has_states = self.module.matching is None
        target = find_target(self, adata, key_added if write_layer and has_states else None)
        places = slots(key_added, has_states=has_states, write_layer=write_layer)
        options = {"n_niches": n_niches, "resolution": resolution}
        compute = partial(values, self, target, places, options)
        annotate(self, target, key_added, places, compute, options=options, overwrite=overwrite)

    def check(self) -> pd.DataFrame:
        """Return a table of what of the fit deserves a second look.

        Returns
        -------
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``.
        """
        return check_table(diagnose(self))

    def report(
        self,
        path: str | os.PathLike | None = None,
        *,
        n_niches: int | Literal["annotated"] | None = "annotated",
        resolution: float = 0.1,
        overwrite: bool = False,
    ) -> Report:
        """Write a page that says what was done, whether to trust it, and what it rests on.

        Parameters
        ----------
        path
            The file, ending in ``.html``; `None` writes none. It holds its figures, needs no
            network, and runs no script.
        n_niches, resolution
            As in :meth:`get_niches`; ``"annotated"`` takes the niches that `annotate` wrote, or
            10 if it wrote none.
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
        options = {"n_niches": n_niches, "resolution": resolution}
        if n_niches == "annotated":
            options = annotated_options(self.adata)
        niches = self.get_niches(**options)
        labels_key, composition = self.registry["setup_args"]["labels_key"], None
        if self.module.matching is None:
            composition = self.get_neighborhood_composition(labels_key=labels_key)
        report = report_of(self, niches, composition)
        return written(report, path, overwrite=overwrite)
