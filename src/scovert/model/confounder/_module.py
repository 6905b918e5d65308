"""What a fit of LatentConfounder knows, as tensors that are saved with the model."""

from __future__ import annotations

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["ConfounderModule"]

TABLES = (
    "scores",
    "states",
    "coefficients",
    "dispersion",
    "covariance",
    "sandwich",
    "unadjusted",
    "unadjusted_se",
    "scree",
)
RENAMED = {"naive": "unadjusted", "naive_se": "unadjusted_se"}
"""Names of tables in files of earlier versions, and today's."""

NETWORK = "network/"


class ConfounderModule(nn.Module):
    r"""Negative binomial regression of counts on covariates, treatment and latent scores.

    Holds the tables of the fit, whose shapes are known only once it is there:

    scores
        :math:`U` or, of binary confounders, the probabilities, shape ``(n_cells, n_latent)``.
    states
        Probability of every combination of binary confounders, shape ``(n_cells, n_states)``.
    coefficients, dispersion, covariance, sandwich
        The regression, as in :class:`scovert.model.confounder.glm.Regression`.
    unadjusted, unadjusted_se
        Coefficients of the arms in the regression without scores and their standard errors, shape
        ``(n_arms, n_genes)``.
    scree
        Largest singular value and its threshold by number of factors, shape ``(n, 2)``.

    A network that infers the scores is kept as its weights, whatever its kind.
    """

    def __init__(self) -> None:
        super().__init__()
        for name in TABLES:
            self.register_buffer(name, None)
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return self._place.device

    def keep(self, **tables: NDArray | None) -> None:
        """Keep tables of a fit, in double precision; `None` for those it does not have."""
        for name, table in tables.items():
            value = None if table is None else torch.as_tensor(table, dtype=torch.float64)
            setattr(self, name, value)

    def keep_network(self, network: nn.Module | None) -> None:
        """Keep the weights of a network instead of those of another, or none."""
        for name in self.network_state:
            delattr(self, _place_of(name))
        for name, weight in ({} if network is None else network.state_dict()).items():
            self.register_buffer(_place_of(name), weight.detach().cpu().clone())

    @property
    def network_state(self) -> dict[str, Tensor]:
        """Weights of the network by their names in it, empty if there is none."""
        kept = {k: v for k, v in self._buffers.items() if k.startswith(NETWORK)}
        return {k.removeprefix(NETWORK).replace("/", "."): v for k, v in kept.items()}

    def array(self, name: str) -> NDArray:
        """Return a table as an array."""
        return getattr(self, name).cpu().numpy()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for before, name in RENAMED.items():
            if prefix + before in state:
                state[prefix + name] = state.pop(prefix + before)
        for name in TABLES:
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        for name in state:
            if name.startswith(prefix + NETWORK):
                self.register_buffer(name.removeprefix(prefix), torch.empty_like(state[name]))
        super()._load_from_state_dict(state, prefix, *rest)


def _place_of(name: str) -> str:
    return NETWORK + name.replace(".", "/")
