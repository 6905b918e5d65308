"""From one reference and one bulk to fractions of cells, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from scovert.core._checks import UNKNOWN
from scovert.core._progress import stage
from scovert.model.bulk._bootstrap import (
    add_sample_errors,
    add_shared_errors,
    draw_rna_fractions,
)
from scovert.model.bulk._budget import BulkBudget
from scovert.model.bulk._cohort import Cohort, JointFit
from scovert.model.bulk._joint_fit import fit_cohort
from scovert.model.bulk._measured import Measured
from scovert.model.bulk._result import BulkResult, Fit
from scovert.model.bulk._rna_per_cell import RnaPerCell
from scovert.model.bulk._samples import Samples
from scovert.model.bulk._signature import Signature, sum_states
from scovert.model.bulk.variants._network import NetworkFit, fit_network

__all__ = ["Options", "deconvolve_all"]


DRAWN_UNKNOWN_SD = 1.0
"""Log sd of the profile of the unknown component when intervals are drawn: less than its prior
has, as the samples have told of it."""
N_DRAWS = 600
"""Draws that intervals are quantiles of: 30 beyond each end of one of 90 %."""


@dataclass(frozen=True)
class Options:
    """Options of ``deconvolve`` that the fit of one reference takes.

    Attributes
    ----------
    method, likelihood, cell_size, unknown, interval, budget
        As the arguments of ``deconvolve``.
    n_genes_per_type
        As the argument of the model.
    measured
        Measured fractions, samples x columns, or `None`.
    member
        Whether a type belongs to a column of `measured`, columns x types.
    seed
        Of network and draws.
    """

    method: str
    likelihood: str
    cell_size: str | Mapping[str, float]
    measured: pd.DataFrame | None
    member: pd.DataFrame | None
    unknown: bool
    interval: float | None
    n_genes_per_type: int | Literal["auto"]
    budget: BulkBudget
    seed: int

    @property
    def progress(self) -> tuple[int, str]:
        """What there is to do with one reference, and the unit that it is counted in."""
        if self.method == "network":
            return self.budget.n_network_steps, "step"
        return (1 if self.interval is None else self.budget.n_fits), "fit"


def deconvolve_all(
    references: Collection[Signature], samples: Samples, options: Options
) -> BulkResult:
    """Deconvolve samples with every reference, and average; show progress."""
    total, unit = options.progress
    with stage("Deconvolving", total * len(references), unit=unit) as bar:
        results = [_deconvolve(own, samples, options, bar.update) for own in references]
    return BulkResult.average(results)


def _deconvolve(
    signature: Signature,
    samples: Samples,
    options: Options,
    on_progress: Callable[[int], object],
) -> BulkResult:
    """Deconvolve samples with one reference.

    `on_progress` is called with the number of fits, or of the network's steps, just made.
    """
    profiles, cpm, millions = samples.shared_with(signature, options.n_genes_per_type)
    rna_per_cell = RnaPerCell.choose(profiles, signature.n_cells, options.cell_size)
    cohort = Cohort.of_profiles(profiles, cpm, millions)
    joint, network = _fit(cohort, profiles.state_type, options, on_progress)
    types, state_type = list(profiles.types), profiles.state_type
    if options.unknown:
        types, state_type = [*types, UNKNOWN], np.append(state_type, len(types))
        rna_per_cell = rna_per_cell.with_unknown()
        cohort = cohort.with_profile(joint.unknown, DRAWN_UNKNOWN_SD)
    to_cells = _RnaToCells(state_type, rna_per_cell, _measured(options, samples, types))
    draws = (None, None, None)
    if options.interval is not None:
        draws = to_cells.draw(cohort, joint, network, options, on_progress)
    facts = {
        "n_shared_genes": len(profiles.genes),
        "n_informative_genes": len(profiles.informative),
        "genes_matched_by": samples.match.source,
        "kind": samples.kind,
        "multiplier": draws[2],
    }
    rna = sum_states(joint.weights, state_type)
    names = {"index": samples.names, "columns": types}
    values = rna_per_cell.values
    objective = pd.DataFrame({"objective": (network or joint).objective}).rename_axis("step")
    return BulkResult(
        proportions=pd.DataFrame(to_cells.fractions(rna), **names),
        mrna_fractions=pd.DataFrame(rna, **names),
        cell_sizes=pd.Series(values / stats.gmean(values), types),
        quality=_quality(joint, samples.names, facts | _assumed(rna_per_cell, options)),
        draws=draws[0],
        relative_draws=draws[1],
        history={"objective": objective},
        fits=(Fit(cpm, millions, profiles, joint),),
        obs=samples.obs,
        interval=options.interval,
    ).with_intervals()


def _fit(
    cohort: Cohort,
    state_type: NDArray,
    options: Options,
    on_progress: Callable[[int], object],
) -> tuple[JointFit, NetworkFit | None]:
    """Fit all samples together, with free shares or with those that a network reads."""
    n_steps = options.budget.n_steps
    if options.method != "network":
        joint = fit_cohort(
            cohort, likelihood=options.likelihood, has_unknown=options.unknown, n_steps=n_steps
        )
        on_progress(1)
        return joint, None
    network = fit_network(
        cohort,
        state_type,
        seed=options.seed,
        n_steps=options.budget.n_network_steps,
        on_step=lambda: on_progress(1),
    )
    return fit_cohort(cohort, weights=network.by_state(state_type), n_steps=n_steps), network


@dataclass(frozen=True)
class _RnaToCells:
    """How shares of states in the RNA become fractions of types in the cells."""

    state_type: NDArray
    rna_per_cell: RnaPerCell
    measured: Measured | None

    def fractions(self, rna: NDArray) -> NDArray:
        """Return fractions of cells by those of RNA."""
        return self._corrected(self.rna_per_cell.to_cells(rna))

    def draw(
        self,
        cohort: Cohort,
        joint: JointFit,
        network: NetworkFit | None,
        options: Options,
        on_progress: Callable[[int], object],
    ) -> tuple[NDArray, NDArray, float | None]:
        """Draw fractions of cells with and without shared errors; also their multiplier."""
        rng, multiplier = np.random.default_rng(options.seed), None
        if network is not None:
            rna = network.draws(N_DRAWS, rng)
        else:
            sizes = {"n_draws": N_DRAWS, "budget": options.budget}
            rna, multiplier = draw_rna_fractions(
                cohort, joint, self.state_type, rng, **sizes, on_fits=on_progress
            )
        relative = add_sample_errors(self.rna_per_cell.to_cells(rna), rng)
        absolute = add_shared_errors(relative, self.rna_per_cell.error_groups, rng)
        return self._corrected(absolute), self._corrected(relative), multiplier

    def _corrected(self, cells: NDArray) -> NDArray:
        return cells if self.measured is None else self.measured.correct(cells)


def _measured(options: Options, samples: Samples, types: list[str]) -> Measured | None:
    if options.measured is None:
        return None
    positions = samples.names.get_indexer(options.measured.index)
    member = options.member.reindex(columns=types, fill_value=False).to_numpy()
    return Measured.of(positions, options.measured.to_numpy(float), member)


def _assumed(rna_per_cell: RnaPerCell, options: Options) -> dict[str, object]:
    """Return what was asked for and assumed, for ``quality.attrs``."""
    return {
        "cell_size": rna_per_cell.source,
        "cell_size_origins": rna_per_cell.origins,
        "matched_types": rna_per_cell.table_names,
        "method": options.method,
        "likelihood": options.likelihood,
        "unknown": options.unknown,
        "n_measured": 0 if options.measured is None else len(options.measured),
    }


def _quality(joint: JointFit, names: pd.Index, facts: dict[str, object]) -> pd.DataFrame:
    """Return the residuals of the samples, with facts about all of them in ``attrs``."""
    robust_sd = np.median(np.abs(joint.residuals), axis=1) / stats.norm.ppf(0.75)
    quality = pd.DataFrame({"residual_sd": robust_sd}, names)
    quality.attrs = facts | {"shift_sd": joint.shift_sd, "residual_sd": joint.residual_sd}
    return quality
