"""Genes of two tables that are named differently, matched."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from scovert.core.genes._kinds import IDENTIFIERS, NUMBERS, SYMBOLS, kind_of_genes
from scovert.core.genes._names import GeneNames, Spelling

__all__ = ["Match", "match_genes"]

VAR_NAMES = "var_names"
FEW = 0.1
"""Tables whose names are of one kind and share fewer of them are matched by others, if better."""
_MADE_UNIQUE = re.compile(r"(.+)-[1-9]")
"""What ``var_names_make_unique`` calls a symbol when it occurs again."""


@dataclass(frozen=True)
class Match:
    """How the genes of a reference are matched with those of a bulk.

    Attributes
    ----------
    own
        Names of the genes of the bulk.
    names
        For each of them, the one that takes its counts: itself, or the first of the same name.
    called
        What the bulk calls genes of the reference, where their names are not those in
        ``var_names``.
    source
        Which names were taken; ``"var_names"`` if those of both, as they are.
    n_shared
        Names that both have.
    n_added
        Genes of both whose counts are added to those of another.
    """

    own: pd.Index
    names: pd.Index
    called: dict[str, str]
    source: str
    n_shared: int
    n_added: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the names are those of both in ``var_names``."""
        return self.source == VAR_NAMES

    def of_reference(self, names: pd.Index) -> pd.Index:
        """Return what the bulk calls genes of the reference."""
        return names.map(lambda name: self.called.get(name, name))


def match_genes(reference: GeneNames, bulk: GeneNames) -> Match:
    """Match genes by ``var_names``, or by other names if those are of different kinds.

    Parameters
    ----------
    reference, bulk
        Names of the genes of both.
    """
    n_plain = _n_shared(reference.names, bulk.names)
    plain = Match(bulk.names, bulk.names, {}, VAR_NAMES, n_plain)
    kinds = kind_of_genes(reference.names), kind_of_genes(bulk.names)
    is_alike = kinds[0] == kinds[1] and kinds[0] in (SYMBOLS, IDENTIFIERS)
    if is_alike and n_plain >= FEW * min(len(reference.names), len(bulk.names)):
        return _as_r_writes(reference, bulk, n_plain) or plain
    ways = [
        (ours, theirs)
        for kind in (IDENTIFIERS, SYMBOLS)
        for ours in reference.spellings
        for theirs in bulk.spellings
        if ours.kind == theirs.kind == kind
    ]
    n_shared = [_n_shared(ours.names, theirs.names) for ours, theirs in ways]
    best = max(n_shared, default=0)
    # Numbers may be positions, which agree whatever the genes are.
    is_better = best > (0 if kinds == (NUMBERS, NUMBERS) else n_plain)
    return _by(reference, bulk, *ways[n_shared.index(best)]) if is_better else plain


def _n_shared(ours: pd.Index, theirs: pd.Index) -> int:
    return int(ours.unique().isin(theirs).sum())


def _by(reference: GeneNames, bulk: GeneNames, ours: Spelling, theirs: Spelling) -> Match:
    shared, own = ours.names, theirs.names
    if ours.kind == SYMBOLS:
        shared, own = _joined_again(shared, own), _joined_again(own, shared)
    is_first = ~own.duplicated()
    taker = pd.Series(bulk.names[is_first], own[is_first])
    is_found = shared.isin(own)
    found = shared[is_found]
    # A gene that the bulk lacks may have the name of another there.
    alike = reference.names[~is_found & reference.names.isin(bulk.names)]
    called = {name: f"{name} of the reference" for name in alike}
    return Match(
        bulk.names,
        pd.Index(taker[own]),
        called | dict(zip(reference.names[is_found], taker[found], strict=True)),
        f"reference.{ours.source} and bulk.{theirs.source}",
        found.nunique(),
        int((~is_first).sum() + found.duplicated().sum()),
    )


def _as_r_writes(reference: GeneNames, bulk: GeneNames, n_plain: int) -> Match | None:
    """Match ``HLA.A`` with ``HLA-A``, if one table has been through R's ``make.names``."""
    is_through = [
        not names.names.str.contains("-", regex=False).any() for names in (reference, bulk)
    ]
    if is_through[0] == is_through[1]:
        return None
    ours, theirs = (
        Spelling(SYMBOLS, f"{VAR_NAMES} as R writes them", _made_names(table.names))
        for table in (reference, bulk)
    )
    is_better = _n_shared(ours.names, theirs.names) > n_plain
    return _by(reference, bulk, ours, theirs) if is_better else None


def _made_names(names: pd.Index) -> pd.Index:
    valid = names.str.replace(r"[^\w.]", ".", regex=True)
    return valid.str.replace(r"^(?=[\d_])", "X", regex=True)


def _joined_again(names: pd.Index, known: pd.Index) -> pd.Index:
    """Call a symbol that was made unique as before, unless the other table has it like that."""
    there, others = set(names), set(known)

    def before(name: str) -> str:
        again = None if name in others else _MADE_UNIQUE.fullmatch(name)
        stem = name if again is None else again[1]
        return stem if stem in there and stem in others else name

    return names.map(before)
