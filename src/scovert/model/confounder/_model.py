"""Treatment effects in the presence of unmeasured confounders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scvi import settings
from scvi.model.base import BaseModelClass
from tqdm.auto import tqdm

from scovert.core._annotating import Slot, annotate, find_target
from scovert.core._arguments import check_known, knows_its_arguments
from scovert.core._checks import (
    check_choice,
    check_covariates,
    check_gene_list,
    check_genes,
    check_layer,
    check_number,
    select_rows,
    warn_about_cells,
    warn_about_file,
)
from scovert.core._count_checks import check_counts
from scovert.core._counts import get_counts
from scovert.core._diagnostics import check_table, dispersion_row, finite_row
from scovert.core._minibatch import check_query, check_trained, genes_of
from scovert.core._registering import check_set_up, check_unchanged, register
from scovert.core._save_load import SaveLoadMixin
from scovert.core._slots import slot_name
from scovert.core.training._checkpoint import Resumable
from scovert.model.confounder._checks import (
    check_clusters,
    check_controls,
    check_latents,
    check_size_factors,
    check_treatment,
    check_treatment_apart,
    warn_about_arms,
    warn_about_clusters,
    warn_about_controls,
    warn_about_leakage,
)
from scovert.model.confounder._data import (
    TREATMENT_KEY,
    TreatmentData,
    find_scale,
    treatment_levels,
)
from scovert.model.confounder._design import check_design, warn_about_overlap
from scovert.model.confounder._diagnostics import (
    deviance_fall_row,
    identification_rows,
    latent_number_row,
    leakage_row,
)
from scovert.model.confounder._inference import Inference
from scovert.model.confounder._module import ConfounderModule
from scovert.model.confounder._tables import (
    MIN_COUNTS,
    for_genes,
    joined_table,
    say_what_was_assumed,
    warn_of_doubts,
)
from scovert.model.confounder.effects import Estimate
from scovert.model.confounder.effects._identify import IDENTIFICATIONS
from scovert.model.confounder.fit._full_batch import FullBatchFit, deviance_frame, find_device
from scovert.model.confounder.fit._networks import NetworkTraining, restored_network

__all__ = ["LatentConfounder"]

logger = logging.getLogger(__name__)

Identification = Literal["auto", "classes", "sparse", "controls", "randomised"]
PRECISIONS = {32: torch.float32, 64: torch.float64}
TRAIN_OPTIONS = (
    "solver",
    "max_epochs",
    "batch_size",
    "precision",
    "accelerator",
    "enable_progress_bar",
)
"""Arguments of `train` that are not a solver's."""

MAX_ROUNDS = 100


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

    RENAMED_VALUES: ClassVar = {"solver_": {"exact": "full_batch"}}

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
        self.seed_, self.precision_ = 0, 32
        self.cells_ = ""
        self.solver_: str | None = None
        self.module = ConfounderModule()
        n_columns = len(self.levels_) + adata.n_obs // 10
        check_latents(n_latent, z_type, max(0, min(adata.n_obs - n_columns, adata.n_vars) // 3))
        self._n_latent = n_latent
        self._inferred: Inference | None = None
        self._inferred_from: AnnData | None = None
        self._model_summary_string = (
            f"LatentConfounder of {adata.n_obs} cells, {adata.n_vars} genes: n_latent={n_latent}, "
            f"z_type={z_type!r}, {', '.join(self._comparisons)}"
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

        Writes only what scvi-tools keeps under names that begin with ``_scvi_``.

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
            Column of ``adata.obs`` with donors or samples whose cells are not independent.

        Raises
        ------
        KeyError
            If a key or the layer does not exist.
        ValueError
            If the counts are not counts, there is nothing to compare, an arm has fewer than 20
            cells or 3 clusters, a covariate is constant or collinear, covariates separate an arm
            from the reference perfectly, or gene names are duplicated.
        """
        where = check_layer(adata, layer)
        check_genes(adata)
        covariates = check_covariates(adata, categorical_covariate_keys, continuous_covariate_keys)
        categorical, continuous = covariates
        others = [*(categorical or []), *(continuous or []), size_factor_key, cluster_key]
        check_treatment_apart(treatment_key, others)
        check_size_factors(adata, size_factor_key)
        levels = check_treatment(adata, treatment_key, reference)
        check_design(adata, treatment_key, levels, *covariates)
        check_clusters(adata, cluster_key, treatment_key)
        totals = check_counts(get_counts(adata, layer), where, adata)
        if _registry is None:
            warn_about_cells(adata, totals)
            warn_about_arms(adata, treatment_key)
            warn_about_overlap(adata, treatment_key, levels, *covariates)
            warn_about_file(adata, layer)
            if cluster_key is None:
                warn_about_clusters(adata, treatment_key, others)
        register(
            cls,
            adata,
            {TREATMENT_KEY: treatment_key},
            _registry,
            treatment_key=treatment_key,
            layer=layer,
            reference=levels[0],
            categorical_covariate_keys=categorical,
            continuous_covariate_keys=continuous,
            size_factor_key=size_factor_key,
            cluster_key=cluster_key,
        )

    def train(
        self,
        solver: Literal["full_batch", "amortized", "alternating"] = "full_batch",
        *,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        precision: Literal[32, 64] = 32,
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
        batch_size
            Cells in a minibatch (default 128 and 32). With ``"full_batch"`` cells in a block, on
            which the result does not depend; `None` takes as many as a core's cache holds.
        precision
            Bits of numbers that there is one of for every cell and gene; sums over cells have 64.
            Networks have 32.
        accelerator
            Where to compute: ``"auto"`` (a CUDA device if there is one), ``"cpu"`` or ``"gpu"``.
        enable_progress_bar
            Show progress.
        **solver_kwargs
            With ``"amortized"``: `lr`, the learning rate at the start (default 0.01). With
            ``"alternating"``: `scale`, ``"mean"`` (the loss of the treatment counts as much as the
            mean over the genes) or ``"joint"`` (as any one gene); `dbpr_weight`, weight of the
            reward for explained deviance (default 1); `relaxation`, how a gradient passes a
            binary confounder, ``"straight_through"`` or ``"gumbel"``. With both: options of
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
        check_choice("solver", solver, ("full_batch", "amortized", "alternating"))
        check_choice("precision", precision, tuple(PRECISIONS))
        for name, value in (("max_epochs", max_epochs), ("batch_size", batch_size)):
            if value is not None:
                check_number(name, value, 1, whole=True)
        is_full_batch = solver == "full_batch"
        asked = NetworkTraining(solver, max_epochs, batch_size, enable_progress_bar, solver_kwargs)
        resumable = Resumable.none()
        if is_full_batch:
            check_known("train(solver='full_batch')", solver_kwargs, TRAIN_OPTIONS)
        else:
            asked.check(TRAIN_OPTIONS)
        check_unchanged(self, every_value=True)
        self._inferred = None
        self.seed_, self.precision_ = settings.seed or 0, precision
        if not is_full_batch:
            resumable = asked.resumable(self, self.seed_)
        cells = TreatmentData.read(self.adata, self.registry, self.scale_)
        kept = cells.totals().sum(0) >= MIN_COUNTS
        if not kept.any():
            raise ValueError(f"No gene has {MIN_COUNTS} counts or more. Pass more cells or genes.")
        check_latents(self._n_latent, self.z_type_, int(kept.sum()) // 3)
        device, size = find_device(accelerator), batch_size if is_full_batch else None
        blocks = cells.blocks(kept, device, PRECISIONS[precision], size)
        with tqdm(disable=not (enable_progress_bar and is_full_batch), unit="round") as bar:
            full_batch = FullBatchFit(blocks, cells, self.seed_, max_epochs or MAX_ROUNDS, bar)
            if is_full_batch:
                tables, deviance = full_batch.run(self._n_latent, self.z_type_)
                history, network = {"deviance": deviance_frame(deviance)}, None
            else:
                tables, history, network = asked.run(
                    full_batch,
                    kept,
                    self._n_latent,
                    self.z_type_,
                    names=self.adata.obs_names,
                    resumable=resumable,
                )
        self.module.keep(**tables)
        self.module.keep_network(network)
        self.module.to(device)
        self.cells_ = cells.fingerprint()
        self.history_, self.solver_, self.is_trained_ = history, solver, True
        self._save_best(resumable, history)
        resumable.end()
        if solver == "alternating":
            warn_about_leakage(self.get_leakage())

    def get_latent_representation(
        self,
        adata: AnnData | None = None,
        indices: ArrayLike | None = None,
        batch_size: int | None = None,
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
        batch_size
            Cells in a block; the result does not depend on it.

        Returns
        -------
        Array of shape ``(n_cells, n_latent)``, float32.
        """
        if batch_size is not None:
            check_number("batch_size", batch_size, 1, whole=True)
        _, cells = self._query(adata, indices)
        latents = self._inference.latents(cells, self._estimate(), batch_size)
        return latents.astype(np.float32)

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
        values = self._inference.class_probabilities(cells)
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
        inference, genes = self._inference, genes_of(self.registry)
        said, tables = [], {}
        for arm, estimate in enumerate(estimates):
            comparison = self._comparisons[arm]
            said.append(say_what_was_assumed(estimate, comparison, self.n_latent))
            logger.info(said[-1])
            if inference.is_first_time(id(estimate)):
                warn_of_doubts(estimate, comparison)
            tables[self.levels_[arm + 1]] = inference.table(arm, estimate, genes)
        table = joined_table(tables, estimates)
        table.attrs |= {
            "reference": ", ".join(self._comparisons),
            "assumption": "; ".join(said),
        }
        return table

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
        inference = self._inference
        values = {"treatment": 0.0, "counts": 0.0}
        if self.n_latent:
            values["treatment"] = inference.treatment_deviance(self._estimate())
            values["counts"] = inference.count_deviance()
        return pd.DataFrame({"dbpr": values})

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
        names = self._slot_names(key_added, write_layer=write_layer)
        options = {
            "identification": identification,
            "negative_controls": negative_controls,
            "method": method,
        }
        compute, slots = partial(self._results, target, names, options), list(names.values())
        annotate(self, target, key_added, slots, compute, options=options, overwrite=overwrite)

    def _results(
        self, target: AnnData, names: dict[str, Slot], options: dict
    ) -> tuple[dict[Slot, object], dict]:
        """Return the values of slots, and what of the effects belongs into the record."""
        effects = self.get_treatment_effects(**options)
        inference, estimates = self._inference, self._estimate(**options)
        cell_names, cells = self._query(target, None)
        values = {names["latent"]: inference.latents(cells, estimates).astype(np.float32)}
        if "layer" in names:
            columns = genes_of(self.registry).get_indexer(target.var_names)
            values[names["layer"]] = inference.means(cells, cells.level, estimates, columns)
        is_one_arm = len(self.levels_) == 2
        propensity = inference.propensity_scores(cells, estimates)
        arms = [self._arm_slots.get(level, level) for level in self.levels_]
        values[names["propensity"]] = (
            propensity[:, 1] if is_one_arm else pd.DataFrame(propensity, cell_names, arms)
        )
        if "class" in names:
            classes = inference.class_probabilities(cells)
            labels = [f"class_{i + 1}" for i in range(classes.shape[1])]
            values[names["class"]] = pd.Categorical.from_codes(classes.argmax(1), labels)
        for arm in self.levels_[1:]:
            own = effects if is_one_arm else effects.loc[arm]
            values[names[f"effects {arm}"]] = for_genes(own, target.var_names)
        return values, self._record(effects.attrs)

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
        leakage = self._inference.leakage(estimates)
        rows = [
            finite_row(self.history),
            deviance_fall_row(self.history),
            dispersion_row(1 / self.module.array("dispersion")),
            latent_number_row(self.n_latent),
            leakage_row(leakage, *self._inference.against_leakage),
        ]
        for comparison, estimate in zip(self._comparisons, estimates, strict=True):
            is_plain = self.n_latent == 0 and not estimate.limits
            choice = "plain regression" if is_plain else estimate.choice
            rows += identification_rows(comparison, choice, estimate)
        return check_table(rows)

    def _slot_names(self, key: str, *, write_layer: bool) -> dict[str, Slot]:
        """Return container and name of every slot of `annotate`."""
        arms = self.levels_[1:]
        places = {"latent": ("obsm", f"X_{key}")}
        if write_layer:
            places["layer"] = ("layers", key)
        places["propensity"] = ("obs" if len(arms) == 1 else "obsm", f"{key}_propensity")
        if self._inference.n_classes > 1:
            places["class"] = ("obs", f"{key}_class")
        for arm in arms:
            suffix = "" if len(arms) == 1 else f"_{self._arm_slots[arm]}"
            places[f"effects {arm}"] = ("varm", f"{key}_effects{suffix}")
        return places

    def _record(self, said: dict) -> dict[str, object]:
        """Return what `annotate` keeps of the attributes of a table of effects."""
        record = {key: said[key] for key in ("reference", "assumption", "identification", "facts")}
        if len(self.levels_) > 2:
            slots = self._arm_slots
            for key in ("identification", "facts"):
                record[key] = {slots[arm]: value for arm, value in said[key].items()}
            record["arms"] = {slot: arm for arm, slot in slots.items()}
        if self.module.scree is not None:
            record["scree"] = self.module.array("scree")
        return record

    @property
    def _arm_slots(self) -> dict[str, str]:
        """What stands for every level in the names of slots; refuses names that become one."""
        slots = {level: slot_name(level) for level in self.levels_}
        if len(set(slots.values())) < len(slots):
            raise ValueError(
                f"The levels {self.levels_} are not told apart once a slash has become '_', as "
                "names of slots need. Rename them."
            )
        return slots

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
        return self.module.scores.shape[1]

    @property
    def scree(self) -> pd.DataFrame:
        """How the number of confounders was found: residual structure, and that by chance.

        DataFrame indexed by the number of confounders, with the largest ``singular_value`` of the
        residuals and the ``threshold`` it had to exceed for one confounder more.
        """
        check_trained(self)
        if self.module.scree is None:
            raise RuntimeError("`n_latent` was given, so it was not looked for. Pass 'auto'.")
        table = pd.DataFrame(self.module.array("scree"), columns=["singular_value", "threshold"])
        return table.rename_axis("n_latent")

    @property
    def _comparisons(self) -> list[str]:
        return [f"{level} v. {self.levels_[0]}" for level in self.levels_[1:]]

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
        cells = TreatmentData.read(self.adata, self.registry, self.scale_)
        if cells.fingerprint() != self.cells_:
            raise ValueError(
                "The AnnData of this model does not hold what it was trained with: it has other "
                "cells or another order of them, or its counts, treatment or covariates were "
                "changed. Effects are those of the cells that were fitted: attach these, with "
                "raw counts (keep them in a layer, `layer=...`), and pass other cells to the "
                "methods as `adata`."
            )
        key = self.registry["setup_args"]["cluster_key"]
        clusters = None if key is None else pd.factorize(self.adata.obs[key])[0]
        network = restored_network(self.module, self.solver_, self.z_type_)
        return Inference(
            cells,
            self.module,
            self.levels_,
            clusters,
            seed=self.seed_,
            network=network,
            dtype=PRECISIONS[self.precision_],
        )

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
            cells = TreatmentData.read(adata, self.registry, self.scale_)
        rows = select_rows(indices, len(cells))
        return adata.obs_names[rows], cells if indices is None else cells.take(rows)

    def _estimate(
        self, identification: str = "auto", negative_controls: object = None, method: str = "wald"
    ) -> list[Estimate]:
        """Return the estimates of all arms, once what is asked for was checked."""
        inference = self._inference
        check_choice("identification", identification, tuple(IDENTIFICATIONS))
        check_choice("method", method, ("wald", "aipw"))
        if inference.states is not None and identification not in ("auto", "classes"):
            raise ValueError(
                f"`identification={identification!r}` is for continuous confounders: binary ones "
                "identify effects by their own states. Pass 'auto', or `z_type='continuous'`."
            )
        if inference.is_plug_in and identification != "auto":
            raise ValueError(
                f"`identification={identification!r}` is for confounders that are orthogonal to "
                "the treatment, and the generator of `solver='alternating'` sees it. Pass 'auto', "
                "or train with `solver='full_batch'`."
            )
        if negative_controls is None and identification == "controls":
            raise ValueError(
                "`identification='controls'` needs `negative_controls`: names of genes that the "
                "treatment leaves alone, or a boolean column of `adata.var`."
            )
        if negative_controls is None:
            return inference.estimate(identification, None, method)
        if identification not in ("auto", "controls") or inference.states is not None:
            raise ValueError(
                f"`negative_controls` say nothing with `identification={identification!r}` of "
                f"{self.z_type_} confounders. Leave them out, or pass `identification='controls'` "
                "with continuous ones."
            )
        tested = (inference.reasons == "").all(0)
        is_control = check_controls(negative_controls, self.adata.var, tested)
        if inference.is_first_time(is_control.tobytes()):
            warn_about_controls(int((is_control & tested).sum()))
        return inference.estimate("controls", is_control, method)
