"""What a gene is called: kinds of names, ribosomal and mitochondrial ones, names that match."""

from scovert.core.genes._advice import SAME_NAMES, advice_on_duplicates, advice_on_names
from scovert.core.genes._dates import are_dates
from scovert.core.genes._housekeeping import has_left_out_prefix, is_housekeeping
from scovert.core.genes._kinds import NO_NAMES, are_known, are_positions, kind_of_genes, species_of
from scovert.core.genes._match import Match, are_alike, match_genes
from scovert.core.genes._names import GeneNames

__all__ = [
    "NO_NAMES",
    "SAME_NAMES",
    "GeneNames",
    "Match",
    "advice_on_duplicates",
    "advice_on_names",
    "are_alike",
    "are_dates",
    "are_known",
    "are_positions",
    "has_left_out_prefix",
    "is_housekeeping",
    "kind_of_genes",
    "match_genes",
    "species_of",
]
