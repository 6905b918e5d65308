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
"""Twelve merge types that one dataset lacks with their relatives, forty split shared ones."""
MIN_CELLS_PER_CLASS = 10
"""With fewer, a mean in a dataset is noise."""
MIN_COMPONENTS = 20
"""Components that always count: eight types need about twelve."""
NOISE = 1.2
"""Variance of a component, by that of the last, from which it counts beyond the first twenty.
Eight types need about twelve, twenty types and five programs of genes twenty-six."""
SLOPES = (0.0, 0.0125, 0.025)
"""Change of a shift with the position of a class, each a start for the next; 0.04 merges types."""
N_SEEDS, N_KEPT = 3, 3
START_SHARE = 0.95
"""Probability of the class that k-means gives to a cell."""
MAX_CELLS_TO_FIT = 4_000
"""More give the same anchors: of 13,541 cells 0.955 join the same type with 4,000 and with all."""
CELLS_AT_ONCE = 50_000
"""Cells that are placed in the classes at once."""
N_NEAREST = 5
"""Nearest cells of its own dataset by whose classes a cell's own is judged to be clear."""
BALANCE = 0.2, 5.0
"""Least and largest weight of a class, so that a few cells do not count for many."""


@dataclass(frozen=True)
class Classes:
    """Mixtures of the same cells from different starts.

    Attributes
    ----------
    mixtures
        The likeliest fits, three of six.
    explained
        Share of the variance of the components that lies between classes and datasets, in [0, 1].
    n_components
        Number of the components that count.
    """

    mixtures: list[ClassMixture]
    explained: float
    n_components: int

    @classmethod
    def fit(cls, components: NDArray, batch: NDArray, seed: int) -> Classes:
        """Fit them to at most 4,000 cells.

        Each fit starts from k-means, on components centred by dataset or scaled by dataset as
        well. Six fits let the datasets move as a whole; the three likeliest of them go on to let
        the shift depend on the position.

        Parameters
        ----------
        components
            Principal components, shape ``(n_cells, n_components)``; the first 20 count, and more
            as far as they stand out from the last.
        batch
            Dataset of each cell, shape ``(n_cells,)``.
        seed
            Seed of the draw of cells and of k-means.

        Returns
        -------
        The classes.
        """
        rows = sample(batch, np.ones(len(batch), bool), MAX_CELLS_TO_FIT, seed)
        n_components = _count_components(components)
        parts = [components[r, :n_components].astype(float) for r in rows]
        fits = [climb(parts, start, SLOPES[0]) for start in _starts(parts, seed)]
        fits.sort(key=lambda fit: -log_likelihood(fit[0], parts))
        mixtures = [_finish(parts, classes) for _, classes in fits[:N_KEPT]]
        total = max(np.concatenate(parts).var(axis=0).sum(), TINY)
        explained = np.mean([1 - mixture.within.sum() / total for mixture in mixtures])
        return cls(mixtures, float(explained), n_components)

    def place(self, components: NDArray, batch: NDArray) -> NDArray:
        """Positions in which distances are means over the mixtures, of directions without shifts.

        Parameters
        ----------
        components, batch
            As for :meth:`fit`.

        Returns
        -------
        Array of shape ``(n_cells, 3 * n_components)``, with rows of length 1.
        """
        places = np.empty((len(components), len(self.mixtures), self.n_components))
        for rows, x, b in self._parts(components, batch):
            for m, mixture in enumerate(self.mixtures):
                places[rows, m] = unit_rows(mixture.place(x, b))
        places /= np.sqrt(len(self.mixtures))
        return places.reshape(len(places), -1)

    def corrected(self, components: NDArray, batch: NDArray) -> NDArray:
        """Mean over the mixtures of components without shifts, ``(n_cells, n_components)``."""
        corrected = np.empty((len(components), self.n_components), np.float32)
        for rows, x, b in self._parts(components, batch):
            corrected[rows] = np.mean([m.place(x, b) for m in self.mixtures], axis=0)
        return corrected

    def means(
        self, values: list[NDArray], rows: list[NDArray], components: NDArray
    ) -> list[list[NDArray]]:
        """Mean over every class of every dataset, of values of some of its cells.

        Parameters
        ----------
        values, rows
            Of each dataset: an array ``(n_known, n_values)``, and the cells that it is about.
        components
            As for :meth:`fit`.

        Returns
        -------
        For each mixture and dataset an array ``(n_classes, n_values)``.
        """
        return [
            [
                _class_means(mixture.classes(self._known(components, r), b), v)
                for b, (v, r) in enumerate(zip(values, rows, strict=True))
            ]
            for mixture in self.mixtures
        ]

    def balance(self) -> list[list[NDArray]]:
        """Mean share of each class in the datasets by that in each one, from 0.2 to 5.

        Returns
        -------
        For each mixture and dataset an array ``(n_classes, 1)``.
        """
        ratios = [m.weights.mean(axis=1)[:, None] / m.weights for m in self.mixtures]
        return [list(np.clip(ratio, *BALANCE).T[..., None]) for ratio in ratios]

    def shared(self) -> list[list[NDArray]]:
        """Part of each class of a dataset for which each dataset has as large a share, up to 1.

        Returns
        -------
        For each mixture and dataset an array ``(n_classes, n_datasets)``.
        """
        return [
            [np.minimum(1, m.weights / own[:, None]) for own in m.weights.T] for m in self.mixtures
        ]

    @property
    def sd(self) -> NDArray:
        """Standard deviation of the components within classes, ``(n_components,)``."""
        return np.sqrt(np.mean([mixture.within for mixture in self.mixtures], axis=0))

    def spread(self, tables: list[list[NDArray]], components: NDArray, batch: NDArray) -> NDArray:
        """Give every cell the value of its class and dataset, averaged over the mixtures.

        Parameters
        ----------
        tables
            For each mixture and dataset an array ``(n_classes, n_values)``.
        components, batch
            As for :meth:`fit`.

        Returns
        -------
        Array of shape ``(n_cells, n_values)``, float32.
        """
        spread = np.zeros((len(batch), tables[0][0].shape[1]), np.float32)
        for part, x, b in self._parts(components, batch):
            for mixture, table in zip(self.mixtures, tables, strict=True):
                spread[part] += mixture.classes(x, b) @ table[b] / len(self.mixtures)
        return spread

    def agreement(self, near: list[NDArray], rows: list[NDArray], components: NDArray) -> float:
        """How much more often than by chance the nearest cells are of the same class.

        Parameters
        ----------
        near, rows
            Of each dataset: the places in `rows` of the nearest cells of each, itself first; and
            the cells.
        components
            As for :meth:`fit`.

        Returns
        -------
        Mean over datasets and mixtures, at most 1.
        """
        found = [0.0]
        for b, (own, r) in enumerate(zip(near, rows, strict=True)):
            for mixture in self.mixtures if len(r) > 1 else ():
                classes = mixture.classes(self._known(components, r), b)
                near_classes = classes[own[:, 1 : 1 + N_NEAREST]].mean(axis=1)
                same = (classes * near_classes).sum(axis=1).mean()
                chance = np.square(classes.mean(axis=0)).sum()
                found.append((same - chance) / max(1 - chance, TINY))
        return float(np.sum(found) / max(1, len(found) - 1))

    def _known(self, components: NDArray, rows: NDArray) -> NDArray:
        return components[rows, : self.n_components].astype(float)

    def _parts(
        self, components: NDArray, batch: NDArray
    ) -> Iterator[tuple[NDArray, NDArray, int]]:
        """Rows of cells of one dataset, the components that count, and the dataset, in blocks."""
        for b in range(batch.max() + 1):
            rows = np.flatnonzero(batch == b)
            for block in row_slices(len(rows), CELLS_AT_ONCE):
                yield rows[block], self._known(components, rows[block]), b


def _count_components(components: NDArray) -> int:
    variance = components.var(axis=0)
    n_found = int((variance > NOISE * variance[-1]).sum())
    return min(max(n_found, MIN_COMPONENTS), components.shape[1])


def _class_means(classes: NDArray, values: NDArray) -> NDArray:
    return classes.T @ values / np.maximum(classes.sum(axis=0), TINY)[:, None]


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
