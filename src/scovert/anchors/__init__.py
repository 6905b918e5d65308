"""Anchors between datasets: pairs of cells that are each other's nearest neighbours."""

from scovert.anchors._align import align
from scovert.anchors._find import Anchors, find_anchors
from scovert.anchors._space import harmony, principal_components

__all__ = ["Anchors", "align", "find_anchors", "harmony", "principal_components"]
