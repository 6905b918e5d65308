"""The three kinds of inferred confounders: scores, binary states, and what a generator makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from scovert.model.confounder._checks import HIGH_LEAKAGE
from scovert.model.confounder._data import TreatmentData
from scovert.model.confounder.effects import (
    ConfounderFit,
    Estimate,
    estimate_by_states,
    estimate_effects,
    estimate_plug_in,
)
from scovert.model.confounder.glm import CountBlocks, project_scores, state_probabilities

__all__ = ["Generated", "Infer", "Latents", "Scores", "States"]

Infer = Callable[[TreatmentData], NDArray]
"""What is inferred of cells, without a shift between the arms."""

MAX_LEAKAGE = 0.9
"""Confounders that do not see the treatment correlate with it all the same, if not as much."""


@dataclass(frozen=True)
class Scores:
    """Scores orthogonal to the treatment, whose shift between the arms takes an assumption.

    Attributes
    ----------
    fit
        The fit.
    infer
        Confounders of cells, be they fitted or new.
    max_leakage, remedy
        Correlation with the treatment from which they may be a copy of it, and what can be done.
    """

    fit: ConfounderFit
    infer: Infer
    max_leakage: ClassVar = MAX_LEAKAGE
    remedy: ClassVar = "Compare with another `identification`."

    @property
    def n_classes(self) -> int:
        """Number of hidden classes, or of combinations of binary confounders."""
        return self.fit.classes.n_classes if self.fit.scores.shape[1] else 1

    def check(self, identification: str, *, has_controls: bool) -> None:
        """Refuse an identification of effects, or negative controls, that do not go together."""
        if identification == "controls" and not has_controls:
            raise ValueError(
                "`identification='controls'` needs `negative_controls`: names of genes that the "
                "treatment leaves alone, or a boolean column of `adata.var`."
            )
        if identification not in ("auto", "controls") and has_controls:
            raise ValueError(
                f"`negative_controls` say nothing with `identification={identification!r}`. Leave "
                "them out, or pass `identification='controls'`."
            )

    def estimates(self, identification: str, controls: NDArray | None) -> list[Estimate]:
        """Return the effects of all arms, with `controls` among the fitted genes if any."""
        return estimate_effects(self.fit, identification, controls)

    def of_cells(self, cells: TreatmentData, estimates: list[Estimate]) -> NDArray:
        """Return the confounders of cells, with the shift between the arms put back."""
        if self.fit.scores.shape[1] == 0:
            return np.zeros((len(cells), 0))
        arms, scores = cells.arms(self.fit.by_covariates), self.infer(cells)
        shifted = scores + arms.residual @ np.stack([e.shift for e in estimates])
        if not any(e.by_class for e in estimates):
            return shifted
        classes = self.fit.classes
        of_class = arms._replace(residual=arms.residual * [e.by_class for e in estimates])
        return classes.put_back(shifted, of_class, classes.assign(scores, arms))

    def class_probabilities(self, cells: TreatmentData) -> NDArray:
        """Return the class probabilities of cells, as if classes were as frequent in all arms."""
        if self.n_classes == 1:
            return np.ones((len(cells), 1))
        classes, arms = self.fit.classes, cells.arms(self.fit.by_covariates)
        probabilities = classes.assign(self.infer(cells), arms)
        return classes.equal_in_arms(probabilities, cells.level)

    def from_genes(self, blocks: CountBlocks, genes: NDArray) -> NDArray:
        """Return the confounders of fitted cells by the counts of some genes, given as a mask."""
        return project_scores(blocks, self.fit.design, self.fit.regression.of_genes(genes))


@dataclass(frozen=True)
class States:
    """Binary confounders, of which `infer` gives the probability of every combination."""

    fit: ConfounderFit
    infer: Infer
    states: NDArray
    max_leakage: ClassVar = MAX_LEAKAGE
    remedy: ClassVar = "Compare with `z_type='continuous'`."

    @property
    def n_classes(self) -> int:
        """As `Scores` does."""
        return self.states.shape[1]

    def check(self, identification: str, *, has_controls: bool) -> None:
        """As `Scores` does."""
        if has_controls or identification not in ("auto", "classes"):
            raise ValueError(
                f"{_asked(identification, has_controls=has_controls)} is for continuous "
                "confounders: binary ones identify effects by their own states. Pass 'auto' and "
                "no controls, or `z_type='continuous'`."
            )

    def estimates(self, identification: str, controls: NDArray | None) -> list[Estimate]:
        """As `Scores` does."""
        return estimate_by_states(self.fit, self.states)

    def of_cells(self, cells: TreatmentData, estimates: list[Estimate]) -> NDArray:
        """As `Scores` does."""
        bits = np.arange(self.n_classes)[:, None] >> np.arange(self.fit.scores.shape[1]) & 1
        return self.infer(cells) @ bits  # (n_cells, n_latent)

    def class_probabilities(self, cells: TreatmentData) -> NDArray:
        """As `Scores` does."""
        return self.infer(cells)

    def from_genes(self, blocks: CountBlocks, genes: NDArray) -> NDArray:
        """As `Scores` does."""
        part = self.fit.regression.of_genes(genes)
        return state_probabilities(blocks, self.fit.design, part, self.states.mean(0))


@dataclass(frozen=True)
class Generated:
    """What a generator that sees the treatment makes, taken for the true confounders."""

    fit: ConfounderFit
    infer: Infer
    max_leakage: ClassVar = HIGH_LEAKAGE
    remedy: ClassVar = (
        "Train with `solver='full_batch'`, whose confounders do not see the treatment."
    )
    n_classes: ClassVar = 1

    def check(self, identification: str, *, has_controls: bool) -> None:
        """As `Scores` does."""
        if has_controls or identification != "auto":
            raise ValueError(
                f"{_asked(identification, has_controls=has_controls)} is for confounders that are "
                "orthogonal to the treatment, and the generator of `solver='alternating'` sees "
                "it. Pass 'auto' and no controls, or train with `solver='full_batch'`."
            )

    def estimates(self, identification: str, controls: NDArray | None) -> list[Estimate]:
        """As `Scores` does."""
        return estimate_plug_in(self.fit)

    def of_cells(self, cells: TreatmentData, estimates: list[Estimate]) -> NDArray:
        """As `Scores` does."""
        return self.infer(cells)

    def class_probabilities(self, cells: TreatmentData) -> NDArray:
        """As `Scores` does."""
        return np.ones((len(cells), 1))

    def from_genes(self, blocks: CountBlocks, genes: NDArray) -> NDArray:
        """As `Scores` does."""
        return project_scores(blocks, self.fit.design, self.fit.regression.of_genes(genes))


def _asked(identification: str, *, has_controls: bool) -> str:
    """Name the argument that asks for an identification."""
    return "`negative_controls`" if has_controls else f"`identification={identification!r}`"


Latents = Scores | States | Generated
