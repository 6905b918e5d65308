"""The network of a LatentConfounder, if its solver trains one."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from scovert.model.confounder.fit._amortized_module import AmortizedModule
from scovert.model.confounder.variants._alternating_module import AlternatingModule

__all__ = ["ConfounderModule"]

PREFIX = "network."
"""Of the names of its weights in the state of the module."""


class ConfounderModule(nn.Module):
    """Where a model computes, with the network that infers its confounders, or none.

    Parameters
    ----------
    z_type
        Kind of the confounders.
    """

    def __init__(self, z_type: Literal["continuous", "binary"]) -> None:
        super().__init__()
        self.z_type = z_type
        self.register_module("network", None)
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self._place.device

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        """Make the network that a file has weights of; torch then fills it."""
        start = prefix + PREFIX
        weights = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
        with torch.random.fork_rng():
            self.network = _network_of(weights, self.z_type) if weights else None
        super()._load_from_state_dict(state, prefix, *rest)


def _network_of(
    weights: dict[str, Tensor], z_type: Literal["continuous", "binary"]
) -> AmortizedModule | AlternatingModule:
    """Return a network of the kind and the sizes of these weights."""
    if "treatment_head.weight" not in weights:
        n_columns, n_genes = weights["coefficients"].shape
        return AmortizedModule(n_genes, n_columns, len(weights["loadings"]), z_type=z_type)
    n_arms, n_inputs = weights["treatment_head.weight"].shape
    n_genes, n_latent = len(weights["log_theta"]), len(weights["generator.4.weight"])
    return AlternatingModule(n_genes, n_inputs - n_latent, n_arms, n_latent, z_type=z_type)
