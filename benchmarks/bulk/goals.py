"""The goals of the benchmark of deconvolution, each with the number that decides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from benchmarks.bulk.scenarios import (
    AVERAGES,
    COUNTED,
    N_GENES,
    OWN_VARIANTS,
    STUDY,
    UNKNOWN,
    VARIANTS,
)
from benchmarks.goals import Goal

__all__ = ["GATES", "GOALS", "Results"]

STUDIES = ("hoek", "finotello", "newman")
OWN = "joint"


class Results:
    """Results of one part: means over the seeds, by set and method.

    Parameters
    ----------
    rows
        One row for each fit.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        numbers = rows.select_dtypes("number").columns
        self.means = rows.groupby(["scenario", "method"])[list(numbers)].mean()
        self.n_seeds = rows.groupby(["scenario", "method"])["seed"].nunique()

    def get(self, scenario: str, method: str, column: str) -> float:
        """Mean over the seeds; raises `KeyError` if there is none."""
        value = self.means.loc[(scenario, method), column]
        if np.isnan(value):
            raise KeyError(f"no {column} of {method} in {scenario}")
        return float(value)

    def has(self, scenario: str, method: str) -> bool:
        return (scenario, method) in self.means.index

    def by_study(self, method: str, column: str) -> pd.Series:
        """Mean over the sets of each study; all sets have to be there."""
        values = pd.Series({name: self.get(name, method, column) for name in STUDY})
        return values.groupby(STUDY).mean()

    def mean(self, method: str, column: str) -> float:
        return float(self.by_study(method, column).mean())

    def best_peer(self, column: str, scenario: str | None = None) -> float:
        """Lowest of the peers that count: of one set, or of the mean over the studies."""
        if scenario is None:
            return min(self.mean(m, column) for m in COUNTED)
        return min(self.get(scenario, m, column) for m in COUNTED)


def own(scenario: str, column: str) -> Callable[[Results], float]:
    return lambda results: results.get(scenario, OWN, column)


def own_mean(column: str) -> Callable[[Results], float]:
    return lambda results: results.mean(OWN, column)


def to_best(scenario: str, method: str = OWN) -> Callable[[Results], float]:
    """RMSE over that of the best peer on this set."""
    return lambda results: (
        results.get(scenario, method, "rmse") / results.best_peer("rmse", scenario)
    )


def blood() -> Iterator[Goal]:
    yield Goal("mean RMSE of the studies", own_mean("rmse"), "<=", 0.065, 0.055)

    def to_best_mean(results: Results) -> float:
        return results.mean(OWN, "rmse") / results.best_peer("rmse")

    yield Goal("mean RMSE / best single peer", to_best_mean, "<=", 0.8, 0.6)
    yield Goal("mean within part", own_mean("within"), "<=", 0.03, 0.025)
    yield Goal("mean r of the types", own_mean("r"), ">=", 0.8, 0.85)
    yield Goal("hoek x Hao: RMSE", own("hoek x Hao", "rmse"), "<=", 0.035, 0.025)
    yield Goal("hoek x Hao: CCC", own("hoek x Hao", "ccc"), ">=", 0.98)
    tpm, counts = "finotello TPM x Hao", "finotello counts x Hao"
    for name in (tpm, counts):
        yield Goal(f"{name}: RMSE", own(name, "rmse"), "<=", 0.06, 0.045)

    def to_tpm(results: Results) -> float:
        return results.get(counts, OWN, "rmse") / results.get(tpm, OWN, "rmse")

    yield Goal("finotello x Hao: RMSE of counts / TPM", to_tpm, "<=", 1.15)
    yield Goal("hoek x pbmc3k: RMSE", own("hoek x pbmc3k", "rmse"), "<=", 0.075, 0.049)
    yield Goal("newman: RMSE", own("newman", "rmse"), "<=", 0.055, 0.045)
    for name in ("Kang", "Newman, 10x"):
        name = f"finotello TPM x {name}"
        yield Goal(f"{name}: RMSE", own(name, "rmse"), "<=", 0.12)
    value = own_mean("measured_2")
    yield Goal("two samples measured: RMSE of the others", value, "<=", 0.042, 0.035)
    for study in STUDIES:

        def coverage(results: Results, study: str = study) -> float:
            return results.by_study(OWN, "coverage")[study]

        yield Goal(f"{study}: coverage of 90 % intervals", coverage, "in", (0.8, 0.97))
    yield Goal("coverage of 90 % intervals, mean", own_mean("coverage"), "in", (0.85, 0.95))
    about = "coverage between samples of relative intervals, mean"
    yield Goal(about, own_mean("between"), "in", None, (0.85, 0.95))


def gate(name: str) -> Iterator[Goal]:
    """Whether a variant may become the default; not a goal."""

    def pairs(results: Results) -> pd.DataFrame:
        sets = [s for s in STUDY if results.has(s, name)]
        if not sets:
            raise KeyError(f"no set of {name}")
        return pd.DataFrame({m: [results.get(s, m, "rmse") for s in sets] for m in (name, OWN)})

    def mean(results: Results) -> float:
        rmse = pairs(results).mean()
        return rmse[name] / rmse[OWN]

    def worst(results: Results) -> float:
        rmse = pairs(results)
        return (rmse[name] / rmse[OWN]).max()

    yield Goal(f"{name}: mean RMSE / that of the default, same sets", mean, "<=", 0.95)
    yield Goal(f"{name}: the same of the worst set", worst, "<=", 1.05)


def chosen_elsewhere(results: Results) -> dict[str, tuple[int, float]]:
    """Of each study the number of genes that is best on the other two, and its RMSE."""
    table = pd.DataFrame(
        {
            n: pd.Series(
                {s: results.get(f"{s}, genes", f"{OWN}, {n} genes", "rmse") for s in STUDY}
            )
            for n in N_GENES
        }
    )
    table = table.groupby(STUDY).mean()
    best = {study: table.drop(index=study).mean().idxmin() for study in STUDIES}
    return {study: (n, float(table.loc[study, n])) for study, n in best.items()}


def genes() -> Iterator[Goal]:
    def rmse(results: Results) -> float:
        return float(np.mean([value for _, value in chosen_elsewhere(results).values()]))

    def to_best(results: Results) -> float:
        return rmse(results) / results.best_peer("rmse")

    how = "chosen on the other two studies"
    yield Goal(f"{how}: mean RMSE", rmse, "<=", 0.065, 0.055)
    yield Goal(f"{how}: mean RMSE / best single peer", to_best, "<=", 0.8, 0.6)
    for study in STUDIES:

        def chosen(results: Results, study: str = study) -> float:
            return chosen_elsewhere(results)[study][0]

        yield Goal(f"{study}: genes for each type", chosen, "<=", None)


def averages() -> Iterator[Goal]:
    def of_combinations(results: Results, column: str) -> pd.Series:
        names = [name for name in AVERAGES if (name, OWN) in results.means.index]
        if not names:
            raise KeyError("no averages")
        return pd.Series({name: results.get(name, OWN, column) for name in names})

    def worst(results: Results) -> float:
        ratio = of_combinations(results, "rmse") / of_combinations(results, "rmse_single")
        return ratio.max()

    yield Goal("RMSE / mean of the single fits, worst combination", worst, "<", 1)
    for study, aim in {"hoek": 0.035, "finotello": 0.06}.items():

        def mean(results: Results, study: str = study) -> float:
            return of_combinations(results, "rmse").filter(like=study).mean()

        yield Goal(f"{study}: mean RMSE of the combinations", mean, "<=", None, aim)


def pseudobulks() -> Iterator[Goal]:
    for name in ("Kang donors", "Kang x Hao"):
        about = f"{name}: coverage of 90 % intervals, sizes known"
        yield Goal(about, own(name, "coverage"), "in", None, (0.85, 0.95))
        yield Goal(f"{name}: RMSE / best peer", to_best(name), "<=", None)


def mixtures() -> Iterator[Goal]:
    return iter(())


def simulations() -> Iterator[Goal]:
    for name, bound in {"E": 1.0, "F": 0.8, "A": 1.1, "B": 1.25}.items():
        yield Goal(f"{name}: RMSE / best peer", to_best(name), "<=", bound)
    for name, bound in {"E": 1.0, "F": 0.8}.items():
        about = f"{name}, unknown=True: RMSE / best peer"
        yield Goal(about, to_best(name, UNKNOWN), "<=", bound)
    for name, bound in {"E": 1.0, "F": 0.8, "A": 1.1, "B": 1.25}.items():

        def route(results: Results, name: str = name) -> float:
            ours = [m for m in OWN_VARIANTS if results.has(name, m)]
            found = [results.get(name, m, "rmse") for m in ours]
            if not found:
                raise KeyError(f"no variant in {name}")
            return min(found) / results.best_peer("rmse", name)

        yield Goal(f"{name}: best of our variants / best peer", route, "<=", bound)


def posteriors() -> Iterator[Goal]:
    return iter(())


def expression() -> Iterator[Goal]:
    name = "Kang donors, expression"

    def gain(results: Results) -> float:
        return own(name, "r_response")(results) - results.get(name, "BayesPrism", "r_response")

    yield Goal("r of the log fold changes, less BayesPrism's", gain, ">=", -0.02)
    yield Goal("r of their type-specific part", own(name, "r_specific"), ">=", 0.25)

    def specific_gain(results: Results) -> float:
        other = results.get(name, "BayesPrism", "r_specific")
        return own(name, "r_specific")(results) - other

    yield Goal("r of the type-specific part, less BayesPrism's", specific_gain, ">=", None)
    yield Goal("seeds", lambda results: results.n_seeds[name, OWN], ">=", 3)


def speed() -> Iterator[Goal]:
    yield Goal("CPU s", own("100 bulks", "cpu"), "<=", 15, 10)
    yield Goal("peak memory of the process, GiB", own("100 bulks", "gib"), "<=", 1.5)


GOALS: dict[str, list[Goal]] = {
    part.__name__: list(part())
    for part in (
        *(blood, genes, averages, pseudobulks, mixtures),
        *(simulations, posteriors, expression, speed),
    )
}
GATES = [goal for name in VARIANTS for goal in gate(name)]
