"""What is run in the benchmark of deconvolution: sets, methods and seeds by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product

from benchmarks.bulk.mixtures import cell_lines, kang, kang_controls, simulated
from benchmarks.bulk.sets import Case, blood, newman
from benchmarks.bulk.simulated import SETTINGS
from benchmarks.runs import Task

__all__ = [
    "AVERAGES",
    "COUNTED",
    "INTERVALS",
    "METHODS",
    "N_GENES",
    "OURS",
    "OWN_VARIANTS",
    "PARTS",
    "QUICK",
    "SCENARIOS",
    "SPEED",
    "STUDY",
    "UNKNOWN",
    "VARIANTS",
    "WAYS",
    "Scenario",
    "case_of",
    "part_of",
    "tasks_of_part",
]

PARTS = {
    "blood": "Blood with measured fractions, one reference",
    "genes": "Number of genes, one study left out",
    "averages": "Blood with measured fractions, several references",
    "pseudobulks": "Pseudobulks of donors, one study for bulk and reference or two",
    "mixtures": "Mixtures of cell lines and of their RNA",
    "simulations": "Mixtures of held-out cells",
    "posteriors": "Ways to the sampling error",
    "expression": "Expression by cell type: response to interferon",
    "speed": "Speed",
}
COMBINED = {  # references that are averaged
    "all four": ("Hao", "pbmc3k", "Zheng", "Kang"),
    "pbmc3k, Zheng": ("pbmc3k", "Zheng"),
    "pbmc3k, Kang": ("pbmc3k", "Kang"),
    "Hao, Kang": ("Hao", "Kang"),
    "Hao, pbmc3k": ("Hao", "pbmc3k"),
    "pbmc3k, Zheng, Kang": ("pbmc3k", "Zheng", "Kang"),
}
OTHERS = ("rectangle", "Scaden")
WAYS = ("bootstrap", "Laplace")  # to the sampling error; widened by a multiplier or not
WAYS = tuple(f"{way}{more}" for way in WAYS for more in ("", " x multiplier"))
WAYS = (*WAYS, "Laplace at the mode", "Pyro mean-field", "Pyro low rank")
OF_WAYS = ("hoek x Hao", "hoek x pbmc3k", "finotello TPM x Hao", "finotello TPM x Kang", "newman")
OF_WAYS = (*OF_WAYS, "Kang donors", "Kang x Hao", "B", "D")  # sets
INTERVALS = ", intervals"


@dataclass(frozen=True)
class Scenario:
    """How cases are made, and by which methods they are deconvolved."""

    part: str
    make: Callable[[int], Case]
    methods: tuple[str, ...]
    n_seeds: int = 1  # of the data
    own_seeds: int = 1  # of ours, on the same data


OURS, OWN_SEEDS = ("joint",), 5
VARIANTS = ("network", "prototype VAE")
COUNTED = ("MuSiC", "BayesPrism", "nu-SVR", "dtangle")  # in the goals
PEERS = (*COUNTED, "NNLS")
OF_VARIANTS = ("newman", "hoek x Hao", "hoek x pbmc3k")  # sets: networks are slow
OF_VARIANTS = (*OF_VARIANTS, "finotello TPM x Hao", "finotello TPM x pbmc3k")
SINGLE = ("Hao", "pbmc3k", "Zheng", "Kang", "Newman, 10x")
N_GENES = (100, 200, 400, 800, 1600)  # for each type
BY_GENES = tuple(f"joint, {n} genes" for n in N_GENES)
FEW_GENES, UNKNOWN = "joint, 50 genes", "joint, unknown"
FEW_GENES_UNKNOWN = "joint, unknown, 50 genes"
STUDY = {"newman": "newman"}  # of a set of blood
for _bulk, _reference in product(("hoek", "finotello TPM", "finotello counts"), SINGLE):
    STUDY[f"{_bulk} x {_reference}"] = _bulk.split()[0]

SCENARIOS: dict[str, Scenario] = {}
for _name, _study in STUDY.items():
    _make = newman
    if " x " in _name:
        _bulk, _reference = _name.split(" x ")
        _make = partial(blood, bulk=_bulk, reference=_reference)
    _more = OTHERS if _name in ("hoek x Hao", "finotello TPM x Hao") else ()
    _variants = VARIANTS if _name in OF_VARIANTS else ()
    SCENARIOS[_name] = Scenario(
        "blood", _make, (*OURS, *_variants, *PEERS, *_more), own_seeds=OWN_SEEDS
    )
    SCENARIOS[f"{_name}, genes"] = Scenario("genes", _make, BY_GENES)
for _name, _make in {"Kang donors": kang, "Kang x Hao": kang_controls}.items():
    SCENARIOS[_name] = Scenario("pseudobulks", _make, (*OURS, *PEERS), 3)
for _what, (_title, _batch) in product(
    ("cells", "RNA"), {"CEL-seq2": "celseq2_3cl", "Drop-seq": "dropseq_3cl"}.items()
):
    SCENARIOS[f"{_what} x {_title}"] = Scenario(
        "mixtures",
        partial(cell_lines, what=_what, batch=_batch),
        (*OURS, *PEERS),
        own_seeds=OWN_SEEDS,
    )
for _name in SETTINGS:
    _more = (UNKNOWN, FEW_GENES_UNKNOWN) if SETTINGS[_name].missing else ()
    _more = ("network",) if _name in ("A", "B") else _more
    SCENARIOS[_name] = Scenario(
        "simulations",
        partial(simulated, setting=_name),
        (*OURS, *_more, FEW_GENES, *PEERS),
        n_seeds=5,
    )
for _name in OF_WAYS:
    SCENARIOS[f"{_name}{INTERVALS}"] = Scenario("posteriors", SCENARIOS[_name].make, WAYS, 2)
SCENARIOS["Kang donors, expression"] = Scenario("expression", kang, ("joint", "BayesPrism"), 3)
AVERAGES = {  # sets whose fits are averaged
    f"{bulk} x {name}": [f"{bulk} x {reference}" for reference in combined]
    for bulk in ("hoek", "finotello TPM", "finotello counts")
    for name, combined in COMBINED.items()
}
SPEED = "100 bulks"
METHODS = (*OURS, UNKNOWN, FEW_GENES, FEW_GENES_UNKNOWN, *VARIANTS, *BY_GENES, *PEERS, *OTHERS)
METHODS = (*METHODS, *WAYS)
OWN_VARIANTS = (UNKNOWN, FEW_GENES, FEW_GENES_UNKNOWN, *VARIANTS)
QUICK = ("hoek x pbmc3k", "hoek x Zheng", "hoek x pbmc3k, genes", "hoek x pbmc3k, Zheng")
QUICK = (*QUICK, "Kang x Hao", "cells x CEL-seq2", "E", "Kang donors, expression", SPEED)


def part_of(scenario: str) -> str:
    if scenario == SPEED:
        return "speed"
    return "averages" if scenario in AVERAGES else SCENARIOS[scenario].part


def tasks_of_part(part: str) -> Iterator[Task]:
    """All runs of a part, those on the same data one after the other."""
    if part in ("averages", "speed"):
        names = AVERAGES if part == "averages" else (SPEED,)
        for seed in range(OWN_SEEDS if part == "averages" else 1):
            yield from (Task(name, OURS[0], seed) for name in names)
        return
    for name, found in SCENARIOS.items():
        if found.part == part:
            for method in found.methods:
                yield from (Task(name, method, seed) for seed in seeds_of(name, method))


def seeds_of(scenario: str, method: str) -> range:
    """Seeds of a method: ours draws more often than the peers."""
    found = SCENARIOS[scenario]
    return range(max(found.n_seeds, found.own_seeds if method in OURS else 1))


@lru_cache(maxsize=4)
def case_of(scenario: str, seed: int) -> Case:
    """Make the data of a scenario and a seed; without drawing, the seed makes no difference."""
    return SCENARIOS[scenario].make(seed)
