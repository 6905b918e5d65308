"""Panels: which genes each dataset measured, and which the model learns and encodes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scvi.data.fields import BaseAnnDataField

from scovert.core.dataloaders._cells import Cells

__all__ = [
    "MIN_COUNTS",
    "MeasuredField",
    "Panels",
    "expected_counts",
    "log_mean_shares",
    "make_panels",
    "measured_of",
]

MEASURED = "measured"
"""Key of the registry."""
MIN_COUNTS = 20
"""Counts of a gene in a dataset or a group, below which chance is most of an error of its total:
the standard deviation of the logarithm of a Poisson count of 20 is 0.22 nats."""
FEWEST_CALIBRATED, LARGEST_PART = 30, 5
"""Calibration genes at least, for a 90 % quantile of their errors, but no more than one in five of
the shared genes."""
ENOUGH_SHARED, ENOUGH_SEEN = 50, 10
"""Shared genes, and median counts of a cell in them, from which they alone are encoded."""
SMALLEST_SHARE = 1e-7
"""Share of a gene's counts in a cell at least, so that it has a logarithm."""


class MeasuredField(BaseAnnDataField):
    """Which genes each dataset measured, kept in the registry and so in files of a model.

    Parameters
    ----------
    measured
        Shape ``(n_datasets, n_genes)``, in the order of the categories; `None` for a saved model,
        whose registry has it.
    """

    registry_key, attr_name, attr_key = MEASURED, "varm", None
    is_empty = False

    def __init__(self, measured: NDArray | None) -> None:
        self.measured = measured

    def validate_field(self, adata: object) -> None:
        """Trust the table, which was looked at."""

    def register_field(self, adata: object) -> dict:
        """Return the table."""
        return {MEASURED: self.measured}

    def transfer_field(self, state_registry: dict, adata_target: object, **_: object) -> dict:
        """Keep what the model knows."""
        return state_registry

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Return the number of genes that some dataset lacks."""
        return {"n_unmeasured": int((~np.asarray(state_registry[MEASURED])).any(0).sum())}

    def view_state_registry(self, state_registry: dict) -> None:
        """Show nothing."""


def measured_of(registry: dict) -> NDArray:
    """Return which genes each dataset measured, shape ``(n_datasets, n_genes)``."""
    return np.asarray(registry["field_registries"][MEASURED]["state_registry"][MEASURED], bool)


def log_mean_shares(totals: NDArray, measured: NDArray) -> NDArray:
    """Logarithm of the mean share of each gene over the datasets that measured it.

    Shares are of the counts of the genes that all measured, so that the datasets are on one scale;
    half a count is added to each total.

    Parameters
    ----------
    totals, measured
        Counts, and whether they were measured, shape ``(n_datasets, n_genes)``.

    Returns
    -------
    Array of shape ``(n_genes,)``, natural logarithm.
    """
    shares = _shares(totals, measured)
    return np.log(np.maximum(shares.sum(0) / measured.sum(0), SMALLEST_SHARE))


def expected_counts(totals: NDArray, measured: NDArray) -> NDArray:
    """Return the counts that each dataset would have of each gene at the mean share of the others.

    Shape ``(n_datasets, n_genes)``; 0 of genes that no other one measured.
    """
    shares = _shares(totals, measured)
    n_others = measured.sum(0) - measured
    of_others = (shares.sum(0) - shares) / np.maximum(n_others, 1)
    return of_others * totals[:, measured.all(0)].sum(1, keepdims=True)


def _shares(totals: NDArray, measured: NDArray) -> NDArray:
    """Divide counts of genes by those of all shared genes; 0 where a gene was not measured."""
    totals = totals + 0.5
    return np.where(measured, totals / totals[:, measured.all(0)].sum(1, keepdims=True), 0)


class Panels(NamedTuple):
    """Genes by dataset, all of shape ``(n_datasets, n_genes)``.

    Attributes
    ----------
    measured
        What was measured.
    learnt
        Measured, less the calibration genes of the dataset: its likelihood and its library.
    visible
        What the encoder sees of its cells.
    """

    measured: NDArray
    learnt: NDArray
    visible: NDArray

    @property
    def calibration(self) -> NDArray:
        """Genes that were measured and are held back."""
        return self.measured & ~self.learnt


def make_panels(
    cells: Cells,
    totals: NDArray,
    measured: NDArray,
    *,
    encoder: str,
    share: float,
    rng: np.random.Generator,
) -> Panels:
    """Draw calibration genes, and choose what the encoder sees.

    Parameters
    ----------
    cells
        Cells of the model.
    totals, measured
        Counts of each gene in each dataset, and whether they were measured, shape
        ``(n_datasets, n_genes)``.
    encoder
        ``"shared"``, ``"panels"``, or ``"auto"``.
    share
        Calibration genes, as a share of the shared ones.
    rng
        Generator of the calibration genes.
    """
    learnt = measured & ~_calibration(totals, measured, share, rng)
    shared = learnt.all(0)
    if encoder == "auto":
        encoder = "shared" if _tell_enough(cells, shared) else "panels"
    visible = learnt if encoder == "panels" else np.broadcast_to(shared, learnt.shape)
    return Panels(measured, learnt, visible.copy())


def _calibration(
    totals: NDArray, measured: NDArray, share: float, rng: np.random.Generator
) -> NDArray:
    """Draw shared genes that are hidden from the datasets that miss genes.

    Of those of which counts are to be expected by the others: what was counted must not decide,
    since of hidden genes it is not known. Where every dataset misses some, each gene is left to
    one of them, in turn.
    """
    lacks = ~measured.all(1)
    is_known = (expected_counts(totals, measured) >= MIN_COUNTS) & lacks[:, None]
    candidates = np.flatnonzero(measured.all(0) & is_known.any(0))
    most = len(candidates) // LARGEST_PART
    n = min(max(FEWEST_CALIBRATED, round(share * len(candidates))), most) if share > 0 else 0
    chosen = np.sort(rng.permutation(candidates)[:n])
    hidden = np.zeros(measured.shape, bool)
    hidden[:, chosen] = is_known[:, chosen]
    if lacks.all():
        hidden[np.arange(n) % len(lacks), chosen] = False
    return hidden


def _tell_enough(cells: Cells, shared: NDArray) -> bool:
    """Whether the shared genes tell enough of a cell to encode nothing else."""
    if shared.sum() < ENOUGH_SHARED:
        return False
    seen = [np.asarray(block[:, shared].sum(1)).ravel() for _, block in cells.blocks()]
    return bool(np.median(np.concatenate(seen)) >= ENOUGH_SEEN)
