"""What is prepared before a model is set up; written into the AnnData."""

from scovert.pp._distance_matrix import distances
from scovert.pp._distance_tree import tree, unifrac

__all__ = ["distances", "tree", "unifrac"]
