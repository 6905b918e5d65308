"""Which type of the table of RNA content per cell a name of a cell type means."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

__all__ = ["are_no_types", "match_types"]

# A name is that of the first type with all words of one of its alternatives.
_TYPES = (
    ("pDC", ("pdc", "plasmacytoid")),
    ("plasma", ("plasma", "plasmablast")),
    ("Treg", ("treg", "t reg", "t regulatory", "cd4 regulatory")),
    ("platelet", ("platelet", "thrombocyte", "megakaryocyte", "mk")),
    ("neutrophil", ("neutrophil",)),
    ("ILC", ("ilc", "innate lymphoid")),
    ("T", ("nkt", "inkt", "nk t", "natural killer t", "mait", "mucosal invariant t")),
    ("T", ("gdt", "tgd", "t gd", "t gamma delta", "dnt", "t dn")),
    ("NK", ("nk", "natural killer")),
    ("DC", ("dc", "mdc", "cdc", "asdc", "dendritic")),
    ("monocyte", ("monocyte", "mono", "macrophage")),
    ("B", ("b",)),
    ("CD4 T", ("cd4",)),
    ("CD8 T", ("cd8",)),
    ("CD4 T", ("t helper", "th", "tfh")),
    ("CD8 T", ("t cytotoxic", "naive cytotoxic")),
    ("T", ("t",)),
)
_T_CELLS = {"T", "CD4 T", "CD8 T", "Treg"}

# The other words a name may have: those of any type, and those of one lineage only.
_STATES = (
    "cell lymphocyte naive memory mem central effector activated nonactivated resting stimulated "
    "unstimulated intermediate mature proliferating nonproliferating proliferative "
    "prolif cycling exhausted transitional alpha beta gamma delta peripheral blood human other"
)
_OF_LINEAGE = (
    (
        _T_CELLS,
        "tcm tem temra tscm trm tconv teff tex ctl cm em te ra gd dp conventional conv "
        "follicular terminal terminally differentiated natural induced cytokine secreting "
        "nonnaive nonregulatory nontreg",
    ),
    ({"NK", "ILC"}, "immature bright dim adaptive cd4 cd8"),
    ({"DC", "pDC"}, "immature myeloid conventional conv"),
    ({"B", "plasma"}, "immature switched unswitched nonswitched follicular dn kappa lambda"),
    ({"monocyte"}, "classical nonclassical m0 m1 m2"),
    ({"neutrophil"}, "immature segmented"),
    ({"platelet"}, ""),
)
_WORDS = {
    key: set(f"{_STATES} {own}".split())
    | {word for k, names in _TYPES if k in lineage for name in names for word in name.split()}
    for lineage, own in _OF_LINEAGE
    for key in lineage
}
_SAYS_NOTHING = re.compile(
    r"\b(?:thymus derived|class(?= switched)|age associated|germinal cent(?:er|re)|marginal zone|"
    r"low density|tissue resident(?= memory)|transitional stage(?= b\b)|(?:non)?(?:v[gd]\d+)+|"
    r"(?:type|group) (?:\d+|i+)|(?<=nk )like(?= t\b))\b"
)
_GLUED = re.compile(
    r"(?:naive|memory|regulatory|cytotoxic)(?=t\b|cytotoxic)|\b(?:b|t|nk|nkt)(?=cells?\b|helper)|"
    r"\b(?:nk|nkt|th|helper|treg|mait|gdt|ilc|cdc|mono)(?=\d+s?\b)|\bdc(?=[1-3]\b)"
)

# Markers, and the signs that follow them
_MARKER = (
    r"\b(?:cd\d+[a-z]{0,2}(?:/[ab])?|ig[adegm]\d?|c[cx]+3?c?r\d+|fcgr3a|foxp3|hla-?dr|pd-?1|il\d+r?a?)"
    r"(?![a-z\d])"
)
_SIGNED = re.compile(
    rf"(?:(?<=[a-z\d])-)?(?P<marker>{_MARKER})(?:"
    rf"(?P<no>-ve\b|[-\s]*(?:negative|neg|minus|null|low|lo|dim|int)\b|\s?\+\s?/\s?-|\s?±|"
    rf"-(?=[^a-z\d]|$)|\s-(?=[),;/]|$)|\s?-(?={_MARKER}))|"
    r"(?P<yes>\s?\++(?:ve\b)?|[-\s]*(?:positive|pos|plus|high|hi|bright)\b))?"
)
_BEHIND_A_MARKER = (
    r"(?:positive|pos|plus|high|hi|bright|negative|neg|minus|low|lo|dim|int|mono|nk|naive|memory|"
    r"ctl|t(?:cells?|conv|cm|em|emra|ex|reg|rm|fh|eff|h\d*)?)(?:\b|(?=cd\d))"
)
_MEANS = {"cd4": "cd4", "cd8": "cd8", "cd8a": "cd8", "cd8b": "cd8", "cd34": "progenitor"}
_PROVES = {"cd3": "t", "cd3d": "t", "cd3e": "t", "cd3g": "t", "cd19": "b", "cd20": "b"}
"""Lineage of a cell that has the marker; a name that leaves the sign out says less."""

_GREEK = {"α": " alpha ", "β": " beta ", "γ": " gamma ", "δ": " delta ", "κ": " kappa "}


_NO_TYPES = frozenset(
    "|nan|na|n/a|<na>|none|null|?|-|unknown|unassigned|not assigned|unclassified|unannotated|"
    "not annotated|undetermined|undefined|unidentified|ambiguous|mixed|debris|removed|filtered|"
    "filtered out|artifact|artefact|low quality|lowquality|low qc|contamination".split("|")
)
_NO_CELL = re.compile(r"\b(?:doublet|multiplet|low quality)s?\b")


def are_no_types(types: Sequence[str]) -> list[str]:
    """Return names that say that a cell has no type, or is no single cell."""
    keys = {name: re.sub(r"[\s_-]+", " ", name).strip().lower() for name in types}
    return [
        name
        for name, key in keys.items()
        if key in _NO_TYPES or name.strip() in _NO_TYPES or _NO_CELL.search(key)
    ]


def match_types(types: Sequence[str]) -> dict[str, str]:
    """Find cell types in the table by their names.

    Names of the Cell Ontology, of single-cell atlases and of deconvolution methods. Case, plurals
    and punctuation do not matter. The rules:

    - A name with a word that is neither the type nor one of its usual states is not matched
      (``"malignant B"``, ``"non-T"``), nor is one of two lineages (``"B/T"``) or of two types
      with sizes of their own (``"B/plasma"``).
    - A marker is there if a plus, "positive", "high", "bright" or nothing follows. It is not if
      "negative", "low", "dim" or a minus does. A hyphen is a minus at the end of a word and before
      another marker (``"CD4- T"``, ``"CD4-CD8+"``), and joins what it precedes otherwise
      (``"CD4-T"``). Of two markers joined by a hyphen, neither with a sign, none counts.
    - Markers do not name a type, except CD4 and CD8 (both at once: T cells), and CD3, CD19 and
      CD20 with a plus.

    Examples
    --------
    >>> match_types(["CD14+ Monocytes", "T cells CD4 conv", "Tregs", "hepatocyte", "tumour B"])
    {'CD14+ Monocytes': 'monocyte', 'T cells CD4 conv': 'CD4 T', 'Tregs': 'Treg'}
    >>> match_types(["CD4-positive, alpha-beta T cell", "CD4-negative T cell", "CD4-T", "CD4-"])
    {'CD4-positive, alpha-beta T cell': 'CD4 T', 'CD4-negative T cell': 'T', 'CD4-T': 'CD4 T'}
    """
    matches = {name: _match(name) for name in types}
    return {name: key for name, key in matches.items() if key is not None}


def _match(name: str) -> str | None:
    text = _SIGNED.sub(_by_sign, _plain(name))
    if re.search(r"[a-z\d]-(?=[^a-z\d]|$)", text):  # a minus behind a type
        return None
    key = _look_up(_words(text))
    parts = {_look_up(_words(part)) for part in re.split(r"[/&|]| \+ ", text)} - {None}
    if key is None or len(parts) < 2:
        return key
    if key == "T" or parts <= _T_CELLS:
        return "T" if "CD8 T" in parts and parts & {"CD4 T", "Treg"} else key
    return None


def _plain(name: str) -> str:
    """Return a name in lower case, without accents, with one kind of hyphen and few glued words.

    A minus of typography is no hyphen: it becomes one at the end of a word.
    """
    letters = unicodedata.normalize("NFKD", name.lower().replace("_", " "))
    text = "".join(c for c in letters if not unicodedata.combining(c))
    text = re.sub(r"\bv(?:[γδ]\d+v?)+", "", text)  # chains of receptors
    text = re.sub(f"[{''.join(_GREEK)}]", lambda m: _GREEK[m[0]], text)
    text = re.sub(r"(?<=\d)\u2212|(?<=\d[a-z])\u2212|(?<=\d[a-z]{2})\u2212", "- ", text)
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text)
    text = re.sub(r"\s*\(\s*([+-]|neg\w*|pos\w*|low|lo|dim)\s*\)", r"\1 ", text)
    text = re.sub(r"(?<=[a-z\d])(?=cd\d)", " ", text)
    return re.sub(rf"(cd\d+)(?={_BEHIND_A_MARKER})", r"\1 ", text)


def _by_sign(match: re.Match[str]) -> str:
    """Return what a marker says of the type, by its sign."""
    marker, before = match["marker"], match.string[: match.start("marker")]
    is_unclear = not match["yes"] and re.search(f"{_MARKER}-$", before)
    if match["no"] or is_unclear:
        return " "
    proven = _PROVES.get(marker, "") if match["yes"] else ""
    return f" {_MEANS.get(marker, proven)} "


def _words(text: str) -> set[str]:
    text = re.sub(r"[\W_]+", " ", text)
    text = text.replace("double negative", "dn").replace("double positive", "dp")
    text = _SAYS_NOTHING.sub(" ", re.sub(r"\bnon (?=[a-z])", "non", text))
    words = _GLUED.sub(lambda m: f"{m[0]} ", text).split()
    return {w if len(w) < 4 and w != "dcs" else w.removesuffix("s") for w in words}


def _look_up(words: set[str]) -> str | None:
    for key, alternatives in _TYPES:
        for alternative in alternatives:
            needed = set(alternative.split())
            if needed <= words and all(_is_state(w, key) for w in words - needed):
                return _by_markers(key, words)
    return None


def _is_state(word: str, key: str) -> bool:
    """Tell a word that leaves a type what it is."""
    return word in _WORDS[key] or bool(re.fullmatch(r"\d+(?:hi|lo|dim|bright|s)?", word))


def _by_markers(key: str, words: set[str]) -> str | None:
    """Let CD4 and CD8 decide between T cells."""
    markers = words & {"cd4", "cd8"}
    if key in ("T", "NK", "ILC") or not markers:
        return key
    if len(markers) == 2:
        return "T" if "t" in words else None
    return "CD8 T" if markers == {"cd8"} else key
