"""Imputation of genes that a dataset did not measure."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import REGISTRY_KEYS, settings
from scvi.model.base import BaseModelClass

from scovert.core._annotating import annotate, find_target
from scovert.core._arguments import knows_its_arguments
from scovert.core._beginning import begin_training
from scovert.core._checks import (
    check_batches,
    check_choice,
    check_gene_list,
    check_genes,
    check_layer,
    check_number,
    warn_about_cells,
    warn_about_file,
)
from scovert.core._counts import get_counts
from scovert.core._diagnostics import check_table
from scovert.core._minibatch import cells_of, genes_of, over_minibatches
from scovert.core._registering import check_set_up, check_unchanged, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core._unmeasured import count_by_group
from scovert.core.dataloaders._shuffled import ShuffledData, split_cells
from scovert.core.report import Report, written
from scovert.core.training._options import (
    check_data_options,
    check_sizes,
    check_split,
    length_of,
)
from scovert.core.training._plan import Plan
from scovert.core.training._run import run
from scovert.model.imputation._agreement import agreement_of, gene_table
from scovert.model.imputation._annotation import slots, values
from scovert.model.imputation._calibration import calibrate, calibrate_once, check_calibrated
from scovert.model.imputation._checks import (
    check_known_counts,
    labels_of,
    measured_genes,
    warn_about_shared,
)
from scovert.model.imputation._diagnostics import diagnose
from scovert.model.imputation._expected_counts import expected_counts, with_bounds
from scovert.model.imputation._groups import expression_of_groups
from scovert.model.imputation._module import ImputationModule
from scovert.model.imputation._panels import (
    MeasuredField,
    datasets_of,
    log_mean_shares,
    make_panels,
    measured_of,
)
from scovert.model.imputation._report import report_of
from scovert.model.imputation._sums import moments_by_dataset

__all__ = ["MaskedImputation"]

N_STEPS, MOST_EPOCHS = 1500, 120
"""Length of training: fewer steps explain less, more passes over few cells fit the source only."""
REMEDY = (
    "Pass `write_layer=False`, and ask for what you need: `model.get_imputed(gene_list=[...])`."
)


@knows_its_arguments()
class MaskedImputation(SaveLoadMixin, BaseModelClass):
    """Impute the counts of genes that a dataset did not measure, with calibrated intervals.

    One negative binomial variational autoencoder :cite:p:`Lopez18` for all cells, that does not
    know the datasets: the encoder sees the genes that all measured, and the shares of the genes
    are compared only over those that a cell's dataset measured. Some shared genes are held back
    from the datasets that miss others, and say how far imputed values are off. See
    :doc:`/models/imputation` for the model, its assumptions and when not to use it.

    Parameters
    ----------
    adata
        Cells of all datasets over the union of their genes, prepared with :meth:`setup_anndata`.
    n_latent
        Number of latent dimensions.
    n_hidden, n_layers
        Nodes in a hidden layer, and number of hidden layers.
    encoder
        ``"shared"``: it sees the genes that all datasets measured. ``"panels"``: it sees what the
        dataset of a cell measured and, while it is trained, of that no more than another dataset,
        drawn at random, did. ``"auto"`` takes the first where 50 shared genes or more have 10
        counts in the median cell.
    calibration
        Share of the shared genes, 30 at least, that are held back from the datasets that miss
        genes; 0 for none, and then there are no intervals.
    dropout_rate
        Dropout in the encoder, in [0, 1).

    Examples
    --------
    >>> import scovert
    >>> from scovert.model import MaskedImputation
    >>> cells = scovert.data.pbmc68k()
    >>> atlas, panel = cells[:400].copy(), cells[400:, :500].copy()
    >>> adata = scovert.data.concat_measured({"atlas": atlas, "panel": panel})
    >>> MaskedImputation.setup_anndata(adata, "batch", measured_key="measured")
    >>> model = MaskedImputation(adata)
    >>> model.train(max_epochs=1, enable_progress_bar=False)
    >>> model.get_imputed().shape == adata.shape
    True
    """

    def __init__(
        self,
        adata: AnnData,
        *,
        n_latent: int = 10,
        n_hidden: int = 128,
        n_layers: int = 1,
        encoder: Literal["auto", "shared", "panels"] = "auto",
        calibration: float = 0.1,
        dropout_rate: float = 0.1,
    ) -> None:
        check_set_up(type(self), adata)
        super().__init__(adata)
        check_unchanged(self)
        check_choice("encoder", encoder, ("auto", "shared", "panels"))
        check_sizes(adata.n_vars, n_latent=n_latent, n_hidden=n_hidden, n_layers=n_layers)
        check_number("calibration", calibration, 0, 0.5)
        check_number("dropout_rate", dropout_rate, 0, 0.99)
        cells, measured = cells_of(self), measured_of(self.registry)
        totals = count_by_group(cells.blocks(), cells.batch, measured.shape)
        rng = np.random.default_rng(settings.seed)
        panels = make_panels(cells, totals, measured, encoder=encoder, share=calibration, rng=rng)
        self.module = ImputationModule(
            torch.from_numpy(log_mean_shares(totals, panels.learnt).astype(np.float32)),
            torch.from_numpy(panels.learnt),
            torch.from_numpy(panels.visible),
            n_latent=n_latent,
            n_hidden=n_hidden,
            n_layers=n_layers,
            dropout_rate=dropout_rate,
        )
        self.spread_: NDArray | None = None
        self.explained_: NDArray | None = None
        n_lacking = pd.Series((~measured).sum(1), datasets_of(self))
        n_lacking = n_lacking[n_lacking > 0].to_dict()
        self._model_summary_string = (
            f"MaskedImputation of {self.summary_stats.n_cells} cells in {len(measured)} datasets, "
            f"{self.summary_stats.n_vars} genes: n_latent={n_latent}, "
            f"not measured: {n_lacking}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        batch_key: str,
        layer: str | None = None,
        measured_key: str | None = None,
        _registry: dict | None = None,  # of a saved model
    ) -> None:
        """Say where in `adata` the counts and the datasets are, and which genes each measured.

        Writes only what scvi-tools keeps under names that begin with ``_scvi_``.

        Parameters
        ----------
        adata
            Cells of two or more datasets over the union of their genes, with raw counts, 0 where
            nothing was measured; :func:`scovert.data.concat_measured` makes it.
        batch_key
            Column of ``adata.obs`` with the dataset of each cell.
        layer
            Layer with the raw counts; `None` means ``adata.X``, ``"raw"`` (unless a layer is
            called so) the genes of `adata` in ``adata.raw``.
        measured_key
            Table in ``adata.varm``, genes x datasets: True where a dataset measured a gene.
            ``"detect"`` (unless a table is called so) says that a gene without a count in a
            dataset was not measured there. `None` is an error that lists these genes: whether they
            are silent or were not measured cannot be seen.

        Raises
        ------
        KeyError
            If a key or the layer does not exist.
        ValueError
            If the counts are not counts, there are counts of a gene that was not measured, there
            is nothing to impute, a gene was measured nowhere, or the datasets share fewer than 20
            genes with counts.
        """
        where = check_layer(adata, layer)
        check_genes(adata)
        counts = get_counts(adata, layer)
        if _registry is None:
            check_batches(adata, batch_key)
        totals = check_known_counts(counts, where, adata)
        measured = None
        if _registry is None:
            measured = measured_genes(adata, counts, batch_key, measured_key)
            warn_about_shared(counts, measured)
        warn_about_cells(adata, totals)
        warn_about_file(adata, layer)
        register(
            cls,
            adata,
            {REGISTRY_KEYS.BATCH_KEY: batch_key},
            _registry,
            layer=layer,
            more_fields=[MeasuredField(measured)],
            batch_key=batch_key,
            measured_key=measured_key,
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
        """Train the networks; learn levels and errors from known genes that were held back.

        Parameters
        ----------
        max_epochs
            Longest training; `None` makes about 1,500 steps, but at most 120 epochs.
        train_size, validation_size
            Shares of each dataset's cells to train on and to validate on; `None` validates on all
            others.
        batch_size
            Cells in a minibatch.
        early_stopping
            Stop when the negative ELBO of the validation cells has not improved for 10 epochs. Off
            without validation cells.
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
            :class:`~scvi.train.TrainingPlan`.
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
        self.spread_ = self.explained_ = None
        rows = split_cells(cells.batch, train_size, validation_size, resumable.seed)
        data = ShuffledData(cells, *rows, batch_size=batch_size, **(datasplitter_kwargs or {}))
        usual = min(math.ceil(N_STEPS / data.n_steps), MOST_EPOCHS)
        run(
            self,
            Plan(self.module, **(plan_kwargs or {})),
            data,
            length_of(max_epochs, usual),
            early_stopping=early_stopping,
            resumable=resumable,
            on_best=partial(self._save_best, resumable),
            **trainer_kwargs,
        )
        calibrate(self)
        self._save_best(resumable, self.history_)
        resumable.end()

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        batch_size: int | None = None,
    ) -> NDArray:
        """Return the posterior means of cells.

        Parameters
        ----------
        adata
            Cells of datasets that the model knows, with its genes in any order; `None` means those
            it was made with.
        indices
            Rows of `adata` in the order of the result, or a mask.
        batch_size
            Cells in a minibatch; the result does not depend on it.

        Returns
        -------
        Array of shape ``(n_cells, n_latent)``, float32.
        """
        compute = self.module.posterior_mean
        return over_minibatches(self, compute, adata, indices, batch_size)[0]

    def get_imputed(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        gene_list: Sequence[str] | None = None,
        interval: float | None = None,
        batch_size: int | None = None,
    ) -> pd.DataFrame:
        """Return expected counts of all genes, at the number of counts that a cell has.

        An expected count is a mean and no count: it varies less between cells than counts do, and
        no test is to be made of it. Of genes that the dataset measured, it is what the model makes
        of them; :meth:`annotate` can keep the counts.

        Parameters
        ----------
        adata, indices, batch_size
            As in :meth:`get_latent_representation`.
        gene_list
            Genes to return; `None` means all.
        interval
            Also return bounds that hold a count with this probability, in (0, 1): over the
            distribution of counts, the posterior of the cell and the errors of genes that were
            held back. Memory and time grow by the number of latent dimensions.

        Returns
        -------
        DataFrame of cells x genes in counts, float32, where the total of the genes that the model
        learnt from the cell's dataset is that of the cell. With an interval its columns have two
        levels: ``"mean"``, ``"lower"`` or ``"upper"``, and the gene. A dataset that measured all
        genes has no errors of genes.

        Raises
        ------
        RuntimeError
            If an interval is asked for and no genes were held back.
        """
        calibrate_once(self)
        genes = check_gene_list(gene_list, genes_of(self.registry))
        if interval is None:
            return expected_counts(self, genes, adata, indices, batch_size)
        check_number("interval", interval, 0.01, 0.999)
        check_calibrated(self)
        return with_bounds(self, genes, adata, indices, batch_size, interval)

    def get_group_expression(
        self, groups_key: str | None = None, *, interval: float = 0.9
    ) -> pd.DataFrame:
        """Return the mean expression of groups of cells, counted or imputed, with intervals.

        An interval says how far totals of known genes that were held back are off in the same
        groups. It does not know a response that no source shows.

        Parameters
        ----------
        groups_key
            Column of ``obs`` with the groups, such as clusters or types, of two cells or more on
            average; `None` takes the cells of a dataset together.
        interval
            Probability that an interval holds the expression that would have been measured, in
            (0, 1).

        Returns
        -------
        DataFrame with a row for each dataset, group and gene: ``measured``; ``mean`` in counts for
        10,000 counts of the genes that the model learnt from the dataset, counted where it was
        measured; ``unit``, which says of how many genes; ``lower`` and ``upper``, NaN where it was
        measured; and ``reason``, empty or why an imputed value is uncertain. Compare groups of one
        dataset: those of a panel of 60 genes are counts of 10,000 of these.
        """
        check_number("interval", interval, 0.01, 0.999)
        check_calibrated(self)
        return expression_of_groups(self, labels_of(self.adata, groups_key), interval)

    def get_agreement(self) -> pd.DataFrame:
        """Return how well genes are decoded whose counts are known, by dataset.

        Returns
        -------
        DataFrame with a row for the ``"observed"`` genes of each dataset and, if it misses genes,
        one for the ``"imputed"`` ones, which it measured and which were held back; all of 20
        counts or more. ``n_genes``; ``r2_totals``, R2 of the log totals of the genes;
        ``pearson_r``, the median over genes of the correlation over cells of log-normalised values
        (counts are noisy, so it stays far below 1); ``deviance_explained`` by the model, of that
        from the mean shares; ``log2_offset``, the median distance of totals; ``log2_bias`` of the
        total of all; with calibration genes ``factor``, by which the ends of intervals of totals
        are away from their middle, and ``coverage`` of single counts, both at 90 %.
        """
        calibrate_once(self)
        batch = cells_of(self).batch
        return agreement_of(self, moments_by_dataset(self, batch), batch)

    def get_gene_agreement(self) -> pd.DataFrame:
        """Return how well each gene is decoded in each dataset that measured it.

        Returns
        -------
        DataFrame with a row for each dataset and gene with counts: ``kind`` (``"observed"``, or
        ``"imputed"`` for genes that were held back), ``total``, ``imputed_total``,
        ``lower`` and ``upper`` (bounds of 90 % for what was held back), ``log2_offset``,
        ``pearson_r`` and ``deviance_explained`` as in :meth:`get_agreement`. A gene that is not
        explained where it was measured is imputed as its mean elsewhere.
        """
        calibrate_once(self)
        return gene_table(self, moments_by_dataset(self, cells_of(self).batch))

    def annotate(
        self,
        adata: AnnData | None = None,
        *,
        key_added: str = "imputation",
        write_layer: bool = True,
        overwrite: bool = False,
        keep_measured: bool = False,
    ) -> None:
        """Write the results into an AnnData, so that scanpy finds them.

        Writes ``obsm["X_imputation"]`` (posterior means), ``layers["imputation"]`` (expected
        counts, no data to test), ``varm["imputation_measured"]`` (genes x datasets),
        ``varm["imputation_explained"]`` (share of the deviance of a gene that is explained in each
        dataset that measured it) and ``uns["imputation"]`` (parameters, versions, time, and the
        errors of genes by dataset).

        Parameters
        ----------
        adata
            Where to write, cells of known datasets with the genes of the model in any order;
            `None` means the AnnData of the model.
        key_added
            Replaces ``imputation`` in the names.
        write_layer
            Write the layer, a dense matrix of cells x genes.
        overwrite
            Replace slots that something else wrote.
        keep_measured
            Put the counts into the layer where a gene was measured.

        Raises
        ------
        ValueError
            If a slot is taken, or a layer is asked for and `adata` has genes unknown to the model.
        MemoryError
            If the layer does not fit.
        """
        target = find_target(self, adata, layer=key_added if write_layer else None)
        calibrate_once(self)
        places = slots(key_added, write_layer=write_layer)
        annotate(
            self,
            target,
            key_added,
            places,
            partial(values, self, target, places, keep_measured=keep_measured),
            options={"keep_measured": keep_measured},
            overwrite=overwrite,
            remedy=REMEDY,
        )

    def check(self) -> pd.DataFrame:
        """Return a table of what of the fit deserves a second look.

        Returns
        -------
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``.

        Of several datasets the worst is shown; :meth:`get_agreement` has all.
        """
        calibrate_once(self)
        return check_table(diagnose(self))

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
