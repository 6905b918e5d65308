"""What PairedVAE accepts: choices, and files of earlier versions."""

from __future__ import annotations

import warnings
from dataclasses import replace

from scovert.core._checks import caller_level, check_choice
from scovert.core._saving import SavedModel

__all__ = ["check_choices", "from_earlier"]


def check_choices(encoder: str, alignment: str, dispersion: str) -> None:
    """Refuse what is none of the choices, and warn about a pair of them."""
    check_choice("encoder", encoder, ("shared", "per_dataset"))
    check_choice("alignment", alignment, ("anchors", "adversarial", "grl", "none"))
    check_choice("dispersion", dispersion, ("gene", "gene-batch"))
    if encoder == "per_dataset" and alignment != "anchors":
        warnings.warn(
            f"`encoder='per_dataset'` with `alignment={alignment!r}`: nothing in this model "
            "says which cell type of one dataset belongs to which of another, and it may pair "
            "them wrongly. Use `alignment='anchors'`; the page of PairedVAE in the "
            "documentation explains why.",
            UserWarning,
            stacklevel=caller_level(),
        )


def from_earlier(saved: SavedModel) -> SavedModel:
    """Return what a file holds; earlier models predicted no aligned components."""
    return replace(saved, init={"component_weight": 0.0} | saved.init)
