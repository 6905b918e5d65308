"""Integration of two or more datasets in one latent space."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass

from scovert.anchors import Anchors, find_anchors
from scovert.anchors._find import N_COMPONENTS
from scovert.core._annotating import Slot, annotate, find_target
from scovert.core._arguments import knows_its_arguments
from scovert.core._beginning import begin_training
from scovert.core._checks import (
    check_batches,
    check_categorical,
    check_choice,
    check_covariates,
    check_gene_list,
    check_genes,
    check_layer,
    check_number,
    warn_about_cells,
    warn_about_file,
)
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._designs import check_independent
from scovert.core._diagnostics import (
    check_table,
    dispersion_row,
    finite_row,
    gradient_row,
    latent_row,
    loss_row,
)
from scovert.core._minibatch import cells_of, check_trained, genes_of, over_minibatches
from scovert.core._registering import (
    check_set_up,
    check_unchanged,
    fingerprint,
    is_own,
    register,
)
from scovert.core._save_load import SaveLoadMixin
from scovert.core._unmeasured import (
    MeanSharesField,
    warn_about_padding,
    warn_about_unmeasured,
)
from scovert.core.dataloaders._cells import Cells
from scovert.core.dataloaders._shuffled import split_cells
from scovert.core.report import Report, written
from scovert.core.training._options import (
    check_data_options,
    check_sizes,
    check_split,
)
from scovert.core.training._run import run
from scovert.model.paired._alignment import AlignedPlan
from scovert.model.paired._checks import check_choices, from_earlier
from scovert.model.paired._columns import with_counterparts, with_positions
from scovert.model.paired._data import PairedData
from scovert.model.paired._diagnostics import (
    anchor_row,
    deviance_row,
    share_row,
    warn_about_anchors,
)
from scovert.model.paired._module import PairedModule
from scovert.model.paired._plan import make_plan
from scovert.model.paired._query import (
    UNREAD_BY_DECODER,
    UNREAD_BY_ENCODER,
    Frozen,
    freeze_all_but_new,
    new_support,
    with_new_datasets,
)
from scovert.model.paired._report import report_of

__all__ = ["PairedVAE"]

logger = logging.getLogger(__name__)

N_STEPS, MIN_EPOCHS, MAX_EPOCHS = 3000, 10, 400
"""Length of training. More steps loosen the clusters, fewer do not reach the best likelihood."""

NOT_CONSISTENT = (
    "Aligned components do not count: most anchors join cells of classes that only one of their "
    "datasets has."
)

N_HELD_OUT = 2000
"""Validation cells that `check` is about, at most."""

GUARDED_SHARE = 0.1
"""Share of the anchors' weights that is left when the anchors make no sense."""


@knows_its_arguments()
class PairedVAE(SaveLoadMixin, BaseModelClass):
    """Integrate two or more datasets: counts in, one latent space and corrected counts out.

    A variational autoencoder with a negative binomial likelihood :cite:p:`Lopez18` whose decoder
    sees the dataset of a cell and whose encoder does not. Cells of different datasets that are
    mutual nearest neighbours are found once, before training, and pulled together in the latent
    space. See :doc:`/models/paired` for the model, its assumptions and when not to use it.

    Parameters
    ----------
    adata
        Cells of all datasets, prepared with :meth:`setup_anndata`.
    n_latent
        Number of latent dimensions.
    n_hidden
        Nodes in a hidden layer of encoder and decoder.
    n_layers
        Hidden layers of encoder and decoder.
    encoder
        ``"shared"``: one encoder for all datasets. ``"per_dataset"``: an encoder and a decoder for
        each; without anchors nothing in it says which cell type of one dataset belongs to which of
        another.
    alignment
        ``"anchors"``: pull anchored cells together. ``"adversarial"``: a discriminator guesses the
        dataset from the posterior means, and the encoder learns, in turn with it, to leave it no
        better than chance. ``"grl"``: the same in one backward pass, by gradient reversal
        :cite:p:`Ganin16`. ``"none"``: only the decoder knows about datasets.
    anchor_weight
        Weight of the pull, relative to a negative log-likelihood summed over genes. A tenth of it
        is used, with a warning, when the cells do not fall into classes.
    component_weight
        Weight of a linear prediction, from the latent position, of components that are aligned
        by classes and anchors. It makes types clearer, those without anchors included. 0 predicts
        none; none count where anchors and classes disagree.
    cross_weight
        Weight of the cross-reconstruction (``"per_dataset"`` with anchors): a cell's counts must
        be decodable from the latent position of the cell it is anchored to.
    support_weighted
        With a discriminator: cells without counterparts in another dataset have no part in it, and
        a class weighs the same in every dataset that has it. `False` takes all cells alike, which
        suits datasets that share all their cell types in the same proportions.
    dispersion
        One inverse dispersion for each ``"gene"``, or for each ``"gene-batch"``.
    dropout_rate
        Dropout in the encoder, in [0, 1).
    n_query_datasets
        Set by :meth:`load_query_data`: how many datasets were added to a trained model.

    Notes
    -----
    Time and memory grow with the number of genes. A few thousand that vary within the datasets are
    enough: ``sc.pp.highly_variable_genes(adata, n_top_genes=2000, batch_key="batch")`` on
    log-normalised values, then the raw counts of these genes.

    Examples
    --------
    >>> import scovert
    >>> from scovert.model import PairedVAE
    >>> adata = scovert.data.two_batches(scovert.data.pbmc68k())
    >>> PairedVAE.setup_anndata(adata, batch_key="batch")
    >>> model = PairedVAE(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_latent_representation().shape == (adata.n_obs, 10)
    True
    """

    _n_to_stand_in = staticmethod(lambda init: 3)  # the fewest of a dataset
    _from_earlier = staticmethod(from_earlier)

    def __init__(  # noqa: PLR0913
        self,
        adata: AnnData,
        *,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        encoder: Literal["shared", "per_dataset"] = "shared",
        alignment: Literal["anchors", "adversarial", "grl", "none"] = "anchors",
        anchor_weight: float = 10.0,
        component_weight: float = 0.3,
        cross_weight: float = 0.5,
        support_weighted: bool = True,
        dispersion: Literal["gene", "gene-batch"] = "gene",
        dropout_rate: float = 0.1,
        n_query_datasets: int = 0,
    ) -> None:
        check_set_up(type(self), adata)
        super().__init__(adata)
        check_unchanged(self)
        check_choices(encoder, alignment, dispersion)
        check_sizes(adata.n_vars, n_latent=n_latent, n_hidden=n_hidden, n_layers=n_layers)
        check_number("anchor_weight", anchor_weight, 0)
        check_number("component_weight", component_weight, 0)
        check_number("cross_weight", cross_weight, 0)
        check_number("dropout_rate", dropout_rate, 0, 0.99)
        n_added_at_most = self.summary_stats.n_batch - 1 if encoder == "shared" else 0
        check_number("n_query_datasets", n_query_datasets, 0, n_added_at_most, whole=True)
        self._log_mean_shares = cells_of(self).log_mean_shares(self.summary_stats.n_batch)
        covariates = self.summary_stats.get("n_extra_categorical_covs", 0)
        state = self.adata_manager.get_state_registry(REGISTRY_KEYS.CAT_COVS_KEY)
        self.module = PairedModule(
            torch.from_numpy(self._log_mean_shares),
            n_cats_per_cov=[int(n) for n in state.n_cats_per_key] if covariates else [],
            n_continuous_cov=self.summary_stats.get("n_extra_continuous_covs", 0),
            n_latent=n_latent,
            n_hidden=n_hidden,
            n_layers=n_layers,
            encoder=encoder,
            alignment=alignment,
            dispersion=dispersion,
            dropout_rate=dropout_rate,
            n_components=N_COMPONENTS if alignment == "anchors" and component_weight else 0,
            n_query=n_query_datasets,
        )
        self.anchor_weights = {"alignment_weight": anchor_weight}
        if self.module.component_decoder is not None:
            self.anchor_weights["component_weight"] = component_weight
        if encoder == "per_dataset":
            self.anchor_weights["cross_weight"] = cross_weight
        self.support_weighted = bool(support_weighted)
        self.support_: NDArray | None = None
        self.anchor_clarity_: float | None = None
        self.deviance_explained_: float | None = None
        self.largest_share_: float | None = None
        self.cells_digest_ = self._digest(adata)
        self._model_summary_string = (
            f"PairedVAE of {self.summary_stats.n_cells} cells in {self.module.n_batch} datasets, "
            f"{self.summary_stats.n_vars} genes: n_latent={n_latent}, encoder={encoder!r}, "
            f"alignment={alignment!r}, dispersion={dispersion!r}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str,
        layer: str | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        _registry: dict | None = None,  # of a saved model
    ) -> None:
        """Say where in `adata` the counts, the datasets and the covariates are.

        Writes only what scvi-tools keeps under names that begin with ``_scvi_``.

        Parameters
        ----------
        adata
            Cells of two or more datasets with raw counts.
        batch_key
            Column of ``adata.obs`` with the dataset of each cell.
        layer
            Layer with the raw counts; `None` means ``adata.X``, ``"raw"`` (unless a layer is
            called so) the genes of `adata` in ``adata.raw``.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of ``adata.obs`` that the decoder sees too, such as the donor or the cycle
            score.

        Raises
        ------
        KeyError
            If a key or the layer does not exist.
        ValueError
            If the counts are not counts, a category is missing, a dataset has fewer than 3 cells,
            there is only one, a covariate is collinear with the dataset (such as donors nested in
            it), or gene names are duplicated.
        """
        where = check_layer(adata, layer)
        check_genes(adata)
        categorical, continuous = check_covariates(
            adata, categorical_covariate_keys, continuous_covariate_keys
        )
        if _registry is None:
            check_batches(adata, batch_key)
            check_independent(adata, batch_key, categorical, continuous)
        counts = get_counts(adata, layer)
        totals = check_counts(counts, where, adata)
        warn_about_cells(adata, totals)
        warn_about_file(adata, layer)
        if _registry is None:
            warn_about_unmeasured(adata, layer, batch_key)
        else:
            warn_about_padding(adata, _registry)
        register(
            cls,
            adata,
            {REGISTRY_KEYS.BATCH_KEY: batch_key},
            _registry,
            more_fields=MeanSharesField.of(layer, _registry),
            batch_key=batch_key,
            layer=layer,
            categorical_covariate_keys=categorical,
            continuous_covariate_keys=continuous,
        )

    def train(
        self,
        max_epochs: int | None = None,
        *,
        train_size: float = 0.9,
        validation_size: float | None = None,
        batch_size: int = 128,
        early_stopping: bool = True,
        checkpoint_dir: str | os.PathLike | None = None,
        datasplitter_kwargs: dict | None = None,
        plan_kwargs: dict | None = None,
        **trainer_kwargs: object,
    ) -> None:
        """Find the anchors (if the model uses them) and train the networks.

        The KL divergence and the alignment gain weight over shares of `max_epochs`. Early stopping
        and the best state, which is restored at the end, count only from the epoch in which they
        have their full weight; both watch the negative ELBO of the validation cells, without the
        alignment.

        Parameters
        ----------
        max_epochs
            Longest training; `None` makes about 3,000 steps, but 10 to 400 epochs.
        train_size, validation_size
            Shares of each dataset's cells to train on and to validate on; `None` validates on all
            others.
        batch_size
            Cells in a minibatch, partners of anchored cells not counted.
        early_stopping
            Stop when the validation loss has not improved for 10 epochs. Off without validation
            cells.
        checkpoint_dir
            Folder for the state of training, written at the beginning of every epoch, and for the
            best model so far (:meth:`load` reads it). Training that was cut off goes on from there
            when the same call is made again, to the same result.
        datasplitter_kwargs
            ``resident``: keep the counts on the GPU; by default where they take less than half of
            its free memory.
        plan_kwargs
            For the training plan: ``lr``, ``kl_ramp`` (share of training over which the KL
            weight rises, 0.25), ``max_kl_weight`` and others of
            :class:`~scvi.train.TrainingPlan`; with a discriminator also ``adversarial_weight``
            (30), ``adversarial_start`` and ``adversarial_ramp`` (shares of training, 0.3 each);
            with ``"adversarial"`` also ``d_steps`` (1), steps of the discriminator before each
            step of the encoder.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, such as ``accelerator`` and ``devices`` (where to
            train; a GPU if there is one), ``strategy``, ``early_stopping_patience``, ``logger``,
            ``enable_progress_bar``, ``precision`` or ``gradient_clip_val``.

        Raises
        ------
        FloatingPointError
            If a term of the loss or the gradient became NaN or infinite. It names the term, the
            step and the cells; the model has its best state, or that of the beginning of the
            epoch.
        """
        check_split(train_size, validation_size, batch_size)
        check_data_options(datasplitter_kwargs)
        resumable = begin_training(
            self,
            checkpoint_dir,
            trainer_kwargs,
            plan_kwargs,
            max_epochs=max_epochs,
            split=(train_size, validation_size, batch_size),
            early_stopping=early_stopping,
        )
        cells = cells_of(self)
        train, validation = split_cells(cells.batch, train_size, validation_size, resumable.seed)
        anchors = self._find_anchors(cells, train, resumable.seed)
        is_pulled = self.module.alignment == "anchors"
        if anchors is not None and not is_pulled:
            cells = with_counterparts(cells, anchors)
        if self.module.component_decoder is not None:
            cells = with_positions(cells, anchors)
        data = PairedData(
            cells,
            train,
            validation,
            batch_size=batch_size,
            equal_draws=self.module.alignment in ("adversarial", "grl"),
            partners=anchors.partners if is_pulled else None,
            **(datasplitter_kwargs or {}),
        )
        run(
            self,
            self._make_plan(anchors, dict(plan_kwargs or {}), trainer_kwargs),
            data,
            _n_epochs(max_epochs, data.n_steps),
            early_stopping=early_stopping,
            resumable=resumable,
            on_best=partial(self._save_best, resumable),
            **trainer_kwargs,
        )
        self._look_at_heldout(validation)
        self._save_best(resumable, self.history_)
        resumable.end()

    def _make_plan(
        self, anchors: Anchors | None, plan_kwargs: dict, trainer_kwargs: dict
    ) -> AlignedPlan:
        """Return the plan: anchors weigh as they are trusted, known datasets stay frozen."""
        weights = dict(self.anchor_weights)
        if anchors is not None and not anchors.are_trusted:
            weights = {name: GUARDED_SHARE * weight for name, weight in weights.items()}
        if anchors is not None and not anchors.are_consistent:
            if weights.pop("component_weight", None):
                logger.info(NOT_CONSISTENT)
        if self.module.n_query:
            freeze_all_but_new(self.module)
            plan_kwargs["weight_decay"] = 0.0  # it moves also what has no gradient
            trainer_kwargs["callbacks"] = [*trainer_kwargs.pop("callbacks", []), Frozen()]
        return make_plan(self.module, weights, plan_kwargs, trainer_kwargs)

    @classmethod
    def load_query_data(cls, adata: AnnData, reference: PairedVAE) -> PairedVAE:
        """Add datasets to a trained model without touching what it has learnt.

        The new model decodes as the new datasets too: as the mean of the known ones, times a
        factor for each gene, with which the decoded totals are the observed ones. :meth:`train`
        refines this and learns nothing else, from the cells of the new datasets alone: all
        positions stay as they are, to the bit. For positions, support and corrected counts of new
        cells the model `reference` is enough.

        Parameters
        ----------
        adata
            Cells of datasets that `reference` has not seen, with the same columns, and the genes
            of the model in its order.
        reference
            A trained model with a shared encoder.

        Returns
        -------
        A model of `adata`, ready to be used.

        Raises
        ------
        ValueError
            If `reference` has an encoder for each dataset, or `adata` other genes or no new
            dataset.
        RuntimeError
            If `reference` is not trained.
        """
        return with_new_datasets(reference, adata)

    def _find_anchors(self, cells: Cells, train: NDArray, seed: int) -> Anchors | None:
        """Find anchors, if the model uses them, and keep the support."""
        is_pulled = self.module.alignment == "anchors"
        if not is_pulled and (self.module.alignment == "none" or not self.support_weighted):
            return None
        is_trained_on = np.zeros(len(cells), bool)
        is_trained_on[train] = True
        logger.info("Looking for anchors between the datasets.")
        anchors = find_anchors(cells.counts, cells.batch, train=is_trained_on, seed=seed)
        self.support_ = anchors.support
        self.anchor_clarity_ = anchors.clarity
        if is_pulled and not anchors.are_trusted:
            warn_about_anchors(anchors)
        return anchors

    def _look_at_heldout(self, validation: NDArray) -> None:
        """Keep what `check` says of cells that were not trained on."""
        if len(validation) == 0:
            return
        null = torch.from_numpy(self._log_mean_shares).to(self.device)
        seen = validation[:: -(-len(validation) // N_HELD_OUT)]
        compute = partial(self.module.deviance, log_mean_shares=null)
        values, _ = over_minibatches(self, compute, indices=seen)
        own, null_model, largest_share = values.astype(float).T
        self.deviance_explained_ = float(1 - own.sum() / null_model.sum())
        self.largest_share_ = float(np.median(largest_share))

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        batch_size: int | None = None,
    ) -> NDArray:
        """Return the posterior means of cells, their place in the space shared by the datasets.

        Parameters
        ----------
        adata
            Cells with the genes of the model in any order; `None` means those it was made with.
            They may be of datasets that the model has not seen, since the encoder does not see
            the dataset, unless there is one for each.
        indices
            Rows of `adata` in the order of the result, or a mask.
        batch_size
            Cells in a minibatch; the result does not depend on it.

        Returns
        -------
        Array of shape ``(n_cells, n_latent)``, float32.
        """
        compute = self.module.posterior_mean
        unread = UNREAD_BY_ENCODER if self.module.is_shared else ()
        return over_minibatches(self, compute, adata, indices, batch_size, unread=unread)[0]

    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        transform_batch: object = None,
        library_size: float | Literal["observed"] = "observed",
        gene_list: Sequence[str] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return corrected counts: cells decoded as if they came from the same dataset.

        Unlike scvi-tools, which decodes a cell as its own dataset by default, this decodes it as
        every dataset and averages, so that the default is corrected. Decoded from the posterior
        mean.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_latent_representation`.
        transform_batch
            Dataset to decode all cells as, or a list of them to average; `None` averages all.
        library_size
            Total count of a decoded cell; ``"observed"`` keeps its own.
        gene_list
            Genes to return; `None` means all.

        Returns
        -------
        DataFrame of cells x genes in counts (or in units of `library_size`), float32.
        """
        genes = genes_of(self.registry)
        chosen = check_gene_list(gene_list, genes)
        if library_size != "observed":
            check_number("library_size", library_size, 0)
        compute = partial(
            self.module.corrected_counts,
            datasets=self._dataset_codes(transform_batch),
            genes=torch.from_numpy(genes.get_indexer(chosen)).to(self.device),
            library_size=None if library_size == "observed" else library_size,
        )
        unread = UNREAD_BY_DECODER if self.module.is_shared else ()
        values, names = over_minibatches(self, compute, adata, indices, batch_size, unread=unread)
        return pd.DataFrame(values, index=names, columns=chosen, copy=False)

    def translate(
        self,
        adata: AnnData | None = None,
        *,
        target: object,
        source: object = None,
        library_size: float | Literal["observed"] = "observed",
        gene_list: Sequence[str] | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return the counts that cells would have in another dataset.

        What the datasets differ in is learnt from cells that lie together, so it is trustworthy
        where cells have support in `target`. A type that is missing there is moved as its
        neighbours are.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`.
        target
            Dataset to decode as.
        source
            Dataset whose cells are translated; `None` takes all.
        library_size, gene_list, batch_size
            As in :meth:`get_normalized_expression`.

        Returns
        -------
        DataFrame of cells x genes in counts, float32.

        Raises
        ------
        ValueError
            If the model does not know `target`, or no cell is of `source`.
        """
        indices = None
        if source is not None:
            cells = self.adata if adata is None else adata
            key = self.registry["setup_args"]["batch_key"]
            check_categorical(cells, key, "batch_key")
            labels = np.asarray(cells.obs[key])
            check_choice("source", source, list(pd.unique(labels)))
            indices = np.flatnonzero(labels == source)
        return self.get_normalized_expression(
            adata,
            indices,
            transform_batch=target,
            library_size=library_size,
            gene_list=gene_list,
            batch_size=batch_size,
        )

    def get_support(self, adata: AnnData | None = None) -> pd.DataFrame:
        """Return how well each cell is supported by counterparts in each other dataset.

        Cells are grouped into classes that the datasets share, and support is the mean over the
        class of a cell, of the share of cells with an anchor there, relative to half of what is
        common in the dataset. A type that the other dataset lacks has little of it, unless a close
        relative there takes its place.

        Parameters
        ----------
        adata
            Cells with the genes of the model, of datasets it knows or not, in the column that it
            was set up with; `None` means those of the model. For others anchors to the cells of
            the model are sought, in seconds.

        Returns
        -------
        DataFrame of cells x datasets of the model, in [0, 1]; NaN in the column of the cell's own
        dataset.

        Raises
        ------
        RuntimeError
            If the model has no anchors, or holds other cells than it was trained on.
        """
        check_trained(self)
        if self.support_ is None:
            raise RuntimeError(
                f"Support comes from anchors, and this model has `alignment="
                f"{self.module.alignment!r}` without them. Train one with `alignment='anchors'`."
            )
        if not is_own(self, adata):
            check_categorical(adata, self.registry["setup_args"]["batch_key"], "batch_key")
            return new_support(self, cells_of(self), self._datasets, adata)
        if not self._has_trained_on(self.adata):
            raise RuntimeError(
                "Support is known for the cells the model was trained on, in their order, and "
                "this AnnData holds others. Load the model with the AnnData it was trained on."
            )
        return pd.DataFrame(self.support_, index=self.adata.obs_names, columns=self._datasets)

    def annotate(
        self,
        adata: AnnData | None = None,
        *,
        key_added: str = "paired",
        write_layer: bool = True,
        overwrite: bool = False,
        transform_batch: object = None,
        library_size: float | Literal["observed"] = "observed",
    ) -> None:
        """Write the results into an AnnData, so that scanpy finds them.

        Writes ``obsm["X_paired"]`` (posterior means), ``layers["paired"]`` (corrected counts),
        with anchors ``obs["paired_support"]`` (largest support in another dataset; of cells that
        have a dataset), and ``uns["paired"]`` (parameters, versions, time).

        Parameters
        ----------
        adata
            Where to write, with the genes of the model in any order; `None` means the AnnData of
            the model.
        key_added
            Replaces ``paired`` in the names.
        write_layer
            Write the layer, a dense matrix of cells x genes.
        overwrite
            Replace slots that something else wrote.
        transform_batch, library_size
            As in :meth:`get_normalized_expression`, of the layer.

        Raises
        ------
        ValueError
            If a slot is taken, or a layer is asked for and `adata` has genes unknown to the model.
        MemoryError
            If the layer does not fit.
        """
        target = find_target(self, adata, layer=key_added if write_layer else None)
        options = {"transform_batch": transform_batch, "library_size": library_size}
        slots = [("obsm", f"X_{key_added}")]
        if write_layer:
            slots.append(("layers", key_added))
        if self._has_support(target):
            slots.append(("obs", f"{key_added}_support"))
        compute = partial(self._results, target, slots, options)
        annotate(self, target, key_added, slots, compute, options=options, overwrite=overwrite)

    def _results(
        self, adata: AnnData, slots: list[Slot], options: dict
    ) -> tuple[dict[Slot, object], dict]:
        """Return the values of slots, and nothing else for the record."""
        getters = {
            "obsm": self.get_latent_representation,
            "layers": partial(
                self.get_normalized_expression, gene_list=adata.var_names, **options
            ),
            "obs": lambda cells: self.get_support(cells).max(axis=1),
        }
        return {slot: np.asarray(getters[slot[0]](adata)) for slot in slots}, {}

    def _has_support(self, adata: AnnData) -> bool:
        """Whether support is known for cells, or can be computed."""
        if self.support_ is None or not self._has_cells or not self._has_trained_on(self.adata):
            return False
        return is_own(self, adata) or self.registry["setup_args"]["batch_key"] in adata.obs

    def check(self) -> pd.DataFrame:
        """Return a table of what of the fit deserves a second look.

        Returns
        -------
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``.
        """
        check_trained(self)
        theta = self.module.px_r.detach().exp().cpu().numpy()
        rows = [
            finite_row(self.history),
            loss_row(self.history),
            gradient_row(self.history),
            latent_row(self.get_latent_representation()),
            dispersion_row(theta),
        ]
        if self.deviance_explained_ is not None:
            rows.append(share_row(self.largest_share_))
            rows.append(deviance_row(self.deviance_explained_))
        if self.anchor_clarity_ is not None:
            rows.append(anchor_row(self.anchor_clarity_))
        return check_table(rows)

    def report(
        self,
        path: str | os.PathLike | None = None,
        *,
        labels_key: str | None = None,
        overwrite: bool = False,
    ) -> Report:
        """Write a page that says what was done, whether to trust it, and what it rests on.

        Parameters
        ----------
        path
            The file, ending in ``.html``; `None` writes none. It holds its figures, needs no
            network, and runs no script.
        labels_key
            Column of ``adata.obs`` with cell types, to draw the map and the support by.
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
        support = self.get_support() if self._has_support(self.adata) else None
        return written(report_of(self, support, labels_key), path, overwrite=overwrite)

    def _digest(self, adata: AnnData) -> str:
        """Return what tells the cells; files of old models have only the part of the names."""
        return fingerprint(adata, self.registry["setup_args"]["layer"])

    def _has_trained_on(self, adata: AnnData) -> bool:
        return self._digest(adata).startswith(self.cells_digest_)

    @property
    def _datasets(self) -> NDArray:
        state = self.adata_manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY)
        return np.asarray(state.categorical_mapping)

    def _dataset_codes(self, names: object) -> list[int]:
        known = list(self._datasets)
        if names is None:
            return list(range(len(known)))
        wanted = list(names) if isinstance(names, list | tuple | np.ndarray) else [names]
        for name in wanted:
            if name not in known:
                raise ValueError(
                    f"`transform_batch={name!r}` is no dataset of this model, which has {known}. "
                    "Cells of any dataset are decoded as one of these, or as their average (the "
                    "default); to decode as another, add it: `PairedVAE.load_query_data(adata, "
                    "model)`."
                )
        return [known.index(name) for name in wanted]


def _n_epochs(wanted: int | None, n_steps: int) -> int:
    """Return the epochs that were asked for, or those of a training of usual length."""
    if wanted is None:
        return min(max(round(N_STEPS / n_steps), MIN_EPOCHS), MAX_EPOCHS)
    check_number("max_epochs", wanted, 1, whole=True)
    return wanted
