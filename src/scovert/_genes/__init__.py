"""What a gene is called: kinds of names, ribosomal and mitochondrial ones, names that match."""

from scovert._genes._advice import advice_on_names
from scovert._genes._housekeeping import has_left_out_prefix, is_housekeeping
from scovert._genes._kinds import are_known, kind_of_genes
from scovert._genes._match import Match, match_genes
from scovert._genes._names import GeneNames

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
