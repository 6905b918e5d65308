"""One cohort, one signature: from expression to fractions of cells with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core._checks import UNKNOWN
from scovert.model.bulk._bootstrap import (
    N_FITS,
    bootstrap,
    find_multiplier,
    widen,
    with_own_errors,
    with_shared_errors,
)
from scovert.model.bulk._content import Content, find_content
from scovert.model.bulk._joint_fit import Cohort, JointFit, fit_cohort
from scovert.model.bulk._measured import Measured
from scovert.model.bulk._result import BulkResult, Fit
from scovert.model.bulk._rna_content import to_cells
from scovert.model.bulk._samples import Samples
from scovert.model.bulk._signature import Signature
from scovert.model.bulk.variants._network import N_STEPS, NetworkFit, fit_network

__all__ = ["Question", "answer", "work_of"]

DRAWN_UNKNOWN_SD = 1.0
"""Log sd of the profile of the unknown component when intervals are drawn."""
N_DRAWS = 600


@dataclass(frozen=True)
class Question:
    """What is asked of the samples; as the arguments of ``deconvolve``."""

    method: str
    likelihood: str
    cell_size: str | Mapping[str, float]
    measured: pd.DataFrame | None
    member: pd.DataFrame | None
    unknown: bool
    interval: float | None
    seed: int


def work_of(question: Question) -> tuple[int, str]:
    """Return how much there is to do with one reference, and its unit."""
    if question.method == "network":
        return N_STEPS, "step"
    return (1 if question.interval is None else 1 + N_FITS), "fit"


def answer(
    signature: Signature,
    samples: Samples,
    n_genes_per_type: int,
    question: Question,
    on_fits: Callable[[int], object],
) -> BulkResult:
    """Deconvolve samples with one reference.

    Parameters
    ----------
    signature
        The reference.
    samples
        Expression of the samples.
    n_genes_per_type
        Most genes that speak for a type.
    question
        What is asked.
    on_fits
        Called with the number of fits, or of the network's steps, just made, for a progress bar.
    """
    profiles, cpm, millions = samples.shared_with(signature, n_genes_per_type)
    at = profiles.informative
    cohort = Cohort.of(cpm[:, at], profiles.shares[:, at], profiles.variance[:, at], millions)
    content = find_content(profiles, signature.n_cells, question.cell_size)
    network = None
    if question.method == "network":
        step = partial(on_fits, 1)
        network = fit_network(cohort, profiles.state_type, seed=question.seed, on_step=step)
        joint = fit_cohort(cohort, weights=network.by_state(profiles.state_type))
    else:
        joint = fit_cohort(cohort, likelihood=question.likelihood, has_unknown=question.unknown)
        on_fits(1)
    types, state_type = list(profiles.types), profiles.state_type
    if question.unknown:
        types, content = [*types, UNKNOWN], content.with_unknown()
        state_type = np.append(state_type, len(types) - 1)
        cohort = cohort.with_profile(joint.unknown, DRAWN_UNKNOWN_SD)
    measured = _measured(question, samples, types)
    mixture = _Mixture(joint, network, types, state_type, content, measured)
    tables = mixture.tables(samples.names)
    draws, multiplier = (None, None), None
    if question.interval is not None:
        *draws, multiplier = mixture.draws(cohort, question.seed, on_fits)
    quality = pd.DataFrame({"residual_sd": _residual_sd(joint)}, samples.names)
    quality.attrs = {
        "n_shared_genes": len(profiles.genes),
        "n_informative_genes": len(at),
        "genes_matched_by": samples.match.source,
        "kind": samples.kind,
        "cell_size": content.source,
        "size_origins": content.origins,
        "matched_types": content.matched,
        "shift_sd": joint.shift_sd,
        "residual_sd": joint.residual_sd,
        "multiplier": multiplier,
        "method": question.method,
        "likelihood": question.likelihood,
        "unknown": question.unknown,
        "n_measured": 0 if question.measured is None else len(question.measured),
    }
    objective = pd.DataFrame({"objective": (network or joint).objective}).rename_axis("step")
    result = BulkResult(
        **tables,
        lower=None,
        upper=None,
        relative_lower=None,
        relative_upper=None,
        cell_sizes=pd.Series(content.sizes / np.exp(np.log(content.sizes).mean()), types),
        quality=quality,
        draws=draws[0],
        relative_draws=draws[1],
        history={"objective": objective},
        fits=(Fit(cpm, millions, profiles, joint),),
        obs=samples.obs,
        interval=question.interval,
    )
    return result.with_intervals()


@dataclass(frozen=True)
class _Mixture:
    """Shares of states of a fit, and how they become fractions of cells."""

    joint: JointFit
    network: NetworkFit | None
    types: list[str]
    state_type: NDArray
    content: Content
    measured: Measured | None

    def by_type(self, weights: NDArray) -> NDArray:
        return weights @ np.eye(len(self.types))[self.state_type]

    def tables(self, names: pd.Index) -> dict[str, pd.DataFrame]:
        """Return fractions of cells and of RNA."""
        rna = self.by_type(self.joint.weights)
        cells = to_cells(rna, self.content.sizes)
        if self.measured is not None:
            cells = self.measured.correct(cells)
        values = {"proportions": cells, "mrna_fractions": rna}
        return {k: pd.DataFrame(v, names, self.types) for k, v in values.items()}

    def draws(
        self, cohort: Cohort, seed: int, on_fits: Callable[[int], object]
    ) -> tuple[NDArray, NDArray, float | None]:
        """Return draws of fractions with and without shared errors, and the multiplier."""
        rng = np.random.default_rng(seed)
        rna, factor = self._rna_draws(cohort, rng, on_fits)
        relative = with_own_errors(to_cells(rna, self.content.sizes), rng)
        absolute = with_shared_errors(relative, self.content.groups, rng)
        if self.measured is not None:
            relative, absolute = map(self.measured.correct, (relative, absolute))
        return absolute, relative, factor

    def _rna_draws(
        self, cohort: Cohort, rng: np.random.Generator, on_fits: Callable[[int], object]
    ) -> tuple[NDArray, float | None]:
        if self.network is not None:
            return self.network.draws(N_DRAWS, rng), None
        raw = self.by_type(bootstrap(cohort, self.joint, rng, on_fits=on_fits))
        factor = find_multiplier(
            cohort, self.joint, self.state_type, self.by_type, rng, on_fits=on_fits
        )
        chosen = raw[rng.integers(0, len(raw), N_DRAWS)]
        return widen(chosen, self.by_type(self.joint.weights), factor), factor


def _measured(question: Question, samples: Samples, types: list[str]) -> Measured | None:
    if question.measured is None:
        return None
    positions = samples.names.get_indexer(question.measured.index)
    member = question.member.reindex(columns=types, fill_value=False).to_numpy()
    return Measured.of(positions, question.measured.to_numpy(float), member)


def _residual_sd(joint: JointFit) -> NDArray:
    """Robust standard deviation of every sample's residuals: 1.4826 x their median size."""
    return 1.4826 * np.median(np.abs(joint.residuals), axis=1)
