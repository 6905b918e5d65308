"""What is run in the benchmark of hidden confounders: data, methods and seeds by part."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

from benchmarks.confounder.cases import (
    HAO,
    KANG,
    ONEK1K,
    PAPALEXI,
    Case,
    arms,
    donors,
    hao,
    kang_controls,
    kang_stimulated,
    simulated,
)
from benchmarks.confounder.designs import (
    KANG_TYPES,
    all_types,
    hidden_in_donors,
    one_type,
    without_effect,
)
from benchmarks.confounder.designs import STRENGTHS as DESIGN_STRENGTHS
from benchmarks.confounder.scaling import SIZES
from scovert.simulate import confounder, confounder_large

__all__ = ["FULL_BATCH", "PARTS", "QUICK", "SCENARIOS", "Scenario", "case_of"]


class Scenario(NamedTuple):
    """Data of one table: part, what they are, how they are made, files and methods.

    Of the part on scaling, processes of their own make the data.
    """

    part: str
    about: str
    make: Callable[[int], Case] | None
    methods: tuple[str, ...] = ("auto", "unadjusted", "Wilcoxon", "oracle")
    file: str | None = None
    n_seeds: int = 10


BINARY = {"n_latent": 1, "z_type": "binary"}
NO_Z = partial(confounder, "normal", z_ratio=0, loading_scale=0)
WEAK_Z = partial(confounder, "null", z_ratio=0.1, loading_scale=0.2)
STRENGTHS = {"none": (0, 0), "weak": (0.1, 0.2), "middle": (0.3, 0.5), "strong": (1.0, 1.0)}
MIXED = ("continuous", "continuous", "binary")
CAUSARRAY = ("causarray", "causarray, tight")
FULL_BATCH = "full_batch"  # the method of the part on scaling
PARTS = {
    "simulation": "The original simulation",
    "none": "No confounder, and weak ones",
    "large": "The larger simulation",
    "hidden_type": "Real counts, hidden type",
    "real_treatment": "Real treatment: interferon beta",
    "donors": "Treatment by donor",
    "arms": "Many arms: Papalexi",
    "designs": "Ordinary experiments: donors in both arms",
    "scaling": "Scaling",
}

SCENARIOS: dict[str, Scenario] = {}
for _setting in ("normal", "extreme", "null", "sparse"):
    SCENARIOS[f"original {_setting}"] = Scenario(
        "simulation",
        "1,000 cells, 100 genes, 4 covariates, 1 binary confounder",
        partial(simulated, simulate=partial(confounder, _setting), options=BINARY),
        ("binary", "unadjusted", "Wilcoxon", "oracle", *CAUSARRAY),
        n_seeds=20,
    )
SCENARIOS["no Z"] = Scenario(
    "none",
    "the original simulation with loadings and log odds of zero",
    partial(simulated, simulate=NO_Z, options={}),
    ("auto",),
    n_seeds=40,
)
for _type in ("binary", "continuous"):
    SCENARIOS[f"weak Z, {_type}"] = Scenario(
        "none",
        "loadings .2, 10 % of the covariates' variance of the logit; two confounders fitted",
        partial(simulated, simulate=WEAK_Z, options={"n_latent": 2, "z_type": _type}),
        ("latent",),
    )
for _name, (_ratio, _scale) in STRENGTHS.items():
    SCENARIOS[f"strength {_name}"] = Scenario(
        "none",
        f"loadings {_scale}, variance of the logit {_ratio} of the covariates'; one fitted",
        partial(
            simulated,
            simulate=partial(confounder, "normal", z_ratio=_ratio, loading_scale=_scale),
            options=BINARY,
        ),
        ("deviance",),
        n_seeds=5,
    )
SCENARIOS["large"] = Scenario(
    "large",
    "2,000 cells, 1,000 genes, 2 normal and 1 binary confounder, 10 % of the genes respond",
    partial(simulated, simulate=confounder_large, options={"n_latent": "auto"}),
    ("auto", "unadjusted", "Wilcoxon", "oracle", *CAUSARRAY),
)
for _name, _fraction in {"null": 0.0, "10 %": 0.1, "50 %": 0.5}.items():
    SCENARIOS[f"Hao {_name}"] = Scenario(
        "hidden_type",
        f"1,287 PBMC of 9 types, {_name} of 1,000 genes thinned",
        partial(hao, fraction=_fraction),
        file=HAO,
    )
for _name, _fraction in {"null": 0.0, "10 %": 0.1}.items():
    SCENARIOS[f"Kang controls {_name}"] = Scenario(
        "hidden_type",
        f"2,000 unstimulated PBMC, {_name} of 1,000 genes thinned",
        partial(kang_controls, fraction=_fraction),
        file=KANG,
    )
for _name, _weight in {"weak": 0.5, "strong": 1.0}.items():
    SCENARIOS[f"Hao programme {_name}"] = Scenario(
        "hidden_type",
        f"10 % thinned; besides the type a programme within types is hidden, weight {_weight}",
        partial(hao, fraction=0.1, programme=_weight),
        file=HAO,
    )
SCENARIOS["Kang myeloid"] = Scenario(
    "real_treatment",
    "interferon beta, myeloid cells in the stimulated arm, four donors",
    partial(kang_stimulated, all_donors=False),
    ("auto", "controls", "unadjusted", "Wilcoxon", "oracle"),
    file=KANG,
)
SCENARIOS["Kang random"] = Scenario(
    "real_treatment",
    "interferon beta, types at random odds, eight donors",
    partial(kang_stimulated, all_donors=True),
    file=KANG,
)
for _name, _types in {"3 normal": ("continuous",) * 3, "2 normal, 1 binary": MIXED}.items():
    SCENARIOS[f"aligned, {_name}"] = Scenario(
        "real_treatment",
        f"larger simulation, {_name}; 50 % thinned effects follow the first loadings",
        partial(
            simulated,
            simulate=partial(
                confounder_large, z_types=_types, effects="aligned", effect_fraction=0.5
            ),
            options={"n_latent": "auto"},
        ),
    )
DONOR_METHODS = ("auto", "unadjusted", "unadjusted, donors", "oracle")
for _file, _n in ((ONEK1K, 40), (ONEK1K, 20), (ONEK1K, 12), (KANG, 8)):
    for _name, _fraction in {"null": 0.0, "10 %": 0.1}.items():
        SCENARIOS[f"{_n // 2} v. {_n // 2} donors, {_name}"] = Scenario(
            "donors",
            f"{'Kang controls' if _file == KANG else 'OneK1K'}, 2,000 cells, 500 genes",
            partial(donors, file=_file, n_donors=_n, fraction=_fraction),
            DONOR_METHODS,
            file=_file,
            n_seeds=20 if _n == 12 else 10,  # the mean of few donors' FDP is uncertain
        )
for _name, _fraction in {"null": 0.0, "10 %": 0.1}.items():
    SCENARIOS[f"within 8 donors, {_name}"] = Scenario(
        "donors",
        "Kang controls, 2,000 cells, 500 genes; treated cell by cell, by type",
        partial(kang_controls, fraction=_fraction, by_donor=True),
        DONOR_METHODS,
        file=KANG,
    )
for _kind in ("random", "guide", "replicate"):
    SCENARIOS[f"fake arm, {_kind}"] = Scenario(
        "arms",
        "one of all arms is fake: "
        + {"replicate": "as a hidden replicate has it"}.get(
            _kind, f"at random, by {'cell' if _kind == 'random' else 'guide'}"
        ),
        partial(arms, fake=_kind),
        ("auto", "randomised"),
        file=PAPALEXI,
    )
SCENARIOS["knock-outs"] = Scenario(
    "arms",
    "all arms, joint fit",
    partial(arms, fake="none"),
    ("auto", "randomised"),
    file=PAPALEXI,
    n_seeds=1,
)

DESIGN_METHODS = ("auto", "unadjusted, donors", "pseudobulk")
for _name, (_type, _n_genes) in KANG_TYPES.items():
    SCENARIOS[f"Kang {_name}"] = Scenario(
        "designs",
        f"{_type}, interferon beta, 8 donors, {_n_genes} variable genes",
        partial(one_type, name=_name),
        DESIGN_METHODS,
        file=KANG,
        n_seeds=2,
    )
    for _kind in ("halved", "swapped"):
        SCENARIOS[f"Kang {_name}, {_kind}"] = Scenario(
            "designs",
            "without effect: "
            + ("untreated cells in halves" if _kind == "halved" else "arms of 4 donors exchanged"),
            partial(without_effect, name=_name, kind=_kind),
            DESIGN_METHODS,
            file=KANG,
            n_seeds=6,
        )
for _word, _is_known in {"hidden": False, "given": True}.items():
    SCENARIOS[f"Kang all, type {_word}"] = Scenario(
        "designs",
        f"all cells, interferon beta, 8 donors, 2,000 variable genes, type {_word}",
        partial(all_types, is_known=_is_known),
        DESIGN_METHODS,
        file=KANG,
        n_seeds=1,
    )
for _strength in DESIGN_STRENGTHS:
    SCENARIOS[f"8 donors, hidden {_strength:g}"] = Scenario(
        "designs",
        f"Kang controls, 500 genes, 10 % thinned; log odds of the types {_strength:g}",
        partial(hidden_in_donors, strength=_strength),
        (*DESIGN_METHODS, "oracle"),
        file=KANG,
        n_seeds=6,
    )

for _size in SIZES:
    SCENARIOS[_size] = Scenario("scaling", _size, None, (FULL_BATCH,), n_seeds=1)

QUICK = ("original sparse", "no Z", "Hao 10 %", "Kang random", "within 8 donors, 10 %")
QUICK = (*QUICK, "1,000 x 2,000")  # 26 arms take minutes


@lru_cache(maxsize=1)
def case_of(scenario: str, seed: int) -> Case:
    """Make the data of a scenario and a seed."""
    return SCENARIOS[scenario].make(seed)
