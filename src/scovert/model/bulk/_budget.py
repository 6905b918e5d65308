"""How much computing a deconvolution may take."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from scovert.core._arguments import knows_its_arguments
from scovert.core._checks import check_number
from scovert.core._words import a_kind_of

__all__ = ["BulkBudget", "check_budget"]


@knows_its_arguments()
@dataclass(frozen=True)
class BulkBudget:
    """Steps and draws of :meth:`BulkDeconvolution.deconvolve`: fewer are faster and less exact.

    The defaults are those with which fractions and the coverage of their intervals were measured
    on blood. All are whole numbers of 1 or more.

    Parameters
    ----------
    n_steps
        Steps of Adam of the joint fit; with 250 it has all but converged.
    n_bootstrap, n_bootstrap_steps
        Fits with random weights of genes that intervals are drawn from, and their steps, which
        begin at the joint fit.
    n_cohorts, n_cohort_samples
        Simulated cohorts, by which the bootstrap is checked and widened, and their most samples.
    n_cohort_bootstrap, n_cohort_bootstrap_steps
        Fits of the bootstrap of each of these, and their steps.
    n_network_steps
        Steps of the training of the network, ``method="network"``.

    Examples
    --------
    >>> from scovert.model import BulkBudget
    >>> BulkBudget(n_bootstrap=20).n_fits
    61
    """

    n_steps: int = 250
    n_bootstrap: int = 40
    n_bootstrap_steps: int = 120
    n_cohorts: int = 2
    n_cohort_samples: int = 50
    n_cohort_bootstrap: int = 20
    n_cohort_bootstrap_steps: int = 80
    n_network_steps: int = 1000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_number(name, value, 1, whole=True)

    @property
    def n_fits(self) -> int:
        """Fits of one reference with intervals: the joint one and those of the bootstraps."""
        return 1 + self.n_bootstrap + self.n_cohorts * self.n_cohort_bootstrap


def check_budget(budget: object) -> BulkBudget:
    """Return a budget, the usual one for `None`; refuse what is none."""
    if budget is None:
        return BulkBudget()
    if not isinstance(budget, BulkBudget):
        raise TypeError(
            f"`budget` is {a_kind_of(budget)}. Pass a `scovert.model.BulkBudget`, such as "
            "`BulkBudget(n_bootstrap=20)`."
        )
    return budget
