"""Classes that the datasets share: the likeliest of mixtures from several starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scovert.anchors._mixture import ClassMixture, climb, log_likelihood
from scovert.anchors._space import TINY, sample, unit_rows
from scovert.core._counts import row_slices

__all__ = ["Classes"]

N_CLASSES = 20
MIN_CELLS_PER_CLASS = 10
N_COMPONENTS = 20
SLOPES = (0.0, 0.0125, 0.025)
"""Change of a shift with the position of a class, each a start for the next; 0.04 merges types."""
N_SEEDS, N_KEPT = 3, 3
START_SHARE = 0.95
"""Probability of the class that k-means gives to a cell."""
MAX_CELLS_TO_FIT = 4_000
"""More give the same anchors: of 13,541 cells 0.955 join the same type with 4,000 and with all."""
CELLS_AT_ONCE = 50_000


@dataclass(frozen=True)
class Classes:
    """Mixtures of the same cells from different starts.

    Attributes
    ----------
    mixtures
        The likeliest fits, three of six.
    explained
        Share of the variance of the components that lies between classes and datasets, in [0, 1].
    """

    mixtures: list[ClassMixture]
    explained: float

    @classmethod
    def fit(cls, components: NDArray, batch: NDArray, seed: int) -> Classes:
        """Fit them to at most 4,000 cells.

        Each fit starts from k-means, on components centred by dataset or scaled by dataset as
        well. Six fits let the datasets move as a whole; the three likeliest of them go on to let
        the shift depend on the position.

        Parameters
        ----------
        components
            Principal components, shape ``(n_cells, n_components)``; the first 20 count.
        batch
            Dataset of each cell, shape ``(n_cells,)``.
        seed
            Seed of the draw of cells and of k-means.

        Returns
        -------
        The classes.
        """
        rows = sample(batch, np.ones(len(batch), bool), MAX_CELLS_TO_FIT, seed)
        parts = [components[r, :N_COMPONENTS].astype(float) for r in rows]
        fits = [climb(parts, start, SLOPES[0]) for start in _starts(parts, seed)]
        fits.sort(key=lambda fit: -log_likelihood(fit[0], parts))
        mixtures = [_finish(parts, classes) for _, classes in fits[:N_KEPT]]
        total = max(np.concatenate(parts).var(axis=0).sum(), TINY)
        return cls(mixtures, float(np.mean([1 - m.within.sum() / total for m in mixtures])))

    def place(self, components: NDArray, batch: NDArray) -> NDArray:
        """Positions in which distances are means over the mixtures, of directions without shifts.

        Parameters
        ----------
        components, batch
            As for :meth:`fit`.

        Returns
        -------
        Array of shape ``(n_cells, 3 * n_components)``, float32, with rows of length 1.
        """
        n_dims = min(N_COMPONENTS, components.shape[1])
        places = np.empty((len(components), len(self.mixtures), n_dims), np.float32)
        for rows, x, b in _parts(components, batch):
            for m, mixture in enumerate(self.mixtures):
                places[rows, m] = unit_rows(mixture.place(x, b))
        places /= np.sqrt(len(self.mixtures))
        return places.reshape(len(places), -1)

    def corrected(self, components: NDArray, batch: NDArray) -> NDArray:
        """Mean over the mixtures of components without shifts, ``(n_cells, n_components)``."""
        corrected = np.empty((len(components), min(N_COMPONENTS, components.shape[1])), np.float32)
        for rows, x, b in _parts(components, batch):
            corrected[rows] = np.mean([m.place(x, b) for m in self.mixtures], axis=0)
        return corrected

    def smooth(
        self, values: list[NDArray], rows: list[NDArray], components: NDArray, batch: NDArray
    ) -> NDArray:
        """Give every cell the mean of the cells of its class and dataset, over the mixtures.

        Parameters
        ----------
        values, rows
            Of each dataset: an array ``(n_known, n_values)``, and the cells that it is about.
        components, batch
            As for :meth:`fit`.

        Returns
        -------
        Array of shape ``(n_cells, n_values)``, float32.
        """
        smooth = np.zeros((len(batch), values[0].shape[1]), np.float32)
        for mixture in self.mixtures:
            means = []
            for b, (value, known) in enumerate(zip(values, rows, strict=True)):
                weight = mixture.classes(components[known, :N_COMPONENTS].astype(float), b)
                total = np.maximum(weight.sum(axis=0), TINY)
                means.append(weight.T @ value / total[:, None])
            for part, x, b in _parts(components, batch):
                smooth[part] += mixture.classes(x, b) @ means[b] / len(self.mixtures)
        return smooth


def _parts(components: NDArray, batch: NDArray) -> Iterator[tuple[NDArray, NDArray, int]]:
    """Rows of cells of one dataset, the components that count, and the dataset, in blocks."""
    for b in range(batch.max() + 1):
        rows = np.flatnonzero(batch == b)
        for block in row_slices(len(rows), CELLS_AT_ONCE):
            yield rows[block], components[rows[block], :N_COMPONENTS].astype(float), b


def _starts(parts: list[NDArray], seed: int) -> Iterator[list[NDArray]]:
    """Probabilities of classes from k-means of cells centred, then also scaled, by dataset."""
    from sklearn.cluster import KMeans

    centred = [part - part.mean(axis=0) for part in parts]
    sd = np.concatenate(centred).std(axis=0)
    scaled = [sd * part / np.maximum(part.std(axis=0), TINY) for part in centred]
    n_cells = sum(len(part) for part in parts)
    n_classes = max(1, min(N_CLASSES, n_cells // MIN_CELLS_PER_CLASS)) if sd.any() else 1
    ends = np.cumsum([len(part) for part in parts])[:-1]
    for k_seed in np.random.default_rng(seed).integers(2**31, size=N_SEEDS):
        for points in (centred, scaled):
            k_means = KMeans(n_classes, n_init=2, random_state=int(k_seed))
            label = k_means.fit_predict(np.concatenate(points))
            classes = np.full((n_cells, n_classes), (1 - START_SHARE) / n_classes)
            classes[np.arange(n_cells), label] += START_SHARE
            yield np.split(classes, ends)


def _finish(parts: list[NDArray], classes: list[NDArray]) -> ClassMixture:
    for slope in SLOPES[1:]:
        mixture, classes = climb(parts, classes, slope)
    return mixture
