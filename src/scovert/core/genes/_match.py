"""Genes of two tables that are named differently, matched gene by gene."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scovert.core.genes._kinds import (
    IDENTIFIERS,
    NUMBERS,
    SYMBOLS,
    identifiers,
    kind_of_genes,
    symbols,
)
from scovert.core.genes._names import OTHER, GeneNames, Spelling

__all__ = ["Match", "are_alike", "match_genes"]

Key = Callable[[pd.Index], pd.Index]
VAR_NAMES = "var_names"
FEW = 0.1
"""Tables whose names are of one kind and share fewer of them are matched by others, if better."""
_COPY = r"(?<=.)(?:[-._]\d{1,2}|_dup\d+|_PAR_Y)$"
"""What R, scanpy and pandas add to a name that occurs again, and GENCODE on the Y chromosome."""


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
        """Whether the names are those of both in ``var_names``, and none is added to another."""
        return self.source == VAR_NAMES and not self.n_added

    def of_reference(self, names: pd.Index) -> pd.Index:
        """Return what the bulk calls genes of the reference."""
        return names.map(lambda name: self.called.get(name, name))


def match_genes(reference: GeneNames, bulk: GeneNames) -> Match:
    """Match genes by ``var_names``, or by other names if those are of different kinds.

    Those that are left over are matched by further names, then by names in another case and with
    other signs between letters, if just one gene of both is meant; last, what was made unique is
    added to the gene that it was.

    Parameters
    ----------
    reference, bulk
        Names of the genes of both.
    """
    links = _Links(reference.names, bulk.names)
    first, *others = _ways(reference, bulk)
    links.by_names(*first)
    source = _describe(*first)
    for way in others:
        if n_more := links.by_names(*way):
            source += f", {n_more} by {_describe(*way)}"
    for key, what in ((_in_upper_case, "upper and lower case"), (_without_signs, "punctuation")):
        n_more = sum(links.by_key(key, *way) for way in _of_symbols(reference, bulk))
        if n_more:
            source += f", {n_more} by {what}"
    links.add_copies()
    return links.match(source)


def are_alike(names: pd.Index, genes: pd.Index) -> NDArray:
    """Tell which names are among those of genes but for spelling, unless of another species."""
    keys, known = (_without_signs(symbols(own.astype(str))) for own in (names, genes))
    first = pd.Series(genes, known)[~known.duplicated()]
    found = keys.isin(known) & (keys != "")
    if _is_other_species(names[found], pd.Index(first.reindex(keys[found]))):
        found[:] = False
    return found


class _Links:
    """Which gene of the bulk each of the reference is.

    Attributes
    ----------
    reference, bulk
        Names of the genes of both.
    found
        For each of the reference its number in the bulk; -1 if there is none.
    taker
        For each of the bulk the number of the gene that takes its counts.
    is_used
        Which of the bulk are a gene of the reference.
    """

    def __init__(self, reference: pd.Index, bulk: pd.Index) -> None:
        self.reference, self.bulk = reference, bulk
        self.found = np.full(len(reference), -1)
        self.taker = np.arange(len(bulk))
        self.is_used = np.zeros(len(bulk), bool)

    def by_names(self, ours: Spelling, theirs: Spelling) -> int:
        """Match genes of the same name; several of the bulk become one. Return how many."""
        if OTHER in (ours.kind, theirs.kind):  # may be words that many genes share
            return self.by_key(_unchanged, ours, theirs)
        mine, own = np.flatnonzero(self.found < 0), np.flatnonzero(~self.is_used)
        if not (len(mine) and len(own)):
            return 0
        codes, names = pd.factorize(theirs.names[own])
        first = own[np.unique(codes, return_index=True)[1]]  # of each name
        at = names.get_indexer(ours.names[mine])
        self.found[mine[at >= 0]] = first[at[at >= 0]]
        is_matched = np.isin(codes, at)
        self.taker[own[is_matched]] = first[codes[is_matched]]
        self.is_used[own[is_matched]] = True
        return int((at >= 0).sum())

    def by_key(self, key: Key, ours: Spelling, theirs: Spelling) -> int:
        """Match genes that one of both has the key of, and none of the others; return how many."""
        mine, own = np.flatnonzero(self.found < 0), np.flatnonzero(~self.is_used)
        if not (len(mine) and len(own)):
            return 0
        left, right = ours.names[mine], theirs.names[own]
        keys = key(left), key(right)
        is_one = [~k.duplicated(keep=False) & (k != "") for k in keys]
        mine, own = mine[is_one[0]], own[is_one[1]]
        at = keys[1][is_one[1]].get_indexer(keys[0][is_one[0]])
        mine, own = mine[at >= 0], own[at[at >= 0]]
        if _is_other_species(ours.names[mine], theirs.names[own]):
            return 0
        self.found[mine], self.is_used[own] = own, True
        return len(mine)

    def add_copies(self) -> None:
        """Add genes that were made unique to the one of that name."""
        mine, own = np.flatnonzero(self.found < 0), np.flatnonzero(~self.is_used)
        at, is_copy = _originals(self.bulk, own, self.is_used)
        self.taker[own[is_copy]] = self.taker[at]
        self.is_used[own[is_copy]] = True
        at, is_copy = _originals(self.reference, mine, self.found >= 0)
        self.found[mine[is_copy]] = self.found[at]

    def match(self, source: str) -> Match:
        """Return the names that follow."""
        is_found = self.found >= 0
        names, found = self.bulk[self.taker], self.bulk[self.found[is_found]]
        # A gene that the bulk lacks may have the name of another there.
        alike = self.reference[~is_found & self.reference.isin(self.bulk)]
        called = {name: f"{name} of the reference" for name in alike}
        own = zip(self.reference[is_found], found, strict=True)
        called |= {mine: theirs for mine, theirs in own if mine != theirs}
        n_added = int((self.taker != np.arange(len(self.taker))).sum() + found.duplicated().sum())
        return Match(self.bulk, names, called, source, found.nunique(), n_added)


def _ways(reference: GeneNames, bulk: GeneNames) -> Iterator[tuple[Spelling, Spelling]]:
    """Return pairs of names by which genes may be matched, the best first."""
    kinds = kind_of_genes(reference.names), kind_of_genes(bulk.names)
    plain = _plain(reference), _plain(bulk)
    kept = [(IDENTIFIERS, IDENTIFIERS), *product((SYMBOLS, OTHER), repeat=2)]
    ways = [
        (ours, theirs)
        for ours, theirs in product(reference.spellings, bulk.spellings)
        if (ours.kind, theirs.kind) in kept
    ]
    ways.sort(key=lambda way: (way[0].kind != IDENTIFIERS, OTHER in (way[0].kind, way[1].kind)))
    n_shared = [_n_shared(*way) for way in ways]
    order = np.argsort([-n for n in n_shared], kind="stable")
    ways = [ways[i] for i in order if n_shared[i]]
    n_plain, best = _n_shared(*plain), max(n_shared, default=0)
    if kinds == (NUMBERS, NUMBERS):  # may be positions, which agree whatever the genes are
        yield from ways or [plain]
        return
    is_alike = kinds[0] == kinds[1] and kinds[0] in (SYMBOLS, IDENTIFIERS)
    is_enough = is_alike and n_plain >= FEW * min(len(reference.names), len(bulk.names))
    yield from [plain, *ways] if is_enough or n_plain >= best else [*ways, plain]


def _plain(names: GeneNames) -> Spelling:
    return Spelling(SYMBOLS, VAR_NAMES, names.names)


def _n_shared(ours: Spelling, theirs: Spelling) -> int:
    return int(ours.names.unique().isin(theirs.names).sum())


def _describe(ours: Spelling, theirs: Spelling) -> str:
    if ours.source == theirs.source == VAR_NAMES:
        return VAR_NAMES
    return f"reference.{ours.source} and bulk.{theirs.source}"


def _of_symbols(reference: GeneNames, bulk: GeneNames) -> Iterator[tuple[Spelling, Spelling]]:
    sides = [[s for s in names.spellings if s.kind == SYMBOLS] for names in (reference, bulk)]
    return product(*sides)


def _unchanged(names: pd.Index) -> pd.Index:
    return names


def _in_upper_case(names: pd.Index) -> pd.Index:
    return names.str.upper()


def _without_signs(names: pd.Index) -> pd.Index:
    """Return ``HLA-A`` for ``HLA.A``, ``HLA_A``, and ``7SK`` for ``X7SK``, as R writes them."""
    keys = names.str.upper().str.replace(r"[\W_]+", "-", regex=True)
    return keys.str.replace(r"^X-?(?=\d)|^-|-$", "", regex=True)


def _is_other_species(ours: pd.Index, theirs: pd.Index) -> bool:
    """Whether most names differ in case as those of human and mouse: ``CD3E``, ``Cd3e``."""
    is_title = [_looks_of_mouse(names) for names in (ours, theirs)]
    return 2 * int((is_title[0] != is_title[1]).sum()) > len(ours)


def _looks_of_mouse(names: pd.Index) -> NDArray:
    pattern = re.compile(r"[A-Z\d][a-z\d.-]*[a-z][a-z\d.-]*")
    return np.array([bool(pattern.fullmatch(name)) and "orf" not in name for name in names], bool)


def _originals(names: pd.Index, left: NDArray, is_used: NDArray) -> tuple[NDArray, NDArray]:
    """Return numbers of the genes that copies are of, and which of those left are copies."""
    if not len(left):
        return left, np.zeros(0, bool)
    used = np.flatnonzero(is_used)
    stems = names[left].str.replace(_COPY, "", regex=True)
    at = names.get_indexer(stems)
    is_copy = (at >= 0) & (stems != names[left])
    is_copy &= is_used[at]
    ids, known = identifiers(names[left]), identifiers(names[used])
    by_id = pd.Series(used, known)[(known != "") & ~known.duplicated()]
    same = by_id.reindex(ids).fillna(-1).to_numpy(int)
    at = np.where(is_copy, at, same)
    is_copy |= same >= 0
    return at[is_copy], is_copy
