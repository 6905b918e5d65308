"""Phylogenies of taxa as the branches above each of them, and UniFrac distances of samples."""

from scovert.core.trees._branches import Branches, check_branches, read_branches
from scovert.core.trees._newick import branches_of, read_newick
from scovert.core.trees._unifrac import bray_curtis, shares, unifrac

__all__ = [
    "Branches",
    "branches_of",
    "bray_curtis",
    "check_branches",
    "read_branches",
    "read_newick",
    "shares",
    "unifrac",
]
