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
    "naive",
    "naive_se",
    "scree",
)


class ConfounderModule(nn.Module):
    r"""Negative binomial regression of counts on covariates, treatment and latent scores.

    Holds the tables of the fit, whose shapes are known only once it is there:

    scores
        :math:`U` or, of binary confounders, the probabilities, shape ``(n_cells, n_latent)``.
    states
        Probability of every combination of binary confounders, shape ``(n_cells, n_states)``.
    coefficients, dispersion, covariance, sandwich
        The regression, as in :class:`scovert.glm.Regression`.
    naive, naive_se
        Coefficients of the arms in the regression without scores and their standard errors, shape
        ``(n_arms, n_genes)``.
    scree
        Largest singular value and its threshold by number of factors, shape ``(n, 2)``.
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

    def array(self, name: str) -> NDArray:
        """Return a table as an array."""
        return getattr(self, name).cpu().numpy()

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
        for name in TABLES:
            if prefix + name in state:
                setattr(self, name, torch.empty_like(state[prefix + name]))
        super()._load_from_state_dict(state, prefix, *rest)
