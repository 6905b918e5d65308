"""What training accepts, and sizes of the networks that are trained."""

from __future__ import annotations

from collections.abc import Collection

import torch

from scovert.core._arguments import check_known
from scovert.core._checks import check_choice, check_mapping, check_number
from scovert.core._compat import TRAINER_OPTIONS
from scovert.core.training._plan import ACCEPTED

__all__ = ["check_data_options", "check_options", "check_sizes", "check_split"]


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
        check_number("validation_size", validation_size, 0.0, 1.0)
        most = round(1 - train_size, 9)
        if validation_size > most:
            raise ValueError(
                f"`train_size={train_size}` and `validation_size={validation_size}` are more than "
                f"all cells. Pass a `validation_size` in [0, {most}], or a smaller `train_size`."
            )
    check_number("batch_size", batch_size, 3, whole=True)


def check_options(
    model: str, own: Collection[str], trainer_kwargs: dict, plan_kwargs: dict | None
) -> None:
    """Refuse options that neither the trainer nor the plan takes, and say where others belong.

    Parameters
    ----------
    model
        Name of its class.
    own
        Arguments of its ``train`` that are not the trainer's.
    trainer_kwargs, plan_kwargs
        What a user passes.
    """
    check_mapping("plan_kwargs", plan_kwargs)
    name = next((name for name in trainer_kwargs if name in ACCEPTED), None)
    if name is not None:
        raise TypeError(
            f"`{model}.train` does not take `{name}`, which is an option of the training plan. "
            f"Pass `plan_kwargs={{{name!r}: {trainer_kwargs[name]!r}}}`."
        )
    check_known(f"{model}.train", trainer_kwargs, own, TRAINER_OPTIONS)
    _check_accelerator(trainer_kwargs.get("accelerator", "auto"))


def _check_accelerator(accelerator: object) -> None:
    """Refuse the name of an accelerator that Lightning does not know, or that is not there."""
    if not isinstance(accelerator, str):  # one of Lightning's own
        return
    check_choice("accelerator", accelerator, ("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    has["gpu"] = has["cuda"] or has["mps"]
    if not has.get(accelerator, True):
        device = {"mps": "GPU of Apple", "cuda": "CUDA device"}.get(accelerator, "GPU")
        raise ValueError(
            f"`accelerator={accelerator!r}`, and there is no {device} that PyTorch can use. Pass "
            "'cpu' or 'auto', or install PyTorch for it."
        )


def check_data_options(datasplitter_kwargs: dict | None) -> None:
    """Refuse options that minibatches do not have."""
    check_mapping("datasplitter_kwargs", datasplitter_kwargs)
    check_known("datasplitter_kwargs", datasplitter_kwargs, ("resident",))
