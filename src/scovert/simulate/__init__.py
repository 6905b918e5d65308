"""Simulated data with the truth inside."""

from scovert.simulate._bulk import Platform, bulk
from scovert.simulate._confounder import confounder
from scovert.simulate._confounder_hidden_covariate import hidden_covariate
from scovert.simulate._confounder_large import confounder_large
from scovert.simulate._distance import distance
from scovert.simulate._niche import niche
from scovert.simulate._paired import paired

__all__ = [
    "Platform",
    "bulk",
    "confounder",
    "confounder_large",
    "distance",
    "hidden_covariate",
    "niche",
    "paired",
]
