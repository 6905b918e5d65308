"""Watching whether training still computes numbers."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["FiniteWatch", "NotFinite"]

STEPS_BETWEEN_LOOKS = 50
"""Steps after which a GPU is asked: each time it must finish its work first."""


class NotFinite(NamedTuple):
    """What became NaN or infinite, and when.

    Attributes
    ----------
    term
        Term of the loss, or ``"gradient_norm"``.
    epoch, step
        When, counted from 0.
    cells
        Rows of the cells of the minibatch.
    """

    term: str
    epoch: int
    step: int
    cells: list[int]


class _Step(NamedTuple):
    when: tuple[int, int]
    names: list[str]
    values: Tensor
    cells: Tensor | None


class FiniteWatch:
    """Note the terms of every step, and look at once on a CPU, every 50 steps on a GPU."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []
        self.found: NotFinite | None = None

    def sees(
        self,
        terms: dict[str, Tensor | int],
        cells: Tensor | None,
        when: tuple[int, int],
        is_last: bool,
    ) -> bool:
        """Note a step; whether a term was NaN or infinite, as far as was looked.

        Parameters
        ----------
        terms
            Scalars by name.
        cells
            Rows of the cells of the minibatch.
        when
            Epoch and step.
        is_last
            Whether it is the last step of its epoch, after which one looks.
        """
        tensors = {name: value for name, value in terms.items() if torch.is_tensor(value)}
        values = torch.stack(list(tensors.values()))
        self.steps.append(_Step(when, list(tensors), values, cells))
        is_cheap = values.device.type == "cpu"
        if is_cheap or is_last or len(self.steps) >= STEPS_BETWEEN_LOOKS:
            self._look()
        return self.found is not None

    def _look(self) -> None:
        steps, self.steps = self.steps, []
        is_finite = torch.stack([step.values for step in steps]).isfinite()
        if self.found is not None or bool(is_finite.all()):
            return
        at = int((~is_finite).any(dim=1).nonzero()[0])
        step = steps[at]
        term = step.names[int((~is_finite[at]).nonzero()[0])]
        cells = [] if step.cells is None else step.cells.flatten().tolist()
        self.found = NotFinite(term, *step.when, cells)
