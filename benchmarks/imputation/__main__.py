"""MaskedImputation and its peers on genes that were hidden; prints a Markdown table for each set.

    python -m benchmarks.imputation --quick    # smoke run: the numbers mean nothing
    python -m benchmarks.imputation --jobs 2   # half an hour; continues where a run was stopped
    python -m benchmarks.imputation --table    # only renders the stored results

Each finished run is a line of the results file, and is not repeated: to run it again, delete its
line.
"""

from __future__ import annotations

import argparse

from benchmarks.comparison import Comparison
from benchmarks.imputation.fits import ALL_SEEDS, FEW, score
from benchmarks.imputation.goals import GOALS
from benchmarks.imputation.sets import SETS
from benchmarks.runs import Group, Task

COLUMNS = {  # heading and digits
    "d2": ("deviance explained", 3),
    "r": ("r", 3),
    "offset": ("offset", 2),
    "bias": ("bias", 2),
    "inside_totals": ("totals inside", 2),
    "inside_types": ("by type", 2),
    "inside_counts": ("counts inside", 2),
    "factor": ("factor", 1),
    "known_deviance_explained": ("known genes", 3),
    "cpu": ("CPU s", 1),
}
LEGEND = """\
Hidden genes of the second dataset, mean (standard deviation over the seeds of cells, hidden genes
and training). *deviance explained*: share of the negative binomial deviance from the mean share of
the first dataset; *r*: median over genes of the correlation over cells, which counting noise
bounds: compare with the oracle; *offset*: median distance of the log2 totals of genes; *bias*:
log2 of the total of all. *inside*: share of hidden totals of genes, of totals by type and of
single counts in their intervals of 90 %, whose ends are a *factor* from the middle. *known genes*:
deviance explained of the genes that were held back to calibrate. *levels not moved*: without what
these genes say of the levels of others. Ridge predicts logarithms, whose mean is no mean of
counts. gimVI and SCVI on the zero-filled union take minutes: 100 epochs, two sets, one seed;
without rows of theirs they were not run."""


def groups(args: argparse.Namespace, sets: list[str]) -> list[Group]:
    return [
        [
            Task(name, method, seed)
            for method in args.methods
            if method not in FEW or (seed == 0 and name in FEW[method])
        ]
        for seed in args.seeds
        for name in sets
    ]


COMPARISON = Comparison(
    name="imputation",
    title="Imputation of genes that were not measured",
    sets=SETS,
    methods=[*ALL_SEEDS, *FEW],
    columns=COLUMNS,
    goals=GOALS,
    legend=lambda _: LEGEND,
    groups=groups,
    score=score,
    seeds=range(3),
    quick_set="osmfish",
)


def main() -> None:
    COMPARISON.main(__doc__)


if __name__ == "__main__":
    main()
