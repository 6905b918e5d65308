"""Names of cell types in the table of RNA per cell, under the path that scripts may import."""

from scovert.model.bulk._type_names import match_types

__all__ = ["match_types"]
