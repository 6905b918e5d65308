"""The goals of the benchmark of hidden confounders, each with the number that decides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from benchmarks.confounder.designs import KANG_TYPES, STRENGTHS
from benchmarks.confounder.scores import STRONG_ARMS
from benchmarks.goals import Goal

__all__ = ["GOALS", "Results"]


class Results:
    """Results of one part: numbers by scenario and method.

    Parameters
    ----------
    rows
        One row for each fit.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows

    def get(self, scenario: str, method: str, column: str) -> pd.Series:
        """Values by seed; raises `KeyError` if there are none."""
        rows = self.rows
        rows = rows[(rows["scenario"] == scenario) & (rows["method"] == method)]
        values = rows.set_index("seed").get(column, pd.Series(dtype=float)).dropna()
        if values.empty:
            raise KeyError(f"no {column} of {method} in {scenario}")
        return values.sort_index()

    def ratio(self, scenario: str, method: str, other: str, column: str) -> float:
        """Ratio of two means over the seeds that both methods have."""
        own, base = (self.get(scenario, m, column) for m in (method, other))
        both = own.index.intersection(base.index)
        return own[both].mean() / base[both].mean()


def mean(scenario: str, method: str, column: str) -> Callable[[Results], float]:
    return lambda results: results.get(scenario, method, column).mean()


def worst(scenario: str, method: str, column: str) -> Callable[[Results], float]:
    return lambda results: results.get(scenario, method, column).max()


def ratio(scenario: str, method: str, other: str, column: str) -> Callable[[Results], float]:
    return lambda results: results.ratio(scenario, method, other, column)


def simulation() -> Iterator[Goal]:
    for name in ("normal", "extreme"):
        where = (f"original {name}", "binary")
        yield Goal(f"{name}: correlation with the truth", mean(*where, "abs_r"), ">=", 0.99)
        yield Goal(f"{name}: AUROC", mean(*where, "auroc"), ">=", 0.999)
        yield Goal(f"{name}: RMSE / oracle", ratio(*where, "oracle", "rmse"), "<=", 1.05)
        yield Goal(f"{name}: coverage", mean(*where, "coverage"), "in", (0.93, 0.97))
    yield Goal(
        "null: false positive rate", mean("original null", "binary", "fpr"), "in", (0.03, 0.06)
    )
    yield Goal("sparse: FDP", mean("original sparse", "binary", "fdp"), "<=", 0.07)
    yield Goal("sparse: power", mean("original sparse", "binary", "power"), ">=", 0.97)

    def slowest(results: Results) -> float:
        names = ("normal", "extreme", "null", "sparse")
        return max(results.get(f"original {n}", "binary", "cpu").max() for n in names)

    yield Goal("slowest fit, s", slowest, "<=", 5)


def none() -> Iterator[Goal]:
    def found_none(results: Results) -> float:
        return (results.get("no Z", "auto", "n_latent") == 0).mean()

    yield Goal("no Z: share of seeds with none found", found_none, ">=", 0.95)
    yield Goal("no Z: leakage", mean("no Z", "auto", "leakage"), "<=", 0.06)
    value = mean("strength none", "deviance", "leakage")
    yield Goal("no Z, one binary fitted: leakage", value, "<=", 0.06)
    for kind in ("binary", "continuous"):
        name = f"weak Z, {kind}"
        yield Goal(f"{name}: leakage", mean(name, "latent", "leakage"), "<=", 0.1)
    for what in ("treatment", "counts"):

        def smallest_step(results: Results, what: str = what) -> float:
            names = [f"strength {s}" for s in ("none", "weak", "middle", "strong")]
            means = [results.get(n, "deviance", f"dbpr_{what}").mean() for n in names]
            return min(np.diff(means))

        yield Goal(f"DBPR of the {what}: smallest step to a stronger Z", smallest_step, ">", 0)


def large() -> Iterator[Goal]:
    where = ("large", "auto")
    yield Goal("R", mean(*where, "R"), ">=", 0.98)
    yield Goal("RMSE / oracle", ratio(*where, "oracle", "rmse"), "<=", 1.05)
    yield Goal("RMSE / causarray, tight", ratio(*where, "causarray, tight", "rmse"), "<=", 0.8)
    yield Goal("FDP", mean(*where, "fdp"), "<=", 0.06)
    yield Goal("power", mean(*where, "power"), ">=", 0.98)

    def time(results: Results) -> float:
        own = sum(results.get(*where, c) for c in ("cpu", "cpu_effects"))
        other = results.get("large", "causarray", "cpu")
        both = own.index.intersection(other.index)
        return own[both].mean() / other[both].mean()

    yield Goal("time / causarray at its default stopping", time, "<=", 0.2)


def hidden_type() -> Iterator[Goal]:
    for name in ("Hao null", "Kang controls null"):
        yield Goal(f"{name}: genes called", mean(name, "auto", "called_share"), "<=", 0.002)
        yield Goal(f"{name}: worst seed", worst(name, "auto", "called_share"), "<=", 0.01)
    for name in ("Hao 10 %", "Kang controls 10 %"):
        yield Goal(f"{name}: FDP", mean(name, "auto", "fdp"), "<=", 0.08)
        yield Goal(f"{name}: worst FDP", worst(name, "auto", "fdp"), "<=", 0.15)
        power = ratio(name, "auto", "oracle", "power")
        yield Goal(f"{name}: power / oracle", power, ">=", 0.95)
    name = "Hao 50 %"
    yield Goal(f"{name}: RMSE / oracle", ratio(name, "auto", "oracle", "rmse"), "<=", 1.03)
    yield Goal(f"{name}: FDP", mean(name, "auto", "fdp"), "<=", 0.06)
    yield Goal(f"{name}: power / oracle", ratio(name, "auto", "oracle", "power"), ">=", 0.95)
    programmes = ("Hao programme weak", "Hao programme strong")
    for name in programmes:
        yield Goal(f"{name}: FDP", mean(name, "auto", "fdp"), "<=", 0.1)
    tables = ("Hao null", "Hao 10 %", "Hao 50 %", "Kang controls null", "Kang controls 10 %")
    for name in (*tables, *programmes):
        cover = mean(name, "auto", "coverage")
        yield Goal(f"{name}: coverage", cover, "in", (0.93, 0.97))


def real_treatment() -> Iterator[Goal]:
    for name in ("Kang myeloid", "Kang random"):
        yield Goal(f"{name}: rank correlation", mean(name, "auto", "rank_r"), ">=", 0.97)

        def gain(results: Results, name: str = name) -> float:
            own, unadjusted = (results.get(name, m, "rank_r") for m in ("auto", "unadjusted"))
            return (own - unadjusted).min()

        yield Goal(f"{name}: rank correlation less unadjusted, worst seed", gain, ">=", 0)
        yield Goal(f"{name}: sign agreement", mean(name, "auto", "sign"), ">=", 0.99)
        yield Goal(f"{name}: precision", mean(name, "auto", "precision"), ">=", 0.93)
    for kind in ("3 normal", "2 normal, 1 binary"):
        name = f"aligned, {kind}"
        refused = mean(name, "auto", "is_refused")
        yield Goal(f"{name}: seeds with p-values refused", refused, ">=", 1)
    for column, bound in {"rank_r": 0.92, "sign": 0.99, "precision": 0.93, "recall": 0.65}.items():
        value = mean("Kang myeloid", "controls", column)
        yield Goal(f"150 controls: {column.replace('_', ' ')}", value, ">=", bound)


def donors() -> Iterator[Goal]:
    for name in ("20 v. 20 donors", "10 v. 10 donors", "6 v. 6 donors", "within 8 donors"):
        yield Goal(f"{name}: null FPR", mean(f"{name}, null", "auto", "fpr"), "<=", 0.07)
        yield Goal(f"{name}: FDP", mean(f"{name}, 10 %", "auto", "fdp"), "<=", 0.1)
        power = ratio(f"{name}, 10 %", "auto", "oracle", "power")
        yield Goal(f"{name}: power / true type", power, ">=", 1)


def arms() -> Iterator[Goal]:
    for kind, bound in {"random": 0, "replicate": 0.002}.items():
        name = f"fake arm, {kind}"
        yield Goal(f"{name}: genes called", mean(name, "auto", "called_share"), "<=", bound)
    for arm in STRONG_ARMS:

        def kept(results: Results, arm: str = arm) -> float:
            found = results.get("knock-outs", "randomised", "arms").iloc[0][arm]
            return found["kept"] / found["unadjusted"]

        yield Goal(f"{arm}, randomised: share of the unadjusted calls kept", kept, ">=", 0.8)
    value = mean("fake arm, random", "randomised", "called_share")
    yield Goal("fake arm, random, randomised: genes called", value, "<=", 0.002)


TYPES = [f"Kang {name}" for name in KANG_TYPES]


FEW_CELLS = [f"Kang {name}" for name in ("NK", "CD8", "T", "B", "DC")]  # the others take long


def of_types(
    column: str, suffix: str = "", types: Sequence[str] = TYPES
) -> Callable[[Results], list[float]]:
    return lambda results: [results.get(t + suffix, "auto", column).mean() for t in types]


def lost(results: Results) -> float:
    """Rank correlation less that of unadjusted effects, of the type that loses most."""
    own, unadjusted = (of_types(c)(results) for c in ("rank_r", "rank_r_unadjusted"))
    return min(np.subtract(own, unadjusted))


def found(results: Results) -> float:
    """Share of the reference's calls that are found, over all types."""
    return float(np.average(of_types("recall")(results), weights=of_types("n_reference")(results)))


def seconds(scenario: str) -> Callable[[Results], float]:
    costs = ("cpu", "cpu_effects")
    return lambda results: sum(results.get(scenario, "auto", c).mean() for c in costs)


def designs() -> Iterator[Goal]:
    yield Goal("r with pseudobulk less that of unadjusted effects, worst type", lost, ">=", -0.002)
    value = of_types("rank_r")
    yield Goal("r with pseudobulk, worst type", lambda r: min(value(r)), ">=", 0.97)
    yield Goal("share of pseudobulk's calls found, all types", found, ">=", 0.9)
    recall, flips = of_types("recall"), of_types("flips")
    yield Goal("share found, worst type", lambda r: min(recall(r)), ">=", 0.84)
    yield Goal("flipped signs among common calls, of types", lambda r: sum(flips(r)), "<=", 0)
    for kind in ("halved", "swapped"):
        rate = of_types("fpr", f", {kind}", FEW_CELLS)
        about = f"{kind}: false positive rate, mean of five types"
        yield Goal(about, lambda r, rate=rate: float(np.mean(rate(r))), "in", (0.04, 0.06))
    for strength in STRENGTHS:
        name = f"8 donors, hidden {strength:g}"
        yield Goal(f"{name}: false positive rate", mean(name, "auto", "fpr"), "<=", 0.07)
        yield Goal(f"{name}: FDP", mean(name, "auto", "fdp"), "<=", 0.1)
    for name, bound in {"Kang B": 4, "Kang CD14": 15, "Kang all, type hidden": 60}.items():
        yield Goal(f"{name}: CPU s", seconds(name), "<=", bound)


def scaling() -> Iterator[Goal]:
    for name, bound in {"10,000 x 1,000": 5, "50,000 x 1,000": 25}.items():
        yield Goal(f"{name}: CPU s of train", mean(name, "full_batch", "cpu"), "<=", bound)
    name = "10,000 x 1,000"
    for kind in ("randomised", "auto"):
        value = mean(name, "full_batch", f"distance_{kind}")
        yield Goal(f"{name}, {kind}: median distance to float64, se", value, "<=", 0.05)


GOALS: dict[str, list[Goal]] = {
    part.__name__: list(part())
    for part in (
        simulation,
        none,
        large,
        hidden_type,
        real_treatment,
        donors,
        arms,
        designs,
        scaling,
    )
}
