"""Names of cell types: which of them are in the table of RNA per cell, as what, and which not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from anndata import AnnData

from scovert.model.bulk._rna_per_cell import RNA_PER_CELL
from scovert.model.bulk._type_names import match_types

NAMES = {
    # Hao, by rectangle
    "B cells": "B", "ILC": "ILC", "Monocytes": "monocyte", "NK cells": "NK",
    "Plasma cells": "plasma", "Platelet": "platelet", "T cells CD4 conv": "CD4 T",
    "T cells CD8": "CD8 T", "Tregs": "Treg", "mDC": "DC", "pDC": "pDC",
    # the shared names of the public files
    "B": "B", "CD4 T": "CD4 T", "CD8 T": "CD8 T", "DC": "DC", "Monocyte": "monocyte", "NK": "NK",
    "Neutrophil": "neutrophil", "T other": "T",
    # PBMC 3k
    "CD14 Monocytes": "monocyte", "Dendritic": "DC", "FCGR3A Monocytes": "monocyte",
    "Megakaryocytes": "platelet",
    # Zheng
    "bcells": "B", "cytotoxict": "CD8 T", "memoryt": "T", "monocytes": "monocyte",
    "naivecytotoxic": "CD8 T", "naivet": "T", "nk": "NK", "regulatoryt": "Treg",
    "thelper": "CD4 T",
    # Kang
    "CD14+ Monocytes": "monocyte", "CD16+ Monocytes": "monocyte", "CD4+ T cells": "CD4 T",
    "CD8+ T cells": "CD8 T", "B Activated": "B", "CD14 Mono": "monocyte", "CD16 Mono": "monocyte",
    "CD4 Memory T": "CD4 T", "CD4 Naive T": "CD4 T", "T activated": "T", "T": "T",
    # OneK1K
    "B memory": "B", "CD4 naive/central memory T": "CD4 T", "Monocyte classical": "monocyte",
    "Monocyte nonclassical": "monocyte",
    # PBMC 68k
    "CD4+/CD25 T Reg": "Treg", "CD4+/CD45RA+/CD25- Naive T": "CD4 T",
    "CD4+/CD45RO+ Memory": "CD4 T", "CD8+ Cytotoxic T": "CD8 T",
    "CD8+/CD45RA+ Naive Cytotoxic": "CD8 T", "CD14+ Monocyte": "monocyte", "CD19+ B": "B",
    "CD56+ NK": "NK",
    # others in use
    "non-classical monocyte": "monocyte", "MAIT": "T", "gdT": "T", "NKT": "T",
    "natural killer T cell": "T", "natural killer cell": "NK", "NK_CD56bright": "NK",
    "Plasmablast": "plasma", "cDC2": "DC", "plasmacytoid dendritic cell": "pDC",
    "T cells regulatory (Tregs)": "Treg", "T cells follicular helper": "CD4 T",
    "Macrophages M1": "monocyte", "T/NK": "T",
}  # fmt: skip

# By type, names of the Cell Ontology, of atlases, classifiers and deconvolution methods
BY_TYPE = {
    "CD4 T": [
        "CD4-positive, alpha-beta T cell", "CD4-positive, alpha-beta memory T cell",
        "naive thymus-derived CD4-positive, alpha-beta T cell", "CD4-positive helper T cell",
        "CD4-positive, alpha-beta cytotoxic T cell", "T-helper 17 cell", "T-helper 1 cell",
        "activated CD4-positive, alpha-beta T cell, human", "T follicular helper cell",
        "T cell CD4+ (non-regulatory)", "T cell CD4+ Th1", "T cells CD4 memory resting",
        "T.cells.CD4.memory.resting", "CD4 TCM", "CD4 CTL", "CD4 TCM_1", "CD4+ T Helper2",
        "Tcm/Naive helper T cells", "Tem/Effector helper T cells PD1+", "Th1/Th17 cells",
        "Type 17 helper T cells", "Memory CD4+ cytotoxic T cells", "T_cell:CD4+_effector_memory",
        "T cells, CD4+, Th1_17", "CD4.IL22", "CD4_Tcells", "CD4Tconv", "TCD4",
    ],
    "CD8 T": [
        "CD8-positive, alpha-beta T cell", "naive thymus-derived CD8-positive, alpha-beta T cell",
        "effector memory CD8-positive, alpha-beta T cell, terminally differentiated",
        "CD8-positive, alpha-beta cytokine secreting effector T cell", "CD8 TEM",
        "CD8-positive, alpha-beta regulatory T cell", "CD8+ T helper", "CD8 Effector_1",
        "CD8-positive, alpha-beta memory T cell, CD45RO-positive", "CD8Tex", "CD8.TE",
        "Tem/Trm cytotoxic T cells", "T_cell:CD8+_effector_memory_RA", "T cell CD8+ naive",
    ],
    "Treg": [
        "CD4-positive, CD25-positive, alpha-beta regulatory T cell", "T cell regulatory (Tregs)",
        "double negative T regulatory cell", "natural T-regulatory cell", "Treg Memory",
        "T cells, CD4+, memory TREG", "CD4+FOXP3+ Treg",
        "naive CCR4-positive regulatory T cell",
    ],
    "T": [
        "mucosal invariant T cell", "gamma-delta T cell", "mature NK T cell", "type I NK T cell",
        "invariant natural killer T-cell", "T cell NK", "T cells gamma delta", "dnT", "gdT_1",
        "Non-Vd2 gd T cells", "Vγ9Vδ2 T", "γδ T", "αβ T", "T cell CD8+ gamma delta", "CD8 MAIT",
        "NK-like T", "MAIT/NKT", "CD8 T/NK", "CD4/CD8 T", "CD4 T + CD8 T", "Treg/CD8 T",
        "double positive T", "other T", "exhausted T cell",
    ],
    "B": [
        "class switched memory B cell", "IgG-negative class switched memory B cell",
        "transitional stage B cell", "germinal center B cell", "B cell, CD19-positive",
        "B intermediate lambda", "B_non-switched_memory", "Age-associated B cells", "naïve B",
        "Bcells", "CD27-IgD- B", "DN B",
    ],
    "plasma": [
        "IgG plasma cell", "B cell plasma", "Plasma_cell_IgA", "B_cell:Plasma_cell",
        "Plasmablast/Plasma", "CD19- plasma cell",
    ],
    "NK": [
        "CD16-negative, CD56-bright natural killer cell, human", "NK cells resting", "NKcells",
        "CD16-positive, CD56-dim natural killer cell, human", "CD16- NK cells", "NK_16hi", "NK_3",
        "NK_cell:CD56hiCD62L+", "CD3-CD56+ NK", "CD3−CD56+ NK", "CD3-NK",
    ],
    "ILC": ["innate lymphoid cell", "group 2 innate lymphoid cell, human", "ILC1_3", "ILC2s"],
    "monocyte": [
        "CD14-positive monocyte", "CD14-low, CD16-positive monocyte", "intermediate monocyte",
        "CD14-positive, CD16-negative classical monocyte", "CD14-CD16+ Mono", "Macrophage M1",
        "Macrophage/Monocyte", "CD14-Mono", "CD14++CD16+ monocyte", "Monocyte:CD16-",
    ],
    "DC": [
        "CD1c-positive myeloid dendritic cell", "Myeloid dendritic cell activated", "ASDC", "DC3",
        "conventional dendritic cell", "Dendritic cells resting", "cDC2_1", "cDC1/cDC2",
    ],
    "pDC": ["plasmacytoid dendritic cell, human", "Dendritic cells, plasmacytoid"],
    "platelet": ["platelet", "Megakaryocytes/platelets", "Mk"],
    "neutrophil": ["Low-density neutrophils", "immature neutrophil"],
}  # fmt: skip
SIGNS = {
    "CD4 T": [
        "CD4+ T", "CD4⁺ T", "CD4pos T", "CD4 positive T", "CD4+ve T", "CD4(+) T", "CD4high T",
        "CD3+CD4+", "CD4+CD8- T", "CD8⁻CD4⁺", "CD4+CD25-", "CD25-CD4+ T", "CD4 T",
        "CD4-T", "CD4-T-cell", "CD4–T", "T-CD4", "CD4-memory", "CD4 - T",
    ],
    "CD8 T": ["CD4-CD8+ T", "CD4- / CD8+ T", "CD8hiCD4lo T", "CD8αβ T", "HLA-DR+ CD8 T"],
    "T": [
        "CD4- T cell", "CD8- T cell", "CD4−T", "CD4− T", "CD4⁻ T", "CD4neg T", "CD4-negative T",
        "CD4 negative T cells", "CD4-ve T", "CD4 (-) T", "T cell (CD4 -)", "T CD4-", "CD4minus T",
        "CD4dim T", "CD4-low T", "CD4+/- T", "CD4-CD8- T", "CD4−CD8− T", "CD4-, CD8- T",
        "CD4-/CD8- T", "CD4+CD8+ T", "CD3+", "CD3+CD56+ NK",
        "CD4-CD8 T", "CD4-CD8-T",  # a minus or a joiner: T cells they are
    ],
    "B": ["CD19+", "CD19+CD3- B", "IgD+CD27- B"],
    None: [
        "CD4-", "CD4−", "CD4-negative", "CD8-", "CD3-", "CD56-", "CD4-CD8", "CD4+CD8+", "CD14+",
        "CD14+CD16-", "CD34+ B", "CD19+ T", "CD3+CD19+ B", "CD14+CD3+ monocyte", "T- cells",
        "B-", "NK-negative", "CD4 T negative", "not CD4 T", "CD4-depleted PBMC", "non-CD4 cells",
    ],
}  # fmt: skip
FOREIGN = [
    "A549", "H1975", "CD34+", "hepatocyte", "Hepatitis B", "malignant B", "tumour B", "B-ALL",
    "non-T cells", "not B", "B/T", "Mono/DC", "NK/B doublet", "T cell + monocyte", "doublet",
    "beta cell", "alpha", "Basal", "Mast cells", "Eosinophils", "Type B spermatogonia", "pre-B",
    "naive", "memory", "immune cell", "blood", "microglia", "", "0", "unknown", "tumor", "T-47D",
    # progenitors, and cells that only sound like those of the table
    "hematopoietic stem cell", "erythrocyte", "granulocyte", "basophil", "eosinophil", "HSPC",
    "Eryth", "Doublet", "thymocyte", "CD4-positive, alpha-beta thymocyte", "pro-B cell", "preB",
    "Pre-pro-B cells", "precursor B cell", "Pre-B_cell_CD34-", "Prog B", "pre-mDC", "early T",
    "double negative thymocyte", "immature T", "T(agonist)", "Early lymphoid/T lymphoid",
    "DC precursor", "granulocyte monocyte progenitor cell", "Megakaryocyte precursor",
    "monocyte-derived dendritic cell", "alveolar macrophage", "inflammatory macrophage",
    "type B pancreatic cell", "CD8a/a", "CD8a/b", "lymphocyte", "myeloid cell", "Cycling cells",
    "Cytotoxic lymphocytes", "B-cell lineage", "B_malignant", "T-ALL", "CAR-T", "nonT", "non_T",
    "mouse T", "regulatory B", "T-like", "cluster B", "B1", "low quality T", "T_unassigned",
    # two types in one
    "B/plasma", "B & plasma", "B cells and plasma cells", "pDC/cDC", "NK/ILC", "NK/CD8", "Treg/NK",
]  # fmt: skip


def assert_matched(expected: dict[str, str]) -> None:
    assert match_types(list(expected)) == expected


def test_names_in_use_are_matched() -> None:
    assert_matched(NAMES)
    assert set(NAMES.values()) == set(BY_TYPE) == set(RNA_PER_CELL)


@pytest.mark.parametrize("kind", BY_TYPE)
def test_names_of_ontologies_and_atlases_are_matched(kind: str) -> None:
    assert_matched(dict.fromkeys(BY_TYPE[kind], kind))


@pytest.mark.parametrize("kind", SIGNS)
def test_signs_of_markers_decide(kind: str | None) -> None:
    assert_matched({} if kind is None else dict.fromkeys(SIGNS[kind], kind))
    assert kind or match_types(SIGNS[None]) == {}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_names_are_not_matched(name: str) -> None:
    assert match_types([name]) == {}


@pytest.mark.parametrize("spell", [str.lower, str.upper, lambda n: n.replace(" ", "_")])
def test_case_and_separators_do_not_matter(spell: Callable[[str], str]) -> None:
    names = {name: kind for kind, own in BY_TYPE.items() for name in own} | NAMES
    assert_matched({spell(name): kind for name, kind in names.items()})


@pytest.mark.parametrize("kind", ["T", "B", "NK", "monocyte", "CD4 T", "pDC"])
@pytest.mark.parametrize("word", ["malignant", "non-", "pre-", "tumour", "doublet", "unknown"])
def test_a_foreign_word_spoils_any_name(kind: str, word: str) -> None:
    assert match_types([f"{word} {kind}", f"{kind} {word}", f"{kind}, {word}"]) == {}


@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("file", "column"),
    [
        *((f"deconv_ref_{name}", "cell_type") for name in ("hao_pbmc", "pbmc3k")),
        ("deconv_ref_zheng_sorted_pbmc", "cell_type"),
        ("deconv_ref_wholeblood_newman", "cell_type"),
        ("kang_ifnb_pbmc", "cell_type_fine"),
        ("confounding_onek1k_subset", "cell_type"),
    ],
)
def test_types_of_public_references_are_in_the_table(
    read_shared: Callable[[str], AnnData], file: str, column: str
) -> None:
    types = read_shared(file).obs[column].astype(str).unique()
    assert match_types(types) == {kind: NAMES[kind] for kind in types}
