"""Treatment effects in the presence of unmeasured confounders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import settings
from scvi.model.base import BaseModelClass

from scovert.core._annotating import Slot, annotate, find_target
from scovert.core._arguments import knows_its_arguments
from scovert.core._checks import (
    check_categorical,
    check_choice,
    check_gene_list,
    check_number,
    select_rows,
)
from scovert.core._diagnostics import check_table
from scovert.core._minibatch import check_query, check_trained, genes_of
from scovert.core._registering import check_set_up, check_unchanged, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core.report import Report, written
from scovert.model.confounder._annotation import record, slots, values
from scovert.model.confounder._checks import (
    check_latents,
    check_size_factors,
    warn_about_leakage,
)
from scovert.model.confounder._data import (
    TREATMENT_KEY,
    TreatmentData,
    check_same_cells,
    design_of,
    find_donors,
    find_scale,
    treatment_levels,
)
from scovert.model.confounder._diagnostics import diagnose
from scovert.model.confounder._donor_design import DonorDesign
from scovert.model.confounder._fitted import Fitted, from_earlier
from scovert.model.confounder._inference import Inference
from scovert.model.confounder._module import ConfounderModule
from scovert.model.confounder._placebo import PlaceboCells, placebo_row, run_placebo
from scovert.model.confounder._report import report_of
from scovert.model.confounder._setup import checked
from scovert.model.confounder._tables import comparisons
from scovert.model.confounder.effects import Estimate
from scovert.model.confounder.effects._identify import IDENTIFICATIONS
from scovert.model.confounder.fit._full_batch import find_device
from scovert.model.confounder.fit._solvers import Solver

__all__ = ["LatentConfounder"]

Identification = Literal["auto", "classes", "sparse", "controls", "randomised"]


@knows_its_arguments()
class LatentConfounder(SaveLoadMixin, BaseModelClass):
    """Effects of a treatment on every gene that survive what nobody measured.

    Infers unmeasured confounders Z of a treatment from counts and known covariates by a negative
    binomial factor model whose scores are orthogonal to the treatment, and then the one thing that
    such scores cannot know: by how much Z differs between the arms. That takes an assumption,
    which is chosen, said and stored. See :doc:`/models/confounder` for the model, for what each
    assumption means, and for when not to use it.

    Parameters
    ----------
    adata
        Cells of all arms, prepared with :meth:`setup_anndata`.
    n_latent
        Number of unmeasured confounders; ``"auto"`` finds it by sequential parallel analysis. 0
        means that there are none.
    z_type
        ``"continuous"``, or ``"binary"`` for up to 4 confounders of two states each, whose
        probabilities are computed exactly.

    Examples
    --------
    >>> import scovert
    >>> from scovert.model import LatentConfounder
    >>> adata = scovert.simulate.confounder("sparse", seed=1)
    >>> LatentConfounder.setup_anndata(adata, "treatment", size_factor_key="size_factor")
    >>> model = LatentConfounder(adata, n_latent=1, z_type="binary")
    >>> model.train(enable_progress_bar=False)
    >>> effects = model.get_treatment_effects()
    >>> effects.attrs["reference"], effects.attrs["identification"]
    ('True v. False', 'classes')
    """

    _from_earlier = staticmethod(from_earlier)

    def __init__(
        self,
        adata: AnnData,
        *,
        n_latent: int | Literal["auto"] = "auto",
        z_type: Literal["continuous", "binary"] = "continuous",
    ) -> None:
        check_set_up(type(self), adata)
        super().__init__(adata)
        check_unchanged(self)
        check_choice("z_type", z_type, ("continuous", "binary"))
        self.z_type_ = z_type
        self.levels_ = [str(level) for level in treatment_levels(self.registry)]
        self.scale_ = find_scale(adata, self.registry)
        self.design_ = design_of(adata, self.registry)._asdict()
        self.seed_, self.cells_ = 0, ""
        self.solver_: str | None = None
        self.placebo_: dict[str, list[float]] | None = None
        vars(self).update(Fitted.none())
        self.module = ConfounderModule(z_type)
        n_columns = len(self.levels_) + adata.n_obs // 10
        check_latents(n_latent, z_type, max(0, min(adata.n_obs - n_columns, adata.n_vars) // 3))
        self._n_latent = n_latent
        self._inferred: Inference | None = None
        self._inferred_from: AnnData | None = None
        self._model_summary_string = (
            f"LatentConfounder of {adata.n_obs} cells, {adata.n_vars} genes: n_latent={n_latent}, "
            f"z_type={z_type!r}, {', '.join(comparisons(self.levels_))}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        treatment_key: str,
        layer: str | None = None,
        reference: object = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        size_factor_key: str | None = None,
        cluster_key: str | None = None,
        _registry: dict | None = None,  # of a saved model
    ) -> None:
        """Say where in `adata` counts, treatment and covariates are.

        Writes only what scvi-tools keeps under names that begin with ``_scvi_``. Logs how the
        treatment is spread over the donors, by which the effects are estimated.

        Parameters
        ----------
        adata
            Cells with raw counts.
        treatment_key
            Column of ``adata.obs`` with the treatment: bool, 0 and 1, or two or more categories.
        layer
            Layer with the raw counts; `None` means ``adata.X``, ``"raw"`` (unless a layer is
            called so) the genes of `adata` in ``adata.raw``.
        reference
            Level that the others are compared with; `None` only for bool (`False`) and 0 and 1
            (0).
        categorical_covariate_keys, continuous_covariate_keys
            Columns of ``adata.obs`` with what was measured and may differ between the arms.
        size_factor_key
            Column of ``adata.obs`` with positive size factors; `None` takes the total count of a
            cell by the mean of all.
        cluster_key
            Column of ``adata.obs`` with donors or samples whose cells are not independent. Where
            three or more hold every arm, with 80 % of the cells, arms are compared within them.

        Raises
        ------
        KeyError
            If a key or the layer does not exist.
        ValueError
            If the counts are not counts, there is nothing to compare, an arm has fewer than 20
            cells or 3 clusters, a covariate is constant or collinear, covariates separate an arm
            from the reference perfectly, or gene names are duplicated.
        """
        arguments = {
            "treatment_key": treatment_key,
            "layer": layer,
            "reference": reference,
            "categorical_covariate_keys": categorical_covariate_keys,
            "continuous_covariate_keys": continuous_covariate_keys,
            "size_factor_key": size_factor_key,
            "cluster_key": cluster_key,
        }
        kept = checked(adata, arguments, is_new=_registry is None)
        register(cls, adata, {TREATMENT_KEY: treatment_key}, _registry, **kept)

    def train(
        self,
        solver: Literal["full_batch", "amortized", "alternating"] = "full_batch",
        *,
        max_epochs: int | None = None,
        accelerator: str = "auto",
        enable_progress_bar: bool = True,
        **solver_kwargs: object,
    ) -> None:
        """Infer the unmeasured confounders.

        Parameters
        ----------
        solver
            ``"full_batch"``: penalised maximum likelihood by Newton steps, all cells in every
            round. ``"amortized"``: stochastic variational inference in minibatches, with a network
            that infers the confounders of a cell; for more cells than memory can hold at once.
            ``"alternating"``: a generator that sees covariates, treatment and counts, and
            predictors of treatment and counts that judge it, trained in turn. It is here for
            comparison: with ``scale="mean"`` its confounders are copies of the treatment, and its
            effects take them as they are.
        max_epochs
            Most rounds; of ``"amortized"`` the passes over the cells (default 10, or as many as
            make 600 steps), of ``"alternating"`` the rounds of the generator (default 40).
        accelerator
            Where to compute: ``"auto"`` (a CUDA device if there is one), ``"cpu"`` or ``"gpu"``.
        enable_progress_bar
            Show progress.
        **solver_kwargs
            With ``"amortized"``: `lr`, the learning rate at the start (default 0.01), and
            `batch_size`, cells in a minibatch (default 128). With ``"alternating"``: `scale`,
            ``"mean"`` (the loss of the treatment counts as much as the mean over the genes) or
            ``"joint"`` (as any one gene); `dbpr_weight`, weight of the reward for explained
            deviance (default 1); `batch_size` (default 32). With both: options of
            :class:`scvi.train.Trainer`, and `checkpoint_dir`, a folder for the state of training,
            from which training that was cut off goes on when the same call is made again.

        Raises
        ------
        FloatingPointError
            If a loss of a network became NaN or infinite.

        Warns
        -----
        UserWarning
            If a generator's confounder is close to a copy of the treatment, with the leakage.
        """
        chosen = Solver(solver, max_epochs, enable_progress_bar, solver_kwargs)
        chosen.check()
        device = find_device(accelerator)
        check_unchanged(self, every_value=True)
        self._inferred, self.seed_ = None, settings.seed or 0
        resumable = chosen.resumable(self, self.seed_)
        cells = self._read(self.adata)
        found = chosen.run(
            cells,
            self._n_latent,
            self.z_type_,
            names=self.adata.obs_names,
            device=device,
            resumable=resumable,
        )
        vars(self).update(found.fitted.attributes())
        self.module.network = found.network
        self.module.to(device)
        self.cells_, self.placebo_ = cells.fingerprint(), None
        self.history_, self.solver_, self.is_trained_ = found.history, solver, True
        self._save_best(resumable, found.history)
        resumable.end()
        if solver == "alternating":
            warn_about_leakage(self.get_leakage())

    def get_latent_representation(
        self, adata: AnnData | None = None, indices: ArrayLike | None = None
    ) -> NDArray:
        """Return the inferred confounders of cells: most probable scores, or probabilities.

        Continuous scores hold the shift between the arms that identification ``"auto"`` finds;
        their signs and rotation mean nothing, nor does which state of a binary one is called 1.

        Parameters
        ----------
        adata
            Cells with the columns that were set up and the genes of the model in any order; `None`
            means those it was made with.
        indices
            Rows of `adata` in the order of the result, or a mask.

        Returns
        -------
        Array of shape ``(n_cells, n_latent)``, float32.
        """
        _, cells = self._query(adata, indices)
        return self._inference.latents.of_cells(cells, self._estimate()).astype(np.float32)

    def get_class_probabilities(
        self, adata: AnnData | None = None, indices: ArrayLike | None = None
    ) -> pd.DataFrame:
        """Return the probabilities of the hidden classes of cells.

        The classes that identification ``"classes"`` adjusts for, the most frequent first; of
        binary confounders, all combinations of their states. As if every class were equally
        frequent in all arms, so that the treatment says nothing about the class of a cell.

        Parameters
        ----------
        adata, indices
            As in :meth:`get_latent_representation`.

        Returns
        -------
        DataFrame of cells x classes, rows sum to one.
        """
        names, cells = self._query(adata, indices)
        values = self._inference.latents.class_probabilities(cells)
        columns = [f"class_{i + 1}" for i in range(values.shape[1])]
        return pd.DataFrame(values, index=names, columns=columns)

    def get_treatment_probability(
        self, adata: AnnData | None = None, indices: ArrayLike | None = None
    ) -> pd.DataFrame:
        """Return the propensity scores of cells: probabilities of the arms.

        A logistic regression with a ridge on covariates and inferred confounders. It describes how
        the treatment depends on them; no effect rests on it.

        Parameters
        ----------
        adata, indices
            As in :meth:`get_latent_representation`.

        Returns
        -------
        DataFrame of cells x arms, the reference first; rows sum to one.
        """
        names, cells = self._query(adata, indices)
        values = self._inference.propensity_scores(cells, self._estimate())
        return pd.DataFrame(values, index=names, columns=self.levels_)

    def get_treatment_effects(
        self,
        *,
        identification: Identification = "auto",
        negative_controls: Sequence[str] | str | None = None,
        method: Literal["wald", "aipw"] = "wald",
    ) -> pd.DataFrame:
        """Return the effect of the treatment on every gene.

        What tells an effect from a shift of the unmeasured confounders is an assumption. It is
        logged, and stored in ``attrs`` with what speaks for and against it. What speaks against
        it is warned of once, with the first table of an identification.

        Parameters
        ----------
        identification
            ``"classes"``: confounders differ between the arms in how frequent hidden classes of
            cells are; any number of genes may respond. ``"sparse"``: few genes respond.
            ``"controls"``: the `negative_controls` do not respond. ``"randomised"``: the
            treatment was assigned at random. ``"auto"`` chooses between the first two, combines
            them, or refuses p-values if neither can be believed; with `negative_controls` it
            means ``"controls"``. Binary confounders identify effects by their own states, which
            are their ``"classes"``.
        negative_controls
            Genes that the treatment leaves alone: names, or a boolean column of ``adata.var``. At
            least 60 with counts in both arms.
        method
            ``"wald"``: coefficients of the regression. ``"aipw"``: cross-fitted doubly robust
            ratio of means, for comparison; noisier.

        Returns
        -------
        DataFrame with a row for each gene (of several arms, for each arm and gene): ``log2_fc``
        and its standard error ``se``, ``z``, ``p_value``, ``q_value`` (Benjamini-Hochberg, within
        an arm), ``log2_fc_naive`` and ``q_value_naive`` (without unmeasured confounders), and
        ``reason``, why values are NaN. ``attrs`` hold ``reference``, ``identification`` and
        ``facts``; several arms have a column ``identification``.

        Raises
        ------
        ValueError
            If there are too few controls, or the identification is not for this model.
        """
        estimates = self._estimate(identification, negative_controls, method)
        return self._inference.effects(estimates, genes_of(self.registry))

    def get_normalized_expression(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        *,
        treatment: object = None,
        gene_list: Sequence[str] | None = None,
        identification: Identification = "auto",
        negative_controls: Sequence[str] | str | None = None,
    ) -> pd.DataFrame:
        """Return deconfounded means: counts expected with the confounders at their average.

        Parameters
        ----------
        adata, indices
            As in :meth:`get_latent_representation`.
        treatment
            Level that all cells are taken to have; `None` leaves each its own.
        gene_list
            Genes to return; `None` means all.
        identification, negative_controls
            As in :meth:`get_treatment_effects`.

        Returns
        -------
        DataFrame of cells x genes, float32: counts at the cell's own size factor and covariates.
        """
        if treatment is not None:
            check_choice("treatment", str(treatment), self.levels_)
        genes = check_gene_list(gene_list, genes_of(self.registry))
        estimates = self._estimate(identification, negative_controls)
        names, cells = self._query(adata, indices)
        level = cells.level
        if treatment is not None:
            level = np.full(len(cells), self.levels_.index(str(treatment)))
        columns = genes_of(self.registry).get_indexer(genes)
        values = self._inference.means(cells, level, estimates, columns)
        return pd.DataFrame(values, index=names, columns=genes, copy=False)

    def get_partial_deviance(self) -> pd.DataFrame:
        """Return how much the confounders explain, on data that did not help to infer them.

        The share of the deviance that goes away with Z in the model (DBPR, deviance-based partial
        :math:`R^2`): of the treatment in a logistic regression, judged on held-out cells; of the
        counts, with scores inferred from one half of the genes and judged on the other half, in
        held-out cells.

        Returns
        -------
        DataFrame with the rows ``treatment`` and ``counts`` and the column ``dbpr``; about 0 (it
        may be slightly negative) if there is nothing.
        """
        return pd.DataFrame({"dbpr": self._inference.explained(self._estimate())})

    def get_leakage(self) -> float:
        """Return the largest correlation of an inferred confounder with the treatment.

        Given the covariates, over all confounders and arms. Near 1, Z is a copy of the treatment.
        A confounder of the treatment is correlated with it, so that 0 is not the aim.
        """
        return self._inference.leakage(self._estimate())

    def annotate(
        self,
        adata: AnnData | None = None,
        *,
        key_added: str = "confounder",
        write_layer: bool = True,
        overwrite: bool = False,
        identification: Identification = "auto",
        negative_controls: Sequence[str] | str | None = None,
        method: Literal["wald", "aipw"] = "wald",
    ) -> None:
        """Write the results into an AnnData, so that scanpy finds them.

        Writes ``obsm["X_confounder"]`` (inferred confounders), ``layers["confounder"]``
        (deconfounded means), ``obs["confounder_propensity"]`` (propensity scores; of several
        arms ``obsm``), ``obs["confounder_class"]`` (if there are two hidden classes or more),
        ``varm["confounder_effects"]`` (of several arms one each, ``..._<arm>``) and
        ``uns["confounder"]`` (parameters, what was assumed, versions, time).

        Parameters
        ----------
        adata
            Where to write, with the genes of the model in any order; `None` means the AnnData of
            the model.
        key_added
            Replaces ``confounder`` in the names.
        write_layer
            Write the layer, a dense matrix of cells x genes.
        overwrite
            Replace slots that something else wrote.
        identification, negative_controls, method
            As in :meth:`get_treatment_effects`.

        Raises
        ------
        ValueError
            If a slot is taken, or a layer is asked for and `adata` has genes unknown to the model.
        MemoryError
            If the layer does not fit.
        """
        target = find_target(self, adata, layer=key_added if write_layer else None)
        has_classes = self._inference.latents.n_classes > 1
        places = slots(key_added, self.levels_, has_classes=has_classes, write_layer=write_layer)
        options = {
            "identification": identification,
            "negative_controls": negative_controls,
            "method": method,
        }
        compute, names = partial(self._results, target, places, options), list(places.values())
        annotate(self, target, key_added, names, compute, options=options, overwrite=overwrite)

    def _results(
        self, target: AnnData, places: dict[str, Slot], options: dict
    ) -> tuple[dict[Slot, object], dict]:
        """Return the values of slots, and what of the effects belongs into the record."""
        effects, estimates = self.get_treatment_effects(**options), self._estimate(**options)
        _, cells = self._query(target, None)
        found = (genes_of(self.registry), self._inference, estimates, effects)
        kept = record(effects.attrs, self.levels_, self.scree_)
        return values(target, cells, *found, places), kept

    def check(
        self,
        *,
        identification: Identification = "auto",
        negative_controls: Sequence[str] | str | None = None,
        method: Literal["wald", "aipw"] = "wald",
    ) -> pd.DataFrame:
        """Return a table of what of the fit deserves a second look.

        Of the effects that are asked for here, by default those of the automatic choice: what
        :meth:`get_treatment_effects` was asked for before does not matter. Advice is given on what
        these effects rest on, with the limits of the rules that chose.

        Parameters
        ----------
        identification, negative_controls, method
            As in :meth:`get_treatment_effects`.

        Returns
        -------
        DataFrame with a row for each quantity: ``value``, ``verdict`` (``"ok"`` or ``"look"``) and
        ``advice``. What speaks for and against the identification is there for every arm.
        """
        estimates = self._estimate(identification, negative_controls, method)
        table = diagnose(self.history, self._inference, estimates)
        if self.placebo_ is None:
            return table
        return pd.concat([table, check_table([placebo_row(self.placebo_)])])

    def report(
        self,
        path: str | os.PathLike | None = None,
        *,
        overwrite: bool = False,
        identification: Identification = "auto",
        negative_controls: Sequence[str] | str | None = None,
        method: Literal["wald", "aipw"] = "wald",
    ) -> Report:
        """Write a page that says what was done, whether to trust it, and what it rests on.

        Parameters
        ----------
        path
            The file, ending in ``.html``; `None` writes none. It holds its figures, needs no
            network, and runs no script.
        overwrite
            Replace a file that is there.
        identification, negative_controls, method
            As in :meth:`get_treatment_effects`.

        Returns
        -------
        :class:`Report`, which prints as a summary of a few lines.

        Raises
        ------
        FileExistsError
            If there is a file and `overwrite` is not set.
        """
        asked = {
            "identification": identification,
            "negative_controls": negative_controls,
            "method": method,
        }
        report = report_of(self, self.get_treatment_effects(**asked), self.check(**asked))
        return written(report, path, overwrite=overwrite)

    def placebo(
        self,
        n: int = 10,
        *,
        unit_key: str | None = None,
        identification: Literal["auto", "classes", "sparse", "randomised"] = "auto",
        seed: int = 0,
        enable_progress_bar: bool = True,
    ) -> pd.DataFrame:
        """Test fake treatments on the cells at hand, to see whether p-values hold on them.

        Untreated cells (those of the reference) are given a treatment that did nothing, in the
        way the real one was given: half of the cells of every donor, half of the donors if whole
        donors are treated, else half of the cells, of every level of the categorical covariates.
        Each time the whole analysis is run, on up to 3,000 of the cells and 500 of the genes, in
        seconds. It says whether errors, confounders and the choice of an identification hold on
        cells like these; not whether something differs between the samples of one donor, of which
        untreated cells know nothing. :func:`scovert.pl.placebo` draws the p-values, and `check`
        has a row of the last placebo.

        Parameters
        ----------
        n
            Number of fake treatments.
        unit_key
            Column of ``adata.obs`` with what is treated as a whole, such as guides, of which the
            untreated cells need six; `None` means donors, if the real treatment is between them.
        identification
            What was passed to :meth:`get_treatment_effects`. ``"auto"`` chooses anew for each fake
            treatment, which may not be what it chose for the real one: the choice is a part of
            what is tested. So there is no ``"none"``, which only ``"auto"`` arrives at.
        seed
            Seed of the fake treatments, and of the cells and genes.
        enable_progress_bar
            Show progress.

        Returns
        -------
        DataFrame with a row for each fake treatment: ``n_genes`` that were tested, the shares of
        p-values ``below_0.05`` and ``below_0.01``, genes ``called`` at a false discovery rate of
        5 %, and the ``identification``. ``attrs["p_values"]`` holds the p-values of each.

        Raises
        ------
        KeyError
            If `unit_key` is not a column.
        ValueError
            If there are too few untreated cells, or guides or donors of them.
        """
        check_number("n", n, 1, whole=True)
        choices = tuple(name for name in IDENTIFICATIONS if name != "controls")
        check_choice("identification", identification, choices)
        if unit_key is not None:
            check_categorical(self.adata, unit_key, "unit_key")
        is_between = "between donors" in self.design_["kinds"]
        setup = self.registry["setup_args"]
        options = {"is_between": is_between, "unit_key": unit_key}
        cells = PlaceboCells(self.adata, self._inference.cells, setup, **options)
        table = run_placebo(
            type(self),
            cells,
            self.init_params_["non_kwargs"],
            n=n,
            seed=seed,
            identification=identification,
            enable_progress_bar=enable_progress_bar,
        )
        self.placebo_ = table.drop(columns="identification").to_dict("list")
        return table

    @property
    def summary_string(self) -> str:
        """What the model is; once it is trained, with the number of confounders it found."""
        text = super().summary_string
        if not self.is_trained_:
            return text
        return text.replace("n_latent=auto", f"n_latent={self.n_latent}", 1)

    @property
    def n_latent(self) -> int:
        """Number of inferred confounders."""
        check_trained(self)
        return self.scores_.shape[1]

    @property
    def scree(self) -> pd.DataFrame:
        """How the number of confounders was found: residual structure, and that by chance.

        DataFrame indexed by the number of confounders, with the largest ``singular_value`` of the
        residuals and the ``threshold`` it had to exceed for one confounder more.
        """
        check_trained(self)
        if self.scree_ is None:
            raise RuntimeError("`n_latent` was given, so it was not looked for. Pass 'auto'.")
        table = pd.DataFrame(self.scree_, columns=["singular_value", "threshold"])
        return table.rename_axis("n_latent")

    @property
    def _inference(self) -> Inference:
        """What all results are derived from, made at first use."""
        check_trained(self)
        check_unchanged(self)
        known = self._inferred if self._inferred_from is self.adata else None
        if known is None or known.cells.fingerprint() != self.cells_:
            self._inferred, self._inferred_from = self._infer(), self.adata
        return self._inferred

    def _infer(self) -> Inference:
        """Read the cells that were fitted, or refuse others."""
        cells = self._read(self.adata)
        check_same_cells(cells, self.cells_)
        design = DonorDesign(**self.design_)
        donors = find_donors(self.adata, self.registry, cells.covariates, design)
        fitted = Fitted.of(self)
        return Inference(cells, fitted, self.module, self.levels_, donors, design, seed=self.seed_)

    def _read(self, adata: AnnData) -> TreatmentData:
        design = DonorDesign(**self.design_)
        return TreatmentData.read(adata, self.registry, self.scale_, design)

    def _query(
        self, adata: AnnData | None, indices: ArrayLike | None
    ) -> tuple[pd.Index, TreatmentData]:
        """Return names and data of the cells a method was asked about."""
        check_trained(self)
        if adata is None or adata is self.adata:
            adata, cells = self.adata, self._inference.cells
        else:
            check_query(adata, self.registry)
            check_size_factors(adata, self.registry["setup_args"]["size_factor_key"])
            cells = self._read(adata)
        rows = select_rows(indices, len(cells))
        return adata.obs_names[rows], cells if indices is None else cells.take(rows)

    def _estimate(
        self, identification: str = "auto", negative_controls: object = None, method: str = "wald"
    ) -> list[Estimate]:
        """Return the estimates of all arms."""
        var = self.adata.var
        return self._inference.estimates(identification, negative_controls, method, var)
