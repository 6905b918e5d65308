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

from scovert.core._annotating import Slot, annotate, find_target
from scovert.core._arguments import knows_its_arguments
from scovert.core._checks import (
    check_batches,
    check_categorical,
    check_choice,
    check_distributed,
    check_gene_list,
    check_genes,
    check_layer,
    check_number,
    select_rows,
    warn_about_cells,
    warn_about_file,
)
from scovert.core._counts import get_counts
from scovert.core._diagnostics import (
    check_table,
    dispersion_row,
    finite_row,
    gradient_row,
    latent_row,
    loss_row,
)
from scovert.core._minibatch import check_trained, genes_of, over_minibatches, read_query
from scovert.core._registering import check_set_up, check_unchanged, facts_of, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core._unmeasured import count_by_group
from scovert.core.dataloaders._cells import Cells
from scovert.core.dataloaders._shuffled import ShuffledData, split_cells
from scovert.core.report import Report, written
from scovert.core.training._checkpoint import Resumable
from scovert.core.training._options import (
    check_data_options,
    check_options,
    check_sizes,
    check_split,
)
from scovert.core.training._plan import Plan
from scovert.core.training._run import run
from scovert.model.imputation._agreement import explained, gene_table, summary
from scovert.model.imputation._checks import (
    check_groups,
    check_known_counts,
    measured_genes,
    warn_about_shared,
)
from scovert.model.imputation._diagnostics import (
    agreement_rows,
    coverage_row,
    share_row,
    support_row,
    width_row,
)
from scovert.model.imputation._groups import group_table
from scovert.model.imputation._intervals import (
    Spread,
    TotalErrors,
    count_interval,
    coverage,
    spread_of,
)
from scovert.model.imputation._levels import levels, nearest_totals
from scovert.model.imputation._module import ImputationModule
from scovert.model.imputation._panels import (
    MeasuredField,
    Panels,
    log_mean_shares,
    make_panels,
    measured_of,
)
from scovert.model.imputation._report import report_of
from scovert.model.imputation._sums import Moments, moments_by_dataset, totals_by_group

__all__ = ["MaskedImputation"]

N_STEPS, MOST_EPOCHS = 1500, 120
"""Length of training: fewer steps explain less, more passes over few cells fit the source only."""

TRAIN_OPTIONS = (
    "max_epochs",
    "train_size",
    "validation_size",
    "batch_size",
    "early_stopping",
    "checkpoint_dir",
    "datasplitter_kwargs",
    "plan_kwargs",
)
"""Arguments of `train` that are not the trainer's."""

N_LOOKED_AT = 2000
"""Cells of a dataset by which `check` judges intervals and support, at most."""
LEVEL = 0.9
"""Level of the intervals by which known genes are judged."""
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
        cells, measured = self._read(), measured_of(self.registry)
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
        n_lacking = pd.Series((~measured).sum(1), self._datasets)
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
        check_options("MaskedImputation", TRAIN_OPTIONS, trainer_kwargs, plan_kwargs)
        check_unchanged(self, every_value=True)
        check_distributed(trainer_kwargs, settings.seed, checkpoint_dir)
        asked = facts_of(self) | {
            "max_epochs": max_epochs,
            "split": (train_size, validation_size, batch_size),
            "early_stopping": early_stopping,
            "plan_kwargs": plan_kwargs,
        }
        resumable = Resumable.open(checkpoint_dir, settings.seed, asked, trainer_kwargs)
        cells = self._read()
        self.spread_ = self.explained_ = None
        rows = split_cells(cells.batch, train_size, validation_size, resumable.seed)
        data = ShuffledData(cells, *rows, batch_size=batch_size, **(datasplitter_kwargs or {}))
        run(
            self,
            Plan(self.module, **(plan_kwargs or {})),
            data,
            _n_epochs(max_epochs, data.n_steps),
            early_stopping=early_stopping,
            resumable=resumable,
            on_best=partial(self._save_best, resumable),
            **trainer_kwargs,
        )
        self._calibrate()
        self._save_best(resumable, self.history_)
        resumable.end()

    def _calibrate_once(self) -> None:
        """Calibrate a trained model that is not: the best one of training that was cut off."""
        check_trained(self)
        if self.spread_ is None:
            self._calibrate()

    def _calibrate(self) -> None:
        """Learn from genes that were held back the levels of imputed genes, and their errors."""
        cells, panels = self._read(), self._panels
        batch = cells.batch
        self.module.level.zero_()
        totals = moments_by_dataset(self, batch)
        level = levels(totals.true, totals.imputed, nearest_totals(cells, panels), panels)
        self.module.level.copy_(torch.from_numpy(level))
        moments = moments_by_dataset(self, batch)
        self.explained_ = np.where(panels.measured, explained(moments), np.nan)
        self.spread_ = np.array(
            [
                spread_of(true[own], imputed[own])
                for true, imputed, own in zip(
                    moments.true, moments.imputed, panels.calibration, strict=True
                )
            ]
        )

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
        self._calibrate_once()
        genes = genes_of(self.registry)
        chosen = check_gene_list(gene_list, genes)
        at = torch.from_numpy(genes.get_indexer(chosen)).to(self.device)
        if interval is None:
            compute = partial(self.module.imputed, genes=at)
            values, names = over_minibatches(self, compute, adata, indices, batch_size)
            return pd.DataFrame(values, index=names, columns=chosen, copy=False)
        check_number("interval", interval, 0.01, 0.999)
        self._check_calibrated()
        compute = partial(self.module.imputed_moments, genes=at)
        values, names = over_minibatches(self, compute, adata, indices, batch_size)
        batch = read_query(self, adata)[1].batch
        own = batch[select_rows(indices, len(batch))]
        bounds = self._bounds(values, own, at.cpu().numpy(), interval)
        frames = [pd.DataFrame(v, names, chosen, copy=False) for v in (values[..., 0], *bounds)]
        return pd.concat(dict(zip(("mean", "lower", "upper"), frames, strict=True)), axis=1)

    def _bounds(
        self, moments: NDArray, batch: NDArray, genes: NDArray, level: float
    ) -> tuple[NDArray, NDArray]:
        """Return bounds of counts, dataset by dataset."""
        theta = self._theta[genes]
        lower, upper = (np.empty(moments.shape[:2], np.float32) for _ in range(2))
        for b in np.unique(batch):
            own = batch == b
            spread = self._spread(b)
            mean, variation = moments[own, :, 0], moments[own, :, 1]
            lower[own], upper[own] = count_interval(mean, variation, theta, spread, level)
        return lower, upper

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
        self._check_calibrated()
        batch, labels = self._read().batch, np.full(self.adata.n_obs, "all")
        if groups_key is not None:
            check_categorical(self.adata, groups_key, "groups_key")
            labels = self.adata.obs[groups_key].astype(str).to_numpy()
            check_groups(labels, groups_key)
        pairs = pd.MultiIndex.from_arrays([batch, labels])
        codes, groups = pd.factorize(pairs, sort=True)
        totals = totals_by_group(self, codes, len(groups))
        names = groups.set_levels(self._datasets[groups.levels[0]], level=0)
        own = groups.get_level_values(0).to_numpy()
        return group_table(totals, own, names, self._panels, self.explained_, interval).assign(
            gene=lambda table: genes_of(self.registry)[table["gene"]]
        )

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
        self._calibrate_once()
        cells = self._read()
        return self._agreement(cells, moments_by_dataset(self, cells.batch))

    def _agreement(self, cells: Cells, moments: Moments) -> pd.DataFrame:
        """Return the table of `get_agreement`."""
        panels = self._panels
        table = summary(moments, panels, self._datasets)
        for b, name in enumerate(self._datasets):
            row = (name, "imputed")
            if row in table.index:
                own = panels.calibration[b]
                known = moments.true[b, own], moments.imputed[b, own]
                table.loc[row, "factor"] = TotalErrors.of(*known, LEVEL).factor(known[1])
                table.loc[row, "coverage"] = self._coverage(cells, b, np.flatnonzero(own))
        return table

    def _coverage(self, cells: Cells, b: int, genes: NDArray) -> float:
        """Return the share of known counts of genes inside their intervals."""
        rows = _spaced(np.flatnonzero(cells.batch == b))
        at = torch.from_numpy(genes).to(self.device)

        def compute(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
            counts = tensors[REGISTRY_KEYS.X_KEY][:, at, None]
            return torch.cat([counts, self.module.imputed_moments(tensors, at)], dim=-1)

        counts, mean, variation = np.moveaxis(
            over_minibatches(self, compute, indices=rows)[0], -1, 0
        )
        theta, spread = self._theta[genes], self._spread(b)
        return float(coverage(counts, mean, variation, theta, spread, LEVEL).mean())

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
        self._calibrate_once()
        moments = moments_by_dataset(self, self._read().batch)
        genes = genes_of(self.registry)
        return gene_table(moments, self._panels, self._datasets, genes, level=LEVEL)

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
        self._calibrate_once()
        slots = [("obsm", f"X_{key_added}")]
        if write_layer:
            slots.append(("layers", key_added))
        slots += [("varm", f"{key_added}_measured"), ("varm", f"{key_added}_explained")]
        annotate(
            self,
            target,
            key_added,
            slots,
            partial(self._results, target, slots, keep_measured=keep_measured),
            options={"keep_measured": keep_measured},
            overwrite=overwrite,
            remedy=REMEDY,
        )

    def _results(
        self, adata: AnnData, slots: list[Slot], *, keep_measured: bool
    ) -> tuple[dict[Slot, object], dict]:
        """Return the values of slots, and what the record tells of errors."""
        genes, names = genes_of(self.registry), self._datasets.astype(str)
        values: dict[Slot, object] = {}
        for slot in slots:
            if slot[0] == "obsm":
                values[slot] = self.get_latent_representation(adata)
            elif slot[0] == "layers":
                values[slot] = self._layer(adata, keep_measured=keep_measured)
            else:
                is_mask = slot[1].endswith("_measured")
                table = self._panels.measured if is_mask else self.explained_
                frame = pd.DataFrame(table.T, genes, names)
                empty = False if is_mask else np.nan
                values[slot] = frame.reindex(adata.var_names, fill_value=empty)
        spread = {"centre": self.spread_[:, 0], "sd": self.spread_[:, 1], "datasets": names}
        return values, {"errors": {k: np.asarray(v) for k, v in spread.items()}}

    def _layer(self, adata: AnnData, *, keep_measured: bool) -> NDArray:
        """Return expected counts of the genes of an AnnData, or counts where there are any."""
        names = adata.var_names
        layer = self.get_imputed(adata, gene_list=names).to_numpy()
        if not keep_measured:
            return layer
        measured = self._panels.measured[:, genes_of(self.registry).get_indexer(names)]
        cells = Cells.read(adata, self.registry, names)
        for start, block in cells.blocks():
            rows = slice(start, start + block.shape[0])
            is_known = measured[cells.batch[rows]]
            dense = block.toarray() if hasattr(block, "toarray") else block
            layer[rows] = np.where(is_known, dense, layer[rows])
        return layer

    def check(self) -> pd.DataFrame:
        """Return a table of what of the fit deserves a second look.

        Returns
        -------
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``. Of several datasets the worst is shown; :meth:`get_agreement` has all.
        """
        self._calibrate_once()
        cells, panels = self._read(), self._panels
        moments = moments_by_dataset(self, cells.batch)
        agreement = self._agreement(cells, moments)
        looked_at = np.concatenate(
            [_spaced(np.flatnonzero(cells.batch == b)) for b in np.unique(cells.batch)]
        )
        latent = self.get_latent_representation(indices=looked_at)
        rows = [
            finite_row(self.history),
            loss_row(self.history),
            gradient_row(self.history),
            latent_row(latent),
            dispersion_row(self._theta),
            share_row(moments.imputed),
            *agreement_rows(agreement),
        ]
        if "factor" in agreement:
            rows.append(coverage_row(agreement["coverage"].min()))
            if agreement["factor"].notna().any():
                rows.append(width_row(agreement["factor"].max()))
        rows.append(support_row(latent, cells.batch[looked_at], ~panels.measured.all(1)))
        return check_table(rows)

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
        n_cells = np.bincount(self._read().batch, minlength=len(self._datasets))
        n_lacking = (~self._panels.measured).sum(1)
        sizes = (pd.Series(n, self._datasets) for n in (n_cells, n_lacking))
        report = report_of(self, *sizes, self.get_gene_agreement())
        return written(report, path, overwrite=overwrite)

    @property
    def _panels(self) -> Panels:
        learnt, visible = (v.cpu().numpy() for v in (self.module.learnt, self.module.visible))
        return Panels(measured_of(self.registry), learnt, visible)

    @property
    def _theta(self) -> NDArray:
        return self.module.px_r.detach().exp().cpu().numpy().astype(float)

    def _spread(self, b: int) -> Spread:
        """Return the errors of genes in a dataset, none where there is nothing to impute."""
        spread = Spread(*self.spread_[b])
        return spread if np.isfinite(spread.centre) else Spread(0.0, 0.0)

    def _check_calibrated(self) -> None:
        """Refuse intervals of an untrained model, and without genes that were held back."""
        self._calibrate_once()
        if not self._panels.calibration.any():
            raise RuntimeError(
                "Intervals come from genes that are held back, and this model has none: "
                "`calibration=0`, or too few shared genes with 20 counts. Fit a model with "
                "`calibration=0.1`, or ask without an interval."
            )

    @property
    def _datasets(self) -> pd.Index:
        state = self.adata_manager.get_state_registry(REGISTRY_KEYS.BATCH_KEY)
        return pd.Index(np.asarray(state.categorical_mapping))

    def _read(self) -> Cells:
        return Cells.read(self.adata, self.registry, genes_of(self.registry))


def _spaced(rows: NDArray) -> NDArray:
    """Return evenly spaced rows, not too many."""
    return rows[:: -(-len(rows) // N_LOOKED_AT)] if len(rows) else rows


def _n_epochs(wanted: int | None, n_steps: int) -> int:
    """Return the epochs that were asked for, or those of a training of usual length."""
    if wanted is None:
        return min(math.ceil(N_STEPS / n_steps), MOST_EPOCHS)
    check_number("max_epochs", wanted, 1, whole=True)
    return wanted
