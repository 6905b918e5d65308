"""What PairedVAE accepts."""

from __future__ import annotations

import warnings

from scovert.core._checks import caller_level, check_choice, check_number
from scovert.core.training._plan import ACCEPTED

__all__ = ["check_choices", "check_place", "check_sizes", "check_split"]


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


def check_sizes(n_genes: int, **sizes: int) -> None:
    """Refuse sizes of the networks below one, and a latent space larger than the genes."""
    for name, size in sizes.items():
        check_number(name, size, 1, whole=True)
    if sizes["n_latent"] > n_genes:
        raise ValueError(
            f"`n_latent={sizes['n_latent']}` exceeds the {n_genes} genes of `adata`. Pass a value "
            f"in [1, {n_genes}]."
        )


def check_split(train_size: float, validation_size: float | None, batch_size: int) -> None:
    """Refuse shares of the cells that are none, and minibatches without a statistic."""
    check_number("train_size", train_size, 0.01, 1.0)
    if validation_size is not None:
        check_number("validation_size", validation_size, 0.0, round(1 - train_size, 9))
    check_number("batch_size", batch_size, 3, whole=True)


def check_place(trainer_kwargs: dict) -> None:
    """Refuse options of the plan among those of the trainer, and say where they belong."""
    name = next((name for name in trainer_kwargs if name in ACCEPTED), None)
    if name is not None:
        raise TypeError(
            f"`PairedVAE.train` does not take `{name}`, which is an option of the training plan. "
            f"Pass `plan_kwargs={{{name!r}: {trainer_kwargs[name]!r}}}`."
        )
