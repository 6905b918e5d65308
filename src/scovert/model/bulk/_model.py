"""Cell types in bulk RNA-seq."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scvi import REGISTRY_KEYS, settings
from scvi.model.base import BaseModelClass
from threadpoolctl import threadpool_limits

from scovert.core._annotating import Slot, annotate
from scovert.core._arguments import check_known, knows_its_arguments
from scovert.core._checks import (
    UNKNOWN,
    check_choice,
    check_genes,
    check_layer,
    check_number,
    warn_about_cells,
)
from scovert.core._compat import TRAINER_OPTIONS
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._diagnostics import check_table
from scovert.core._minibatch import check_trained, genes_of
from scovert.core._registering import check_set_up, check_unchanged, facts_of, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core._unmeasured import warn_about_unmeasured
from scovert.core._words import a_kind_of
from scovert.core.genes import GeneNames, has_left_out_prefix
from scovert.core.report import Report, written
from scovert.core.training._checkpoint import Resumable
from scovert.model.bulk._annotation import REMEDY, Writing, check_same_samples
from scovert.model.bulk._budget import BulkBudget, check_budget
from scovert.model.bulk._checks import (
    check_cell_size,
    check_condition,
    check_method,
    check_no_options,
    check_subjects,
    check_types,
    check_unknown,
    warn_about_types,
    warn_about_unknown,
)
from scovert.model.bulk._deconvolve import Options, deconvolve_all
from scovert.model.bulk._diagnostics import diagnose
from scovert.model.bulk._expression import TypeExpression, find_expression, layer_names, types_of
from scovert.model.bulk._gene_checks import warn_about_dates, warn_about_housekeeping
from scovert.model.bulk._measured_checks import check_measured
from scovert.model.bulk._module import BulkModule
from scovert.model.bulk._reference import Learning, find_signatures, restored, stored
from scovert.model.bulk._report import report_of
from scovert.model.bulk._result import BulkResult
from scovert.model.bulk._sample_checks import check_kind_name
from scovert.model.bulk._samples import Samples
from scovert.model.bulk._signature import Signature

__all__ = ["BulkDeconvolution"]

ONE_THREAD = 1
"""Matrices are small: threads wait for each other, for minutes if others use the machine too."""


@knows_its_arguments(options="deconvolve")
class BulkDeconvolution(SaveLoadMixin, BaseModelClass):
    """Cell types in bulk RNA-seq, with intervals, from an annotated single-cell reference.

    All samples are fitted together: every sample is a linear mixture of the profiles of the
    reference's types (several states each), a shift of every gene that the cohort shares takes
    what differs between bulk and single-cell protocols, and residuals are robust on a log scale.
    Fractions of RNA become fractions of cells by the RNA content per cell. See
    :doc:`/models/bulk` for the model, for what cannot be known from expression, and for what a few
    measured samples buy.

    Parameters
    ----------
    reference
        Annotated cells, prepared with :meth:`setup_anndata`.
    n_states
        Most states of a type; types with fewer than 50 cells have one.
    signature
        ``"states"``: sums of the cells of a state, which k-means finds. ``"prototype_vae"``: what
        the prototypes of a variational autoencoder decode to; takes a minute or more to train.
    min_cells_per_type
        Fewest cells of a type.
    n_genes_per_type
        Most genes that speak for a type; ``"auto"`` means 800, or 100 for up to four types.

    Examples
    --------
    >>> import scovert
    >>> from scovert.model import BulkDeconvolution
    >>> reference = scovert.data.pbmc68k()
    >>> bulk = scovert.simulate.bulk(reference, "cell_type", n_samples=5)
    >>> BulkDeconvolution.setup_anndata(reference, labels_key="cell_type")
    >>> model = BulkDeconvolution(reference, min_cells_per_type=8)
    >>> model.train()
    >>> result = model.deconvolve(bulk, kind="counts", cell_size="reference", interval=None)
    >>> result.proportions.shape
    (5, 10)
    """

    _n_to_stand_in = staticmethod(lambda init: init["min_cells_per_type"])

    def __init__(
        self,
        reference: AnnData,
        *,
        n_states: int = 3,
        signature: Literal["states", "prototype_vae"] = "states",
        min_cells_per_type: int = 10,
        n_genes_per_type: int | Literal["auto"] = "auto",
    ) -> None:
        check_set_up(type(self), reference, "reference")
        super().__init__(reference)
        check_unchanged(self)
        check_number("n_states", n_states, 1, whole=True)
        check_choice("signature", signature, ("states", "prototype_vae"))
        check_number("min_cells_per_type", min_cells_per_type, 1, whole=True)
        if n_genes_per_type != "auto":
            check_number("n_genes_per_type", n_genes_per_type, 1, whole=True)
        check_types(reference, self.registry["setup_args"]["labels_key"], min_cells_per_type)
        self.n_states, self.min_cells_per_type = n_states, min_cells_per_type
        self.signature, self.n_genes_per_type = signature, n_genes_per_type
        self.studies_: dict[str, list[str]] = {}
        self.gene_names_: list[list] = []
        self.is_kept_ = np.empty(0, bool)
        self.seed_ = 0
        self.module = BulkModule()
        self._model_summary_string = (
            f"BulkDeconvolution with {reference.n_obs} cells of "
            f"{reference.obs[self.registry['setup_args']['labels_key']].nunique()} types, "
            f"{reference.n_vars} genes: n_states={n_states}, signature={signature!r}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        reference: AnnData,
        labels_key: str,
        batch_key: str | None = None,
        subject_key: str | None = None,
        layer: str | None = None,
        _registry: dict | None = None,  # of a saved model
    ) -> None:
        """Say where in `reference` counts and cell types are.

        Writes only what scvi-tools keeps under names that begin with ``_scvi_``.

        Parameters
        ----------
        reference
            Annotated cells with raw counts.
        labels_key
            Column of ``reference.obs`` with the cell types.
        batch_key
            Column of ``reference.obs`` with the study or the chemistry. Every study is a
            reference of its own, and results are averaged.
        subject_key
            Column of ``reference.obs`` with the donor, for the variance between donors.
        layer
            Layer with the raw counts; `None` means ``reference.X``, ``"raw"`` (unless a layer is
            called so) the genes of `reference` in ``reference.raw``.

        Raises
        ------
        KeyError
            If a key or the layer does not exist.
        ValueError
            If the counts are not counts, a key has missing values, there is one type only, or
            gene names are duplicated.
        """
        where = check_layer(reference, layer)
        check_genes(reference)
        check_types(reference, labels_key, 1)
        check_subjects(reference, batch_key, subject_key)
        totals = check_counts(get_counts(reference, layer), where, reference)
        if _registry is None:
            warn_about_cells(reference, totals)
            warn_about_dates(reference.var_names, "reference")
            warn_about_types(reference.obs, labels_key)
            if batch_key is not None:
                warn_about_unmeasured(reference, layer, batch_key)
        register(
            cls,
            reference,
            {REGISTRY_KEYS.LABELS_KEY: labels_key},
            _registry,
            layer=layer,
            name="reference",
            labels_key=labels_key,
            batch_key=batch_key,
            subject_key=subject_key,
        )

    def train(
        self, *, checkpoint_dir: str | os.PathLike | None = None, **trainer_kwargs: object
    ) -> None:
        """Learn the profiles of the reference's types.

        Ribosomal and mitochondrial genes are left out: told by symbols, also in a column of
        ``reference.var``, or by Ensembl identifiers of human and mouse.

        Obeys ``scvi.settings.seed``; ``model.history`` has the losses of prototypes by epoch.

        Parameters
        ----------
        checkpoint_dir
            Folder for the state of the training of prototypes, written at the beginning of every
            epoch. Training that was cut off goes on from there when the same call is made again,
            to the same result.
        **trainer_kwargs
            For :class:`scvi.train.Trainer`, which trains the prototypes, such as
            ``enable_progress_bar`` or ``logger``.

        Raises
        ------
        FloatingPointError
            If a loss of the prototypes became NaN or infinite.
        """
        known = ("checkpoint_dir", "enable_progress_bar")
        check_known("BulkDeconvolution.train", trainer_kwargs, known, TRAINER_OPTIONS)
        check_unchanged(self, every_value=True)
        self.seed_ = settings.seed or 0
        resumable = Resumable.open(checkpoint_dir, self.seed_, facts_of(self), trainer_kwargs)
        names = GeneNames.of(self.adata.var)
        is_kept = ~names.is_housekeeping()
        warn_about_housekeeping(int((~is_kept).sum()), names.names, has_symbols=names.has_symbols)
        arguments = (self.n_states, self.signature, self.min_cells_per_type)
        learning = Learning(*arguments, self.seed_, resumable, trainer_kwargs)
        setup = self.registry["setup_args"]
        with threadpool_limits(ONE_THREAD):
            signatures, self.history_ = find_signatures(self.adata, is_kept, setup, learning)
        self.gene_names_, self.is_kept_ = names.stored(), is_kept
        self.module.keep(stored(signatures))
        self.studies_ = {name: list(s.types) for name, s in signatures.items()}
        self.is_trained_ = True
        self._save_best(resumable, self.history_)
        resumable.end()

    def deconvolve(  # noqa: PLR0913
        self,
        bulk: AnnData,
        *,
        layer: str | None = None,
        kind: Literal["auto", "counts", "tpm"] = "auto",
        method: Literal["joint", "network"] = "joint",
        likelihood: Literal["robust", "nb"] = "robust",
        cell_size: str | Mapping[str, float] | pd.Series = "auto",
        measured: pd.DataFrame | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        other_types: Sequence[str] = (),
        unknown: bool = False,
        interval: float | None = 0.9,
        budget: BulkBudget | None = None,
    ) -> BulkResult:
        """Find the fractions of cell types in bulk samples.

        Parameters
        ----------
        bulk
            Samples x genes, on a linear scale. One sample works, but a shift of genes between
            bulk and reference is told from composition by several. Genes whose ``var_names`` are
            of another kind than those of the reference are matched without versions, or by a
            column of ``var`` of either, with a warning.
        layer
            Layer with the expression; `None` means ``bulk.X``.
        kind
            ``"counts"``, or ``"tpm"`` for any shares of unknown depth (TPM, FPKM, CPM);
            ``"auto"`` looks, and says what it took.
        method
            ``"joint"``: the joint fit of all samples. ``"network"``: a network, trained for this
            bulk on simulated mixtures of the reference, that reads every sample by itself.
        likelihood
            ``"robust"``: t-distributed residuals on a log scale. ``"nb"``: negative binomial
            counts, for bulks of the same protocol as the reference.
        cell_size
            RNA per cell. ``"table"``: a table for human blood and immune cells, in which types
            are found by their names; others take their counts, with a warning.
            ``"reference"``: counts per cell of the reference, which depend on its chemistry.
            ``"none"``: fractions of RNA. A mapping (or a Series) from types to relative RNA per
            cell is taken as known. ``"auto"``: the table if it has the types of half of the
            reference's cells or more, else the reference, with a warning.
        measured
            Fractions of cells measured in some of the samples (flow cytometry), samples x types;
            NaN where a type was not measured in a sample. They correct what is wrong with a type
            in all samples; the estimates of measured samples are not set to them.
        groups
            Names of measured columns that hold several types, ``{"T": ["CD4 T", "CD8 T"]}``.
        other_types
            Types that only other references have, whose results are averaged with this one:
            `cell_size`, `measured` and `groups` may name them.
        unknown
            Add a component for content that the reference lacks. It may take what belongs to
            types: compare with a fit without it.
        interval
            Probability of the intervals; `None` leaves them out, and saves their time.
        budget
            Steps and draws; `None` for ``BulkBudget()``. Fewer are faster and less exact.

        Returns
        -------
        :class:`BulkResult`, with proportions and intervals as DataFrames.

        Raises
        ------
        ValueError
            If the bulk is not on a linear scale, has missing values, duplicated or empty samples,
            or too few genes that tell types apart; if measured fractions are none.
        TypeError
            If `budget` is no :class:`BulkBudget`.
        """
        check_trained(self)
        check_kind_name(kind)
        check_method(method, likelihood, unknown)
        budget = check_budget(budget)
        types = list(dict.fromkeys([*self.types, *other_types]))
        cell_size = check_cell_size(cell_size, types)
        check_unknown(unknown, self.types)
        if interval is not None:
            check_number("interval", interval, 0.01, 0.999)
        samples = Samples.read(bulk, layer, kind, self._gene_names)
        if not len(self.is_kept_):  # a file from before: by the genes that it knew
            samples = replace(samples, left_out=pd.Index([]))
        measured, member = check_measured(measured, groups, samples.names, types)
        options = Options(
            method=method,
            likelihood=likelihood,
            cell_size=cell_size,
            measured=measured,
            member=member,
            unknown=unknown,
            interval=interval,
            n_genes_per_type=self.n_genes_per_type,
            budget=budget,
            seed=self.seed_,
        )
        with threadpool_limits(ONE_THREAD):
            result = deconvolve_all(self._signatures.values(), samples, options)
        if unknown:
            warn_about_unknown(result.proportions[UNKNOWN])
        return result

    def get_proportions(self, bulk: AnnData | BulkResult, **options: object) -> pd.DataFrame:
        """Return fractions of cells.

        Parameters
        ----------
        bulk
            Samples, or what :meth:`deconvolve` returned.
        **options
            For :meth:`deconvolve`, of samples.

        Returns
        -------
        DataFrame of samples x types, rows sum to one.
        """
        return self._result(bulk, options).proportions

    def get_mrna_fractions(self, bulk: AnnData | BulkResult, **options: object) -> pd.DataFrame:
        """Return fractions of RNA of the genes that bulk and reference share.

        Parameters
        ----------
        bulk, **options
            As in :meth:`get_proportions`.

        Returns
        -------
        DataFrame of samples x types, rows sum to one.
        """
        return self._result(bulk, options).mrna_fractions

    def get_fit_quality(self, bulk: AnnData | BulkResult, **options: object) -> pd.DataFrame:
        """Return how well mixtures explain the samples, and what was assumed.

        Parameters
        ----------
        bulk, **options
            As in :meth:`get_proportions`.

        Returns
        -------
        DataFrame with a row for every sample, ``attrs`` with what holds for all of them; see
        ``quality`` of :class:`BulkResult`.
        """
        return self._result(bulk, options).quality

    def get_cell_type_expression(
        self, bulk: AnnData | BulkResult, condition_key: str | None = None, **options: object
    ) -> TypeExpression:
        """Return what every cell type expresses in every condition.

        Fractions are held fixed. A gene changes in a condition by an amount that all types share
        and one of the type's own, which samples of different composition tell apart: with few
        samples, or for a rare type, it is hardly known, and ``reliability`` says so. A change of
        all types in all conditions looks like a shift between protocols and is mostly taken for
        one: compare conditions with each other rather than with the reference.

        Parameters
        ----------
        bulk
            Samples, or what :meth:`deconvolve` returned.
        condition_key
            Column of ``bulk.obs`` with the condition of every sample; `None` takes all samples
            as one. A condition of one sample works, with a warning.
        **options
            For :meth:`deconvolve`, of samples.

        Returns
        -------
        :class:`TypeExpression`: ``expression`` and ``reliability``, DataFrames of (condition,
        type) x genes.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If a sample has no condition.
        """
        return find_expression(self._result(bulk, options), condition_key)

    def annotate(
        self,
        bulk: AnnData,
        *,
        key_added: str = "bulk",
        overwrite: bool = False,
        result: BulkResult | None = None,
        write_layer: bool = True,
        condition_key: str | None = None,
        **options: object,
    ) -> None:
        """Write the results into a bulk.

        Writes ``obsm["bulk_proportions"]``, ``obsm["bulk_lower"]`` and ``obsm["bulk_upper"]``
        (unless ``interval=None``), ``obsm["bulk_mrna_fractions"]``, for every type
        ``layers["bulk_<type>"]``, counts per million of the type's own RNA, one profile per
        condition repeated over its samples, and ``layers["bulk_reliability_<type>"]``, see
        :meth:`get_cell_type_expression`; and ``uns["bulk"]`` (parameters, what was assumed,
        versions, time). Layers have missing values at genes that the reference does not share,
        whose number is ``uns["bulk"]["n_genes_without_profile"]``.
        A slash in the name of a type becomes ``_``, as files cannot hold it (a number follows if
        another type has that name): ``uns["bulk"]`` has the names as they are, in ``"types"``, and
        in ``"layers"`` by layer.

        Parameters
        ----------
        bulk
            Where to write.
        key_added
            Replaces ``bulk`` in the names.
        overwrite
            Replace slots that something else wrote.
        result
            What to write; `None` calls :meth:`deconvolve`.
        write_layer
            Write the layers, two dense matrices of samples x genes for every type.
        condition_key
            Column of ``bulk.obs`` with the condition of every sample; `None` takes all samples
            for one condition.
        **options
            For :meth:`deconvolve`.

        Raises
        ------
        KeyError
            If there is no such column.
        ValueError
            If a slot is taken, a sample has no condition, or `result` is of other samples.
        MemoryError
            If the layers would not fit.
        """
        check_trained(self)
        check_layer(bulk, options.get("layer"), "bulk")
        check_condition(bulk.obs, condition_key)
        types, has_interval = self.types, options.get("interval", 0.9) is not None
        if result is not None:
            check_no_options(options)
            check_same_samples(result, bulk)
            types, has_interval = types_of(result), result.lower is not None
        layers = layer_names(types, key_added) if write_layer else {}
        writing = Writing(key_added, condition_key, layers)

        def compute() -> tuple[dict[Slot, object], dict]:
            found = self.deconvolve(bulk, **options) if result is None else result
            return writing.values(found, bulk)

        annotate(
            self,
            bulk,
            key_added,
            writing.slots(has_interval=has_interval),
            compute,
            options={k: v for k, v in options.items() if isinstance(v, (str, int, float))},
            overwrite=overwrite,
            remedy=REMEDY,
        )

    def check(self) -> pd.DataFrame:
        """Return a table of what of the reference deserves a second look.

        Returns
        -------
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``.
        """
        check_trained(self)
        return check_table(diagnose(self._signatures, self.n_genes_per_type))

    def report(
        self,
        path: str | os.PathLike | None = None,
        *,
        result: BulkResult,
        overwrite: bool = False,
    ) -> Report:
        """Write a page that says what was done, whether to trust it, and what it rests on.

        Parameters
        ----------
        path
            The file, ending in ``.html``; `None` writes none. It holds its figures, needs no
            network, and runs no script.
        result
            What :meth:`deconvolve` returned; of several references their average.
        overwrite
            Replace a file that is there.

        Returns
        -------
        :class:`Report`, which prints as a summary of a few lines.

        Raises
        ------
        FileExistsError
            If there is a file and `overwrite` is not set.
        TypeError
            If `result` is no :class:`BulkResult`.
        """
        check_trained(self)
        if not isinstance(result, BulkResult):
            raise TypeError(
                f"`result` is {a_kind_of(result)}. Pass what `model.deconvolve(bulk)` returns."
            )
        return written(report_of(self, result), path, overwrite=overwrite)

    @property
    def types(self) -> list[str]:
        """Cell types of the reference."""
        return sorted({kind for types in self.studies_.values() for kind in types})

    @property
    def _signatures(self) -> dict[str, Signature]:
        check_trained(self)
        genes = genes_of(self.registry)
        is_kept = self.is_kept_ if len(self.is_kept_) else ~has_left_out_prefix(genes)
        return restored(self.module.tables, self.studies_, genes[is_kept])

    @property
    def _gene_names(self) -> GeneNames:
        if not self.gene_names_:  # of names of another kind, or from a file without them
            return GeneNames.of(self._adata.var)
        return GeneNames.restored(genes_of(self.registry), self.gene_names_)

    def _result(self, bulk: AnnData | BulkResult, options: dict) -> BulkResult:
        if not isinstance(bulk, BulkResult):
            return self.deconvolve(bulk, **{"interval": None} | options)
        check_trained(self)
        check_no_options(options)
        return bulk
