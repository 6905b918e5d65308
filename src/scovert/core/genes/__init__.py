"""What a gene is called: kinds of names, ribosomal and mitochondrial ones, names that match."""

from scovert.core.genes._advice import advice_on_names
from scovert.core.genes._housekeeping import has_left_out_prefix, is_housekeeping
from scovert.core.genes._kinds import are_known, kind_of_genes
from scovert.core.genes._match import Match, match_genes
from scovert.core.genes._names import GeneNames

__all__ = [
    "GeneNames",
    "Match",
    "advice_on_names",
    "are_known",
    "has_left_out_prefix",
    "is_housekeeping",
    "kind_of_genes",
    "match_genes",
]
