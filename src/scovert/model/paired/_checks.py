"""What PairedVAE accepts."""

from __future__ import annotations

import warnings

from scovert.core._checks import caller_level, check_choice

__all__ = ["check_choices"]


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
