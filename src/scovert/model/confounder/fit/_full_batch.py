"""The full-batch solver: all cells in every round."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm.std import tqdm

from scovert.core._checks import check_choice
from scovert.core._progress import stage
from scovert.model.confounder._checks import MAX_BINARY
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder._fitted import Fitted
from scovert.model.confounder.glm import (
    CountBlocks,
    Factors,
    Regression,
    choose_rank,
    fit_factors,
    fit_regression,
    fit_states,
)
from scovert.model.confounder.glm._rank import MAX_FACTORS

__all__ = ["FullBatchFit", "deviance_frame", "find_device"]


@dataclass(frozen=True)
class FullBatchFit:
    """One fit of everything that a `Fitted` holds.

    Attributes
    ----------
    blocks
        Counts of the genes that are fitted.
    cells
        Treatment and covariates.
    seed
        Seed of all that is drawn.
    max_rounds
        Most rounds.
    show_progress
        Show progress, a stage after the other.
    """

    blocks: CountBlocks
    cells: TreatmentData
    seed: int
    max_rounds: int
    show_progress: bool

    def run(self, n_latent: int | Literal["auto"], z_type: str) -> tuple[Fitted, NDArray]:
        """Return the fit, and the deviance of every round."""
        n_latent, scree, start = self.count(n_latent)
        design, states = self.cells.design, None
        with self._stage("Inferring confounders", self.max_rounds, unit="round") as bar:
            on_round = partial(_count_round, bar)
            options = {"max_rounds": self.max_rounds, "seed": self.seed, "on_round": on_round}
            if z_type == "binary" and n_latent:
                fit = fit_states(self.blocks, design, min(n_latent, MAX_BINARY), **options)
                scores, states = fit.probabilities, fit.combinations
            else:
                fit = fit_factors(self.blocks, design, n_latent, start=start, **options)
                scores = fit.scores
        return self.fitted(fit.regression, scores, states, scree), fit.deviance

    def count(self, n_latent: int | Literal["auto"]) -> tuple[int, NDArray | None, Factors | None]:
        """Return the number of confounders, and if it was looked for the scree and the factors."""
        if n_latent != "auto":
            return n_latent, None, None
        with self._stage("Counting confounders", MAX_FACTORS, unit="number") as bar:
            on_factor = partial(_count_factors, bar)
            options = {"seed": self.seed, "on_factor": on_factor}
            found = choose_rank(self.blocks, self.cells.design, **options)
        scree = np.stack([found.singular_value, found.threshold], 1)
        return found.n_factors, scree, found.factors

    def fitted(
        self,
        regression: Regression,
        scores: NDArray,
        states: NDArray | None,
        scree: NDArray | None,
    ) -> Fitted:
        """Return what is kept, with the effects of the arms without confounders.

        Parameters
        ----------
        regression
            Of the counts on the design and the scores.
        scores, states, scree
            As in `Fitted`.
        """
        design = self.cells.design
        arms = slice(self.cells.covariates.shape[1], design.shape[1])
        start = (regression.coefficients[: design.shape[1]], regression.dispersion)
        has_scores = scores.shape[1] > 0
        plain = fit_regression(self.blocks, design, start=start) if has_scores else regression
        variances = [plain.variance(one) for one in np.eye(design.shape[1])[arms]]
        return Fitted(
            scores,
            regression.coefficients,
            regression.dispersion,
            regression.covariance,
            regression.sandwich,
            unadjusted=plain.coefficients[arms],
            unadjusted_se=np.sqrt(variances),
            states=states,
            scree=scree,
        )

    def _stage(self, title: str, most: int, *, unit: str) -> tqdm:
        return stage(title, most, unit=unit, may_end_early=True, is_shown=self.show_progress)


def _count_round(bar: tqdm, _: int, deviance: float) -> None:
    bar.set_postfix(deviance=f"{deviance:.6g}", refresh=False)
    bar.update()


def _count_factors(bar: tqdm, n_factors: int, most: int) -> None:
    bar.total = most
    bar.update(n_factors - bar.n)


def deviance_frame(deviance: NDArray) -> pd.DataFrame:
    """Return the deviance of every round as a history has it."""
    return pd.DataFrame({"deviance": deviance}, pd.RangeIndex(len(deviance), name="round"))


def find_device(accelerator: str) -> torch.device:
    """Return the device for an accelerator, or refuse one that is not there."""
    check_choice("accelerator", accelerator, ("auto", "cpu", "gpu"))
    has_gpu = torch.cuda.is_available()
    if accelerator == "gpu" and not has_gpu:
        raise ValueError("`accelerator='gpu'`, and there is no CUDA device. Pass 'cpu' or 'auto'.")
    return torch.device("cuda" if has_gpu and accelerator != "cpu" else "cpu")
